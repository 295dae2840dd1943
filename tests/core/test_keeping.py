"""What owners do not lend: kept while idle, on every level, once and never twice."""

import pytest

from scheduler.core.gpu import Form, charge, parse_form
from scheduler.core.quota import Fleet, Group, Queue, QuotaTree
from scheduler.core.workload import TenantName
from tests import builders

H100, A80, A40 = map(parse_form, ("h100-80gb", "a100-80gb", "a100-40gb"))
A100, ANY = Form("any-a100"), Form("any")
GPU = charge(H100)
A, B, C, D, E = (TenantName(name) for name in "abcde")
SMALL = Group(name=A100, members=(A80, A40))
FLEET = Fleet(groups=(SMALL, Group(name=ANY, members=(A100, H100))))


def tree_of(*queues: Queue, h100: int = 8, a80: int = 0, a40: int = 0) -> QuotaTree:
    tree = QuotaTree(queues, FLEET)
    tree.capacity = {H100: h100 * GPU, A80: a80 * GPU, A40: a40 * GPU}
    return tree


def free(tree: QuotaTree, *names: TenantName, form: Form = H100) -> list[int]:
    """Devices that each may take without touching what others keep."""
    return [tree.available(name, form) // GPU for name in names]


# -- one level ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("lending", "used", "others"),
    [
        ("", 0, 8),  # everything is lent
        ("0xh100-80gb", 0, 4),  # nothing is
        ("3xh100-80gb", 0, 7),
        ("9xh100-80gb", 0, 8),  # more than is owned: all of it
        ("0xh100-80gb", 3, 4),  # in use or kept, it is the same four
        ("3xh100-80gb", 1, 7),
        ("3xh100-80gb", 2, 6),  # beyond what is kept, use counts
        ("0xh100-80gb", 6, 2),  # burst of the owner
        ("0xa100-80gb", 0, 8),  # another class is kept
    ],
)
def test_idle_guarantee_is_lent_up_to_the_limit(
    lending: str, used: int, others: int
) -> None:
    """Of 8 devices 4 are a's: what b may have, whatever a lends and uses."""
    owner = builders.tenant("a", "4xh100-80gb", lending=lending)
    tree = tree_of(owner, builders.tenant("b", order=1))
    tree.charge(A, H100, used * GPU)
    assert free(tree, B) == [others]


def test_what_is_kept_is_there_for_its_owner_alone() -> None:
    """Between two that keep everything only the rest is common."""
    tree = tree_of(
        builders.tenant("a", "3xh100-80gb", lending="0xh100-80gb"),
        builders.tenant("b", "2xh100-80gb", lending="0xh100-80gb", order=1),
        builders.tenant("c", order=2),
    )
    assert free(tree, A, B, C) == [6, 5, 3]
    tree.charge(C, H100, 3 * GPU)
    assert free(tree, A, B, C) == [3, 2, 0]
    tree.charge(A, H100, 3 * GPU)
    assert free(tree, A, B, C) == [0, 2, 0]


# -- levels -----------------------------------------------------------------------


def test_a_department_keeps_for_all_its_tenants() -> None:
    """Strangers see what the department keeps; its own tenants may use all of it."""
    tree = tree_of(
        builders.tenant("d", "6xh100-80gb", lending="1xh100-80gb"),
        builders.tenant("a", "2xh100-80gb", parent="d", order=1),
        builders.tenant("b", parent="d", order=2),
        builders.tenant("c", order=3),
    )
    assert free(tree, A, B, C) == [8, 8, 3]
    tree.charge(B, H100, 4 * GPU)
    assert free(tree, A, B, C) == [4, 4, 3]
    tree.charge(B, H100, 2 * GPU)
    assert free(tree, A, B, C) == [2, 2, 2]


def test_what_tenant_and_department_keep_is_not_added_up() -> None:
    """The department's guarantee contains its tenants': the larger of both is kept."""
    tree = tree_of(
        builders.tenant("d", "5xh100-80gb", lending="1xh100-80gb"),
        builders.tenant("a", "3xh100-80gb", parent="d", lending="0xh100-80gb"),
        builders.tenant("b", parent="d", order=1),
        builders.tenant("c", order=2),
    )
    assert tree.held(A, H100) == 3 * GPU
    assert tree.held(D, H100) == 4 * GPU
    assert free(tree, A, B, C) == [8, 5, 4]
    tree.charge(B, H100, 3 * GPU)  # 3 kept by a and 3 used
    assert tree.held(D, H100) == 6 * GPU
    assert free(tree, A, B, C) == [5, 2, 2]


