"""Burst by value: how much a queue may borrow over all classes together."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.gpu import Form, charge, parse_form
from scheduler.core.quota import UNLIMITED, Fleet, Group, Queue, QuotaTree
from scheduler.core.workload import TenantName
from tests import builders
from tests.properties.worlds import A40, A80, FLEETS, H100, TREES, World, worlds

GPU = charge(H100)
T4 = parse_form("t4-16gb")
A, B, D = (TenantName(name) for name in "abd")
A100 = Form("any-a100")
WORTH = ((H100, 2000), (A80, 1000), (A40, 1000), (T4, 250))
FLEET = Fleet(
    groups=(Group(name=A100, members=(A80, A40)),),
    values=tuple((str(form), worth) for form, worth in WORTH),
)


def bursting(name: str = "a", guarantee: str = "", burst: int = 2000, **more: str):
    return replace(builders.tenant(name, guarantee, **more), burst_milli=burst)


def tree_of(*queues: Queue, fleet: Fleet = FLEET, devices: int = 100) -> QuotaTree:
    tree = QuotaTree(queues, fleet)
    tree.capacity = {form: devices * GPU for form in (H100, A80, A40, T4)}
    return tree


def rooms(tree: QuotaTree, name: TenantName = A) -> dict[Form, int]:
    """Devices that may still be charged, by class."""
    return {form: tree.room(name, form) // GPU for form in (H100, A80, A40, T4)}


# -- what is left to borrow ---------------------------------------------------


def test_burst_is_twice_the_guarantee_by_value_in_any_class() -> None:
    """4 H100 are worth 8 A100: burst 2.0 lends 16 of these, 8 H100 or 64 T4."""
    tree = tree_of(bursting("a", "4xh100-80gb"))
    assert rooms(tree) == {H100: 4 + 8, A80: 16, A40: 16, T4: 64}
    tree.charge(A, A80, 6 * GPU)
    assert rooms(tree) == {H100: 4 + 5, A80: 10, A40: 10, T4: 40}


def test_use_within_the_guarantee_spends_no_burst() -> None:
    """Only what is held above the guarantee is borrowed."""
    tree = tree_of(bursting("a", "4xh100-80gb 2xa100-80gb"))
    tree.charge(A, H100, 4 * GPU)
    assert rooms(tree) == {H100: 10, A80: 2 + 20, A40: 20, T4: 80}
    tree.charge(A, A80, 2 * GPU)
    assert rooms(tree) == {H100: 10, A80: 20, A40: 20, T4: 80}
    tree.charge(A, A80, GPU)
    assert rooms(tree) == {H100: 9, A80: 19, A40: 19, T4: 76}


def test_the_last_device_must_fit_the_bound_in_full() -> None:
    """Three quarters of an H100's worth is no H100, to the quantum."""
    tree = tree_of(bursting("a", "1xh100-80gb", burst=500))
    assert tree.room(A, H100) == GPU + GPU // 2
    tree.charge(A, T4, GPU)
    assert tree.room(A, H100) == GPU + 750 * GPU // 2000


def test_a_class_with_its_own_borrowing_limit_is_exempt() -> None:
    """It neither counts nor is bound: the owner wrote down another number for it."""
    tree = tree_of(bursting("a", "4xa100-80gb", 1000, borrowing="3xh100-80gb"))
    assert rooms(tree) == {H100: 3, A80: 8, A40: 4, T4: 16}
    tree.charge(A, H100, 3 * GPU)
    assert rooms(tree) == {H100: 0, A80: 8, A40: 4, T4: 16}
    tree.charge(A, T4, 16 * GPU)
    assert rooms(tree) == {H100: 0, A80: 4, A40: 0, T4: 0}


