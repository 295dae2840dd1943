"""Which node is best, against brute force over all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.cluster import Cluster
from scheduler.core.gpu import QUANTA_PER_GPU
from scheduler.core.placement import (
    MAX_SCORE,
    Member,
    best_node,
    costs,
    fits_empty,
    in_order,
    node_scores,
    place_gang,
)
from scheduler.core.workload import Demand, PodUid
from tests import builders
from tests.strategies import MANY, OTHER, SOME, WHOLE, demands, nodes

HALF = QUANTA_PER_GPU // 2


def filled(*free: int) -> Cluster:
    """Nodes of eight GPUs, or more where it takes them, each with so many left."""
    cluster = Cluster()
    for number, left in enumerate(free):
        size = max(8, left)
        cluster.set_node(builders.node(f"n{number}", f"{size}x{WHOLE}"))
        if left < size:
            full = Demand(count=size - left)
            cluster.place(PodUid(f"filler{number}"), number, WHOLE, full)
    return cluster


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """A few nodes, most of them partly used, also by fractions."""
    cluster = Cluster()
    for number in range(draw(st.integers(1, 6))):
        cluster.set_node(draw(nodes(f"n{number}")))
        for place in range(draw(st.integers(0, 4))):
            demand = draw(demands())
            if cluster.fits(demand, WHOLE)[number]:
                cluster.place(PodUid(f"p{number}-{place}"), number, WHOLE, demand)
    return cluster


def gang(*counts: int) -> list[Member]:
    return [(PodUid(f"m{i}"), Demand(count=n)) for i, n in enumerate(counts)]


def columns(cluster: Cluster) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(len(cluster.names), dtype=np.int64)


# -- one pod ------------------------------------------------------------------


def left_behind(cluster: Cluster, column: int, demand: Demand) -> tuple[int, ...]:
    """The cost in words: a started GPU before a fresh one, then best fit."""
    row = cluster.rows[WHOLE]
    free, shared = int(cluster.free[row, column]), int(cluster.open[row, column])
    if demand.is_fraction:
        if shared >= demand.fraction:
            return (0, shared - demand.fraction)
        return (1, free)
    after = free - demand.count
    return (after + sum(after % k - free % k for k in (2, 4, 8)),)


@MANY
@given(clusters(), demands())
def test_best_node_is_the_first_fitting_one_of_least_cost(
    cluster: Cluster, demand: Demand
) -> None:
    """The vector expression must mean the plain rule, ties by age included."""
    fits = cluster.fits(demand, WHOLE)
    ranked = [
        (left_behind(cluster, column, demand), column)
        for column in np.flatnonzero(fits).tolist()
    ]
    assert best_node(cluster, demand, WHOLE) == (min(ranked)[1] if ranked else -1)


@SOME
@given(clusters(), demands(), st.data())
def test_best_node_stays_among_the_allowed(
    cluster: Cluster, demand: Demand, data: st.DataObject
) -> None:
    """kube-scheduler offers a choice of nodes; nothing outside may be answered."""
    size = len(cluster.names)
    open_ = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    found = best_node(cluster, demand, WHOLE, np.array(open_, np.bool_))
    fits = cluster.fits(demand, WHOLE)
    assert (found >= 0) == any(a and b for a, b in zip(open_, fits, strict=True))
    assert found < 0 or (open_[found] and fits[found])


@pytest.mark.parametrize(
    ("free", "count", "best"),
    [
        ((8, 3, 5), 2, 1),  # best fit: leaves 1
        ((8, 4, 5), 1, 2),  # 5 -> 4 heals a block; 4 -> 3 would break one
        ((8, 8, 4), 4, 2),  # fills a node up
        ((8, 6), 2, 1),  # an untouched node stays untouched
        ((6, 6), 2, 0),  # a tie goes to the node that joined first
        ((3, 8), 4, 1),  # where it fits at all
        ((3, 2), 4, -1),  # nowhere
        ((8, 7), 8, 0),
        ((0, 1), 1, 1),
        ((8, 15), 1, 1),  # 8 -> 7 would break a block of eight; 15 is broken
    ],
)
def test_pods_leave_the_least_behind(
    free: tuple[int, ...], count: int, best: int
) -> None:
    """Best fit with the fragmentation term, one reason per case."""
    assert best_node(filled(*free), Demand(count=count), WHOLE) == best


def test_fraction_joins_a_started_gpu_before_it_breaks_a_whole_one() -> None:
    """A shared GPU with room is waste; a whole one is somebody's training."""
    cluster = filled(8, 8, 1)
    cluster.place(PodUid("half"), 1, WHOLE, Demand(count=1, fraction=HALF))
    assert best_node(cluster, Demand(count=1, fraction=1), WHOLE) == 1
    assert best_node(cluster, Demand(count=1, fraction=HALF), WHOLE) == 1
    assert best_node(cluster, Demand(count=1, fraction=HALF + 1), WHOLE) == 2


def test_costs_take_any_order_of_columns() -> None:
    """Callers ask about the nodes they were offered, in their order."""
    cluster = filled(8, 3, 5)
    demand = Demand(count=2)
    straight = costs(cluster, demand, WHOLE, np.array([0, 1, 2]))
    mixed = costs(cluster, demand, WHOLE, np.array([2, 0, 1]))
    assert straight[[2, 0, 1]].tolist() == mixed.tolist()


# -- gangs --------------------------------------------------------------------


