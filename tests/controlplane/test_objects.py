"""The hollow nodes are what our service reads them as."""

import json

import msgspec
import pytest

from scheduler.codec.node import node_of
from scheduler.codec.objects import NodeObject
from tests.controlplane import objects


@pytest.mark.parametrize(
    ("node", "offers"),
    [
        (objects.node("n", gpus=8), {"h100-80gb": 8}),
        (objects.node("n", gpus=0), {}),
        (
            objects.node("n", gpus=4, product="NVIDIA-A10", replicas=4),
            {"a10-24gb/shared-4": 16},
        ),
        (
            objects.node("n", gpus=2, mig={"1g.10gb": 7}),
            {"h100-80gb": 1, "h100-80gb/1g.10gb": 7},
        ),
        (
            objects.node("n", gpus=2, mig={"3g.40gb": 4}, mig_strategy="single"),
            {"h100-80gb/3g.40gb": 4},
        ),
    ],
    ids=["whole", "none", "shared", "mixed", "single"],
)
def test_a_node_offers(node: objects.Object, offers: dict[str, int]) -> None:
    reading = node_of(msgspec.json.decode(json.dumps(node), type=NodeObject))
    assert reading.problems == ()
    assert {str(form): count for form, count in reading.node.offers} == offers
