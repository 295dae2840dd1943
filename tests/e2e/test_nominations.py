"""Nominations are ours: written, moved, cleared, and written again when they are wiped.

A nomination of a gated pod makes kube-scheduler keep the room free while victims are
leaving it, also from CPU-only pods that our extender never sees.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from tests.controlplane import hollow, objects
from tests.controlplane.client import MERGE, Client, Object
from tests.controlplane.plane import ControlPlane
from tests.e2e.brake import brake, braked
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
from tests.e2e.sound import HOLD, faults, is_bound, is_gated, mark_of, notes_of

ABOVE = "above-ours"
GREEDY = "evicts-others"
"""PriorityClasses: one above ours, and one of ours' height that may preempt."""

SLOW = {hollow.SHUTS_DOWN_IN: "5"}
CPU = "60"


@pytest.fixture(autouse=True)
def classes(plane: ControlPlane) -> None:
    plane.client.ensure(objects.priority_class(ABOVE, 2_000_000))
    height = objects.PRIORITIES["fairshare-training"]
    lower = "PreemptLowerPriority"
    plane.client.ensure(objects.priority_class(GREEDY, height, lower))


@contextmanager
def held(
    plane: ControlPlane, nodes: int = 1, notice: str = "60s"
) -> Iterator[tuple[Fairshare, str, str]]:
    """A hold on `n0` for pod `own`, whose victim `u` takes its time.

    Yields the namespaces of owner and guest. With a second node that one is full of
    the guest's `v`.
    """
    mine, theirs = plane.new_namespace("mine"), plane.new_namespace("theirs")
    client = plane.client
    with fairshare(plane, {"checkpointNotice": notice}) as service:
        client.create(tenant("owner", mine, guarantee={H100: 8}))
        client.create(tenant("guest", theirs))
        for name, node in list(zip("uv", ("n0", "n1"), strict=True))[:nodes]:
            client.create(objects.node(node))
            client.create(gated(name, theirs, 8, annotations=SLOW))
            until(f"{name} runs", lambda name=name: node_of(client, name, theirs))
        client.create(gated("own", mine, 8, cpu=CPU))
        until("a hold is set", lambda: nominated(client, "own", mine))
        yield service, mine, theirs


def rival(client: Client, namespace: str, node: str, priority: str) -> None:
    """A CPU-only pod that wants what a hold keeps: we are not asked about it."""
    where = {"kubernetes.io/hostname": node}
    pod = objects.pod(
        "rival", namespace, 0, cpu=CPU, priority_class=priority, nodeSelector=where
    )
    client.create(pod)


def stays_so(seconds: float, probe: Any) -> bool:
    """Whether something is true all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not probe():
            return False
        time.sleep(0.05)
    return True


def is_unschedulable(client: Client, pod: str, namespace: str) -> bool:
    found = client.get("pods", pod, namespace)
    conditions = found["status"].get("conditions", ())
    return any(c.get("reason") == "Unschedulable" for c in conditions)


# -- writing -----------------------------------------------------------------------


def test_mark_and_nomination_of_all_members_are_written_before_any_gate_is_opened(
    plane: ControlPlane, client: Client
) -> None:
    """One write each: there is no moment with the one and without the other."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(3))
    with braked(plane) as (proxy, config), fairshare(plane, None, config):
        client.create(tenant("alpha", space, guarantee={H100: 24}))
        client.create_all(team("g", space, 3, 8))
        names = [f"g-{i}" for i in range(3)]
        until("all run", lambda: all(node_of(client, n, space) for n in names))
        writes = [call for call in proxy.calls if any(map(call.is_about, names))]
        assert [call.nominates for call in writes] == [True] * 3 + [False] * 3
        for call in writes[:3]:
            body = json.loads(call.body)
            mark = json.loads(
                body["metadata"]["annotations"]["fairshare.dev/admission"]
            )
            assert body["status"]["nominatedNodeName"] == mark["node"]
        assert all(call.opens for call in writes[3:])


# -- holding -----------------------------------------------------------------------


def test_a_hold_keeps_the_room_from_a_cpu_only_pod_of_equal_priority(
    plane: ControlPlane, client: Client
) -> None:
    """The owner gets what was freed for it, also from who never asks us."""
    with held(plane, notice="0s") as (_, mine, _):
        other = plane.new_namespace()
        rival(client, other, "n0", "fairshare-training")
        until("it is refused", lambda: is_unschedulable(client, "rival", other))
        until("the owner runs", lambda: node_of(client, "own", mine) == "n0")
        assert not node_of(client, "rival", other)
        assert faults(client, limits={mine: 8}) == []


