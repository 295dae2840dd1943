"""Pods as the API server shows them, and which of them the engine has been told of.

A pod is a tenant's when it asks for GPUs, its namespace belongs to a tenant and one of
our schedulers is to place it; or when it carries our mark: then it stays with whom it
was charged to. Of all others only counts what they use where they run (``nodes``).

What the engine hears is the difference between what is seen and what it has been told,
so that news that are missed, doubled or out of order change nothing.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from scheduler.codec import (
    CodecError,
    Naming,
    PodObject,
    is_terminal,
    is_terminating,
    job_of,
    membership,
    pod_of,
    use_of,
)
from scheduler.codec.mark import ADMISSION
from scheduler.core import (
    CheckpointDone,
    Event,
    NodeName,
    Pod,
    PodBound,
    PodGone,
    PodReplaced,
    PodSubmitted,
    PodUid,
)
from scheduler.kube.gangs import Sizes
from scheduler.kube.jobs import Jobs
from scheduler.kube.nodes import Nodes
from scheduler.kube.records import Record, record_of

DEFAULT_SCHEDULER = "default-scheduler"

Since = Callable[[float], float]
"""Turns seconds since the epoch into the engine's time."""


@dataclass(slots=True)
class _Told:
    """What the engine knows of a pod."""

    pod: Pod
    node: NodeName | None
    stamp: object


