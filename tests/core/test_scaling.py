"""What happens to guarantees when nodes vanish: stories with their numbers."""

from collections.abc import Sequence

import pytest

from scheduler.core.gpu import Form, charge, parse_form
from scheduler.core.quota import (
    Fleet,
    Group,
    Pools,
    Queue,
    QuotaTree,
    Shortage,
    refusals,
)
from scheduler.core.quota.scaling import cut, served
from scheduler.core.workload import TenantName
from tests import builders

H100, A80, A40 = map(parse_form, ("h100-80gb", "a100-80gb", "a100-40gb"))
SLICE = parse_form("h100-80gb/1g.10gb")
A100, ANY = Form("any-a100"), Form("any")
GPU = charge(H100)
SMALL = Group(name=A100, members=(A80, A40))
LARGE = Group(name=ANY, members=(A100, H100))
A, B, C, D = (TenantName(name) for name in "abcd")


def tree_of(*queues: Queue, fleet: Fleet | None = None, **there: int) -> QuotaTree:
    tree = QuotaTree(queues, fleet)
    tree.capacity = supply(**there)
    return tree


def supply(h100: int = 0, a80: int = 0, a40: int = 0) -> dict[Form, int]:
    return {H100: h100 * GPU, A80: a80 * GPU, A40: a40 * GPU}


def left(tree: QuotaTree, form: Form = H100) -> dict[TenantName, int]:
    """Devices that are still guaranteed."""
    return {name: tree.guarantee(name, form) // charge(form) for name in tree.queues}


# -- who is cut ---------------------------------------------------------------


def test_lower_priority_is_cut_first() -> None:
    """GUARANTEE of production holds while there is anything of research to take."""
    queues = (
        builders.tenant("a", "4xh100-80gb", priority=1),
        builders.tenant("b", "4xh100-80gb", order=1),
    )
    assert left(tree_of(*queues, h100=8)) == {"a": 4, "b": 4}
    assert left(tree_of(*queues, h100=5)) == {"a": 4, "b": 1}
    assert left(tree_of(*queues, h100=4)) == {"a": 4, "b": 0}
    assert left(tree_of(*queues, h100=3)) == {"a": 3, "b": 0}


def test_inside_a_priority_everybody_loses_the_same_part() -> None:
    """12, 6 and 6 of 24 are promised and 8 are lost: a third of each."""
    queues = (
        builders.tenant("a", "12xh100-80gb"),
        builders.tenant("b", "6xh100-80gb", order=1),
        builders.tenant("c", "6xh100-80gb", order=2),
    )
    assert left(tree_of(*queues, h100=16)) == {"a": 8, "b": 4, "c": 4}


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (9, {"a": 4, "b": 3, "c": 2}),  # all of it
        (8, {"a": 3, "b": 3, "c": 2}),  # 3.56, 2.67, 1.78: the two largest are up
        (7, {"a": 3, "b": 2, "c": 2}),  # 3.11, 2.33, 1.56: the largest is up
        (5, {"a": 2, "b": 2, "c": 1}),  # 2.22, 1.67, 1.11
        (1, {"a": 1, "b": 0, "c": 0}),  # 0.44, 0.33, 0.22
        (0, {"a": 0, "b": 0, "c": 0}),
    ],
)
def test_largest_remainders_are_rounded_up(there: int, expected: dict) -> None:
    """Whole devices: 4, 3 and 2 of nine, on fewer and fewer of them."""
    queues = (
        builders.tenant("a", "4xh100-80gb"),
        builders.tenant("b", "3xh100-80gb", order=1),
        builders.tenant("c", "2xh100-80gb", order=2),
    )
    assert left(tree_of(*queues, h100=there)) == expected


def test_of_equal_remainders_the_older_is_rounded_up() -> None:
    """DETERMINISTIC: age, never the order of objects."""
    young = builders.tenant("a", "1xh100-80gb", order=5)
    old = builders.tenant("b", "1xh100-80gb", order=1)
    assert left(tree_of(young, old, h100=1)) == {"a": 0, "b": 1}
    assert left(tree_of(old, young, h100=1)) == {"a": 0, "b": 1}


def test_one_more_node_may_cost_a_small_tenant_a_device() -> None:
    """Largest remainders have the Alabama paradox: the sum grows, a part may shrink."""
    queues = (
        builders.tenant("a", "6xh100-80gb"),
        builders.tenant("b", "6xh100-80gb", order=1),
        builders.tenant("c", "2xh100-80gb", order=2),
    )
    assert left(tree_of(*queues, h100=10)) == {"a": 4, "b": 4, "c": 2}
    assert left(tree_of(*queues, h100=11)) == {"a": 5, "b": 5, "c": 1}


