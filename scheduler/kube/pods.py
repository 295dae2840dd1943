"""Pods as the API server shows them, and which of them the engine has been told of.

A pod is a tenant's when it asks for GPUs, its namespace belongs to a tenant and one of
our schedulers is to place it; or when it carries our mark. Once the engine knows that
it is bound it stays what it was then, and with whom it was charged to. Of all others
only counts what they use where they run (``nodes``).

What the engine hears is the difference between what is seen and what it has been told,
so that news that are missed, doubled or out of order change nothing.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from scheduler.codec import (
    CodecError,
    Naming,
    PodObject,
    is_gated,
    is_terminal,
    is_terminating,
    job_of,
    membership,
    pod_of,
    use_of,
)
from scheduler.codec.mark import ADMISSION, CHECKPOINT_DEADLINE, HOLD
from scheduler.core import (
    CheckpointDone,
    Event,
    NodeName,
    Pod,
    PodBound,
    PodGone,
    PodReplaced,
    PodStopping,
    PodSubmitted,
    PodUid,
)
from scheduler.kube.gangs import Sizes
from scheduler.kube.jobs import DEFAULT_SCHEDULER, Jobs
from scheduler.kube.nodes import Nodes
from scheduler.kube.records import Record, mark_of, record_of

OURS = (ADMISSION, HOLD, CHECKPOINT_DEADLINE)
"""Annotations that we write; a pod asks for nothing by them."""

Since = Callable[[float], float]
"""Turns seconds since the epoch into the engine's time."""


