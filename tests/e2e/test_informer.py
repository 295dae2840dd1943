"""The informer and the API's caller, against the real API server."""

import asyncio
import contextlib
import itertools
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from scheduler.codec.objects import PodObject
from scheduler.kube.api import Api, ApiError
from scheduler.kube.informer import Informer
from tests.controlplane import objects
from tests.controlplane.build import Binaries
from tests.controlplane.client import Client, eventually
from tests.controlplane.plane import ControlPlane

PODS = "/api/v1/pods"
NewNamespace = Callable[..., str]
_NUMBERS = itertools.count(1)


class Sink:
    """What is known of each pod: all that a state must agree in."""

    def __init__(self) -> None:
        self.state: dict[str, tuple[Any, ...]] = {}
        self.ended: list[str] = []
        self.first: Callable[[], None] | None = None

    def changed(self, pod: PodObject) -> None:
        assert pod.metadata.uid not in self.ended
        self.state[pod.metadata.uid] = (
            pod.metadata.name,
            pod.metadata.resource_version,
            pod.metadata.annotations or {},
            pod.metadata.deletion_timestamp,
        )
        if self.first is not None:
            first, self.first = self.first, None
            first()

    def gone(self, uid: str) -> None:
        self.ended.append(uid)
        self.state.pop(uid, None)


def truth(client: Client) -> dict[str, tuple[Any, ...]]:
    """The same from a list in one piece."""
    return {
        pod["metadata"]["uid"]: (
            pod["metadata"]["name"],
            pod["metadata"]["resourceVersion"],
            pod["metadata"].get("annotations", {}),
            pod["metadata"].get("deletionTimestamp"),
        )
        for pod in client.items("pods")
    }


class Stage:
    """An informer of all pods, and the plane it follows."""

    def __init__(self, plane: ControlPlane, informer: Informer[PodObject]) -> None:
        self.plane = plane
        self.client = plane.client
        self.informer = informer
        self.health = informer.health
        self.sink = Sink()
        informer._sink = self.sink
        self.running: asyncio.Task[Any] | None = None

    def start(self) -> None:
        self.running = asyncio.create_task(self.informer.run())

    async def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait([self.running])

    async def until(self, probe: Callable[[], object], timeout_s: float = 30) -> None:
        async with asyncio.timeout(timeout_s):
            while not probe():
                assert self.running is None or not self.running.done()
                await asyncio.sleep(0.05)

    async def agree(self, timeout_s: float = 30) -> None:
        """Wait until the sink knows exactly what there is."""
        async with asyncio.timeout(timeout_s):
            while self.sink.state != await asyncio.to_thread(truth, self.client):
                assert self.running is None or not self.running.done()
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def staged(
    plane: ControlPlane,
    page: int = 7,
    watch_s: float = 60.0,
    query: dict[str, str] | None = None,
) -> AsyncIterator[Stage]:
    api = await Api.connect(plane.kubeconfig)
    follower: Informer[PodObject] = Informer(
        api, PODS, PodObject, Sink(), page, query, (watch_s, watch_s)
    )
    stage = Stage(plane, follower)
    try:
        yield stage
    finally:
        await stage.stop()
        await api.close()


def play(
    plane: ControlPlane, script: Callable[[Stage], Awaitable[None]], **options: Any
) -> None:
    async def run() -> None:
        async with staged(plane, **options) as stage:
            await script(stage)

    asyncio.run(run())


def create(client: Client, namespace: str, names: Sequence[str]) -> None:
    client.create_all([objects.pod(name, namespace, 0) for name in names])


def change(client: Client, namespace: str, names: Sequence[str], value: str) -> None:
    for name in names:
        client.annotate("pods", name, {"value": value}, namespace)


def delete(client: Client, namespace: str, names: Sequence[str]) -> None:
    for name in names:
        client.delete("pods", name, namespace, grace=0)


NAMES = [f"p{number}" for number in range(30)]


def stir(client: Client, namespace: str, value: str) -> None:
    """Change some, delete some, and put others in the place of two of them."""
    change(client, namespace, NAMES[:10], value)
    delete(client, namespace, NAMES[20:25])
    create(client, namespace, NAMES[20:22])


