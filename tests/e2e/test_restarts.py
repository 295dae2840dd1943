"""Our service is killed between two writes, and its successor finds only the API."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.controlplane import hollow, objects
from tests.controlplane.client import Client, Object
from tests.controlplane.plane import ControlPlane
from tests.e2e.brake import Brake, braked
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


@dataclass
class Story:
    """Tenant `a` bursts on one of three nodes already; `b`, with equal rights, on none.

    So of two gangs that want the other two nodes `b`'s goes first, unless `a`'s has
    begun.
    """

    client: Client
    service: Fairshare
    proxy: Brake
    a: str
    b: str

    def gates(self, count: int) -> list[bool]:
        pods = [self.client.get("pods", f"g-{i}", self.a) for i in range(count)]
        return [is_gated(pod) for pod in pods]

    def run(self, namespace: str, gang: str, count: int) -> bool:
        pods = [f"{gang}-{i}" for i in range(count)]
        return all(node_of(self.client, pod, namespace) for pod in pods)

    def freeze(self, count: int, passing: int) -> None:
        """Stop the service while it lets a gang of `a` start, and kill it."""
        self.proxy.hold(lambda call: call.opens, passing=passing)
        self.client.create_all(team("g", self.a, count, 16 // count))
        assert self.proxy.stopped.wait(30)
        until(
            "the gates are as they should be",
            lambda: self.gates(count).count(False) == passing,
        )
        self.service.kill()
        self.proxy.release()

    def assert_sound(self, **there: list[str]) -> None:
        until(
            "all is sound",
            lambda: not faults(self.client),
        )
        names = {getattr(self, space): pods for space, pods in there.items()}
        assert faults(self.client, limits={self.a: 24, self.b: 24}, there=names) == []


@contextmanager
def story(plane: ControlPlane) -> Iterator[Story]:
    a, b = plane.new_namespace("a"), plane.new_namespace("b")
    client = plane.client
    client.create_all(objects.nodes(3))
    with braked(plane) as (proxy, config), fairshare(plane, None, config) as service:
        client.create_all([tenant("a", a), tenant("b", b)])
        client.create(gated("first", a, 8))
        until("it runs", lambda: node_of(client, "first", a))
        yield Story(client, service, proxy, a, b)


def test_a_gang_of_which_no_gate_is_open_is_decided_again(plane: ControlPlane) -> None:
    """Nothing has begun, so who is entitled by now goes first; no mark is left."""
    with story(plane) as at:
        at.freeze(2, passing=0)
        marks = [mark_of(at.client.get("pods", f"g-{i}", at.a)) for i in range(2)]
        assert all(marks)
        at.client.create_all(team("h", at.b, 2, 8))
        at.service.start()
        until("the other tenant's gang runs", lambda: at.run(at.b, "h", 2))
        at.assert_sound(a=["first", "g-0", "g-1"], b=["h-0", "h-1"])
        assert at.gates(2) == [True, True]
        assert not at.run(at.a, "g", 1)


def test_a_gang_of_which_no_gate_is_open_starts_if_nothing_has_changed(
    plane: ControlPlane,
) -> None:
    """Marks and nominations of the first attempt are in nobody's way."""
    with story(plane) as at:
        at.freeze(4, passing=0)
        at.service.start()
        until("it runs whole", lambda: at.run(at.a, "g", 4))
        at.assert_sound(a=["first", "g-0", "g-1", "g-2", "g-3"])


@pytest.mark.parametrize(("count", "passing"), [(2, 1), (4, 1), (4, 2), (4, 3)])
def test_a_gang_of_which_a_gate_is_open_is_finished(
    plane: ControlPlane, count: int, passing: int
) -> None:
    """An open gate cannot be closed: a gang that has begun goes first.

    Meanwhile kube-scheduler has found nobody to ask, and wiped the nominations.
    """
    with story(plane) as at:
        plane.stop_scheduler()
        at.freeze(count, passing)
        plane.start_scheduler(scheduler_config(at.service.http))
        until(
            "kube-scheduler has tried in vain",
            lambda: _nominations(at, count) == count - passing,
        )
        assert not at.run(at.a, "g", 1)
        at.client.create_all(team("h", at.b, 2, 8))
        at.service.start()
        until("the gang runs whole", lambda: at.run(at.a, "g", count))
        members = [f"g-{i}" for i in range(count)]
        at.assert_sound(a=["first", *members], b=["h-0", "h-1"])
        assert not at.run(at.b, "h", 1)