def test_a_hold_moves_when_a_pod_of_higher_priority_takes_the_cpu(
    plane: ControlPlane, client: Client
) -> None:
    """The nomination does not protect from it: we see it, and take another room."""
    with held(plane, nodes=2) as (_, mine, theirs):
        first = nominated(client, "own", mine)
        second = {"n0": "n1", "n1": "n0"}[first]
        rival(client, plane.new_namespace(), first, ABOVE)
        until("the hold is elsewhere", lambda: nominated(client, "own", mine) == second)
        victim = {"n0": "u", "n1": "v"}
        asked = "fairshare.dev/checkpoint-deadline"
        until(
            "another victim is asked, and the first one is not any more",
            lambda: (
                asked in notes_of(client.get("pods", victim[second], theirs))
                and asked not in notes_of(client.get("pods", victim[first], theirs))
            ),
        )
        client.delete("pods", victim[second], theirs, grace=0)
        until("the owner runs", lambda: node_of(client, "own", mine) == second)
        names = {theirs: [victim[first]]}
        assert faults(client, limits={mine: 8, theirs: 8}, there=names) == []


def test_a_hold_moves_away_from_a_node_that_is_cordoned_or_gone(
    plane: ControlPlane, client: Client
) -> None:
    """A nomination to where the pod cannot go keeps nothing, and blocks others."""
    with held(plane, nodes=2) as (_, mine, _):
        first = nominated(client, "own", mine)
        second = {"n0": "n1", "n1": "n0"}[first]
        client.patch("nodes", first, {"spec": {"unschedulable": True}})
        until("the hold is elsewhere", lambda: nominated(client, "own", mine) == second)
        client.patch("nodes", first, {"spec": {"unschedulable": None}})
        client.delete("nodes", second)
        until("it is back", lambda: nominated(client, "own", mine) == first)
        assert faults(client) == []


def test_room_of_a_pod_that_its_owner_deleted_is_held_and_nobody_is_evicted(
    plane: ControlPlane, client: Client
) -> None:
    """It is being freed anyway; a second victim would lose its work for nothing."""
    mine, theirs = plane.new_namespace("mine"), plane.new_namespace("theirs")
    client.create_all(objects.nodes(2))
    with fairshare(plane, {"checkpointNotice": "0s"}):
        client.create(tenant("owner", mine, guarantee={H100: 8}))
        client.create(tenant("guest", theirs))
        for name in ("u", "v"):
            client.create(gated(name, theirs, 8, annotations=SLOW))
            until(f"{name} runs", lambda name=name: node_of(client, name, theirs))
        place = node_of(client, "u", theirs)
        client.delete("pods", "u", theirs)
        client.create(gated("own", mine, 8))
        until("its room is held", lambda: nominated(client, "own", mine) == place)
        until("the owner runs", lambda: node_of(client, "own", mine) == place)
        assert "deletionTimestamp" not in client.get("pods", "v", theirs)["metadata"]
        assert faults(client, limits={mine: 8, theirs: 8}) == []


def test_a_hold_goes_to_more_urgent_work_of_the_same_owner(
    plane: ControlPlane, client: Client
) -> None:
    """The guarantee pays for one of them only."""
    with held(plane) as (_, mine, theirs):
        urgent = gated("urgent", mine, 8, priority_class="fairshare-inference")
        client.create(urgent)
        until("it has the hold", lambda: nominated(client, "urgent", mine) == "n0")
        until("the first has none", lambda: not nominated(client, "own", mine))
        client.delete("pods", "u", theirs, grace=0)
        until("it runs", lambda: node_of(client, "urgent", mine) == "n0")
        until("all is sound", lambda: not faults(client))
        assert faults(client, limits={mine: 8}, there={mine: ["own"]}) == []