def test_follows_what_happens(plane: ControlPlane, new_namespace: NewNamespace) -> None:
    namespace = new_namespace()

    async def script(stage: Stage) -> None:
        create(stage.client, namespace, NAMES)
        stage.start()
        await stage.informer.synced.wait()
        assert stage.sink.state == truth(stage.client)
        await asyncio.to_thread(stir, stage.client, namespace, "new")
        await stage.agree()
        assert stage.health.lists == 1
        assert stage.health.failures == 0
        assert stage.health.skipped == 0
        assert len(stage.sink.ended) == 5

    play(plane, script)


def test_watches_of_a_quiet_collection_go_on(
    plane: ControlPlane, new_namespace: NewNamespace
) -> None:
    """Nobody speaks, not even in bookmarks, until somebody has something to say."""
    namespace = new_namespace()

    async def script(stage: Stage) -> None:
        stage.start()
        await stage.until(lambda: stage.health.watches == 3)
        create(stage.client, namespace, NAMES[:1])
        await stage.agree()
        assert (stage.health.lists, stage.health.failures) == (1, 0)

    play(plane, script, watch_s=2.0)


def test_bookmarks_say_how_far_it_is(
    plane: ControlPlane, new_namespace: NewNamespace
) -> None:
    """They come for what others do in the collection, shortly before a watch ends."""
    mine, others = new_namespace(), new_namespace()

    async def script(stage: Stage) -> None:
        stage.start()
        await stage.until(lambda: stage.health.watches == 1)
        listed = int(stage.informer._version)
        create(stage.client, others, NAMES[:3])
        await stage.until(lambda: stage.health.watches == 2)
        assert int(stage.informer._version) > listed
        assert stage.sink.state == {}
        assert (stage.health.lists, stage.health.failures) == (1, 0)

    play(
        plane,
        script,
        watch_s=5.0,
        query={"fieldSelector": f"metadata.namespace={mine}"},
    )


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_the_api_server_restarts(lone_plane: ControlPlane, kill: bool) -> None:
    namespace = team_of(lone_plane)

    async def script(stage: Stage) -> None:
        create(stage.client, namespace, NAMES)
        stage.start()
        await stage.agree()
        await restart(stage.plane, kill)
        await asyncio.to_thread(stir, stage.client, namespace, "after")
        await stage.agree()
        assert stage.health.failures >= 1
        assert len(stage.sink.ended) == 5

    play(lone_plane, script)


def test_a_version_that_the_server_has_forgotten(lone_plane: ControlPlane) -> None:
    """The server's memory of events is gone with it: it answers 410."""
    namespace = team_of(lone_plane)

    async def script(stage: Stage) -> None:
        create(stage.client, namespace, NAMES)
        stage.start()
        await stage.agree()
        await stage.stop()
        await asyncio.to_thread(stir, stage.client, namespace, "unseen")
        await restart(stage.plane)
        compact(stage.plane)
        stage.start()
        await stage.agree()
        assert stage.health.lists == 2
        assert len(stage.sink.ended) == 5

    play(lone_plane, script)


def test_a_list_that_expires_between_its_pages(lone_plane: ControlPlane) -> None:
    namespace = team_of(lone_plane)

    async def script(stage: Stage) -> None:
        create(stage.client, namespace, NAMES)

        def forget() -> None:
            stir(stage.client, namespace, "meanwhile")
            compact(stage.plane)
            # It could still go on from what it has in memory.
            stage.plane.restart_apiserver()

        stage.sink.first = forget
        stage.start()
        await stage.agree()
        assert stage.health.lists == 2

    play(lone_plane, script)