@MANY
@given(clusters(), st.lists(demands(), min_size=1, max_size=5))
def test_gang_is_placed_whole_or_leaves_no_trace(
    cluster: Cluster, wanted: list[Demand]
) -> None:
    """GANG: a member that fits alone is nothing worth."""
    members = [(PodUid(f"m{i}"), demand) for i, demand in enumerate(wanted)]
    before = (cluster.free.tolist(), cluster.cpu.tolist(), dict(cluster.placed))
    placed = place_gang(cluster, members, WHOLE)
    if placed is None:
        assert before == (
            cluster.free.tolist(),
            cluster.cpu.tolist(),
            dict(cluster.placed),
        )
    else:
        assert {p.uid: p.demand for p in placed} == dict(members)
        assert all(cluster.placed[p.uid] == p for p in placed)
    cluster.check(set())


@MANY
@given(clusters(), st.integers(1, 4), st.integers(1, 6))
def test_equal_members_are_placed_whenever_they_could_be(
    cluster: Cluster, count: int, size: int
) -> None:
    """For members of one size the greedy is exact: it must not give up early."""
    demand = Demand(count=count, cpu_milli=1)
    row = cluster.rows.get(WHOLE)
    room = 0
    if row is not None:
        for column, node in enumerate(cluster.nodes):
            if node is not None and node.ready:
                devices = max(0, int(cluster.free[row, column])) // count
                room += min(devices, max(0, int(cluster.cpu[column])))
    members = gang(*[count] * size)
    members = [(uid, demand) for uid, _ in members]
    assert (place_gang(cluster, members, WHOLE) is not None) == (size <= room)


def test_large_members_are_placed_first() -> None:
    """Else the small ones take the node that only the large one can use."""
    assert in_order(gang(1, 4, 2)) == [
        (PodUid("m1"), Demand(count=4)),
        (PodUid("m2"), Demand(count=2)),
        (PodUid("m0"), Demand(count=1)),
    ]
    placed = place_gang(filled(4, 1), gang(1, 4), WHOLE)
    assert placed is not None
    assert {p.uid: p.column for p in placed} == {"m1": 0, "m0": 1}


def test_large_fractions_are_placed_before_small_ones() -> None:
    """Two thirds and a third share a GPU only in this order."""
    parts = [QUANTA_PER_GPU * n // 6 for n in (2, 4, 2, 4)]
    members = [
        (PodUid(f"m{i}"), Demand(count=1, fraction=part))
        for i, part in enumerate(parts)
    ]
    placed = place_gang(filled(2), members, WHOLE)
    assert placed is not None
    assert [p.uid for p in placed] == ["m1", "m3", "m0", "m2"]


def test_equal_members_are_placed_by_name() -> None:
    """DETERMINISTIC, whatever the order they were listed in."""
    members = gang(2, 2, 2)
    assert in_order(members[::-1]) == members


def test_members_keep_to_the_nodes_open_to_them() -> None:
    """Only the listed pod is bound to its nodes; the others go where they like."""
    allowed = {PodUid("m0"): np.array([False, True])}
    placed = place_gang(filled(8, 8), gang(8, 8), WHOLE, allowed)
    assert placed is not None
    assert {p.uid: p.column for p in placed} == {"m0": 1, "m1": 0}
    assert place_gang(filled(8, 4), gang(8), WHOLE, allowed) is None


# -- the empty cluster --------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "fits"),
    [
        (gang(8), True),
        (gang(9), False),  # no node is that large
        (gang(8, 8), True),
        (gang(8, 8, 1), False),  # seventeen GPUs of sixteen
        (gang(*[5] * 2), True),
        (gang(*[5] * 3), False),  # two nodes hold one each
        (gang(*[3] * 4), True),
    ],
)
def test_gang_larger_than_the_empty_cluster_is_told(
    members: list[Member], fits: bool
) -> None:
    """TOO_LARGE must not depend on who runs at the moment."""
    assert fits_empty(filled(8, 8), members, WHOLE) == fits
    assert fits_empty(filled(0, 1), members, WHOLE) == fits
    assert not fits_empty(filled(8, 8), members, OTHER)


@SOME
@given(clusters(), st.lists(demands(), min_size=1, max_size=4))
def test_what_can_be_placed_fits_the_empty_cluster(
    cluster: Cluster, wanted: list[Demand]
) -> None:
    """The test is necessary: nothing that could start is ever called too large."""
    members = [(PodUid(f"m{i}"), demand) for i, demand in enumerate(wanted)]
    fits = fits_empty(cluster, members, WHOLE)
    with cluster.trial():
        for uid in list(cluster.placed):
            cluster.remove(uid)
        assert fits or place_gang(cluster, members, WHOLE) is None


# -- scores -------------------------------------------------------------------


@MANY
@given(clusters(), demands(), st.data())
def test_scores_rank_as_costs_do(
    cluster: Cluster, demand: Demand, data: st.DataObject
) -> None:
    """kube-scheduler takes ints 0..10: 10 is the best node, 0 one without room."""
    offered = data.draw(st.permutations(columns(cluster).tolist()))
    scores = node_scores(cluster, demand, WHOLE, np.array(offered))
    fits = cluster.fits(demand, WHOLE)
    assert len(scores) == len(offered)
    assert all(type(score) is int for score in scores)
    ranked = []
    for column, score in zip(offered, scores, strict=True):
        assert (1 <= score <= MAX_SCORE) if fits[column] else score == 0
        if fits[column]:
            ranked.append((left_behind(cluster, column, demand), -score))
    best = [score for cost, score in ranked if cost == min(ranked)[0]]
    assert all(score == -MAX_SCORE for score in best)
    ranked.sort()
    assert [score for _, score in ranked] == sorted(score for _, score in ranked)


def test_no_nodes_no_scores() -> None:
    """An empty offer is answered, not refused."""
    assert node_scores(filled(8), Demand(count=1), WHOLE, columns(Cluster())) == ()
    assert node_scores(filled(8), Demand(count=1), OTHER, np.array([0])) == (0,)
