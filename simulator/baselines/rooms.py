"""Where a gang goes.

Hidden here: how free room is found. Two ways, one interface:

* `Buckets`, for whole devices where nothing else binds: the nodes with k free devices
  are the bits of one integer, so that best fit is a look at a few integers.
* `Columns`, the core's own placement, where pods share GPUs or CPU and memory bind.

`Buckets` consolidates as the Helios simulator (SC'21) does: a single pod takes the
node with the fewest free devices that suffice; the pods of a gang that fills nodes
take the emptiest nodes one after the other, each a node of its own. The pods of any
other gang go one by one where a single pod would. Ties go to the node that joined
first.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from scheduler.core import (
    Cluster,
    Demand,
    Form,
    Node,
    NodeName,
    Pod,
    PodUid,
    place_gang,
)

Places = list[NodeName]


class Room(Protocol):
    """The free room of a cluster."""

    def add(self, node: Node) -> None:
        """Add a node."""
        ...

    def forms(self, demand: Demand) -> tuple[Form, ...]:
        """Return the offered forms that the demand accepts, preferred first."""
        ...

    def take(self, pods: Sequence[Pod], form: Form) -> Places | None:
        """Place a whole gang on one form, or nobody: a node for each pod."""
        ...

    def free(self, uid: PodUid) -> None:
        """Give back what a pod holds."""
        ...

    def could_hold(self, pods: Sequence[Pod], form: Form) -> bool:
        """Whether the gang would fit an empty cluster."""
        ...


class Forms:
    """Acceptable forms per kind of demand, computed once for each kind."""

    def __init__(self) -> None:
        self._offered: set[Form] = set()
        self._known: dict[tuple[tuple[str, ...], str], tuple[Form, ...]] = {}

    def offer(self, node: Node) -> None:
        """Learn what a node offers."""
        self._offered.update(form for form, _ in node.offers)
        self._known.clear()

    def of(self, demand: Demand) -> tuple[Form, ...]:
        """Return the acceptable forms, preferred first."""
        kind = (demand.classes, demand.profile)
        forms = self._known.get(kind)
        if forms is None:
            forms = self._known[kind] = demand.forms(sorted(self._offered))
        return forms


class _Pool:
    """The nodes that offer one form, by their number of free devices."""

    def __init__(self) -> None:
        self.names: list[NodeName] = []
        self.left: list[int] = []  # free devices per node
        self.total: list[int] = []
        self.spare = 0
        self.size = 0  # devices of the largest node
        self.masks: list[int] = [0]  # masks[k]: the nodes with k free devices, as bits

    def add(self, name: NodeName, devices: int) -> None:
        bit = 1 << len(self.names)
        self.names.append(name)
        self.left.append(devices)
        self.total.append(devices)
        self.spare += devices
        self.size = max(self.size, devices)
        self.masks += [0] * (self.size + 1 - len(self.masks))
        self.masks[devices] |= bit

    def change(self, node: int, delta: int) -> None:
        """Give devices back to a node, or take them if `delta` is negative."""
        bit = 1 << node
        left = self.left[node]
        self.masks[left] ^= bit
        self.masks[left + delta] ^= bit
        self.left[node] = left + delta
        self.spare += delta

    def tightest(self, count: int) -> int:
        """Return the node with the fewest free devices that suffice, or -1."""
        for free in range(count, self.size + 1):
            mask = self.masks[free]
            if mask:
                return (mask & -mask).bit_length() - 1
        return -1

    def emptiest(self) -> Iterator[int]:
        """Yield nodes with free devices, the emptiest first."""
        for free in range(self.size, 0, -1):
            mask = self.masks[free]
            while mask:
                bit = mask & -mask
                yield bit.bit_length() - 1
                mask ^= bit


class Buckets:
    """Whole devices, found by free count."""

    def __init__(self) -> None:
        self._forms = Forms()
        self._pools: dict[Form, _Pool] = {}
        self._held: dict[PodUid, tuple[_Pool, int, int]] = {}

    def add(self, node: Node) -> None:
        """Add a node."""
        self._forms.offer(node)
        for form, devices in node.offers:
            self._pools.setdefault(form, _Pool()).add(node.name, devices)

    def forms(self, demand: Demand) -> tuple[Form, ...]:
        """Return the offered forms that the demand accepts, preferred first."""
        return self._forms.of(demand)

    def take(self, pods: Sequence[Pod], form: Form) -> Places | None:
        """Place a whole gang on one form, or nobody: a node for each pod."""
        pool = self._pools[form]
        counts = [pod.demand.count for pod in pods]
        if len(counts) == 1:
            node = pool.tightest(counts[0])
            nodes = None if node < 0 else [node]
        elif sum(counts) > pool.spare:
            nodes = None
        elif max(counts) == pool.size:
            nodes = _one_each(pool, counts)
        else:
            nodes = _one_by_one(pool, counts)
        if nodes is None:
            return None
        for pod, count, node in zip(pods, counts, nodes, strict=True):
            pool.change(node, -count)
            self._held[pod.uid] = (pool, node, count)
        return [pool.names[node] for node in nodes]

    def free(self, uid: PodUid) -> None:
        """Give back what a pod holds."""
        pool, node, count = self._held.pop(uid)
        pool.change(node, count)

    def could_hold(self, pods: Sequence[Pod], form: Form) -> bool:
        """Whether the gang would fit an empty cluster."""
        fresh = _Pool()
        for name, devices in zip(
            self._pools[form].names, self._pools[form].total, strict=True
        ):
            fresh.add(name, devices)
        counts = [pod.demand.count for pod in pods]
        if len(counts) > 1 and max(counts) == fresh.size:
            return _one_each(fresh, counts) is not None
        return _one_by_one(fresh, counts) is not None


def _largest_first(counts: Sequence[int]) -> list[int]:
    return sorted(range(len(counts)), key=lambda i: -counts[i])


def _one_each(pool: _Pool, counts: Sequence[int]) -> list[int] | None:
    """Give each pod a node of its own, the emptiest nodes first."""
    nodes = [-1] * len(counts)
    order = _largest_first(counts)
    for i, node in zip(order, pool.emptiest(), strict=False):
        if pool.left[node] < counts[i]:
            return None
        nodes[i] = node
    return None if -1 in nodes else nodes


def _one_by_one(pool: _Pool, counts: Sequence[int]) -> list[int] | None:
    """Give each pod the node that fits it most tightly; several may share one."""
    nodes = [-1] * len(counts)
    for i in _largest_first(counts):
        nodes[i] = pool.tightest(counts[i])
        if nodes[i] < 0:
            break
        pool.change(nodes[i], -counts[i])
    for node, count in zip(nodes, counts, strict=True):
        if node >= 0:
            pool.change(node, count)
    return None if -1 in nodes else nodes


class Columns:
    """The core's placement: fractions of a GPU, CPU and memory count as well."""

    def __init__(self) -> None:
        self._forms = Forms()
        self._cluster = Cluster()
        self._empty = Cluster()

    def add(self, node: Node) -> None:
        """Add a node."""
        self._forms.offer(node)
        self._cluster.set_node(node)
        self._empty.set_node(node)

    def forms(self, demand: Demand) -> tuple[Form, ...]:
        """Return the offered forms that the demand accepts, preferred first."""
        return self._forms.of(demand)

    def take(self, pods: Sequence[Pod], form: Form) -> Places | None:
        """Place a whole gang on one form, or nobody: a node for each pod."""
        members = [(pod.uid, pod.demand) for pod in pods]
        placed = place_gang(self._cluster, members, form)
        if placed is None:
            return None
        nodes = {place.uid: self._cluster.names[place.column] for place in placed}
        return [nodes[pod.uid] for pod in pods]

    def free(self, uid: PodUid) -> None:
        """Give back what a pod holds."""
        self._cluster.remove(uid)

    def could_hold(self, pods: Sequence[Pod], form: Form) -> bool:
        """Whether the gang would fit an empty cluster."""
        members = [(pod.uid, pod.demand) for pod in pods]
        with self._empty.trial():
            return place_gang(self._empty, members, form) is not None