@pytest.fixture(scope="module")
def _lone_plane(
    binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    directory = tmp_path_factory.mktemp("lone")
    with ControlPlane(binaries, directory, manager=False, hollow_nodes=False) as plane:
        yield plane


@pytest.fixture
def lone_plane(_lone_plane: ControlPlane) -> Iterator[ControlPlane]:
    """Only etcd and the API server, which the tests may break; without pods."""
    yield _lone_plane
    _lone_plane.client.close()  # connections to a server that is gone
    _lone_plane.clear()


def team_of(plane: ControlPlane) -> str:
    """Make a namespace."""
    name = f"team-{next(_NUMBERS)}"
    plane.client.create(objects.namespace(name))
    return name


async def restart(plane: ControlPlane, kill: bool = False) -> None:
    await asyncio.to_thread(plane.restart_apiserver, kill=kill)
    plane.client.close()  # its connections have ended


def compact(plane: ControlPlane) -> None:
    """Let etcd forget all but the present."""
    etcd = f"http://127.0.0.1:{plane.ports[0]}/v3/kv/"
    found = post(etcd + "range", {"key": "AA=="})
    revision = found["header"]["revision"]
    post(etcd + "compaction", {"revision": revision, "physical": True})


def post(url: str, body: dict[str, Any]) -> Any:
    with urllib.request.urlopen(url, json.dumps(body).encode(), 10) as answer:  # noqa: S310
        return json.load(answer)


# -- calls ------------------------------------------------------------------------


def refused(plane: ControlPlane, user: str, call: Callable[[Api], Any]) -> ApiError:
    async def run() -> ApiError:
        api = await Api.connect(plane.kubeconfig_for(user))
        try:
            with pytest.raises(ApiError) as caught:
                await call(api)
        finally:
            await api.close()
        return caught.value

    return asyncio.run(run())


def healthy(client: Client, namespace: str) -> int:
    budget = client.get("poddisruptionbudgets", "b", namespace)
    return int(budget["status"].get("currentHealthy", 0))


def test_what_a_refusal_says(plane: ControlPlane, new_namespace: NewNamespace) -> None:
    namespace = new_namespace()
    client = plane.client
    labels = {"app": "guarded"}
    client.create(objects.node("one", 0))
    client.create(objects.pod("p", namespace, 0, labels=labels, nodeName="one"))
    client.create(objects.budget("b", namespace, labels, 1))
    eventually(lambda: healthy(client, namespace), 20, "the budget counts the pod")
    path = f"/api/v1/namespaces/{namespace}/pods/p"

    error = refused(plane, "alice", lambda api: api.get(path))
    assert (error.status, error.reason) == (403, "Forbidden")
    assert "alice" in error.message

    error = refused(plane, "admin", lambda api: api.get(path + "x"))
    assert (error.status, error.reason) == (404, "NotFound")

    other = (
        b'{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"other"}}'
    )
    error = refused(plane, "admin", lambda api: api.delete(path, other))
    assert (error.status, error.reason) == (409, "Conflict")

    eviction = json.dumps(
        {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": "p", "namespace": namespace},
        }
    ).encode()
    error = refused(
        plane, "admin", lambda api: api.create(path + "/eviction", eviction)
    )
    assert (error.status, error.reason) == (429, "TooManyRequests")
    assert error.causes == ("DisruptionBudget",)


def test_changes_what_it_is_told_to(
    plane: ControlPlane, new_namespace: NewNamespace
) -> None:
    namespace = new_namespace()
    collection = f"/api/v1/namespaces/{namespace}/pods"

    async def run() -> None:
        api = await Api.connect(plane.kubeconfig)
        try:
            made = objects.pod("p", namespace, 0, gated=True)
            body = json.loads(await api.create(collection, json.dumps(made).encode()))
            uid = body["metadata"]["uid"]
            note = {"metadata": {"uid": uid, "annotations": {"a": "1"}}}
            gate = {"$patch": "delete", "name": objects.GATE}
            opened = {"metadata": {"uid": uid}, "spec": {"schedulingGates": [gate]}}
            path = f"{collection}/p"
            await api.patch(path, json.dumps(note).encode())
            await api.patch(path, json.dumps(opened).encode())
            body = json.loads(await api.get(path))
            assert body["metadata"]["annotations"] == {"a": "1"}
            assert "schedulingGates" not in body["spec"]
            body["metadata"]["labels"] = {"b": "2"}
            body = json.loads(await api.replace(path, json.dumps(body).encode()))
            assert body["metadata"]["labels"] == {"b": "2"}
            await api.delete(path)
            with pytest.raises(ApiError, match="NotFound"):
                await api.get(path)
        finally:
            await api.close()

    asyncio.run(run())
