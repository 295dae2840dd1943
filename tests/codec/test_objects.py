"""The API's objects: what is left out, null or unknown does no harm."""

import json
from typing import Any

import msgspec
import pytest

from scheduler.codec import (
    JobObject,
    LeaseObject,
    NamespaceObject,
    NodeObject,
    PdbObject,
    PodObject,
    PriorityClassObject,
    objects,
)
from tests.codec.api import Json, read

EVERY: list[Any] = [
    PodObject,
    NodeObject,
    JobObject,
    NamespaceObject,
    LeaseObject,
    PdbObject,
    PriorityClassObject,
]


def nulls(kind: Any) -> dict[str, Any]:
    """Every field that may be missing, written as null where null is allowed."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        inner = field.type
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            found[field.encode_name] = nulls(inner)
        elif type(None) in getattr(inner, "__args__", ()):
            found[field.encode_name] = None
    return found


@pytest.mark.parametrize("kind", EVERY)
def test_whatever_may_be_missing_may_be_missing(kind: Any) -> None:
    required: Json = {"metadata": {}, "spec": {}}
    found = msgspec.json.decode(json.dumps(required), type=kind)
    assert found.metadata.labels is None
    assert found.metadata.name == ""


@pytest.mark.parametrize("kind", EVERY)
def test_null_is_the_same_as_missing(kind: Any) -> None:
    required: Json = {"metadata": {}, "spec": {}}
    missing = msgspec.json.decode(json.dumps(required), type=kind)
    assert msgspec.json.decode(json.dumps(nulls(kind)), type=kind) == missing


def test_a_pod_as_the_api_server_writes_it() -> None:
    found = read(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "uid": "u",
                "name": "train-0-abcde",
                "namespace": "team-a",
                "resourceVersion": "4711",
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "deletionTimestamp": "2026-01-02T04:04:05Z",
                "deletionGracePeriodSeconds": 30,
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
                "ownerReferences": [
                    {
                        "apiVersion": "batch/v1",
                        "kind": "Job",
                        "name": "train",
                        "uid": "j",
                        "controller": True,
                        "blockOwnerDeletion": True,
                    }
                ],
            },
            "spec": {
                "schedulingGates": [{"name": "fairshare.dev/admission"}],
                "nodeName": "n1",
                "schedulerName": "default-scheduler",
                "preemptionPolicy": "Never",
                "terminationGracePeriodSeconds": 30,
                "nodeSelector": {"zone": "a"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                "resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}],
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {
                                    "matchExpressions": [
                                        {
                                            "key": "zone",
                                            "operator": "In",
                                            "values": ["a"],
                                        }
                                    ]
                                }
                            ]
                        }
                    },
                    "podAffinity": {},
                },
                "containers": [
                    {
                        "name": "main",
                        "image": "busybox",
                        "resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "8"}},
                    }
                ],
            },
            "status": {
                "phase": "Running",
                "nominatedNodeName": "n1",
                "startTime": "2026-01-02T03:04:06Z",
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        },
        PodObject,
    )
    term = objects.NodeSelectorTerm([objects.Requirement("zone", "In", ["a"])])
    assert found == PodObject(
        metadata=objects.ObjectMeta(
            uid="u",
            name="train-0-abcde",
            namespace="team-a",
            resource_version="4711",
            creation_timestamp="2026-01-02T03:04:05Z",
            deletion_timestamp="2026-01-02T04:04:05Z",
            deletion_grace_period_seconds=30,
            owner_references=[
                objects.Owner(
                    "Job", "train", "j", controller=True, api_version="batch/v1"
                )
            ],
        ),
        spec=objects.PodSpec(
            containers=[
                objects.Container(
                    objects.Resources(limits={"cpu": "1", "nvidia.com/gpu": "8"})
                )
            ],
            resource_claims=[
                objects.ResourceClaim("c", resource_claim_template_name="t")
            ],
            preemption_policy="Never",
            scheduling_gates=[objects.Gate("fairshare.dev/admission")],
            scheduler_name="default-scheduler",
            node_name="n1",
            node_selector={"zone": "a"},
            affinity=objects.Affinity(
                objects.NodeAffinity(objects.NodeSelector([term]))
            ),
            tolerations=[objects.Toleration("nvidia.com/gpu", "Exists")],
            termination_grace_period_seconds=30,
        ),
        status=objects.PodStatus(
            phase="Running",
            nominated_node_name="n1",
            start_time="2026-01-02T03:04:06Z",
            conditions=[objects.Condition("Ready", "True")],
        ),
    )


def test_budgets_are_numbers_or_per_cent() -> None:
    raw = {
        "metadata": {"name": "b"},
        "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"app": "x"}}},
        "status": {"disruptionsAllowed": 2},
    }
    found = read(raw, PdbObject)
    assert found.spec.min_available == "50%"
    assert found.spec.max_unavailable is None
    assert found.spec.selector == objects.LabelSelector({"app": "x"})
    assert found.status.disruptions_allowed == 2


def test_a_job_and_its_template() -> None:
    raw = {
        "metadata": {"name": "train"},
        "spec": {
            "suspend": True,
            "parallelism": 4,
            "completions": 8,
            "completionMode": "Indexed",
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"priority": 3}},
        },
        "status": {"active": 4, "succeeded": 2, "failedIndexes": "1", "ready": 4},
    }
    found = read(raw, JobObject)
    assert (found.spec.suspend, found.spec.parallelism) == (True, 4)
    assert (found.spec.completions, found.spec.completion_mode) == (8, "Indexed")
    assert found.spec.template.metadata.labels == {"a": "b"}
    assert found.spec.template.spec.priority == 3
    assert (found.status.active, found.status.succeeded) == (4, 2)
    assert found.status.failed_indexes == "1"
