"""The service on Kubernetes: the API server is heard, decided on, and written to.

Informers tell the mirror what they see; before each look at the queue what is new is
told to the engine, and after it what is missing outside is written. Nothing is
remembered that the API server does not have: a new process finds marks, nominations and
bound pods, finishes what was begun and decides the rest again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from scheduler.config import Config, policy_of
from scheduler.config.schema import KubernetesConfig
from scheduler.core import (
    Action,
    Admission,
    Assignment,
    Event,
    Explanation,
    Filtered,
    Form,
    GangId,
    NodeName,
    Plan,
    Pod,
    PodBound,
    PodReplaced,
    PodSubmitted,
    PodUid,
    Reason,
    Status,
    TenantsChanged,
    allocate,
    class_of,
)
from scheduler.kube.api import Api, ApiError
from scheduler.kube.gaps import timestamp
from scheduler.kube.informer import Informer
from scheduler.kube.mirror import Mirror
from scheduler.kube.records import Record
from scheduler.kube.tenants import Tenants
from scheduler.kube.writer import Writer
from scheduler.metrics import Watch
from scheduler.service import watches
from scheduler.service.driver import Service

SLICE = 200
"""Events of a starting service that are told at once."""

PUBLISH_S = 1.0
"""Shortest time between two writes of the tenants' statuses, seconds."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class OnKubernetes(Service):
    """The service with a mirror of the cluster and a writer."""

    def __init__(
        self,
        config: Config,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(config, policy_of(config), clock)
        self._settings = config.kubernetes or KubernetesConfig()
        self._today = today
        self._mirror = Mirror(self.naming, self._settings.scheduler_names)
        self._tenants = Tenants()
        self._tenants_changed = True
        self._judged: tuple[object, ...] = ()
        self._api: Api | None = None
        self._writer: Writer | None = None
        self._informers: list[Informer[Any]] = []
        self._tasks: list[asyncio.Task[Any]] = []

    # -- life --------------------------------------------------------------------

    async def _begin(self) -> None:
        settings, note = self._settings, self._changed.set
        path = Path(settings.kubeconfig) if settings.kubeconfig else None
        self._api = api = await Api.connect(path, settings.context)
        self._writer = Writer(api, self._mirror, self.metrics.written, settings.workers)
        lease = settings.scheduler_lease
        await self._watch(
            *watches.of_tenants(api, self._tenants, self._note_tenants),
            *watches.of_cluster(api, self._mirror, lease, note),
        )
        await self._tell_slowly(self._hear_of_nodes())
        await self._watch(watches.of_pods(api, self._mirror, note))
        await self._tell_slowly(self._hear())
        self._finish_what_was_begun()
        self._tasks.append(asyncio.create_task(self._publish()))

    async def _watch(self, *informers: Informer[Any]) -> None:
        """Begin to watch, and wait for the first lists.

        An informer that ends takes the service with it.
        """
        self._informers.extend(informers)
        tasks = [asyncio.create_task(informer.run()) for informer in informers]
        self._tasks.extend(tasks)
        whole = asyncio.gather(*(informer.synced.wait() for informer in informers))
        try:
            done, _ = await asyncio.wait(
                [whole, *self._tasks], return_when=asyncio.FIRST_COMPLETED
            )
            for each in done:
                each.result()
        finally:
            whole.cancel()

    async def _tell_slowly(self, events: Iterable[Event]) -> None:
        """Let the engine hear of a whole cluster, and let others have a turn."""
        for count, event in enumerate(events):
            self._tell((event,))
            if count % SLICE == 0:
                await asyncio.sleep(0)

    async def stop(self) -> None:
        """Answer no more; end the watches and all writes that are under way."""
        await super().stop()  # first, for each cycle begins writes
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writer is not None:
            await self._writer.stop()
        if self._api is not None:
            await self._api.close()

    def _note_tenants(self) -> None:
        self._tenants_changed = True
        self._changed.set()

    # -- hear --------------------------------------------------------------------

    def _prepare(self) -> None:
        """Tell the engine what is new: nodes, tenants, then pods."""
        self._check_tasks()
        self._tell(self._hear())

    def _hear(self) -> Iterator[Event]:
        """Find what is new; each event is to be told before the next is asked for."""
        yield from self._hear_of_nodes()
        to_epoch = self._to_epoch  # one for all, so that equal times stay equal
        yield from self._mirror.events(lambda seconds: seconds - to_epoch)

    def _hear_of_nodes(self) -> Iterator[Event]:
        for _ in range(2):  # the second time product labels mean what they mean now
            yield from self._mirror.node_events()
            self._resolve()

    def _check_tasks(self) -> None:
        """Decide nothing by what is not heard of any more.

        No cycle succeeds from then on, so that the service is not healthy and is begun
        anew.
        """
        for task in self._tasks:
            if task.done():
                task.result()

    def _resolve(self) -> None:
        """Take over what holds of the tenants' objects.

        They are judged by the nodes there are, whoever uses them now: pods that run
        in a tenant's namespace are not charged to it before it is accepted.
        """
        capacity = self._mirror.nodes.capacity()
        judged = (capacity,)
        if not self._tenants_changed and judged == self._judged:
            return
        self._tenants_changed, self._judged = False, judged
        classes = {class_of(form) for form in capacity or ()}
        resolved = self._tenants.resolve(classes, capacity)
        self._mirror.nodes.reclassify(resolved.products)
        tenancy = resolved.tenancy
        assert tenancy.fleet is not None  # noqa: S101 (objects always say)
        changed = TenantsChanged(tenancy.queues, tenancy.fleet)
        if changed != self._roster.tenants:
            self._tell([changed])
        naming = replace(
            self.naming, tenants=tenancy.owners, products=resolved.products
        )
        if naming != self.naming:
            self.naming = naming
            self._mirror.rename(naming)

    def _tell(self, events: Iterable[Event]) -> None:
        """Let the engine hear; what it refuses is told to the pod's owner.

        Each event is told once: a fault of ours with one must not cost the others.
        """
        for event in events:
            try:
                self._apply((event,))
            except ValueError as error:
                log.warning("%s: %s", type(event).__name__, error)
                self._refuse(event, str(error))
            except Exception:
                log.exception("%s was not taken", event)
                self._refuse(event, "a fault of the scheduler, see its log")

    def _refuse(self, event: Event, problem: str) -> None:
        if isinstance(event, PodSubmitted | PodReplaced):
            self._mirror.refuse(event.pod.uid, problem)
        elif isinstance(event, PodBound):
            self._mirror.refuse(event.uid, problem)

    @property
    def _to_epoch(self) -> float:
        """What to add to the engine's time to get seconds since the epoch."""
        return self._today() - self._clock()

    # -- after a restart -----------------------------------------------------------

    def _finish_what_was_begun(self) -> None:
        """Take over admissions of which a gate is open already.

        None of the others has begun: they are decided again.
        """
        begun = self._begun()
        gangs: dict[GangId, list[Record]] = {}
        for record in self._mirror.pods.records.values():
            gang = self._engine.gang(record.uid)
            if gang is not None and record.node is None and _team(record) in begun:
                gangs.setdefault(gang, []).append(record)
        admissions = [
            admission
            for gang in sorted(gangs)
            if (admission := _inherited(gang, gangs[gang])) is not None
        ]
        if admissions:
            log.info("finishing %d admissions that were begun", len(admissions))
            self._finish(admissions)

    def _finish(self, admissions: list[Admission]) -> None:
        """Admit as it was begun; elsewhere who has no room there any more."""
        now = self._clock()
        begun = {admission.gang for admission in admissions}
        plan = Plan(
            version=self._engine.version,
            admissions=tuple(admissions),
            status=Status.GREEDY,
            objective=0,
            bound=0,
        )
        self._take(self._engine.commit(plan, now))
        problem = self._engine.problem(now)
        rest = tuple(ask for ask in problem.asks if ask.gang in begun)
        if rest:
            plan = allocate(replace(problem, asks=rest))
            self._take(self._engine.commit(plan, now))

    def _begun(self) -> set[str]:
        """Name the gangs of which a member has no gate any more."""
        records = self._mirror.pods.records.values()
        return {_team(record) for record in records if not record.gated}

    # -- act ---------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        """Leave it to the comparison that follows each look."""

    def _conclude(self) -> None:
        """Write what is missing outside."""
        if self._writer is not None:
            self._writer.reconcile(
                self._engine.plans(), self._engine.leaving(), self._to_epoch
            )

    def _wishes(self) -> int:
        return len(self._engine.leaving())

    def _watches(self) -> tuple[Watch, ...]:
        now = time.monotonic()
        return tuple(
            Watch(
                path=informer.path,
                objects=len(informer),
                lists=informer.health.lists,
                failures=informer.health.failures,
                skipped=informer.health.skipped,
                silent_s=now - informer.health.last_event_monotonic,
            )
            for informer in self._informers
        )

    async def _publish(self) -> None:
        """Write the tenants' statuses as they change."""
        while True:
            await asyncio.sleep(PUBLISH_S)
            try:
                await self._publish_all(timestamp(self._today()))
            except Exception:
                log.exception("statuses were not written; they are tried again")

    async def _publish_all(self, now: str) -> None:
        for name in self._tenants.statuses(self.tenants(), now):
            await self._publish_one(name)
        if self._tenants.fleet_status(now) is not None:
            await self._publish_one(None)

    async def _publish_one(self, name: Any) -> None:
        update = self._tenants.update_of(name)
        if update is None or self._api is None:
            return
        path, body = update
        try:
            await self._api.replace(path, body)
            self.metrics.written("status", "done")
        except ApiError as error:
            self.metrics.written("status", str(error.status or error.reason))
            self._tenants.untold(name)

    # -- kube-scheduler's questions ----------------------------------------------

    def filter(self, pod: Pod, nodes: Sequence[NodeName]) -> Filtered:
        """Say where the pod may go: no node that we do not know, or cannot read.

        kube-scheduler may hear of a node before we do. An error would cost the pod its
        nomination, and others offer the node along with those that we know.
        """
        return super().filter(pod, self._known(nodes))

    def score(self, pod: Pod, nodes: Sequence[NodeName]) -> tuple[int, ...]:
        """Rate nodes 0..10, in order; those that we do not know 0."""
        known = self._known(nodes)
        scores = dict(zip(known, super().score(pod, known), strict=True))
        return tuple(scores.get(name, 0) for name in nodes)

    def preempt(
        self, pod: Pod | None, offers: Mapping[NodeName, Sequence[PodUid]]
    ) -> dict[NodeName, tuple[PodUid, ...]]:
        """Narrow or correct kube-scheduler's choice of victims."""
        known = self._known(offers)
        return super().preempt(pod, {name: offers[name] for name in known})

    def _known(self, nodes: Iterable[NodeName]) -> list[NodeName]:
        return [name for name in nodes if name in self._roster.nodes]

    # -- views -------------------------------------------------------------------

    def explain(self, pod: str) -> Explanation | None:
        """Why a pod is where it is; also one that the engine was never told of."""
        found = super().explain(pod)
        if found is None:
            return self._explain_unreadable(pod)
        refusals = self._writer.blocked.items() if self._writer else ()
        why = [text for uid, text in refusals if self._concerns(found, uid)]
        return replace(found, detail="; ".join([found.detail, *dict.fromkeys(why)]))

    def _concerns(self, found: Explanation, victim: PodUid) -> bool:
        """Whether a pod is the victim, or waits for it."""
        return victim == found.uid or self._engine.gang(victim) in found.blockers

    def _explain_unreadable(self, pod: str) -> Explanation | None:
        pods = self._mirror.pods
        for record in (pods.records[uid] for uid in pods.troubled):
            if pod in (record.uid, f"{record.namespace}/{record.name}"):
                return Explanation(
                    uid=record.uid,
                    name=f"{record.namespace}/{record.name}",
                    tenant=self.naming.tenant(record.namespace),
                    gang=GangId(record.uid),
                    workload_class=self._config.defaults.workload_class,
                    reason=Reason.UNREADABLE,
                    detail=record.problem,
                )
        return None


def _team(record: Record) -> str:
    """Name what a pod starts together with: its gang, or itself."""
    gang = record.pod.gang if record.pod else ""
    return f"{record.namespace}/{gang}" if gang else record.uid


def _inherited(gang: GangId, records: list[Record]) -> Admission | None:
    """Return the admission that all members carry, None if they do not agree."""
    forms: set[Form] = set()
    placed: list[Assignment] = []
    for record in sorted(records, key=lambda record: record.uid):
        mark = record.admission()
        if mark is None or not mark.node:
            return None
        forms.add(mark.form)
        placed.append(Assignment(record.uid, NodeName(mark.node)))
    return Admission(gang, forms.pop(), tuple(placed)) if len(forms) == 1 else None
