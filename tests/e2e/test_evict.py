"""How burst gives its room back, on the real thing: asked, evicted, awaited."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import msgspec
import pytest

from scheduler.codec import Naming, PodObject
from scheduler.core import (
    QUANTA_PER_GPU,
    Form,
    GangId,
    Leaving,
    NodeName,
    Planned,
    PodUid,
    TenantName,
    WorkloadClass,
)
from scheduler.kube.api import Api
from scheduler.kube.mirror import Mirror
from scheduler.kube.writer import Writer
from tests.controlplane import hollow, objects
from tests.controlplane.client import Client, Object
from tests.controlplane.plane import ControlPlane
from tests.e2e.running import (
    H100,
    PATIENCE_S,
    Fairshare,
    fairshare,
    gated,
    node_of,
    nominated,
    tenant,
    until,
)

DEADLINE = "fairshare.dev/checkpoint-deadline"
DONE = "fairshare.dev/checkpoint-done"


@dataclass
class Story:
    """An owner whose nodes are full of a guest's burst, one pod per node: b0, b1 ..."""

    service: Fairshare
    client: Client
    mine: str
    theirs: str

    def claim(self, name: str = "own", gpus: int = 8, **more: object) -> None:
        """Let the owner ask for what is theirs."""
        self.client.create(gated(name, self.mine, gpus, **more))

    def burst(self, name: str = "b0") -> Object:
        return self.client.get("pods", name, self.theirs)

    def is_gone(self, name: str = "b0") -> bool:
        return self.client.find("pods", name, self.theirs) is None

    def is_told(self, name: str = "b0") -> bool:
        return DEADLINE in notes_of(self.burst(name))

    def is_held(self, name: str = "own") -> str:
        return nominated(self.client, name, self.mine)

    def runs(self, name: str = "own") -> str:
        return node_of(self.client, name, self.mine)

    def events(self, reason: str) -> list[Object]:
        """Events of one kind about the guest's pods."""
        found = self.client.items("events", self.theirs)
        return [event for event in found if event["reason"] == reason]


@contextmanager
def full_of_burst(
    plane: ControlPlane, nodes: int = 1, *, burst: Object | None = None, **policy: str
) -> Iterator[Story]:
    """Nodes of 8 GPUs each full of a guest's pods, `burst` being fields of them."""
    client = plane.client
    mine, theirs = plane.new_namespace("mine"), plane.new_namespace("theirs")
    client.create_all(objects.nodes(nodes))
    settings = {"checkpointNotice": "1s", **policy}
    with fairshare(plane, settings) as service:
        client.create(tenant("owner", mine, guarantee={H100: 8}))
        client.create(tenant("guest", theirs))
        names = [f"b{i}" for i in range(nodes)]
        client.create_all([gated(n, theirs, 8, **(burst or {})) for n in names])
        until("burst runs", lambda: all(node_of(client, n, theirs) for n in names))
        yield Story(service, client, mine, theirs)


def notes_of(thing: Object) -> dict[str, str]:
    return dict(thing["metadata"].get("annotations", {}))


def seconds_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# -- being asked ------------------------------------------------------------------


def test_a_victim_is_told_until_when_it_may_save_its_work(plane: ControlPlane) -> None:
    """The time it is promised is the time it gets."""
    slow = {"annotations": {hollow.SHUTS_DOWN_IN: "20"}}
    with full_of_burst(plane, burst=slow, checkpointNotice="4s") as story:
        before = time.time()
        story.claim()
        until("it is told", story.is_told)
        deadline = seconds_of(notes_of(story.burst())[DEADLINE])
        assert before + 4 - 1 <= deadline <= time.time() + 4
        assert "deletionTimestamp" not in story.burst()["metadata"]
        (told,) = until("it is said", lambda: story.events("CheckpointRequested"))
        assert notes_of(story.burst())[DEADLINE] in told["message"]
        until("it is stopped", lambda: "deletionTimestamp" in story.burst()["metadata"])
        gone = story.burst()["metadata"]
        stopped = seconds_of(gone["deletionTimestamp"])
        stopped -= gone["deletionGracePeriodSeconds"]
        assert deadline <= stopped <= deadline + 10
        conditions = {c["type"]: c for c in story.burst()["status"]["conditions"]}
        assert conditions["DisruptionTarget"]["reason"] == "EvictionByEvictionAPI"


