"""gRPC against a running service: what tools are told."""

from collections.abc import Iterator

import pytest

from scheduler import rpc
from tests.serving import Live, occupy, pod_json, serving

TIMEOUT_S = 5.0


@pytest.fixture
def live() -> Iterator[Live]:
    with serving() as fresh:
        yield fresh


def test_tenants_in_devices_in_gpus_and_exact(live: Live) -> None:
    occupy(live)  # tenant a: 16 GPUs, 8 of them guaranteed
    rows = rpc.fetch_tenants(live.grpc, TIMEOUT_S).rows
    a, b = (row for row in rows if row.form == "h100-80gb")
    assert (a.tenant, a.parent) == ("a", "")
    assert (a.guarantee.devices, a.used.devices, a.borrowed.devices) == (8, 16, 8)
    assert a.used.quanta == 16 * 126_000
    assert a.used.gpus == 16
    assert not a.HasField("limit")
    assert (b.tenant, b.used.quanta, b.limit.gpus) == ("b", 0, 12)


def test_slices_are_counted_as_such_and_charged_exactly(live: Live) -> None:
    slices = pod_json("u1", resource="nvidia.com/mig-1g.10gb", gpus=3)
    assert live.filter(slices)["NodeNames"] == ["m0"]
    rows = rpc.fetch_tenants(live.grpc, TIMEOUT_S).rows
    (row,) = (row for row in rows if row.form == "h100-80gb/1g.10gb")
    assert (row.used.devices, row.used.gpus) == (3, 0.375)
    assert row.used.quanta == 47_250


def test_queue_in_order_of_decision_and_of_one_tenant(live: Live) -> None:
    occupy(live)
    live.hold_still()
    live.filter(pod_json("u1", "team-a", 8))
    live.filter(pod_json("u2", "team-b", 9))  # more than its guarantee
    entries = rpc.fetch_queue(live.grpc, "", TIMEOUT_S).entries
    assert [entry.position for entry in entries] == [1, 2]
    assert {entry.tenant for entry in entries} == {"a", "b"}
    (entry,) = rpc.fetch_queue(live.grpc, "b", TIMEOUT_S).entries
    assert entry.amount.gpus == 9
    assert entry.workload_class == "training"
    assert list(entry.forms) == ["h100-80gb"]
    live.clock.now += 7
    (entry,) = rpc.fetch_queue(live.grpc, "b", TIMEOUT_S).entries
    assert entry.waiting_seconds == pytest.approx(7)


def test_explain_by_uid_and_by_name(live: Live) -> None:
    occupy(live)
    found = rpc.fetch_explanation(live.grpc, "v1", TIMEOUT_S)
    assert found == rpc.fetch_explanation(live.grpc, "team-a/pod-v1", TIMEOUT_S)
    assert (found.reason, found.message, found.node) == ("RUNNING", "running", "n0")
    assert found.covered
    assert not found.HasField("position")
    assert not rpc.fetch_explanation(live.grpc, "v2", TIMEOUT_S).covered


def test_explain_takes_the_youngest_of_a_name(live: Live) -> None:
    """A controller re-creates a pod under its old name with a new UID."""
    live.filter(pod_json("old", gpus=8))
    again = pod_json("new", gpus=99)
    again["metadata"]["name"] = "pod-old"
    live.filter(again)
    found = rpc.fetch_explanation(live.grpc, "team-a/pod-old", TIMEOUT_S)
    assert (found.uid, found.reason) == ("new", "TOO_LARGE")


def test_unknown_pod_is_not_found(live: Live) -> None:
    with pytest.raises(rpc.RpcError, match=r"NOT_FOUND: pod 'x/y' is unknown"):
        rpc.fetch_explanation(live.grpc, "x/y", TIMEOUT_S)


def test_not_ready_is_unavailable() -> None:
    with (
        serving(start=False) as live,
        pytest.raises(rpc.RpcError, match="UNAVAILABLE: the service is starting"),
    ):
        rpc.fetch_tenants(live.grpc, TIMEOUT_S)


def test_nobody_listens() -> None:
    with pytest.raises(rpc.RpcError, match=r"127\.0\.0\.1:1: UNAVAILABLE"):
        rpc.fetch_queue("127.0.0.1:1", "", TIMEOUT_S)