def test_each_class_is_scaled_by_itself() -> None:
    """Lost A100s take nothing from whoever is guaranteed H100s."""
    both = builders.tenant("a", "2xh100-80gb 4xa100-80gb")
    other = builders.tenant("b", "2xh100-80gb 4xa100-80gb", order=1)
    tree = tree_of(both, other, h100=4, a80=4)
    assert left(tree, H100) == {"a": 2, "b": 2}
    assert left(tree, A80) == {"a": 2, "b": 2}


def test_slices_are_cut_in_whole_slices() -> None:
    """Half an instance is of no use to anybody."""
    queues = (
        builders.tenant("a", "4xh100-80gb/1g.10gb"),
        builders.tenant("b", "3xh100-80gb/1g.10gb", order=1),
    )
    tree = QuotaTree(queues)
    tree.capacity = {SLICE: 5 * charge(SLICE)}
    assert left(tree, SLICE) == {"a": 3, "b": 2}


# -- down the tree ------------------------------------------------------------


def test_what_a_department_is_left_with_is_divided_among_its_tenants() -> None:
    """The same rule on every level: 4 + 4 of 8 become 3 + 3, then 2 + 1 inside."""
    queues = (
        builders.tenant("d", "4xh100-80gb"),
        builders.tenant("c", "4xh100-80gb", order=1),
        builders.tenant("a", "2xh100-80gb", parent="d", order=2),
        builders.tenant("b", "2xh100-80gb", parent="d", order=3),
    )
    tree = tree_of(*queues, h100=6)
    assert left(tree) == {"d": 3, "c": 3, "a": 2, "b": 1}


def test_priority_inside_a_department_counts_inside_it() -> None:
    """A tenant's priority ranks it among its siblings, not among strangers."""
    queues = (
        builders.tenant("d", "4xh100-80gb"),
        builders.tenant("c", "4xh100-80gb", priority=1, order=1),
        builders.tenant("a", "2xh100-80gb", parent="d", order=2),
        builders.tenant("b", "2xh100-80gb", parent="d", priority=9, order=3),
    )
    assert left(tree_of(*queues, h100=7)) == {"d": 3, "c": 4, "a": 1, "b": 2}
    assert left(tree_of(*queues, h100=5)) == {"d": 1, "c": 4, "a": 0, "b": 1}


def test_a_department_that_promised_less_than_all_keeps_its_tenants_whole() -> None:
    """4 are the department's and 2 its tenant's: while 2 are left nobody notices."""
    queues = (
        builders.tenant("d", "4xh100-80gb"),
        builders.tenant("a", "2xh100-80gb", parent="d"),
    )
    assert left(tree_of(*queues, h100=2)) == {"d": 2, "a": 2}
    assert left(tree_of(*queues, h100=1)) == {"d": 1, "a": 1}


def test_a_department_that_promised_too_much_is_scaled_alone() -> None:
    """The department was cut to 3: its tenants share these, others keep theirs."""
    queues = (
        builders.tenant("d", "3xh100-80gb"),
        builders.tenant("a", "2xh100-80gb", parent="d", order=1),
        builders.tenant("b", "2xh100-80gb", parent="d", order=2),
        builders.tenant("c", "4xh100-80gb", order=3),
    )
    tree = tree_of(*queues, h100=16)
    assert left(tree) == {"d": 3, "a": 2, "b": 1, "c": 4}
    assert [s.queue for s in tree.shortages] == ["d"]


# -- groups -------------------------------------------------------------------


FLEET = Fleet(groups=(SMALL, LARGE))


def test_a_group_is_served_from_what_its_classes_have_left() -> None:
    """The class is the narrower promise: it is kept first."""
    queues = (
        builders.tenant("a", "4xa100-80gb"),
        builders.tenant("b", "4xany-a100", order=1),
    )
    assert left(tree_of(*queues, fleet=FLEET, a80=6, a40=2), A100)[B] == 4
    tree = tree_of(*queues, fleet=FLEET, a80=5, a40=2)
    assert left(tree, A80)[A] == 4
    assert left(tree, A100)[B] == 3
    assert [str(shortage) for shortage in tree.shortages] == [
        "guarantees of any-a100: 4 > 3 available (b)"
    ]