def test_a_victim_that_has_saved_its_work_need_not_wait_for_the_deadline(
    plane: ControlPlane,
) -> None:
    """A fast checkpoint gets the owner its GPUs back at once."""
    with full_of_burst(plane, checkpointNotice="10m") as story:
        story.claim()
        until("it is told", story.is_told)
        done = {DONE: "2026-01-01T00:00:00Z"}
        story.client.annotate("pods", "b0", done, story.theirs)
        until("the owner runs", story.runs)
        assert story.is_gone()


def test_a_victim_that_is_spared_may_forget_the_deadline(plane: ControlPlane) -> None:
    """Who asked has gone: nobody has to go for them."""
    with full_of_burst(plane, checkpointNotice="3s") as story:
        story.claim()
        until("it is told", story.is_told)
        uid = story.burst()["metadata"]["uid"]
        story.client.delete("pods", "own", story.mine)
        until("it is spared", lambda: not story.is_told())
        time.sleep(3)
        assert story.burst()["metadata"]["uid"] == uid
        assert "deletionTimestamp" not in story.burst()["metadata"]
        story.claim("again")
        until("the next one runs", lambda: story.runs("again"))


# -- being evicted ------------------------------------------------------------------


def test_nobody_takes_longer_to_stop_than_the_policy_allows(
    plane: ControlPlane,
) -> None:
    """A pod with ten minutes of grace does not keep an owner waiting for them."""
    stubborn = {"grace_s": 600, "annotations": {hollow.SHUTS_DOWN_IN: "600"}}
    with full_of_burst(plane, burst=stubborn, evictionGrace="3s") as story:
        story.claim()
        until("it is stopped", lambda: "deletionTimestamp" in story.burst()["metadata"])
        assert story.burst()["metadata"]["deletionGracePeriodSeconds"] == 3
        until("the owner runs", story.runs)


def test_a_pod_that_stops_sooner_keeps_its_own_grace(plane: ControlPlane) -> None:
    """The cap is a cap: it gives nobody more time than they asked for."""
    quick = {"grace_s": 2, "annotations": {hollow.SHUTS_DOWN_IN: "2"}}
    with full_of_burst(plane, burst=quick) as story:
        story.claim()
        until("it is stopped", lambda: "deletionTimestamp" in story.burst()["metadata"])
        assert story.burst()["metadata"]["deletionGracePeriodSeconds"] == 2
        until("the owner runs", story.runs)


def test_a_disruption_budget_is_respected_and_named(plane: ControlPlane) -> None:
    """Who waits and who is in the way can both read why; then it goes on by itself."""
    labelled = {"labels": {"app": "serve"}}
    with full_of_burst(plane, burst=labelled) as story:
        budget = objects.budget("keep", story.theirs, {"app": "serve"}, 1)
        story.client.create(budget)
        until("the budget counts", lambda: _healthy(story, "keep") == 1)
        story.claim()
        (blocked,) = until("it is said", lambda: story.events("EvictionBlocked"))
        assert blocked["type"] == "Warning"
        assert "disruption budget keep needs 1" in blocked["message"]
        for pod in (f"{story.theirs}/b0", f"{story.mine}/own"):
            assert "disruption budget keep" in story.service.explain(pod)["detail"]
        assert _refusals(story, "429") >= 1
        assert "deletionTimestamp" not in story.burst()["metadata"]
        assert story.client.get("pods", "own", story.mine)["spec"]["schedulingGates"]
        body = {"spec": {"minAvailable": 0}}
        story.client.patch("poddisruptionbudgets", "keep", body, story.theirs)
        until("the owner runs", story.runs, 45)
        assert story.is_gone()


