"""The books of a tree against books that are added up anew for each question."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.gpu import Form, charge
from scheduler.core.quota import QuotaTree
from scheduler.core.workload import TenantName
from tests.properties.oracle import Books, Rules, unpaid
from tests.properties.worlds import (
    A40,
    A80,
    FLEETS,
    H100,
    SLICE,
    TREES,
    World,
    charges,
    worlds,
)

pytestmark = pytest.mark.long
KINDS = (H100, A80, A40)
Held = Sequence[tuple[TenantName, Form, int]]


def charged(world: World, held: Held) -> QuotaTree:
    tree = world.tree()
    for one in held:
        tree.charge(*one)
    return tree


def told(tree: QuotaTree) -> list[object]:
    """Everything a tree answers about amounts."""
    pools = [*KINDS, SLICE, *sorted(tree.pools.members)]
    found: list[object] = [tree.shortages]
    for name in sorted(tree.queues):
        found.extend((tree.guarantees(name), tree.borrowed(name)))
        for pool in pools:
            found.extend((tree.used(name, pool), tree.held(name, pool)))
            found.extend((tree.inside(name, pool), tree.kept(name, pool)))
            if pool not in tree.pools.members:
                found.extend((tree.room(name, pool), tree.available(name, pool)))
                found.append(tree.potential(name, pool))
    return found


@TREES
@given(worlds(forms=KINDS, fleets=FLEETS), st.data())
def test_tree_consistency(world: World, data: st.DataObject) -> None:
    """A child's charge is its ancestors', and a form's is that of its groups.

    Used, held and borrowed are kept incrementally: a wrong delta would never heal.
    """
    held = data.draw(charges(world, KINDS))
    tree, rules = charged(world, held), world.rules()
    books = Books(rules, held)
    for name in tree.queues:
        for pool in books.pools:
            assert tree.used(name, pool) == books.used(name, pool)
            assert tree.inside(name, pool) == books.inside(name, pool)
            assert tree.held(name, pool) == books.held(name, pool)
            assert tree.guarantee(name, pool) == rules.guarantee(name, pool)
            assert tree.ceiling(name, pool) == rules.ceiling(name, pool)
        used = {form: books.used(name, form) for form in KINDS}
        loans = tree.borrowed(name)
        assert sum(loans.values()) == unpaid(rules, used, rules.owned[name])


@TREES
@given(worlds(forms=KINDS[:2], fleets=FLEETS[:3], size=6), st.data())
def test_available_is_the_largest_respectful_charge(
    world: World, data: st.DataObject
) -> None:
    """LIMIT: one more would take what another queue keeps, or pass a ceiling.

    From any state that is itself respectful, groups and their lending limits included.
    """
    rules = world.rules()
    books = Books(rules, [])
    one = st.tuples(st.sampled_from(world.leaves()), st.sampled_from(KINDS[:2]))
    for name, form in data.draw(st.lists(one, max_size=5)):
        more = Books(rules, [*books.charges, (name, form, charge(form))])
        books = more if more.is_respectful(name, form) else books
    tree = charged(world, books.charges)
    name, form = data.draw(one)
    free = tree.available(name, form)
    if Books(rules, books.charges).is_respectful(name, form):
        assert free >= 0
        assert Books(rules, [*books.charges, (name, form, free)]).is_respectful(
            name, form
        )
    over = [*books.charges, (name, form, max(0, free) + 1)]
    assert not Books(rules, over).is_respectful(name, form)


@TREES
@given(
    worlds(
        forms=KINDS[:2], fleets=FLEETS[:3], ceilings=False, fits=True, least_weight=1
    ),
    st.data(),
)
def test_what_is_kept_can_always_be_used(world: World, data: st.DataObject) -> None:
    """GUARANTEE: whatever others were given, a queue's idle own is there for it.

    It is had in some form of the pool, at once, without anybody's eviction, while no
    ceiling on a single form stands in the way (nor weight 0, which is one).
    """
    tree, tenants = world.tree(), world.leaves()
    one = st.tuples(st.sampled_from(tenants), st.sampled_from(KINDS[:2]))
    for name, form in data.draw(st.lists(one, max_size=6)):
        tree.charge(name, form, max(0, tree.available(name, form)))
    for name in tenants:
        for pool in (*KINDS[:2], *sorted(tree.pools.members)):
            due = tree.kept(name, pool) - tree.used(name, pool)
            after = tree.copy()
            for form in sorted(tree.pools.inside(pool)):
                part = min(max(0, due), max(0, after.available(name, form)))
                after.charge(name, form, part)
                due -= part
            assert due <= 0


@TREES
@given(worlds(forms=KINDS, fleets=FLEETS), st.randoms(use_true_random=False), st.data())
def test_conservation_over_charge_and_release(
    world: World, chance: random.Random, data: st.DataObject
) -> None:
    """CONSERVATION: whatever the order of departures, nothing leaks."""
    held = data.draw(charges(world, KINDS))
    tree, fresh = charged(world, held), told(world.tree())
    chance.shuffle(held)
    for one in held:
        tree.release(*one)
    assert told(tree) == fresh


@TREES
@given(worlds(forms=KINDS, fleets=FLEETS), st.data())
def test_scale_and_restore_round_trip(world: World, data: st.DataObject) -> None:
    """Nodes go and come back: every answer is what it was, whatever happened between.

    And what is answered meanwhile is what a tree of that size would say.
    """
    held = data.draw(charges(world, KINDS))
    there = st.dictionaries(st.sampled_from(KINDS), st.integers(0, 6))
    tree = charged(world, held[: len(held) // 2])
    for devices in data.draw(st.lists(there, max_size=3)):
        tree.capacity = {form: n * charge(form) for form, n in devices.items()}
        if data.draw(st.booleans()):
            smaller = World(world.queues, world.fleet, tuple(devices.items()))
            assert told(tree) == told(charged(smaller, held[: len(held) // 2]))
    for one in held[len(held) // 2 :]:
        tree.charge(*one)
    tree.capacity = world.capacity
    assert told(tree) == told(charged(world, held))


@TREES
@given(worlds(forms=KINDS, fleets=FLEETS), st.data())
def test_copy_lives_its_own_life(world: World, data: st.DataObject) -> None:
    """A problem ships its own tree: trying a plan must not charge the live one."""
    held = data.draw(charges(world, KINDS))
    tree = charged(world, held)
    before, twin = told(tree), tree.copy()
    assert told(twin) == before
    for one in data.draw(charges(world, KINDS)):
        twin.charge(*one)
    twin.capacity = {}
    assert told(tree) == before


@TREES
@given(worlds(forms=KINDS, fleets=FLEETS), st.data())
def test_order_independence_of_the_books(world: World, data: st.DataObject) -> None:
    """DETERMINISTIC: neither the order of objects nor that of charges is anything."""
    held = data.draw(charges(world, KINDS))
    queues = data.draw(st.permutations(world.queues))
    mixed = World(tuple(queues), world.fleet, world.devices)
    others = data.draw(st.permutations(held))
    assert told(charged(mixed, others)) == told(charged(world, held))


def test_rules_see_what_the_tree_sees() -> None:
    """The oracle is only worth its independence while both read the same tree."""
    world = World((), FLEETS[2], ((H100, 2),))
    rules = Rules((), world.fleet, world.capacity)
    assert rules.chain(A80) == list(world.tree().pools.chain(A80))
    assert rules.offered(Form("any")) == 2 * charge(H100)