def test_a_group_needs_no_class_in_particular() -> None:
    """Whichever A100s are left, the promise of "any" is kept."""
    queue = builders.tenant("a", "4xany-a100")
    for a80 in range(5):
        tree = tree_of(queue, fleet=FLEET, a80=a80, a40=4 - a80)
        assert left(tree, A100) == {"a": 4}
        assert tree.shortages == ()


def test_a_department_may_promise_classes_out_of_its_group() -> None:
    """`any: 4` of a department covers 3 H100 and 1 A100 of its tenants."""
    queues = (
        builders.tenant("d", "4xany"),
        builders.tenant("a", "3xh100-80gb", parent="d", order=1),
        builders.tenant("b", "1xany-a100", parent="d", order=2),
    )
    tree = tree_of(*queues, fleet=FLEET, h100=8, a80=8)
    assert left(tree, H100)[A] == 3
    assert left(tree, A100)[B] == 1
    assert tree.shortages == ()
    less = tree_of(*queues, fleet=FLEET, h100=2, a80=1)
    assert left(less, ANY)[D] == 3


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [
        ({H100: 2}, {H100: 3}, {H100: 2}),
        ({ANY: 2}, {H100: 1, A80: 1}, {H100: 1, A80: 1}),
        ({A80: 2}, {A100: 2, ANY: 1}, {A100: 2, ANY: 0}),
        ({A80: 2, H100: 1}, {A100: 2, ANY: 1}, {A100: 2, ANY: 1}),
        ({A80: 1, ANY: 1}, {A100: 1, ANY: 1, A40: 1}, {A100: 1, ANY: 0, A40: 1}),
        ({A100: 1}, {A80: 1, A100: 1}, {A80: 1, A100: 0}),
        ({A100: 1, ANY: 1}, {A80: 1, H100: 1}, {A80: 1, H100: 1}),
        ({}, {ANY: 1}, {ANY: 0}),
    ],
)
def test_nothing_is_served_twice(there: dict, wanted: dict, expected: dict) -> None:
    """Class and group guarantees are both kept and never double-counted."""
    assert served(Pools(FLEET), there, wanted) == expected


# -- and back -----------------------------------------------------------------


def test_guarantees_come_back_with_the_nodes() -> None:
    """Scaling forgets nothing: it is computed from what was promised."""
    queues = (
        builders.tenant("a", "4xh100-80gb"),
        builders.tenant("b", "4xh100-80gb", order=1),
    )
    tree = tree_of(*queues, h100=8)
    tree.charge(A, H100, 4 * GPU)
    for there, owned in ((6, 3), (0, 0), (2, 1), (8, 4), (100, 4)):
        tree.capacity = supply(h100=there)
        assert left(tree) == {"a": owned, "b": owned}
        assert tree.promised(A) == {H100: 4 * GPU}
        assert bool(tree.shortages) == (there < 8)
    assert tree.available(B, H100) == 96 * GPU


def test_lost_nodes_move_no_ceiling() -> None:
    """Nothing else changes: who was within its limits still is."""
    queue = builders.tenant("a", "4xh100-80gb", borrowing="1xh100-80gb")
    tree = tree_of(queue, h100=8)
    tree.charge(A, H100, 5 * GPU)
    tree.capacity = supply(h100=2)
    assert tree.guarantee(A, H100) == 2 * GPU
    assert tree.ceiling(A, H100) == 5 * GPU
    assert tree.room(A, H100) == 0
    assert tree.borrowed(A) == {H100: 3 * GPU}


def test_what_is_kept_shrinks_with_the_guarantee() -> None:
    """Nobody keeps idle what is not there: borrowers get the rest."""
    keeper = builders.tenant("a", "4xh100-80gb", lending="1xh100-80gb")
    tree = tree_of(keeper, builders.tenant("b", order=1), h100=8)
    assert tree.kept(A, H100) == 3 * GPU
    tree.capacity = supply(h100=3)
    assert tree.kept(A, H100) == 2 * GPU
    assert tree.available(B, H100) == GPU
    tree.capacity = supply(h100=8)
    assert tree.kept(A, H100) == 3 * GPU


def test_of_an_unknown_fleet_nothing_is_scaled() -> None:
    """Before the first node is seen nobody is told that a guarantee is void."""
    tree = QuotaTree([builders.tenant("a", "4xh100-80gb")])
    assert left(tree) == {"a": 4}
    assert tree.shortages == ()
    tree.capacity = {}
    assert left(tree) == {"a": 0}


