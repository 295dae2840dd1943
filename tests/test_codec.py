"""Pods and messages: what each field means, byte for byte where the wire counts."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.codec import (
    CodecError,
    Naming,
    PodObject,
    Readers,
    decode_acknowledgement,
    decode_events,
    decode_nodes_call,
    decode_preempt_call,
    encode_failure,
    encode_filtered,
    encode_preemption,
    encode_scores,
    pod_of,
)
from scheduler.config import node_of, read_tenancy
from scheduler.core import (
    Demand,
    Filtered,
    NodeName,
    Pod,
    PodUid,
    Reason,
    TenantName,
    WorkloadClass,
)
from tests.serving import args, pod_json

NAMING = Naming(tenants={"team-a": TenantName("a")})

Amounts = dict[str, Any]


def read(raw: dict[str, Any], naming: Naming = NAMING) -> Pod | None:
    """Read a pod from its JSON."""
    return pod_of(msgspec.json.decode(json.dumps(raw), type=PodObject), naming)


def container(**parts: Any) -> dict[str, Any]:
    """A container; ``requests``, ``limits`` and ``restart``."""
    restart = {"restartPolicy": parts.pop("restart")} if "restart" in parts else {}
    return {"name": "c", "resources": parts, **restart}


def demand(
    *containers: dict[str, Any],
    init: list[dict[str, Any]] | None = None,
    overhead: Amounts | None = None,
    **notes: str,
) -> Demand | None:
    """Read what a pod with these containers needs."""
    raw = pod_json("u", **notes)
    raw["spec"] |= {"containers": list(containers)}
    raw["spec"] |= {"initContainers": init, "overhead": overhead}
    pod = read(raw)
    return pod.demand if pod else None


def gpus(count: int | str, **more: Any) -> dict[str, Any]:
    return container(limits={"nvidia.com/gpu": count} | more)


# -- demand ---------------------------------------------------------------------


def test_containers_run_together() -> None:
    assert demand(gpus(2), gpus("3")) == Demand(count=5)


def test_requests_count_and_limits_where_they_are_missing() -> None:
    both = container(
        requests={"cpu": "500m", "memory": "1Gi"},
        limits={"cpu": 4, "memory": "2Gi", "nvidia.com/gpu": "1"},
    )
    only = container(limits={"cpu": "1", "memory": "1Mi"})
    assert demand(both, only) == Demand(count=1, cpu_milli=1500, memory_mib=1025)


def test_init_containers_run_before_and_alone() -> None:
    assert demand(gpus(2), init=[gpus(1), gpus(8)]) == Demand(count=8)
    assert demand(gpus(2), init=[gpus(1)]) == Demand(count=2)


def test_sidecars_run_along_and_before_later_init_containers() -> None:
    """The formula of kube-scheduler: sidecars count for everything after them."""
    sidecar = gpus(1, cpu="1") | {"restartPolicy": "Always"}
    late = [gpus(4), sidecar]
    early = [sidecar, gpus(4)]
    assert demand(gpus(2), init=late) == Demand(count=4, cpu_milli=1000)
    assert demand(gpus(2), init=early) == Demand(count=5, cpu_milli=1000)
    assert demand(gpus(2), init=[sidecar, sidecar]) == Demand(count=4, cpu_milli=2000)


def test_overhead_is_added() -> None:
    overhead = {"cpu": "250m", "memory": "1"}
    assert demand(gpus(1), overhead=overhead) == Demand(
        count=1, cpu_milli=250, memory_mib=1
    )


def test_no_gpu_is_no_demand() -> None:
    assert demand() is None
    assert demand(container(), gpus(0)) is None
    assert demand(container(limits={"cpu": "64", "amd.com/gpu": "8"})) is None


@pytest.mark.parametrize(
    ("resource", "profile"),
    [
        ("nvidia.com/mig-1g.10gb", "1g.10gb"),
        ("nvidia.com/mig-1g.10gb.me", "1g.10gb+me"),
        ("nvidia.com/mig-1g.24gb-me", "1g.24gb-me"),
        ("nvidia.com/mig-1g.24gb.me.all", "1g.24gb+me.all"),
    ],
)
def test_mig_resources_name_profiles(resource: str, profile: str) -> None:
    found = demand(container(limits={resource: "3"}))
    assert found == Demand(count=3, profile=profile)


def test_classes_in_order_of_preference() -> None:
    found = demand(gpus(1), gpu_classes="h100-80gb, a100-80gb")
    assert found == Demand(count=1, classes=("h100-80gb", "a100-80gb"))


def test_shared_gpus_go_to_pods_that_name_them() -> None:
    shared = container(limits={"nvidia.com/gpu.shared": 1})
    found = demand(shared, gpu_classes="a10-24gb/shared-4")
    assert found == Demand(count=1, classes=("a10-24gb/shared-4",))
    only = "must name shared classes, and only such"
    with pytest.raises(CodecError, match=only):
        demand(shared)
    with pytest.raises(CodecError, match=only):
        demand(shared, gpu_classes="a10-24gb/shared-4,h100-80gb")


# -- pods -------------------------------------------------------------------------


def test_every_field_of_a_pod() -> None:
    raw = pod_json(
        "u1",
        gpus=8,
        priority_class="fairshare-inference-critical",
        gang="job",
        gang_min_member="4",
        preemptible="false",
        restart_cost="1m30s",
        checkpoint_interval="15m",
    )
    raw["spec"]["priority"] = 7
    assert read(raw) == Pod(
        uid=PodUid("u1"),
        name="team-a/pod-u1",
        tenant=TenantName("a"),
        workload_class=WorkloadClass.INFERENCE_CRITICAL,
        demand=Demand(count=8),
        gang="team-a/job",
        min_member=4,
        priority=7,
        preemptible=False,
        restart_cost_s=90.0,
        checkpoint_interval_s=900.0,
    )


def test_gangs_of_two_namespaces_of_one_tenant_are_two() -> None:
    naming = Naming(tenants={"x": TenantName("a"), "y": TenantName("a")})
    pods = [read(pod_json("u", ns, gang="job"), naming) for ns in ("x", "y")]
    assert len({pod.gang_id for pod in pods if pod}) == 2


@pytest.mark.parametrize("member", WorkloadClass)
def test_priority_classes_name_workload_classes(member: WorkloadClass) -> None:
    pod = read(pod_json("u", priority_class=f"fairshare-{member.label}"))
    assert pod is not None
    assert pod.workload_class is member


@pytest.mark.parametrize("name", [None, "", "system-cluster-critical"])
def test_other_priority_classes_are_the_default(name: str | None) -> None:
    naming = Naming(tenants={}, default_class=WorkloadClass.BATCH)
    pod = read(pod_json("u", priority_class=name), naming)
    assert pod is not None
    assert pod.workload_class is WorkloadClass.BATCH


def test_namespace_without_a_tenant_cannot_hit_one_by_its_name() -> None:
    pod = read(pod_json("u", "a"))
    assert pod is not None
    assert pod.tenant != "a"


@pytest.mark.parametrize(
    ("note", "text", "problem"),
    [
        ("gang", "", "is no name"),
        ("gang", "a/b", "is no name"),
        ("gang_min_member", "0", "is not a whole number from 1"),
        ("gang_min_member", "two", "is not a whole number from 1"),
        ("gang_min_member", "9999999999", "is not a whole number from 1"),
        ("gang_min_member", "2", "needs the annotation fairshare.dev/gang"),
        ("preemptible", "no", "must be true or false"),
        ("restart_cost", "90", "is not a duration with a unit"),
        ("checkpoint_interval", "0s", "must be longer than 0s"),
        ("gpu_classes", "", "is no GPU class"),
        ("gpu_classes", "h100-80gb,h100-80gb", "names a GPU class twice"),
        ("gpu_classes", "H100", "is no GPU class"),
    ],
)
def test_bad_annotation_is_named(note: str, text: str, problem: str) -> None:
    with pytest.raises(CodecError) as caught:
        read(pod_json("u", **{note: text}))
    name = f"fairshare.dev/{note.replace('_', '-')}"
    assert str(caught.value).startswith(
        f"pod team-a/pod-u: metadata.annotations[{name}]: {text!r} "
    )
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"nvidia.com/gpu": "-1"}, "limits[nvidia.com/gpu]: '-1' must not be negative"),
        ({"nvidia.com/gpu": "500m"}, "'500m' is not a whole number"),
        ({"nvidia.com/gpu": 1.5}, "'1.5' is not a whole number"),
        ({"nvidia.com/gpu": 2000}, "'2000' of nvidia.com/gpu are more than 1024"),
        (
            {"nvidia.com/gpu": 1, "cpu": "1Gi"},
            "limits[cpu]: '1Gi' is in units of memory",
        ),
        ({"nvidia.com/gpu": 1, "memory": "x"}, "limits[memory]: 'x' is not a quantity"),
        (
            {"nvidia.com/gpu": 1, "nvidia.com/gpu.shared": 1},
            "'nvidia.com/gpu and nvidia.com/gpu.shared' are two kinds of GPU resource",
        ),
        ({"nvidia.com/mig-big": 1}, "'nvidia.com/mig-big' is no MIG profile"),
        ({"nvidia.com/mig-1g.10gb.shared": 1}, "is no MIG profile"),
    ],
)
def test_bad_amount_is_named(limits: Amounts, message: str) -> None:
    raw = pod_json("u")
    raw["spec"]["containers"] = [container(limits=limits)]
    with pytest.raises(CodecError) as caught:
        read(raw)
    assert str(caught.value).startswith("pod team-a/pod-u: spec.containers")
    assert message in str(caught.value)


def test_unknown_priority_class_of_ours_is_named() -> None:
    with pytest.raises(CodecError, match=r"spec\.priorityClassName: 'fairshare-fast'"):
        read(pod_json("u", priority_class="fairshare-fast"))


# -- the wire ---------------------------------------------------------------------


def table(*names: str) -> dict[NodeName, None]:
    return dict.fromkeys(NodeName(name) for name in names)


def test_go_writes_null_for_what_is_empty() -> None:
    """As Go's own test has it: PascalCase, no omitempty."""
    body = b'{"Pod":{"metadata":{"name":"","namespace":"","uid":"","creationTimestamp":null},"spec":{"containers":null},"status":{}},"Nodes":null,"NodeNames":["n1"]}'  # noqa: E501 (golden)
    call = decode_nodes_call(body)
    assert list(call.table) == ["n1"]
    with pytest.raises(CodecError, match=r"metadata\.uid"):
        pod_of(call.pod, NAMING)