class Pods:
    """All pods, and which of them the engine has been told of.

    Parameters
    ----------
    schedulers
        Names of the kube-scheduler profiles that ask us.
    """

    def __init__(
        self, naming: Naming, nodes: Nodes, jobs: Jobs, schedulers: Collection[str]
    ) -> None:
        self.records: dict[PodUid, Record] = {}
        self.adorned: dict[PodUid, None] = {}
        self.asked: dict[PodUid, None] = {}
        self.troubled: dict[PodUid, None] = {}
        self._naming = naming
        self._nodes = nodes
        self._jobs = jobs
        self._schedulers = frozenset(schedulers)
        self._sizes = Sizes()
        self._waiting: dict[PodUid, PodObject] = {}  # GPU pods that are not bound
        self._told: dict[PodUid, _Told] = {}
        self._dirty: dict[PodUid, None] = {}
        self._of_controller: dict[str, dict[PodUid, None]] = {}
        self._homeless: dict[PodUid, None] = {}

    # -- what is seen ------------------------------------------------------------

    def changed(self, message: PodObject) -> None:
        """Take a pod's state; an older one than what we wrote ourselves is ignored."""
        ended = is_terminating(message) and not message.spec.node_name
        if is_terminal(message) or ended:
            self.gone(message.metadata.uid)
            return
        known = self.records.get(PodUid(message.metadata.uid))
        if known and int(message.metadata.resource_version or 0) < known.version:
            return
        self._take(message)

    def gone(self, uid: str) -> None:
        """Forget a pod: it is deleted, or has ended and holds nothing any more."""
        self._drop(PodUid(uid))
        self._nodes.use(uid, None, None)

    def rename(self, naming: Naming) -> None:
        """Read anew whoever waits in a namespace that belongs to another tenant now.

        Bound pods stay with the tenant that they were charged to.
        """
        before, self._naming = self._naming, naming
        for message in list(self._waiting.values()):
            namespace = message.metadata.namespace
            if before.tenant(namespace) != naming.tenant(namespace):
                self._take(message)

    def reread(self, job: str) -> None:
        """Read anew whoever waits of a Job: it is known now, or has another size."""
        mine = [m for m in self._waiting.values() if _job_uid(m) == job]
        for message in mine:
            self._sizes.leave(PodUid(message.metadata.uid))
        for message in mine:
            self._take(message)

    def refuse(self, uid: PodUid, problem: str) -> None:
        """Remember that the engine has not taken a pod; a later state may be better."""
        self._told.pop(uid, None)
        if uid in self.records:
            self.records[uid].problem = problem
            self.note(self.records[uid])

    def of_controller(self, uid: str) -> Collection[PodUid]:
        """Return a controller's pods."""
        return self._of_controller.get(uid, {})

    def note(self, record: Record) -> None:
        """Remember whether a pod carries what only a plan or a wish justifies.

        And whether it has a problem that its owner should know of.
        """
        for book, is_in in (
            (self.adorned, record.is_adorned),
            (self.asked, bool(record.save_by)),
            (self.troubled, bool(record.problem)),
        ):
            if is_in:
                book[record.uid] = None
            else:
                book.pop(record.uid, None)

    def _take(self, message: PodObject) -> None:
        record = self._read(message)
        uid, node = PodUid(message.metadata.uid), message.spec.node_name
        if record is None or (record.node and record.pod is None):
            self._drop(uid)
            others = use_of(message) if node else None
            self._nodes.use(uid, NodeName(node) if node else None, others)
            if record is None and not node and self._asks_for_gpus(message):
                self._waiting[uid] = message
            return
        self._nodes.use(uid, None, None)
        self.records[uid] = record
        if record.controller is not None:
            self._of_controller.setdefault(record.controller.uid, {})[uid] = None
        self._dirty[uid] = None
        self.note(record)
        if record.node is None:
            self._waiting[uid] = message
        else:
            self._waiting.pop(uid, None)
            record.use = None if record.mark else use_of(message)

    def _drop(self, uid: PodUid) -> None:
        self._waiting.pop(uid, None)
        self._homeless.pop(uid, None)
        self.adorned.pop(uid, None)
        self.asked.pop(uid, None)
        self.troubled.pop(uid, None)
        self._sizes.leave(uid)
        record = self.records.pop(uid, None)
        if record is None:
            return
        self._dirty[uid] = None
        if record.controller is not None:
            mine = self._of_controller[record.controller.uid]
            del mine[uid]
            if not mine:
                del self._of_controller[record.controller.uid]

    def _asks_for_gpus(self, message: PodObject) -> bool:
        """Whether somebody else's pod would be a tenant's in another namespace."""
        return bool(use_of(message).devices)

    # -- reading -----------------------------------------------------------------

    def _read(self, message: PodObject) -> Record | None:
        """Return the record of a tenant's GPU pod; None for everybody else's."""
        if not self._is_ours(message):
            return None
        record = record_of(message)
        try:
            record.pod = self._pod(message, record)
        except CodecError as error:
            record.problem = str(error)
        return record if record.pod or record.problem else None

    def _is_ours(self, message: PodObject) -> bool:
        if ADMISSION in (message.metadata.annotations or {}):
            return True
        scheduler = message.spec.scheduler_name or DEFAULT_SCHEDULER
        managed = message.metadata.namespace in self._naming.tenants
        return managed and scheduler in self._schedulers

    def _pod(self, message: PodObject, record: Record) -> Pod | None:
        """Return the core pod; None for one without GPUs, or that waits for its Job."""
        if not use_of(message).devices:
            return None
        owner = job_of(message)
        job = self._jobs.get(owner.uid) if owner else None
        pod = pod_of(message, self._naming, membership(message, job))
        if pod is None:
            return None
        if owner and job is None and record.node is None:
            record.problem = f"its Job {owner.name} is not known yet"
            return None
        size = self._sizes.join(record.uid, pod.gang, pod.min_member)
        pod = replace(pod, min_member=size)
        mark = record.admission()
        if mark is None or record.gated:
            return pod
        return replace(pod, tenant=mark.tenant, workload_class=mark.workload_class)

    # -- what the engine hears ---------------------------------------------------

    def departures(self) -> list[Event]:
        """Return events for pods that are gone, or are not what they were."""
        return [PodGone(uid) for uid in sorted(self._dirty) if self._has_left(uid)]

    def _has_left(self, uid: PodUid) -> bool:
        told, record = self._told.get(uid), self.records.get(uid)
        if told is None:
            return False
        if record is None or record.pod is None:
            del self._told[uid]
            return True
        if told.node is None and record.gated and record.pod != told.pod:
            del self._told[uid]
            return True
        return False

    def arrivals(self, since: Since) -> list[Event]:
        """Return events for pods that were bound, came or saved; ends the round.

        Bound ones first, then those that wait by age, whatever order they came in.
        """
        fresh = [*self._homeless, *self._dirty]
        self._dirty.clear()
        self._homeless.clear()
        events: list[Event] = []
        waiting: list[tuple[float, Pod, Record]] = []
        for uid in sorted(set(fresh)):
            record = self.records.get(uid)
            if record is None or record.pod is None:
                continue
            if record.node is not None:
                events.extend(self._bound(record, record.pod, record.node, since))
            else:
                waiting.append((record.created, record.pod, record))
        waiting.sort(key=lambda row: (row[0], row[1].uid))
        for _, pod, record in waiting:
            events.extend(self._submitted(record, pod, since))
        return events

    def _bound(
        self, record: Record, pod: Pod, node: NodeName, since: Since
    ) -> Iterator[Event]:
        told, mark = self._told.get(record.uid), record.admission()
        if told is not None and told.node == node:
            if told.stamp != record.stamp:
                told.stamp = record.stamp
                yield CheckpointDone(record.uid)
            return
        if not self._nodes.knows(node):
            self._homeless[record.uid] = None
            return
        if mark is None and not pod.demand.forms(self._nodes.forms(node)):
            self._nodes.use(record.uid, node, record.use)
            return
        self._told[record.uid] = _Told(pod, node, record.stamp)
        started = since(record.started or record.created)
        yield PodBound(record.uid, node, pod, mark.form if mark else None, started)

    def _submitted(self, record: Record, pod: Pod, since: Since) -> Iterator[Event]:
        if record.uid in self._told:
            return
        self._told[record.uid] = _Told(pod, None, record.stamp)
        owner = record.controller
        stand_in = self._jobs.stand_in(owner.uid) if owner else None
        if stand_in is not None:
            yield PodReplaced(stand_in, pod)
        else:
            yield PodSubmitted(pod, since(record.created))


def _job_uid(message: PodObject) -> str:
    owner = job_of(message)
    return owner.uid if owner else ""
