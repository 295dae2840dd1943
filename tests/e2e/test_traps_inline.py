"""Inline mode: the decision is taken in Filter itself, and everything hangs on it.

The service runs standalone, asked by a real kube-scheduler; a reporter tells it what
becomes of pods. Here Filter is all that keeps a quota.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from tests.controlplane import hollow, objects
from tests.controlplane.client import Client, Object
from tests.controlplane.plane import ControlPlane
from tests.e2e.extenders import condition
from tests.e2e.running import H100, node_of, scheduler_config, until
from tests.e2e.sound import faults
from tests.e2e.tapped import Inline, Ours, Reporter, breaches, inline, second_scheduler
from tests.e2e.wiring import counts_still, scheduler_metric

BOSS = "inline-boss"
"""A PriorityClass that is above the others and preempts."""

ATTEMPTS = "scheduler_preemption_attempts_total"


class World:
    """What a test here sets up: nodes, tenants, and then the service."""

    def __init__(self, plane: ControlPlane, stack: ExitStack) -> None:
        self.plane = plane
        self.client: Client = plane.client
        self._stack = stack
        self.reporter: Reporter

    def start(
        self,
        nodes: int,
        tenants: Mapping[str, Mapping[str, Any]],
        *,
        policy: Mapping[str, object] | None = None,
        extra: Sequence[tuple[Object, Object]] = (),
        **changes: Any,
    ) -> Ours:
        """Run the service on nodes n0, n1 ... of 8 H100, for tenants by namespace.

        `extra` are further nodes, as the service's file and the API have them.
        """
        common = {"gpuClass": H100, "gpus": 8}
        rows: list[Object] = [{"name": f"n{i}", **common} for i in range(nodes)]
        rows += [row for row, _ in extra]
        self.client.create_all([*objects.nodes(nodes), *(n for _, n in extra)])
        terms = [
            {"name": f"tenant-{space}", "namespaces": [space], **spec}
            for space, spec in tenants.items()
        ]
        made = objects.priority_class(BOSS, 2_000_000, "PreemptLowerPriority")
        self.client.ensure(made)
        service = Inline(self.plane, rows, terms, policy)
        found, self.reporter = self._stack.enter_context(
            inline(self.plane, service, **changes)
        )
        self._stack.callback(_check, found)
        return found

    def pod(self, name: str, space: str, gpus: int, **more: Any) -> Object:
        more.setdefault("priority_class", "fairshare-training")
        more.setdefault("tolerations", [{"operator": "Exists"}])
        return self.client.create(objects.pod(name, space, gpus, cpu="1m", **more))

    def bound(self, name: str, space: str) -> str:
        found = until(f"{name} is bound", lambda: node_of(self.client, name, space))
        return str(found)

    def said(self, name: str, space: str) -> Object:
        found: Object = until(
            f"something is said about {name}",
            lambda: condition(self.client.get("pods", name, space)),
        )
        return found

    def count(self, *spaces: str) -> int:
        pods = [pod for space in spaces for pod in self.client.items("pods", space)]
        return sum(bool(pod["spec"].get("nodeName")) for pod in pods)


def _check(ours: Ours) -> None:
    assert breaches(ours.tap.asked(), failures=ours.failures) == []


@pytest.fixture
def world(plane: ControlPlane) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(plane, stack)


def test_of_200_pods_at_once_never_more_than_100_pass_filter(world: World) -> None:
    """Two of them are asked about within milliseconds: a yes is a reservation."""
    space = world.plane.new_namespace()
    ours = world.start(14, {space: {"limit": {H100: 100}}})
    spec = {"priority_class": "fairshare-training", "cpu": "1m"}
    world.client.create_all(
        objects.pod(f"p{i}", space, 1, tolerations=[{"operator": "Exists"}], **spec)
        for i in range(200)
    )
    most = 0

    def are_there() -> bool:
        nonlocal most
        most = max(most, world.count(space))
        return most >= 100

    until("a hundred run", are_there, 90)
    time.sleep(1)  # no more follow
    assert world.count(space) == 100
    yes = {call.uid for call in ours.tap.asked("filter") if call.result["NodeNames"]}
    assert len(yes) == 100
    assert faults(world.client, limits={space: 100}) == []


def test_two_kube_schedulers_share_one_limit(world: World) -> None:
    """Their calls overlap; the service's loop is the lock."""
    space = world.plane.new_namespace()
    ours = world.start(6, {space: {"limit": {H100: 40}}})
    config = yaml.safe_load(scheduler_config(ours.tap.address))
    config["profiles"][0]["schedulerName"] = "fairshare"
    with second_scheduler(world.plane, yaml.safe_dump(config)):
        for index in range(30):
            for name in ("fairshare", "default-scheduler"):
                world.pod(f"{name}-{index}", space, 1, schedulerName=name)
        until("forty run", lambda: world.count(space) >= 40, 60)
        time.sleep(1)  # no more follow
        assert world.count(space) == 40
    assert faults(world.client, limits={space: 40}) == []


