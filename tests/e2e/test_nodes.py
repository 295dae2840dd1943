"""Nodes as they are found, as they come and go, and what others use of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.controlplane import objects
from tests.controlplane.client import MERGE, Client, Object
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

CLASSES = "fairshare.dev/gpu-classes"
MIXED = {"gpus": 2, "mig": {"3g.40gb": 2}, "mig_strategy": "mixed"}
SINGLE = {"gpus": 1, "mig": {"3g.40gb": 2}, "mig_strategy": "single"}
SLICE = "nvidia.com/mig-3g.40gb"


@dataclass
class Story:
    """A tenant, and nodes that a test makes as it goes."""

    service: Fairshare
    client: Client
    space: str
    begin: str

    def ask(self, name: str, gpus: int = 8, *, of: str = "", **more: Any) -> None:
        """Create a pod at the gate; `of` lists the GPU classes it accepts."""
        if of:
            more["annotations"] = {CLASSES: of, **more.get("annotations", {})}
        self.client.create(gated(name, self.space, gpus, **more))

    def runs(self, name: str) -> str:
        return node_of(self.client, name, self.space)

    def waits(self, name: str) -> str:
        """Why a pod waits, once it is known."""
        path = f"{self.space}/{name}"
        until(f"{name} is known", lambda: self.service.knows(path))
        assert not self.runs(name)
        return str(self.service.explain(path)["reason"])

    def is_left(self, name: str) -> bool:
        """Whether a pod goes on: neither stopped nor asked to."""
        metadata = self.client.get("pods", name, self.space)["metadata"]
        asked = "fairshare.dev/checkpoint-deadline" in metadata["annotations"]
        return not asked and "deletionTimestamp" not in metadata

    def used(self) -> float:
        """GPUs that the tenant is charged for."""
        return self.service.metric("fairshare_used_gpus")

    def capacity(self) -> float:
        return self.service.metric("fairshare_capacity_gpus")

    def misplanned(self, *names: str) -> list[str]:
        """Those of the pods, all bound, that were planned on another node as well.

        Filter does not see those: kube-scheduler only asks about nodes it could use.
        """
        nodes = {name: {self.runs(name)} for name in names}
        left = set(names)
        with self.client.watch("pods", self.space, since=self.begin) as changes:
            for _, pod in changes:
                name = pod["metadata"]["name"]
                if name in left:
                    nodes[name].add(pod["status"].get("nominatedNodeName", ""))
                    left -= {name} if pod["spec"].get("nodeName") else set()
                if not left:
                    break
        return [name for name in names if len(nodes[name] - {""}) > 1]

    def is_sound(self) -> bool:
        return "a cycle failed" not in self.service.log.read_text()

    def offer(self, node: str, gpus: int) -> None:
        """Let a node's device plugin report so many healthy GPUs."""
        body = {"status": {"allocatable": {objects.GPU: str(gpus)}}}
        self.client.patch("nodes", node, body, subresource="status")


@contextmanager
def story_of(
    plane: ControlPlane, *nodes: Object, guarantee: int = 8
) -> Iterator[Story]:
    client, space = plane.client, plane.new_namespace()
    client.create_all(nodes)
    with fairshare(plane, {"checkpointNotice": "1s"}) as service:
        promised = {"guarantee": {H100: guarantee}} if guarantee else {}
        client.create(tenant("alpha", space, **promised))
        begin = client.request("GET", "/api/v1/pods")["metadata"]["resourceVersion"]
        story = Story(service, client, space, begin)
        yield story
        assert story.is_sound()


# -- what a node has ------------------------------------------------------------------


