"""Jobs: how large their pods' gangs are, and suspended ones as work that waits.

A Job that carries ``fairshare.dev/suspend: "true"`` may be suspended and resumed by us.
While it is suspended it has no pods; *stand-ins* wait in their place, as many as would
run at once. When room is planned for them the Job is resumed, and its pods, as they
arrive at the gate, inherit the stand-ins' places.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import msgspec

from scheduler.codec import (
    CodecError,
    JobObject,
    Naming,
    Owner,
    PodObject,
    PriorityClassObject,
    membership,
    pod_of,
    pods_at_once,
)
from scheduler.codec.objects import ObjectMeta
from scheduler.core import Event, Pod, PodGone, PodSubmitted, PodUid
from scheduler.kube.records import seconds_of

Since = Callable[[float], float]
"""Turns seconds since the epoch into the engine's time."""

PodsOf = Callable[[str], tuple[int, int]]
"""Returns how many pods of a Job are there, and how many the engine was told of."""

MAY_SUSPEND = "fairshare.dev/suspend"
"""The annotation by which a Job's owner lets us suspend and resume it."""

DEFAULT_SCHEDULER = "default-scheduler"

MOST = 4096
"""Most stand-ins of a Job: whoever writes a larger one gets no more of our memory."""

_PREFIX = "job:"


@dataclass(slots=True)
class JobRecord:
    """A Job that we may suspend and resume."""

    uid: str
    namespace: str
    name: str
    suspended: bool

    @property
    def path(self) -> str:
        """Where the API server has the Job."""
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{self.name}"


