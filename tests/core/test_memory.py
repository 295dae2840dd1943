"""Usage memory: exact whenever it is asked, bounded in what it may do."""

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.fairness import (
    TILT_SCALE,
    Claim,
    UsageMemory,
    divide,
    tilted,
    usage_score,
)
from scheduler.core.fairness.memory import MOST_TILT
from scheduler.core.quota import Fleet
from tests.strategies import MANY, claims

DAY = 86_400.0
RATES = st.integers(0, 1000)
GAPS = st.floats(0, 10 * DAY)
HALF_LIVES = st.floats(1.0, 100 * DAY)


# -- decay --------------------------------------------------------------------


def test_half_is_forgotten_in_a_half_life() -> None:
    """Eight GPUs borrowed for long count as four a day later, then two, then one."""
    memory = UsageMemory(DAY)
    memory.change("a", 8.0, 0.0)
    assert memory.average("a", 1000 * DAY) == pytest.approx(8.0)
    memory.change("a", 0.0, 1000 * DAY)
    for days, left in enumerate((8.0, 4.0, 2.0, 1.0)):
        assert memory.average("a", (1000 + days) * DAY) == pytest.approx(left)


def test_half_is_learned_in_a_half_life() -> None:
    """The memory tends to what is borrowed now: it reads in the same unit."""
    memory = UsageMemory(DAY)
    memory.change("a", 8.0, 0.0)
    assert memory.average("a", 0.0) == 0.0
    for days, known in enumerate((0.0, 4.0, 6.0, 7.0)):
        assert memory.average("a", days * DAY) == pytest.approx(known)


def test_nobody_has_a_past_before_the_first_note() -> None:
    """A new tenant starts even, whenever it comes."""
    assert UsageMemory(DAY).average("nobody", 5.0) == 0.0


def test_without_half_life_only_now_counts() -> None:
    """0 is the setting for no memory, and divides nothing by zero."""
    memory = UsageMemory(0.0)
    memory.change("a", 3.0, 0.0)
    assert memory.average("a", 0.0) == memory.average("a", DAY) == 3.0
    memory.change("a", 0.0, DAY)
    assert memory.average("a", DAY) == 0.0


def test_queues_are_remembered_apart() -> None:
    """One tenant's burst is no other tenant's debt."""
    memory = UsageMemory(DAY)
    memory.change("a", 8.0, 0.0)
    memory.change("b", 2.0, 0.0)
    assert memory.average("a", DAY) == pytest.approx(4.0)
    assert memory.average("b", DAY) == pytest.approx(1.0)


@MANY
@given(HALF_LIVES, RATES, st.lists(GAPS, max_size=12), GAPS)
def test_a_run_in_pieces_is_remembered_like_the_whole(
    half_life: float, rate: int, gaps: Sequence[float], last: float
) -> None:
    """Irregular sampling changes nothing: decay and growth are closed forms.

    Slurm's and KAI's decay by ticks is not: there the answer depends on the sampling.
    """
    whole, pieces = UsageMemory(half_life), UsageMemory(half_life)
    whole.change("a", float(rate), 0.0)
    now = 0.0
    for gap in gaps:
        pieces.change("a", float(rate), now)
        now += gap
    pieces.change("a", float(rate), now)
    now += last
    assert pieces.average("a", now) == pytest.approx(whole.average("a", now))


@MANY
@given(HALF_LIVES, st.lists(st.tuples(RATES, GAPS), min_size=1, max_size=12))
def test_memory_is_the_integral_of_what_was_borrowed(
    half_life: float, history: Sequence[tuple[int, float]]
) -> None:
    """By definition: a moment counts by its rate, halved per half-life since."""
    memory = UsageMemory(half_life)
    now = 0.0
    for rate, gap in history:
        memory.change("a", float(rate), now)
        now += gap
    expected, begun = 0.0, 0.0
    for rate, gap in history:
        ended = begun + gap
        old, new = (0.5 ** ((now - t) / half_life) for t in (begun, ended))
        expected += rate * (new - old)
        begun = ended
    assert memory.average("a", now) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert -1e-9 <= memory.average("a", now) <= max(r for r, _ in history) + 1e-9


def test_an_event_costs_the_same_however_long_the_past() -> None:
    """O(1): three numbers per queue, after a thousand changes as after one."""
    memory = UsageMemory(DAY)
    for second in range(1000):
        memory.change("a", float(second % 7), float(second))
    assert {name: len(known) for name, known in memory._known.items()} == {"a": 3}


