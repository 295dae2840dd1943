"""Whose turn it is, who gives back first, and what use of other classes is worth."""

from fractions import Fraction
from itertools import pairwise
from math import inf

import pytest

from scheduler.core.fairness import borrowed_share, give_back_key, reach, turn
from scheduler.core.gpu import Form, charge, parse_form
from scheduler.core.quota import Fleet, Group, Queue, QuotaTree
from scheduler.core.workload import TenantName
from tests import builders

H100, T4 = parse_form("h100-80gb"), parse_form("t4-16gb")
GPU = charge(H100)
A, B, C, D = (TenantName(name) for name in "abcd")
X, Y, X1, X2, Y1 = (TenantName(name) for name in ("x", "y", "x1", "x2", "y1"))
FLEET = Fleet(values=((H100, 2000), (T4, 250)))


def tree_of(
    *queues: Queue, h100: int = 8, t4: int = 0, fleet: Fleet = FLEET, **used: int
) -> QuotaTree:
    """A charged tree; `used` is in H100."""
    tree = QuotaTree(queues, fleet)
    tree.capacity = {H100: h100 * GPU, T4: t4 * GPU}
    for name, count in used.items():
        tree.charge(TenantName(name), H100, count * GPU)
    return tree


def department(*tenants: Queue, guarantee: str = "") -> tuple[Queue, ...]:
    """`d` and its tenants."""
    return (builders.tenant("d", guarantee), *tenants)


# -- borrowed share -----------------------------------------------------------


def test_borrowed_share_is_what_is_held_above_the_guarantee() -> None:
    """Three of eight lendable GPUs, at weight 1, then at weight 2."""
    for weight, expected in ((1, Fraction(3, 8)), (2, Fraction(3, 16))):
        tenant = builders.tenant("a", "1xh100-80gb", parent="d", weight=weight)
        tree = tree_of(*department(tenant, guarantee="1xh100-80gb"), a=4)
        assert borrowed_share(tree, A) == expected


def test_who_borrows_nothing_has_no_share() -> None:
    """Use within the guarantee is nobody's business, at any weight."""
    tenant = builders.tenant("a", "4xh100-80gb", parent="d", weight=0)
    tree = tree_of(*department(tenant, guarantee="4xh100-80gb"), a=4)
    assert borrowed_share(tree, A) == 0


def test_weight_zero_that_borrows_is_infinitely_above() -> None:
    """Its weight was set to 0 while it burst: it gives back before anybody else."""
    tree = tree_of(*department(builders.tenant("a", parent="d", weight=0)), a=1)
    assert borrowed_share(tree, A) == inf


def test_use_of_classes_is_added_by_value() -> None:
    """One H100 at 2.0 is eight T4 at 0.25: both borrow the same."""
    queues = department(
        builders.tenant("a", parent="d"), builders.tenant("b", parent="d", order=1)
    )
    tree = tree_of(*queues, h100=4, t4=32, a=1)
    tree.charge(B, T4, 8 * GPU)
    assert borrowed_share(tree, A) == borrowed_share(tree, B) == Fraction(2, 16)
    tree.charge(B, T4, GPU)
    assert borrowed_share(tree, B) > borrowed_share(tree, A)


def test_a_guarantee_on_one_class_is_no_credit_on_another() -> None:
    """Idle H100 of one's own do not make borrowed T4 less borrowed."""
    tenant = builders.tenant("a", "4xh100-80gb", parent="d")
    tree = tree_of(*department(tenant, guarantee="4xh100-80gb"), h100=4, t4=8)
    tree.charge(A, T4, 4 * GPU)
    assert borrowed_share(tree, A) == Fraction(1, 10)


def test_guarantees_of_groups_are_no_loan() -> None:
    """What "any" pays for is not borrowed, whichever class it is."""
    fleet = Fleet(groups=(Group(name=Form("any"), members=(H100, T4)),))
    tree = tree_of(
        *department(builders.tenant("a", "3xany", parent="d"), guarantee="3xany"),
        t4=8,
        fleet=fleet,
        a=2,
    )
    tree.charge(A, T4, GPU)
    assert borrowed_share(tree, A) == 0
    tree.charge(A, T4, GPU)
    assert borrowed_share(tree, A) > 0


def test_nothing_to_lend_is_no_division_by_zero() -> None:
    """All nodes are gone; who still holds what was on them owes nothing."""
    tree = tree_of(*department(builders.tenant("a", parent="d")), h100=0, a=2)
    assert borrowed_share(tree, A) == 0


# -- who gives back first -----------------------------------------------------


def first_to_give(tree: QuotaTree, taker: str, *holders: str) -> list[str]:
    """Holders that owe something, in the order in which they give back."""
    keys = {h: give_back_key(tree, TenantName(h), TenantName(taker)) for h in holders}
    due = {holder: key for holder, key in keys.items() if key is not None}
    return sorted(due, key=lambda holder: due[holder])


