"""The engine's methods; their contract is in the package's docstring."""

from collections.abc import Mapping, Sequence
from functools import singledispatchmethod
from itertools import repeat

import numpy as np

from scheduler.core.allocator import Plan, Problem
from scheduler.core.cluster import Ints, Mask
from scheduler.core.engine import explain as views
from scheduler.core.engine import plans
from scheduler.core.engine.gangs import Gang, Phase
from scheduler.core.engine.invariants import check_invariants
from scheduler.core.engine.lane import Lane
from scheduler.core.engine.state import State
from scheduler.core.engine.views import (
    Explanation,
    Filtered,
    Leaving,
    Planned,
    Policy,
    Preemption,
    QueueEntry,
    TenantUse,
)
from scheduler.core.events import (
    Action,
    CheckpointDone,
    Event,
    NodeChanged,
    NodeDown,
    NodeUp,
    PodBound,
    PodGone,
    PodReplaced,
    PodStopping,
    PodSubmitted,
    Reason,
    TenantsChanged,
)
from scheduler.core.gpu import Form
from scheduler.core.placement import MAX_SCORE, best_node, node_scores
from scheduler.core.quota import Fleet, Queue, Shortage, refusals
from scheduler.core.reclaim import find_exchange
from scheduler.core.workload import GangId, NodeName, Pod, PodUid


