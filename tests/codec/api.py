"""The API server's JSON of pods, Jobs and nodes, and how it is read."""

import json
from typing import Any, TypeVar

import msgspec

from scheduler.codec import JobObject, NodeObject, PodObject

T = TypeVar("T")
Json = dict[str, Any]


def read(raw: Json, kind: type[T]) -> T:
    """Read an object from its JSON."""
    return msgspec.json.decode(json.dumps(raw), type=kind)


def owner(kind: str, name: str, api: str, uid: str = "0123456789ab") -> Json:
    """An owner reference to the controller."""
    return {
        "apiVersion": api,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod(
    name: str = "p",
    *,
    labels: Json | None = None,
    notes: Json | None = None,
    owners: list[Json] | None = None,
    spec: Json | None = None,
    status: Json | None = None,
    **metadata: Any,
) -> PodObject:
    """A pod of one GPU in namespace ``team-a``."""
    one = {"name": "main", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    raw = {
        "metadata": {
            "uid": f"uid-{name}",
            "name": name,
            "namespace": "team-a",
            "labels": labels,
            "annotations": notes,
            "ownerReferences": owners,
            **metadata,
        },
        "spec": {"containers": [one], **(spec or {})},
        "status": status or {"phase": "Pending"},
    }
    return read(raw, PodObject)


def job(status: Json | None = None, **spec: Any) -> JobObject:
    """A Job."""
    metadata = {"uid": "0123456789ab", "name": "train", "namespace": "team-a"}
    return read({"metadata": metadata, "spec": spec, "status": status or {}}, JobObject)


def node(
    labels: Json | None = None,
    allocatable: Json | None = None,
    *,
    spec: Json | None = None,
    ready: str = "True",
    **metadata: Any,
) -> NodeObject:
    """A node, ready unless it is said not to be."""
    conditions = [
        {"type": "MemoryPressure", "status": "False"},
        {"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"},
    ]
    raw = {
        "metadata": {"uid": "n", "name": "n1", "labels": labels, **metadata},
        "spec": spec or {},
        "status": {"allocatable": allocatable, "conditions": conditions},
    }
    return read(raw, NodeObject)
