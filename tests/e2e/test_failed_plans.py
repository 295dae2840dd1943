"""What was decided and does not come to pass: the node dies, or somebody takes it."""

import http.client
import json
from contextlib import closing
from typing import Any

import pytest

from tests.controlplane import objects
from tests.controlplane.client import Client, Object
from tests.controlplane.plane import ControlPlane
from tests.e2e.running import (
    H100,
    Fairshare,
    fairshare,
    gated,
    node_of,
    nominated,
    scheduler_config,
    team,
    tenant,
    until,
)
from tests.e2e.sound import faults, is_bound, is_gated, mark_of

RIVALS = "rivals-of-gpus"
"""A PriorityClass above all of ours."""


@pytest.fixture(autouse=True)
def rivals(plane: ControlPlane) -> None:
    plane.client.ensure(objects.priority_class(RIVALS, 2_000_000))


def ask_filter(service: Fairshare, pod: Object, nodes: list[str]) -> list[str]:
    """Ask as kube-scheduler does: the pod as the API server has it, nodes by name."""
    sent = {
        key: value for key, value in pod.items() if key not in ("kind", "apiVersion")
    }
    sent["metadata"].pop("managedFields", None)
    body = json.dumps({"Pod": sent, "Nodes": None, "NodeNames": nodes})
    with closing(http.client.HTTPConnection(service.http, timeout=10)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/filter", body, headers)
        answer = connection.getresponse()
        result: dict[str, Any] = json.load(answer)
    assert (answer.status, result["Error"]) == (200, "")
    return list(result["NodeNames"])


def start_scheduler(plane: ControlPlane, service: Fairshare) -> None:
    plane.start_scheduler(scheduler_config(service.http))


def bind(client: Client, pod: str, namespace: str, node: str) -> None:
    """What kube-scheduler does at the end, for a test that plays its part."""
    body = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/binding"
    client.request("POST", path, body)


def is_let_through(client: Client, pod: str, namespace: str) -> Object | None:
    """The pod, once it is marked, nominated and without its gate."""
    found = client.find("pods", pod, namespace)
    if found is None or is_gated(found) or not mark_of(found):
        return None
    return found if found["status"].get("nominatedNodeName") else None


def all_let_through(client: Client, namespace: str, *pods: str) -> dict[str, str]:
    """Where they are nominated to, once all may start."""
    found = [is_let_through(client, pod, namespace) for pod in pods]
    return {
        pod["metadata"]["name"]: pod["status"]["nominatedNodeName"]
        for pod in found
        if pod is not None
    }


# -- steering ------------------------------------------------------------------


def test_filter_shows_an_admitted_pod_one_node_only(
    plane: ControlPlane, client: Client
) -> None:
    """Whatever kube-scheduler offers and however often it asks, the plan holds."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(4))
    with fairshare(plane) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 8}))
        client.create(gated("one", space, 8))
        pod = until("it is let through", lambda: is_let_through(client, "one", space))
        names, planned = ["n0", "n1", "n2", "n3"], pod["status"]["nominatedNodeName"]
        assert ask_filter(service, pod, names) == [planned]
        assert ask_filter(service, pod, [planned]) == [planned]
        assert ask_filter(service, pod, names[::-1]) == [planned]
        assert ask_filter(service, pod, []) == []


def test_filter_moves_a_pod_whose_node_is_not_offered_and_its_nomination_follows(
    plane: ControlPlane, client: Client
) -> None:
    """kube-scheduler may have a reason that we do not know."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(4))
    with fairshare(plane) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 8}))
        client.create(gated("one", space, 8))
        pod = until("it is let through", lambda: is_let_through(client, "one", space))
        planned = pod["status"]["nominatedNodeName"]
        others = [f"n{i}" for i in range(4) if f"n{i}" != planned]
        (second,) = ask_filter(service, pod, others)
        assert second in others
        assert ask_filter(service, pod, others[::-1]) == [second]
        until(
            "the nomination follows", lambda: nominated(client, "one", space) == second
        )
        last = next(name for name in others if name != second)
        assert ask_filter(service, pod, [last]) == [last], "the only node it may use"
        until("it follows again", lambda: nominated(client, "one", space) == last)
        start_scheduler(plane, service)
        until("it is bound there", lambda: node_of(client, "one", space) == last)
        assert faults(client, there={space: ["one"]}) == []