def test_two_disruption_budgets_that_forbid_each_other_are_named(
    plane: ControlPlane,
) -> None:
    """The API server refuses with an error of its own; a person has to see it."""
    labelled = {"labels": {"app": "serve"}}
    with full_of_burst(plane, burst=labelled) as story:
        for name in ("one", "two"):
            budget = objects.budget(name, story.theirs, {"app": "serve"}, 0)
            story.client.create(budget)
        until("they count", lambda: _healthy(story, "one") + _healthy(story, "two") > 1)
        story.claim()
        (blocked,) = until("it is said", lambda: story.events("EvictionBlocked"))
        assert "more than one PodDisruptionBudget" in blocked["message"]
        detail = story.service.explain(f"{story.theirs}/b0")["detail"]
        assert "more than one PodDisruptionBudget" in detail
        assert _refusals(story, "500") >= 1
        story.client.delete("poddisruptionbudgets", "two", story.theirs)
        until("the owner runs", story.runs)


def _healthy(story: Story, budget: str) -> int:
    found = story.client.get("poddisruptionbudgets", budget, story.theirs)
    return int(found.get("status", {}).get("currentHealthy", 0))


def _refusals(story: Story, status: str) -> float:
    return story.service.metric(
        "fairshare_api_writes_total", kind="evict", outcome=status
    )


# -- being waited for ---------------------------------------------------------------


def test_the_gate_is_opened_after_the_victim_is_really_gone(
    plane: ControlPlane,
) -> None:
    """A pod that is let through into a full node is sent elsewhere, or nowhere."""
    slow = {"annotations": {hollow.SHUTS_DOWN_IN: "3"}}
    with full_of_burst(plane, burst=slow) as story:
        story.claim()
        until("a hold is set", story.is_held)
        since = story.burst()["metadata"]["resourceVersion"]
        gone = opened = 0
        with story.client.watch("pods", since=since) as changes:
            for kind, pod in changes:
                version = int(pod["metadata"]["resourceVersion"])
                if kind == "DELETED" and pod["metadata"]["name"] == "b0":
                    gone = version
                if pod["metadata"]["name"] == "own":
                    if "schedulingGates" in pod["spec"]:
                        assert pod["status"]["nominatedNodeName"] == "n0"
                    else:
                        opened = version
                        break
        assert 0 < gone < opened
        until("the owner runs", story.runs)


def test_held_room_is_safe_from_pods_that_we_never_see(plane: ControlPlane) -> None:
    """A pod without GPUs would take the CPU the moment the victim lets it go."""
    hungry = {"cpu": "90", "annotations": {hollow.SHUTS_DOWN_IN: "3"}}
    with full_of_burst(plane, burst=hungry) as story:
        story.claim(cpu="90")
        until("a hold is set", story.is_held)
        rival = objects.pod(
            "rival", story.mine, 0, cpu="90", priority_class="fairshare-training"
        )
        story.client.create(rival)
        until("the owner runs", story.runs)
        assert not story.runs("rival")


def test_room_of_a_pod_that_is_stopping_is_not_given_away(plane: ControlPlane) -> None:
    """Its devices are in use until the last second, whoever stopped it."""
    slow = {"annotations": {hollow.SHUTS_DOWN_IN: "4"}}
    with full_of_burst(plane, burst=slow) as story:
        story.client.delete("pods", "b0", story.theirs)
        story.claim()
        until("it is known", lambda: story.service.knows(f"{story.mine}/own"))
        while not story.is_gone():
            own = story.client.get("pods", "own", story.mine)
            assert story.is_gone() or own["spec"].get("schedulingGates")
            time.sleep(0.05)
        until("the owner runs", story.runs)


