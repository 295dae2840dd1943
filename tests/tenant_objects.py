"""Tenant, Fleet and Namespace objects for tests, as they come from the API server."""

from typing import Any

import msgspec

from scheduler.codec.objects import NamespaceObject
from scheduler.core import QUANTA_PER_GPU, Form
from scheduler.kube.owned import FleetObject, TenantObject
from scheduler.kube.tenants import Resolved, Tenants

Json = dict[str, Any]

H100 = "h100-80gb"
NOON, LATER = "2026-11-21T12:00:00Z", "2026-11-21T12:00:09Z"


def meta(name: str, born: int, generation: int, uid: str) -> Json:
    return {
        "name": name,
        "uid": uid or f"uid-{name}",
        "generation": generation,
        "resourceVersion": f"{1000 + generation}",
        "creationTimestamp": f"2026-11-21T10:{born:02}:00Z",
    }


def tenant(
    name: str,
    born: int = 0,
    generation: int = 1,
    uid: str = "",
    status: Json | None = None,
    **spec: Any,
) -> TenantObject:
    """A Tenant as it comes from the API server; `born` orders by age."""
    text = {"metadata": meta(name, born, generation, uid), "spec": spec}
    text["status"] = status or {}
    return msgspec.json.decode(msgspec.json.encode(text), type=TenantObject)


def fleet(generation: int = 1, name: str = "default", **spec: Any) -> FleetObject:
    text = {"metadata": meta(name, 0, generation, ""), "spec": spec}
    return msgspec.json.decode(msgspec.json.encode(text), type=FleetObject)


def namespace(name: str, uid: str = "", **labels: str) -> NamespaceObject:
    labels = {"kubernetes.io/metadata.name": name, **labels}
    text = {"metadata": {"name": name, "uid": uid or f"uid-{name}", "labels": labels}}
    return msgspec.json.decode(msgspec.json.encode(text), type=NamespaceObject)


def known(*objects: TenantObject | FleetObject | NamespaceObject) -> Tenants:
    tenants = Tenants()
    for obj in objects:
        tell(tenants, obj)
    return tenants


def tell(tenants: Tenants, obj: TenantObject | FleetObject | NamespaceObject) -> None:
    match obj:
        case FleetObject():
            tenants.changed_fleet(obj)
        case TenantObject():
            tenants.changed_tenant(obj)
        case NamespaceObject():
            tenants.changed_namespace(obj)


def resolve(tenants: Tenants, gpus: int = 16) -> Resolved:
    return tenants.resolve({H100}, {Form(H100): gpus * QUANTA_PER_GPU})


def guarantees(resolved: Resolved) -> dict[str, int]:
    """H100 that each queue of the tree is promised."""
    queues = resolved.tenancy.queues
    return {q.name: dict(q.guarantee).get(Form(H100), 0) for q in queues}


def parents(resolved: Resolved) -> dict[str, str | None]:
    return {queue.name: queue.parent for queue in resolved.tenancy.queues}


def h100(count: int) -> Json:
    return {H100: count}


def selecting(**labels: str) -> Json:
    return {"matchLabels": labels}


def conditions(status: Json) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