def test_over_its_limit_is_final_constant_and_nobody_is_preempted(world: World) -> None:
    """Traps 5, 7: even for a pod that preempts, with room and victims on the node."""
    space = world.plane.new_namespace()
    ours = world.start(1, {space: {"limit": {H100: 4}, "preemptWithin": "never"}})
    world.pod("first", space, 4)
    world.bound("first", space)
    until("it is reported", lambda: ours.used(f"tenant-{space}") == 4)
    before = scheduler_metric(world.plane, ATTEMPTS)
    second = world.pod("second", space, 4, priority_class=BOSS)
    assert world.said("second", space)["reason"] == "Unschedulable"
    asked = counts_still(ours.tap, "filter", second["metadata"]["uid"])
    assert asked <= 4
    message = world.said("second", space)["message"]
    assert "its tenant, or a queue above it, is at its limit" in message
    assert "Preemption is not helpful for scheduling" in message
    assert not ours.tap.asked("preempt")
    # An attempt that finds no candidate counts, but it is over before it begins.
    assert scheduler_metric(world.plane, ATTEMPTS) - before <= asked
    assert world.count(space) == 1


def test_the_nominated_node_first_then_all_is_one_reservation(world: World) -> None:
    """Trap 9: a yes for one node, after a no for another, is not charged twice."""
    space = world.plane.new_namespace()
    ours = world.start(2, {space: {"limit": {H100: 16}}})
    world.pod("first", space, 8)
    taken = world.bound("first", space)
    until("it is reported", lambda: ours.used(f"tenant-{space}") == 8)
    gate = [{"name": "example.com/wait"}]
    pod = world.pod("second", space, 6, schedulingGates=gate)
    free = "n1" if taken == "n0" else "n0"
    nominate(world, "second", space, free)
    ungate(world, "second", space)
    assert world.bound("second", space) == free
    calls = ours.asked("filter", pod)
    assert [call.names for call in calls] == [[free]]
    until("it is charged once", lambda: ours.used(f"tenant-{space}") == 14)


def nominate(world: World, name: str, space: str, node: str) -> None:
    body = {"status": {"nominatedNodeName": node}}
    world.client.patch("pods", name, body, space, subresource="status")


def ungate(world: World, name: str, space: str) -> None:
    body = {"spec": {"schedulingGates": [{"$patch": "replace"}]}}
    world.client.patch("pods", name, body, space)


def one_of_300(world: World, space: str, **changes: Any) -> Ours:
    """One node of 8 H100, n0, among 299 with an A10 each."""
    row = {"gpuClass": "a10-24gb", "gpus": 1}
    spec = {"product": "NVIDIA-A10", "memory_mib": 23_028, "gpus": 1}
    small: list[tuple[Object, Object]] = [
        ({"name": f"a{i}", **row}, objects.node(f"a{i}", **spec)) for i in range(299)
    ]
    return world.start(1, {space: {}}, extra=small, **changes)


def test_the_only_fitting_node_of_300_is_seen_at_once_as_shipped(world: World) -> None:
    """Trap 12: all nodes are shown, in one call; one is left, so none is scored."""
    space = world.plane.new_namespace()
    ours = one_of_300(world, space)
    notes = {"fairshare.dev/gpu-classes": H100}
    for index in range(4):
        pod = world.pod(f"p{index}", space, 1, annotations=notes)
        assert world.bound(f"p{index}", space) == "n0"
        (call,) = ours.asked("filter", pod)
        assert len(call.names) == 300
    assert not ours.tap.asked("prioritize")


