"""A court in few words: takers, holdings, and everything the rules may look at."""

from collections.abc import Mapping, Sequence

from scheduler.core.gpu import QUANTA_PER_GPU, Form
from scheduler.core.quota import Queue, QuotaTree
from scheduler.core.reclaim import Court, Holding, Taker
from scheduler.core.workload import (
    Demand,
    GangId,
    PodUid,
    TenantName,
    WorkloadClass,
)
from tests import builders
from tests.strategies import WHOLE

CRITICAL, INFERENCE, TRAINING, BATCH = WorkloadClass
A, B = TenantName("a"), TenantName("b")
GPU = QUANTA_PER_GPU
NOW = 100_000.0
LONG_AGO = 0.0
TAKER = GangId("taker")


def taker(
    gpus: int = 1,
    *,
    owner: str = "a",
    kind: WorkloadClass = TRAINING,
    tier: WorkloadClass | None = None,
    priority: int = 0,
    form: Form = WHOLE,
    covered: bool = False,
    uses: Mapping[str, int] | None = None,
    members: int = 1,
) -> Taker:
    """A waiting gang; `uses` in GPUs, for its tenant and each queue above."""
    used = {"a": 0} if uses is None else uses
    return Taker(
        gang=TAKER,
        tenant=TenantName(owner),
        workload_class=kind,
        tier=kind if tier is None else tier,
        priority=priority,
        form=form,
        quanta=gpus * members * GPU,
        covered=covered,
        uses={TenantName(name): amount * GPU for name, amount in used.items()},
        members=tuple(
            (PodUid(f"taker{i}"), Demand(count=gpus)) for i in range(members)
        ),
    )


def holding(
    name: str = "victim",
    gpus: int = 1,
    *,
    owner: str = "b",
    kind: WorkloadClass = TRAINING,
    tier: WorkloadClass | None = None,
    priority: int = 0,
    preemptible: bool = True,
    form: Form = WHOLE,
    started: float = LONG_AGO,
    saved: float = NOW,
    restart: float = 0.0,
    leaving: bool = False,
    pods: Sequence[str] = (),
) -> Holding:
    """A running gang of `gpus` in all."""
    return Holding(
        gang=GangId(name),
        tenant=TenantName(owner),
        workload_class=kind,
        tier=kind if tier is None else tier,
        priority=priority,
        preemptible=preemptible,
        form=form,
        quanta=gpus * GPU,
        pods=tuple(PodUid(pod) for pod in pods or (name,)),
        started=started,
        saved=saved,
        restart_cost_s=restart,
        leaving=leaving,
    )


def court(
    queues: Sequence[Queue] = (builders.tenant("a"), builders.tenant("b", order=1)),
    *,
    covers: Mapping[str, Sequence[str]] | None = None,
    covered_on: Form = WHOLE,
    shares: Mapping[str, Sequence[int]] | None = None,
    tier_use: Sequence[int] = (0, 0, 0, 0),
    used: Mapping[str, int] | None = None,
    capacity: int = 64,
    min_runtime_s: float = 0.0,
) -> Court:
    """Amounts in GPUs; `covers` names the covered gangs of each queue."""
    tree = QuotaTree(queues)
    tree.capacity = {WHOLE: capacity * GPU}
    for name, amount in (used or {}).items():
        tree.charge(TenantName(name), WHOLE, amount * GPU)
    gangs = covers or {}
    parts = shares or {}
    return Court(
        now=NOW,
        tree=tree,
        covers=lambda queue: {
            GangId(name): covered_on for name in gangs.get(queue, ())
        },
        shares=lambda queue, form: [n * GPU for n in parts.get(queue, (0,) * 4)],
        tier_use=lambda tenant, form: [n * GPU for n in tier_use],
        min_runtime_s=min_runtime_s,
    )
