"""A pod's way from the gate to its node, on the real thing."""

from tests.controlplane import objects
from tests.controlplane.client import Client
from tests.controlplane.plane import ControlPlane
from tests.e2e.running import (
    H100,
    fairshare,
    gated,
    node_of,
    nominated,
    team,
    tenant,
    until,
)


def test_a_gated_pod_is_marked_nominated_let_through_and_bound(
    plane: ControlPlane, client: Client
) -> None:
    """The whole way, with the stock scheduler."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(2))
    with fairshare(plane):
        client.create(tenant("alpha", space, guarantee={H100: 8}))
        client.create(gated("one", space, 8))
        node = until("the pod is bound", lambda: node_of(client, "one", space))
        pod = client.get("pods", "one", space)
        assert node in ("n0", "n1")
        assert "fairshare.dev/admission" in pod["metadata"]["annotations"]
        terms = pod["spec"]["affinity"]["nodeAffinity"]
        assert "NVIDIA-H100-80GB-HBM3" in str(terms)


def test_a_gang_starts_whole_or_not_at_all(plane: ControlPlane, client: Client) -> None:
    """Three of four nodes are not enough for four whole nodes."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(3))
    with fairshare(plane) as service:
        client.create(tenant("alpha", space, guarantee={H100: 8}))
        client.create_all(team("g", space, 4, 8))
        until(
            "all are known",
            lambda: all(service.knows(f"{space}/g-{i}") for i in range(4)),
        )
        assert service.explain(f"{space}/g-0")["reason"] == "TOO_LARGE"
        assert [node_of(client, f"g-{i}", space) for i in range(4)] == [""] * 4
        client.create(objects.node("n3"))
        until(
            "all are bound",
            lambda: all(node_of(client, f"g-{i}", space) for i in range(4)),
        )


def test_burst_is_taken_back_for_its_owner_whose_room_is_held(
    plane: ControlPlane, client: Client
) -> None:
    """Nominated while it is gated; let through when the victim is really gone."""
    mine, theirs = plane.new_namespace(), plane.new_namespace()
    client.create(objects.node("n0"))
    with fairshare(plane, {"checkpointNotice": "2s"}):
        client.create(tenant("owner", mine, guarantee={H100: 8}))
        client.create(tenant("guest", theirs))
        client.create(gated("burst", theirs, 8))
        until("burst runs", lambda: node_of(client, "burst", theirs))
        client.create(gated("own", mine, 8))
        until("a hold is set", lambda: nominated(client, "own", mine) == "n0")
        own = client.get("pods", "own", mine)
        assert own["spec"]["schedulingGates"]
        assert "fairshare.dev/admission" not in own["metadata"].get("annotations", {})
        burst = client.get("pods", "burst", theirs)
        assert "fairshare.dev/checkpoint-deadline" in burst["metadata"]["annotations"]
        until("the owner runs", lambda: node_of(client, "own", mine) == "n0")
        assert client.find("pods", "burst", theirs) is None


def test_a_service_that_was_killed_finishes_what_it_began(
    plane: ControlPlane, client: Client
) -> None:
    """All is rebuilt from the API server."""
    space = plane.new_namespace()
    client.create(objects.node("n0"))
    with fairshare(plane) as service:
        client.create(tenant("alpha", space, guarantee={H100: 4}))
        client.create(gated("one", space, 4))
        until("the pod is bound", lambda: node_of(client, "one", space))
        service.kill()
        client.create(gated("two", space, 4))
        service.start()
        until("the other too", lambda: node_of(client, "two", space))
        (alpha,) = service.get("/v1/tenants")["tenants"]
        assert alpha["used"]["gpus"] == 8
