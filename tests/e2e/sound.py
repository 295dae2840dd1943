"""What must be so whatever happened, read from the API server alone."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tests.controlplane.client import Client, Object
from tests.controlplane.objects import GATE, GPU

MARK = "fairshare.dev/admission"
HOLD = "fairshare.dev/hold"


def faults(
    client: Client,
    *,
    limits: Mapping[str, int] | None = None,
    there: Mapping[str, Collection[str]] | None = None,
    gangs: Iterable[tuple[str, str, int]] = (),
) -> list[str]:
    """Say what is wrong once everything has settled; nothing is when it is empty.

    Parameters
    ----------
    limits
        GPUs that pods of a namespace may hold at most.
    there
        Pods that a namespace must have.
    gangs
        Namespace, what the members' names begin with, and how many start together.
    """
    pods = [p for p in client.items("pods") if p["status"].get("phase") != "Failed"]
    found = [fault for pod in pods if (fault := _leak(pod))]
    found += _overfull(client, pods)
    for namespace, limit in (limits or {}).items():
        used = sum(gpus_of(p) for p in _of(pods, namespace) if is_charged(p))
        if used > limit:
            found.append(f"{namespace} holds {used} GPUs, {limit} are its limit")
    for namespace, names in (there or {}).items():
        lost = set(names) - {p["metadata"]["name"] for p in _of(pods, namespace)}
        if lost:
            found.append(f"{namespace} has lost {sorted(lost)}")
    for namespace, prefix, size in gangs:
        bound = [p for p in _of(pods, namespace) if is_bound(p) and _named(p, prefix)]
        if 0 < len(bound) < size:
            found.append(f"{len(bound)} of {size} of {namespace}/{prefix} run")
    return found


def is_bound(pod: Object) -> bool:
    return bool(pod["spec"].get("nodeName"))


def is_gated(pod: Object) -> bool:
    gates = pod["spec"].get("schedulingGates") or ()
    return any(gate["name"] == GATE for gate in gates)


def is_charged(pod: Object) -> bool:
    return is_bound(pod) or bool(mark_of(pod))


def mark_of(pod: Object) -> dict[str, Any]:
    """The admission mark; empty without one."""
    text = notes_of(pod).get(MARK)
    return json.loads(text) if text else {}


def notes_of(pod: Object) -> dict[str, str]:
    return pod["metadata"].get("annotations") or {}


def gpus_of(pod: Object) -> int:
    containers = pod["spec"]["containers"]
    asked = (c.get("resources", {}).get("requests", {}) for c in containers)
    return sum(int(requests.get(GPU, 0)) for requests in asked)


def _leak(pod: Object) -> str:
    """Name what a pod carries although nothing is planned for it.

    A hold that stands is seen by its annotation; that is not a leak.
    """
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    nominated = pod["status"].get("nominatedNodeName", "")
    hold = notes_of(pod).get(HOLD)
    if is_bound(pod):
        return f"{name} runs and has a hold" if hold else ""
    if hold and json.loads(hold)["node"] != nominated:
        return f"{name} holds {hold} and is nominated to {nominated!r}"
    if nominated and not hold:
        return f"{name} waits, and is nominated to {nominated}"
    if mark_of(pod):
        return f"{name} waits, and is marked"
    return ""


def _overfull(client: Client, pods: Iterable[Object]) -> list[str]:
    used: Counter[str] = Counter()
    for pod in pods:
        if is_bound(pod):
            used[pod["spec"]["nodeName"]] += gpus_of(pod)
    room = {
        node["metadata"]["name"]: int(node["status"]["allocatable"].get(GPU, 0))
        for node in client.items("nodes")
    }
    return [
        f"{node} has {room[node]} GPUs, {count} are in use"
        for node, count in sorted(used.items())
        if node in room and count > room[node]
    ]


def _of(pods: Iterable[Object], namespace: str) -> list[Object]:
    return [p for p in pods if p["metadata"]["namespace"] == namespace]


def _named(pod: Object, prefix: str) -> bool:
    return str(pod["metadata"]["name"]).startswith(prefix)
