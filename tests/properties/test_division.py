"""The vectorised division against the plain one: equal to the last quantum."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.fairness import (
    TIERS,
    Division,
    Standing,
    divide_tiers,
    entitlements,
    fill,
)
from scheduler.core.gpu import Form, charge
from scheduler.core.workload import TenantName
from tests.properties import oracle
from tests.properties.worlds import (
    A40,
    A80,
    FLEETS,
    H100,
    SLICE,
    TREES,
    World,
    demands,
    divided,
    gangs,
    worlds,
)
from tests.strategies import claims

pytestmark = pytest.mark.long
Wanted = Mapping[TenantName, Sequence[int]]
HUGE = 1 << 60


# -- down a tree --------------------------------------------------------------


@TREES
@given(worlds(), st.sampled_from((H100, SLICE)), st.data())
def test_division_is_the_plain_one(
    world: World, form: Form, data: st.DataObject
) -> None:
    """Every rule of section 6 at once, down the tree, in devices and in quanta."""
    wanted = data.draw(demands(world, form))
    plain = oracle.Division(world.rules(), form, wanted)
    assert divided(world, wanted, form) == plain.shares


@TREES
@given(worlds(), st.data(), st.randoms(use_true_random=False))
def test_division_told_bit_by_bit_equals_division_from_scratch(
    world: World, data: st.DataObject, chance: random.Random
) -> None:
    """DETERMINISTIC: shares follow from what is asked for, never from its history."""
    division = Division(world.tree())
    told: dict[tuple[TenantName, Form], tuple[int, ...]] = {}
    for _ in range(data.draw(st.integers(1, 3))):
        form = data.draw(st.sampled_from((H100, SLICE)))
        asked = list(data.draw(demands(world, form)).items())
        chance.shuffle(asked)
        for name, tiers in asked:
            division.ask(name, form, tiers)
            told[name, form] = tiers
        looked_at = data.draw(st.sampled_from(world.queues)).name
        division.share(looked_at, form)  # an answer in between settles nothing
    for form in (H100, SLICE):
        wanted = {name: tiers for (name, f), tiers in told.items() if f == form}
        assert {
            queue.name: division.share(queue.name, form) for queue in world.queues
        } == oracle.Division(world.rules(), form, wanted).shares


@TREES
@given(worlds(forms=(H100,), most=3), st.data())
def test_huge_amounts_and_weights_are_as_exact(
    world: World, data: st.DataObject
) -> None:
    """CONSERVATION: products beyond 63 bits must not wrap, nor be rounded."""
    grow = data.draw(st.integers(1, 1 << 33), label="grow")
    heavy = st.integers(1, 10**9)

    def grown(counts: tuple[tuple[Form, int], ...]) -> tuple[tuple[Form, int], ...]:
        return tuple((form, count * grow) for form, count in counts)

    queues = tuple(
        replace(
            queue,
            guarantee=grown(queue.guarantee),
            borrowing_limit=grown(queue.borrowing_limit),
            lending_limit=grown(queue.lending_limit),
            limit=grown(queue.limit),
            weight=queue.weight and data.draw(heavy),
        )
        for queue in world.queues
    )
    large = World(queues, world.fleet, grown(world.devices))
    wanted = {
        name: tuple(n * grow for n in tiers)
        for name, tiers in data.draw(demands(world, most=4)).items()
    }
    plain = oracle.Division(large.rules(), H100, wanted)
    assert divided(large, wanted) == plain.shares


@TREES
@given(worlds(forms=(H100,)), st.data())
def test_other_weights_are_as_if_the_tree_had_them(
    world: World, data: st.DataObject
) -> None:
    """The usage memory tilts weights this way; it must touch nothing else."""
    wanted = data.draw(demands(world))
    chosen = data.draw(st.sets(st.sampled_from(world.queues)))
    tilted = {q.name: data.draw(st.integers(1, 9)) for q in chosen if q.weight}
    division = Division(world.tree())
    for name, tiers in wanted.items():
        division.ask(name, H100, tiers)
    before = {queue.name: division.share(queue.name, H100) for queue in world.queues}
    twin = division.reweighed(tilted)
    queues = tuple(
        replace(queue, weight=tilted.get(queue.name, queue.weight))
        for queue in world.queues
    )
    other = World(queues, world.fleet, world.devices)
    assert {q.name: twin.share(q.name, H100) for q in queues} == divided(other, wanted)
    assert {q.name: division.share(q.name, H100) for q in queues} == before


# -- guarantees of groups -----------------------------------------------------


@TREES
@given(worlds(forms=(H100, A80, A40), fleets=FLEETS[1:], size=5), st.data())
def test_guarantees_of_groups_are_divided_where_they_are_spent(
    world: World, data: st.DataObject
) -> None:
    """Each form is divided by the plain rule, with what the groups add to it."""
    tree, rules = world.tree(), world.rules()
    below: dict[TenantName, list[Standing]] = {}
    for name in world.leaves():
        found = data.draw(gangs((H100, A80, A40), prefix=f"{name}-", most=3))
        for queue in tree.path(name):
            below.setdefault(queue, []).extend(found)
    division = Division(tree)
    owned = {
        name: entitlements(below[name], tree.guarantees(name), tree.pools)
        for name in tree.queues
    }
    for form in (H100, A80, A40):
        wanted = {name: _by_tier(below[name], form) for name in world.leaves()}
        for name, tiers in wanted.items():
            division.ask(name, form, tiers)
        claimed = {name: owned[name].get(form, 0) for name in tree.queues}
        for name, amount in claimed.items():
            division.entitle(name, form, amount)
        plain = oracle.Division(rules, form, wanted, claimed)
        found = {name: division.share(name, form) for name in tree.queues}
        assert found == plain.shares


def _by_tier(standings: Sequence[Standing], form: Form) -> list[int]:
    found = [0] * TIERS
    for standing in standings:
        if standing.form == form:
            found[standing.workload_class] += standing.quanta
    return found


# -- among siblings -----------------------------------------------------------


@TREES
@given(st.integers(0, HUGE), st.data())
def test_filling_is_water_filling_with_the_largest_remainders(
    total: int, data: st.DataObject
) -> None:
    """The arithmetic alone, small to huge: an exact level, then whole units."""
    size = data.draw(st.integers(1, 7))
    top = data.draw(st.sampled_from((9, 1 << 20, HUGE // size)))
    several = st.lists(st.integers(0, top), min_size=size, max_size=size)
    wants, weights = data.draw(several), data.draw(several)
    there = total % (2 * top)
    expected = oracle.whole_water(there, wants, weights)
    assert fill(there, wants, weights, range(size)) == expected


@TREES
@given(st.integers(0, 80), claims(), st.integers(1, 6))
def test_siblings_are_divided_by_the_rule_tier_by_tier(
    total: int, siblings: list, unit: int
) -> None:
    """`divide`, the door for reports and simulations, is the tree's own arithmetic."""
    ages = sorted(siblings, key=lambda claim: claim.order)
    whole = all(
        amount % unit == 0
        for c in ages
        for amount in (*c.demands, c.guarantee, c.kept, c.ceiling or 0, total)
    )
    expected = _plain_siblings(total, ages, unit if whole else 1)
    assert divide_tiers(total, ages, unit) == expected