@dataclass(slots=True)
class _Told:
    """What the engine knows of a pod."""

    pod: Pod
    node: NodeName | None
    stamp: object
    stops_by: float | None = None


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
        self._messages: dict[PodUid, PodObject] = {}  # GPU pods, until told as bound
        self._told: dict[PodUid, _Told] = {}
        self._dirty: dict[PodUid, None] = {}
        self._of_controller: dict[str, dict[PodUid, None]] = {}
        self._homeless: dict[NodeName, dict[PodUid, None]] = {}  # bound and not told
        self._refused: dict[PodUid, str] = {}  # and the gang they name

    # -- what is seen ------------------------------------------------------------

    def changed(self, message: PodObject) -> None:
        """Take a pod's state; an older one than what we wrote ourselves is ignored."""
        ended = is_terminating(message) and not message.spec.node_name
        if is_terminal(message) or ended:
            self.gone(message.metadata.uid)
            return
        known = self.records.get(PodUid(message.metadata.uid))
        if known is not None and known.is_ahead:
            version = int(message.metadata.resource_version or 0)
            known.is_ahead = version < known.version
            if version <= known.version:
                return  # the state that our own write was answered with, or older
        self._take(message)

    def gone(self, uid: str) -> None:
        """Forget a pod: it is deleted, or has ended and holds nothing any more."""
        self._drop(PodUid(uid))
        self._nodes.use(uid, None, None)

    def answered(self, message: PodObject) -> None:
        """Take what a write of ours has made of a pod, unless more is known already."""
        uid = PodUid(message.metadata.uid)
        known = self.records.get(uid)
        if known is None or int(message.metadata.resource_version) <= known.version:
            return
        self.changed(message)
        if uid in self.records:
            self.records[uid].is_ahead = True

    def rename(self, naming: Naming) -> None:
        """Read anew whose namespace is another tenant's now; all if products changed.

        Bound pods stay with the tenant that they are charged to.
        """
        before, self._naming = self._naming, naming
        for message in list(self._messages.values()):
            namespace = message.metadata.namespace
            moved = before.tenant(namespace) != naming.tenant(namespace)
            if moved or before.products != naming.products:
                self._take(message)

    def reread(self, job: str) -> None:
        """Read anew whoever waits of a Job: it is known now, or has another size.

        Who is through the gate is not told anew, and keeps its gang as it is.
        """
        self._found_anew(list(self._of_controller.get(job, ())))

    def _found_anew(self, uids: Collection[PodUid]) -> None:
        waiting = [uid for uid in uids if uid in self._messages]
        for uid in waiting:
            if self.records[uid].gated:
                self._sizes.leave(uid)
        for uid in waiting:
            self._take(self._messages[uid])

    def refuse(self, uid: PodUid, problem: str) -> None:
        """Remember that the engine has not taken a pod.

        It is told again when a later state, or the end of one of its gang, may have
        changed its mind.
        """
        self._told.pop(uid, None)
        record = self.records.get(uid)
        if record is not None:
            record.problem = problem
            self._refused[uid] = record.pod.gang if record.pod else ""
            self._note(record)

    def is_as_told(self, uid: PodUid) -> bool:
        """Whether a pod is what the engine has decided for."""
        told, record = self._told.get(uid), self.records.get(uid)
        return told is not None and record is not None and record.pod == told.pod

    def of_controller(self, uid: str) -> Collection[PodUid]:
        """Return a controller's pods."""
        return self._of_controller.get(uid, {})

    def count_of(self, controller: str) -> tuple[int, int]:
        """Return how many pods a controller has, and of how many all has been told.

        Of those that cannot be read there is nothing to tell.
        """
        mine = self.of_controller(controller)
        told = (u in self._told or self.records[u].pod is None for u in mine)
        return len(mine), sum(told)

    def _note(self, record: Record) -> None:
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
            self._leave_to_others(message)
            return
        self._keep(record)
        if node and self._is_told_bound(uid):
            self._messages.pop(uid, None)
        else:
            self._messages[uid] = message

    def _keep(self, record: Record) -> None:
        before = self.records.get(record.uid)
        if before is not None:
            record.is_ahead = before.is_ahead  # when it is only read anew
            if before.controller != record.controller:
                self._orphan(before)
        self.records[record.uid] = record
        if record.controller is not None:
            mine = self._of_controller.setdefault(record.controller.uid, {})
            mine[record.uid] = None
        self._dirty[record.uid] = None
        self._note(record)

    def _leave_to_others(self, message: PodObject) -> None:
        """Count only what a pod uses, and remember it if it may become a tenant's."""
        uid, node = PodUid(message.metadata.uid), message.spec.node_name
        use = use_of(message)
        if node:
            self._nodes.use(uid, NodeName(node), use)
        if use.devices:
            self._messages[uid] = message

    def _drop(self, uid: PodUid) -> None:
        for book in (self._messages, self._refused, self.adorned, self.asked):
            book.pop(uid, None)
        self.troubled.pop(uid, None)
        gang = self._sizes.leave(uid)
        record = self.records.pop(uid, None)
        if record is not None:
            self._dirty[uid] = None
            self._orphan(record)
            if record.node:
                self._house(record)
            if not record.gated:
                self._end(gang)

    def _end(self, gang: str) -> None:
        """Let the others found a gang anew when the last is gone of those who began.

        They are fewer, if some have succeeded: what they started with would be waited
        for in vain.
        """
        left = self._sizes.members(gang)
        if all(self.records[uid].gated for uid in left):
            self._found_anew(left)

    def _orphan(self, record: Record) -> None:
        if record.controller is not None:
            mine = self._of_controller[record.controller.uid]
            del mine[record.uid]
            if not mine:
                del self._of_controller[record.controller.uid]

    # -- reading -----------------------------------------------------------------

    def _read(self, message: PodObject) -> Record | None:
        """Return the record of a tenant's GPU pod; None for everybody else's.

        Also of one that is no tenant's any more and still keeps room for itself.
        """
        uid = PodUid(message.metadata.uid)
        is_told = message.spec.node_name and self._is_told_bound(uid)
        if not (is_told or self._is_ours(message)):
            return record_of(message) if _keeps_room(message) else None
        record = record_of(message)
        known = self._told[uid].pod if is_told else self._unchanged(uid, message)
        if known is not None:
            record.pod = known
            return record
        try:
            record.pod = self._pod(message, record)
        except CodecError as error:
            record.problem = str(error)
        return record if record.pod or record.problem else None

    def _unchanged(self, uid: PodUid, message: PodObject) -> Pod | None:
        """Return the pod as the engine has it, if only its status or our notes differ.

        Most states of a pod are like that, and to read all of it takes long.
        """
        before, known = self._messages.get(uid), self.records.get(uid)
        if known is None or before is None or uid not in self._told:
            return None
        if before is message:
            return None  # it is to be read anew
        old, new = before.metadata, message.metadata
        same = 0 < old.generation == new.generation and old.labels == new.labels
        if same and _notes(before) == _notes(message):
            return known.pod
        return None

    def _is_told_bound(self, uid: PodUid) -> bool:
        told = self._told.get(uid)
        return told is not None and told.node is not None

    def _is_ours(self, message: PodObject) -> bool:
        scheduler = message.spec.scheduler_name or DEFAULT_SCHEDULER
        managed = message.metadata.namespace in self._naming.tenants
        if managed and scheduler in self._schedulers:
            return True
        notes = message.metadata.annotations or {}
        return mark_of(notes.get(ADMISSION, "")) is not None

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
        size = self._sizes.join(record.uid, pod.gang, pod.min_member, anew=record.gated)
        tenant, kind, mark = pod.tenant, pod.workload_class, record.admission()
        if mark is not None and not record.gated:
            tenant, kind = mark.tenant, mark.workload_class
        if (size, tenant, kind) == (pod.min_member, pod.tenant, pod.workload_class):
            return pod
        return replace(pod, min_member=size, tenant=tenant, workload_class=kind)

    # -- what the engine hears ---------------------------------------------------

    def settle(self) -> None:
        """Say of bound pods whether a tenant is charged; `nodes.arrivals` is next.

        One without a mark, on a node that offers nothing it accepts, is not: what it
        uses is taken off the node.
        """
        for name in [n for n in self._homeless if self._nodes.is_dirty(n)]:
            self._dirty.update(self._homeless.pop(name))
        for uid in self._dirty:
            record = self.records.get(uid)
            if record is None or record.pod is None or record.node is None:
                continue
            if self._is_told_bound(uid):
                continue
            forms = record.pod.demand.forms(self._nodes.forms(record.node))
            charged = record.admission() is not None or bool(forms)
            message = None if charged else self._messages.get(uid)
            self._nodes.use(uid, record.node, use_of(message) if message else None)

    def departures(self) -> list[Event]:
        """Return events for pods that are gone, or are not what they were.

        Who contradicted one of them is heard again.
        """
        left = [uid for uid in sorted(self._dirty) if self._has_left(uid)]
        gangs = {self._told.pop(uid).pod.gang for uid in left}
        again = [uid for uid, gang in self._refused.items() if gang in gangs]
        self._dirty.update(dict.fromkeys(again))
        return [PodGone(uid) for uid in left]

    def _has_left(self, uid: PodUid) -> bool:
        told, record = self._told.get(uid), self.records.get(uid)
        if told is None:
            return False
        if record is None or record.pod is None:
            return True
        return told.node is None and record.gated and record.pod != told.pod

    def arrivals(self, since: Since) -> list[Event]:
        """Return events for pods that were bound, came or saved; ends the round.

        Bound ones first, then those that wait by age, whatever order they came in.
        """
        fresh, self._dirty = sorted(self._dirty), {}
        events: list[Event] = []
        waiting: list[tuple[float, Pod, Record]] = []
        for uid in fresh:
            record = self.records.get(uid)
            if record is None or record.pod is None:
                continue
            if record.node is not None:
                events.extend(self._bound(record, record.pod, record.node, since))
            elif uid not in self._told:
                waiting.append((record.created, record.pod, record))
        waiting.sort(key=lambda row: (row[0], row[1].uid))
        for _, pod, record in waiting:
            events.extend(self._submitted(record, pod, since))
        return events

    def _bound(
        self, record: Record, pod: Pod, node: NodeName, since: Since
    ) -> Iterator[Event]:
        told = self._told.get(record.uid)
        if told is not None and told.node is not None:
            if told.stamp != record.stamp:
                told.stamp = record.stamp
                yield CheckpointDone(record.uid)
            yield from self._stopping(record, told, since)
            return
        if not self._nodes.knows(node) or self._nodes.counts(record.uid):
            self._homeless.setdefault(node, {})[record.uid] = None
            return
        self._told[record.uid] = _Told(pod, node, record.stamp)
        self._messages.pop(record.uid, None)
        self._accept(record)
        mark = record.admission()
        started = None if record.started is None else since(record.started)
        yield PodBound(record.uid, node, pod, mark.form if mark else None, started)
        yield from self._stopping(record, self._told[record.uid], since)

    def _stopping(
        self, record: Record, told: _Told, since: Since
    ) -> Iterator[PodStopping]:
        """Say that a pod is being deleted, and by when, as often as that changes."""
        if record.stops_by is not None and record.stops_by != told.stops_by:
            told.stops_by = record.stops_by
            yield PodStopping(record.uid, since(record.stops_by))

    def _submitted(self, record: Record, pod: Pod, since: Since) -> Iterator[Event]:
        self._told[record.uid] = _Told(pod, None, record.stamp)
        self._accept(record)
        owner = record.controller
        place, void = self._jobs.make_way(owner.uid, pod) if owner else (None, ())
        yield from (PodGone(stand_in) for stand_in in void)
        if place is not None:
            yield PodReplaced(place, pod)
        else:
            yield PodSubmitted(pod, since(record.created))

    def _accept(self, record: Record) -> None:
        """Take back what was wrong with a pod; `refuse` says it again if it is."""
        self._refused.pop(record.uid, None)
        if record.problem:
            record.problem = ""
            self._note(record)

    def _house(self, record: Record) -> None:
        """Wait no longer for a bound pod's node."""
        node = NodeName(record.node or "")
        waiting = self._homeless.get(node, {})
        waiting.pop(record.uid, None)
        if not waiting:
            self._homeless.pop(node, None)


def _keeps_room(message: PodObject) -> bool:
    """Whether a pod at our gate is nominated: nobody but us does that."""
    return bool(message.status.nominated_node_name) and is_gated(message)


def _notes(message: PodObject) -> dict[str, str]:
    """Return the annotations that somebody else has written."""
    found = dict(message.metadata.annotations or {})
    for name in OURS:
        found.pop(name, None)
    return found
