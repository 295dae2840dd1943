"""Terse constructors for traces, and a scheduler that does what a script says."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scheduler.core import (
    QUANTA_PER_GPU,
    Action,
    Admit,
    Demand,
    Event,
    Form,
    GangId,
    Node,
    NodeName,
    Pod,
    PodSubmitted,
    PodUid,
    Queue,
    TenantName,
    workload_class,
)
from simulator.trace import Trace, TraceJob
from simulator.trace.job import in_order

SHARED = Path(__file__).parents[3] / "shared"
ITP = SHARED / "traces" / "elasticflow_itp" / "raw-traces.tar.gz"
HELIOS = SHARED / "traces" / "helios_earth_vc" / "earth_vc_minute_may2020.tar.xz"
OPENB = SHARED / "traces" / "openb"
EXPECTED = SHARED / "expected" / "simulator.json"

GPU = Form("gpu")


def job(
    name: str,
    submit: float,
    duration: float,
    gpus: Sequence[int] = (1,),
    *,
    tenant: str = "a",
    kind: str = "training",
    classes: Sequence[str] = (),
    every: float | None = None,
    restart: float = 0.0,
    on_request: bool = True,
) -> TraceJob:
    """One job; `gpus` lists the GPUs of each of its pods."""
    return TraceJob(
        id=name,
        tenant=TenantName(tenant),
        workload_class=workload_class(kind),
        members=tuple(Demand(count=n, classes=tuple(classes)) for n in gpus),
        submit_s=submit,
        duration_s=duration,
        checkpoint_interval_s=every,
        restart_s=restart,
        on_request=on_request,
    )


def nodes(*gpus: int, form: str = "gpu") -> tuple[Node, ...]:
    """Nodes ``n0``, ``n1`` ... with so many GPUs."""
    return tuple(
        Node(name=NodeName(f"n{i}"), offers=((Form(form), count),), gpus=count)
        for i, count in enumerate(gpus)
    )


def trace(
    jobs: Sequence[TraceJob],
    cluster: Sequence[Node],
    guarantees: Mapping[str, int] | None = None,
) -> Trace:
    """A trace with tenants whose guarantees are GPUs of the class ``gpu``."""
    tenants = guarantees or {str(one.tenant): 0 for one in jobs}
    queues = tuple(
        Queue(
            name=TenantName(name), guarantee=((GPU, count),) if count else (), order=i
        )
        for i, (name, count) in enumerate(tenants.items())
    )
    return Trace(jobs=in_order(jobs), tenants=queues, nodes=tuple(cluster))


def admit(uid: str, node: str, *, gang: str = "", gpus: int = 1) -> Admit:
    """An admission onto whole GPUs."""
    pod = PodUid(uid)
    quanta = gpus * QUANTA_PER_GPU
    return Admit(pod, GangId(gang or uid), NodeName(node), GPU, quanta, 1)


class Script:
    """A scheduler that admits every pod at once on ``n0`` and else follows a script.

    `acts` maps a time to the actions of the cycle at that time; the script's times are
    its deadlines. What it was told is kept in `heard`, with the cycles as ``None``.
    """

    def __init__(self, acts: Mapping[float, Sequence[Action]], *, eager: bool = True):
        self._acts = dict(acts)
        self._eager = eager
        self._new: list[Pod] = []
        self.heard: list[tuple[float, Event | None]] = []
        self.pods: dict[str, Pod] = {}

    def observe(self, event: Event, now: float) -> None:
        self.heard.append((now, event))
        if isinstance(event, PodSubmitted):
            self.pods[event.pod.uid] = event.pod
            self._new.append(event.pod)

    def cycle(self, now: float) -> list[Action]:
        self.heard.append((now, None))
        actions = list(self._acts.pop(now, ()))
        if self._eager:
            actions += [
                admit(p.uid, "n0", gang=p.gang_id, gpus=p.demand.count)
                for p in self._new
            ]
            self._new.clear()
        return actions

    def next_deadline(self) -> float | None:
        return min(self._acts, default=None)
