"""API objects for tests, as plain JSON: hollow GPU nodes and what runs on them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.controlplane.hollow import HANGS

Object = dict[str, Any]

GATE = "fairshare.dev/admission"
GPU = "nvidia.com/gpu"

PRIORITIES = {
    "fairshare-inference-critical": 1_000_300,
    "fairshare-inference": 1_000_200,
    "fairshare-training": 1_000_100,
    "fairshare-batch": 1_000_000,
}
"""Our PriorityClasses. They lie above what people write for ordinary workloads and far
below the system's, so that a nomination holds against all but the latter."""


def namespace(name: str, labels: Mapping[str, str] | None = None) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": dict(labels or {})},
    }


def service_account(name: str, namespace: str) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def node(
    name: str,
    gpus: int = 8,
    *,
    product: str = "NVIDIA-H100-80GB-HBM3",
    memory_mib: int = 81_559,
    replicas: int = 1,
    sharing: str = "time-slicing",
    mig: Mapping[str, int] | None = None,
    mig_gpus: int = 1,
    mig_strategy: str = "mixed",
    cpu: str = "96",
    memory: str = "1024Gi",
    pods: int = 110,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[Object] = (),
) -> Object:
    """A Ready node with the labels that GPU feature discovery gives it.

    Parameters
    ----------
    gpus
        Physical GPUs; 0 makes a node without GPUs and their labels.
    replicas, sharing
        Copies of each GPU and, if there is more than one, how they are made:
        "time-slicing" or "mps".
    mig, mig_gpus, mig_strategy
        Slices by profile, as in {"1g.10gb": 7}, and how many of the GPUs they are cut
        from. "mixed" counts each profile as its own resource and the other GPUs as
        GPUs; "single" counts slices of its only profile as GPUs.
    """
    devices: dict[str, int] = {}
    found: dict[str, str] = {}
    if mig and mig_strategy == "single":
        devices, found = _single(product, mig)
    elif mig:
        devices, found = _mixed(product, gpus - mig_gpus, mig)
    elif gpus:
        devices, found = _whole(product, gpus, replicas, sharing)
    if gpus:
        found = {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.count": str(gpus),
            "nvidia.com/gpu.memory": str(memory_mib),
            "nvidia.com/mig.capable": str(bool(_MIG_CAPABLE.search(product))).lower(),
            **found,
        }
    resources = {"cpu": cpu, "memory": memory, "pods": str(pods)}
    resources |= {device: str(count) for device, count in devices.items()}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                **found,
                **(labels or {}),
            },
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"taints": list(taints)},
        "status": {
            "allocatable": resources,
            "capacity": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Hollow"}],
            "nodeInfo": _NODE_INFO,
        },
    }


def nodes(count: int, prefix: str = "n", **same: Any) -> list[Object]:
    """Nodes of one kind: n0, n1 and so on."""
    return [node(f"{prefix}{index}", **same) for index in range(count)]


def pod(
    name: str,
    namespace: str,
    gpus: int = 1,
    *,
    gated: bool = False,
    resource: str = GPU,
    cpu: str = "1",
    memory: str = "1Gi",
    priority_class: str | None = None,
    grace_s: int = 30,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> Object:
    """A pod; further keywords are fields of its spec, as the API names them."""
    body = _pod_body(
        gpus, gated, resource, cpu, memory, priority_class, grace_s, labels, annotations
    )
    body["metadata"] |= {"name": name, "namespace": namespace}
    body["spec"] |= spec
    return {"apiVersion": "v1", "kind": "Pod", **body}


def job(
    name: str,
    namespace: str,
    gpus: int = 1,
    *,
    pods: int = 1,
    suspend: bool = False,
    job: Mapping[str, Any] | None = None,
    **template: Any,
) -> Object:
    """A Job of so many pods at once; `template` is what `pod` takes, `job` is added to
    the Job's own spec."""
    body = _template(gpus, template)
    body["spec"]["restartPolicy"] = "Never"
    spec = {
        "parallelism": pods,
        "completions": pods,
        "backoffLimit": 0,
        "suspend": suspend,
        "template": body,
        **(job or {}),
    }
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def deployment(
    name: str, namespace: str, gpus: int = 1, *, pods: int = 1, **template: Any
) -> Object:
    """A Deployment of pods labelled app=name; `template` is what `pod` takes."""
    labels = {**(template.pop("labels", None) or {}), "app": name}
    body = _template(gpus, {**template, "labels": labels})
    body["spec"]["restartPolicy"] = "Always"
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": pods,
            "selector": {"matchLabels": {"app": name}},
            "template": body,
        },
    }


