"""Jobs and Deployments that lose their room, wait for it, and get it back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.controlplane import hollow, objects
from tests.controlplane.client import Client, Object
from tests.controlplane.plane import ControlPlane
from tests.e2e.running import (
    H100,
    Fairshare,
    fairshare,
    gated,
    node_of,
    nominated,
    tenant,
    until,
)

MAY_SUSPEND = {"fairshare.dev/suspend": "true"}
FOREVER = {hollow.RUNS_FOR: "forever"}
IGNORES_EVICTION = {
    "podFailurePolicy": {
        "rules": [
            {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            }
        ]
    }
}


@dataclass
class Story:
    """An owner with a guarantee of one node, and a guest who bursts with Jobs."""

    service: Fairshare
    client: Client
    mine: str
    theirs: str

    def job(self, name: str = "train", gpus: int = 8, **more: Any) -> Object:
        """Create a guest's Job, whose pods run until they are stopped."""
        notes = more.pop("notes", {})
        more.setdefault("annotations", FOREVER)
        more.setdefault("priority_class", "fairshare-training")
        made = objects.job(name, self.theirs, gpus, gated=True, **more)
        made["metadata"]["annotations"] = notes
        return self.client.create(made)

    def status(self, job: str = "train") -> Object:
        return dict(self.client.get("jobs", job, self.theirs).get("status", {}))

    def is_suspended(self, job: str = "train") -> bool:
        return bool(self.client.get("jobs", job, self.theirs)["spec"]["suspend"])

    def pods(self) -> list[Object]:
        """The guest's pods that have not ended."""
        found = self.client.items("pods", self.theirs)
        return [p for p in found if p["status"]["phase"] in ("Pending", "Running")]

    def running(self) -> list[Object]:
        """Those of them that run, and were not told to stop."""
        return [
            pod
            for pod in self.pods()
            if pod["status"]["phase"] == "Running"
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def waiting(self) -> list[Object]:
        """Those of them that are at the gate."""
        return [pod for pod in self.pods() if pod["spec"].get("schedulingGates")]

    def claim(self, name: str = "own", gpus: int = 8) -> None:
        """Let the owner ask for what is theirs."""
        self.client.create(gated(name, self.mine, gpus))

    def runs(self, name: str = "own") -> str:
        return node_of(self.client, name, self.mine)

    def leave(self, name: str = "own") -> None:
        self.client.delete("pods", name, self.mine)

    def queue(self) -> dict[str, Object]:
        """What waits, by tenant."""
        return {e["tenant"]: e for e in self.service.get("/v1/queue")["queue"]}


@contextmanager
def story_of(plane: ControlPlane, nodes: int = 1, **policy: str) -> Iterator[Story]:
    client = plane.client
    mine, theirs = plane.new_namespace("mine"), plane.new_namespace("theirs")
    client.create_all(objects.nodes(nodes))
    with fairshare(plane, {"checkpointNotice": "1s", **policy}) as service:
        client.create(tenant("owner", mine, guarantee={H100: 8}))
        client.create(tenant("guest", theirs))
        yield Story(service, client, mine, theirs)


# -- evicted pods are made anew -------------------------------------------------------


def test_an_evicted_job_waits_for_its_turn_and_has_lost_no_attempt(
    plane: ControlPlane,
) -> None:
    """Giving room back must not count as a failure: with backoffLimit 0 it is over."""
    with story_of(plane) as story:
        story.job(job=IGNORES_EVICTION)
        (first,) = until("it runs", story.running)
        story.claim()
        until("the owner runs", story.runs)
        (second,) = until("another pod waits", story.waiting)
        assert second["metadata"]["uid"] != first["metadata"]["uid"]
        assert not nominated(story.client, second["metadata"]["name"], story.theirs)
        story.leave()
        (third,) = until("it runs again", story.running)
        assert third["metadata"]["uid"] == second["metadata"]["uid"]
        status = story.status()
        assert status.get("failed", 0) == 0
        assert not [c for c in status.get("conditions", ()) if c["type"] == "Failed"]


def test_an_evicted_deployment_waits_for_its_turn(plane: ControlPlane) -> None:
    """Its next pod is there before the last one has gone: it must not sneak back in."""
    slow = {hollow.SHUTS_DOWN_IN: "2"}
    with story_of(plane) as story:
        made = objects.deployment(
            "serve",
            story.theirs,
            8,
            gated=True,
            priority_class="fairshare-training",
            annotations=slow,
        )
        story.client.create(made)
        (first,) = until("it runs", story.running)
        story.claim()
        (second,) = until("another pod waits", story.waiting)
        assert story.client.find("pods", first["metadata"]["name"], story.theirs)
        until("the owner runs", story.runs)
        assert second["metadata"]["name"] in [
            pod["metadata"]["name"] for pod in story.waiting()
        ]
        story.leave()
        until("it runs again", story.running)


# -- Jobs that may be suspended -------------------------------------------------------


def test_a_job_that_may_be_suspended_is_not_evicted(plane: ControlPlane) -> None:
    """All or nothing, without any failure, and back as one when there is room."""
    with story_of(plane) as story:
        story.job(gpus=2, pods=4, notes=MAY_SUSPEND)
        until("all run", lambda: len(story.running()) == 4)
        story.claim()
        until("it is suspended", story.is_suspended)
        until("the owner runs", story.runs)
        until("its pods are gone", lambda: not story.pods())
        entry = until("it waits", lambda: story.queue().get("guest"))
        assert (entry["pods"], entry["gpus"]) == (4, 8)
        story.leave()
        until("all run again", lambda: len(story.running()) == 4)
        assert not story.is_suspended()
        status = story.status()
        assert status.get("failed", 0) == 0
        events = story.client.items("events", story.theirs)
        told = [e["reason"] for e in events if e["involvedObject"]["kind"] == "Job"]
        assert "Suspended" in told
        assert "Resumed" in told


def test_a_job_created_suspended_is_resumed_into_room_that_is_held_for_it(
    plane: ControlPlane,
) -> None:
    """While victims leave it waits suspended; then its pods get exactly that room."""
    slow = {**FOREVER, hollow.SHUTS_DOWN_IN: "3"}
    with story_of(plane) as story:
        story.job("burst", job=IGNORES_EVICTION, annotations=slow)
        until("burst runs", story.running)
        owned = objects.job(
            "own",
            story.mine,
            2,
            pods=4,
            suspend=True,
            gated=True,
            annotations=FOREVER,
            priority_class="fairshare-training",
        )
        owned["metadata"]["annotations"] = MAY_SUSPEND
        story.client.create(owned)
        entry = until("it waits", lambda: story.queue().get("owner"))
        assert (entry["pods"], entry["gpus"]) == (4, 8)
        uid = story.client.get("jobs", "own", story.mine)["metadata"]["uid"]
        told = story.service.explain(f"job:{uid}/0")
        assert told["reason"] == "RECLAIMING"
        story.claim("rival", 1)  # of the same tenant, younger
        while story.client.get("jobs", "own", story.mine)["spec"]["suspend"]:
            assert not nominated(story.client, "rival", story.mine)
            time.sleep(0.05)
        old = [p for p in story.pods() if p["spec"].get("nodeName")]
        assert not old
        until(
            "all run",
            lambda: (
                [
                    p["spec"].get("nodeName")
                    for p in story.client.items("pods", story.mine)
                    if p["metadata"]["name"].startswith("own")
                ]
                == ["n0"] * 4
            ),
        )
        assert not story.runs("rival")


def test_a_suspended_job_is_counted_by_what_it_would_run_at_once(
    plane: ControlPlane,
) -> None:
    """Ten completions, two at a time: it needs room for two."""
    with story_of(plane) as story:
        story.claim()
        until("the owner runs", story.runs)
        more = {"completions": 10, "parallelism": 2}
        story.job(gpus=4, suspend=True, notes=MAY_SUSPEND, job=more)
        entry = until("it waits", lambda: story.queue().get("guest"))
        assert (entry["pods"], entry["gpus"]) == (2, 8)
        told = story.service.explain(f"{story.theirs}/train[0]")
        assert (told["reason"], told["position"]) == ("NO_ROOM", 1)


def test_a_job_that_somebody_else_suspended_is_left_alone(
    plane: ControlPlane,
) -> None:
    """Without the annotation it is not ours to resume, and takes no place in line."""
    with story_of(plane) as story:
        story.job(suspend=True)
        story.job("other", 4)
        until("the other runs", story.running)
        time.sleep(1)
        assert story.is_suspended()
        assert "guest" not in story.queue()


def test_a_suspended_job_that_is_deleted_gives_up_what_was_held_for_it(
    plane: ControlPlane,
) -> None:
    """Its victims are spared, or its room is the next one's."""
    with story_of(plane, checkpointNotice="10m") as story:
        story.job("burst")
        (burst,) = until("burst runs", story.running)
        owned = objects.job(
            "own",
            story.mine,
            8,
            suspend=True,
            gated=True,
            priority_class="fairshare-training",
        )
        owned["metadata"]["annotations"] = MAY_SUSPEND
        story.client.create(owned)
        name = burst["metadata"]["name"]

        def is_told() -> bool:
            pod = story.client.get("pods", name, story.theirs)
            return "fairshare.dev/checkpoint-deadline" in pod["metadata"]["annotations"]

        until("the victim is told", is_told)
        story.client.delete("jobs", "own", story.mine)
        until("it is spared", lambda: not is_told())
        assert "owner" not in story.queue()


def test_a_resumed_job_that_is_deleted_frees_its_room(plane: ControlPlane) -> None:
    """Whether its pods have come by then or not."""
    with story_of(plane) as story:
        story.job(gpus=8, suspend=True, notes=MAY_SUSPEND)
        until("it is resumed", lambda: not story.is_suspended())
        story.client.delete("jobs", "train", story.theirs)
        story.client.create(gated("next", story.theirs, 8))
        until("its room is free", lambda: node_of(story.client, "next", story.theirs))


def test_a_resumed_job_whose_pods_never_come_is_suspended_again(
    plane: ControlPlane,
) -> None:
    """It must not keep the room from those who would use it."""
    with story_of(plane, gangStartTimeout="2s") as story:
        story.client.create(_no_pods(story.theirs))
        until("nobody may", lambda: _is_counted(story))
        story.job(suspend=True, notes=MAY_SUSPEND)
        until("it is resumed", lambda: not story.is_suspended())
        until("it is suspended again", story.is_suspended)
        story.claim()
        until("the room is used", story.runs)
        assert not story.pods()


def _no_pods(namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": namespace},
        "spec": {"hard": {"pods": "0"}},
    }


def _is_counted(story: Story) -> bool:
    quota = story.client.get("resourcequotas", "none", story.theirs)
    return bool(quota.get("status", {}).get("hard"))


def test_independent_pods_of_a_job_are_resumed_as_far_as_there_is_room(
    plane: ControlPlane,
) -> None:
    """Room for one of two: one runs, one waits at the gate, and nothing flaps."""
    with story_of(plane) as story:
        notes = {**FOREVER, "fairshare.dev/gang-min-member": "1"}
        story.job(gpus=5, pods=2, suspend=True, notes=MAY_SUSPEND, annotations=notes)
        until("one runs", story.running)
        time.sleep(2)
        assert not story.is_suspended()
        assert len(story.running()) == len(story.waiting()) == 1
        switches = story.service.metric("fairshare_api_writes_total", kind="resume")
        switches += story.service.metric("fairshare_api_writes_total", kind="suspend")
        assert switches == 1


def test_a_suspended_job_stops_within_the_grace_of_the_policy(
    plane: ControlPlane,
) -> None:
    """The Job controller gives pods all of their own grace; an owner waits less."""
    stubborn = {**FOREVER, hollow.SHUTS_DOWN_IN: "600"}
    with story_of(plane, evictionGrace="3s") as story:
        story.job(grace_s=600, notes=MAY_SUSPEND, annotations=stubborn)
        until("it runs", story.running)
        story.claim()
        until("it is suspended", story.is_suspended)
        until("the owner runs", story.runs)