def test_a_gang_that_has_begun_is_finished_elsewhere_if_its_node_died_meanwhile(
    plane: ControlPlane,
) -> None:
    """Its gates stay open wherever it goes: it is not put behind others."""
    with story(plane) as at:
        plane.stop_scheduler()
        at.freeze(2, passing=1)
        (pod,) = (p for p in at.client.items("pods", at.a) if _is_begun(p))
        at.client.delete("nodes", mark_of(pod)["node"])
        at.client.create(objects.node("spare"))
        at.client.create_all(team("h", at.b, 2, 8))
        at.service.start()
        plane.start_scheduler(scheduler_config(at.service.http))
        until("the gang runs whole", lambda: at.run(at.a, "g", 2))
        at.assert_sound(a=["first", "g-0", "g-1"], b=["h-0", "h-1"])
        assert not at.run(at.b, "h", 1)


def _is_begun(pod: Object) -> bool:
    """Whether it may start and is not bound."""
    return not is_gated(pod) and not is_bound(pod)


def test_a_gang_that_was_half_bound_when_the_service_was_killed_is_finished(
    plane: ControlPlane,
) -> None:
    """GANG holds over a restart."""
    with story(plane) as at:
        at.proxy.hold(lambda call: call.opens, passing=1)
        at.client.create_all(team("g", at.a, 2, 8))
        assert at.proxy.stopped.wait(30)
        until(
            "one runs", lambda: at.run(at.a, "g", 1) or node_of(at.client, "g-1", at.a)
        )
        at.service.kill()
        at.proxy.release()
        at.client.create_all(team("h", at.b, 2, 8))
        at.service.start()
        until("the gang runs whole", lambda: at.run(at.a, "g", 2))
        at.assert_sound(a=["first", "g-0", "g-1"], b=["h-0", "h-1"])


@pytest.mark.parametrize("passing", [0, 1, 3])
def test_a_gang_that_was_being_marked_starts_whole(
    plane: ControlPlane, passing: int
) -> None:
    """Members that carry a mark and members that do not yet are one gang."""
    with story(plane) as at:
        at.proxy.hold(lambda call: call.nominates, passing=passing)
        at.client.create_all(team("g", at.a, 4, 4))
        assert at.proxy.stopped.wait(30)
        until("so many are marked", lambda: _nominations(at, 4) == passing)
        assert at.gates(4) == [True] * 4
        at.service.kill()
        at.proxy.release()
        at.service.start()
        until("it runs whole", lambda: at.run(at.a, "g", 4))
        at.assert_sound(a=["first", "g-0", "g-1", "g-2", "g-3"])


def _nominations(at: Story, count: int) -> int:
    places = [nominated(at.client, f"g-{i}", at.a) for i in range(count)]
    return sum(bool(place) for place in places)


# -- in the middle of a reclaim ----------------------------------------------------

SLOW = {hollow.SHUTS_DOWN_IN: "4"}


def test_a_hold_moves_to_more_urgent_work_that_came_while_the_service_was_down(
    plane: ControlPlane, client: Client
) -> None:
    """A nomination without a plan would keep the room from the one that has it."""
    mine, theirs = plane.new_namespace(), plane.new_namespace()
    client.create(objects.node("n0"))
    with fairshare(plane, {"checkpointNotice": "60s"}) as service:
        client.create(tenant("owner", mine, guarantee={H100: 8}))
        client.create(tenant("guest", theirs))
        client.create(gated("burst", theirs, 8))
        until("burst runs", lambda: node_of(client, "burst", theirs))
        client.create(gated("own", mine, 8))
        until("a hold is set", lambda: nominated(client, "own", mine) == "n0")
        service.kill()
        urgent = gated("urgent", mine, 8, priority_class="fairshare-inference")
        client.create(urgent)
        service.start()
        until("it has the hold", lambda: nominated(client, "urgent", mine) == "n0")
        until("the first has none", lambda: not nominated(client, "own", mine))
        names = {mine: ["own", "urgent"], theirs: ["burst"]}
        assert faults(client, there=names) == []
        client.delete("pods", "burst", theirs)
        until("it runs", lambda: node_of(client, "urgent", mine) == "n0")
        assert faults(client, limits={mine: 8, theirs: 0}) == []


