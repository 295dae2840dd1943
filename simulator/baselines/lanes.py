"""Queues that start their head or wait: first in first out, and fixed partitions.

Hidden here: what the two have in common. Waiting gangs stand in *lanes*; a lane starts
its head as soon as there is room for the whole gang and waits otherwise: nobody
overtakes, nobody is ever evicted. `fifo` has one lane for all and no quotas. `static`
has a lane for each tenant, which may hold its guarantee and no more, though nodes are
shared.

A gang that could never start, on an empty cluster or in an empty partition, is left
out of its lane instead of blocking it for ever.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from scheduler.core import (
    Action,
    Admit,
    CheckpointDone,
    Event,
    Form,
    GangId,
    NodeUp,
    Pod,
    PodBound,
    PodGone,
    PodSubmitted,
    PodUid,
    TenantName,
    TenantsChanged,
    charge,
)
from simulator.baselines.rooms import Buckets, Columns, Room
from simulator.trace import Trace

Gang = list[Pod]


@dataclass(slots=True)
class Lane:
    """Waiting gangs, and what they may hold together: quanta by form, None: all."""

    budget: dict[Form, int] | None = None
    waiting: deque[Gang] = field(default_factory=deque[Gang])


class Lanes:
    """A scheduler made of lanes; the interface is the engine's.

    Parameters
    ----------
    room
        Where gangs go.
    by_tenant
        Whether each tenant has a lane and its guarantee, or all stand in one.
    """

    def __init__(self, room: Room, *, by_tenant: bool) -> None:
        self._room = room
        self._by_tenant = by_tenant
        self._lanes: dict[TenantName | None, Lane] = {}
        self._arriving: dict[GangId, Gang] = {}
        self._charged: dict[PodUid, tuple[Lane, Form, int]] = {}
        self._decisions = 0
        self._changed = False
        self._handlers: dict[type[Event], Callable[..., None]] = {
            NodeUp: self._node_up,
            TenantsChanged: self._tenants_changed,
            PodSubmitted: self._submitted,
            PodGone: self._gone,
            PodBound: _nothing,
            CheckpointDone: _nothing,
        }

    # -- the engine's driving interface --------------------------------------

    def observe(self, event: Event, now: float) -> None:
        """Hear what happened; see `Engine.observe`."""
        del now
        self._handlers[type(event)](event)

    def cycle(self, now: float) -> list[Action]:
        """Start every head that finds room; see `Engine.cycle`."""
        del now
        actions: list[Action] = []
        if self._changed:
            self._changed = False
            for lane in self._lanes.values():
                self._advance(lane, actions)
        return actions

    def next_deadline(self) -> None:
        """Nothing here happens by time alone."""

    # -- events --------------------------------------------------------------

    def _node_up(self, event: NodeUp) -> None:
        self._room.add(event.node)

    def _tenants_changed(self, event: TenantsChanged) -> None:
        if not self._by_tenant:
            self._lanes = {None: Lane()}
            return
        self._lanes = {
            queue.name: Lane({form: n * charge(form) for form, n in queue.guarantee})
            for queue in event.queues
        }

    def _submitted(self, event: PodSubmitted) -> None:
        pod = event.pod
        gang = [pod]
        if pod.min_member > 1:
            gang = self._arriving.setdefault(pod.gang_id, [])
            gang.append(pod)
            if len(gang) < pod.min_member:
                return
            del self._arriving[pod.gang_id]
        self._lanes[pod.tenant if self._by_tenant else None].waiting.append(gang)
        self._changed = True

    def _gone(self, event: PodGone) -> None:
        charged = self._charged.pop(event.uid, None)
        if charged is None:
            return  # was never started
        lane, form, quanta = charged
        self._room.free(event.uid)
        if lane.budget is not None:
            lane.budget[form] += quanta
        self._changed = True

    # -- decisions -----------------------------------------------------------

    def _advance(self, lane: Lane, actions: list[Action]) -> None:
        while lane.waiting:
            gang = lane.waiting[0]
            if not self._start(lane, gang, actions) and self._could_start(lane, gang):
                return
            lane.waiting.popleft()

    def _start(self, lane: Lane, gang: Gang, actions: list[Action]) -> bool:
        for form in self._room.forms(gang[0].demand):
            quanta = [pod.demand.charge(form) for pod in gang]
            if lane.budget is not None and sum(quanta) > lane.budget.get(form, 0):
                continue
            nodes = self._room.take(gang, form)
            if nodes is None:
                continue
            self._decisions += 1
            for pod, node, amount in zip(gang, nodes, quanta, strict=True):
                self._charged[pod.uid] = (lane, form, amount)
                if lane.budget is not None:
                    lane.budget[form] -= amount
                actions.append(
                    Admit(pod.uid, pod.gang_id, node, form, amount, self._decisions)
                )
            return True
        return False

    def _could_start(self, lane: Lane, gang: Gang) -> bool:
        """Whether the gang would start if nothing else ran."""
        for form in self._room.forms(gang[0].demand):
            need = sum(pod.demand.charge(form) for pod in gang)
            whole = self._whole(lane, form)
            if (whole is None or need <= whole) and self._room.could_hold(gang, form):
                return True
        return False

    def _whole(self, lane: Lane, form: Form) -> int | None:
        """Return what the lane may hold in all, None when nothing binds."""
        if lane.budget is None:
            return None
        held = sum(
            quanta
            for owner, used, quanta in self._charged.values()
            if owner is lane and used == form
        )
        return lane.budget.get(form, 0) + held


def _nothing(_event: Event) -> None:
    """Hear of something that changes no decision here."""


def fifo(trace: Trace) -> Lanes:
    """Return first in first out, without quotas, for the cluster of a trace."""
    return Lanes(_room(trace), by_tenant=False)


def static(trace: Trace) -> Lanes:
    """Return fixed partitions: each tenant holds its guarantee and no more."""
    return Lanes(_room(trace), by_tenant=True)


def _room(trace: Trace) -> Room:
    """Return the fast room where only whole devices matter."""
    tracked = any(node.cpu_milli or node.memory_mib for node in trace.nodes)
    shared = any(job.members[0].is_fraction for job in trace.jobs)
    return Columns() if tracked or shared else Buckets()
