"""What is where: nodes, devices and slices, as columns.

Hidden here: the representation. Nodes are columns of numpy arrays, one row per form of
GPU, so that "where does it fit" is one vector expression over the whole fleet. A GPU
that pods share by fraction is a *slot* of its node with so many quanta left.

Placements may *over-commit* a node on purpose: a gang that waits for its victims to
leave is placed at once (`held`), the free count goes below zero, and nobody else can
take the room when the victims go. ``check`` proves that what is not held always fits.

What-if is: change, look, undo, in one ``with cluster.trial():`` block.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.core.gpu import QUANTA_PER_GPU, Form, charge, profile_of
from scheduler.core.workload import Demand, NodeName, PodUid

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

UNTRACKED = 1 << 60  # free CPU or memory of a node that does not say how much it has


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as it is offered.

    Parameters
    ----------
    offers
        Devices per form: whole GPUs, MIG slices per profile, shared replicas.
    gpus
        Physical GPUs, which tells what a MIG layout strands.
    cpu_milli, memory_mib
        Allocatable; 0 where it is not tracked.
    ready
        False: what runs stays, nothing new is placed.
    """

    name: NodeName
    offers: tuple[tuple[Form, int], ...]
    gpus: int
    cpu_milli: int = 0
    memory_mib: int = 0
    ready: bool = True

    def __post_init__(self) -> None:
        """Refuse forms that are none and amounts that mean nothing."""
        for form, count in self.offers:
            try:
                charge(form)
            except ValueError as error:
                raise ValueError(f"node {self.name!r}: {error}") from None
            if count < 0:
                raise ValueError(f"node {self.name!r}: {form} is negative: {count}")
        if min(self.gpus, self.cpu_milli, self.memory_mib) < 0:
            raise ValueError(f"node {self.name!r}: an amount is negative")

    @property
    def stranded(self) -> int:
        """Quanta of the cut GPUs that no slice uses (seven 1g leave an eighth)."""
        if not any(profile_of(form) for form, _ in self.offers):
            return 0
        offered = sum(count * charge(form) for form, count in self.offers)
        return max(0, self.gpus * QUANTA_PER_GPU - offered)


@dataclass(frozen=True, slots=True)
class Placed:
    """One pod on one node: the column it takes from, and how much.

    `slot` is the shared GPU of a fraction, -1 otherwise.
    """

    uid: PodUid
    column: int
    form: Form
    demand: Demand
    slot: int = -1