def test_a_borrowing_limit_on_a_group_exempts_its_members() -> None:
    """What is written for any A100 is written for each of them."""
    tree = tree_of(bursting("a", "2xh100-80gb", 1000, borrowing="5xany-a100"))
    assert rooms(tree) == {H100: 4, A80: 5, A40: 5, T4: 16}
    tree.charge(A, A80, 3 * GPU)
    assert rooms(tree) == {H100: 4, A80: 2, A40: 2, T4: 16}


def test_a_guarantee_of_a_group_pays_before_burst_does() -> None:
    """3 x any A100 are had in either member; what comes on top is borrowed."""
    tree = tree_of(bursting("a", "3xany-a100", 1000))
    assert rooms(tree) == {H100: 1, A80: 6, A40: 6, T4: 12}
    tree.charge(A, A80, 2 * GPU)
    assert rooms(tree) == {H100: 1, A80: 4, A40: 4, T4: 12}
    tree.charge(A, A40, 2 * GPU)
    assert rooms(tree) == {H100: 1, A80: 2, A40: 2, T4: 8}


def test_borrowing_any_a100_counts_as_the_cheapest() -> None:
    """A group is worth its least member: nobody pays for a class it need not have."""
    fleet = replace(FLEET, values=((A80, 1000), (A40, 500), (H100, 2000), (T4, 250)))
    tree = tree_of(bursting("a", "2xany-a100", 1000), fleet=fleet)
    assert tree.room(A, A80) == (2 + 2) * GPU
    tree.charge(A, A80, 4 * GPU)
    assert rooms(tree) == {H100: 0, A80: 0, A40: 0, T4: 0}


def test_burst_zero_is_the_guarantee_and_nothing_else() -> None:
    """0 is a number, not "no bound"."""
    tree = tree_of(bursting("a", "2xh100-80gb", 0))
    assert rooms(tree) == {H100: 2, A80: 0, A40: 0, T4: 0}


def test_no_burst_written_down_is_no_bound() -> None:
    """What an owner does not write does not bind."""
    tree = tree_of(builders.tenant("a", "2xh100-80gb"))
    assert tree.room(A, T4) == UNLIMITED


def test_a_limit_binds_beside_the_burst() -> None:
    """LIMIT: the lowest of all bounds counts, class by class."""
    tree = tree_of(bursting("a", "4xh100-80gb", limit="6xh100-80gb"))
    assert rooms(tree) == {H100: 6, A80: 16, A40: 16, T4: 64}


def test_what_was_promised_counts_while_nodes_are_lost() -> None:
    """Lost nodes put nobody above its burst: the written guarantee counts."""
    tree = tree_of(bursting("a", "4xh100-80gb"))
    before = rooms(tree)
    tree.capacity = {H100: GPU, T4: 9 * GPU}
    assert tree.guarantee(A, H100) == GPU
    assert rooms(tree) == before


def test_a_departments_burst_binds_its_tenants_together() -> None:
    """The bound of a queue is one for all below it; a tenant's own comes on top."""
    tree = tree_of(
        bursting("d", "4xa100-80gb", 500),
        bursting("a", "2xa100-80gb", 1000, parent="d"),
        builders.tenant("b", "2xa100-80gb", parent="d", order=1),
    )
    assert tree.room(A, A80) == 4 * GPU
    assert tree.room(B, A80) == 6 * GPU
    tree.charge(B, T4, 4 * GPU)
    assert tree.room(A, T4) == 4 * GPU
    assert tree.room(A, A80) == 4 * GPU
    tree.charge(B, T4, 4 * GPU)
    assert tree.room(A, T4) == 0
    assert tree.room(A, A80) == 4 * GPU  # of what the department is guaranteed


# -- the guarantee-less, and the ceiling of the fleet -------------------------


def test_without_guarantee_only_the_fleets_ceiling_binds() -> None:
    """Twice nothing would be nothing: a guest with burst 2.0 may still burst."""
    fleet = replace(FLEET, burst_ceiling=((H100, 5),))
    tree = tree_of(bursting("a"), fleet=fleet)
    assert tree.room(A, H100) == 5 * GPU
    assert tree.room(A, A80) == UNLIMITED
    empty = tree_of(bursting("a", "0xh100-80gb"))
    assert empty.room(A, H100) == UNLIMITED


