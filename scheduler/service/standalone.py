"""Standalone mode: no Kubernetes, but a file, kube-scheduler's questions and a door.

Nodes and tenants come from the settings file, pods by the extender's verbs; binds,
exits and changes are reported at the event door, and what should happen waits in the
outbox. Decisions are taken in Filter itself (inline).
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from scheduler.codec import Reported
from scheduler.config import Config, nodes_of, policy_of, tenancy_of
from scheduler.core import (
    Action,
    CheckpointRequest,
    Event,
    Evict,
    Filtered,
    Fleet,
    NodeName,
    NodeUp,
    Pod,
    PodBound,
    PodGone,
    PodSubmitted,
    PodUid,
    Reason,
    TenantsChanged,
)
from scheduler.service.driver import Service
from scheduler.service.outbox import Outbox
from scheduler.tenancy import Tenancy


class Standalone(Service):
    """The service with an event door and an outbox."""

    def __init__(
        self, config: Config, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(config, policy_of(config), clock)
        self._tenancy = tenancy_of(config)
        self._asked: dict[PodUid, float] = {}
        self.naming = replace(self.naming, tenants=self._tenancy.owners)
        self.outbox = Outbox()

    async def _begin(self) -> None:
        self._apply([NodeUp(node) for node in nodes_of(self._config)])
        tenancy = self._tenancy
        self._apply([TenantsChanged(tenancy.queues, tenancy.fleet or Fleet())])

    def drain(self) -> None:
        """Go on answering, but say that no new calls should come; end polls."""
        super().drain()
        self.outbox.close()

    def filter(self, pod: Pod, nodes: Sequence[NodeName]) -> Filtered:
        """Say where the pod may go, and remember that it was asked about.

        Raises
        ------
        ValueError
            When the pod or a node contradicts what is known; nothing has changed then.
        """
        answer = super().filter(pod, nodes)
        if pod.uid not in self._roster.bound:
            self._roster.pods.setdefault(pod.uid, pod)
            self._asked[pod.uid] = self._clock()
        return answer

    def preempt(
        self, pod: Pod | None, offers: Mapping[NodeName, Sequence[PodUid]]
    ) -> dict[NodeName, tuple[PodUid, ...]]:
        """Narrow or correct kube-scheduler's choice of victims.

        A pod that fits nowhere as kube-scheduler counts is asked about here alone,
        never by Filter: it is taken note of and decided first. If its room is being
        reclaimed then, wishes say who is to go, with notice, and nobody else has to.

        Raises
        ------
        ValueError
            When the pod or a node contradicts what is known; nothing has changed then.
        """
        if pod is not None and pod.uid not in self._roster.bound:
            self.filter(pod, list(offers))
            self._cycle()
        return super().preempt(pod, offers)

    def report(self, batch: Collection[Reported]) -> int:
        """Apply a batch of events, whole or not at all; return how many there were.

        Raises
        ------
        CodecError
            For the first event that contradicts what is known.
        """
        events = self._roster.judge(batch, self._state_of)
        self._apply(events)
        trees = [item.event for item in batch if isinstance(item.event, Tenancy)]
        if trees:
            self._map_namespaces(trees[-1])
        self.metrics.events.inc(len(events))
        self._changed.set()
        return len(events)

    def _map_namespaces(self, tenancy: Tenancy) -> None:
        """Let pods that wait belong to whom their namespace belongs now.

        Bound ones stay with the tenant that they were charged to.
        """
        self.naming = replace(self.naming, tenants=tenancy.owners)
        for uid, pod in list(self._roster.pods.items()):
            tenant = self.naming.tenant(pod.name.partition("/")[0])
            if tenant != pod.tenant and uid not in self._roster.bound:
                asked = self._asked.get(uid, self._clock())
                moved = PodSubmitted(replace(pod, tenant=tenant))
                self._apply([PodGone(uid), moved])
                self._asked[uid] = asked

    def _state_of(self, uid: PodUid) -> Reason | None:
        found = self._engine.explain(uid, self._clock())
        return found.reason if found else None

    def _apply(self, events: Iterable[Event]) -> None:
        for event in events:
            super()._apply((event,))
            if isinstance(event, PodBound | PodGone):
                self._asked.pop(event.uid, None)
            if isinstance(event, PodGone):
                self.outbox.forget(event.uid)

    def _prepare(self) -> None:
        """Take pods for deleted that nobody has asked about for long."""
        since = self._clock() - self._config.policy.forget_after
        lost = [uid for uid, asked in self._asked.items() if asked < since]
        self._apply([PodGone(uid) for uid in lost])

    def _perform(self, action: Action) -> None:
        """Put wishes that others perform into the outbox.

        Admit and Withdraw stay here: inline, the next Filter says the same.
        """
        if isinstance(action, CheckpointRequest | Evict):
            pod = self._roster.pods.get(action.uid)
            self.outbox.put(action, pod.name if pod else action.uid)

    def _wishes(self) -> int:
        return len(self.outbox)