def test_without_the_shipped_percentage_less_than_half_of_300_are_shown(
    world: World,
) -> None:
    """Trap 12: a pod is called unschedulable whose node was not even looked at."""
    space = world.plane.new_namespace()
    default = [{"schedulerName": "default-scheduler"}]
    ours = one_of_300(world, space, profiles=default)
    notes = {"fairshare.dev/gpu-classes": H100}
    pod = world.pod("p", space, 1, annotations=notes)
    until("it is asked about", lambda: ours.asked("filter", pod))
    assert len(ours.asked("filter", pod)[0].names) == 144


def test_a_yes_that_nobody_used_lapses(world: World) -> None:
    """The pod is deleted between Filter and bind, and nobody reports it. The next one
    has to be woken: freed quota is no event to kube-scheduler, so gates are better."""
    space = world.plane.new_namespace()
    policy = {"gangStartTimeout": "2s"}
    ours = world.start(1, {space: {"limit": {H100: 8}}}, policy=policy)
    done: list[float] = []

    def delete(call: Any) -> None:
        if call.result["NodeNames"] and not done:
            done.append(call.at)
            world.client.delete("pods", "one", space, grace=0)

    ours.tap.meddle = delete
    world.pod("one", space, 8)
    until("it was asked about", lambda: done)
    assert ours.used(f"tenant-{space}") == 8
    two = world.pod("two", space, 8)
    assert world.said("two", space)["reason"] == "Unschedulable"
    until("it has lapsed", lambda: ours.used(f"tenant-{space}") == 0)
    assert time.monotonic() - done[0] >= 2
    counts_still(ours.tap, "filter", two["metadata"]["uid"], 1)
    assert world.count(space) == 0
    world.client.annotate("nodes", "n0", {"example.com/note": "wake"})
    assert world.bound("two", space) == "n0"


def test_a_taker_that_preempts_gets_exactly_one_victim(world: World) -> None:
    """Traps 6, 10, 27, 34: Filter is not asked where all is full, so it is preempt by
    which the taker is known. The verb itself gives none: one is asked to go, and while
    and after that kube-scheduler offers the others in vain."""
    mine, theirs = world.plane.new_namespace(), world.plane.new_namespace()
    ours = world.start(
        3,
        {mine: {"guarantee": {H100: 8}}, theirs: {}},
        policy={"checkpointNotice": "0s"},
    )
    slow = {hollow.SHUTS_DOWN_IN: "2"}
    for index in range(3):
        world.pod(f"burst-{index}", theirs, 8, annotations=slow)
    until("all run", lambda: world.count(theirs) == 3)
    until("all are reported", lambda: ours.used(f"tenant-{theirs}") == 24)
    own = world.pod("own", mine, 8, priority_class=BOSS)
    ours.settled(own)
    until("its room is free", lambda: ours.reason(own) == "STARTING")
    # The victim's end woke it, perhaps before that was reported; nothing else would.
    world.client.annotate("nodes", "n0", {"example.com/note": "wake"})
    assert world.bound("own", mine) in ("n0", "n1", "n2")
    left = [pod["metadata"]["name"] for pod in world.client.items("pods", theirs)]
    assert len(left) == 2
    assert len(world.reporter.evicted) == 1
    answers = [call.result for call in ours.asked("preempt", own)]
    assert answers
    assert not any(answer["NodeNameToMetaVictims"] for answer in answers)


def test_a_covered_pod_is_no_victim_whoever_asks(world: World) -> None:
    """Trap 23: native preemption finds it, by its priority, and is told no."""
    mine, theirs = world.plane.new_namespace(), world.plane.new_namespace()
    ours = world.start(1, {mine: {"guarantee": {H100: 8}}, theirs: {}})
    world.pod("covered", mine, 8)
    world.bound("covered", mine)
    until("it is reported", lambda: ours.used(f"tenant-{mine}") == 8)
    taker = world.pod("taker", theirs, 8, priority_class=BOSS)
    until("native preemption asks", lambda: ours.asked("preempt", taker))
    (offered,) = ours.asked("preempt", taker)[0].args["NodeNameToMetaVictims"].values()
    assert len(offered["Pods"]) == 1
    time.sleep(1)  # nothing happens
    answers = [call.result for call in ours.asked("preempt", taker)]
    assert not any(answer["NodeNameToMetaVictims"] for answer in answers)
    found = world.client.get("pods", "covered", mine)
    assert "deletionTimestamp" not in found["metadata"]
    assert not world.reporter.evicted
