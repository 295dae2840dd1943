"""The quota tree: its shape, its amounts by example, and what is refused.

Its books on random trees are in ``tests/properties``.
"""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.gpu import Form, charge
from scheduler.core.quota import UNLIMITED, Fleet, Queue, QuotaTree, refusals
from scheduler.core.workload import TenantName
from tests import builders
from tests.properties.oracle import Rules, below_the_ancestor
from tests.strategies import OTHER, SLICE, SOME, WHOLE, trees

GPU = charge(WHOLE)
A, B, C, D = (TenantName(name) for name in "abcd")


def rules(queues: Sequence[Queue]) -> Rules:
    return Rules(queues, Fleet(), {})


# -- amounts ------------------------------------------------------------------


def test_idle_guarantee_is_lent_up_to_the_lending_limit() -> None:
    """A's two kept GPUs stay out of reach; the other two are B's to borrow."""
    tree = QuotaTree(
        [
            builders.tenant("a", "4xh100-80gb", lending="2xh100-80gb"),
            builders.tenant("b", "4xh100-80gb"),
        ]
    )
    tree.capacity = {WHOLE: 8 * GPU}
    assert tree.available(B, WHOLE) == 6 * GPU
    assert tree.available(A, WHOLE) == 8 * GPU
    tree.charge(A, WHOLE, 3 * GPU)
    assert tree.available(B, WHOLE) == 5 * GPU


def test_what_a_sibling_keeps_counts_against_the_ceiling_above() -> None:
    """Else B fills the department's limit, and A can never use what it keeps."""
    tree = QuotaTree(
        [
            builders.tenant("d", "4xh100-80gb", limit="4xh100-80gb"),
            builders.tenant("a", "2xh100-80gb", parent="d", lending="0xh100-80gb"),
            builders.tenant("b", "2xh100-80gb", parent="d"),
        ]
    )
    tree.capacity = {WHOLE: 16 * GPU}
    assert tree.available(B, WHOLE) == 2 * GPU
    assert tree.available(A, WHOLE) == 4 * GPU
    tree.charge(B, WHOLE, 2 * GPU)
    assert tree.available(B, WHOLE) == 0
    assert tree.available(A, WHOLE) == 2 * GPU


def test_parents_guarantee_contains_its_childrens() -> None:
    """Our one difference to Kueue: nested guarantees are not added up."""
    tree = QuotaTree(
        [
            builders.tenant("d", "6xh100-80gb", lending="0xh100-80gb"),
            builders.tenant("a", "4xh100-80gb", parent="d"),
            builders.tenant("c"),
        ]
    )
    tree.capacity = {WHOLE: 8 * GPU}
    assert tree.available(C, WHOLE) == 2 * GPU
    tree.charge(A, WHOLE, 4 * GPU)
    assert tree.held(D, WHOLE) == 6 * GPU
    assert tree.available(C, WHOLE) == 2 * GPU


def test_available_is_negative_when_nodes_are_lost() -> None:
    """Callers see how much is missing, and nothing can be charged."""
    tree = QuotaTree([builders.tenant("a")])
    tree.capacity = {WHOLE: 4 * GPU}
    tree.charge(A, WHOLE, 4 * GPU)
    tree.capacity = {WHOLE: GPU}
    assert tree.available(A, WHOLE) == -3 * GPU
    assert tree.room(A, WHOLE) == UNLIMITED - 4 * GPU


def test_forms_are_pools_of_their_own() -> None:
    """A guarantee of slices is none of whole GPUs, and the other way round."""
    tree = QuotaTree([builders.tenant("a", "8xh100-80gb/1g.10gb")])
    tree.charge(A, SLICE, 8 * charge(SLICE))
    assert tree.guarantee(A, WHOLE) == tree.used(A, WHOLE) == 0
    assert tree.used(A, SLICE) == tree.guarantee(A, SLICE) == GPU
    assert tree.guarantees(A) == {SLICE: GPU}


def test_ceiling_is_the_lower_of_limit_and_borrowing_limit() -> None:
    """Two ways to bound a queue, and both bind."""
    lower = builders.tenant(
        "a", "2xh100-80gb", borrowing="1xh100-80gb", limit="9xh100-80gb"
    )
    upper = builders.tenant(
        "b", "2xh100-80gb", borrowing="9xh100-80gb", limit="4xh100-80gb"
    )
    tree = QuotaTree([lower, upper, builders.tenant("c")])
    assert tree.ceiling(A, WHOLE) == 3 * GPU
    assert tree.ceiling(B, WHOLE) == 4 * GPU
    assert tree.ceiling(C, WHOLE) == UNLIMITED


def test_forms_names_what_is_guaranteed_charged_or_offered() -> None:
    """Reports must not lose a form that only one of the three knows."""
    tree = QuotaTree([builders.tenant("a", "1xh100-80gb/1g.10gb")])
    tree.capacity = {WHOLE: GPU}
    assert tree.forms() == sorted([WHOLE, SLICE])
    tree.charge(A, OTHER, GPU)
    assert tree.forms() == sorted([WHOLE, SLICE, OTHER])
    tree.release(A, OTHER, GPU)
    assert tree.forms() == sorted([WHOLE, SLICE])


