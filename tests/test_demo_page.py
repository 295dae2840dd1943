"""What the report of `make demo-kubernetes` shows is what happened."""

from dataclasses import replace

import pytest

from deploy.demo import claims
from deploy.demo.chronicle import Life
from deploy.demo.claims import Claims, DemoError
from deploy.demo.segments import (
    GATE,
    HELD,
    RUNS,
    SAVES,
    STOPS,
    lanes,
    seats,
    segments,
    use,
)

LIFE = Life("research", "sweep", "sweep-1", 8, created=1.0)
VICTIM = replace(
    LIFE, node="n0", opened=2.0, bound=2.0, asked=5.0, saved=6.0, ending=7.0, gone=9.0
)


def in_words(life: Life, now: float) -> list[tuple[str, float, float]]:
    return [(s.state, s.begin, s.end) for s in segments(life, now)]


def test_a_life_is_told_without_gaps() -> None:
    assert in_words(VICTIM, 20.0) == [
        (GATE, 1.0, 2.0),
        (RUNS, 2.0, 5.0),
        (SAVES, 5.0, 7.0),
        (STOPS, 7.0, 9.0),
    ]


def test_who_waits_waits_until_now() -> None:
    assert in_words(LIFE, 20.0) == [(GATE, 1.0, 20.0)]
    held = replace(LIFE, held=3.0, hold="n0")
    assert in_words(held, 20.0) == [(GATE, 1.0, 3.0), (HELD, 3.0, 20.0)]


def test_a_successor_has_the_row_of_whom_it_follows() -> None:
    successor = replace(LIFE, name="sweep-2", created=9.0)
    fellow = replace(LIFE, name="sweep-3", created=5.0)
    assert lanes([successor, fellow, VICTIM]) == [[VICTIM, successor], [fellow]]


def test_pods_of_a_node_are_drawn_side_by_side_until_one_is_gone() -> None:
    small = replace(LIFE, gpus=4, node="n0")
    a = replace(small, name="a", bound=9.0, gone=12.0)
    b = replace(small, name="b", bound=10.0)
    c = replace(small, name="c", bound=12.0)
    elsewhere = replace(small, name="d", node="n1", bound=10.0)
    found = seats([VICTIM, a, b, c, elsewhere], 8)
    assert found == {"sweep-1": 0, "a": 0, "b": 4, "c": 0, "d": 0}


def test_gpus_are_in_use_from_bind_to_end() -> None:
    assert use([VICTIM, LIFE], 20.0) == [(0.0, 0), (2.0, 8), (9.0, 0), (20.0, 0)]


def a_judge() -> Claims:
    return Claims(lambda: 1.0, lambda text: None, lambda: None)


def test_a_claim_that_does_not_hold_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims, "PATIENCE_S", 0.1)
    judge = a_judge()
    with pytest.raises(DemoError, match="not so that pigs fly"):
        judge.check("pigs fly", False)
    with pytest.raises(DemoError, match=r"within 0\.1 s it was not so that pigs fly"):
        judge.until("pigs fly", lambda: False)
    assert judge.held == []


def test_claims_that_hold_are_kept_in_their_order() -> None:
    judge = a_judge()
    judge.check("one", True)
    judge.until("two", lambda: True)
    assert [claim.text for claim in judge.held] == ["one", "two"]
