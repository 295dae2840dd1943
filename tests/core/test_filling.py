"""The arithmetic of one tier: a level that rises, whole units, largest remainders."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.fairness import fill
from scheduler.core.fairness.filling import fill_groups
from tests.properties.oracle import water, whole_water
from tests.strategies import MANY

TOTALS = st.integers(0, 80)
HUGE = 1 << 60


@pytest.mark.parametrize(
    ("total", "wants", "weights", "expected"),
    [
        (10, [3, 9, 9], [1, 1, 1], [3, 4, 3]),  # the small one is sated, then halves
        (12, [20, 20], [1, 2], [4, 8]),  # by weight
        (12, [2, 20], [1, 2], [2, 10]),  # what the sated leave goes on
        (7, [5, 5], [1, 1], [4, 3]),  # an odd unit goes to the older
        (8, [9, 9, 9], [1, 2, 4], [1, 2, 5]),  # remainders 1/7, 2/7, 4/7: the largest
        (20, [3, 4], [1, 1], [3, 4]),  # nobody gets more than it asks for
        (0, [3, 4], [1, 1], [0, 0]),
        (5, [], [], []),
    ],
)
def test_fill_raises_one_level_for_all(
    total: int, wants: list[int], weights: list[int], expected: list[int]
) -> None:
    """Each rule of the water-filling has its smallest example here."""
    assert fill(total, wants, weights, list(range(len(wants)))) == expected


def test_spare_units_go_to_the_older_of_equals() -> None:
    """Age, not position, breaks ties: the answer must not depend on the order."""
    assert fill(5, [9, 9, 9], [1, 1, 1], [2, 0, 1]) == [1, 2, 2]
    assert fill(4, [9, 9, 9], [1, 1, 1], [2, 0, 1]) == [1, 2, 1]


@MANY
@given(TOTALS, st.data())
def test_fill_is_max_min_fair_within_one_unit(total: int, data: st.DataObject) -> None:
    """An exact water-filling is the definition; integers may miss it by less than 1."""
    size = data.draw(st.integers(1, 7))
    several = st.lists(st.integers(0, 20), min_size=size, max_size=size)
    wants = data.draw(several)
    weights = [1 + weight for weight in data.draw(several)]
    given_ = fill(total, wants, weights, list(range(size)))
    assert sum(given_) == min(total, sum(wants))
    for mine, exact in zip(given_, water(Fraction(total), wants, weights), strict=True):
        assert abs(mine - exact) < 1


@MANY
@given(TOTALS, st.integers(2, 9), st.data())
def test_fill_in_units_is_fill_of_units(
    total: int, unit: int, data: st.DataObject
) -> None:
    """Granularity changes the currency, not the rule."""
    size = data.draw(st.integers(1, 6))
    several = st.lists(st.integers(0, 20), min_size=size, max_size=size)
    wants = data.draw(several)
    weights = [1 + weight for weight in data.draw(several)]
    ages = list(range(size))
    small = fill(total, wants, weights, ages)
    large = fill(total * unit, [w * unit for w in wants], weights, ages, unit)
    assert large == [amount * unit for amount in small]


@MANY
@given(st.integers(0, 200), st.integers(1, 9), st.data())
def test_fill_leaves_only_what_would_complete_nobody(
    total: int, unit: int, data: st.DataObject
) -> None:
    """Wants that are no whole units must not strand what could still serve someone."""
    size = data.draw(st.integers(1, 6))
    several = st.lists(st.integers(0, 40), min_size=size, max_size=size)
    wants = data.draw(several)
    given_ = fill(total, wants, [1] * size, list(range(size)), unit)
    spare = total - sum(given_)
    assert spare >= 0
    for want, mine in zip(wants, given_, strict=True):
        assert 0 <= mine <= want
        assert mine == want or spare < min(unit, want - mine)


# -- many groups at once ------------------------------------------------------


@MANY
@given(st.data())
def test_groups_do_not_touch_each_other(data: st.DataObject) -> None:
    """All siblings and forms are filled in one call: each as if it were alone."""
    amounts, group = st.integers(0, 30), []
    parts = []
    for number in range(data.draw(st.integers(1, 5))):
        size = data.draw(st.integers(0, 4))
        several = st.lists(amounts, min_size=size, max_size=size)
        parts.append((data.draw(amounts), data.draw(several), data.draw(several)))
        group += [number] * size
    rest = np.array([total for total, _, _ in parts], np.int64)
    wants = np.array([w for _, row, _ in parts for w in row], np.int64)
    weights = np.array([w for _, _, row in parts for w in row], np.int64)
    found = fill_groups(rest, np.array(group, np.int64), wants, weights)
    expected = [n for part in parts for n in whole_water(*part)]
    assert found.tolist() == expected


# -- numbers that do not fit --------------------------------------------------


@pytest.mark.parametrize(
    ("total", "wants", "weights", "expected"),
    [
        (HUGE, [HUGE, HUGE], [1, 1], [HUGE // 2, HUGE // 2]),
        (HUGE + 1, [HUGE, HUGE], [1, 1], [HUGE // 2 + 1, HUGE // 2]),
        (HUGE, [HUGE, HUGE], [1, HUGE], [1, HUGE - 1]),
        (HUGE, [HUGE, 3], [HUGE, HUGE], [HUGE - 3, 3]),
        (7, [5, 5], [HUGE, HUGE - 1], [4, 3]),
        (7, [5, 5], [HUGE - 1, HUGE], [3, 4]),
    ],
)
def test_huge_numbers_are_divided_exactly(
    total: int, wants: list[int], weights: list[int], expected: list[int]
) -> None:
    """CONSERVATION: no product wraps at 63 bits, none is rounded to 53."""
    assert fill(total, wants, weights, [0, 1]) == expected


def test_the_guess_in_floats_decides_nothing() -> None:
    """Wants per weight that floats cannot tell apart are told apart by integers."""
    wants = [(1 << 53) + n for n in range(4)]
    found = fill(sum(wants) - 2, wants, [1, 1, 1, 1], range(4))
    assert found == whole_water(sum(wants) - 2, wants, [1, 1, 1, 1])
    assert sum(found) == sum(wants) - 2


# -- what rounding cannot give ------------------------------------------------


def test_one_more_unit_may_cost_the_lightest_one() -> None:
    """Monotonicity holds up to one unit: largest remainders have the Alabama paradox.

    Of 10 the lightest gets 2 of its exact 1.43, of 11 only 1 of its 1.57: the two
    others have the larger remainders. The level rises all the same.
    """
    weights, wants, ages = [6, 6, 2], [99, 99, 99], range(3)
    assert fill(10, wants, weights, ages) == [4, 4, 2]
    assert fill(11, wants, weights, ages) == [5, 5, 1]


def test_equal_weights_never_lose_by_more_capacity() -> None:
    """Without unequal weights there is no paradox: every share only ever grows."""
    rows = [fill(total, [9, 5, 7], [2, 2, 2], [1, 0, 2]) for total in range(24)]
    for before, after in pairwise(rows):
        assert all(a <= b for a, b in zip(before, after, strict=True))


def test_two_light_names_may_round_better_than_one() -> None:
    """Splitting into siblings gains a unit at most: each half is rounded up alone."""
    assert fill(2, [9, 9, 9], [2, 1, 1], range(3)) == [1, 1, 0]
    assert fill(2, [9, 9, 9, 9], [1, 1, 1, 1], range(4)) == [1, 1, 0, 0]