def test_after_a_restart_nobody_else_is_evicted_for_who_waits_for_a_leaving_victim(
    plane: ControlPlane, client: Client
) -> None:
    """A pod that is shutting down is about to make the room that is wanted."""
    mine, theirs = plane.new_namespace(), plane.new_namespace()
    client.create_all(objects.nodes(2))
    with fairshare(plane, {"checkpointNotice": "0s"}) as service:
        client.create(tenant("owner", mine, guarantee={H100: 8}))
        client.create(tenant("guest", theirs))
        for name in ("u", "v"):
            client.create(gated(name, theirs, 8, annotations=SLOW))
            until(f"{name} runs", lambda name=name: node_of(client, name, theirs))
        client.create(gated("own", mine, 8))
        victim = until("one is told to go", lambda: _leaving(client, theirs))
        service.kill()
        place = node_of(client, victim, theirs)
        service.start()
        until("the owner runs", lambda: node_of(client, "own", mine))
        assert node_of(client, "own", mine) == place
        (other,) = {"u", "v"} - {victim}
        left = client.get("pods", other, theirs)
        assert "deletionTimestamp" not in left["metadata"]
        assert faults(client, limits={mine: 8, theirs: 8}) == []


def test_who_was_asked_to_save_its_work_is_left_alone_if_nobody_needs_the_room(
    plane: ControlPlane, client: Client
) -> None:
    """The beneficiary went away while the service was down."""
    mine, theirs = plane.new_namespace(), plane.new_namespace()
    client.create(objects.node("n0"))
    asked = "fairshare.dev/checkpoint-deadline"
    with fairshare(plane, {"checkpointNotice": "60s"}) as service:
        client.create(tenant("owner", mine, guarantee={H100: 8}))
        client.create(tenant("guest", theirs))
        client.create(gated("burst", theirs, 8))
        until("burst runs", lambda: node_of(client, "burst", theirs))
        client.create(gated("own", mine, 8))
        until("it is asked", lambda: asked in _notes(client, "burst", theirs))
        service.kill()
        client.delete("pods", "own", mine)
        service.start()
        until(
            "it is not any more", lambda: asked not in _notes(client, "burst", theirs)
        )
        assert faults(client, there={theirs: ["burst"]}, limits={theirs: 8}) == []


def test_a_roll_back_that_was_cut_off_is_ended(
    plane: ControlPlane, client: Client
) -> None:
    """Half a gang that nobody will join gives its GPUs back after all."""
    space = plane.new_namespace()
    client.create_all(objects.nodes(2))
    with (
        braked(plane) as (proxy, config),
        fairshare(plane, {"gangStartTimeout": "2s"}, config) as service,
    ):
        client.create(tenant("alpha", space, guarantee={H100: 16}))
        # Else it would be judged anew, by the one node that is left.
        until("the tenant is accepted", lambda: _is_accepted(client, "alpha"))
        proxy.hold(lambda call: call.opens, passing=1)
        client.create_all(team("g", space, 2, 8))
        assert proxy.stopped.wait(30)
        bound = until("one runs", lambda: _bound(client, space))
        service.kill()
        (lost,) = {"n0", "n1"} - {node_of(client, bound, space)}
        client.delete("nodes", lost)
        proxy.release()
        proxy.hold(lambda call: call.path.endswith("/eviction"))
        service.start()
        assert proxy.stopped.wait(30)
        service.kill()
        proxy.release()
        service.start()
        until("it is evicted", lambda: client.find("pods", bound, space) is None)
        (kept,) = {"g-0", "g-1"} - {bound}
        until("nothing is left of it", lambda: not faults(client, limits={space: 0}))
        assert faults(client, there={space: [kept]}) == []


def _is_accepted(client: Client, name: str) -> bool:
    return "accepted" in client.get("tenants", name).get("status", {})


def _leaving(client: Client, namespace: str) -> str:
    pods = client.items("pods", namespace)
    found = (p for p in pods if "deletionTimestamp" in p["metadata"])
    return next((str(p["metadata"]["name"]) for p in found), "")


def _bound(client: Client, namespace: str) -> str:
    pods = client.items("pods", namespace)
    return next((p["metadata"]["name"] for p in pods if p["spec"].get("nodeName")), "")


def _notes(client: Client, pod: str, namespace: str) -> dict[str, str]:
    return client.get("pods", pod, namespace)["metadata"].get("annotations") or {}