def test_a_pod_gets_the_class_that_it_lists(plane: ControlPlane) -> None:
    """Whatever else is idle; and kube-scheduler is bound to it as well."""
    a100 = {"product": "NVIDIA-A100-SXM4-80GB", "memory_mib": 81_920}
    nodes = (objects.node("h"), objects.node("a", **a100))
    with story_of(plane, *nodes) as story:
        story.ask("first", 4, of="a100-80gb")
        story.ask("second", 4, of="h100-80gb,a100-80gb")
        story.ask("neither", 1, of="b200-192gb")
        until("the first runs", lambda: story.runs("first") == "a")
        until("the second runs", lambda: story.runs("second") == "h")
        assert story.waits("neither") == "UNKNOWN_CLASS"
        terms = story.client.get("pods", "first", story.space)["spec"]["affinity"]
        assert "NVIDIA-A100-SXM4-80GB" in str(terms)
        assert "H100" not in str(terms)


def test_a_pod_gets_the_model_that_it_selects_by_label(plane: ControlPlane) -> None:
    """As everybody does; the gate is opened for one model, so the plan must know it."""
    a100 = {"product": "NVIDIA-A100-SXM4-80GB", "memory_mib": 81_920}
    nodes = (objects.node("h"), objects.node("a", **a100))
    with story_of(plane, *nodes, guarantee=0) as story:
        for name, product, node in (
            ("p0", "NVIDIA-H100-80GB-HBM3", "h"),
            ("p1", "NVIDIA-A100-SXM4-80GB", "a"),
        ):
            story.ask(name, 4, nodeSelector={"nvidia.com/gpu.product": product})
            until(f"{name} runs", lambda n=name, at=node: story.runs(n) == at)
        assert not story.misplanned("p0", "p1")


@pytest.mark.parametrize("sharing", ["time-slicing", "mps"])
def test_shared_gpus_serve_only_pods_that_list_them(
    plane: ControlPlane, sharing: str
) -> None:
    """Who asks for a GPU must not get a quarter of one."""
    a10 = {"product": "NVIDIA-A10", "memory_mib": 23_028}
    node = objects.node("n0", gpus=1, replicas=4, sharing=sharing, **a10)
    with story_of(plane, node, guarantee=0) as story:
        story.ask("whole", 1)
        story.ask("named", 1, of="a10-24gb")
        for name in ("s0", "s1"):
            story.ask(name, 2, of="a10-24gb/shared-4")
        until("the others run", lambda: story.runs("s0") and story.runs("s1"))
        assert story.waits("whole") == "UNKNOWN_CLASS"
        assert story.waits("named") == "UNKNOWN_CLASS"
        assert story.used() == 1
        story.ask("s2", 1, of="a10-24gb/shared-4")
        assert story.waits("s2") == "NO_ROOM"


def test_slices_of_a_mixed_node_and_its_whole_gpus_are_different_things(
    plane: ControlPlane,
) -> None:
    """One of its two GPUs is whole, the other is two slices."""
    with story_of(plane, objects.node("n0", **MIXED), guarantee=0) as story:
        for name in ("s0", "s1", "s2"):
            story.ask(name, 1, resource=SLICE)
            until(f"{name} is known", lambda n=name: story.runs(n) or n == "s2")
        for name in ("w0", "w1"):
            story.ask(name, 1)
            until(f"{name} is known", lambda n=name: story.runs(n) or n == "w1")
        assert story.waits("s2") == "NO_ROOM"
        assert story.waits("w1") == "NO_ROOM"
        assert story.used() == 2
        assert not story.misplanned("s0", "s1", "w0")


def test_slices_of_a_single_node_are_no_whole_gpus(plane: ControlPlane) -> None:
    """It calls its slices GPUs: only who lists the profile means them."""
    with story_of(plane, objects.node("n0", **SINGLE), guarantee=0) as story:
        story.ask("whole", 1)
        story.ask("slice", 2, of="h100-80gb/3g.40gb")
        until("the other runs", lambda: story.runs("slice"))
        assert story.waits("whole") == "UNKNOWN_CLASS"
        assert story.used() == 1


