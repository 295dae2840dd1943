"""What the outside has told so far, to judge a batch of events before it is applied.

Hidden here: the rules by which the engine would refuse an event. A batch is judged
event by event against the state it would meet, so that it is applied whole or not at
all.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from scheduler.codec import CodecError, RefusedError, Reported
from scheduler.core import (
    Event,
    Form,
    Node,
    NodeChanged,
    NodeDown,
    NodeName,
    NodeUp,
    Pod,
    PodBound,
    PodGone,
    PodReplaced,
    PodSubmitted,
    PodUid,
    QuotaTree,
    Reason,
    TenantsChanged,
    charge,
    class_of,
)
from scheduler.tenancy import Tenancy, faults

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PLANNED = frozenset({Reason.STARTING, Reason.RUNNING, Reason.TERMINATING})
"""Pods of which the engine knows in which form they run."""


class Roster:
    """Tenants, nodes, pods and bindings as they were reported."""

    def __init__(self) -> None:
        self.tenants = TenantsChanged(())
        self.nodes: dict[NodeName, Node] = {}
        self.pods: dict[PodUid, Pod] = {}
        self.bound: dict[PodUid, NodeName] = {}

    @property
    def waiting(self) -> int:
        """Number of pods that have been heard of and are not bound."""
        return len(self.pods) - len(self.bound)

    def judge(
        self, batch: Iterable[Reported], state_of: Callable[[PodUid], Reason | None]
    ) -> list[Event]:
        """Return the events as the engine takes them.

        Parameters
        ----------
        state_of
            Says how far a pod has come, None when it is unknown.

        Raises
        ------
        CodecError
            For the first event that contradicts what is known: names line, field and
            value. Nothing has been noted then.
        """
        trial = _Trial(self, state_of)
        return [trial.judge(item.event, f"line {item.line}") for item in batch]

    def note(self, event: Event) -> None:
        """Remember an event that the engine has taken."""
        match event:
            case NodeUp(node) | NodeChanged(node):
                self.nodes[node.name] = node
            case NodeDown(name):
                self.nodes.pop(name, None)
            case TenantsChanged():
                self.tenants = event
            case PodSubmitted(pod):
                self.pods[pod.uid] = pod
            case PodBound(uid, node_name, pod):
                if pod is not None:
                    self.pods.setdefault(uid, pod)
                self.bound[uid] = node_name
            case PodReplaced(uid, pod):
                self.pods.pop(uid, None)
                self.pods[pod.uid] = pod
            case PodGone(uid):
                self.pods.pop(uid, None)
                self.bound.pop(uid, None)


class _Overlay(Generic[K, V]):
    """A dictionary seen through changes that are not made yet."""

    def __init__(self, base: dict[K, V]) -> None:
        self._base = base
        self._changes: dict[K, V | None] = {}

    def get(self, key: K) -> V | None:
        """Return the value as it would be; None when there would be none."""
        if key in self._changes:
            return self._changes[key]
        return self._base.get(key)

    def put(self, key: K, value: V | None) -> None:
        """Change a value; None takes it away."""
        self._changes[key] = value

    def values(self) -> Iterator[V]:
        """Return all values as they would be."""
        for key in {**self._base, **self._changes}:
            value = self.get(key)
            if value is not None:
                yield value


class _Trial:
    """The roster as a batch would leave it."""

    def __init__(
        self, roster: Roster, state_of: Callable[[PodUid], Reason | None]
    ) -> None:
        self._nodes = _Overlay(roster.nodes)
        self._pods = _Overlay(roster.pods)
        self._bound = _Overlay(roster.bound)
        self._tenants = roster.tenants
        self._state_of = state_of

    def judge(self, event: Event | Tenancy, where: str) -> Event:
        """Return the event as the engine takes it, and let it count for the next."""
        match event:
            case Tenancy():
                return self._judge_tenancy(event, where)
            case NodeChanged(node):
                return self._judge_node(node, where)
            case PodBound():
                return self._judge_bound(event, where)
            case PodGone(uid):
                self._pods.put(uid, None)
                self._bound.put(uid, None)
        return event

    def _judge_tenancy(self, tenancy: Tenancy, where: str) -> TenantsChanged:
        before = QuotaTree(self._tenants.queues, self._tenants.fleet)
        there = self._capacity()
        if there is not None:
            before.capacity = there
        forms = {form for node in self._nodes.values() for form, _ in node.offers}
        classes = {class_of(form) for form in forms}
        found = faults(tenancy, classes, there, before)
        if found:
            raise RefusedError(where, found)
        fleet = tenancy.fleet or self._tenants.fleet
        self._tenants = TenantsChanged(tenancy.queues, fleet)
        return self._tenants

    def _capacity(self) -> dict[Form, int] | None:
        """Quanta by form over all nodes; None while there are none."""
        found: dict[Form, int] | None = None
        for node in self._nodes.values():
            found = {} if found is None else found
            for form, count in node.offers:
                found[form] = found.get(form, 0) + count * charge(form)
        return found

    def _judge_node(self, node: Node, where: str) -> Event:
        groups = {str(group.name) for group in self._tenants.fleet.groups}
        for form, _ in node.offers:
            if class_of(form) in groups:
                problem = "is the name of a class group (fleet.groups)"
                raise CodecError(where, "node.gpuClass", class_of(form), problem)
        known = self._nodes.get(node.name) is not None
        self._nodes.put(node.name, node)
        return NodeChanged(node) if known else NodeUp(node)

    def _judge_bound(self, event: PodBound, where: str) -> PodBound:
        known = self._pods.get(event.uid)
        pod, node = known or event.pod, self._nodes.get(event.node)
        if node is None:
            raise CodecError(where, "node", event.node, "is no node of this cluster")
        if pod is None:
            problem = "is no known pod: send the pod itself along, as `pod`"
            raise CodecError(where, "uid", event.uid, problem)
        if known is None:
            self._check_tenant(pod, where)
        self._check_place(pod, node, where)
        self._pods.put(event.uid, pod)
        self._bound.put(event.uid, event.node)
        return PodBound(event.uid, event.node, pod)

    def _check_tenant(self, pod: Pod, where: str) -> None:
        """Refuse a pod that nobody pays for.

        One that was heard of before may have lost its tenant since: it is where it is.
        """
        queues = self._tenants.queues
        inner = {queue.parent for queue in queues}
        if pod.tenant not in {queue.name for queue in queues} - inner:
            problem = f"of pod {pod.name} is no tenant"
            raise CodecError(where, "tenant", pod.tenant, problem)

    def _check_place(self, pod: Pod, node: Node, where: str) -> None:
        before = self._bound.get(pod.uid)
        if before not in (None, node.name):
            problem = f"is not where pod {pod.uid!r} is bound already, {before!r}"
            raise CodecError(where, "node", node.name, problem)
        offered = pod.demand.forms(form for form, _ in node.offers)
        if not offered and self._state_of(pod.uid) not in PLANNED:
            problem = f"offers nothing that pod {pod.name} accepts"
            raise CodecError(where, "node", node.name, problem)