def test_filter_result_golden() -> None:
    """Where no node is accepted, every offered one is in one of the two maps."""
    answer = Filtered(
        (),
        Reason.LIMIT,
        {NodeName("n2"): Reason.NO_ROOM, NodeName("n3"): Reason.UNKNOWN_CLASS},
    )
    assert encode_filtered(table("n2", "n3", "n4"), answer) == (
        b'{"Nodes":null,"NodeNames":[],'
        b'"FailedNodes":{"n2":"no node has room for it"},'
        b'"FailedAndUnresolvableNodes":'
        b'{"n4":"its tenant, or a queue above it, is at its limit",'
        b'"n3":"no node offers the GPU class or profile it asks for"},"Error":""}'
    )


def test_an_accepted_node_stands_alone() -> None:
    """Nodes that are left out are unresolvable, and nobody reads why."""
    answer = Filtered((NodeName("n1"),), Reason.STEERED)
    assert encode_filtered(table("n1", "n2"), answer) == (
        b'{"Nodes":null,"NodeNames":["n1"],"FailedNodes":{},'
        b'"FailedAndUnresolvableNodes":{},"Error":""}'
    )


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_goes_where_it_belongs(reason: Reason) -> None:
    result = json.loads(encode_filtered(table("n1"), Filtered((), reason)))
    resolvable = reason in (Reason.NO_ROOM, Reason.RECLAIMING)
    key = "FailedNodes" if resolvable else "FailedAndUnresolvableNodes"
    assert result[key] == {"n1": reason.value}
    assert result["NodeNames"] == []  # never null, never missing


