"""Nodes as the API server shows them, less what pods of others use on them.

The engine knows pods of tenants. What others hold (CPU and memory of pods without
GPUs, devices of pods that no tenant is charged for) is taken off what the node offers,
so that no plan counts on it.
"""

from collections.abc import Iterable, Mapping

from scheduler.codec import NodeObject, NodeReading, Use, node_of
from scheduler.core import (
    Event,
    Form,
    Node,
    NodeChanged,
    NodeDown,
    NodeName,
    NodeUp,
    charge,
)


class Nodes:
    """All nodes, and which of them the engine has been told of.

    Nodes without GPUs are kept out of the engine: they cannot be chosen.
    """

    def __init__(self) -> None:
        self._objects: dict[NodeName, NodeObject] = {}
        self._names: dict[str, NodeName] = {}
        self._readings: dict[NodeName, NodeReading] = {}
        self._others: dict[NodeName, dict[str, Use]] = {}
        self._places: dict[str, NodeName] = {}
        self._told: dict[NodeName, Node] = {}
        self._dirty: dict[NodeName, None] = {}
        self._lost: dict[NodeName, None] = {}
        self._classes: Mapping[str, str] = {}
        self._products: dict[Form, tuple[str, ...]] | None = None
        self._capacity: dict[Form, int] | None = None
        self._sized = False  # whether there has been a node with GPUs

    # -- what is seen ------------------------------------------------------------

    def changed(self, node: NodeObject) -> None:
        """Take a node's state."""
        name = NodeName(node.metadata.name)
        self._objects[name] = node
        self._names[node.metadata.uid] = name
        self._read(name)

    def gone(self, uid: str) -> None:
        """Forget a node, unless another of its name has come since."""
        name = self._names.pop(uid, None)
        known = self._objects.get(name) if name is not None else None
        if name is not None and known is not None and known.metadata.uid == uid:
            del self._objects[name]
            self._readings.pop(name, None)
            self._touch(name)

    def reclassify(self, classes: Mapping[str, str]) -> None:
        """Read all nodes anew: product labels mean other classes now."""
        if classes != self._classes:
            self._classes = classes
            for name in self._objects:
                self._read(name)

    def _read(self, name: NodeName) -> None:
        reading = node_of(self._objects[name], self._classes)
        if reading != self._readings.get(name):  # else it was a heartbeat
            self._readings[name] = reading
            self._touch(name)

    def _touch(self, name: NodeName) -> None:
        self._dirty[name] = None
        self._products = self._capacity = None

    def use(self, uid: str, name: NodeName | None, use: Use | None) -> None:
        """Count what a pod of others uses, wherever it is now; None: nothing."""
        before = self._places.pop(uid, None)
        if before is not None:
            others = self._others[before]
            if before == name and others[uid] == use:
                self._places[uid] = before
                return
            del others[uid]
            if not others:
                del self._others[before]
            self._dirty[before] = None
        if name is not None and use is not None:
            self._others.setdefault(name, {})[uid] = use
            self._places[uid] = name
            self._dirty[name] = None

    # -- what the engine hears ---------------------------------------------------

    def arrivals(self) -> list[Event]:
        """Return events for nodes that came or changed, by name."""
        events: list[Event] = []
        for name in sorted(self._dirty):
            node, told = self._offered(name), self._told.get(name)
            if node is not None and node != told:
                events.append(NodeUp(node) if told is None else NodeChanged(node))
                self._told[name] = node
            elif name not in self._readings and told is not None:
                self._lost[name] = None
        self._dirty.clear()
        return events

    def departures(self) -> list[Event]:
        """Return events for nodes that `arrivals` has found gone, by name."""
        lost = [name for name in sorted(self._lost) if name not in self._readings]
        self._lost.clear()
        for name in lost:
            del self._told[name]
        return [NodeDown(name) for name in lost]

    def _offered(self, name: NodeName) -> Node | None:
        """Return the node less what others use; None where there is nothing for us.

        A node that has lost its GPUs is offered as it is: pods may still be on it.
        """
        reading = self._readings.get(name)
        if reading is None or not (reading.node.offers or name in self._told):
            return None
        others = self._others.get(name)
        if not others:
            return reading.node
        return reading.without(sum(others.values(), Use()))

    # -- questions ---------------------------------------------------------------

    def knows(self, name: NodeName) -> bool:
        """Whether the engine has been told of the node."""
        return name in self._told

    def is_dirty(self, name: NodeName) -> bool:
        """Whether there is something new of a node, or of what others use on it."""
        return name in self._dirty

    def counts(self, uid: str) -> bool:
        """Whether what a pod uses is taken off its node."""
        return uid in self._places

    def forms(self, name: NodeName) -> Iterable[Form]:
        """Forms that a node offers."""
        reading = self._readings.get(name)
        return (form for form, _ in reading.node.offers) if reading else ()

    def products(self, form: Form) -> tuple[str, ...]:
        """Product labels of the nodes that offer a form, sorted."""
        if self._products is None:
            found: dict[Form, set[str]] = {}
            for reading in self._readings.values():
                for offered, _ in reading.node.offers:
                    found.setdefault(offered, set()).add(reading.product)
            self._products = {f: tuple(sorted(p - {""})) for f, p in found.items()}
        return self._products.get(form, ())

    def capacity(self) -> dict[Form, int] | None:
        """Quanta per form over all nodes, used or not; None before the first one."""
        if self._capacity is None:
            found: dict[Form, int] = {}
            for reading in self._readings.values():
                for form, count in reading.node.offers:
                    found[form] = found.get(form, 0) + count * charge(form)
            self._capacity = found
            self._sized = self._sized or bool(found)
        return self._capacity if self._sized else None

    def problems(self) -> dict[NodeName, tuple[str, ...]]:
        """Return nodes whose GPUs we cannot offer, and why."""
        return {n: r.problems for n, r in sorted(self._readings.items()) if r.problems}
