"""Nodes as GPU feature discovery labels them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.codec import NodeReading, Use, node_of
from scheduler.core import Cluster, Node, NodeName, parse_form
from tests.codec.api import node

H100 = "NVIDIA-H100-80GB-HBM3"
WHOLE = {
    "nvidia.com/gpu.product": H100,
    "nvidia.com/gpu.count": "8",
    "nvidia.com/gpu.memory": "81559",
    "nvidia.com/gpu.replicas": "1",
    "nvidia.com/gpu.sharing-strategy": "none",
    "nvidia.com/mig.capable": "true",
    "nvidia.com/mig.strategy": "mixed",
    "nvidia.com/mig.config.state": "success",
}
ROOM = {"cpu": "127500m", "memory": "2113355776Ki", "pods": "110"}
TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def reading(
    labels: dict[str, str] | None = None,
    allocatable: dict[str, Any] | None = None,
    **more: Any,
) -> NodeReading:
    return node_of(node(WHOLE | (labels or {}), allocatable, **more))


def offers(found: NodeReading) -> dict[str, int]:
    return {str(form): count for form, count in found.node.offers}


def only_problem(found: NodeReading) -> str:
    assert found.node.offers == ()
    assert found.forms == {}
    (problem,) = found.problems
    return problem.removeprefix("node n1: ")


# -- what the devices are ---------------------------------------------------------


def test_whole_gpus() -> None:
    found = reading(None, ROOM | {"nvidia.com/gpu": "8"})
    assert found == NodeReading(
        Node(
            name=NodeName("n1"),
            offers=((parse_form("h100-80gb"), 8),),
            gpus=8,
            cpu_milli=127_500,
            memory_mib=2_063_824,
        ),
        product=H100,
        forms={"nvidia.com/gpu": parse_form("h100-80gb")},
    )


def test_time_sliced_gpus_are_a_class_of_their_own() -> None:
    labels = {
        "nvidia.com/gpu.product": "NVIDIA-A10-SHARED",
        "nvidia.com/gpu.count": "2",
        "nvidia.com/gpu.replicas": "4",
        "nvidia.com/gpu.sharing-strategy": "time-slicing",
    }
    found = reading(labels, {"nvidia.com/gpu": "8"})
    assert offers(found) == {"a10-24gb/shared-4": 8}
    assert (found.node.gpus, found.product) == (2, "NVIDIA-A10-SHARED")
    assert found.problems == ()


@pytest.mark.parametrize("strategy", ["time-slicing", "mps"])
def test_renamed_replicas(strategy: str) -> None:
    """With renameByDefault the product keeps its name, and the resource has another."""
    labels = {
        "nvidia.com/gpu.product": "NVIDIA-A10",
        "nvidia.com/gpu.count": "2",
        "nvidia.com/gpu.replicas": "4",
        "nvidia.com/gpu.sharing-strategy": strategy,
    }
    devices = {"nvidia.com/gpu": "0", "nvidia.com/gpu.shared": "8"}
    found = reading(labels, devices)
    assert offers(found) == {"a10-24gb/shared-4": 8}
    assert list(found.forms) == ["nvidia.com/gpu.shared"]


def test_mig_mixed() -> None:
    """Some GPUs whole, some cut; the label counts all of them."""
    devices = {
        "nvidia.com/gpu": "6",
        "nvidia.com/mig-1g.10gb": "7",
        "nvidia.com/mig-3g.40gb": "2",
        "nvidia.com/mig-1g.20gb": "0",
    }
    found = reading(None, devices)
    assert offers(found) == {
        "h100-80gb": 6,
        "h100-80gb/1g.10gb": 7,
        "h100-80gb/3g.40gb": 2,
    }
    assert found.node.gpus == 8
    assert found.forms["nvidia.com/mig-3g.40gb"] == "h100-80gb/3g.40gb"


def test_mig_mixed_without_a_whole_gpu() -> None:
    """Feature discovery then says that there are no replicas of whole GPUs."""
    labels = {"nvidia.com/gpu.replicas": "0", "nvidia.com/mig-1g.10gb.replicas": "1"}
    found = reading(labels, {"nvidia.com/gpu": "0", "nvidia.com/mig-1g.10gb.me": "8"})
    assert offers(found) == {"h100-80gb/1g.10gb+me": 8}


@pytest.mark.parametrize(
    ("profile", "count", "gpus"),
    [("1g.10gb", 14, 2), ("1g.10gb", 13, 2), ("3g.40gb", 4, 2), ("4g.40gb", 8, 8)],
)
def test_mig_single_counts_slices(profile: str, count: int, gpus: int) -> None:
    """There the label counts slices too; GPUs follow from how many one can hold."""
    labels = {
        "nvidia.com/gpu.product": f"{H100}-MIG-{profile}",
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.memory": "9984",
        "nvidia.com/gpu.slices.gi": "1",
        "nvidia.com/mig.strategy": "single",
    }
    found = reading(labels, {"nvidia.com/gpu": str(count)})
    assert offers(found) == {f"h100-80gb/{profile}": count}
    assert found.node.gpus == gpus
    assert found.product.endswith(profile)
    assert found.problems == ()


def test_mig_single_names_attributes_as_resources_do() -> None:
    labels = {"nvidia.com/gpu.product": f"{H100}-MIG-1g.10gb.me"}
    found = reading(labels, {"nvidia.com/gpu": "1"})
    assert offers(found) == {"h100-80gb/1g.10gb+me": 1}


def test_allocatable_counts_and_may_shrink() -> None:
    """Kubelet takes away devices that fail; the label still counts the GPUs."""
    raw = node(WHOLE, {"nvidia.com/gpu": "7"})
    raw.status.capacity = {"nvidia.com/gpu": "8"}
    found = node_of(raw)
    assert offers(found) == {"h100-80gb": 7}
    assert found.node.gpus == 8


def test_gpus_are_derived_where_they_are_not_labelled() -> None:
    labels = {"nvidia.com/gpu.product": H100}
    devices = {"nvidia.com/gpu": "6", "nvidia.com/mig-1g.10gb": "9"}
    assert node_of(node(labels, devices)).node.gpus == 8
    shared = {"nvidia.com/gpu.product": "NVIDIA-A10", "nvidia.com/gpu.replicas": "4"}
    assert node_of(node(shared, {"nvidia.com/gpu.shared": "8"})).node.gpus == 2


def test_the_fleet_may_name_classes() -> None:
    """For products no table knows, and for known ones that should count as others."""
    labels = {"nvidia.com/gpu.product": "NVIDIA-Z9-SHARED"}
    shared = labels | {"nvidia.com/gpu.replicas": "2"}
    table = {"NVIDIA-Z9": "z9-16gb", H100: "h100-special"}
    assert offers(node_of(node(shared, {"nvidia.com/gpu": 4}), table)) == {
        "z9-16gb/shared-2": 4
    }
    assert offers(node_of(node(WHOLE, {"nvidia.com/gpu": 8}), table)) == {
        "h100-special": 8
    }
    verbatim = {"NVIDIA-Z9-SHARED": "z9-other"} | table
    assert offers(node_of(node(shared, {"nvidia.com/gpu": 4}), verbatim)) == {
        "z9-other/shared-2": 4
    }


def test_a_node_without_gpus_offers_nothing_and_has_no_problem() -> None:
    found = node_of(node({"zone": "a"}, ROOM))
    assert (found.node.offers, found.node.gpus, found.problems) == ((), 0, ())
    assert found.product == ""


# -- what cannot be read ----------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "devices", "problem"),
    [
        (
            {"nvidia.com/gpu.product": "NVIDIA-Z9"},
            {"nvidia.com/gpu": "8"},
            "nvidia.com/gpu: label nvidia.com/gpu.product: 'NVIDIA-Z9' is in no table "
            "of GPU classes",
        ),
        (
            {"nvidia.com/gpu.product": ""},
            {"nvidia.com/gpu": "8"},
            "nvidia.com/gpu: label nvidia.com/gpu.product is missing, so its GPU class "
            "is not known",
        ),
        (
            {"nvidia.com/gpu.product": f"{H100}-MIG-INVALID"},
            {"nvidia.com/gpu": "8"},
            f"nvidia.com/gpu: label nvidia.com/gpu.product: '{H100}-MIG-INVALID' says "
            "that its GPUs are not cut alike, which MIG strategy single needs",
        ),
        (
            {"nvidia.com/gpu.product": f"{H100}-SHARED"},
            {"nvidia.com/gpu": "16"},
            "nvidia.com/gpu: are shared, and label nvidia.com/gpu.replicas does not "
            "say by how many",
        ),
        (
            {"nvidia.com/gpu.sharing-strategy": "mps"},
            {"nvidia.com/gpu": "16"},
            "nvidia.com/gpu: are shared, and label nvidia.com/gpu.replicas does not "
            "say by how many",
        ),
        (
            {"nvidia.com/gpu.replicas": "many"},
            {"nvidia.com/gpu.shared": "16"},
            "nvidia.com/gpu.shared: are shared, and label nvidia.com/gpu.replicas does "
            "not say by how many",
        ),
        (
            {"nvidia.com/gpu.replicas": "11"},
            {"nvidia.com/gpu": "88"},
            "nvidia.com/gpu: 'h100-80gb/shared-11': 11 replicas do not divide a GPU "
            "exactly",
        ),
        (
            {},
            {"nvidia.com/gpu": "32"},
            "nvidia.com/gpu: are 32, and label nvidia.com/gpu.count counts 8",
        ),
        (
            {"nvidia.com/gpu.slices.gi": "1"},
            {"nvidia.com/gpu": "7"},
            "nvidia.com/gpu: are MIG slices, and label nvidia.com/gpu.product does not "
            "name their profile",
        ),
        (
            {},
            {"nvidia.com/mig-1g.10gb.shared": "8"},
            "nvidia.com/mig-1g.10gb.shared: is no MIG profile of its own",
        ),
        (
            {"nvidia.com/mig-1g.10gb.replicas": "2"},
            {"nvidia.com/mig-1g.10gb": "8"},
            "nvidia.com/mig-1g.10gb: a MIG slice that 2 pods share has no class",
        ),
        (
            {"nvidia.com/gpu.product": "NVIDIA-A10"},
            {"nvidia.com/mig-1g.10gb": "8"},
            "nvidia.com/mig-1g.10gb: 'a10-24gb/1g.10gb': a10-24gb has no MIG profiles",
        ),
        (
            {},
            {"nvidia.com/gpu": "-1"},
            "status.allocatable[nvidia.com/gpu]: '-1' must not be negative",
        ),
    ],
)
def test_a_problem_names_label_and_value(
    labels: dict[str, str], devices: dict[str, str], problem: str
) -> None:
    assert only_problem(reading(labels, devices)) == problem


def test_what_can_be_read_of_a_broken_node_is_offered() -> None:
    devices = {"nvidia.com/gpu": "2", "nvidia.com/mig-9g.1gb": "3", "cpu": "?"}
    found = reading(None, devices)
    assert offers(found) == {"h100-80gb": 2}
    assert [problem.split(":")[1].strip() for problem in found.problems] == [
        "status.allocatable[cpu]",
        "nvidia.com/mig-9g.1gb",
    ]


LABELS = st.dictionaries(
    st.sampled_from([*WHOLE, "nvidia.com/gpu.slices.gi"]),
    st.sampled_from([H100, f"{H100}-MIG-1g.10gb", "X-SHARED", "0", "3", "-1", ""])
    | st.text(max_size=8),
)
DEVICES = st.dictionaries(
    st.sampled_from(
        [
            "cpu",
            "memory",
            "nvidia.com/gpu",
            "nvidia.com/gpu.shared",
            "nvidia.com/mig-1g.10gb",
            "nvidia.com/mig-",
            "nvidia.com/mig-7g.80gb",
        ]
    ),
    st.sampled_from(["1", "8", "1.5", "64Gi", "1e18"]) | st.text(max_size=8),
)


@given(LABELS, DEVICES)
def test_no_node_stops_the_service(
    labels: dict[str, str], devices: dict[str, str]
) -> None:
    """Whatever a node says, what it offers is legal and the rest is told."""
    found = node_of(node(labels, devices))
    Cluster().set_node(found.node)
    assert all(count > 0 for _, count in found.node.offers)
    asked = {r for r, n in devices.items() if r.startswith("nvidia.com/") and n == "8"}
    told = {r for r in asked if any(r in problem for problem in found.problems)}
    assert asked == told | (asked & found.forms.keys())


# -- whether pods may come --------------------------------------------------------


def test_ready_nodes_are_ready() -> None:
    assert reading().node.ready


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_node_that_is_not_ready_is_not(status: str) -> None:
    assert not reading(ready=status).node.ready


def test_a_node_without_conditions_has_not_said_that_it_is_ready() -> None:
    raw = node(WHOLE)
    raw.status.conditions = None
    assert not node_of(raw).node.ready


def test_cordoned_and_deleted_nodes_are_not_ready() -> None:
    assert not reading(spec={"unschedulable": True}).node.ready
    assert not reading(deletionTimestamp="2026-01-02T03:04:05Z").node.ready


@pytest.mark.parametrize(
    ("key", "effect", "ready"),
    [
        ("nvidia.com/gpu", "NoSchedule", True),
        ("nvidia.com/gpu", "NoExecute", True),
        ("fairshare.dev/managed", "NoSchedule", True),
        ("node.kubernetes.io/unreachable", "NoExecute", False),
        ("node.kubernetes.io/unschedulable", "NoSchedule", False),
        ("team", "NoSchedule", False),
        ("team", "PreferNoSchedule", True),
    ],
)
def test_taints(key: str, effect: str, ready: bool) -> None:
    taints = [TAINT, {"key": key, "effect": effect}]
    assert reading(spec={"taints": taints}).node.ready is ready


def test_tolerated_taints_may_be_others() -> None:
    raw = node(WHOLE, spec={"taints": [TAINT]})
    assert not node_of(raw, tolerated=["team"]).node.ready
    raw = node(WHOLE, spec={"taints": [{"key": "team", "effect": "NoSchedule"}]})
    assert node_of(raw, tolerated=["team"]).node.ready


@pytest.mark.parametrize("state", ["pending", "rebooting", "failed"])
def test_nothing_starts_where_gpus_are_cut_anew(state: str) -> None:
    """What runs stays: the counts are what kubelet says."""
    labels = {"nvidia.com/mig.config.state": state}
    found = reading(labels, {"nvidia.com/gpu": "8"})
    assert not found.node.ready
    assert offers(found) == {"h100-80gb": 8}
    assert found.problems == (
        f"node n1: label nvidia.com/mig.config.state is {state!r}, not success",
    )


# -- what others use --------------------------------------------------------------


def test_what_others_use_is_subtracted() -> None:
    devices = {"nvidia.com/gpu": "6", "nvidia.com/mig-1g.10gb": "7"}
    found = reading(None, devices | {"cpu": "8", "memory": "64Mi"})
    others = Use(
        1500, 24, {"nvidia.com/gpu": 2, "nvidia.com/mig-1g.10gb": 9, "unknown": 1}
    )
    left = found.without(others)
    assert left.offers == (
        (parse_form("h100-80gb"), 4),
        (parse_form("h100-80gb/1g.10gb"), 0),
    )
    assert (left.cpu_milli, left.memory_mib, left.gpus) == (6500, 40, 8)


def test_a_node_that_is_full_does_not_become_one_nobody_tracks() -> None:
    tracked = reading(None, {"cpu": "1", "memory": "1Gi"})
    left = tracked.without(Use(5000, 5000))
    assert (left.cpu_milli, left.memory_mib) == (1, 1)
    untracked = reading().without(Use(5000, 5000))
    assert (untracked.cpu_milli, untracked.memory_mib) == (0, 0)
