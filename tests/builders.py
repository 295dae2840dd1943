"""Terse constructors for tests: ``node("n1", "8xh100-80gb")``, ``pod("p", "a", 2)``."""

from scheduler.core import (
    Demand,
    Form,
    Node,
    NodeName,
    Pod,
    PodUid,
    PreemptWithin,
    Queue,
    TenantName,
    WorkloadClass,
    parse_form,
    workload_class,
)

CLASS = "h100-80gb"


def counts(text: str) -> tuple[tuple[Form, int], ...]:
    """``"8xh100-80gb 14xh100-80gb/1g.10gb"`` as device counts."""
    pairs = (part.split("x", 1) for part in text.split())
    return tuple((parse_form(form), int(count)) for count, form in pairs)


def node(
    name: str,
    offers: str = f"8x{CLASS}",
    *,
    gpus: int | None = None,
    cpu: int = 0,
    memory: int = 0,
    ready: bool = True,
) -> Node:
    """A node; `gpus` defaults to the devices it offers."""
    pairs = counts(offers)
    return Node(
        name=NodeName(name),
        offers=pairs,
        gpus=sum(count for _, count in pairs) if gpus is None else gpus,
        cpu_milli=cpu,
        memory_mib=memory,
        ready=ready,
    )


def tenant(
    name: str,
    guarantee: str = "",
    *,
    parent: str | None = None,
    borrowing: str = "",
    lending: str = "",
    limit: str = "",
    weight: int = 1,
    priority: int = 0,
    order: int = 0,
    burst: float | None = None,
    inference_burst: str = "",
    critical: str = "",
    preempt: str = "lower-priority",
) -> Queue:
    """A queue; amounts as in `counts`."""
    return Queue(
        name=TenantName(name),
        parent=TenantName(parent) if parent else None,
        guarantee=counts(guarantee),
        borrowing_limit=counts(borrowing),
        lending_limit=counts(lending),
        limit=counts(limit),
        weight=weight,
        priority=priority,
        order=order,
        burst_milli=None if burst is None else round(1000 * burst),
        inference_burst=counts(inference_burst),
        critical=counts(critical),
        preempt_within=PreemptWithin(preempt),
    )


def pod(
    name: str,
    owner: str,
    gpus: int = 1,
    *,
    kind: str | WorkloadClass = "training",
    classes: tuple[str, ...] = (CLASS,),
    profile: str = "",
    fraction: int | None = None,
    gang: str = "",
    min_member: int = 1,
    priority: int = 0,
    preemptible: bool = True,
    restart: float = 0.0,
    interval: float | None = None,
    on_request: bool = True,
    cpu: int = 0,
    memory: int = 0,
) -> Pod:
    """A pod whose UID is its name."""
    demand = Demand(
        count=gpus,
        classes=classes,
        profile=profile,
        cpu_milli=cpu,
        memory_mib=memory,
        **({} if fraction is None else {"fraction": fraction}),
    )
    return Pod(
        uid=PodUid(name),
        name=f"{owner}/{name}",
        tenant=TenantName(owner),
        workload_class=workload_class(kind) if isinstance(kind, str) else kind,
        demand=demand,
        gang=gang,
        min_member=min_member,
        priority=priority,
        preemptible=preemptible,
        restart_cost_s=restart,
        checkpoint_interval_s=interval,
        on_request=on_request,
    )
