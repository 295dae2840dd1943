"""Class groups: what they contain, who pays first, and what is refused."""

import pytest

from scheduler.core.fairness import Standing, covered_forms, entitlements
from scheduler.core.gpu import Form, charge, parse_form
from scheduler.core.quota import Fleet, Group, Pools, Queue, QuotaTree, refusals
from scheduler.core.workload import GangId, TenantName, WorkloadClass
from tests import builders

H100, A80, A40 = map(parse_form, ("h100-80gb", "a100-80gb", "a100-40gb"))
ANY, A100 = Form("any"), Form("any-a100")
GPU = charge(H100)
A, B, D = (TenantName(name) for name in "abd")
SMALL = Group(name=A100, members=(A80, A40))
LARGE = Group(name=ANY, members=(A100, H100))
FLEET = Fleet(groups=(LARGE, SMALL))


def tree_of(*queues: Queue, a80: int = 8, a40: int = 8, h100: int = 8) -> QuotaTree:
    tree = QuotaTree(queues, FLEET)
    tree.capacity = {A80: a80 * GPU, A40: a40 * GPU, H100: h100 * GPU}
    return tree


def gang(name: str, form: Form, quanta: int, since: float = 0.0) -> Standing:
    """Running training."""
    training = WorkloadClass.TRAINING
    return Standing(GangId(name), training, 0, True, since, form, quanta)


# -- what a group is ----------------------------------------------------------


def test_every_form_lies_in_one_chain_of_groups() -> None:
    """Nested or disjoint groups make one order: the smallest around a form first."""
    pools = Pools(FLEET)
    assert pools.chain(A80) == (A80, A100, ANY)
    assert pools.chain(H100) == (H100, ANY)
    assert pools.chain(A100) == (A100, ANY)
    assert pools.chain(ANY) == (ANY,)
    assert pools.chain(Form("t4-16gb")) == ("t4-16gb",)


def test_a_group_inside_a_group_brings_its_members() -> None:
    """An owner who adds a class to `any-a100` adds it to `any` too."""
    pools = Pools(FLEET)
    assert pools.inside(ANY) == {A80, A40, H100}
    assert pools.inside(A100) == {A80, A40}
    assert pools.inside(H100) == {H100}
    assert pools.total({A80: 1, A40: 2, H100: 4}, ANY) == 7
    assert pools.total({A80: 1, A40: 2, H100: 4}, A100) == 3
    assert pools.forms() == [A40, A80, H100]


def test_members_come_before_what_is_around_them() -> None:
    """Amounts are handed on from the inside out, in the same order each time."""
    pools = Pools(FLEET)
    assert pools.ascending([ANY, H100, A80]) == [A80, H100, A100, ANY]


def test_slices_of_a_class_are_in_no_group() -> None:
    """Forms do not replace one another: `any` of whole GPUs is none of slices."""
    sliced = parse_form("h100-80gb/1g.10gb")
    assert Pools(FLEET).chain(sliced) == (sliced,)


def test_a_group_is_worth_its_least_member() -> None:
    """Who borrows "any" GPU owes no more than the cheapest would cost."""
    worth = Fleet(groups=(SMALL,), values=((A80, 900), (A40, 400)))
    assert Pools(worth).value(A100) == 400
    assert Pools(worth).value(A80) == 900


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        (
            [("x", (A80, A40)), ("y", (A40, H100))],
            "groups 'x' and 'y' overlap in a100-40gb: "
            "groups must be nested or disjoint",
        ),
        (
            [("x", (A80, A40)), ("y", (A40, A80))],
            "groups 'x' and 'y' overlap in a100-40gb, a100-80gb: "
            "groups must be nested or disjoint",
        ),
        (
            [("x", (A80,)), ("y", ("x",))],
            "groups 'x' and 'y' overlap in a100-80gb: "
            "groups must be nested or disjoint",
        ),
        ([("x", (A80,)), ("x", (A40,))], "group 'x' is defined twice"),
        ([("x", ("y",)), ("y", ("x",))], "group 'x' contains itself"),
        ([("x", ())], "group 'x' has no members"),
        (
            [("x", ("h100-80gb/1g.10gb",))],
            "group 'x': 'h100-80gb/1g.10gb' is not a GPU class",
        ),
    ],
)
def test_groups_that_are_no_tree_are_refused(
    groups: list[tuple[str, tuple[str, ...]]], text: str
) -> None:
    """Guarantees of overlapping groups would be counted twice, or not at all."""
    named = tuple(
        Group(name=Form(name), members=tuple(map(Form, members)))
        for name, members in groups
    )
    fleet = Fleet(groups=named)
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the text is compared
        Pools(fleet)
    assert str(refused.value) == text
    assert refusals([], fleet, {}) == [text]


