"""One engine, driven door by door, with its promises checked after every step.

Wishes come back as words: ``"admit p n1"``, ``"ask p"`` (to write a checkpoint),
``"evict p"``, ``"withdraw p"``.
"""

from collections.abc import Mapping, Sequence

from scheduler.core import (
    Action,
    Admit,
    CheckpointDone,
    CheckpointRequest,
    Engine,
    Event,
    Evict,
    Explanation,
    Filtered,
    Form,
    Node,
    NodeName,
    NodeUp,
    Pod,
    PodBound,
    PodGone,
    PodSubmitted,
    PodUid,
    Policy,
    Preemption,
    Queue,
    TenantsChanged,
)
from scheduler.core.engine.gangs import Gang


class Desk:
    """An engine with a clock; pods are known by their names."""

    def __init__(
        self, nodes: Sequence[Node], tenants: Sequence[Queue], policy: Policy
    ) -> None:
        self.engine = Engine(policy)
        self.now = 0.0
        self.pods: dict[str, Pod] = {}
        self.actions: tuple[Action, ...] = ()
        self.tell(*(NodeUp(node) for node in nodes), TenantsChanged(tuple(tenants)))

    # -- what happens ------------------------------------------------------------

    def tell(self, *events: Event) -> list[str]:
        """Let the engine hear of events, then decide; return its wishes."""
        for event in events:
            self.engine.observe(event, self.now)
        return self.cycle()

    def cycle(self) -> list[str]:
        """Decide; return the wishes."""
        self.actions = self.engine.cycle(self.now)
        self.engine.check_invariants()
        return [word(action) for action in self.actions]

    def wait(self, until: float) -> list[str]:
        """Pass time, stopping whenever the engine wants to look."""
        wishes: list[str] = []
        while (due := self.engine.next_deadline()) is not None and due <= until:
            assert due >= self.now, "a deadline in the past"
            self.now = due
            wishes += self.cycle()
            after = self.engine.next_deadline()
            assert after is None or after > due, "the deadline does not move on"
        self.now = until
        return wishes + self.cycle()

    def submit(self, *pods: Pod) -> list[str]:
        """Pods arrive."""
        self.pods.update((pod.uid, pod) for pod in pods)
        return self.tell(*(PodSubmitted(pod) for pod in pods))

    def bind(self, name: str, node: str = "", form: str | None = None) -> list[str]:
        """Bind a pod to a node, as planned when none is named."""
        place = node or self.node_of(name)
        pod = self.pods.get(name)
        mark = None if form is None else Form(form)
        return self.tell(PodBound(PodUid(name), NodeName(place), pod, mark))

    def start(self, *pods: Pod) -> list[str]:
        """Pods arrive, and those that are admitted are bound."""
        wishes = self.submit(*pods)
        for action in self.actions:
            if isinstance(action, Admit):
                wishes += self.bind(action.uid, action.node)
        return wishes

    def gone(self, *names: str) -> list[str]:
        """Pods release their devices."""
        return self.tell(*(PodGone(PodUid(name)) for name in names))

    def saved(self, *names: str) -> list[str]:
        """Pods write checkpoints."""
        return self.tell(*(CheckpointDone(PodUid(name)) for name in names))

    def tenants(self, *queues: Queue) -> list[str]:
        """Replace the tenants."""
        return self.tell(TenantsChanged(queues))

    # -- questions -----------------------------------------------------------------

    def filter(self, pod: Pod | str, *nodes: str) -> Filtered:
        """Ask where a pod may go; a cycle follows, as it does live."""
        asked = self.pods[pod] if isinstance(pod, str) else pod
        self.pods[asked.uid] = asked
        names = [NodeName(node) for node in nodes]
        answer = self.engine.filter(asked, names, self.now)
        self.engine.check_invariants()
        self.cycle()
        return answer

    def preempt(self, name: str, *nodes: str) -> Preemption:
        """Ask whom kube-scheduler may evict for a pod."""
        offers: Mapping[NodeName, tuple[PodUid, ...]] = {NodeName(n): () for n in nodes}
        return self.engine.preempt(self.pods[name], offers, self.now)

    def explain(self, name: str) -> Explanation:
        """Explain a pod that is known."""
        answer = self.engine.explain(PodUid(name), self.now)
        assert answer is not None, f"{name} is unknown"
        return answer

    def reasons(self, *names: str) -> list[str]:
        """Why pods are where they are, one word each."""
        return [self.explain(name).reason.name for name in names]

    def gang(self, name: str) -> Gang:
        """The gang of a pod, as the engine knows it."""
        return self.engine._state.gangs.by_pod[PodUid(name)]

    def node_of(self, name: str) -> str:
        """The node a pod is placed on."""
        node = self.explain(name).node
        assert node is not None, f"{name} is placed nowhere"
        return node


def word(action: Action) -> str:
    """One wish in short."""
    match action:
        case Admit():
            return f"admit {action.uid} {action.node}"
        case CheckpointRequest():
            return f"ask {action.uid}"
        case Evict():
            return f"evict {action.uid}"
        case _:
            return f"withdraw {action.uid}"


def dump(engine: Engine) -> dict[str, object]:
    """Everything the engine remembers that could change a later answer."""
    state = engine._state
    cluster, tree = state.cluster, state.tree
    return {
        "version": state.version,
        "gangs": {
            name: (
                gang.phase,
                gang.form,
                gang.core,
                gang.submitted,
                gang.started,
                gang.deadline,
                gang.dormant,
                gang.failures,
                gang.overdue,
                [
                    (uid, m.pod, m.bound, m.asked, m.evicted, m.saved)
                    for uid, m in gang.pods.items()
                ],
            )
            for name, gang in state.gangs.by_id.items()
        },
        "open": {base: gang.id for base, gang in state.gangs._open.items()},
        "placed": dict(cluster.placed),
        "nodes": list(cluster.nodes),
        "free": cluster.free[: len(cluster.rows), : len(cluster.names)].tolist(),
        "slots": {key: dict(slots) for key, slots in cluster._slots.items()},
        "queues": dict(tree.queues),
        "capacity": dict(tree.capacity),
        "used": {
            name: {form: amount for form, amount in used.items() if amount}
            for name, used in tree._used.items()
        },
        "reclaims": {name: hold.names for name, hold in state.reclaims.items()},
        "excused": dict(state.excused),
        "orphans": state.orphans,
        "aside": {name: set(forms) for name, forms in state._aside.items()},
        "actions": list(state.actions),
        "decisions": state.decisions,
    }
