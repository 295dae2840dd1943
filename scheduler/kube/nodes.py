"""Nodes as the API server shows them, less what pods of others use on them.

The engine knows pods of tenants. What others hold (CPU and memory of pods without GPUs,
devices of pods that no tenant is charged for) is taken off what the node offers, so that
no plan counts on it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from scheduler.codec import NodeObject, NodeReading, Use, node_of
from scheduler.core import Event, Form, Node, NodeChanged, NodeDown, NodeName, NodeUp


@dataclass(slots=True)
class _Others:
    """What pods of others use on one node."""

    uses: dict[str, Use] = field(default_factory=dict)
    cpu_milli: int = 0
    memory_mib: int = 0

    def put(self, uid: str, use: Use | None) -> None:
        """Count a pod, once; None takes it off."""
        for known, sign in ((self.uses.pop(uid, None), -1), (use, 1)):
            if known is not None:
                self.cpu_milli += sign * known.cpu_milli
                self.memory_mib += sign * known.memory_mib
        if use is not None:
            self.uses[uid] = use

    def devices(self) -> dict[str, int]:
        """Devices by resource name."""
        found: dict[str, int] = {}
        for use in self.uses.values():
            for resource, count in use.devices.items():
                found[resource] = found.get(resource, 0) + count
        return found


class Nodes:
    """All nodes, and which of them the engine has been told of.

    Nodes without GPUs are kept out of the engine: they cannot be chosen.
    """

    def __init__(self) -> None:
        self._objects: dict[NodeName, NodeObject] = {}
        self._names: dict[str, NodeName] = {}
        self._readings: dict[NodeName, NodeReading] = {}
        self._others: dict[NodeName, _Others] = {}
        self._places: dict[str, NodeName] = {}
        self._told: dict[NodeName, Node] = {}
        self._dirty: dict[NodeName, None] = {}
        self._classes: Mapping[str, str] = {}

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
        if name is not None and self._objects[name].metadata.uid == uid:
            del self._objects[name]
            self._readings.pop(name, None)
            self._dirty[name] = None

    def reclassify(self, classes: Mapping[str, str]) -> None:
        """Read all nodes anew: product labels mean other classes now."""
        if classes != self._classes:
            self._classes = classes
            for name in self._objects:
                self._read(name)

    def _read(self, name: NodeName) -> None:
        self._readings[name] = node_of(self._objects[name], self._classes)
        self._dirty[name] = None

    def use(self, uid: str, name: NodeName | None, use: Use | None) -> None:
        """Count what a pod of others uses, wherever it is now; None: nothing."""
        before = self._places.pop(uid, None)
        for place in {before, name} - {None}:
            assert place is not None
            others = self._others.setdefault(place, _Others())
            others.put(uid, use if place == name else None)
            if not others.uses:
                del self._others[place]
            self._dirty[place] = None
        if name is not None and use is not None:
            self._places[uid] = name

    # -- what the engine hears ---------------------------------------------------

    def arrivals(self) -> list[Event]:
        """Return events for nodes that came or changed, by name."""
        events: list[Event] = []
        for name in sorted(self._dirty):
            node, told = self._offered(name), self._told.get(name)
            if node is not None and node != told:
                events.append(NodeUp(node) if told is None else NodeChanged(node))
                self._told[name] = node
        return events

    def departures(self) -> list[Event]:
        """Return events for nodes that are gone, by name; ends the round."""
        lost = [n for n in sorted(self._dirty) if n in self._told]
        lost = [name for name in lost if name not in self._readings]
        for name in lost:
            del self._told[name]
        self._dirty.clear()
        return [NodeDown(name) for name in lost]

    def _offered(self, name: NodeName) -> Node | None:
        """Return the node less what others use; None where there is nothing for us.

        A node that has lost its GPUs is offered as it is: pods may still be on it.
        """
        reading = self._readings.get(name)
        if reading is None or not (reading.node.offers or name in self._told):
            return None
        node, others = reading.node, self._others.get(name)
        if others is None:
            return node
        offers = dict(node.offers)
        for resource, count in others.devices().items():
            form = reading.forms.get(resource)
            if form is not None:
                offers[form] = max(0, offers[form] - count)
        return replace(
            node,
            offers=tuple(sorted(offers.items())),
            cpu_milli=_left(node.cpu_milli, others.cpu_milli),
            memory_mib=_left(node.memory_mib, others.memory_mib),
        )

    # -- questions ---------------------------------------------------------------

    def knows(self, name: NodeName) -> bool:
        """Whether the engine has been told of the node."""
        return name in self._told

    def forms(self, name: NodeName) -> Iterable[Form]:
        """Forms that a node offers."""
        reading = self._readings.get(name)
        return (form for form, _ in reading.node.offers) if reading else ()

    def products(self, form: Form) -> tuple[str, ...]:
        """Product labels of the nodes that offer a form, sorted."""
        found = {
            reading.products
            for reading in self._readings.values()
            if any(form == offered for offered, _ in reading.node.offers)
        }
        return tuple(sorted(found - {""}))

    def problems(self) -> dict[NodeName, tuple[str, ...]]:
        """Return nodes whose GPUs we cannot offer, and why."""
        return {n: r.problems for n, r in sorted(self._readings.items()) if r.problems}


def _left(there: int, used: int) -> int:
    """Return what is left; 0 would mean that nobody counts it."""
    return max(1, there - used) if there else 0
