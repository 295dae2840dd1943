"""The service in this process, beside an API server of ours: what only it can do wrong.

How all of it works together is tested on a real control plane, in tests/e2e.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scheduler.config import parse_config
from scheduler.core import Engine, NodeUp, PodSubmitted, Reason
from scheduler.kube.api import ApiError
from scheduler.kube.nodes import Nodes
from scheduler.kube.tenants import Tenants
from scheduler.service import OnKubernetes
from scheduler.service import cluster as module
from scheduler.service.driver import HEALTHY_S
from tests.kube.apiserver import kubeconfig
from tests.kube.seen import H100, mark, node, pod_json
from tests.kube.sink import until
from tests.kube.stage import is_open
from tests.kube.store import Json, Store, refusing, serving

Scene = Callable[["Place"], Coroutine[Any, Any, None]]


class Place:
    """A cluster, and services that are started in it."""

    def __init__(self, store: Store, config: Path) -> None:
        self.store = store
        text = {
            "policy": {"solver": {"enabled": False}, "cycle": "200ms"},
            "kubernetes": {"kubeconfig": str(config)},
        }
        self._config = parse_config(json.dumps(text))

    @contextlib.asynccontextmanager
    async def service(self, ahead: list[float] | None = None) -> AsyncIterator[Any]:
        """Run one; the sum of `ahead` is by how much its clock is put forward."""
        service = OnKubernetes(
            self._config, lambda: time.monotonic() + sum(ahead or ())
        )
        try:
            await service.start()
            yield service
        finally:
            await service.stop()

    def add_node(self, name: str, **more: Any) -> None:
        obj = msgspec.to_builtins(node(name, **more))
        obj["metadata"] = {k: v for k, v in obj["metadata"].items() if v is not None}
        self.store.put(f"/api/v1/nodes/{name}", obj)

    def add_tenant(self, name: str, space: str, gpus: int = 8, born: int = 0) -> str:
        selector = {"matchLabels": {"name": space}}
        path = f"/apis/fairshare.dev/v1alpha1/tenants/{name}"
        when = f"2026-11-21T10:{born:02}:00Z"
        meta = {"name": name, "uid": f"uid-{name}", "creationTimestamp": when}
        spec = {"guarantee": {H100: gpus}, "namespaces": selector}
        self.store.put(path, {"metadata": {**meta, "generation": 1}, "spec": spec})
        about = {"name": space, "uid": f"uid-{space}", "labels": {"name": space}}
        self.store.put(f"/api/v1/namespaces/{space}", {"metadata": about})
        return path

    def bind_all(self) -> None:
        """Be kube-scheduler."""
        for path, found in list(self.store.objects.items()):
            at = found.get("status", {}).get("nominatedNodeName")
            if "/pods/" in path and at and is_open(found):
                self.store.change(path, lambda p, at=at: p["spec"].update(nodeName=at))


def play(folder: Path, scene: Scene) -> None:
    async def whole() -> None:
        store = Store()
        async with serving(store):
            address = f"http://127.0.0.1:{store.port}"
            await scene(Place(store, kubeconfig(folder, address, token="t")))  # noqa: S106

    asyncio.run(whole())


# -- a day like any other --------------------------------------------------------------


def test_a_pod_goes_through_the_gate_and_stays_known_over_a_restart(
    tmp_path: Path,
) -> None:
    async def scene(place: Place) -> None:
        place.add_node("n1")
        place.add_tenant("a", "team-a")
        path = place.store.put_pod(pod_json("p", 2))
        async with place.service():
            await until(lambda: is_open(place.store.objects[path]))
            place.bind_all()
        async with place.service() as service:
            assert service.explain("uid-p").reason is Reason.RUNNING
            assert service.ready
            assert service.healthy

    play(tmp_path, scene)


def test_who_runs_already_is_charged_from_the_first_decision_on(tmp_path: Path) -> None:
    """Pods are seen before anybody knows whose they are, and nobody has marked them."""

    async def scene(place: Place) -> None:
        place.add_node("n1")
        place.add_tenant("a", "team-a")
        place.store.put_pod(pod_json("old", 6, node="n1", gated=False))
        new = place.store.put_pod(pod_json("new", 4))
        async with place.service() as service:
            assert service.explain("uid-old").reason is Reason.RUNNING
            assert {row.used for row in service.tenants()} == {6 * 126_000}
            assert not is_open(place.store.objects[new])

    play(tmp_path, scene)


def test_half_a_gang_behind_its_gates_is_finished(tmp_path: Path) -> None:
    """The one before us died between two writes."""

    async def scene(place: Place) -> None:
        place.add_node("n1")
        place.add_node("n2")
        place.add_tenant("a", "team-a")
        put = place.store.put_pod
        more = {"gang": "g", "size": 2}
        text = {"mark": mark(gang="a/team-a/g", node="n2"), "nominated": "n2", **more}
        put(pod_json("p", gated=False, **text))
        q = put(pod_json("q", **text))
        alone = put(pod_json("r", 8, mark=mark(node="n2"), nominated="n2"))
        async with place.service() as service:
            await until(lambda: is_open(place.store.objects[q]))
            assert service.explain("uid-q").node == "n2"
            await until(lambda: is_open(place.store.objects[alone]))
            assert service.explain("uid-r").node == "n1"

    play(tmp_path, scene)


def test_why_a_pod_is_not_read_can_be_asked(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        place.add_tenant("a", "team-a")
        wrong = {"fairshare.dev/gpu-classes": "?"}
        place.store.put_pod(pod_json("p", notes=wrong))
        async with place.service() as service:
            for name in ("uid-p", "team-a/p"):
                found = service.explain(name)
                assert found.reason is Reason.UNREADABLE
                assert "gpu-classes" in found.detail
            assert service.explain("team-a/q") is None

    play(tmp_path, scene)


def test_statuses_are_written_and_tried_again(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        place.add_node("n1")
        path = place.add_tenant("a", "team-a")
        place.store.weather = refusing(500)
        async with place.service() as service:
            await until(lambda: place.store.counts()["PUT status"])
            place.store.weather = Store.weather
            await until(lambda: "status" in place.store.objects[path])
            assert service.healthy

    play(tmp_path, scene)


# -- what must not be forgotten, or be believed ---------------------------------


def accepted(tenant: Json) -> str:
    found = tenant.get("status", {}).get("conditions", ())
    return next((c["status"] for c in found if c["type"] == "Accepted"), "")


def test_what_was_refused_is_refused_after_a_restart_too(tmp_path: Path) -> None:
    """Nobody gets a guarantee by waiting until we know no nodes yet."""

    async def scene(place: Place) -> None:
        place.add_node("n1", gpus=8)
        first = place.add_tenant("a", "team-a", 8, born=0)
        second = place.add_tenant("b", "team-b", 8, born=1)
        for _ in range(2):
            async with place.service():
                await until(lambda: accepted(place.store.objects[second]))
            assert accepted(place.store.objects[first]) == "True"
            assert accepted(place.store.objects[second]) == "False"

    play(tmp_path, scene)


def test_guarantees_of_a_class_that_the_fleet_names_are_accepted(
    tmp_path: Path,
) -> None:
    """What a product label means is known only when the Fleet has been read."""

    async def scene(place: Place) -> None:
        place.add_node("n1", product="Mystery-GPU")
        path = place.add_tenant("a", "team-a")
        meta = {"name": "default", "uid": "fleet", "generation": 1}
        fleet = {"metadata": meta, "spec": {"classes": {"Mystery-GPU": H100}}}
        place.store.put("/apis/fairshare.dev/v1alpha1/fleets/default", fleet)
        async with place.service() as service:
            await until(lambda: accepted(place.store.objects[path]))
            assert accepted(place.store.objects[path]) == "True"
            assert "n1" in service._roster.nodes

    play(tmp_path, scene)


def test_a_node_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    """Autoscaled nodes have a new name each time."""

    async def scene(place: Place) -> None:
        place.add_node("n1")
        place.add_node("n2")
        async with place.service() as service:
            place.store.remove("/api/v1/nodes/n1")
            await until(lambda: list(service._roster.nodes) == ["n2"])
            place.store.remove("/api/v1/nodes/n2")
            await until(lambda: not service._roster.nodes)
            assert service._engine.capacity() == {}

    play(tmp_path, scene)


# -- when something breaks ------------------------------------------------------


def test_a_service_that_hears_no_more_decides_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says that it is not well, so that it is begun anew."""
    changed = Nodes.changed

    def broken(self: Nodes, obj: Any) -> None:
        if obj.metadata.name == "bad":
            raise KeyError("a fault of ours")
        changed(self, obj)

    monkeypatch.setattr(Nodes, "changed", broken)

    async def scene(place: Place) -> None:
        place.add_node("n1")
        place.add_tenant("a", "team-a")
        ahead: list[float] = []
        async with place.service(ahead) as service:
            place.add_node("bad")
            await until(lambda: any(task.done() for task in service._tasks))
            path = place.store.put_pod(pod_json("p"))
            await until(lambda: "uid-p" in service._mirror.pods.records)
            service._changed.set()
            await asyncio.sleep(0.3)
            assert not is_open(place.store.objects[path])
            ahead.append(HEALTHY_S + 1)
            assert not service.healthy

    play(tmp_path, scene)


