"""A stand-in for kube-scheduler, kubelets and job controllers, for the demo.

It knows the service by its doors alone: it asks ``/filter`` where a pod may go and
``/prioritize`` where several nodes remain, reports binds, exits and checkpoints at
``/v1/events``, polls ``/v1/actions`` for wishes, performs and acknowledges them. An
evicted training pod comes back as a new pod with what its last checkpoint left to do.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from deploy.demo.telling import FIGURES

RETRY_S = 0.4  # kube-scheduler's back-off, shortened to the demo's pace
CHECKPOINT_S = 1.5  # time a trainer takes to write its checkpoint
SHUTDOWN_S = 0.7  # time a container takes to end after SIGTERM


@dataclass
class Work:
    """What an owner wants to run: `pods` pods of `gpus` GPUs for `seconds`."""

    name: str
    namespace: str
    priority_class: str
    gpus: int
    seconds: float
    pods: int = 1
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.seconds


@dataclass
class Pod:
    """One incarnation of a member of some work."""

    uid: str
    work: Work
    node: str = ""
    started: float = 0.0
    saved: float = 0.0  # seconds of work that the last checkpoint holds
    ending: bool = False


class StandIn:
    """The cluster around the service."""

    def __init__(
        self, url: str, nodes: list[str], tell: Callable[[str, Pod, str], None]
    ) -> None:
        self.url = url
        self.nodes = nodes
        self.tell = tell
        self.pods: dict[str, Pod] = {}
        self.waiting: list[Pod] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.numbers = itertools.count(1)
        self.session: aiohttp.ClientSession

    async def __aenter__(self) -> "StandIn":
        self.session = aiohttp.ClientSession(self.url)
        self.spawn(self.schedule())
        self.spawn(self.obey())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.session.close()

    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -- owners and controllers ----------------------------------------------------

    def submit(self, work: Work) -> None:
        """Create the pods of some work."""
        for member in range(work.pods):
            uid = f"{work.name}-{member}-{next(self.numbers)}"
            pod = Pod(uid, work)
            self.pods[uid] = pod
            self.waiting.append(pod)
            self.tell("asks", pod, f"{work.gpus} GPUs")

    async def scale_down(self, prefix: str) -> None:
        """Delete the pods whose work's name begins so."""
        for pod in [p for p in self.pods.values() if p.work.name.startswith(prefix)]:
            await self.gone(pod, "scaled down")

    # -- kube-scheduler --------------------------------------------------------------

    async def schedule(self) -> None:
        """Offer every waiting pod to the extender, again and again."""
        while True:
            self.waiting.sort(
                key=lambda pod: "inference" not in pod.work.priority_class
            )
            for pod in list(self.waiting):
                await self.attempt(pod)
            await asyncio.sleep(RETRY_S)

    async def attempt(self, pod: Pod) -> None:
        call = {"Pod": manifest(pod), "Nodes": None, "NodeNames": self.nodes}
        answer = await self.post("/filter", call)
        names: list[str] = answer["NodeNames"] or []
        if not names:
            return
        if len(names) > 1:
            scores = await self.post("/prioritize", {**call, "NodeNames": names})
            best = max(scores, key=lambda score: int(score["Score"]))
            names = [best["Host"]]
        self.waiting.remove(pod)
        pod.node, pod.started = names[0], time.monotonic()
        await self.report({"type": "PodBound", "uid": pod.uid, "node": pod.node})
        self.tell("starts", pod, f"on {pod.node}")
        self.spawn(self.run(pod))

    # -- kubelets and trainers -------------------------------------------------------

    async def run(self, pod: Pod) -> None:
        await asyncio.sleep(pod.work.left)
        if pod.uid in self.pods and not pod.ending:
            await self.gone(pod, "finished")

    async def obey(self) -> None:
        """Perform the service's wishes and acknowledge them."""
        after = 0
        while True:
            query = {"wait": "20s", "after": str(after)}
            async with self.session.get("/v1/actions", params=query) as answer:
                wishes = await answer.json()
            after = wishes["last"]
            for wish in wishes["actions"]:
                pod = self.pods.get(wish["uid"])
                if pod is not None:
                    doing = {"CheckpointRequest": self.checkpoint, "Evict": self.evict}
                    self.spawn(doing[wish["type"]](pod))
            ids = [wish["id"] for wish in wishes["actions"]]
            if ids:
                await self.post("/v1/actions/ack", {"ids": ids})

    async def checkpoint(self, pod: Pod) -> None:
        self.tell("asked", pod, "to save its work")
        await asyncio.sleep(CHECKPOINT_S)
        pod.saved = time.monotonic() - pod.started
        await self.report({"type": "CheckpointDone", "uid": pod.uid})
        self.tell("saved", pod, f"after {pod.saved:.0f} s of work")

    async def evict(self, pod: Pod) -> None:
        if pod.ending:
            return
        pod.ending = True
        await asyncio.sleep(SHUTDOWN_S)
        await self.gone(pod, "evicted")
        if not any(other.work is pod.work for other in self.pods.values()):
            pod.work.left = max(1.0, pod.work.left - pod.saved)
            self.submit(pod.work)

    async def gone(self, pod: Pod, why: str) -> None:
        del self.pods[pod.uid]
        if pod in self.waiting:
            self.waiting.remove(pod)
        await self.report({"type": "PodGone", "uid": pod.uid})
        self.tell(why, pod, f"leaves {pod.node}")

    # -- the wire --------------------------------------------------------------------

    async def report(self, *events: dict[str, str]) -> None:
        body = "".join(json.dumps(event) + "\n" for event in events)
        async with self.session.post("/v1/events", data=body) as answer:
            await expect_ok(answer)

    async def post(self, path: str, body: object) -> Any:
        async with self.session.post(path, json=body) as answer:
            await expect_ok(answer)
            return await answer.json()

    async def tenants(self) -> dict[str, dict[str, float]]:
        """GPUs guaranteed, used, burst and on their way out, per tenant."""
        async with self.session.get("/v1/tenants") as answer:
            rows = (await answer.json())["tenants"]
        return {row["tenant"]: {k: row[k]["gpus"] for k in FIGURES} for row in rows}


async def expect_ok(answer: aiohttp.ClientResponse) -> None:
    """Fail with what the service says is wrong."""
    if answer.status != 200:
        raise RuntimeError(f"{answer.url}: {answer.status} {await answer.text()}")


def manifest(pod: Pod) -> dict[str, object]:
    """Write the pod as kube-scheduler would send it."""
    annotations = {"fairshare.dev/checkpoint-interval": "60s"}
    if pod.work.pods > 1:
        annotations["fairshare.dev/gang"] = pod.work.name
        annotations["fairshare.dev/gang-min-member"] = str(pod.work.pods)
    return {
        "metadata": {
            "name": pod.uid,
            "namespace": pod.work.namespace,
            "uid": pod.uid,
            "annotations": annotations,
        },
        "spec": {
            "priorityClassName": pod.work.priority_class,
            "containers": [
                {
                    "name": "main",
                    "resources": {"limits": {"nvidia.com/gpu": str(pod.work.gpus)}},
                }
            ],
        },
    }
