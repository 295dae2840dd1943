"""The types of the normal form.

Hidden here: what a job may look like (a gang of pods, all alike, maybe with a smaller
last one) and the order of a trace: by submission, then as the rows stood in the file.

Times are seconds since the start of the trace, devices are counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

from scheduler.core import (
    QUANTA_PER_GPU,
    Demand,
    Fleet,
    Node,
    Queue,
    TenantName,
    WorkloadClass,
)
from simulator.trace.errors import RowErrors, TraceError


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """One job: a gang of pods that runs for a while.

    Parameters
    ----------
    members
        Demand of each pod of the gang, the largest first.
    submit_s
        When it is submitted.
    duration_s
        How long it runs when nothing interrupts it.
    priority
        Inside the workload class, larger first.
    checkpoint_interval_s
        Period of the checkpoints it writes by itself; None: an eviction loses all.
    restart_s
        What a restart costs before work goes on.
    on_request
        Whether it writes a checkpoint when asked to.
    """

    id: str
    tenant: TenantName
    workload_class: WorkloadClass
    members: tuple[Demand, ...]
    submit_s: float
    duration_s: float
    priority: int = 0
    checkpoint_interval_s: float | None = None
    restart_s: float = 0.0
    on_request: bool = True

    @property
    def gpus(self) -> float:
        """GPUs of all members together; a slice or replica counts as one device."""
        return sum(d.count * d.fraction for d in self.members) / QUANTA_PER_GPU


def default_checkpoint_interval_s(kind: WorkloadClass) -> float | None:
    """Return how often work of a class saves itself where a trace does not tell.

    Training checkpoints every half hour. Inference keeps what it served: it loses a
    second at most. A batch job keeps nothing.
    """
    if kind.is_inference:
        return 1.0
    return 1800.0 if kind is WorkloadClass.TRAINING else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a simulation replays.

    Parameters
    ----------
    jobs
        By submission, then by place in the file.
    tenants
        The quota tree; may be empty until guarantees are given.
    nodes
        The cluster; may be empty until one is given.
    fleet
        What holds for the whole quota tree: class groups, worth of classes.
    errors
        Rows that were skipped or left out on the way.
    """

    jobs: tuple[TraceJob, ...]
    tenants: tuple[Queue, ...] = ()
    nodes: tuple[Node, ...] = ()
    fleet: Fleet = field(default_factory=Fleet)
    errors: RowErrors = field(default_factory=RowErrors)

    def tenant_names(self) -> list[TenantName]:
        """Tenants that submit jobs, in the order of their first job."""
        return list(dict.fromkeys(job.tenant for job in self.jobs))


def in_order(jobs: Iterable[TraceJob]) -> tuple[TraceJob, ...]:
    """Sort jobs by submission; jobs of one instant keep their order."""
    return tuple(sorted(jobs, key=attrgetter("submit_s")))


def merge(traces: Sequence[Trace], errors: RowErrors) -> Trace:
    """Join several traces into one.

    Raises
    ------
    TraceError
        When two of them name the same job, tenant or node, or say what holds for the
        whole quota tree.
    """
    jobs = [job for trace in traces for job in trace.jobs]
    tenants = [queue for trace in traces for queue in trace.tenants]
    nodes = [node for trace in traces for node in trace.nodes]
    _unique("job", (job.id for job in jobs))
    _unique("tenant", (queue.name for queue in tenants))
    _unique("node", (node.name for node in nodes))
    fleets = {trace.fleet for trace in traces} - {Fleet()}
    if len(fleets) > 1:
        raise TraceError("traces", 0, "fleet", None, "it is described twice")
    aged = (replace(queue, order=order) for order, queue in enumerate(tenants))
    return Trace(
        jobs=in_order(jobs),
        tenants=tuple(aged),
        nodes=tuple(nodes),
        fleet=next(iter(fleets), Fleet()),
        errors=errors,
    )


def _unique(kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise TraceError("traces", 0, kind, name, "the name is taken twice")
        seen.add(name)