# -- shape --------------------------------------------------------------------


@SOME
@given(trees(), st.data())
def test_parting_is_just_below_the_lowest_common_ancestor(
    queues: tuple[Queue, ...], data: st.DataObject
) -> None:
    """Protection is judged there; a level too high or low changes who is a victim."""
    books, tree = rules(queues), QuotaTree(queues)
    leaf = st.sampled_from(rules(queues).leaves())
    a, b = data.draw(leaf), data.draw(leaf)
    expected = below_the_ancestor(books, a, b)
    assert tree.parting(a, b) == expected
    assert tree.parting(b, a) == expected[::-1]


@SOME
@given(trees())
def test_paths_lead_to_the_root(queues: tuple[Queue, ...]) -> None:
    """Every charge walks them."""
    books, tree = rules(queues), QuotaTree(queues)
    for name in tree.queues:
        assert list(tree.path(name)) == books.path(name)
        assert tree.is_leaf(name) == (not books.children(name))
        assert sorted(tree.children.get(name, [])) == sorted(books.children(name))
    assert not tree.is_leaf(TenantName("nobody"))


def test_siblings_stand_by_age_then_name() -> None:
    """DETERMINISTIC: never in the order in which objects were listed."""
    tree = QuotaTree(
        [builders.tenant("c"), builders.tenant("b", order=1), builders.tenant("a")]
    )
    assert tree.children[None] == ["a", "c", "b"]


# -- what is refused ----------------------------------------------------------


@pytest.mark.parametrize(
    ("queues", "text"),
    [
        (
            lambda: [builders.tenant("a"), builders.tenant("a")],
            "queue 'a' is defined twice",
        ),
        (
            lambda: [builders.tenant("a", parent="x")],
            "queue 'a': unknown parent 'x'",
        ),
        (
            lambda: [
                builders.tenant("a", parent="b"),
                builders.tenant("b", parent="a"),
            ],
            "queue 'a': its parents form a cycle",
        ),
        (
            lambda: [builders.tenant("a", parent="a")],
            "queue 'a': its parents form a cycle",
        ),
        (
            lambda: [builders.tenant("a", weight=-1)],
            "queue 'a': weight -1 is negative",
        ),
        (
            lambda: [Queue(name=A, guarantee=((WHOLE, -2),))],
            "queue 'a': guarantee of h100-80gb is negative: -2",
        ),
        (
            lambda: [Queue(name=A, borrowing_limit=((WHOLE, -1),))],
            "queue 'a': borrowing_limit of h100-80gb is negative: -1",
        ),
        (
            lambda: [Queue(name=A, lending_limit=((SLICE, -3),))],
            "queue 'a': lending_limit of h100-80gb/1g.10gb is negative: -3",
        ),
        (
            lambda: [Queue(name=A, limit=((WHOLE, -4),))],
            "queue 'a': limit of h100-80gb is negative: -4",
        ),
        (
            lambda: [Queue(name=A, guarantee=((Form("H100"), 1),))],
            "'H100': 'H100' is no GPU class (lower case, a-z 0-9 . -)",
        ),
    ],
)
def test_broken_tree_is_refused_with_its_numbers(
    queues: Callable[[], list[Queue]], text: str
) -> None:
    """Whoever wrote the object must see which value to change."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the text is compared
        QuotaTree(queues())
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("queues", "text"),
    [
        (
            [
                builders.tenant("d", "4xh100-80gb"),
                builders.tenant("a", "3xh100-80gb", parent="d", order=1),
                builders.tenant("b", "2xh100-80gb", parent="d", order=2),
                builders.tenant("c", parent="d", order=3),
            ],
            "guarantees of h100-80gb: 3 + 2 > 4 guaranteed to d (a, b)",
        ),
        (
            [
                builders.tenant("d"),
                builders.tenant("a", "8xh100-80gb/1g.10gb", parent="d"),
            ],
            "guarantees of h100-80gb/1g.10gb: 8 > 0 guaranteed to d (a)",
        ),
        (
            [builders.tenant("a", "40xh100-80gb"), builders.tenant("b", "8xh100-80gb")],
            "guarantees of h100-80gb: 40 + 8 > 44 available (a, b)",
        ),
        (
            [builders.tenant("a", "4xh100-80gb", limit="2xh100-80gb")],
            "guarantee of h100-80gb: 4 is above its own limit of 2 (a)",
        ),
        (
            [builders.tenant("a", weight=0)],
            "weight 0 without a guarantee: a could never hold anything",
        ),
    ],
)
def test_what_may_not_be_asked_for_is_refused_with_the_numbers(
    queues: list[Queue], text: str
) -> None:
    """The tree itself would scale it down: the owner is told before."""
    capacity = {WHOLE: 44 * GPU, SLICE: 44 * charge(SLICE)}
    assert refusals(queues, Fleet(), capacity) == [text]


def test_guarantees_that_just_fit_are_accepted() -> None:
    """The sum may equal the parent's; only more is oversold."""
    QuotaTree(
        [
            builders.tenant("d", "4xh100-80gb"),
            builders.tenant("a", "3xh100-80gb", parent="d"),
            builders.tenant("b", "1xh100-80gb", parent="d"),
        ]
    )