@pytest.mark.parametrize("what", ["the tenant", "the victim's burst"])
def test_a_hold_is_cleared_when_its_plan_is_withdrawn(
    plane: ControlPlane, client: Client, what: str
) -> None:
    """A nomination without a plan blocks others for as long as it stands."""
    with held(plane) as (_, mine, theirs):
        if what == "the tenant":
            client.delete("tenants", "owner")
        else:
            # All that is there is the guest's own from now on.
            terms = {"spec": {"guarantee": {H100: 0}}}
            client.patch("tenants", "owner", terms, form=MERGE)
            terms = {"spec": {"guarantee": {H100: 8}}}
            client.patch("tenants", "guest", terms, form=MERGE)
        until("it is cleared", lambda: not nominated(client, "own", mine))
        until("all is sound", lambda: not faults(client))
        assert faults(client, there={mine: ["own"], theirs: ["u"]}) == []


def test_a_nomination_that_somebody_else_sets_on_a_gated_pod_is_cleared(
    plane: ControlPlane, client: Client
) -> None:
    """Who has no plan keeps no room, whoever says so; plans of others go on."""
    with held(plane) as (_, mine, theirs):
        client.create(gated("late", theirs, 8))
        before = client.create(objects.node("n9", gpus=1))["metadata"]["name"]
        status = {"status": {"nominatedNodeName": before}}
        client.patch("pods", "late", status, theirs, subresource="status")
        until("it is cleared", lambda: not nominated(client, "late", theirs))
        client.patch("pods", "own", status, mine, subresource="status")
        until("a plan's is set right", lambda: nominated(client, "own", mine) == "n0")
        assert faults(client, limits={mine: 0}) == []


def test_beneficiaries_are_let_through_after_their_victims_are_gone_and_land_as_planned(
    plane: ControlPlane, client: Client
) -> None:
    """Let through a moment earlier, most of them went elsewhere. Twelve at once."""
    count = 12
    mine, theirs = plane.new_namespace("mine"), plane.new_namespace("theirs")
    client.create_all(objects.nodes(count))
    with fairshare(plane, {"checkpointNotice": "0s"}):
        client.create(tenant("owner", mine, guarantee={H100: 8 * count}))
        client.create(tenant("guest", theirs))
        slow = {hollow.SHUTS_DOWN_IN: "2"}
        bursts = [gated(f"u{i}", theirs, 8, annotations=slow) for i in range(count)]
        client.create_all(bursts)
        until(
            "all burst runs",
            lambda: all(map(is_bound, client.items("pods", theirs))),
        )
        with recorded(client) as news:
            client.create_all(gated(f"own{i}", mine, 8) for i in range(count))
            until(
                "all owners run",
                lambda: sum(map(is_bound, client.items("pods", mine))) == count,
            )
        moments = [_Moments(news, f"own{i}") for i in range(count)]
    for each in moments:
        assert each.planned == {each.node}, "where it was nominated it runs"
        assert each.victim_gone < each.let_through
    assert len({each.node for each in moments}) == count


class _Moments:
    """What a watch has seen of a beneficiary, as places in the order of events."""

    def __init__(self, news: list[tuple[str, Object]], name: str) -> None:
        mine = [(at, pod) for at, (_, pod) in enumerate(news) if _name(pod) == name]
        places = (pod["status"].get("nominatedNodeName", "") for _, pod in mine)
        self.planned = {place for place in places if place}
        self.let_through = next(at for at, pod in mine if not is_gated(pod))
        self.node = mine[-1][1]["spec"]["nodeName"]
        self.victim_gone = next(
            at
            for at, (_, pod) in enumerate(news)
            if pod["spec"].get("nodeName") == self.node and is_over(pod)
        )


def is_over(pod: Object) -> bool:
    """Whether its containers have ended: its devices are free from then on."""
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def _name(pod: Object) -> str:
    return str(pod["metadata"]["name"])


@contextmanager
def recorded(client: Client) -> Iterator[list[tuple[str, Object]]]:
    """All events of pods, in order, from now on to the end of the block."""
    news: list[tuple[str, Object]] = []

    def follow() -> None:
        with client.watch("pods", timeout_s=60) as events:
            for event in events:
                news.append(event)
                if _name(event[1]) == "end-of-record":
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    yield news
    client.create(objects.pod("end-of-record", "default", 0, gated=True))
    thread.join(10)
    client.delete("pods", "end-of-record", "default")
    assert not thread.is_alive()


# -- wiped -------------------------------------------------------------------------


