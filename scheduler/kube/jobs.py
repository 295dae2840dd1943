"""Jobs: how large their pods' gangs are, and suspended ones as work that waits.

A Job that carries ``fairshare.dev/suspend: "true"`` may be suspended and resumed by us.
While it is suspended it has no pods; *stand-ins* wait in their place, as many as would
run at once. When room is planned for them the Job is resumed, and its pods, as they
arrive at the gate, inherit the stand-ins' places.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

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

PodsOf = Callable[[str], Collection[PodUid]]
"""Returns the pods of a Job that are still there."""

MAY_SUSPEND = "fairshare.dev/suspend"
"""The annotation by which a Job's owner lets us suspend and resume it."""


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
    """All Jobs, and which stand-ins the engine has been told of."""

    def __init__(self, naming: Naming) -> None:
        self.priorities: dict[str, PriorityClassObject] = {}
        self.stand_ins: dict[PodUid, str] = {}
        self._naming = naming
        self._jobs: dict[str, JobObject] = {}
        self._dirty: dict[str, None] = {}
        self._sizes: dict[str, tuple[object, ...]] = {}

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
        self._dirty.update(dict.fromkeys(self._jobs))

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
            size = _shape(job) if job else None
            if size is None:
                self._sizes.pop(uid, None)
            elif self._sizes.get(uid) != size:
                self._sizes[uid] = size
                found.append(uid)
        return found

    # -- what the engine hears ---------------------------------------------------

    def events(self, pods_of: PodsOf, to_engine: Since) -> list[Event]:
        """Return events for stand-ins that came or are not needed; ends the round."""
        events: list[Event] = []
        for uid in sorted(self._dirty):
            mine = [s for s, job in self.stand_ins.items() if job == uid]
            job = self._jobs.get(uid)
            if job is None or not _waits(job):
                if job is None or _is_over(job) or not _is_managed(job):
                    events.extend(self._drop(s) for s in mine)
                continue
            if not mine and not pods_of(uid):
                events.extend(self._submit(job, to_engine))
        self._dirty.clear()
        return events

    def stand_in(self, job: str) -> PodUid | None:
        """Take a stand-in of a Job away, for one of its pods; None if there is none."""
        found = next((s for s, uid in self.stand_ins.items() if uid == job), None)
        if found is not None:
            del self.stand_ins[found]
        return found

    def _drop(self, stand_in: PodUid) -> Event:
        del self.stand_ins[stand_in]
        return PodGone(stand_in)

    def _submit(self, job: JobObject, to_engine: Since) -> list[Event]:
        since = to_engine(seconds_of(job.metadata.creation_timestamp) or 0.0)
        events: list[Event] = []
        for index in range(pods_at_once(job)):
            pod = self._stand_in(job, index)
            if pod is not None:
                self.stand_ins[pod.uid] = job.metadata.uid
                events.append(PodSubmitted(pod, since))
        return events

    def _stand_in(self, job: JobObject, index: int) -> Pod | None:
        """Return the pod that the Job would make; None for one without GPUs."""
        message = self._pod_message(job, index)
        if message.metadata.namespace not in self._naming.tenants:
            return None
        try:
            pod = pod_of(message, self._naming, membership(message, job))
        except CodecError:
            return None  # its pods will say what is wrong
        return pod

    def _pod_message(self, job: JobObject, index: int) -> PodObject:
        metadata, template = job.metadata, job.spec.template
        owner = Owner("Job", metadata.name, metadata.uid, True, "batch/v1")
        spec = msgspec.structs.replace(template.spec)
        known = self.priorities.get(spec.priority_class_name or "")
        if spec.priority is None and known is not None:
            spec.priority = known.value
        return PodObject(
            ObjectMeta(
                uid=f"job:{metadata.uid}/{index}",
                name=f"{metadata.name}[{index}]",
                namespace=metadata.namespace,
                labels=template.metadata.labels,
                annotations=template.metadata.annotations,
                owner_references=[owner],
            ),
            spec,
        )


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


def _shape(job: JobObject) -> tuple[object, ...]:
    spec, status = job.spec, job.status
    ended = (status.succeeded, status.failed_indexes)
    return (spec.parallelism, spec.completions, *ended)