class Jobs:
    """All Jobs, and which stand-ins the engine has been told of.

    Parameters
    ----------
    schedulers
        Names of the kube-scheduler profiles that ask us.
    """

    def __init__(self, naming: Naming, schedulers: Collection[str]) -> None:
        self.stand_ins: dict[str, dict[PodUid, Pod]] = {}  # by Job
        self._naming = naming
        self._schedulers = frozenset(schedulers)
        self._jobs: dict[str, JobObject] = {}
        self._dirty: dict[str, None] = {}
        self._sizes: dict[str, int] = {}
        self._priorities: dict[str, PriorityClassObject] = {}

    # -- what is seen ------------------------------------------------------------

    def changed(self, job: JobObject) -> None:
        """Take a Job's state."""
        self._jobs[job.metadata.uid] = job
        self._dirty[job.metadata.uid] = None

    def gone(self, uid: str) -> None:
        """Forget a Job."""
        self._jobs.pop(uid, None)
        self._dirty[uid] = None

    def rename(self, naming: Naming) -> None:
        """Look again whose the suspended Jobs are."""
        self._naming = naming
        self._look_again()

    def changed_priority(self, found: PriorityClassObject) -> None:
        """Take a PriorityClass: pods that do not exist yet may be of it."""
        self._priorities[found.metadata.uid] = found
        self._look_again()

    def gone_priority(self, uid: str) -> None:
        """Forget a PriorityClass."""
        self._priorities.pop(uid, None)
        self._look_again()

    def _look_again(self) -> None:
        waiting = (uid for uid, job in self._jobs.items() if _waits(job))
        self._dirty.update(dict.fromkeys(waiting))

    def get(self, uid: str) -> JobObject | None:
        """Return a Job, None while it is unknown."""
        return self._jobs.get(uid)

    def managed(self, uid: str) -> JobRecord | None:
        """Return a Job that we may suspend and resume, None for any other."""
        job = self._jobs.get(uid)
        if job is None or not _is_managed(job):
            return None
        metadata = job.metadata
        suspended = bool(job.spec.suspend)
        return JobRecord(uid, metadata.namespace, metadata.name, suspended)

    def resized(self) -> list[str]:
        """Return Jobs whose pods may be gangs of another size now."""
        found = []
        for uid in self._dirty:
            job = self._jobs.get(uid)
            if job is None:
                found.extend([uid] if self._sizes.pop(uid, None) is not None else [])
            elif self._sizes.get(uid) != pods_at_once(job):
                self._sizes[uid] = pods_at_once(job)
                found.append(uid)
        return found

    # -- what the engine hears ---------------------------------------------------

    def events(self, pods_of: PodsOf, to_engine: Since) -> list[Event]:
        """Return events for stand-ins that are not needed or came; ends the round.

        Jobs whose pods are on their way, to be or not to be, are looked at again.
        """
        gone: list[Event] = []
        come: list[Event] = []
        fresh, self._dirty = sorted(self._dirty), {}
        for uid in fresh:
            job, told = self._jobs.get(uid), self.stand_ins.get(uid, {})
            wanted = self._wanted(job, told, *pods_of(uid))
            if wanted != told:
                gone.extend(PodGone(stand_in) for stand_in in told)
                come.extend(self._submit(job, wanted, to_engine) if job else ())
                self.stand_ins[uid] = wanted
            if not self.stand_ins.get(uid):
                self.stand_ins.pop(uid, None)
        return [*gone, *come]

    def _wanted(
        self, job: JobObject | None, told: dict[PodUid, Pod], there: int, known: int
    ) -> dict[PodUid, Pod]:
        """Return what should stand in for a Job.

        Parameters
        ----------
        told
            What does.
        there, known
            How many of its pods are there, and of how many the engine was told.
        """
        if job is None or not _is_managed(job):
            return {}
        uid = job.metadata.uid
        if not _waits(job):
            if not told or known >= pods_at_once(job):
                return {}
            self._dirty[uid] = None  # until its pods have taken their places
            return told
        if there:
            self._dirty[uid] = None  # they are from before, and go
            return told
        return self._stand_ins(job)

    def make_way(self, job: str, pod: Pod) -> tuple[PodUid | None, Collection[PodUid]]:
        """Take away a stand-in of a Job, for one of its pods that takes its place.

        Returns it, None if there is none; and stand-ins that must go: all of them, when
        the pod is not what they stand in for.
        """
        told = self.stand_ins.get(job, {})
        first = next(iter(told), None)
        if first is not None:
            self._dirty[job] = None  # it waits again if its pods go
        if first is not None and not pod.is_like(told[first]):
            return None, self.stand_ins.pop(job)
        if first is not None:
            del told[first]
            if not told:
                del self.stand_ins[job]
        return first, ()

    def refuse(self, stand_in: PodUid) -> None:
        """Forget a stand-in that the engine has not taken."""
        job = stand_in.removeprefix(_PREFIX).rpartition("/")[0]
        self.stand_ins.get(job, {}).pop(stand_in, None)

    def _submit(
        self, job: JobObject, wanted: dict[PodUid, Pod], to_engine: Since
    ) -> list[Event]:
        since = to_engine(seconds_of(job.metadata.creation_timestamp) or 0.0)
        return [PodSubmitted(pod, since) for pod in wanted.values()]

    def _stand_ins(self, job: JobObject) -> dict[PodUid, Pod]:
        """Return the pods that the Job would make; none for one without GPUs."""
        message = self._pod_message(job)
        try:
            pod = pod_of(message, self._naming, membership(message, job))
        except CodecError:
            return {}  # its pods will say what is wrong
        if pod is None or not self._is_ours(message):
            return {}
        names = [str(i) for i in range(min(pods_at_once(job), MOST))]
        uids = [PodUid(f"{pod.uid}/{i}") for i in names]
        return {
            uid: replace(pod, uid=uid, name=f"{pod.name}[{i}]")
            for uid, i in zip(uids, names, strict=True)
        }

    def _is_ours(self, message: PodObject) -> bool:
        scheduler = message.spec.scheduler_name or DEFAULT_SCHEDULER
        managed = message.metadata.namespace in self._naming.tenants
        return managed and scheduler in self._schedulers

    def _pod_message(self, job: JobObject) -> PodObject:
        metadata, template = job.metadata, job.spec.template
        owner = Owner("Job", metadata.name, metadata.uid, True, "batch/v1")
        spec = msgspec.structs.replace(template.spec)
        if spec.priority is None:
            spec.priority = self._priority(spec.priority_class_name or "")
        return PodObject(
            ObjectMeta(
                uid=_PREFIX + metadata.uid,
                name=metadata.name,
                namespace=metadata.namespace,
                labels=template.metadata.labels,
                annotations=template.metadata.annotations,
                owner_references=[owner],
            ),
            spec,
        )

    def _priority(self, name: str) -> int | None:
        """Return the priority that a pod of a class is given; without one, the default.

        Of several defaults the lowest is taken, as by the API server.
        """
        known = self._priorities.values()
        if name:
            return next((c.value for c in known if c.metadata.name == name), None)
        return min((c.value for c in known if c.global_default), default=None)


def _is_managed(job: JobObject) -> bool:
    notes = job.metadata.annotations or {}
    return notes.get(MAY_SUSPEND) == "true" and not _is_over(job)


def _waits(job: JobObject) -> bool:
    return _is_managed(job) and bool(job.spec.suspend)


def _is_over(job: JobObject) -> bool:
    if job.metadata.deletion_timestamp is not None:
        return True
    ends = ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget")
    conditions = job.status.conditions or ()
    return any(c.type in ends and c.status == "True" for c in conditions)