@pytest.mark.parametrize("mixed", ["n0", "n1"])
def test_slices_are_found_by_the_name_that_they_are_asked_for(
    plane: ControlPlane, mixed: str
) -> None:
    """Mixed and single nodes call the same slice by different names."""
    single = "n1" if mixed == "n0" else "n0"
    nodes = (objects.node(mixed, **MIXED), objects.node(single, **SINGLE))
    with story_of(plane, *nodes, guarantee=0) as story:
        for name in ("m0", "m1"):
            story.ask(name, 1, resource=SLICE)
            until(f"{name} runs", lambda n=name: story.runs(n) == mixed)
        for name in ("s0", "s1"):
            story.ask(name, 1, of="h100-80gb/3g.40gb")
            until(f"{name} runs", lambda n=name: story.runs(n) == single)


# -- nodes that come and go ---------------------------------------------------------

OUT = {
    "cordoned": {"spec": {"unschedulable": True}},
    "hanging": {"metadata": {"annotations": objects.hangs()}},
    "tainted": {"spec": {"taints": [{"key": "broken", "effect": "NoSchedule"}]}},
}
BACK = {
    "cordoned": {"spec": {"unschedulable": None}},
    "hanging": {"metadata": {"annotations": objects.hangs(False)}},
    "tainted": {"spec": {"taints": None}},
}


@pytest.mark.parametrize("how", list(OUT))
def test_a_node_that_is_out_keeps_its_pods_and_gets_no_new_ones(
    plane: ControlPlane, how: str
) -> None:
    """What runs there is still charged; what comes waits until it is back."""
    with story_of(plane, *objects.nodes(2), guarantee=16) as story:
        story.ask("stays", 4)
        until("it runs", lambda: story.runs("stays"))
        node = story.runs("stays")
        other = "n1" if node == "n0" else "n0"
        story.client.patch("nodes", node, OUT[how], form=MERGE)
        until("it is out", lambda: _is_out(story.client, node))
        story.ask("first", 8)
        until("it runs elsewhere", lambda: story.runs("first") == other)
        story.ask("second", 4)
        assert story.waits("second") == "NO_ROOM"
        time.sleep(1)
        assert not nominated(story.client, "second", story.space)
        assert story.is_left("stays")
        assert story.used() == 12
        story.client.patch("nodes", node, BACK[how], form=MERGE)
        until("it is used again", lambda: story.runs("second") == node)
        assert not story.misplanned("stays", "first", "second")