class Engine:
    """Decides; see the package's docstring for the contract."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self._state = State(self.policy)
        self._lane = Lane(self._state)

    @property
    def version(self) -> int:
        """Grows with every change of state."""
        return self._state.version

    # -- events ------------------------------------------------------------------

    def observe(self, event: Event, now: float) -> None:
        """Take note of what happened.

        Raises
        ------
        ValueError
            When the event contradicts what is known; nothing is applied then.
        """
        self._observe(event, now)
        self._state.heard += 1
        self._state.shares.remember(now)

    @singledispatchmethod
    def _observe(self, event: object, now: float) -> None:
        raise ValueError(f"not an event: {event!r}")

    @_observe.register
    def _(self, event: NodeUp, now: float) -> None:
        self._state.set_node(event.node, now)

    @_observe.register
    def _(self, event: NodeChanged, now: float) -> None:
        if self._state.cluster.node(event.node.name) is None:
            raise ValueError(f"NodeChanged: unknown node {event.node.name!r}")
        self._state.set_node(event.node, now)

    @_observe.register
    def _(self, event: NodeDown, now: float) -> None:
        if self._state.cluster.node(event.name) is None:
            raise ValueError(f"NodeDown: unknown node {event.name!r}")
        self._state.drop_node(event.name, now)

    @_observe.register
    def _(self, event: PodSubmitted, now: float) -> None:
        gang = self._state.submit(event.pod, _earlier(event.since, now))
        self._state.await_fellow(gang, now)

    @_observe.register
    def _(self, event: PodReplaced, now: float) -> None:
        gang = self._state.gangs.by_pod.get(event.uid)
        if gang is not None and gang.pods[event.uid].bound:
            raise ValueError(f"PodReplaced: pod {event.uid!r} runs")
        if gang is None or event.pod.uid in self._state.gangs.by_pod:
            raise ValueError(
                f"PodReplaced: {event.uid!r} is unknown or {event.pod.uid!r} is known"
            )
        self._state.replace(event.uid, event.pod, now)

    @_observe.register
    def _(self, event: PodBound, now: float) -> None:
        state = self._state
        column = state.cluster.index.get(event.node)
        if column is None or state.cluster.node(event.node) is None:
            raise ValueError(f"PodBound: unknown node {event.node!r}")
        gang = state.gangs.by_pod.get(event.uid)
        if gang is None and event.pod is None:
            raise ValueError(f"PodBound: unknown pod {event.uid!r}")
        if gang is None or gang.phase in (Phase.WAITING, Phase.HELD):
            self._adopt(event, column, now)
        else:
            self._bind(gang, event, column, now)

    @_observe.register
    def _(self, event: PodGone, now: float) -> None:
        if event.uid in self._state.gangs.by_pod:
            self._state.gone(event.uid, now)

    @_observe.register
    def _(self, event: PodStopping, now: float) -> None:
        gang = self._state.gangs.by_pod.get(event.uid)
        if gang is not None and gang.pods[event.uid].bound:
            self._state.stop(gang, event.uid, event.by, now)

    @_observe.register
    def _(self, event: CheckpointDone, now: float) -> None:
        gang = self._state.gangs.by_pod.get(event.uid)
        if gang is not None:
            gang.pods[event.uid].saved = now
            gang.pods[event.uid].asked = False
            self._state.version += 1

    @_observe.register
    def _(self, event: TenantsChanged, now: float) -> None:
        self._state.set_tenants(event.queues, event.fleet, now)

    def _bind(self, gang: Gang, event: PodBound, column: int, now: float) -> None:
        """Take note that a planned pod is bound, as planned or not."""
        state = self._state
        placed, member = state.cluster.placed[event.uid], gang.pods[event.uid]
        if member.bound and placed.column == column:
            return
        if member.bound:
            at = state.cluster.names[placed.column]
            raise ValueError(f"PodBound: pod {event.uid!r} is bound to {at!r} already")
        forms = self._forms_on(member.pod, column)
        if gang.is_loose and forms and placed.form not in forms:
            self._adopt(event, column, now)
        else:
            state.bind(gang, event.uid, column, now)

    def _adopt(self, event: PodBound, column: int, now: float) -> None:
        """Take note of a bound pod that no decision of this engine has placed."""
        state = self._state
        known = state.gangs.by_pod.get(event.uid)
        pod = known.pods[event.uid].pod if known else event.pod
        assert pod is not None
        form = event.form or next(iter(self._forms_on(pod, column)), None)
        if form is None and known is not None:
            form = known.planned  # the node changed after it was planned there
        if form is None:
            raise ValueError(
                f"PodBound: node {event.node!r} offers nothing pod {pod.name} accepts"
            )
        if pod.tenant not in state.tree.queues:
            state.shelter(pod.tenant)
        state.adopt(pod, column, form, now, _earlier(event.since, now))

    def _forms_on(self, pod: Pod, column: int) -> tuple[Form, ...]:
        """Forms the node offers and the pod accepts, preferred first."""
        node = self._state.cluster.nodes[column]
        assert node is not None
        return pod.demand.forms(form for form, _ in node.offers)

    # -- kube-scheduler's questions ------------------------------------------------

    def filter(self, pod: Pod, nodes: Sequence[NodeName], now: float) -> Filtered:
        """Say where the pod may go.

        A pod with a plan is steered to its node. Inline, a pod without one is decided
        on the spot, and the answer is a reservation under its UID until it is bound or
        ``gang_start_timeout_s`` has passed.

        Raises
        ------
        ValueError
            When a node is unknown; nothing is decided then.
        """
        offered = self._offered(nodes)
        if not self.policy.inline and pod.uid not in self._state.gangs.by_pod:
            return Filtered((), Reason.UNMARKED)
        gang = self._state.submit(pod, now)
        if gang.phase is Phase.WAITING and self.policy.inline:
            self._state.wake(gang, now)
            self._lane.decide_now(gang, now, {pod.uid: offered})
        elif self._must_move(gang, pod.uid, offered, len(nodes)):
            self._replan(gang, pod.uid, offered, now)
        self._state.shares.remember(now)
        return self._answer(gang, pod, nodes, offered)

    def _columns(self, nodes: Sequence[NodeName]) -> Ints:
        """Columns of the nodes, in their order; ValueError names an unknown one."""
        known = self._state.cluster.index.get
        columns = np.fromiter(map(known, nodes, repeat(-1)), np.int64, len(nodes))
        if len(nodes) and np.min(columns) < 0:
            raise ValueError(f"unknown node {nodes[int(np.argmin(columns))]!r}")
        return columns

    def _offered(self, nodes: Sequence[NodeName]) -> Mask:
        """Mask of the offered nodes; ValueError names one unknown or offered twice."""
        columns = self._columns(nodes)
        mask = np.zeros(len(self._state.cluster.names), np.bool_)
        mask[columns] = True
        if np.count_nonzero(mask) != len(nodes):
            counts = np.bincount(columns)
            twice = self._state.cluster.names[int(np.argmax(counts))]
            raise ValueError(f"node {twice!r} is offered twice")
        return mask

    def _must_move(self, gang: Gang, uid: PodUid, offered: Mask, count: int) -> bool:
        """Whether a planned pod's node is not among those kube-scheduler offers.

        Inline, one node offered alone is a nominated node being tried first, not a
        sign. Of pods at our gate the nominated node is the planned one: another that is
        offered alone is all that is left.
        """
        fewest = 2 if self.policy.inline else 1
        return (
            count >= fewest
            and gang.phase is Phase.ADMITTED
            and not gang.pods[uid].bound
            and not offered[self._state.cluster.placed[uid].column]
        )

    def _replan(self, gang: Gang, uid: PodUid, offered: Mask, now: float) -> None:
        """Move an admitted pod to an offered node of the same form, if one has room."""
        state = self._state
        placed = state.cluster.placed[uid]
        column = best_node(state.cluster, placed.demand, placed.form, offered)
        if column >= 0:
            state.cluster.remove(uid)
            state.cluster.place(uid, column, placed.form, placed.demand)
            gang.deadline = now + self.policy.gang_start_timeout_s
            state.version += 1

    def _answer(
        self, gang: Gang, pod: Pod, nodes: Sequence[NodeName], offered: Mask
    ) -> Filtered:
        if gang.phase in (Phase.ADMITTED, Phase.RUNNING, Phase.HELD):
            column = self._state.cluster.placed[pod.uid].column
            planned = (self._state.cluster.names[column],) if offered[column] else ()
            if gang.phase is Phase.HELD:
                return Filtered(
                    (), Reason.STEERED, dict.fromkeys(planned, Reason.RECLAIMING)
                )
            return Filtered(planned, Reason.STEERED)
        if not self.policy.inline:
            return Filtered((), Reason.UNMARKED)
        reason = views.reason_for(self._state, gang)
        if reason is Reason.NO_ROOM:
            return Filtered((), reason, self._wrong_class(gang, nodes))
        return Filtered((), reason)

    def _wrong_class(
        self, gang: Gang, nodes: Sequence[NodeName]
    ) -> Mapping[NodeName, Reason]:
        """Nodes that offer no form the gang accepts: evicting there cannot help."""
        cluster = self._state.cluster
        rows = [cluster.rows[form] for form in self._state.forms_of(gang)]
        offered = cluster.total[rows].max(axis=0)
        index = cluster.index
        return {
            name: Reason.UNKNOWN_CLASS for name in nodes if offered[index[name]] <= 0
        }

    def score(self, pod: Pod, nodes: Sequence[NodeName], now: float) -> tuple[int, ...]:
        """Rate nodes 0..10, the best highest; a planned node beats all others.

        Rated is the form the pod likes best of those that have room somewhere.

        Raises
        ------
        ValueError
            When a node is unknown.
        """
        columns = self._columns(nodes)
        state = self._state
        placed = state.cluster.placed.get(pod.uid)
        if placed is not None:
            planned = columns == placed.column
            return tuple(np.where(planned, MAX_SCORE, 0).tolist())
        for form in pod.demand.forms(state.cluster.forms()):
            scores = node_scores(state.cluster, pod.demand, form, columns)
            if any(scores):
                return scores
        return (0,) * len(nodes)

    def preempt(
        self, pod: Pod, offers: Mapping[NodeName, Sequence[PodUid]], now: float
    ) -> Preemption:
        """Narrow or correct kube-scheduler's choice of victims.

        Only offered nodes come back, each with the cheapest legal victims that sit
        wholly on it, highest priority first. A node on which nobody may be evicted for
        this pod is left out. Nothing is changed. A pod whose room is already being
        reclaimed gets no victims: they have been asked to leave.
        """
        state = self._state
        gang = state.gangs.by_pod.get(pod.uid)
        if gang is None or gang.phase is not Phase.WAITING:
            return Preemption({})
        if not state.is_eligible(gang):
            return Preemption({})
        sitting = self._sitting()
        found: dict[NodeName, tuple[PodUid, ...]] = {}
        for node in offers:
            here = sitting.get(state.cluster.index.get(node, -1))
            victims = self._victims_on(gang, node, here, now) if here else ()
            if victims:
                found[node] = victims
        return Preemption(found)

    def _sitting(self) -> dict[int, list[Gang]]:
        """Return gangs that run, extras included, on one node alone, by its column."""
        found: dict[int, list[Gang]] = {}
        placed = self._state.cluster.placed
        for gang in self._state.gangs.by_phase[Phase.RUNNING].values():
            columns = {placed[uid].column for uid in self._crew(gang)}
            if len(columns) == 1:
                found.setdefault(columns.pop(), []).append(gang)
        return found

    def _crew(self, gang: Gang) -> list[PodUid]:
        """Pods of a gang and of its extras that hold devices."""
        extras = self._state.gangs.extras(gang)
        placed = self._state.cluster.placed
        pods = (uid for member in (gang, *extras) for uid in sorted(member.pods))
        return [uid for uid in pods if uid in placed]

    def _victims_on(
        self, gang: Gang, node: NodeName, sitting: list[Gang], now: float
    ) -> tuple[PodUid, ...]:
        state = self._state
        allowed = dict.fromkeys(gang.pods, self._offered([node]))
        for form in state.possible_forms(gang):
            exchange = find_exchange(
                state.cluster,
                state.taker(gang, form),
                [state.holding(g, now) for g in sitting if g.form == form],
                state.court(now),
                allowed,
            )
            if exchange is not None:
                chosen = [state.gangs.by_id[name] for name in exchange.victims]
                chosen.sort(key=lambda g: (int(g.workload_class), -g.priority, g.id))
                crews = (uid for g in chosen for uid in self._crew(g))
                return tuple(dict.fromkeys(crews))
        return ()

    # -- decisions -------------------------------------------------------------------

    def cycle(self, now: float) -> tuple[Action, ...]:
        """Decide what can be decided now (lane 1) and return every new wish."""
        self._lane.cycle(now)
        self._state.shares.remember(now)
        actions = tuple(self._state.actions)
        self._state.actions.clear()
        return actions

    def next_deadline(self) -> float | None:
        """When ``cycle`` would act though nothing happens, seconds; None: never."""
        return self._lane.next_deadline()

    def problem(self, now: float) -> Problem:
        """Freeze what lane 1 left waiting, for ``allocate`` in another process."""
        asks = (self._lane.ask(gang) for gang in self._lane.order())
        return Problem(
            version=self._state.version,
            now=now,
            asks=tuple(asks),
            cluster=self._state.cluster.room(),
            tree=self._state.tree.copy(),
        )

    def commit(self, plan: Plan, now: float) -> tuple[Action, ...]:
        """Admit what of a solved plan still holds; what went stale is dropped."""
        self._lane.commit(plan, now)
        self._state.shares.remember(now)
        actions = tuple(self._state.actions)
        self._state.actions.clear()
        return actions

    # -- views -----------------------------------------------------------------------

    def explain(self, uid: PodUid, now: float) -> Explanation | None:
        """Why the pod is where it is; None when it is unknown."""
        return views.explain(self._state, self._lane, uid, now)

    def tenants(self, now: float) -> tuple[TenantUse, ...]:
        """Who holds what: one row per queue and form, in quanta."""
        return views.tenants(self._state)

    def queue(self, now: float) -> tuple[QueueEntry, ...]:
        """List waiting gangs in the order decisions are taken."""
        return views.queue(self._state, self._lane)

    def gang(self, uid: PodUid) -> GangId | None:
        """Name the gang of a pod; None when it is unknown."""
        found = self._state.gangs.by_pod.get(uid)
        return found.id if found else None

    def plans(self) -> tuple[Planned, ...]:
        """Return pods whose node is decided and that are not bound, by gang and UID."""
        return tuple(plans.plans(self._state))

    def leaving(self) -> tuple[Leaving, ...]:
        """Return pods that were told to go and are still here, by gang and UID."""
        return tuple(plans.leaving(self._state))

    def shortages(self) -> tuple[Shortage, ...]:
        """Guarantees that cannot all be served on the nodes that are there."""
        return self._state.tree.shortages

    def refusals(
        self, queues: Sequence[Queue], fleet: Fleet | None = None
    ) -> tuple[str, ...]:
        """Say what keeps a tree of queues from replacing the present one, in numbers.

        Empty when it may. An update that does not worsen a shortage always may.
        """
        tree = self._state.tree
        cluster = self._state.cluster
        capacity = cluster.capacity() if cluster.names else None
        return tuple(refusals(queues, fleet or tree.fleet, capacity, tree))

    def stranded(self) -> int:
        """Quanta of the fleet that MIG layouts leave unused."""
        return self._state.cluster.stranded()

    def capacity(self) -> dict[Form, int]:
        """Quanta per form over all nodes."""
        return self._state.cluster.capacity()

    def check_invariants(self) -> None:
        """Raise AssertionError, naming the invariant, when one is broken."""
        check_invariants(self._state)


def _earlier(since: float | None, now: float) -> float:
    return now if since is None else min(since, now)