def test_scores_golden() -> None:
    expected = b'[{"Host":"n1","Score":0},{"Host":"n2","Score":10}]'
    assert encode_scores(table("n1", "n2"), (0, 10)) == expected


def test_preempt_golden() -> None:
    body = b'{"Pod":{"metadata":{"name":"p","namespace":"s","uid":"u"},"spec":{"containers":[]},"status":{}},"NodeNameToVictims":null,"NodeNameToMetaVictims":{"n1":{"Pods":[{"UID":"v1"},{"UID":"v2"}],"NumPDBViolations":1},"n2":{"Pods":null,"NumPDBViolations":0}}}'  # noqa: E501 (golden)
    call = decode_preempt_call(body)
    assert call.offers == {"n1": ("v1", "v2"), "n2": ()}
    victims = {NodeName("n1"): (PodUid("v2"),), NodeName("n2"): ()}
    assert encode_preemption(victims, call.breaches) == (
        b'{"NodeNameToMetaVictims":{"n1":{"Pods":[{"UID":"v2"}],"NumPDBViolations":1}}}'
    )


def test_failures_are_one_line() -> None:
    assert encode_failure('a\nb "c"') == b'{"Error":"a b \\"c\\""}'


def test_unicode_is_read_and_written() -> None:
    body = json.dumps(args(pod_json("u"), ['ü"\\'])).encode()
    call = decode_nodes_call(body)
    answer = json.loads(encode_filtered(call.table, Filtered((), Reason.LIMIT)))
    assert list(answer["FailedAndUnresolvableNodes"]) == ['ü"\\']


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Pod", "NodeNames", "metadata", "spec", "uid", "containers"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)
DOORS = (
    decode_nodes_call,
    decode_preempt_call,
    decode_acknowledgement,
    lambda body: decode_events(body, NAMING, Readers(node_of, read_tenancy)),
)


@given(JSON | st.binary(max_size=60))
def test_any_body_is_read_or_refused_by_name(value: Any) -> None:
    """Whatever comes, the only error is ours, and it is one that can be shown."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    for decode in DOORS:
        try:
            decode(body)
        except CodecError as error:
            encode_failure(str(error))


@given(st.data())
def test_any_changed_body_is_read_or_refused_by_name(data: st.DataObject) -> None:
    """One field of a good body replaced by anything."""
    body = args(pod_json("u", gang="g"), ["n1"])
    at: Any = body
    while isinstance(at, dict) and at:
        key = data.draw(st.sampled_from(sorted(at)))
        if data.draw(st.booleans()) or not isinstance(at[key], dict):
            at[key] = data.draw(JSON)
            break
        at = at[key]
    with contextlib.suppress(CodecError):
        pod_of(decode_nodes_call(json.dumps(body).encode()).pod, NAMING)