# -- the rule alone -----------------------------------------------------------


@pytest.mark.parametrize(
    ("owned", "priorities", "total", "expected"),
    [
        ([4, 4], [0, 0], 6, [3, 3]),
        ([4, 4], [0, 0], 7, [4, 3]),
        ([4, 4], [0, 1], 6, [2, 4]),
        ([0, 0], [0, 0], 0, [0, 0]),
        ([0, 4], [1, 0], 2, [0, 2]),
        ([5, 3, 1], [0, 0, 0], 1, [1, 0, 0]),
    ],
)
def test_cut_by_priority_then_pro_rata(
    owned: Sequence[int], priorities: Sequence[int], total: int, expected: list[int]
) -> None:
    """The whole rule in six lines."""
    queues = [builders.tenant(f"t{i}", priority=p) for i, p in enumerate(priorities)]
    assert cut(queues, owned, total) == expected


# -- what is refused ----------------------------------------------------------


def test_a_shortage_names_form_numbers_and_tenants() -> None:
    """Condition `Unreachable`: its owner must see what to change."""
    tree = tree_of(
        builders.tenant("a", "4xh100-80gb"),
        builders.tenant("b", "2xh100-80gb", order=1),
        builders.tenant("c", order=2),
        h100=5,
    )
    (shortage,) = tree.shortages
    assert shortage == Shortage(None, H100, ((A, 4 * GPU), (B, 2 * GPU)), 5 * GPU)
    assert shortage.missing == GPU
    assert str(shortage) == "guarantees of h100-80gb: 4 + 2 > 5 available (a, b)"


def test_an_update_that_worsens_no_shortage_is_accepted() -> None:
    """After nodes were lost, whoever is willing to give way must be able to."""
    queues = [
        builders.tenant("a", "4xh100-80gb"),
        builders.tenant("b", "4xh100-80gb", order=1),
    ]
    before = tree_of(*queues, h100=4)
    there = supply(h100=4)

    def after(*amounts: int) -> list[str]:
        changed = [
            builders.tenant(name, f"{n}xh100-80gb", weight=2, order=i)
            for i, (name, n) in enumerate(zip("ab", amounts, strict=True))
        ]
        return refusals(changed, Fleet(), there, before)

    assert after(4, 4) == []  # other weights, the same shortage
    assert after(3, 4) == []  # less of it
    assert after(3, 5) == []  # moved, not grown
    assert after(5, 4) == ["guarantees of h100-80gb: 5 + 4 > 4 available (a, b)"]
    grown = tree_of(*queues, h100=4)
    more = [*queues, builders.tenant("c", "1xh100-80gb", order=2)]
    assert refusals(more, Fleet(), there, grown) == [
        "guarantees of h100-80gb: 4 + 4 + 1 > 4 available (a, b, c)"
    ]


def test_a_first_tree_is_refused_when_it_is_short() -> None:
    """There is nothing to compare with: guarantees must fit."""
    queues = [builders.tenant("a", "4xh100-80gb")]
    assert refusals(queues, Fleet(), supply(h100=4)) == []
    assert refusals(queues, Fleet(), supply(h100=3)) == [
        "guarantees of h100-80gb: 4 > 3 available (a)"
    ]


def test_faults_of_others_do_not_refuse_an_update() -> None:
    """Only what changes is judged: an old mistake elsewhere blocks nobody."""
    wrong = builders.tenant("a", "4xh100-80gb", limit="2xh100-80gb")
    fine = builders.tenant("b", "1xh100-80gb", order=1)
    before = tree_of(wrong, h100=8)
    assert refusals([wrong, fine], Fleet(), supply(h100=8), before) == []
    assert refusals([wrong, fine], Fleet(), supply(h100=8)) == [
        "guarantee of h100-80gb: 4 is above its own limit of 2 (a)"
    ]


def test_a_smaller_guarantee_of_a_department_is_refused_by_its_tenants() -> None:
    """Sum of the children <= parent: the numbers name both sides."""
    tenant = builders.tenant("a", "3xh100-80gb", parent="d")
    before = tree_of(builders.tenant("d", "4xh100-80gb"), tenant, h100=8)
    smaller = [builders.tenant("d", "2xh100-80gb"), tenant]
    assert refusals(smaller, Fleet(), supply(h100=8), before) == [
        "guarantees of h100-80gb: 3 > 2 guaranteed to d (a)"
    ]