def test_a_nomination_that_a_failed_attempt_wipes_is_written_again_but_not_in_a_storm(
    plane: ControlPlane, client: Client
) -> None:
    """Every write wakes the pod, whose next attempt fails as the one before."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(2))
    with fairshare(plane, {"gangStartTimeout": "60s"}) as service:
        client.create(tenant("alpha", space, guarantee={H100: 8}))
        nowhere = {"example.com/disk": "fast"}
        pod = gated("one", space, 8, priority_class=GREEDY, nodeSelector=nowhere)
        with recorded(client) as news:
            client.create(pod)
            until("it was wiped", lambda: _was_wiped(news, "one"))
            until("it is there again", lambda: nominated(client, "one", space))
            before = service.metric("fairshare_api_writes_total")
            time.sleep(3)
            written = service.metric("fairshare_api_writes_total") - before
        assert written <= 8
        labels = {"metadata": {"labels": nowhere}}
        client.patch("nodes", "n1", labels)
        until("it runs", lambda: node_of(client, "one", space) == "n1")
        assert faults(client, limits={space: 8}) == []


def _was_wiped(news: list[tuple[str, Object]], name: str) -> bool:
    places = [p["status"].get("nominatedNodeName") for _, p in news if _name(p) == name]
    return any(a and not b for a, b in pairwise(places))


@pytest.mark.parametrize("status", [500, 404, 204])
def test_a_nomination_that_an_error_of_an_extender_wipes_is_written_again(
    plane: ControlPlane, client: Client, status: int
) -> None:
    """A proxy that fails between kube-scheduler and us costs nobody its place."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(3))
    with fairshare(plane) as service, brake(f"http://{service.http}") as proxy:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 8}))
        proxy.answer(status)
        plane.start_scheduler(scheduler_config(proxy.url.removeprefix("http://")))
        with recorded(client) as news:
            client.create(gated("one", space, 8))
            until("it was wiped", lambda: _was_wiped(news, "one"))
            planned = until("it is back", lambda: nominated(client, "one", space))
            assert not node_of(client, "one", space)
            proxy.answer(None)
            until("it runs", lambda: node_of(client, "one", space) == planned)
        assert faults(client, limits={space: 8}) == []


@pytest.mark.parametrize("kill", [False, True])
def test_a_hold_is_asserted_again_after_a_restart_of_kube_scheduler(
    plane: ControlPlane, client: Client, *, kill: bool
) -> None:
    """It ignores nominations of gated pods it finds at its start."""
    with held(plane) as (_, mine, theirs):
        before = notes_of(client.get("pods", "own", mine))[HOLD]
        plane.restart_scheduler(kill=kill)
        until(
            "the hold is for the new one",
            lambda: notes_of(client.get("pods", "own", mine))[HOLD] != before,
        )
        other = plane.new_namespace()
        rival(client, other, "n0", "fairshare-training")
        until("it is refused", lambda: is_unschedulable(client, "rival", other))
        assert stays_so(2, lambda: not node_of(client, "rival", other))
        client.delete("pods", "u", theirs, grace=0)
        until("the owner runs", lambda: node_of(client, "own", mine) == "n0")
        assert not node_of(client, "rival", other)
        assert faults(client, limits={mine: 8}) == []


def test_an_owner_starts_although_a_restart_of_kube_scheduler_lost_it_its_room(
    plane: ControlPlane, client: Client
) -> None:
    """Who waited already may be faster than the hold; then we go elsewhere."""
    with held(plane, nodes=2) as (_, mine, theirs):
        first = nominated(client, "own", mine)
        other = plane.new_namespace()
        rival(client, other, first, "fairshare-training")
        until("it is refused", lambda: is_unschedulable(client, "rival", other))
        plane.restart_scheduler()
        until(
            "the hold is where there is room for it",
            lambda: _room_is_held(client, mine, other),
        )
        victim = {"n0": "u", "n1": "v"}[nominated(client, "own", mine)]
        client.delete("pods", victim, theirs, grace=0)
        until("the owner runs", lambda: node_of(client, "own", mine))
        assert faults(client, limits={mine: 8, theirs: 8}) == []


def _room_is_held(client: Client, mine: str, other: str) -> bool:
    """Whether the leading scheduler knows the hold, and nobody has taken the room."""
    hold = json.loads(notes_of(client.get("pods", "own", mine)).get(HOLD, "{}"))
    leader = client.get("leases", "kube-scheduler", "kube-system")["spec"]
    is_fresh = leader["holderIdentity"] in hold.get("scheduler", "")
    return is_fresh and hold["node"] != node_of(client, "rival", other)


# -- let through, and then somebody is faster --------------------------------------


