"""The fleet of `make demo-kubernetes` and what its tenants run on it, as API objects.

The gate in the pods' templates is put there by hand until the admission webhook does.
"""

from tests.controlplane import hollow, objects
from tests.controlplane.client import Object

NODES, NODE_GPUS = 8, 8
GPUS = NODES * NODE_GPUS

SCHEDULER = "fairshare"
GUARANTEES = {"research": 16, "vision": 16, "chat": 32}  # as in tenants.yaml
TENANTS = tuple(GUARANTEES)

PRETRAIN = "pretrain"
SWEEPS = ("sweep-a", "sweep-b")
NOTEBOOK = "notebook"
SIMULATE = "simulate"
CAPTIONS = ("caption-a", "caption-b")
ASSISTANT = "assistant"
REPLICAS = 6
REPLICA_GPUS = 4

# An evicted pod is no failure of its Job: a new one is made, and comes to the gate.
_EVICTION_IS_NO_FAILURE = {
    "podFailurePolicy": {
        "rules": [
            {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            }
        ]
    }
}


def fleet() -> list[Object]:
    """Return hollow nodes of eight H100, labelled as GPU feature discovery does."""
    return objects.nodes(NODES, prefix="gpu-", gpus=NODE_GPUS)


def pretrain() -> Object:
    """Return a gang: two pods that start together, on all GPUs of a node each."""
    return _job(PRETRAIN, "research", pods=2)


def night() -> list[Object]:
    """Return the rest of the night's work, 48 GPUs."""
    may_suspend = _job(NOTEBOOK, "research")
    may_suspend["metadata"]["annotations"] = {"fairshare.dev/suspend": "true"}
    return [
        *(_job(name, "vision") for name in CAPTIONS),
        *(_job(name, "research") for name in SWEEPS),
        may_suspend,
        _job(SIMULATE, "research", {"fairshare.dev/restart-cost": "30m"}),
    ]


def assistant() -> Object:
    """Return a service that nobody uses at night."""
    return objects.deployment(
        ASSISTANT,
        "chat",
        REPLICA_GPUS,
        pods=0,
        gated=True,
        priority_class="fairshare-inference",
        schedulerName=SCHEDULER,
    )


def _job(
    name: str, namespace: str, notes: dict[str, str] | None = None, pods: int = 1
) -> Object:
    behaviour = {hollow.RUNS_FOR: "forever", hollow.SHUTS_DOWN_IN: "2"}
    return objects.job(
        name,
        namespace,
        NODE_GPUS,
        pods=pods,
        job=_EVICTION_IS_NO_FAILURE,
        gated=True,
        priority_class="fairshare-training",
        grace_s=10,
        schedulerName=SCHEDULER,
        labels={"app": name},
        annotations={**behaviour, **(notes or {})},
    )