# -- score --------------------------------------------------------------------


def test_score_adds_classes_by_worth_over_the_weight() -> None:
    """Two H100 worth 2.0 and one T4 worth 0.25, over a weight of 3."""
    averages, worth = {"h100": 2.0, "t4": 1.0}, {"h100": 2.0, "t4": 0.25}
    assert usage_score(averages, worth, 3) == pytest.approx(4.25 / 3)
    assert usage_score({"unknown": 2.0}, worth, 1) == 2.0
    assert usage_score({}, worth, 1) == 0.0


def test_score_of_weight_zero_is_infinite() -> None:
    """Who has no part in the burst pool always goes last in it."""
    assert usage_score({}, {}, 0) == float("inf")


# -- tilt ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "siblings", "usage", "strength", "expected"),
    [
        (1, 2, Fraction(1, 2), 1000, 1000),  # has had just its part
        (1, 2, Fraction(0), 1000, 2000),  # has had nothing: n + k n
        (1, 2, Fraction(1, 4), 1000, 1500),
        (1, 2, Fraction(3, 4), 1000, 500),
        (1, 2, Fraction(1), 1000, 250),  # 0, but for the bound
        (3, 4, Fraction(0), 1000, 6000),
        (3, 4, Fraction(1), 0, 3000),  # no strength, no tilt
        (1, 2, Fraction(0), 9000, 4000),  # 10 times, but for the bound
        (0, 2, Fraction(0), 1000, 0),  # no part in the burst pool
    ],
)
def test_tilt_is_kais_formula_within_bounds(
    weight: int, siblings: int, usage: Fraction, strength: int, expected: int
) -> None:
    """``n + k (n - u)``, never beyond a quarter or four times the weight."""
    assert tilted(weight, siblings, usage, strength) == expected


@MANY
@given(
    st.integers(1, 50),
    st.integers(0, 100),
    st.fractions(0, 3),
    st.fractions(0, 3),
    st.integers(0, 10_000),
)
def test_tilt_is_bounded_and_falls_with_use(
    weight: int, others: int, less: Fraction, more: Fraction, strength: int
) -> None:
    """NO STARVATION: the memory may slow a tenant down, never shut it out."""
    low, high = sorted((less, more))
    siblings = weight + others
    first, second = (tilted(weight, siblings, u, strength) for u in (low, high))
    assert first >= second
    for tilt in (first, second):
        assert weight * TILT_SCALE // MOST_TILT <= tilt
        assert tilt <= weight * TILT_SCALE * MOST_TILT
        assert isinstance(tilt, int)


@MANY
@given(st.integers(0, 80), claims(least_weight=1, keeping=False), st.data())
def test_tilted_weights_never_touch_guarantees(
    total: int, siblings: list[Claim], data: st.DataObject
) -> None:
    """GUARANTEE: whatever was borrowed in the past, what is theirs is theirs today."""
    weights = sum(claim.weight for claim in siblings)
    part = st.fractions(0, 1)
    bent = [
        Claim(
            c.guarantee,
            c.demands,
            tilted(c.weight, weights, data.draw(part), 1000),
            c.priority,
            c.order,
            c.ceiling,
        )
        for c in siblings
    ]
    for claim, share in zip(siblings, divide(total, bent), strict=True):
        top = claim.ceiling if claim.ceiling is not None else sum(claim.demands)
        assert share >= min(claim.guarantee, sum(claim.demands), top)


def test_who_borrowed_less_gets_more_of_the_next_burst() -> None:
    """The point of it all: equal weights, one has held the whole fleet till now."""
    fresh, sated = (tilted(1, 2, usage, 1000) for usage in (Fraction(0), Fraction(1)))
    rivals = [Claim(0, (9,), fresh, order=1), Claim(0, (9,), sated)]
    assert divide(9, rivals) == (8, 1)


@pytest.mark.parametrize(
    "setting", [{"half_life_s": -1.0}, {"memory_strength_milli": -1}]
)
def test_settings_below_zero_are_refused(setting: dict[str, float]) -> None:
    """A negative half-life would let the past grow."""
    with pytest.raises(
        ValueError, match="half_life_s and memory_strength_milli below 0"
    ):
        Fleet(**setting)  # type: ignore[arg-type]
