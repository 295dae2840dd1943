"""What becomes of guarantees that no longer fit, on random trees."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.gpu import Form, charge
from scheduler.core.quota import Pools, Queue, QuotaTree, refusals
from scheduler.core.quota.scaling import served
from scheduler.core.workload import TenantName
from tests.properties.oracle import Rules, most_served
from tests.properties.worlds import (
    A40,
    A80,
    FLEETS,
    H100,
    SLICE,
    TREES,
    World,
    worlds,
)

pytestmark = pytest.mark.long
KINDS = (H100, A80, A40)
Owned = dict[Form, int]


def guaranteed(tree: QuotaTree, names: list[TenantName]) -> Owned:
    """What is guaranteed to several queues together."""
    found: Owned = {}
    for name in names:
        for pool, amount in tree.guarantees(name).items():
            found[pool] = found.get(pool, 0) + amount
    return found


@st.composite
def supplies(draw: st.DrawFn) -> tuple[World, Owned, Owned]:
    """A fleet with groups, what is supplied, and what is wanted."""
    fleet = draw(st.sampled_from(FLEETS))
    pools = [*KINDS, *(group.name for group in fleet.groups)]
    amounts = st.dictionaries(st.sampled_from(pools), st.integers(0, 5))
    return World((), fleet, ()), draw(amounts), draw(amounts)


@TREES
@given(supplies())
def test_guarantees_never_count_twice(case: tuple[World, Owned, Owned]) -> None:
    """CONSERVATION: of forms and groups together, exactly what can be had at once.

    A group is served from what its members have left.
    """
    world, supply, wanted = case
    found = served(Pools(world.fleet), supply, wanted)
    rules = world.rules()
    assert set(found) == set(wanted)
    assert all(0 <= found[pool] <= wanted[pool] for pool in wanted)
    assert sum(found.values()) == most_served(rules, supply, wanted)
    assert most_served(rules, supply, found) == sum(found.values())
    for pool, member in permutations(wanted, 2):
        inside = pool in rules.chain(member)
        if inside and found[pool] and found[member] < wanted[member]:
            moved = {pool: found[pool] - 1, member: found[member] + 1}
            swapped = found | moved  # no unit of a group would serve a member
            assert most_served(rules, supply, swapped) < sum(swapped.values())


@TREES
@given(worlds(forms=(*KINDS, SLICE), fleets=FLEETS))
def test_scaled_guarantees_fit_at_every_level(world: World) -> None:
    """GUARANTEE: what a tree still promises is there, below every queue at once."""
    tree, rules = world.tree(), world.rules()
    for parent in (None, *tree.queues):
        names = tree.children.get(parent, [])
        supply = tree.capacity if parent is None else tree.guarantees(parent)
        owned = guaranteed(tree, names)
        assert most_served(rules, supply, owned) == sum(owned.values())


@TREES
@given(worlds(forms=(*KINDS, SLICE), fleets=FLEETS[:1]))
def test_guarantees_are_cut_by_priority_then_pro_rata(world: World) -> None:
    """The one written rule: lower tiers first, then the same part of each, whole.

    Nobody gains; who is in the tier that is cut keeps its part to less than a device;
    tiers above lose nothing and tiers below have nothing.
    """
    tree = world.tree()
    for parent in (None, *tree.queues):
        names = tree.children.get(parent, [])
        for pool in guaranteed(tree, names):
            promised = {n: tree.promised(n).get(pool, 0) for n in names}
            left = {n: tree.guarantee(n, pool) for n in names}
            assert all(left[n] <= promised[n] for n in names)
            assert all(amount % charge(pool) == 0 for amount in left.values())
            for a, b in combinations(names, 2):
                _check_pair(tree.queues[a], tree.queues[b], pool, promised, left)
                _check_pair(tree.queues[b], tree.queues[a], pool, promised, left)
            _check_tiers(tree, names, pool, promised, left)


def _check_pair(
    first: Queue,
    second: Queue,
    pool: Form,
    promised: Mapping[TenantName, int],
    left: Mapping[TenantName, int],
) -> None:
    """A higher priority is short only where a lower one has nothing."""
    a, b = first.name, second.name
    if first.priority > second.priority and left[a] < promised[a]:
        assert left[b] == 0
    if first.priority == second.priority and promised[a] >= promised[b]:
        more_remainder = left[a] - left[b] >= -charge(pool)
        assert more_remainder


def _check_tiers(
    tree: QuotaTree,
    names: list[TenantName],
    pool: Form,
    promised: Mapping[TenantName, int],
    left: Mapping[TenantName, int],
) -> None:
    """Inside a tier everybody has the same part, to less than a device."""
    for priority in {tree.queues[name].priority for name in names}:
        tier = [name for name in names if tree.queues[name].priority == priority]
        asked, had = sum(promised[n] for n in tier), sum(left[n] for n in tier)
        for name in tier if asked else ():
            off = left[name] * asked - promised[name] * had
            assert abs(off) < asked * charge(pool)


@TREES
@given(worlds(forms=KINDS, fleets=FLEETS))
def test_guarantees_that_fit_are_never_cut(world: World) -> None:
    """GUARANTEE: nobody pays for a shortage that is not there.

    A queue is cut exactly where its siblings together do not fit what is above them;
    with groups also where a class is short that its parent's group cannot supply.
    """
    tree, rules = world.tree(), world.rules()
    for parent in (None, *tree.queues):
        names = tree.children.get(parent, [])
        supply = tree.capacity if parent is None else tree.guarantees(parent)
        wanted: Owned = {}
        for name in names:
            for pool, amount in tree.promised(name).items():
                wanted[pool] = wanted.get(pool, 0) + amount
        whole = all(tree.guarantees(name) == tree.promised(name) for name in names)
        fits = most_served(rules, supply, wanted) == sum(wanted.values())
        assert whole <= fits
        if not world.fleet.groups:
            assert whole == fits
    assert {n: tree.guarantees(n) for n in tree.queues} == rules.owned
    uncut = all(tree.guarantees(n) == tree.promised(n) for n in tree.queues)
    assert uncut == (tree.shortages == ())


@TREES
@given(worlds(forms=KINDS, fleets=FLEETS), st.data())
def test_more_capacity_never_lowers_what_is_guaranteed_in_all(
    world: World, data: st.DataObject
) -> None:
    """A node that comes back restores guarantees: their sum never falls.

    A single one may lose a device to rounding (the Alabama paradox), as in
    ``tests/core/test_scaling.py``.
    """
    more = data.draw(st.sampled_from(KINDS))
    devices = tuple((form, n + (form == more)) for form, n in world.devices)
    larger = World(world.queues, world.fleet, devices)
    before, after = world.tree(), larger.tree()
    roots = before.children[None]
    old, new = guaranteed(before, roots), guaranteed(after, roots)
    assert sum(old.values()) <= sum(new.values())


@TREES
@given(worlds(forms=KINDS, fleets=FLEETS), st.data())
def test_an_update_that_changes_no_amount_is_never_refused_for_a_shortage(
    world: World, data: st.DataObject
) -> None:
    """Weights, ages and names of a tree that is short already may still be mended."""
    queues = tuple(
        replace(queue, weight=queue.weight + data.draw(st.integers(0, 2)) or 1)
        for queue in world.queues
    )
    found = refusals(queues, world.fleet, world.capacity, world.tree())
    assert [text for text in found if text.startswith("guarantees")] == []


@TREES
@given(worlds(forms=KINDS, fleets=FLEETS), st.data())
def test_whoever_gives_way_is_never_refused(world: World, data: st.DataObject) -> None:
    """A tree that is short is mended step by step, from whichever end.

    A tenant's guarantee is lowered, of any pool, while anything else stays short.
    """
    name = data.draw(st.sampled_from(world.leaves()))
    queues = tuple(
        replace(
            queue,
            guarantee=tuple(
                (pool, data.draw(st.integers(0, n))) for pool, n in queue.guarantee
            ),
            weight=queue.weight or 1,
        )
        if queue.name == name
        else queue
        for queue in world.queues
    )
    found = refusals(queues, world.fleet, world.capacity, world.tree())
    assert [text for text in found if "available" in text or "guaranteed" in text] == []


@TREES
@given(worlds(forms=(H100,), fits=True), st.data())
def test_a_new_shortage_is_refused_with_its_numbers(
    world: World, data: st.DataObject
) -> None:
    """Whoever asks for more than there is learns how much there is."""
    queue = data.draw(st.sampled_from(world.queues))
    rest = [other for other in world.queues if other is not queue]
    much = sum(n for _, n in world.devices) + 1
    greedy = replace(queue, guarantee=((H100, much),), limit=())
    before = QuotaTree([*rest, replace(queue, guarantee=())], world.fleet)
    before.capacity = world.capacity
    found = refusals([*rest, greedy], world.fleet, world.capacity, before)
    told = [text for text in found if text.startswith("guarantees of h100-80gb")]
    assert any(f"{much}" in text and queue.name in text for text in told)


def test_the_plain_rules_scale_with_the_products_own_supply() -> None:
    """The oracle borrows `served`, which the first property here judges by itself."""
    queue = Queue(name=TenantName("a"), guarantee=((H100, 4),))
    assert Rules([queue], FLEETS[0], {H100: charge(H100)}).owned == {
        "a": {H100: charge(H100)}
    }
