"""What the doors take and give: settings and answers, as frozen data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.core.events import Reason
from scheduler.core.gpu import Form
from scheduler.core.workload import (
    GangId,
    NodeName,
    PodUid,
    TenantName,
    WorkloadClass,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Settings of the engine. Times are seconds.

    Parameters
    ----------
    inline
        The decision is taken in Filter itself; else pods wait at their scheduling
        gates, and Filter only steers pods that ``cycle`` has admitted.
    checkpoint_notice_s
        Time a victim has to save its work before it is evicted.
    eviction_grace_s
        Most time a victim may take to shut down.
    gang_start_timeout_s
        Lifetime of an admission that has not become bound pods.
    min_runtime_s
        Burst younger than this is spared when burst is exchanged for burst.
    cycle_s
        Longest time between two cycles of the driver.
    margin_s
        Allowance for everything else in the reclaim bound.
    admission_window
        While so many pods are admitted and not bound, no further gang is: a burst is
        let through at the pace at which pods are bound, so that nobody's start timeout
        passes in a queue, and a cycle stays short. None: no such bound.
    """

    inline: bool = True
    checkpoint_notice_s: float = 60.0
    eviction_grace_s: float = 120.0
    gang_start_timeout_s: float = 60.0
    min_runtime_s: float = 300.0
    cycle_s: float = 1.0
    margin_s: float = 5.0
    admission_window: int | None = None

    @property
    def reclaim_bound_s(self) -> float:
        """Longest time placeable covered demand may wait (design, section 9)."""
        return (
            self.cycle_s
            + self.checkpoint_notice_s
            + self.eviction_grace_s
            + self.margin_s
        )


@dataclass(frozen=True, slots=True)
class Filtered:
    """Answer of Filter.

    Parameters
    ----------
    accepted
        Offered nodes that may take the pod.
    default
        Why every other offered node may not.
    rejected
        Nodes whose reason differs from `default`.
    """

    accepted: tuple[NodeName, ...]
    default: Reason
    rejected: Mapping[NodeName, Reason] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preemption:
    """Answer of Preempt: victims per offered node, highest priority first."""

    victims: Mapping[NodeName, tuple[PodUid, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A pod whose node is decided and that is not bound yet.

    While it is `held` its victims are still leaving: it must not start. `decision` is
    the number that all members of one admission share, 0 for a hold.
    """

    uid: PodUid
    gang: GangId
    tenant: TenantName
    workload_class: WorkloadClass
    node: NodeName
    form: Form
    quanta: int
    decision: int
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """A pod that was told to go and is still here.

    Until `save_by` (seconds) it may save its work; None once it has to stop, with at
    most `grace_s` seconds to shut down. `beneficiary` is the gang it goes for.
    """

    uid: PodUid
    gang: GangId
    node: NodeName
    save_by: float | None
    grace_s: float
    reason: str
    beneficiary: GangId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantUse:
    """One queue and form, or class group: quanta.

    `guarantee` is what of the `promised` can be kept on the nodes that are there.
    `pending` is wanted and may be decided now, or waits for room that is held for it.
    `leaving` is held by pods that were told to go; it is charged no more, but not free
    yet. `limit` is None where nothing binds. `conditions` says, each in one sentence
    that begins with its name, what keeps the queue from being as its owner wrote it:
    ``Unreachable`` (guarantees do not fit what is there), ``Deleted`` (pods run on),
    ``Inner`` (it got tenants below it while its own pods run).
    """

    name: TenantName
    parent: TenantName | None
    form: Form
    guarantee: int
    promised: int
    used: int
    covered: int
    pending: int
    share: int
    leaving: int
    limit: int | None
    conditions: tuple[str, ...] = ()

    @property
    def burst(self) -> int:
        """Use that the guarantee does not pay for."""
        return self.used - self.covered


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """One waiting gang, in the order decisions are taken; `position` starts at 1."""

    position: int
    gang: GangId
    tenant: TenantName
    workload_class: WorkloadClass
    pods: int
    quanta: int
    forms: tuple[Form, ...]
    submitted: float
    covered: bool
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a pod is where it is.

    Parameters
    ----------
    detail
        One sentence with the numbers behind `reason`.
    covered
        Whether the guarantee pays for it; None where nobody can say yet.
    position
        Place in the queue, 1 first; None when it does not wait.
    blockers
        Gangs it waits for, which have been told to leave.
    """

    uid: PodUid
    name: str
    tenant: TenantName
    gang: GangId
    workload_class: WorkloadClass
    reason: Reason
    detail: str
    node: NodeName | None = None
    covered: bool | None = None
    position: int | None = None
    blockers: tuple[GangId, ...] = ()