def _is_out(client: Client, name: str) -> bool:
    node = client.get("nodes", name)
    ready = {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"]
    return bool(node["spec"].get("taints")) or ready != "True"


def test_a_node_that_disappears_and_returns_still_has_its_pods(
    plane: ControlPlane,
) -> None:
    """A node object that is deleted by mistake stops no kubelet."""
    with story_of(plane, *objects.nodes(2), guarantee=16) as story:
        story.ask("a", 8)
        story.ask("b", 8)
        until("both run", lambda: story.runs("a") and story.runs("b"))
        node = story.runs("a")
        story.client.delete("nodes", node)
        until("it is gone", lambda: story.capacity() == 8)
        story.ask("c", 8)
        assert story.waits("c") == "NO_ROOM"
        assert story.is_left("b")
        story.client.create(objects.node(node))
        until("it is back", lambda: story.capacity() == 16)
        time.sleep(1)
        assert not nominated(story.client, "c", story.space)
        assert story.is_left("a")
        story.client.delete("pods", "a", story.space)
        until("the next one runs", lambda: story.runs("c") == node)


def test_a_gpu_that_fails_under_running_pods_costs_nobody_their_pod(
    plane: ControlPlane,
) -> None:
    """Whoever sits on it will notice; we neither evict nor plan on what is lost."""
    with story_of(plane, objects.node("n0")) as story:
        story.ask("a", 4)
        story.ask("b", 4)
        until("both run", lambda: story.runs("a") and story.runs("b"))
        story.offer("n0", 4)
        until("it is noticed", lambda: story.capacity() == 4)
        story.ask("c", 2)
        assert story.waits("c") == "NO_ROOM"
        time.sleep(1)
        assert story.is_left("a")
        assert story.is_left("b")
        assert story.used() == 8
        story.client.delete("pods", "a", story.space)
        until("one is gone", lambda: story.used() == 4)
        time.sleep(1)
        assert not nominated(story.client, "c", story.space)
        story.offer("n0", 6)
        until("the next one runs", lambda: story.runs("c"))
        assert not story.misplanned("b", "c")


# -- what pods take ------------------------------------------------------------------


def _container(name: str, gpus: int, **more: Any) -> Object:
    asked = {objects.GPU: str(gpus)}
    resources = {"limits": asked, "requests": {**asked, "cpu": "100m"}}
    return {"name": name, "image": "hollow", "resources": resources, **more}


def test_init_containers_and_sidecars_count_as_kubernetes_counts_them(
    plane: ControlPlane,
) -> None:
    """Too little would be refused by kube-scheduler, too much would lie idle."""
    with story_of(plane, objects.node("n0")) as story:
        story.ask("init", 1, initContainers=[_container("prepare", 3)])
        sidecar = _container("side", 2, restartPolicy="Always")
        story.ask("side", 2, initContainers=[sidecar, _container("prepare", 1)])
        until("both run", lambda: story.runs("init") and story.runs("side"))
        assert story.used() == 3 + 4
        story.ask("two", 2)
        story.ask("one", 1)
        until("what fits runs", lambda: story.runs("one"))
        assert story.waits("two") == "NO_ROOM"
        assert not story.misplanned("init", "side", "one")


@pytest.mark.parametrize(
    "room", [{"cpu": "10", "memory": "1000Gi"}, {"cpu": "1000", "memory": "10Gi"}]
)
def test_nothing_is_planned_where_others_use_the_cpu_or_memory(
    plane: ControlPlane, room: dict[str, str]
) -> None:
    """Pods without GPUs are kube-scheduler's; what they use is not ours to plan."""
    with story_of(plane, *objects.nodes(2, **room)) as story:
        taken = objects.pod("cpu", story.space, 0, cpu="8", memory="8Gi", nodeName="n0")
        story.client.create(taken)
        until("it runs", lambda: _phase(story, "cpu") == "Running")
        for name in ("a", "b", "c"):
            story.ask(name, 1, cpu="3", memory="3Gi")
        until("all run", lambda: all(story.runs(n) for n in ("a", "b", "c")))
        assert [story.runs(n) for n in ("a", "b", "c")] == ["n1"] * 3
        story.ask("d", 1, cpu="3", memory="3Gi")
        assert story.waits("d") == "NO_ROOM"
        story.client.delete("pods", "cpu", story.space)
        until("its room is used", lambda: story.runs("d") == "n0")
        assert not story.misplanned("a", "b", "c", "d")


def test_gpus_that_nobody_is_charged_for_are_not_planned_on(
    plane: ControlPlane,
) -> None:
    """A pod that somebody put on a node by hand, in a namespace of no tenant."""
    stranger = plane.new_namespace("stranger")
    plane.client.create_all(objects.nodes(2))
    taken = objects.pod("taken", stranger, 6, nodeName="n0")
    plane.client.create(taken)
    with story_of(plane) as story:
        story.ask("a", 8)
        until("it runs", lambda: story.runs("a") == "n1")
        story.ask("b", 4)
        assert story.waits("b") == "NO_ROOM"
        story.client.delete("pods", "taken", stranger)
        until("the next one runs", lambda: story.runs("b") == "n0")
        assert story.used() == 12
        assert not story.misplanned("a", "b")


def _phase(story: Story, pod: str) -> str:
    return str(story.client.get("pods", pod, story.space)["status"]["phase"])
