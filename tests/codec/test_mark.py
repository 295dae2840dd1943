"""The admission mark: what is written is read, and nothing else is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.codec import CodecError, Mark, decode_mark, encode_mark
from scheduler.codec.mark import MAX_MARK, MAX_QUANTA
from scheduler.core import TenantName, WorkloadClass, known_classes, parse_form

MARK = Mark(
    tenant=TenantName("research"),
    workload_class=WorkloadClass.TRAINING,
    form=parse_form("h100-80gb"),
    quanta=1_008_000,
    gang="team-a/job/train/01234567",
    decision="42",
    epoch=3,
    node="n7",
)
TEXT = (
    '{"version":1,"tenant":"research","class":"training","form":"h100-80gb",'
    '"quanta":1008000,"decision":"42","gang":"team-a/job/train/01234567","epoch":3,'
    '"node":"n7"}'
)

names = st.text(min_size=1, max_size=253)
marks = st.builds(
    Mark,
    tenant=names.map(TenantName),
    workload_class=st.sampled_from(WorkloadClass),
    form=st.sampled_from(
        [
            *(parse_form(name) for name in known_classes()),
            parse_form("h100-80gb/1g.10gb+me"),
            parse_form("a10-24gb/shared-4"),
        ]
    ),
    quanta=st.integers(0, MAX_QUANTA),
    gang=st.text(max_size=317),
    decision=st.text(max_size=64),
    epoch=st.integers(0, MAX_QUANTA),
    node=st.text(max_size=253),
)


def test_golden() -> None:
    """The text stays on pods over upgrades: it must not change by accident."""
    assert encode_mark(MARK) == TEXT
    assert decode_mark(TEXT) == MARK


def test_what_is_empty_is_left_out() -> None:
    alone = Mark(
        TenantName("a"),
        WorkloadClass.INFERENCE_CRITICAL,
        parse_form("h100-80gb/1g.10gb"),
        15_750,
        gang="",
        decision="d",
    )
    text = encode_mark(alone)
    assert "gang" not in text
    assert "epoch" not in text
    assert "node" not in text
    assert decode_mark(text) == alone


@given(marks)
def test_what_is_written_is_read(mark: Mark) -> None:
    text = encode_mark(mark)
    assert decode_mark(text) == mark
    assert text == text.strip()
    assert len(text) <= MAX_MARK


def test_a_newer_writer_may_add_keys() -> None:
    assert decode_mark(TEXT[:-1] + ',"colour":["red"]}') == MARK


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version: '2' is not 1"),
        ({"version": 2, "class": {"new": "shape"}}, "version: '2' is not 1"),
        ({"tenant": ""}, "tenant: '' must not be empty"),
        ({"class": "fast"}, "class: 'fast' is no workload class"),
        ({"form": "H100"}, "form: 'H100' is none"),
        ({"form": "h100-80gb/9g.1gb"}, "form: 'h100-80gb/9g.1gb' is none"),
        ({"quanta": -1}, "quanta: '-1' is out of range"),
        ({"quanta": 2**60}, "is out of range"),
        ({"epoch": -5}, "epoch: '-5' is out of range"),
        ({"quanta": "many"}, "is no mark: Expected `int`, got `str` - at `$.quanta`"),
        ({"quanta": 1.5}, "is no mark"),
        ({"tenant": None}, "is no mark"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CodecError) as caught:
        decode_mark(json.dumps(json.loads(TEXT) | change))
    assert str(caught.value).startswith("annotation fairshare.dev/admission: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "true", "{}", "[", "x" * (MAX_MARK + 1)])
def test_what_is_no_mark_is_refused(text: str) -> None:
    with pytest.raises(CodecError, match=r"annotation fairshare\.dev/admission: text"):
        decode_mark(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(CodecError):
        decode_mark(text)
