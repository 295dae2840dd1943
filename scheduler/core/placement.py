"""Which node is best: vectorised fit with a fragmentation term.

A pod goes where it leaves the least behind (best fit) and breaks the fewest blocks:
the fragmentation of a node with x free devices is ``sum(x mod k for k in 2, 4, 8)``,
the devices that pods of 2, 4 and 8 could not use there. Ties go to the node that
joined first, so the answer never depends on the order of a set.

Scores are integers; smaller is better.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.core.cluster import Cluster, Ints, Mask, Placed
from scheduler.core.gpu import Form
from scheduler.core.workload import Demand, GangId, PodUid

BLOCKS = (2, 4, 8)
MAX_SCORE = 10
"""Largest score of kube-scheduler's extender contract (``MaxExtenderPriority``)."""

_TABLE = 4096
_FRAGMENTATION: NDArray[np.int64] = sum(
    (np.arange(_TABLE, dtype=np.int64) % k for k in BLOCKS),
    np.zeros(_TABLE, np.int64),
)

Member = tuple[PodUid, Demand]

EXACT_GANGS = 12
"""Up to so many gangs `placeable` compares all sets, at most."""

MOST_PLACED = 10_000
"""How many pods it places, in one comparison, before it takes the best set found."""


def costs(cluster: Cluster, demand: Demand, form: Form, columns: Ints) -> Ints:
    """Return what placing the pod on each of `columns` leaves behind.

    Parameters
    ----------
    columns
        Node columns where the pod fits, shape (k,).

    Returns
    -------
    numpy.ndarray
        Integer cost per column, shape (k,); smaller is better.
    """
    row = cluster.rows[form]
    free = cluster.free[row, columns]
    cost: Ints
    if demand.is_fraction:
        opened = cluster.open[row, columns]
        shared = opened >= demand.fraction
        cost = np.where(shared, opened - demand.fraction, (free + 1) << 20)
    else:
        after = free - demand.count
        cost = after + _fragmentation(after) - _fragmentation(free)
    return cost


def _fragmentation(free: Ints) -> Ints:
    found: Ints = _FRAGMENTATION[np.clip(free, 0, _TABLE - 1)]
    return found


def best_node(
    cluster: Cluster, demand: Demand, form: Form, allowed: Mask | None = None
) -> int:
    """Return the column of the best node for one pod, -1 when it fits nowhere."""
    mask = cluster.fits(demand, form)
    if allowed is not None:
        mask &= allowed
    columns = np.flatnonzero(mask)
    if not columns.size:
        return -1
    return int(columns[np.argmin(costs(cluster, demand, form, columns))])


def place_gang(
    cluster: Cluster,
    members: Sequence[Member],
    form: Form,
    allowed: dict[PodUid, Mask] | None = None,
) -> tuple[Placed, ...] | None:
    """Place all members on nodes that offer `form`, largest first, or nobody."""
    placed: list[Placed] = []
    for uid, demand in in_order(members):
        mask = allowed.get(uid) if allowed else None
        column = best_node(cluster, demand, form, mask)
        if column < 0:
            for done in placed:
                cluster.remove(done.uid)
            return None
        placed.append(cluster.place(uid, column, form, demand))
    return tuple(placed)


def in_order(members: Iterable[Member]) -> list[Member]:
    """Members in the order they are placed: largest first, then by UID."""
    return sorted(members, key=lambda m: (-m[1].count, -m[1].fraction, m[0]))


def fits_empty(cluster: Cluster, members: Sequence[Member], form: Form) -> bool:
    """Whether the empty cluster could hold the gang.

    Counted per size of member and in total: a gang that fits is never called too large,
    but one of mixed sizes may pass and still find no place for all.
    """
    sizes: dict[Demand, int] = {}
    for _, demand in members:
        sizes[demand] = sizes.get(demand, 0) + 1
    if any(cluster.holds(demand, form) < count for demand, count in sizes.items()):
        return False
    if len(sizes) == 1:
        return True
    total = cluster.capacity().get(form, 0)
    return sum(d.charge(form) for _, d in members) <= total


@dataclass(frozen=True, slots=True)
class Wish:
    """A gang that would start on any one of some forms."""

    gang: GangId
    forms: tuple[Form, ...]
    members: tuple[Member, ...]

    @property
    def quanta(self) -> int:
        """What the gang would be charged, on its first form."""
        return sum(demand.charge(self.forms[0]) for _, demand in self.members)


