"""One pod as the API server shows it, reduced to what decisions and writes need."""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from scheduler.codec import (
    CodecError,
    Mark,
    Owner,
    PodObject,
    checkpoint_stamp,
    controller,
    decode_mark,
    is_gated,
    is_terminating,
)
from scheduler.codec.mark import ADMISSION, CHECKPOINT_DEADLINE, HOLD
from scheduler.codec.objects import Affinity
from scheduler.core import NodeName, Pod, PodUid


@dataclass(slots=True, kw_only=True)
class Record:
    """A GPU pod of a tenant, bound or not.

    Parameters
    ----------
    version
        Resource version, of the state or of our last write.
    created, started, stops_by
        Seconds since the epoch; `started` is None until a kubelet has seen the pod,
        `stops_by` until it is deleted.
    gated
        Whether our gate is there.
    node, nominated
        Empty where there is none.
    mark, hold, save_by
        Our annotations as they are written; empty where there is none.
    stamp
        What the workload says about its checkpoints; a change says that one was done.
    grace_s
        Time it has to stop; of one that is stopping, what it was given.
    pod
        As the core takes it; None while something keeps it from being read.
    problem
        What that is, in one sentence.
    is_ahead
        Whether this is the answer to a write of ours: the watch is not that far yet.
    """

    uid: PodUid
    namespace: str
    name: str
    version: int
    created: float
    started: float | None
    gated: bool
    node: NodeName | None
    nominated: str
    mark: str
    hold: str
    save_by: str
    stamp: tuple[str, str]
    terminating: bool
    stops_by: float | None
    controller: Owner | None
    affinity: Affinity | None
    grace_s: int
    pod: Pod | None = None
    problem: str = ""
    is_ahead: bool = False
    _read: tuple[str, Mark | None] = ("", None)

    @property
    def path(self) -> str:
        """Where the API server has the pod."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def is_adorned(self) -> bool:
        """Whether an unbound pod carries something that only a plan justifies."""
        ours = self.gated and bool(self.nominated)
        return self.node is None and (ours or bool(self.mark or self.hold))

    def admission(self) -> Mark | None:
        """Return the mark; None where there is none, or one that we cannot read."""
        if self._read[0] != self.mark:
            self._read = (self.mark, mark_of(self.mark))
        return self._read[1]


@lru_cache(maxsize=64)  # it is asked for several times while a pod is read
def mark_of(text: str) -> Mark | None:
    """Read a mark; None where there is none, or one that we cannot read."""
    if not text:
        return None
    try:
        return decode_mark(text)
    except CodecError:
        return None


def record_of(message: PodObject) -> Record:
    """Read what the API server shows; `pod` is left to the caller, who knows tenants.

    Raises
    ------
    ValueError
        When a time or a version is not written as the API server does.
    """
    metadata, spec, status = message.metadata, message.spec, message.status
    notes = metadata.annotations or {}
    return Record(
        uid=PodUid(metadata.uid),
        namespace=metadata.namespace,
        name=metadata.name,
        version=int(metadata.resource_version or 0),
        created=seconds_of(metadata.creation_timestamp) or 0.0,
        started=seconds_of(status.start_time),
        gated=is_gated(message),
        node=NodeName(spec.node_name) if spec.node_name else None,
        nominated=status.nominated_node_name or "",
        mark=notes.get(ADMISSION, ""),
        hold=notes.get(HOLD, ""),
        save_by=notes.get(CHECKPOINT_DEADLINE, ""),
        stamp=checkpoint_stamp(message),
        terminating=is_terminating(message),
        stops_by=seconds_of(metadata.deletion_timestamp),
        controller=controller(message),
        affinity=None if spec.node_name else spec.affinity,
        grace_s=_grace_s(message),
    )


def _grace_s(message: PodObject) -> int:
    if is_terminating(message):
        return message.metadata.deletion_grace_period_seconds or 0
    return message.spec.termination_grace_period_seconds or 0


def seconds_of(text: str | None) -> float | None:
    """Return a time of the API as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp() if text else None