def test_a_victim_whose_kubelet_is_dead_is_not_waited_for(plane: ControlPlane) -> None:
    """The owner gets other room, and nobody is planned where the dead pod sits."""
    with full_of_burst(
        plane, 2, checkpointNotice="2s", evictionGrace="1s", margin="1s"
    ) as story:
        story.claim()
        dead = until("a hold is set", story.is_held)
        where = {node_of(story.client, n, story.theirs): n for n in ("b0", "b1")}
        victim = where[dead]
        story.client.annotate("pods", victim, objects.hangs(), story.theirs)
        other = "n1" if dead == "n0" else "n0"
        until("the owner runs", lambda: story.runs() == other)
        detail = story.service.explain(f"{story.theirs}/{victim}")["detail"]
        assert "should have left by now" in detail
        story.client.create(gated("next", story.theirs, 8))
        until("it is known", lambda: story.service.knows(f"{story.theirs}/next"))
        time.sleep(2)
        assert not nominated(story.client, "next", story.theirs)
        back = objects.hangs(False)
        story.client.annotate("pods", victim, back, story.theirs)
        until(
            "its room is used again",
            lambda: node_of(story.client, "next", story.theirs) == dead,
        )


# -- being somebody else ------------------------------------------------------------


@pytest.mark.parametrize("doing", ["evict", "ask", "nominate"])
def test_a_write_never_reaches_another_pod_of_the_same_name(
    plane: ControlPlane, client: Client, doing: str
) -> None:
    """A controller may have made the next web-0 before we have heard of it."""
    space = plane.new_namespace()
    client.create(objects.node("n0"))
    pod = gated("web-0", space)
    if doing == "evict":
        pod = objects.pod("web-0", space, nodeName="n0")
    known = client.create(pod)
    client.delete("pods", "web-0", space, grace=0)
    other = client.create(pod)
    if doing == "evict":
        other = until("it runs", lambda: _if_running(client, "web-0", space))
    refused = "409" if doing == "evict" else "422"
    assert asyncio.run(_write_about(plane, known, doing)) == refused
    now = client.get("pods", "web-0", space)["metadata"]
    assert now["uid"] == other["metadata"]["uid"]
    assert now["resourceVersion"] == other["metadata"]["resourceVersion"]


def _if_running(client: Client, name: str, namespace: str) -> Object | None:
    pod = client.get("pods", name, namespace)
    return pod if pod["status"]["phase"] == "Running" else None


async def _write_about(plane: ControlPlane, known: Object, doing: str) -> str:
    """Let our writer do one thing about a pod as we know it; return the outcome."""
    space, uid = known["metadata"]["namespace"], PodUid(known["metadata"]["uid"])
    mirror = Mirror(Naming(tenants={space: TenantName("guest")}), ["default-scheduler"])
    mirror.pods.changed(msgspec.convert(known, PodObject))
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def count(kind: str, result: str) -> None:
        if kind == doing and not outcome.done():
            outcome.set_result(result)

    api = await Api.connect(plane.kubeconfig)
    writer = Writer(api, mirror, count)
    save_by = time.time() + 60 if doing == "ask" else None
    gone = Leaving(
        uid=uid,
        gang=GangId(uid),
        node=NodeName("n0"),
        save_by=save_by,
        grace_s=5,
        reason="reclaimed",
        beneficiary=None,
    )
    hold = Planned(
        uid=uid,
        gang=GangId(uid),
        tenant=TenantName("guest"),
        workload_class=WorkloadClass.TRAINING,
        node=NodeName("n0"),
        form=Form(H100),
        quanta=QUANTA_PER_GPU,
        decision=0,
        held=True,
    )
    try:
        if doing == "nominate":
            writer.reconcile([hold], [], 0.0)
        else:
            writer.reconcile([], [gone], 0.0)
        return await asyncio.wait_for(outcome, PATIENCE_S)
    finally:
        await writer.stop()
        await api.close()