class Cluster:
    """Nodes and what is placed on them."""

    def __init__(self) -> None:
        self.names: list[NodeName] = []
        self.nodes: list[Node | None] = []
        self.index: dict[NodeName, int] = {}
        self.rows: dict[Form, int] = {}
        self.total: Ints = np.zeros((0, 0), np.int64)
        self.free: Ints = np.zeros((0, 0), np.int64)
        self.open: Ints = np.zeros((0, 0), np.int64)  # most quanta left in one slot
        self.cpu: Ints = np.zeros(0, np.int64)
        self.memory: Ints = np.zeros(0, np.int64)
        self.ready: Mask = np.zeros(0, np.bool_)
        self.placed: dict[PodUid, Placed] = {}
        self._slots: dict[tuple[int, int], dict[int, int]] = {}
        self._next_slot = 0
        self._shrunk: set[int] = set()
        self._holds: dict[tuple[Demand, Form], int] = {}
        self._undo: list[tuple[bool, Placed]] | None = None

    # -- nodes ---------------------------------------------------------------

    def set_node(self, node: Node) -> None:
        """Add a node, or change what it offers; what is placed on it stays."""
        column = self.index.get(node.name)
        if column is None:
            column = self._add_column(node.name)
        self._holds.clear()
        for form, _ in node.offers:
            self._row(form)
        offers = dict(node.offers)
        deltas = self._set_other(column, node)
        for form, row in self.rows.items():
            delta = offers.get(form, 0) - int(self.total[row, column])
            self.total[row, column] += delta
            self.free[row, column] += delta
            deltas.append(delta)
        self.nodes[column] = node
        self.ready[column] = node.ready
        if min(deltas) < 0:
            self._shrunk.add(column)
        self._settle(column)

    def drop_node(self, name: NodeName) -> None:
        """Take a node away; its pods are removed one by one as they are reported."""
        column = self.index[name]
        self.set_node(Node(name=name, offers=(), gpus=0, ready=False))
        self.nodes[column] = None

    def node(self, name: NodeName) -> Node | None:
        """Return the node as it is offered now, None when it is unknown or gone."""
        column = self.index.get(name)
        return None if column is None else self.nodes[column]

    def capacity(self) -> dict[Form, int]:
        """Quanta per form over all nodes that are there (also cordoned ones)."""
        totals = self.total[:, : len(self.names)].sum(axis=1)
        return {
            form: int(totals[row]) * charge(form)
            for form, row in sorted(self.rows.items())
            if totals[row]
        }

    def forms(self) -> list[Form]:
        """Forms that some node offers, sorted."""
        return sorted(self.capacity())

    def stranded(self) -> int:
        """Quanta of the fleet that MIG layouts leave unused."""
        return sum(node.stranded for node in self.nodes if node is not None)

    def _set_other(self, column: int, node: Node) -> list[int]:
        """Set CPU and memory; return by how much each grew."""
        before = self.nodes[column]
        cpu = _tracked(node.cpu_milli) - _tracked(before.cpu_milli if before else 0)
        memory = _tracked(node.memory_mib) - _tracked(
            before.memory_mib if before else 0
        )
        self.cpu[column] += cpu
        self.memory[column] += memory
        return [cpu, memory]

    def _settle(self, column: int) -> None:
        """Excuse a node that shrank under its pods no longer than it must be."""
        if not self.is_short(column):
            self._shrunk.discard(column)

    def concede(self, column: int) -> None:
        """Excuse a node on which others have placed more than it has."""
        self._shrunk.add(column)
        self._settle(column)

    def is_short(self, column: int) -> bool:
        """Whether more is placed on the node than it has."""
        least = min(np.min(self.free[:, column], initial=0), self.cpu[column])
        return bool(min(least, self.memory[column]) < 0)

    def _add_column(self, name: NodeName) -> int:
        column = len(self.names)
        if column == self.ready.shape[0]:
            self._grow(self.total.shape[0], max(16, 2 * column))
        self.names.append(name)
        self.nodes.append(None)
        self.index[name] = column
        self.cpu[column] = UNTRACKED
        self.memory[column] = UNTRACKED
        return column

    def _row(self, form: Form) -> int:
        row = self.rows.get(form)
        if row is None:
            row = len(self.rows)
            if row == self.total.shape[0]:
                self._grow(row + 4, self.ready.shape[0])
            self.rows[form] = row
        return row

    def _grow(self, rows: int, columns: int) -> None:
        for name in ("total", "free", "open"):
            old: Ints = getattr(self, name)
            new = np.zeros((rows, columns), np.int64)
            new[: old.shape[0], : old.shape[1]] = old
            setattr(self, name, new)
        for name in ("cpu", "memory"):
            flat = _zeros(columns)
            flat[: getattr(self, name).shape[0]] = getattr(self, name)
            setattr(self, name, flat)
        ready = np.zeros(columns, np.bool_)
        ready[: self.ready.shape[0]] = self.ready
        self.ready = ready

    # -- fit -----------------------------------------------------------------

    def fits(self, demand: Demand, form: Form) -> Mask:
        """Return which nodes have room now: a mask over the columns of `names`."""
        n = len(self.names)
        row = self.rows.get(form)
        if row is None:
            return np.zeros(n, np.bool_)
        mask = self.free[row, :n] >= demand.count
        if demand.is_fraction:
            # below zero a hold counts on devices that are still in use: no slot there
            # can be told from one that its victims have yet to free
            shared = self.open[row, :n] >= demand.fraction
            mask |= shared & (self.free[row, :n] >= 0)
        mask &= self.ready[:n]
        if demand.cpu_milli:
            mask &= self.cpu[:n] >= demand.cpu_milli
        if demand.memory_mib:
            mask &= self.memory[:n] >= demand.memory_mib
        return mask

    def holds(self, demand: Demand, form: Form) -> int:
        """Return how many such pods the empty cluster would hold."""
        found = self._holds.get((demand, form))
        if found is None:
            found = self._holds[demand, form] = self._count_empty(demand, form)
        return found

    def _count_empty(self, demand: Demand, form: Form) -> int:
        n = len(self.names)
        row = self.rows.get(form)
        if row is None:
            return 0
        each = self.total[row, :n] // demand.count
        if demand.is_fraction:
            each = self.total[row, :n] * (QUANTA_PER_GPU // demand.fraction)
        for node, column in self._limited(demand):
            if demand.cpu_milli and node.cpu_milli:
                each[column] = min(each[column], node.cpu_milli // demand.cpu_milli)
            if demand.memory_mib and node.memory_mib:
                each[column] = min(each[column], node.memory_mib // demand.memory_mib)
        return int(each.sum())

    def _limited(self, demand: Demand) -> Iterator[tuple[Node, int]]:
        if demand.cpu_milli or demand.memory_mib:
            for column, node in enumerate(self.nodes):
                if node is not None:
                    yield node, column

    # -- placements ----------------------------------------------------------

    def place(
        self, uid: PodUid, column: int, form: Form, demand: Demand, slot: int = -1
    ) -> Placed:
        """Put a pod on a node, over-committing it if there is no room.

        A fraction goes to `slot` when it is given, else to the shared GPU with the
        least room that suffices, else to a GPU of its own.
        """
        if uid in self.placed:
            raise ValueError(f"pod {uid!r} is placed already")
        if demand.is_fraction and slot < 0:
            slot = self._choose_slot(self._row(form), column, demand.fraction)
        self._next_slot = max(self._next_slot, slot)
        placed = Placed(uid, column, form, demand, slot)
        self._put(placed)
        if self._undo is not None:
            self._undo.append((True, placed))
        return placed

    def remove(self, uid: PodUid) -> Placed:
        """Take a pod off its node."""
        placed = self.placed[uid]
        self._take(placed)
        if self._undo is None:
            self._settle(placed.column)
        else:
            self._undo.append((False, placed))
        return placed

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Undo on exit whatever is placed and removed inside. Trials nest."""
        outer, self._undo = self._undo, []
        next_slot = self._next_slot
        try:
            yield
        finally:
            log, self._undo = self._undo, outer
            self._next_slot = next_slot
            for was_placed, placed in reversed(log):
                if was_placed:
                    self._take(placed)
                else:
                    self._put(placed)

    def _put(self, placed: Placed) -> None:
        demand, column = placed.demand, placed.column
        row = self._row(placed.form)
        if demand.is_fraction:
            slots = self._slots.setdefault((row, column), {})
            if placed.slot not in slots:
                slots[placed.slot] = QUANTA_PER_GPU
                self.free[row, column] -= 1
            slots[placed.slot] -= demand.fraction
            self.open[row, column] = max(slots.values())
        else:
            self.free[row, column] -= demand.count
        self.cpu[column] -= demand.cpu_milli
        self.memory[column] -= demand.memory_mib
        self.placed[placed.uid] = placed

    def _take(self, placed: Placed) -> None:
        demand, column = placed.demand, placed.column
        row = self.rows[placed.form]
        if demand.is_fraction:
            slots = self._slots[row, column]
            slots[placed.slot] += demand.fraction
            if slots[placed.slot] == QUANTA_PER_GPU:
                del slots[placed.slot]
                self.free[row, column] += 1
            self.open[row, column] = max(slots.values(), default=0)
        else:
            self.free[row, column] += demand.count
        self.cpu[column] += demand.cpu_milli
        self.memory[column] += demand.memory_mib
        del self.placed[placed.uid]

    def _choose_slot(self, row: int, column: int, fraction: int) -> int:
        slots = self._slots.get((row, column), {})
        fitting = [(left, slot) for slot, left in slots.items() if left >= fraction]
        if fitting:
            return min(fitting)[1]
        return self._next_slot + 1

    def room(self) -> "Cluster":
        """Return a copy of the columns, without the nodes and what is placed on them.

        It answers where something fits, and is small enough to ship to another process.
        """
        copy = Cluster()
        copy.names = list(self.names)
        copy.index, copy.rows = dict(self.index), dict(self.rows)
        copy.total, copy.free = self.total.copy(), self.free.copy()
        copy.open, copy.ready = self.open.copy(), self.ready.copy()
        copy.cpu, copy.memory = self.cpu.copy(), self.memory.copy()
        copy._slots = {key: dict(slots) for key, slots in self._slots.items()}
        copy._next_slot = self._next_slot
        return copy

    # -- proof ---------------------------------------------------------------

    def check(self, held: frozenset[PodUid] | set[PodUid]) -> None:
        """Assert CONSERVATION: books agree, and what is not held fits its node.

        Nodes that shrank under their pods are excused, and those on which others placed
        too much: no decision did.
        """
        fresh = _recount(self, self.placed)
        n = len(self.names)
        assert np.array_equal(fresh[0], self.free[:, :n]), "CONSERVATION: device books"
        assert np.array_equal(fresh[1], self.cpu[:n]), "CONSERVATION: cpu books"
        settled = {u: p for u, p in self.placed.items() if u not in held}
        for array in _recount(self, settled):
            for column in np.unique(np.argwhere(array < 0)[:, -1]):
                assert int(column) in self._shrunk, (
                    f"CONSERVATION: {self.names[int(column)]} holds more than it has"
                )


def _zeros(size: int) -> Ints:
    return np.zeros(size, np.int64)


def _tracked(amount: int) -> int:
    return amount or UNTRACKED


def _recount(
    cluster: Cluster, placed: Mapping[PodUid, Placed]
) -> tuple[Ints, Ints, Ints, Ints]:
    """Count what `cluster` has left if `placed` were all there is.

    Free devices (rows, nodes), CPU, memory and, below zero, the quanta by which
    fractions exceed a shared GPU (nodes).
    """
    n = len(cluster.names)
    free = cluster.total[:, :n].copy()
    cpu, memory = _zeros(n), _zeros(n)
    for column, node in enumerate(cluster.nodes):
        cpu[column] = _tracked(node.cpu_milli if node else 0)
        memory[column] = _tracked(node.memory_mib if node else 0)
    slots: dict[tuple[int, int, int], int] = {}
    for pod in placed.values():
        row, demand = cluster.rows[pod.form], pod.demand
        if demand.is_fraction:
            key = (row, pod.column, pod.slot)
            slots[key] = slots.get(key, 0) + demand.fraction
        else:
            free[row, pod.column] -= demand.count
        cpu[pod.column] -= demand.cpu_milli
        memory[pod.column] -= demand.memory_mib
    slack = _zeros(n)
    for (row, column, _), used in slots.items():
        free[row, column] -= 1
        slack[column] += min(0, QUANTA_PER_GPU - used)
    return free, cpu, memory, slack