def placeable(
    cluster: Cluster, staying: Collection[PodUid], wishes: Sequence[Wish]
) -> frozenset[GangId]:
    """Return the largest set of gangs that fit together once all but `staying` left.

    Largest by quanta, of equals the one with gangs listed earlier. Whole gangs, where
    `staying` pods keep their nodes.

    All wishes together are tried first, then every set of them, the pods of a set
    largest first, best fit: exact for up to `EXACT_GANGS` gangs whose sizes divide one
    another (1, 2, 4, 8). With more gangs, or once `MOST_PLACED` pods were placed in
    vain, it is the larger of two sets that no further gang fits into: gangs added in
    listed order, and small ones first. Such a set may be smaller than the largest.
    """
    with cluster.trial():
        for uid in sorted(cluster.placed.keys() - set(staying)):
            cluster.remove(uid)
        chosen = _Packing(cluster, wishes).best()
    return frozenset(wishes[i].gang for i in chosen)


Chosen = tuple[tuple[int, Form], ...]
"""Places in the list of wishes, each with the form it would start on."""


class _Packing:
    """The search for a set of gangs; the cluster is as it was after each question."""

    def __init__(self, cluster: Cluster, wishes: Sequence[Wish]) -> None:
        self._cluster = cluster
        self._wishes = wishes
        self._sizes = [wish.quanta for wish in wishes]
        self._left = [sum(self._sizes)]
        for size in self._sizes:
            self._left.append(self._left[-1] - size)
        self._budget = MOST_PLACED
        self._found: Chosen = ()
        self._most = 0

    def best(self) -> list[int]:
        """Places in the list of the gangs that fit together."""
        everyone = range(len(self._wishes))
        if self._fits(tuple((i, self._wishes[i].forms[0]) for i in everyone)):
            return list(everyone)
        sets: list[list[int]] = []
        if len(everyone) <= EXACT_GANGS:
            self._budget = MOST_PLACED
            self._extend((), 0)
            sets.append([i for i, _ in self._found])
            if self._budget > 0:
                return sets[0]
        sets.append(self._greedy(everyone))
        sets.append(self._greedy(sorted(everyone, key=self._sizes.__getitem__)))
        return max(sets, key=lambda chosen: sum(self._sizes[i] for i in chosen))

    def _extend(self, chosen: Chosen, at: int) -> None:
        """Branch and bound: with the gang at `at` first, then without it."""
        held = sum(self._sizes[i] for i, _ in chosen)
        if held > self._most:
            self._found, self._most = chosen, held
        if at == len(self._wishes) or held + self._left[at] <= self._most:
            return
        for form in self._wishes[at].forms:
            if self._budget > 0 and self._fits((*chosen, (at, form))):
                self._extend((*chosen, (at, form)), at + 1)
        if self._budget > 0:
            self._extend(chosen, at + 1)

    def _fits(self, chosen: Chosen) -> bool:
        """Whether gangs fit together, when their pods are placed largest first."""
        members = [(m, form) for i, form in chosen for m in self._wishes[i].members]
        members.sort(key=lambda pair: (-pair[0][1].count, -pair[0][1].fraction))
        with self._cluster.trial():
            for (uid, demand), form in members:
                self._budget -= 1
                column = best_node(self._cluster, demand, form)
                if column < 0:
                    return False
                self._cluster.place(uid, column, form, demand)
        return True

    def _greedy(self, order: Iterable[int]) -> list[int]:
        """Add gang after gang to what is placed, each on the first form that does."""
        full: set[tuple[Form, tuple[Demand, ...]]] = set()  # gangs like it did not fit
        with self._cluster.trial():
            return [i for i in order if self._joins(self._wishes[i], full)]

    def _joins(self, wish: Wish, full: set[tuple[Form, tuple[Demand, ...]]]) -> bool:
        members = in_order(wish.members)
        demands = tuple(demand for _, demand in members)
        for form in wish.forms:
            if (form, demands) in full:
                continue
            if place_gang(self._cluster, members, form) is not None:
                return True
            full.add((form, demands))
        return False


def node_scores(
    cluster: Cluster, demand: Demand, form: Form, columns: Ints
) -> tuple[int, ...]:
    """Rank nodes for kube-scheduler: 10 for the least cost, 0 where it does not fit."""
    fitting = cluster.fits(demand, form)[columns]
    if not fitting.any():
        return (0,) * len(columns)
    cost = costs(cluster, demand, form, columns)
    low, high = int(np.min(cost[fitting])), int(np.max(cost[fitting]))
    span = max(1, high - low)
    scores = np.where(fitting, MAX_SCORE - ((cost - low) * (MAX_SCORE - 1)) // span, 0)
    found: list[int] = scores.tolist()
    return tuple(found)