def test_who_borrows_most_for_its_weight_gives_back_first() -> None:
    """Three borrowed at weight 3 are less than two at weight 1."""
    queues = department(
        builders.tenant("a", parent="d", weight=3),
        builders.tenant("b", parent="d", order=1),
        builders.tenant("c", parent="d", order=2),
    )
    tree = tree_of(*queues, a=3, b=2)
    assert first_to_give(tree, "c", "a", "b") == ["b", "a"]


def test_who_is_within_its_guarantee_owes_nothing() -> None:
    """PROTECTED: no key at all, not just a late one."""
    queues = department(
        builders.tenant("a", "2xh100-80gb", parent="d"),
        builders.tenant("b", parent="d", order=1),
        builders.tenant("c", parent="d", order=2),
        guarantee="2xh100-80gb",
    )
    tree = tree_of(*queues, a=2, b=1)
    assert first_to_give(tree, "c", "a", "b") == ["b"]


DEPARTMENTS = (
    builders.tenant("x", "4xh100-80gb"),
    builders.tenant("y", order=1),
    builders.tenant("x1", "1xh100-80gb", parent="x", order=2),
    builders.tenant("x2", parent="x", order=3),
    builders.tenant("y1", parent="y", order=4),
)


def test_a_department_within_its_guarantee_owes_strangers_nothing() -> None:
    """PROTECTED: x1 is above its own guarantee, x is not: y has no claim there."""
    tree = tree_of(*DEPARTMENTS, x1=3)
    assert first_to_give(tree, "y1", "x1") == []
    assert first_to_give(tree, "x2", "x1") == ["x1"]


def test_a_tenant_within_its_guarantee_owes_nothing_for_its_department() -> None:
    """PROTECTED: x burst by x2 alone; it is not x1 that gives it back."""
    tree = tree_of(*DEPARTMENTS, x1=1, x2=4)
    assert first_to_give(tree, "y1", "x1", "x2") == ["x2"]


def test_the_department_is_judged_before_the_tenant() -> None:
    """Of two departments the one that borrows more gives, whoever bursts inside it."""
    queues = (
        builders.tenant("x"),
        builders.tenant("y", order=1),
        builders.tenant("d", order=2),
        builders.tenant("x1", parent="x", order=3),
        builders.tenant("x2", parent="x", order=4),
        builders.tenant("y1", parent="y", order=5),
        builders.tenant("a", parent="d", order=6),
    )
    tree = tree_of(*queues, x1=2, x2=2, y1=3)
    order = first_to_give(tree, "a", "x1", "x2", "y1")
    assert order[-1] == "y1"
    assert set(order[:2]) == {"x1", "x2"}


def test_weight_zero_gives_back_before_everybody() -> None:
    """Whatever the amounts: it has no part in the burst pool at all."""
    queues = department(
        builders.tenant("a", parent="d", weight=0),
        builders.tenant("b", parent="d", order=1),
        builders.tenant("c", parent="d", order=2),
    )
    tree = tree_of(*queues, a=1, b=6)
    assert first_to_give(tree, "c", "a", "b") == ["a", "b"]


def test_shares_may_be_answered_from_memory() -> None:
    """The engine asks for many holders: the same keys without counting anew."""
    queues = department(
        builders.tenant("a", parent="d"), builders.tenant("b", parent="d", order=1)
    )
    tree = tree_of(*queues, a=3)
    known = {name: borrowed_share(tree, name) for name in tree.queues}
    assert give_back_key(tree, A, B, known.__getitem__) == give_back_key(tree, A, B)


# -- whose turn it is ---------------------------------------------------------

TURN = {"covered": False, "used": 4, "quanta": 2, "share": 8}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"covered": True, "used": 9, "priority": -5}, {"priority": 5}),
        ({"used": 8}, {"used": 9, "priority": 5}),  # not above its share
        ({"priority": 1, "used": 7}, {"used": 0}),  # then priority
        ({"used": 2}, {"used": 3}),  # further below its share
        ({"quanta": 1}, {"quanta": 3}),  # by what it would have then
        ({"share": 16}, {"share": 8}),
        ({"borrowed": Fraction(1, 8)}, {"borrowed": Fraction(1, 4)}),
        ({"borrowed": 9}, {"borrowed": inf}),
        ({"order": 1}, {"order": 2}),  # the older, when nothing else tells
    ],
)
def test_turns_go_by_cover_share_priority_loans_and_age(
    first: dict[str, object], second: dict[str, object]
) -> None:
    """Each step of the order, decided by that step alone."""
    assert turn(**(TURN | first)) < turn(**(TURN | second))  # type: ignore[arg-type]


def test_covered_demand_goes_first_even_of_those_above_their_share() -> None:
    """GUARANTEE: the share orders burst, not what is owned."""
    owner = turn(covered=True, used=90, quanta=9, share=1)
    modest = turn(covered=False, used=0, quanta=1, share=99, priority=99)
    assert owner < modest


def test_reach_compares_use_to_the_share() -> None:
    """Half of one's share is half, however large; use without a share is beyond all."""
    assert reach(0, 0) == reach(0, 5) == 0
    assert reach(4, 8) == reach(50, 100)
    steps = [reach(0, 8), reach(1, 8), reach(8, 8), reach(99, 8), reach(1, 0)]
    assert all(a < b for a, b in pairwise(steps))