def test_filter_shows_no_node_to_a_pod_that_waits_or_whose_victims_are_leaving(
    plane: ControlPlane, client: Client
) -> None:
    """Even if its gate is removed by hand, nothing starts that was not decided."""
    mine, theirs = plane.new_namespace(), plane.new_namespace()
    client.create(objects.node("n0"))
    with fairshare(plane, {"checkpointNotice": "60s"}) as service:
        client.create(tenant("owner", mine, guarantee={H100: 8}))
        client.create(tenant("guest", theirs))
        client.create(gated("burst", theirs, 8))
        until("burst runs", lambda: node_of(client, "burst", theirs))
        client.create(gated("own", mine, 8))
        until("a hold is set", lambda: nominated(client, "own", mine) == "n0")
        client.create(gated("late", theirs, 8))
        until("all are known", lambda: service.knows(f"{theirs}/late"))
        for name, space in (("own", mine), ("late", theirs)):
            pod = client.get("pods", name, space)
            assert ask_filter(service, pod, ["n0"]) == []
        stranger = client.create(objects.pod("stranger", plane.new_namespace(), 1))
        assert ask_filter(service, stranger, ["n0"]) == []


def test_a_node_that_we_cannot_read_keeps_nobody_else_from_starting(
    plane: ControlPlane, client: Client
) -> None:
    """GPUs of an unknown model are offered by kube-scheduler along with all others."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(2))
    odd = objects.node("odd", product="NVIDIA-Imaginary-1TB", memory_mib=1_048_576)
    client.create(odd)
    with fairshare(plane) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 8}))
        client.create(gated("one", space, 8))
        pod = until("it is let through", lambda: is_let_through(client, "one", space))
        planned = pod["status"]["nominatedNodeName"]
        assert ask_filter(service, pod, ["n0", "odd", "n1"]) == [planned]
        other = "n1" if planned == "n0" else "n0"
        assert ask_filter(service, pod, ["odd", other]) == [other]


# -- nodes that die, rivals that steal -------------------------------------------


def replicas(name: str, namespace: str, gpus: int, pods: int = 2) -> Object:
    """A gang whose pods are made anew when they are lost."""
    notes = {
        "fairshare.dev/gang": name,
        "fairshare.dev/gang-min-member": str(pods),
    }
    return objects.deployment(
        name,
        namespace,
        gpus,
        pods=pods,
        gated=True,
        priority_class="fairshare-training",
        annotations=notes,
    )


def steal(client: Client, node: str, cpu: str, namespace: str) -> None:
    """A CPU-only pod of higher priority gets there first; nobody asks us about it."""
    thief = objects.pod("thief", namespace, 0, cpu=cpu, priority_class=RIVALS)
    client.create(thief)
    bind(client, "thief", namespace, node)


def both_bound(client: Client, namespace: str) -> bool:
    return all(node_of(client, f"g-{i}", namespace) for i in range(2))


def test_a_gang_that_lost_a_node_half_way_is_rolled_back_and_returns_to_its_gate(
    plane: ControlPlane, client: Client
) -> None:
    """GANG: half of it never keeps the GPUs that the other half will not join."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(2))
    with fairshare(plane, {"gangStartTimeout": "2s"}) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 16}))
        client.create(replicas("g", space, 8))
        until("both are there", lambda: len(client.items("pods", space)) == 2)
        first, second = sorted(
            p["metadata"]["name"] for p in client.items("pods", space)
        )
        places = until(
            "both may start",
            lambda: (
                len(found := all_let_through(client, space, first, second)) == 2
                and found
            ),
        )
        bind(client, first, space, places[first])
        client.delete("nodes", places[second])
        until(
            "both are made anew and wait at their gate",
            lambda: (
                [is_gated(p) for p in client.items("pods", space)] == [True] * 2
                and not {first, second}
                & {p["metadata"]["name"] for p in client.items("pods")}
            ),
        )
        until(
            "nothing is left of it",
            lambda: not faults(client, limits={space: 0}),
        )
        start_scheduler(plane, service)
        client.create(objects.node("n9"))
        until(
            "it runs whole on what is there now",
            lambda: all(is_bound(p) for p in client.items("pods", space)),
        )
        assert faults(client, limits={space: 16}, gangs=[(space, "g", 2)]) == []


