"""What the engine hears and what it says, as data.

Events come in through ``Engine.observe``; actions go out of ``Engine.cycle`` and
``Engine.commit``. Both are frozen and plain, so that they can be recorded, compared
and replayed (``journal``). An action is a wish: the driver performs it and reports
what happened by further events. Performing an action twice is harmless, because each
names the pod by UID.
"""

from dataclasses import dataclass, field
from enum import Enum

from scheduler.core.cluster import Node
from scheduler.core.gpu import Form, charge
from scheduler.core.quota import Fleet, Queue
from scheduler.core.workload import GangId, NodeName, Pod, PodUid


class Reason(Enum):
    """Why a pod is not (yet) running, or not on this node: the closed vocabulary.

    The value is the constant sentence that users read. Constant, because kube-scheduler
    writes it into the pod's condition, and a text that changes wakes the pod again.
    """

    RUNNING = "running"
    STARTING = "admitted, waiting for its node to start it"
    TERMINATING = "asked to stop, still holding its devices"
    UNREADABLE = "what it asks for has no meaning"
    UNKNOWN_TENANT = "its namespace belongs to no tenant"
    UNKNOWN_CLASS = "no node offers the GPU class or profile it asks for"
    GANG_INCOMPLETE = "waiting for the other members of its gang"
    NOT_STARTED = "it was admitted and did not start in time: it is tried again"
    TOO_LARGE = "larger than the whole cluster when empty"
    LIMIT = "its tenant, or a queue above it, is at its limit"
    LENT_OUT = "the idle capacity is kept for its owner (lending limit)"
    QUEUED = "its turn comes when those that are being started run"
    NO_ROOM = "no node has room for it"
    RECLAIMING = "its capacity is being taken back from a borrower"
    STEERED = "planned for another node"
    UNMARKED = "not admitted: waits at its scheduling gate"

    @property
    def resolvable(self) -> bool:
        """Whether evicting other pods from the node could help."""
        return self in (Reason.NO_ROOM, Reason.RECLAIMING)


# -- events -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A node joined, or came back."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A known node offers something else, or stopped being schedulable."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeDown:
    """A node is gone; the pods on it are reported by `PodGone`."""

    name: NodeName


@dataclass(frozen=True, slots=True)
class PodSubmitted:
    """A pod asks for devices; `since` (seconds) when it has done so for longer."""

    pod: Pod
    since: float | None = None


@dataclass(frozen=True, slots=True)
class PodBound:
    """A pod sits on a node.

    After a restart of the service `pod`, `form` (from the admission mark) and `since`
    (seconds: when it started) rebuild what was known before.
    """

    uid: PodUid
    node: NodeName
    pod: Pod | None = None
    form: Form | None = None
    since: float | None = None

    def __post_init__(self) -> None:
        """Refuse the record of another pod, and a form that is none."""
        if self.pod is not None and self.pod.uid != self.uid:
            raise ValueError(f"PodBound: pod {self.pod.uid!r} is not {self.uid!r}")
        if self.form is not None:
            charge(self.form)


@dataclass(frozen=True, slots=True)
class PodReplaced:
    """A pod stands in for another that never ran, and inherits its place.

    So the pods of a Job that was suspended take over what was decided for the Job.
    """

    uid: PodUid
    pod: Pod


@dataclass(frozen=True, slots=True)
class PodGone:
    """A pod released its devices: finished, failed, evicted or deleted."""

    uid: PodUid


@dataclass(frozen=True, slots=True)
class PodStopping:
    """Somebody has told a bound pod to stop; it is gone by `by` (seconds).

    Its owner, say, or an earlier life of whoever drives the engine.
    """

    uid: PodUid
    by: float


@dataclass(frozen=True, slots=True)
class CheckpointDone:
    """A pod wrote a checkpoint: work up to now is safe."""

    uid: PodUid


@dataclass(frozen=True, slots=True)
class TenantsChanged:
    """The quota tree is replaced as a whole."""

    queues: tuple[Queue, ...]
    fleet: Fleet = field(default_factory=Fleet)


Event = (
    NodeUp
    | NodeChanged
    | NodeDown
    | PodSubmitted
    | PodBound
    | PodReplaced
    | PodGone
    | PodStopping
    | CheckpointDone
    | TenantsChanged
)


# -- actions ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admit:
    """Let the pod start on `node`, charged as `form`.

    All members of one decision carry the same `decision` number; admit all or none.
    """

    uid: PodUid
    gang: GangId
    node: NodeName
    form: Form
    quanta: int
    decision: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take back an admission that has not become a bound pod."""

    uid: PodUid
    gang: GangId
    node: NodeName
    reason: str


@dataclass(frozen=True, slots=True)
class CheckpointRequest:
    """Ask the pod to save its work by `deadline` (seconds): it will be evicted."""

    uid: PodUid
    gang: GangId
    node: NodeName
    deadline: float
    beneficiary: GangId


@dataclass(frozen=True, slots=True)
class Evict:
    """Stop the pod now, with at most `grace_s` seconds to shut down."""

    uid: PodUid
    gang: GangId
    node: NodeName
    grace_s: float
    reason: str
    beneficiary: GangId | None = None


Action = Admit | Withdraw | CheckpointRequest | Evict
