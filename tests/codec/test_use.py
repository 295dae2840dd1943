"""What pods take from their node, whoever placed them there."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.codec import (
    CodecError,
    Membership,
    Naming,
    Use,
    has_only_claims,
    node_of,
    pod_of,
    use_of,
)
from scheduler.codec.pod import MAX_AMOUNT
from tests.codec.api import node, pod

NAMING = Naming(tenants={})
ROOM = {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"}


def container(requests: dict[str, Any], restart: str | None = None) -> dict[str, Any]:
    return {"resources": {"requests": requests}, "restartPolicy": restart}


def use(*containers: dict[str, Any], **spec: Any) -> Use:
    return use_of(pod(spec={"containers": list(containers), **spec}))


def test_pods_without_gpus_use_cpu_and_memory() -> None:
    found = use(container({"cpu": "100m", "memory": "1.5Mi", "ephemeral-storage": "9"}))
    assert found == Use(100, 2, {})
    assert use(container({}), {"name": "no resources at all"}) == Use()


def test_every_kind_of_gpu_resource_counts() -> None:
    """One of ours is refused for two kinds; one that runs already takes both."""
    both = container(
        {"nvidia.com/gpu": "2", "nvidia.com/mig-1g.10gb": 3, "amd.com/gpu": "1"}
    )
    assert use(both).devices == {"nvidia.com/gpu": 2, "nvidia.com/mig-1g.10gb": 3}
    with pytest.raises(CodecError, match="two kinds of GPU resource"):
        pod_of(pod(spec={"containers": [both]}), NAMING)


def test_zero_is_no_use() -> None:
    assert use(container({"nvidia.com/gpu": "0"})) == Use()


def test_init_containers_and_sidecars_as_kube_scheduler_counts_them() -> None:
    """The larger of what runs together, and each init container with what runs then."""
    main, once = container({"cpu": "2"}), container({"cpu": "8"})
    sidecar = container({"cpu": "1"}, "Always")
    assert use(main, initContainers=[once]).cpu_milli == 8000
    assert use(main, initContainers=[sidecar, once]).cpu_milli == 9000
    assert use(main, initContainers=[once, sidecar]).cpu_milli == 8000
    assert use(main, initContainers=[sidecar, sidecar]).cpu_milli == 4000
    overhead = {"cpu": "250m", "memory": "120Mi"}
    assert use(main, initContainers=[sidecar], overhead=overhead) == Use(3250, 120, {})


def test_what_the_pod_asks_as_a_whole_goes_before_the_sum() -> None:
    """Pod-level resources, where they are given; devices are always a container's."""
    main = container({"cpu": "2", "memory": "1Gi", "nvidia.com/gpu": "1"})
    whole = {"requests": {"cpu": "3"}, "limits": {"cpu": "4"}}
    overhead = {"cpu": "500m"}
    found = use(main, main, resources=whole, overhead=overhead)
    assert found == Use(3500, 2048, {"nvidia.com/gpu": 2})


def test_use_adds_up() -> None:
    a = Use(1, 2, {"nvidia.com/gpu": 1})
    b = Use(10, 20, {"nvidia.com/gpu": 2, "nvidia.com/mig-1g.10gb": 1})
    total = Use(11, 22, {"nvidia.com/gpu": 3, "nvidia.com/mig-1g.10gb": 1})
    assert a + b == b + a == total
    assert sum([a, b], Use()) == total


@pytest.mark.parametrize(
    ("resource", "text", "problem"),
    [
        ("cpu", "lots", "is not a quantity"),
        ("cpu", "2G", "is more than any node has"),
        ("memory", "2Ei", "is more than any node has"),
        ("nvidia.com/gpu", "0.5", "is not a whole number"),
    ],
)
def test_what_cannot_be_read_is_refused_of_ours_and_costs_others_the_node(
    resource: str, text: str, problem: str
) -> None:
    """A foreign pod must neither stop the service nor be overlooked."""
    amounts = {"nvidia.com/mig-1g.10gb": "0", resource: text}
    odd = pod(spec={"containers": [container({"cpu": "1"}), container(amounts)]})
    with pytest.raises(CodecError) as caught:
        pod_of(odd, NAMING)
    field = f"spec.containers[1].resources.requests[{resource}]"
    assert str(caught.value).startswith(f"pod team-a/p: {field}: {text!r} {problem}")
    gpus = {name for name in amounts if name.startswith("nvidia.com/")}
    assert use_of(odd).devices.keys() == gpus
    full = node_of(node({"nvidia.com/gpu.product": "NVIDIA-A10"}, ROOM))
    left = full.without(use_of(odd))
    assert (left.cpu_milli, left.memory_mib) == (1, 1)
    assert [count for _, count in left.offers] == [0 if resource in gpus else 2]


TEXTS = st.sampled_from(["1", "500m", "1Ki", "9E", "-1", ""]) | st.text(max_size=5)


@given(
    st.dictionaries(
        st.sampled_from(["cpu", "memory", "nvidia.com/gpu", "nvidia.com/mig-x"]), TEXTS
    )
)
def test_no_pod_stops_the_service(amounts: dict[str, str]) -> None:
    found = use(container(amounts))
    assert 0 <= found.cpu_milli <= MAX_AMOUNT
    assert 0 <= found.memory_mib <= MAX_AMOUNT
    assert found.devices.keys() <= amounts.keys()


def test_pods_with_claims_only() -> None:
    claims = [{"name": "gpu", "resourceClaimName": "c"}]
    gpu, cpu = container({"nvidia.com/gpu": "1"}), container({"cpu": "1"})
    assert has_only_claims(pod(spec={"containers": [cpu], "resourceClaims": claims}))
    both = pod(spec={"containers": [gpu], "resourceClaims": claims})
    assert not has_only_claims(both)
    assert not has_only_claims(pod(spec={"containers": [cpu]}))
    assert not has_only_claims(pod(spec={"resourceClaims": []}))


def test_a_given_membership_goes_before_what_the_pod_says() -> None:
    notes = {"fairshare.dev/gang": "mine", "fairshare.dev/gang-min-member": "2"}
    alone = pod_of(pod(notes=notes), NAMING)
    given = pod_of(pod(notes=notes), NAMING, Membership("team-a/job/x", 4))
    assert alone is not None
    assert given is not None
    assert (alone.gang, alone.min_member) == ("team-a/mine", 2)
    assert (given.gang, given.min_member) == ("team-a/job/x", 4)
