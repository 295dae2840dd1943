"""Who starts together, as the makers of pods say it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.controlplane import hollow, objects
from tests.controlplane.client import Client, Object
from tests.controlplane.plane import ControlPlane
from tests.e2e.running import (
    H100,
    Fairshare,
    fairshare,
    gated,
    node_of,
    tenant,
    until,
)

FOREVER = {hollow.RUNS_FOR: "forever"}
JOBSET = "jobset.sigs.k8s.io/"
LWS = "leaderworkerset.sigs.k8s.io/"


@dataclass
class Story:
    """A tenant and so many nodes of 8 GPUs."""

    service: Fairshare
    client: Client
    space: str

    def job(self, name: str = "train", **more: object) -> Object:
        """Create a Job whose pods come to the gate."""
        more.setdefault("annotations", FOREVER)
        more.setdefault("priority_class", "fairshare-training")
        made = objects.job(name, self.space, 8, gated=True, **more)
        return self.client.create(made)

    def pods(self) -> list[Object]:
        return self.client.items("pods", self.space)

    def bound(self) -> list[Object]:
        """Pods that have a node, and have not ended."""
        return [
            pod
            for pod in self.pods()
            if pod["spec"].get("nodeName")
            and pod["status"]["phase"] in ("Pending", "Running")
        ]

    def known(self, count: int) -> list[Object]:
        """The pods, when the service knows so many."""

        def all_known() -> list[Object]:
            names = [f"{self.space}/{p['metadata']['name']}" for p in self.pods()]
            ready = len(names) == count and all(map(self.service.knows, names))
            return self.pods() if ready else []

        found: list[Object] = until(f"{count} pods are known", all_known)
        return found

    def reason(self, pod: Object) -> str:
        name = f"{self.space}/{pod['metadata']['name']}"
        return str(self.service.explain(name)["reason"])


@contextmanager
def story_of(plane: ControlPlane, nodes: int) -> Iterator[Story]:
    client, space = plane.client, plane.new_namespace()
    client.create_all(objects.nodes(nodes))
    with fairshare(plane) as service:
        client.create(tenant("alpha", space, guarantee={H100: 16}))
        yield Story(service, client, space)


def test_a_job_of_four_starts_all_or_nothing(plane: ControlPlane) -> None:
    """Three ranks that wait for a fourth would hold three nodes for nothing."""
    with story_of(plane, 3) as story:
        story.job(pods=4)
        pods = story.known(4)
        assert {story.reason(pod) for pod in pods} == {"TOO_LARGE"}
        time.sleep(1)
        assert not story.bound()
        story.client.create(objects.node("n3"))
        until("all are bound", lambda: len(story.bound()) == 4)


def test_a_job_of_independent_pods_starts_as_far_as_there_is_room(
    plane: ControlPlane,
) -> None:
    """Its owner says so: each pod is of use alone."""
    with story_of(plane, 3) as story:
        story.job(pods=4, annotations={**FOREVER, "fairshare.dev/gang-min-member": "1"})
        until("three are bound", lambda: len(story.bound()) == 3)
        (waiting,) = [p for p in story.known(4) if not p["spec"].get("nodeName")]
        assert story.reason(waiting) == "NO_ROOM"
        story.client.create(objects.node("n3"))
        until("all are bound", lambda: len(story.bound()) == 4)


def test_a_job_with_more_completions_than_pods_at_once_finishes(
    plane: ControlPlane,
) -> None:
    """Five completions, two at a time: the fifth is a pair without its other half."""
    with story_of(plane, 2) as story:
        story.job(
            annotations={hollow.RUNS_FOR: "1"},
            job={"parallelism": 2, "completions": 5},
        )
        most = 0

        def is_complete() -> bool:
            nonlocal most
            most = max(most, len(story.bound()))
            status = story.client.get("jobs", "train", story.space)["status"]
            return status.get("succeeded", 0) == 5

        until("it completes", is_complete, 60)
        assert most == 2


def test_a_work_queue_job_does_not_wait_for_pods_that_never_come(
    plane: ControlPlane,
) -> None:
    """Without completions no pod is made once one has succeeded."""
    with story_of(plane, 2) as story:
        story.job(
            annotations={hollow.RUNS_FOR: "1"},
            job={"parallelism": 3, "completions": None},
        )
        story.known(3)
        assert not story.bound()
        story.client.create(objects.node("n2"))

        def is_complete() -> bool:
            status = story.client.get("jobs", "train", story.space)["status"]
            return bool(status.get("completionTime"))

        until("it completes", is_complete)


def test_jobs_of_a_jobset_start_together(plane: ControlPlane) -> None:
    """One gang over all Jobs of a replicated job, however they come."""
    labels = {
        f"{JOBSET}jobset-name": "llm",
        f"{JOBSET}replicatedjob-name": "worker",
        f"{JOBSET}replicatedjob-replicas": "2",
        f"{JOBSET}jobset-uid": "0123456789",
    }
    with story_of(plane, 4) as story:
        story.job("llm-worker-0", pods=2, labels=labels)
        pods = story.known(2)
        assert {story.reason(pod) for pod in pods} == {"GANG_INCOMPLETE"}
        time.sleep(1)
        assert not story.bound()
        story.job("llm-worker-1", pods=2, labels=labels)
        until("all are bound", lambda: len(story.bound()) == 4)


def test_a_leader_starts_with_its_workers(plane: ControlPlane) -> None:
    """LeaderWorkerSet labels its pods; we need none of our own."""
    with story_of(plane, 2) as story:

        def member(index: int) -> Object:
            return gated(
                f"serve-0-{index}",
                story.space,
                8,
                labels={f"{LWS}name": "serve", f"{LWS}group-index": "0"},
                annotations={f"{LWS}size": "2"},
            )

        story.client.create(member(0))
        (leader,) = story.known(1)
        assert story.reason(leader) == "GANG_INCOMPLETE"
        story.client.create(member(1))
        for index in range(2):
            name = f"serve-0-{index}"
            until("both run", lambda n=name: node_of(story.client, n, story.space))