def test_a_fault_with_one_event_does_not_cost_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is told once: the mirror takes it for known."""
    observe = Engine.observe

    def broken(self: Engine, event: Any, now: float) -> None:
        if isinstance(event, PodSubmitted) and event.pod.uid == "uid-a":
            raise RuntimeError("a fault of ours")
        observe(self, event, now)

    monkeypatch.setattr(Engine, "observe", broken)

    async def scene(place: Place) -> None:
        place.add_node("n1")
        place.add_tenant("a", "team-a")
        paths = [place.store.put_pod(pod_json(name)) for name in "abc"]
        async with place.service() as service:
            for path in paths[1:]:
                await until(lambda path=path: is_open(place.store.objects[path]))
            assert "a fault" in service.explain("uid-a").detail
            monkeypatch.setattr(Engine, "observe", observe)
            place.store.change(
                paths[0], lambda p: p["metadata"].update(labels={"x": "y"})
            )
            await until(lambda: is_open(place.store.objects[paths[0]]))

    play(tmp_path, scene)
    assert "a fault of ours" in caplog.text
    assert NodeUp.__name__ not in [record.message[:6] for record in caplog.records]


def test_a_fault_with_statuses_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(Tenants, "statuses", broken)
    monkeypatch.setattr(module, "PUBLISH_S", 0.01)

    async def scene(place: Place) -> None:
        place.add_node("n1")
        place.add_tenant("a", "team-a")
        async with place.service():
            await until(lambda: "statuses were not written" in caplog.text)
            path = place.store.put_pod(pod_json("p"))
            await until(lambda: is_open(place.store.objects[path]))

    play(tmp_path, scene)


def test_a_service_that_stops_writes_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its successor may be at work already; and nothing fails on the way out."""
    caplog.set_level(logging.WARNING)

    async def scene(place: Place) -> None:
        place.add_node("n1")
        place.add_tenant("a", "team-a")
        hung = asyncio.Event()

        async def slow(*_: Any) -> Any:
            hung.set()
            await asyncio.sleep(60)

        async with place.service():
            place.store.weather = slow
            path = place.store.put_pod(pod_json("p"))
            await asyncio.wait_for(hung.wait(), 5)
        asked = len(place.store.asked)
        await asyncio.sleep(0.3)
        assert len(place.store.asked) == asked
        assert not is_open(place.store.objects[path])

    play(tmp_path, scene)
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_an_api_server_that_knows_us_not_is_waited_for(tmp_path: Path) -> None:
    """And a start that is given up leaves nothing behind."""

    async def scene(place: Place) -> None:
        place.store.closed = True
        service = OnKubernetes(place._config)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await service.start()
        assert not service.ready
        await service.stop()
        assert all(task.done() for task in service._tasks)

    play(tmp_path, scene)
    assert ApiError(403).status == 403