def _plain_siblings(total: int, ages: Sequence, unit: int) -> list[list[int]]:
    tops = [1 << 62 if c.ceiling is None else c.ceiling // unit for c in ages]
    wants = [
        oracle.spend(top, [n // unit for n in claim.demands])
        for top, claim in zip(tops, ages, strict=True)
    ]
    idle = [
        max(0, c.kept // unit - sum(want)) for c, want in zip(ages, wants, strict=True)
    ]
    shares = [
        oracle.spend(claim.guarantee // unit - spare, want)
        for claim, spare, want in zip(ages, idle, wants, strict=True)
    ]
    rest = max(0, total // unit - sum(idle) - sum(map(sum, shares)))
    for tier in range(TIERS):
        for priority in sorted({claim.priority for claim in ages}, reverse=True):
            group = [i for i, c in enumerate(ages) if c.priority == priority]
            more = [wants[i][tier] - shares[i][tier] for i in group]
            parts = oracle.whole_water(rest, more, [ages[i].weight for i in group])
            for i, part in zip(group, parts, strict=True):
                shares[i][tier] += part
                rest -= part
    return [[amount * unit for amount in share] for share in shares]


@TREES
@given(worlds(forms=(H100,), fits=True), st.data())
def test_rounding_costs_less_than_a_unit_per_level(
    world: World, data: st.DataObject
) -> None:
    """A share is off the exact one by less than as many units as there are levels."""
    wanted, rules = data.draw(demands(world)), world.rules()
    plain = oracle.Division(rules, H100, wanted)
    exact = oracle.Division(rules, H100, wanted, whole=False)
    for name, share in plain.shares.items():
        off = abs(Fraction(sum(share)) - sum(exact.shares[name]))
        assert off < len(rules.path(name)) * plain.unit
    assert plain.unit in (1, charge(H100))