def budget(
    name: str, namespace: str, labels: Mapping[str, str], min_available: int | str
) -> Object:
    """A PodDisruptionBudget."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": dict(labels)},
            "minAvailable": min_available,
        },
    }


def priority_class(name: str, value: int, preemption: str = "Never") -> Object:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "preemptionPolicy": preemption,
    }


def priority_classes() -> list[Object]:
    """Our four classes."""
    return [priority_class(name, value) for name, value in PRIORITIES.items()]


def binding(user: str, role: str = "cluster-admin") -> Object:
    """A ClusterRoleBinding of a user of the control plane to a role."""
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{user}-{role}"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }


def hangs(on: bool = True) -> dict[str, str | None]:
    """Annotations that make a node lose its kubelet, or a pod its node's."""
    return {HANGS: "true" if on else None}


_MIG_CAPABLE = re.compile("A30|A100|A800|H100|H800|H20|H200|GH200|B200|B300|PRO-6000")
_NODE_INFO = {
    "architecture": "amd64",
    "operatingSystem": "linux",
    "kubeletVersion": "hollow",
    "kernelVersion": "hollow",
    "osImage": "hollow",
    "containerRuntimeVersion": "hollow",
    "kubeProxyVersion": "",
    "machineID": "",
    "systemUUID": "",
    "bootID": "",
}


def _whole(
    product: str, gpus: int, replicas: int, sharing: str
) -> tuple[dict[str, int], dict[str, str]]:
    shared = replicas > 1
    return {GPU: gpus * replicas}, {
        "nvidia.com/gpu.product": product + ("-SHARED" if shared else ""),
        "nvidia.com/gpu.replicas": str(replicas),
        "nvidia.com/gpu.sharing-strategy": sharing if shared else "none",
        "nvidia.com/mig.strategy": "none",
    }


def _single(
    product: str, mig: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, str]]:
    ((profile, count),) = mig.items()
    return {GPU: count}, {
        "nvidia.com/gpu.product": f"{product}-MIG-{profile}",
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.slices.gi": profile.partition("g")[0],
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.strategy": "single",
    }


def _mixed(
    product: str, whole: int, mig: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, str]]:
    labels = {
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.replicas": "1" if whole else "0",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.strategy": "mixed",
    }
    for profile, count in mig.items():
        labels |= {
            f"nvidia.com/mig-{profile}.count": str(count),
            f"nvidia.com/mig-{profile}.product": f"{product}-MIG-{profile}",
            f"nvidia.com/mig-{profile}.slices.gi": profile.partition("g")[0],
            f"nvidia.com/mig-{profile}.replicas": "1",
            f"nvidia.com/mig-{profile}.sharing-strategy": "none",
        }
    slices = {f"nvidia.com/mig-{profile}": count for profile, count in mig.items()}
    return {GPU: whole, **slices}, labels


def _template(gpus: int, template: Mapping[str, Any]) -> Object:
    made = pod("", "", gpus, **template)
    del made["metadata"]["name"], made["metadata"]["namespace"]
    return {"metadata": made["metadata"], "spec": made["spec"]}


def _pod_body(
    gpus: int,
    gated: bool,
    resource: str,
    cpu: str,
    memory: str,
    priority_class: str | None,
    grace_s: int,
    labels: Mapping[str, str] | None,
    annotations: Mapping[str, str] | None,
) -> Object:
    limits = {resource: str(gpus)} if gpus else {}
    container = {
        "name": "main",
        "image": "hollow",
        "resources": {
            "requests": {"cpu": cpu, "memory": memory, **limits},
            "limits": limits,
        },
    }
    spec: Object = {"terminationGracePeriodSeconds": grace_s, "containers": [container]}
    if gated:
        spec["schedulingGates"] = [{"name": GATE}]
    if priority_class:
        spec["priorityClassName"] = priority_class
    metadata = {"labels": dict(labels or {}), "annotations": dict(annotations or {})}
    return {"metadata": metadata, "spec": spec}
