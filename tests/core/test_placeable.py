"""Placeable covered demand: the largest set of whole gangs that fits without burst."""

import time
from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.cluster import Cluster
from scheduler.core.gpu import Form, charge
from scheduler.core.placement import EXACT_GANGS, Wish, placeable
from scheduler.core.workload import GangId, PodUid
from tests.builders import node, pod
from tests.strategies import MANY, WHOLE, everything

GPU = charge(WHOLE)


def fleet(*sizes: int) -> Cluster:
    """Nodes of so many GPUs each."""
    cluster = Cluster()
    for number, size in enumerate(sizes):
        cluster.set_node(node(f"n{number}", f"{size}x{WHOLE}"))
    return cluster


def wish(name: str, *sizes: int) -> Wish:
    """A gang with one pod of each size."""
    members = tuple(
        (PodUid(f"{name}-{i}"), pod(f"{name}-{i}", "a", size).demand)
        for i, size in enumerate(sizes)
    )
    return Wish(GangId(name), (WHOLE,), members)


def put(cluster: Cluster, name: str, column: int, size: int) -> None:
    cluster.place(PodUid(name), column, WHOLE, pod(name, "a", size).demand)


def test_burst_is_taken_away_and_covered_work_stays() -> None:
    """GUARANTEE is about what fits when every uncovered pod has left."""
    cluster = fleet(8, 8)
    put(cluster, "covered", 0, 4)
    put(cluster, "burst", 1, 8)
    before = everything(cluster)
    wishes = [wish("large", 8), wish("half", 4)]
    assert placeable(cluster, {PodUid("covered")}, wishes) == {"large", "half"}
    put(cluster, "more", 0, 1)
    staying = {PodUid("covered"), PodUid("more")}
    assert placeable(cluster, staying, wishes) == {"large"}
    cluster.remove(PodUid("more"))
    assert everything(cluster) == before


def test_gangs_are_placed_whole_or_not_at_all() -> None:
    """GANG: half a gang is no use, and must not take the room of another."""
    assert placeable(fleet(8), set(), [wish("g", 8, 8), wish("h", 2)]) == {"h"}


def test_the_larger_set_wins_and_of_equals_the_earlier() -> None:
    """The largest set, not the first that fits: rank breaks ties only."""
    assert placeable(fleet(8), set(), [wish("a", 6), wish("b", 4), wish("c", 4)]) == {
        "b",
        "c",
    }
    assert placeable(fleet(4), set(), [wish("a", 4), wish("b", 4)]) == {"a"}


def test_nothing_waits_and_nothing_is_placeable() -> None:
    assert placeable(fleet(8), set(), []) == frozenset()


def test_many_gangs_end_in_bounded_work_with_a_set_that_fits() -> None:
    """Sixty gangs of which few fit: an answer all the same, greedy by rank."""
    wishes = [wish(f"g{i:02}", 5, 3) for i in range(60)]
    found = placeable(fleet(*[8] * 20), set(), wishes)
    assert found == {f"g{i:02}" for i in range(20)}
    assert len(wishes) > EXACT_GANGS


@pytest.mark.parametrize(("nodes", "fitting"), [(125, 1000), (100, 800)])
def test_a_thousand_gangs_are_no_work(nodes: int, fitting: int) -> None:
    """Neither too deep for the stack nor quadratic, whether all of them fit or not."""
    cluster = fleet(*[8] * nodes)
    wishes = [wish(f"g{i:04}", 1) for i in range(1000)]
    begun = time.perf_counter()
    found = placeable(cluster, set(), wishes)
    assert time.perf_counter() - begun < 1
    assert found == {f"g{i:04}" for i in range(fitting)}


def test_few_gangs_of_many_pods_are_bounded_work() -> None:
    """Twelve gangs of different sizes, none of which fit all together."""
    wishes = [wish(f"g{i:02}", *[1] * (60 + i)) for i in range(EXACT_GANGS)]
    begun = time.perf_counter()
    found = placeable(fleet(*[8] * 50), set(), wishes)
    assert time.perf_counter() - begun < 3
    held = sum(w.quanta for w in wishes if w.gang in found)
    assert 0 <= 400 * GPU - held < 72 * GPU


def test_of_many_gangs_small_ones_first_where_that_is_more() -> None:
    """The first in line leaves room that nobody can use: the small ones do better."""
    wishes = [wish("large", 6), *(wish(f"g{i:02}", 4) for i in range(EXACT_GANGS))]
    found = placeable(fleet(8), set(), wishes)
    assert found == {"g00", "g01"}


def test_of_many_gangs_a_gang_that_does_not_fit_whole_takes_no_room() -> None:
    """GANG: what was placed of it is taken back before the next is tried."""
    cluster = fleet(8, 8)
    wishes = [wish("torn", 8, 8, 8), *(wish(f"g{i:02}", 4) for i in range(20))]
    before = everything(cluster)
    found = placeable(cluster, set(), wishes)
    assert found == {"g00", "g01", "g02", "g03"}
    assert everything(cluster) == before


@pytest.mark.parametrize("others", [0, EXACT_GANGS])
def test_a_gang_takes_another_form_where_its_first_is_full(others: int) -> None:
    """In their order, whether few gangs wait or many."""
    cluster = fleet(8)
    cluster.set_node(node("other", "4xa100-40gb"))
    forms = (WHOLE, Form("a100-40gb"))
    first = wish("first", 8)
    either = Wish(GangId("either"), forms, wish("either", 4).members)
    rest = [wish(f"g{i:02}", 8) for i in range(others)]
    found = placeable(cluster, set(), [first, either, *rest])
    assert found == {"first", "either"}


def fits(sizes: Sequence[int], room: Sequence[int]) -> bool:
    """Whether pods fit nodes, by trying every place for each."""
    if not sizes:
        return True
    first, *rest = sizes
    return any(
        free >= first and fits(rest, [*room[:i], free - first, *room[i + 1 :]])
        for i, free in enumerate(room)
    )


@MANY
@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=3),
    st.lists(
        st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=3),
        min_size=1,
        max_size=5,
    ),
)
def test_it_is_the_largest_of_all_sets(
    nodes: list[int], gangs: list[list[int]]
) -> None:
    """Against every subset and every packing, where sizes divide one another."""
    wishes = [wish(f"g{i}", *sizes) for i, sizes in enumerate(gangs)]
    found = placeable(fleet(*nodes), set(), wishes)
    best = 0
    for count in range(len(gangs) + 1):
        for subset in combinations(gangs, count):
            sizes = sorted((s for gang in subset for s in gang), reverse=True)
            if fits(sizes, nodes):
                best = max(best, sum(sizes))
    assert sum(w.quanta for w in wishes if w.gang in found) == best * GPU
    members = [s for i, gang in enumerate(gangs) if f"g{i}" in found for s in gang]
    assert fits(sorted(members, reverse=True), nodes)
