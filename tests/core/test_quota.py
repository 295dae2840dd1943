"""The quota tree against books that are recomputed from scratch each time."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.gpu import Form, charge
from scheduler.core.quota import UNLIMITED, Fleet, Queue, QuotaTree, refusals
from scheduler.core.workload import TenantName
from tests import builders
from tests.strategies import MANY, OTHER, SLICE, SOME, WHOLE, trees

GPU = charge(WHOLE)
A, B, C, D = (TenantName(name) for name in "abcd")
Charges = list[tuple[TenantName, Form, int]]


class Books:
    """The definitions of the module's docstring, without any running sums."""

    def __init__(self, queues: Sequence[Queue], charges: Charges) -> None:
        self.queues = {queue.name: queue for queue in queues}
        self.charges = charges

    def children(self, name: TenantName | None) -> list[TenantName]:
        return [queue.name for queue in self.queues.values() if queue.parent == name]

    def path(self, name: TenantName) -> list[TenantName]:
        parent = self.queues[name].parent
        return [name, *(self.path(parent) if parent is not None else [])]

    def amount(self, name: TenantName, field: str, form: Form) -> int | None:
        found = dict(getattr(self.queues[name], field)).get(form)
        return None if found is None else found * charge(form)

    def guarantee(self, name: TenantName, form: Form) -> int:
        return self.amount(name, "guarantee", form) or 0

    def ceiling(self, name: TenantName, form: Form) -> int:
        borrowing = self.amount(name, "borrowing_limit", form)
        if not self.queues[name].weight:
            borrowing = 0  # no part in the burst pool
        limit = self.amount(name, "limit", form)
        top = UNLIMITED if limit is None else limit
        if borrowing is not None:
            top = min(top, self.guarantee(name, form) + borrowing)
        return top

    def kept(self, name: TenantName, form: Form) -> int:
        lending = self.amount(name, "lending_limit", form)
        return 0 if lending is None else max(0, self.guarantee(name, form) - lending)

    def used(self, name: TenantName, form: Form) -> int:
        own = sum(n for who, what, n in self.charges if (who, what) == (name, form))
        return own + sum(self.used(child, form) for child in self.children(name))

    def inside(self, name: TenantName, form: Form) -> int:
        own = sum(n for who, what, n in self.charges if (who, what) == (name, form))
        return own + sum(self.held(child, form) for child in self.children(name))

    def held(self, name: TenantName, form: Form) -> int:
        return max(self.kept(name, form), self.inside(name, form))

    def room(self, name: TenantName, form: Form) -> int:
        spare = [self.ceiling(q, form) - self.used(q, form) for q in self.path(name)]
        return min(spare)

    def is_respectful(self, name: TenantName, form: Form, capacity: int) -> bool:
        """Whether nobody on the path holds too much, what others keep included."""
        return sum(self.held(root, form) for root in self.children(None)) <= (
            capacity
        ) and all(
            self.inside(queue, form) <= self.ceiling(queue, form)
            for queue in self.path(name)
        )


def tenants(queues: Sequence[Queue]) -> list[TenantName]:
    parents = {queue.parent for queue in queues}
    return [queue.name for queue in queues if queue.name not in parents]


@st.composite
def histories(draw: st.DrawFn) -> tuple[tuple[Queue, ...], Charges]:
    """A tree and what its tenants hold: any amounts, also beyond every limit."""
    queues = draw(trees(forms=(WHOLE, SLICE)))
    one = st.tuples(
        st.sampled_from(tenants(queues)),
        st.sampled_from((WHOLE, SLICE)),
        st.integers(1, 5),
    )
    held = draw(st.lists(one, max_size=8))
    return queues, [(name, form, n * charge(form)) for name, form, n in held]


def charged(queues: Sequence[Queue], charges: Charges) -> QuotaTree:
    tree = QuotaTree(queues)
    for charge_ in charges:
        tree.charge(*charge_)
    return tree


# -- amounts ------------------------------------------------------------------


