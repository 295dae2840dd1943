"""API objects for tests, as plain JSON: hollow GPU nodes and what runs on them."""

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
    sharing: str = "none",
    mig: Mapping[str, int] | None = None,
    mig_strategy: str = "none",
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
        Copies of each GPU and how they are made: "time-slicing" or "mps".
    mig, mig_strategy
        Slices by profile, as in {"1g.10gb": 7}. "mixed" counts each profile as its own
        resource; "single" counts its only profile as GPUs.
    """
    resources = {
        "cpu": cpu,
        "memory": memory,
        "pods": str(pods),
        **_gpu_resources(gpus * replicas, mig or {}, mig_strategy),
    }
    found = _gpu_labels(gpus, product, memory_mib, replicas, sharing, mig_strategy)
    for profile, count in (mig or {}).items():
        found |= _mig_labels(profile, count, product, mig_strategy)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                **(found if gpus else {}),
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


def hangs(on: bool = True) -> dict[str, str | None]:
    """Annotations that make a node lose its kubelet, or a pod its node's."""
    return {HANGS: "true" if on else None}


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


def _gpu_resources(gpus: int, mig: Mapping[str, int], strategy: str) -> dict[str, str]:
    if strategy == "mixed":
        slices = {f"nvidia.com/mig-{name}": str(count) for name, count in mig.items()}
        return {GPU: str(gpus), **slices}
    if strategy == "single":
        return {GPU: str(sum(mig.values()))}
    return {GPU: str(gpus)} if gpus else {}


def _gpu_labels(
    gpus: int, product: str, memory_mib: int, replicas: int, sharing: str, strategy: str
) -> dict[str, str]:
    # With replicas, feature discovery marks the product as shared.
    shared = "-SHARED" if replicas > 1 else ""
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product + shared,
        "nvidia.com/gpu.memory": str(memory_mib),
        "nvidia.com/gpu.count": str(gpus),
        "nvidia.com/gpu.replicas": str(replicas),
        "nvidia.com/gpu.sharing-strategy": sharing,
        "nvidia.com/mig.capable": "true",
        "nvidia.com/mig.strategy": strategy,
    }


def _mig_labels(
    profile: str, count: int, product: str, strategy: str
) -> dict[str, str]:
    if strategy == "single":
        return {
            "nvidia.com/gpu.product": f"{product}-MIG-{profile}",
            "nvidia.com/gpu.count": str(count),
        }
    prefix = f"nvidia.com/mig-{profile}"
    return {
        f"{prefix}.count": str(count),
        f"{prefix}.product": f"{product}-MIG-{profile}",
        f"{prefix}.replicas": "1",
        f"{prefix}.sharing-strategy": "none",
    }


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