def let_through(client: Client, name: str, namespace: str) -> str:
    """Where an admitted pod is nominated to; empty until it may start."""
    pod = client.get("pods", name, namespace)
    if is_gated(pod) or not mark_of(pod):
        return ""
    return str(pod["status"].get("nominatedNodeName", ""))


def test_a_pod_whose_nominated_node_dies_before_it_is_bound_is_nominated_elsewhere(
    plane: ControlPlane, client: Client
) -> None:
    """It starts at its next attempt."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(2))
    with fairshare(plane) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 8}))
        client.create(gated("one", space, 8))
        first = until("it may start", lambda: let_through(client, "one", space))
        second = {"n0": "n1", "n1": "n0"}[first]
        client.delete("nodes", first)
        until("it is replanned", lambda: nominated(client, "one", space) == second)
        assert mark_of(client.get("pods", "one", space))["node"] == second
        plane.start_scheduler(scheduler_config(service.http))
        until("it runs", lambda: node_of(client, "one", space) == second)
        assert faults(client, limits={space: 8}) == []


@pytest.mark.parametrize("charged", [0, 7])
def test_a_gpu_pod_that_names_its_node_is_counted_and_never_planned_over(
    plane: ControlPlane, client: Client, charged: int
) -> None:
    """It passes gate and extender; what it uses is used, until it goes.

    In a tenant's namespace the tenant is charged for it, else it is used by others.
    """
    space, other = plane.new_namespace(), plane.new_namespace()
    client.create(objects.node("n0"))
    with fairshare(plane) as service:
        client.create(tenant("alpha", space, guarantee={H100: 8}))
        home = space if charged else other
        kind = "fairshare-training"
        client.create(
            objects.pod("foreign", home, 7, priority_class=kind, nodeName="n0")
        )
        client.create(gated("one", space, 2))
        client.create(gated("two", space, 1))
        until("what is left is used", lambda: node_of(client, "two", space))
        assert service.explain(f"{space}/one")["reason"] in ("NO_ROOM", "TOO_LARGE")
        assert stays_so(1, lambda: is_gated(client.get("pods", "one", space)))
        (alpha,) = service.get("/v1/tenants")["tenants"]
        assert alpha["used"]["gpus"] == charged + 1
        client.delete("pods", "foreign", home)
        until("the other one runs", lambda: node_of(client, "one", space) == "n0")
        assert faults(client) == []


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_pod_let_through_to_a_node_that_is_full_by_then_is_planned_anew(
    plane: ControlPlane, client: Client, nodes: int
) -> None:
    """Elsewhere at once if it can be, else as soon as there is room."""
    space, other = plane.new_namespace(), plane.new_namespace()
    client.create_all(objects.nodes(nodes))
    with fairshare(plane) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 8}))
        client.create(gated("one", space, 8, priority_class=GREEDY))
        first = until("it may start", lambda: let_through(client, "one", space))
        client.create(objects.pod("foreign", other, 8, nodeName=first))
        if nodes == 2:
            second = {"n0": "n1", "n1": "n0"}[first]
            until("it is replanned", lambda: nominated(client, "one", space) == second)
            plane.start_scheduler(scheduler_config(service.http))
        else:
            until("its plan is void", lambda: not faults(client, limits={space: 0}))
            plane.start_scheduler(scheduler_config(service.http))
            until("it fails", lambda: is_unschedulable(client, "one", space))
            client.delete("pods", "foreign", other)
        until("it runs", lambda: node_of(client, "one", space))
        assert faults(client, limits={space: 8}) == []


def test_a_pod_of_higher_priority_takes_the_cpu_of_a_pod_that_is_let_through(
    plane: ControlPlane, client: Client
) -> None:
    """Nobody asks us about it; the pod starts elsewhere."""
    space, other = plane.new_namespace(), plane.new_namespace()
    client.create_all(objects.nodes(2))
    with fairshare(plane) as service:
        plane.stop_scheduler()
        client.create(tenant("alpha", space, guarantee={H100: 8}))
        client.create(gated("one", space, 8, cpu=CPU))
        first = until("it may start", lambda: let_through(client, "one", space))
        rival(client, other, first, ABOVE)
        plane.start_scheduler(scheduler_config(service.http))
        until("the rival runs", lambda: node_of(client, "rival", other) == first)
        until("the pod too", lambda: node_of(client, "one", space))
        assert node_of(client, "one", space) != first
        assert faults(client, limits={space: 8}) == []
