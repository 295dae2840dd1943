"""Events and actions as bytes: what comes back is what went in."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.cluster import Node
from scheduler.core.events import (
    Action,
    Admit,
    CheckpointDone,
    CheckpointRequest,
    Event,
    Evict,
    NodeChanged,
    NodeDown,
    NodeUp,
    PodBound,
    PodGone,
    PodSubmitted,
    TenantsChanged,
    Withdraw,
)
from scheduler.core.journal import EVENTS, decode_event, encode
from scheduler.core.workload import GangId, NodeName, PodUid, WorkloadClass
from tests import builders
from tests.strategies import (
    FORMS,
    MANY,
    SECONDS,
    SOME,
    TEXT,
    WHOLE,
    nodes,
    pods,
    trees,
)

NODES: st.SearchStrategy[Node] = TEXT.flatmap(nodes)


@st.composite
def bindings(draw: st.DrawFn) -> PodBound:
    """A bound pod; after a restart the record carries the pod and its form."""
    pod = draw(st.none() | pods())
    uid = pod.uid if pod else PodUid(draw(TEXT))
    form = draw(st.none() | st.sampled_from(FORMS))
    return PodBound(uid, NodeName(draw(TEXT)), pod, form)


EVENT: st.SearchStrategy[Event] = st.one_of(
    st.builds(NodeUp, NODES),
    st.builds(NodeChanged, NODES),
    st.builds(NodeDown, TEXT),
    st.builds(PodSubmitted, pods()),
    bindings(),
    st.builds(PodGone, TEXT),
    st.builds(CheckpointDone, TEXT),
    st.builds(TenantsChanged, trees(forms=FORMS, size=3)),
)

ACTIONS: list[tuple[Action, dict[str, object]]] = [
    (
        Admit(PodUid("p"), GangId("g"), NodeName("n"), WHOLE, 126_000, 7),
        {
            "kind": "Admit",
            "uid": "p",
            "gang": "g",
            "node": "n",
            "form": "h100-80gb",
            "quanta": 126_000,
            "decision": 7,
        },
    ),
    (
        Withdraw(PodUid("p"), GangId("g"), NodeName("n"), "late"),
        {"kind": "Withdraw", "uid": "p", "gang": "g", "node": "n", "reason": "late"},
    ),
    (
        CheckpointRequest(PodUid("p"), GangId("g"), NodeName("n"), 9.5, GangId("b")),
        {
            "kind": "CheckpointRequest",
            "uid": "p",
            "gang": "g",
            "node": "n",
            "deadline": 9.5,
            "beneficiary": "b",
        },
    ),
    (
        Evict(PodUid("p"), GangId("g"), NodeName("n"), 120.0, "reclaimed", None),
        {
            "kind": "Evict",
            "uid": "p",
            "gang": "g",
            "node": "n",
            "grace_s": 120.0,
            "reason": "reclaimed",
            "beneficiary": None,
        },
    ),
]


@MANY
@given(SECONDS, EVENT)
def test_every_event_comes_back_as_it_was(at: float, event: Event) -> None:
    """Replay decides from the journal alone: a field that changes is another story."""
    line = encode(at, event)
    assert decode_event(line) == (at, event)
    assert type(decode_event(line)[1]) is type(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


@SOME
@given(SECONDS, EVENT)
def test_equal_histories_are_equal_bytes(at: float, event: Event) -> None:
    """DETERMINISTIC is proved by comparing journals, byte for byte."""
    line = encode(at, event)
    assert encode(*decode_event(line)) == line


def test_every_kind_of_event_can_be_read() -> None:
    """A new event that the journal does not know would be lost on replay."""
    assert set(EVENTS) == {kind.__name__ for kind in get_args(Event)}


@pytest.mark.parametrize(
    ("action", "expected"), ACTIONS, ids=lambda value: type(value).__name__
)
def test_actions_are_written_field_by_field(
    action: Action, expected: dict[str, object]
) -> None:
    """People and other programs read them; the order of fields is part of it."""
    line = encode(12, action)
    assert json.loads(line) == {"at": 12.0, **expected}
    assert list(json.loads(line)) == ["at", *expected]


def test_every_action_is_among_the_examples() -> None:
    """So that the list above grows with the vocabulary."""
    assert {type(action) for action, _ in ACTIONS} == set(get_args(Action))


def test_time_is_always_a_float() -> None:
    """One second is written one way, or equal histories differ."""
    event = PodGone(PodUid("a"))
    assert encode(1, event) == encode(1.0, event)
    assert encode(1, event) == b'{"at":1.0,"kind":"PodGone","uid":"a"}\n'


def test_classes_are_written_as_numbers_and_read_as_classes() -> None:
    """The enum survives: an int that only compares equal would print otherwise."""
    event = PodSubmitted(builders.pod("p", "a", 2, kind="inference"))
    back = decode_event(encode(0.0, event))[1]
    assert isinstance(back, PodSubmitted)
    assert back.pod.workload_class is WorkloadClass.INFERENCE


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", "truncated"),
        (b"nonsense", "malformed"),
        (b"\xff", "malformed"),
        (b"5", "Expected `object`"),
        (b"[]", "Expected `object`"),
        (b"{}", "not an event: kind None at None"),
        (b'{"kind": "PodGone", "uid": "a"}', "not an event: kind 'PodGone' at None"),
        (b'{"kind": "PodGone", "at": "1", "uid": "a"}', "at '1'"),
        (b'{"kind": "PodGone", "at": true, "uid": "a"}', "at True"),
        (b'{"kind": "Nothing", "at": 1}', "not an event: kind 'Nothing' at 1"),
        (b'{"kind": ["PodGone"], "at": 1}', "not an event: kind \\['PodGone'\\] at 1"),
        (b'{"kind": "Admit", "at": 1}', "not an event: kind 'Admit' at 1"),
        (b'{"kind": "PodGone", "at": 1}', "missing required field `uid`"),
        (b'{"kind": "PodGone", "at": 1, "uid": 5}', "Expected `str`, got `int`"),
        (
            b'{"kind": "NodeDown", "at": 1, "name": null}',
            "Expected `str`, got `null` - at `\\$.name`",
        ),
        (
            b'{"kind": "NodeUp", "at": 1, "node": '
            b'{"name": "n", "gpus": 1, "offers": [["h100-80gb", -1]]}}',
            "h100-80gb is negative: -1",
        ),
        (
            b'{"kind": "NodeUp", "at": 1, "node": '
            b'{"name": "n", "gpus": 1, "offers": [["H100", 1]]}}',
            "node 'n': 'H100': 'H100' is no GPU class",
        ),
        (
            b'{"kind": "PodBound", "at": 1, "uid": "a", "node": "n", "form": "H100"}',
            "'H100' is no GPU class",
        ),
        (
            b'{"kind": "PodSubmitted", "at": 1, "pod": {"uid": "a", "name": "a", '
            b'"tenant": "t", "workload_class": 9, "demand": {"count": 1}}}',
            "Invalid enum value 9",
        ),
        (
            b'{"kind": "PodSubmitted", "at": 1, "pod": {"uid": "a", "name": "a", '
            b'"tenant": "t", "workload_class": 2, "demand": {"count": 0}}}',
            "count must be at least 1, got 0",
        ),
        (
            b'{"kind": "PodSubmitted", "at": 1, "pod": {"uid": "a", "name": "a", '
            b'"tenant": "t", "workload_class": 2, "demand": {"count": "1"}}}',
            "Expected `int`, got `str`",
        ),
    ],
)
def test_bad_line_is_refused_with_what_is_wrong(line: bytes, text: str) -> None:
    """One named error at the edge; nothing of a bad line is half applied."""
    with pytest.raises(ValueError, match=text):
        decode_event(line)