def test_disjoint_groups_are_fine() -> None:
    """Two groups that share nothing are two pools."""
    hopper = Group(name=Form("hopper"), members=(H100,))
    pools = Pools(Fleet(groups=(SMALL, hopper)))
    assert pools.chain(H100) == (H100, "hopper")
    assert pools.chain(A40) == (A40, A100)


# -- guarantees ---------------------------------------------------------------


def test_guarantees_of_class_and_group_add_up() -> None:
    """2 x A100-80GB and 3 x any A100 are five A100, of which two are of 80 GB."""
    tree = tree_of(builders.tenant("a", "2xa100-80gb 3xany-a100"))
    assert tree.entitled(A, A80) == 5 * GPU
    assert tree.entitled(A, A40) == 3 * GPU
    assert tree.entitled(A, A100) == 5 * GPU
    assert tree.entitled(A, H100) == 0
    owned = tree.guarantees(A)
    for form, amount in ((A80, 5), (A40, 3)):
        fits, over = gang("fits", form, amount * GPU), gang("over", form, 6 * GPU)
        assert covered_forms([fits, over], owned, tree.pools) == {"fits": form}
        more = gang("more", form, (amount + 1) * GPU)
        assert covered_forms([more], owned, tree.pools) == {}


def test_the_guarantee_of_the_class_pays_before_that_of_the_group() -> None:
    """Else the group is spent where the class would do, and the other class starves."""
    owned = {A80: 2 * GPU, A100: 2 * GPU}
    first = gang("first", A80, 2 * GPU)
    second = gang("second", A40, 2 * GPU, 1.0)
    cover = covered_forms([first, second], owned, Pools(FLEET))
    assert cover == {"first": A80, "second": A40}


def test_the_smaller_group_pays_before_the_larger() -> None:
    """The larger one can pay for more: it is spent last."""
    owned = {A100: GPU, ANY: GPU}
    first = gang("first", A40, GPU)
    second = gang("second", H100, GPU, 1.0)
    cover = covered_forms([first, second], owned, Pools(FLEET))
    assert cover == {"first": A40, "second": H100}


def test_a_gang_may_be_paid_by_several_pools_together() -> None:
    """4 of one class, owned as 1 of it, 1 of its group and 2 of any."""
    owned = {A80: GPU, A100: GPU, ANY: 2 * GPU}
    whole = gang("whole", A80, 4 * GPU)
    assert covered_forms([whole], owned, Pools(FLEET)) == {"whole": A80}
    more = gang("more", A80, 5 * GPU)
    assert covered_forms([more], owned, Pools(FLEET)) == {}


def test_what_cannot_be_paid_in_full_takes_nothing() -> None:
    """PROTECTED: the gang that straddles the edge leaves the purse as it was."""
    owned = {A80: GPU, A100: 2 * GPU}
    large = gang("large", A80, 4 * GPU)
    small = gang("small", A40, 2 * GPU, 1.0)
    assert covered_forms([large, small], owned, Pools(FLEET)) == {"small": A40}


def test_division_spends_a_group_on_what_is_covered_first() -> None:
    """A gang that is not covered may claim what is left of the group, in part."""
    owned = {A100: 3 * GPU}
    covered = gang("covered", A80, 2 * GPU)
    edge = gang("edge", A40, 2 * GPU, 1.0)
    assert entitlements([edge, covered], owned, Pools(FLEET)) == {
        A80: 2 * GPU,
        A40: GPU,
    }


def test_borrowed_counts_at_the_last_payer() -> None:
    """Six A100 held, three of them owned: what is borrowed is "any A100"."""
    tree = tree_of(builders.tenant("a", "1xa100-80gb 2xany-a100"))
    tree.charge(A, A80, 4 * GPU)
    assert tree.borrowed(A) == {A100: GPU}
    tree.charge(A, A40, 2 * GPU)
    assert tree.borrowed(A) == {A100: 3 * GPU}
    tree.charge(A, H100, GPU)
    assert tree.borrowed(A) == {A100: 3 * GPU, H100: GPU}


def test_a_charge_counts_in_every_group_around_it() -> None:
    """A limit on a group would otherwise bind nothing."""
    tree = tree_of(builders.tenant("d"), builders.tenant("a", parent="d"))
    tree.charge(A, A80, 2 * GPU)
    tree.charge(A, H100, GPU)
    for name in (A, D):
        assert tree.used(name, A80) == tree.used(name, A100) == 2 * GPU
        assert tree.used(name, ANY) == 3 * GPU