def test_members_without_a_controller_wait_on_uncharged_when_their_gang_is_rolled_back(
    plane: ControlPlane, client: Client
) -> None:
    """Nobody would make them again: they are kept, and start with a new fellow."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(2))
    with fairshare(plane, {"gangStartTimeout": "2s"}) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 16}))
        client.create_all(team("g", space, 2, 8))
        places = until(
            "both may start",
            lambda: (
                len(found := all_let_through(client, space, "g-0", "g-1")) == 2
                and found
            ),
        )
        bind(client, "g-0", space, places["g-0"])
        client.delete("nodes", places["g-1"])
        until(
            "the bound one is evicted",
            lambda: client.find("pods", "g-0", space) is None,
        )
        until(
            "the other one keeps nothing",
            lambda: not faults(client, limits={space: 0}, there={space: ["g-1"]}),
        )
        (alpha,) = service.get("/v1/tenants")["tenants"]
        assert alpha["used"]["gpus"] == 0
        start_scheduler(plane, service)
        client.create(objects.node("n9"))
        client.create(team("g", space, 2, 8)[0])
        until("both run", lambda: both_bound(client, space))
        assert faults(client, limits={space: 16}) == []


def test_a_gang_that_lost_a_node_half_way_goes_on_elsewhere_if_there_is_room(
    plane: ControlPlane, client: Client
) -> None:
    """Members that run already are not started again."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(3))
    with fairshare(plane) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 16}))
        client.create_all(team("g", space, 2, 8))
        places = until(
            "both may start",
            lambda: (
                len(found := all_let_through(client, space, "g-0", "g-1")) == 2
                and found
            ),
        )
        bind(client, "g-0", space, places["g-0"])
        client.delete("nodes", places["g-1"])
        start_scheduler(plane, service)
        until("both run", lambda: both_bound(client, space))
        (third,) = {"n0", "n1", "n2"} - set(places.values())
        assert node_of(client, "g-0", space) == places["g-0"]
        assert node_of(client, "g-1", space) == third
        assert faults(client, limits={space: 16}, there={space: ["g-0", "g-1"]}) == []


@pytest.mark.parametrize("bound_before", [0, 1])
def test_a_gang_starts_whole_although_the_cpu_of_one_of_its_nodes_is_stolen(
    plane: ControlPlane, client: Client, bound_before: int
) -> None:
    """CPU-only pods never ask us: what they take is seen, and planned around."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(3, cpu="16"))
    with fairshare(plane) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 16}))
        client.create_all(team("g", space, 2, 8, cpu="10"))
        places = until(
            "both may start",
            lambda: (
                len(found := all_let_through(client, space, "g-0", "g-1")) == 2
                and found
            ),
        )
        if bound_before:
            bind(client, "g-0", space, places["g-0"])
        steal(client, places["g-1"], "10", plane.new_namespace())
        start_scheduler(plane, service)
        until("both run", lambda: both_bound(client, space))
        assert places["g-1"] not in [node_of(client, f"g-{i}", space) for i in range(2)]
        assert faults(client, limits={space: 16}, there={space: ["g-0", "g-1"]}) == []


def test_a_gang_whose_cpu_is_stolen_waits_whole_and_uncharged_until_it_is_back(
    plane: ControlPlane, client: Client
) -> None:
    """Its gates cannot be put back: it must neither hold room nor be forgotten."""
    space, other = plane.new_namespace(), plane.new_namespace()
    client.create_all(objects.nodes(2, cpu="16"))
    with fairshare(plane) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 16}))
        client.create_all(team("g", space, 2, 8, cpu="10"))
        places = until(
            "both may start",
            lambda: (
                len(found := all_let_through(client, space, "g-0", "g-1")) == 2
                and found
            ),
        )
        steal(client, places["g-1"], "10", other)
        until(
            "its plan is taken back",
            lambda: not faults(client, limits={space: 0}),
        )
        start_scheduler(plane, service)
        client.delete("pods", "thief", other)
        until("both run", lambda: both_bound(client, space))
        assert faults(client, limits={space: 16}, there={space: ["g-0", "g-1"]}) == []


def test_a_gang_waits_on_when_a_member_is_deleted_before_it_was_bound(
    plane: ControlPlane, client: Client
) -> None:
    """The others' plan is void; they start with the one that comes in its place."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(2))
    with fairshare(plane) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 16}))
        client.create_all(team("g", space, 2, 8))
        until(
            "both may start",
            lambda: len(all_let_through(client, space, "g-0", "g-1")) == 2,
        )
        client.delete("pods", "g-0", space)
        until(
            "the other's plan is taken back",
            lambda: not faults(client, limits={space: 0}, there={space: ["g-1"]}),
        )
        start_scheduler(plane, service)
        client.create(team("g", space, 2, 8)[0])
        until("both run", lambda: both_bound(client, space))
        assert faults(client, limits={space: 16}) == []


@pytest.mark.parametrize("bound_before", [0, 1])
def test_a_gang_starts_whole_although_kube_scheduler_was_killed_on_the_way(
    plane: ControlPlane, client: Client, bound_before: int
) -> None:
    """Its successor finds nominations and marks, and asks us again."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(3))
    with fairshare(plane):
        plane.kill_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 24}))
        client.create_all(team("g", space, 2, 8))
        places = until(
            "both may start",
            lambda: (
                len(found := all_let_through(client, space, "g-0", "g-1")) == 2
                and found
            ),
        )
        if bound_before:
            bind(client, "g-0", space, places["g-0"])
        plane.restart_scheduler()
        until("both run", lambda: both_bound(client, space))
        assert {f"g-{i}": node_of(client, f"g-{i}", space) for i in range(2)} == places
        assert faults(client, limits={space: 16}) == []