def test_the_fleets_ceiling_is_one_for_all_roots() -> None:
    """What one borrows another cannot; what is guaranteed is outside the ceiling."""
    fleet = replace(FLEET, burst_ceiling=((H100, 5),))
    tree = tree_of(
        builders.tenant("a", "2xh100-80gb"),
        builders.tenant("b", order=1),
        fleet=fleet,
    )
    assert tree.room(A, H100) == 7 * GPU
    assert tree.room(B, H100) == 5 * GPU
    tree.charge(B, H100, 4 * GPU)
    assert tree.room(A, H100) == 3 * GPU
    tree.charge(A, H100, 3 * GPU)
    assert tree.room(A, H100) == tree.room(B, H100) == 0
    tree.release(A, H100, 2 * GPU)
    assert tree.room(A, H100) == 2 * GPU
    assert tree.room(B, H100) == GPU


def test_the_fleets_ceiling_may_name_a_group() -> None:
    """No more than four A100 above the guarantees, of whatever memory."""
    fleet = replace(FLEET, burst_ceiling=((A100, 4),))
    tree = tree_of(builders.tenant("a", "1xa100-80gb"), fleet=fleet)
    assert tree.room(A, A80) == 5 * GPU
    tree.charge(A, A80, 3 * GPU)
    assert tree.room(A, A40) == 2 * GPU


@pytest.mark.parametrize("burst", [-1, -1000])
def test_a_negative_burst_is_refused(burst: int) -> None:
    """Named with its queue, before anything is built."""
    with pytest.raises(ValueError, match="queue 'a': burst is negative"):
        bursting("a", burst=burst)


# -- by definition ------------------------------------------------------------


def loans(tree: QuotaTree, name: TenantName, used: Mapping[Form, int]) -> int:
    """Value of what a queue would borrow, by the definition: charge it and look."""
    bare = QuotaTree([replace(tree.queues[name], parent=None)], tree.fleet)
    for form, amount in used.items():
        bare.charge(name, form, amount)
    return sum(
        tree.value(pool) * amount for pool, amount in bare.borrowed(name).items()
    )


@pytest.mark.long
@TREES
@given(
    worlds(
        forms=(H100, A80, A40), fleets=FLEETS, ceilings=False, lending=False, size=4
    ),
    st.integers(0, 3000),
    st.data(),
)
def test_room_is_the_largest_charge_whose_loans_fit_the_burst(
    world: World, burst: int, data: st.DataObject
) -> None:
    """LIMIT: one quantum more would pass the bound of some queue on the path."""
    queues = tuple(replace(q, burst_milli=burst, weight=1) for q in world.queues)
    tree = World(queues, world.fleet, world.devices).tree()
    kinds = st.sampled_from((H100, A80, A40))
    name = data.draw(st.sampled_from(world.leaves()))
    for form, count in data.draw(st.lists(st.tuples(kinds, st.integers(1, 3)))):
        tree.charge(name, form, min(count * GPU, tree.room(name, form)))
    form = data.draw(kinds)
    free = tree.room(name, form)

    def respects(queue: TenantName, extra: int) -> bool:
        owned = tree.promised(queue)
        if not any(owned.values()):
            return True
        used = {f: tree.used(queue, f) for f in (H100, A80, A40)}
        used[form] += extra
        budget = sum(tree.value(pool) * n for pool, n in owned.items())
        return loans(tree, queue, used) <= burst * budget // 1000

    if free < UNLIMITED // 2:
        assert all(respects(queue, free) for queue in tree.path(name))
        assert not all(respects(queue, free + 1) for queue in tree.path(name))
    else:
        assert not any(any(tree.promised(q).values()) for q in tree.path(name))