def test_three_levels_each_keep_their_part() -> None:
    """LIMIT and lending meet level by level on the way up."""
    tree = tree_of(
        builders.tenant("e", "6xh100-80gb", limit="7xh100-80gb"),
        builders.tenant("d", "4xh100-80gb", parent="e", lending="2xh100-80gb"),
        builders.tenant("a", "3xh100-80gb", parent="d", lending="0xh100-80gb"),
        builders.tenant("b", parent="d", order=1),
        builders.tenant("c", parent="e", order=2),
    )
    assert tree.held(D, H100) == 3 * GPU
    assert tree.held(E, H100) == 3 * GPU
    assert free(tree, A, B, C) == [7, 4, 4]
    tree.charge(C, H100, 4 * GPU)
    assert free(tree, A, B, C) == [3, 0, 0]
    tree.charge(A, H100, 3 * GPU)
    assert free(tree, A, B, C) == [0, 0, 0]


# -- groups --------------------------------------------------------------------------


def keeper(guarantee: str, lending: str) -> tuple[Queue, Queue]:
    """`a` keeps, `b` would like to have."""
    owner = builders.tenant("a", guarantee, lending=lending)
    return owner, builders.tenant("b", order=1)


def test_a_group_keeps_a_number_and_no_class() -> None:
    """Others may have either member, as long as so many of some member are left."""
    tree = tree_of(*keeper("3xany-a100", "1xany-a100"), a80=2, a40=2)
    assert free(tree, B, form=A80) == free(tree, B, form=A40) == [2]
    tree.charge(B, A80, 2 * GPU)
    assert free(tree, B, form=A40) == [0]
    assert free(tree, A, form=A40) == [2]


def test_class_and_group_keep_side_by_side() -> None:
    """One A100-80GB and one of any are two A100, one of which is of 80 GB."""
    guarantee = "1xa100-80gb 1xany-a100"
    tree = tree_of(*keeper(guarantee, "0xa100-80gb 0xany-a100"), a80=2, a40=2)
    assert free(tree, B, form=A80) == [1]
    assert free(tree, B, form=A40) == [2]
    tree.charge(B, A40, 2 * GPU)
    assert free(tree, B, form=A80) == [0]
    tree.charge(A, A80, GPU)  # of the two that are left
    assert free(tree, A, B, form=A80) == [1, 0]


def test_use_of_one_member_frees_what_the_group_keeps() -> None:
    """Once the owner has what it is guaranteed, nothing is kept beside that."""
    tree = tree_of(*keeper("2xany-a100", "0xany-a100"), a80=3, a40=3)
    tree.charge(A, A40, 2 * GPU)
    assert free(tree, B, form=A80) == [3]
    assert free(tree, B, form=A40) == [1]


def test_nested_groups_keep_at_every_size() -> None:
    """One of any A100 and one of any: two of the five, one of them no H100."""
    guarantee = "1xany-a100 1xany"
    queues = keeper(guarantee, "0xany-a100 0xany")
    tree = tree_of(*queues, h100=3, a80=1, a40=1)
    assert free(tree, B, form=H100) == [3]
    assert free(tree, B, form=A80) == [1]
    tree.charge(B, A80, GPU)
    assert free(tree, B, form=A40) == [0]
    assert free(tree, B, form=H100) == [2]
    tree.charge(B, H100, 2 * GPU)
    assert free(tree, B, form=H100) == [0]
    assert free(tree, A, form=H100) == free(tree, A, form=A40) == [1]


def test_a_tenants_class_is_kept_out_of_its_departments_group() -> None:
    """Two of any are the department's, one A100-80GB its tenant's: two are kept."""
    tree = tree_of(
        builders.tenant("d", "2xany-a100", lending="0xany-a100"),
        builders.tenant("a", "1xa100-80gb", parent="d", lending="0xa100-80gb"),
        builders.tenant("c", parent="d", order=1),
        builders.tenant("b", order=2),
        a80=2,
        a40=2,
    )
    assert free(tree, B, form=A80) == [1]
    assert free(tree, B, form=A40) == [2]
    tree.charge(B, A40, 2 * GPU)
    assert free(tree, B, form=A80) == [0]
    assert free(tree, C, form=A80) == [1]
    assert free(tree, A, form=A80) == [2]