@MANY
@given(histories())
def test_running_sums_equal_books_from_scratch(
    history: tuple[tuple[Queue, ...], Charges],
) -> None:
    """Used and held are kept incrementally: a wrong delta would never heal."""
    queues, charges = history
    tree, books = charged(queues, charges), Books(queues, charges)
    for name in tree.queues:
        for form in (WHOLE, SLICE, OTHER):
            assert tree.used(name, form) == books.used(name, form)
            assert tree.held(name, form) == books.held(name, form)
            assert tree.room(name, form) == books.room(name, form)
            assert tree.kept(name, form) == books.kept(name, form)
            assert tree.ceiling(name, form) == books.ceiling(name, form)


@MANY
@given(trees(), st.integers(0, 9), st.data())
def test_available_is_the_largest_respectful_charge(
    queues: tuple[Queue, ...], extra: int, data: st.DataObject
) -> None:
    """One more than available would take what another queue keeps, or pass a limit."""
    books = Books(queues, [])
    roots = books.children(None)
    capacity = sum(books.guarantee(root, WHOLE) for root in roots) + extra * GPU
    names = st.sampled_from(tenants(queues))
    for name in data.draw(st.lists(names, max_size=6)):
        more = Books(queues, [*books.charges, (name, WHOLE, GPU)])
        books = more if more.is_respectful(name, WHOLE, capacity) else books
    tree = charged(queues, books.charges)
    tree.capacity = {WHOLE: capacity}
    name = data.draw(names)
    free = tree.available(name, WHOLE)
    for one_more in (0, 1):
        after = Books(queues, [*books.charges, (name, WHOLE, free + one_more)])
        assert after.is_respectful(name, WHOLE, capacity) == (not one_more)


@MANY
@given(histories(), st.randoms(use_true_random=False))
def test_release_undoes_charge(
    history: tuple[tuple[Queue, ...], Charges], chance: object
) -> None:
    """CONSERVATION: whatever the order of departures, nothing leaks."""
    queues, charges = history
    tree, fresh = charged(queues, charges), QuotaTree(queues)
    chance.shuffle(charges)  # type: ignore[attr-defined]
    for charge_ in charges:
        tree.release(*charge_)
    for name in tree.queues:
        for form in (WHOLE, SLICE):
            assert tree.used(name, form) == 0
            assert tree.held(name, form) == fresh.held(name, form)
            assert tree.available(name, form) == fresh.available(name, form)


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
    books, tree = Books(queues, []), QuotaTree(queues)
    leaf = st.sampled_from(tenants(queues))
    a, b = data.draw(leaf), data.draw(leaf)
    down_a, down_b = books.path(a)[::-1], books.path(b)[::-1]
    depth = 0
    while depth < min(len(down_a), len(down_b)) and down_a[depth] == down_b[depth]:
        depth += 1
    expected = (a, b) if a == b else (down_a[depth], down_b[depth])
    assert tree.parting(a, b) == expected
    assert tree.parting(b, a) == expected[::-1]


@SOME
@given(trees())
def test_paths_lead_to_the_root(queues: tuple[Queue, ...]) -> None:
    """Every charge walks them."""
    books, tree = Books(queues, []), QuotaTree(queues)
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


# -- copy ---------------------------------------------------------------------


@SOME
@given(histories())
def test_copy_knows_the_same_and_lives_its_own_life(
    history: tuple[tuple[Queue, ...], Charges],
) -> None:
    """A problem ships its own tree: trying a plan must not charge the live one."""
    queues, charges = history
    tree = charged(queues, charges)
    tree.capacity = {WHOLE: 9 * GPU}
    copy = tree.copy()
    names = list(tree.queues)

    def books(of: QuotaTree) -> list[tuple[int, int, int]]:
        return [
            (of.used(n, f), of.held(n, f), of.available(n, f))
            for n in names
            for f in (WHOLE, SLICE)
        ]

    before = books(tree)
    assert books(copy) == before
    copy.charge(tenants(queues)[0], WHOLE, 3 * GPU)
    copy.capacity = {}
    assert books(tree) == before
    assert books(copy) != before


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