# -- limits -------------------------------------------------------------------


def test_a_limit_on_a_group_binds_its_members_together() -> None:
    """LIMIT: at most four A100, of whatever memory."""
    tree = tree_of(builders.tenant("a", limit="4xany-a100"))
    assert tree.room(A, A80) == tree.room(A, A40) == 4 * GPU
    tree.charge(A, A80, 3 * GPU)
    assert tree.available(A, A40) == GPU
    assert tree.available(A, H100) == 8 * GPU


def test_the_lowest_ceiling_of_the_chain_binds() -> None:
    """LIMIT: class, group and larger group each have their say."""
    limit = "1xa100-80gb 2xany-a100 5xany"
    tree = tree_of(builders.tenant("a", limit=limit))
    assert tree.available(A, A80) == GPU
    tree.charge(A, A80, GPU)
    assert tree.available(A, A40) == GPU
    assert tree.available(A, H100) == 4 * GPU
    tree.charge(A, H100, 4 * GPU)
    assert tree.available(A, A40) == 0


def test_a_borrowing_limit_on_a_group_counts_from_all_it_contains() -> None:
    """2 x A100-80GB and 1 of any A100 are owned: one more A100 may be borrowed."""
    owned = "2xa100-80gb 1xany-a100"
    tree = tree_of(builders.tenant("a", owned, borrowing="1xany-a100"))
    assert tree.ceiling(A, A100) == 4 * GPU
    assert tree.room(A, A40) == 2 * GPU
    tree.charge(A, A40, 2 * GPU)
    assert tree.room(A, A40) == 0
    assert tree.room(A, A80) == 2 * GPU


def test_weight_zero_borrows_no_member_of_a_group() -> None:
    """Burst has no part here: what is owned of the group, in any member, is all."""
    tree = tree_of(builders.tenant("a", "1xa100-80gb 2xany-a100", weight=0))
    assert tree.room(A, A80) == 3 * GPU
    assert tree.room(A, A40) == 2 * GPU
    assert tree.room(A, H100) == 0
    tree.charge(A, A40, 2 * GPU)
    assert tree.room(A, A80) == GPU


# -- lending ------------------------------------------------------------------


def test_what_is_kept_of_a_group_may_be_had_in_any_member() -> None:
    """Three A100 are there, two are kept idle as "any": one is left to others."""
    tree = tree_of(
        builders.tenant("a", "2xany-a100", lending="0xany-a100"),
        builders.tenant("b", order=1),
        a80=2,
        a40=1,
    )
    assert tree.available(B, A80) == GPU
    assert tree.available(B, A40) == GPU
    tree.charge(B, A80, GPU)
    assert tree.available(B, A80) == tree.available(B, A40) == 0
    assert tree.available(A, A80) == GPU
    assert tree.available(A, A40) == GPU


def test_what_is_kept_of_a_class_counts_in_the_group() -> None:
    """A kept H100 and two kept of any leave one of four."""
    tree = tree_of(
        builders.tenant("a", "1xh100-80gb 2xany", lending="0xh100-80gb 0xany"),
        builders.tenant("b", order=1),
        a80=2,
        a40=0,
        h100=2,
    )
    assert tree.kept(A, H100) == GPU
    assert tree.kept(A, ANY) == 3 * GPU
    assert tree.held(A, ANY) == 3 * GPU
    assert tree.available(B, H100) == GPU
    assert tree.available(B, A80) == GPU
    tree.charge(A, A80, 2 * GPU)
    assert tree.held(A, ANY) == 3 * GPU
    assert tree.available(B, H100) == GPU


def test_an_amount_of_a_group_is_refused_where_there_is_no_such_group() -> None:
    """A misspelt group is a class nobody has: its guarantee is told to be missing."""
    queues = [builders.tenant("a", "2xany-a1000")]
    assert refusals(queues, FLEET, {A80: 8 * GPU}) == [
        "guarantees of any-a1000: 2 > 0 available (a)"
    ]


def test_a_limit_on_a_group_binds_the_guarantees_inside() -> None:
    """LIMIT before GUARANTEE: a promise that its own queue may not use is none."""
    tree = tree_of(builders.tenant("a", "4xa100-80gb", limit="3xany-a100"))
    assert tree.promised(A) == {A80: 3 * GPU}
    assert tree.room(A, A80) == 3 * GPU
