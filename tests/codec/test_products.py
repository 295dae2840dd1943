"""Pods that select GPU models by node labels, as they do where nobody knows us."""

from typing import Any

import msgspec
import pytest

from scheduler.codec import Naming, PodObject, pod_of
from scheduler.core import TenantName

PRODUCT = "nvidia.com/gpu.product"
H100, A100 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB"
NAMING = Naming(
    tenants={"team": TenantName("alpha")}, products={"My-GPU": "b200-192gb"}
)


def classes(
    spec: dict[str, Any], resource: str = "nvidia.com/gpu", **notes: str
) -> tuple[str, ...]:
    """GPU classes that a pod is read to accept."""
    container = {"name": "c", "resources": {"limits": {resource: "1"}}}
    annotations = {f"fairshare.dev/{k.replace('_', '-')}": v for k, v in notes.items()}
    message = {
        "metadata": {
            "uid": "u",
            "name": "p",
            "namespace": "team",
            "annotations": annotations,
        },
        "spec": {"containers": [container], **spec},
    }
    pod = pod_of(msgspec.convert(message, PodObject), NAMING)
    assert pod is not None
    return pod.demand.classes


def one_of(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    """Required node affinity: any of the terms, each of which lists requirements."""
    selector = [{"matchExpressions": term} for term in terms]
    required = {"nodeSelectorTerms": selector}
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    return {"affinity": {"nodeAffinity": {key: required}}}


def among(*products: str, operator: str = "In") -> dict[str, Any]:
    return {"key": PRODUCT, "operator": operator, "values": list(products)}


ZONE = {"key": "zone", "operator": "In", "values": ["a"]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ()),
        ({"nodeSelector": {PRODUCT: H100}}, ("h100-80gb",)),
        ({"nodeSelector": {"zone": "a"}}, ()),
        ({"nodeSelector": {PRODUCT: "My-GPU"}}, ("b200-192gb",)),
        ({"nodeSelector": {PRODUCT: "Nobody-Knows"}}, ()),
        ({"nodeSelector": {PRODUCT: "NVIDIA-A10-SHARED"}}, ()),
        ({"nodeSelector": {PRODUCT: f"{H100}-MIG-3g.40gb"}}, ("h100-80gb/3g.40gb",)),
        (one_of([among(A100, H100)]), ("a100-80gb", "h100-80gb")),
        (one_of([among(H100), ZONE], [among(A100)]), ("h100-80gb", "a100-80gb")),
        (one_of([among(H100)], [ZONE]), ()),
        (one_of([among(H100, operator="NotIn")]), ()),
        (one_of([among(H100, "Nobody-Knows")]), ()),
        (one_of([among(H100, "NVIDIA-H100-PCIe")]), ("h100-80gb",)),
    ],
)
def test_labels_say_the_class(spec: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert classes(spec) == expected


def test_our_annotation_goes_first() -> None:
    spec = {"nodeSelector": {PRODUCT: H100}}
    assert classes(spec, gpu_classes="a100-80gb") == ("a100-80gb",)


def test_a_slice_is_one_of_the_selected_model() -> None:
    spec = {"nodeSelector": {PRODUCT: H100}}
    assert classes(spec, resource="nvidia.com/mig-3g.40gb") == ("h100-80gb",)
