"""A real service on free loopback ports, in a thread of the test's own process."""

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from scheduler.config import parse_config
from scheduler.extender import Extender
from scheduler.rpc import RpcServer
from scheduler.service import Standalone

T = TypeVar("T")

FLEET = """
server: {listen: "127.0.0.1:0", grpcListen: "127.0.0.1:0", maxBody: 256Ki}
policy: {checkpointNotice: 60s, cycle: 1s, solver: {enabled: false}}
nodes:
  - {name: "n{i}", count: 2, gpuClass: h100-80gb, gpus: 8}
  - {name: m0, gpuClass: h100-80gb, gpus: 1, mig: [{gpus: 1, slices: {1g.10gb: 7}}]}
tenants:
  - {name: a, namespaces: [team-a], guarantee: {h100-80gb: 8}}
  - {name: b, namespaces: [team-b], guarantee: {h100-80gb: 8}, limit: {h100-80gb: 12}}
"""
NODES = ["n0", "n1", "m0"]


class FakeClock:
    """Time that passes only when a test says so, seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Reply:
    """Status, headers and body of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an answer that is not 200: exactly one key, one line."""
        assert self.status != 200
        assert self.headers["Content-Type"] == "application/json"
        assert b"\n" not in self.body
        (message,) = self.json.values()
        assert list(self.json) == ["Error"]
        return str(message)


@dataclass
class Live:
    """A running service and how to reach it."""

    service: Standalone
    loop: asyncio.AbstractEventLoop
    clock: FakeClock
    address: tuple[str, int] = ("", 0)
    grpc: str = ""
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def on_loop(self, call: Callable[[], T]) -> T:
        """Run something where the service runs."""

        async def run() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def state(self) -> Any:
        """Everything a refused body must leave as it was."""
        service = self.service

        def read() -> Any:
            roster = service._roster
            return (
                service._engine.version,
                service._engine.tenants(0.0),
                service._engine.queue(0.0),
                service._engine.capacity(),
                (dict(roster.nodes), dict(roster.pods), dict(roster.bound)),
                (service.outbox.last, len(service.outbox)),
            )

        return self.on_loop(read)

    def cycle(self) -> None:
        """Let lane 1 look at the queue now."""
        self.on_loop(self.service._cycle)

    def hold_still(self) -> None:
        """Stop the cycle, for tests that look between two looks at the queue."""
        task = self.service._cycling
        assert task is not None
        self.on_loop(task.cancel)

    def call(
        self, method: str, path: str, body: Any = None, timeout: float = 10.0
    ) -> Reply:
        """Make one call on a connection of its own."""
        with contextlib.closing(
            http.client.HTTPConnection(*self.address, timeout=timeout)
        ) as connection:
            return exchange(connection, method, path, body)

    def post(self, path: str, body: Any) -> Reply:
        return self.call("POST", path, body)

    def get(self, path: str) -> Reply:
        return self.call("GET", path)

    def report(self, *events: dict[str, Any]) -> Reply:
        """Send a batch of events."""
        return self.post("/v1/events", lines(*events))

    def filter(self, pod: dict[str, Any], names: list[str] | None = None) -> Any:
        """Ask filter, which must answer."""
        reply = self.post("/filter", args(pod, NODES if names is None else names))
        assert reply.status == 200, reply.body
        return reply.json


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None
) -> Reply:
    """Make one call on a connection that stays open."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return Reply(response.status, dict(response.getheaders()), response.read())


def lines(*events: dict[str, Any]) -> bytes:
    """Events as NDJSON."""
    return b"\n".join(json.dumps(event).encode() for event in events)


def args(pod: dict[str, Any], names: list[str] | None) -> dict[str, Any]:
    """ExtenderArgs with nodeCacheCapable."""
    return {"Pod": pod, "Nodes": None, "NodeNames": names}


def pod_json(
    uid: str,
    namespace: str = "team-a",
    gpus: int | str = 1,
    *,
    priority_class: str | None = None,
    resource: str = "nvidia.com/gpu",
    **annotations: str,
) -> dict[str, Any]:
    """A pod as the API server writes it; keyword ``gang_min_member`` etc. annotate."""
    notes = {f"fairshare.dev/{k.replace('_', '-')}": v for k, v in annotations.items()}
    limits = {resource: str(gpus)} if gpus else {}
    return {
        "metadata": {
            "uid": uid,
            "name": f"pod-{uid}",
            "namespace": namespace,
            "annotations": notes,
            "creationTimestamp": None,
        },
        "spec": {
            "containers": [{"name": "main", "resources": {"limits": limits}}],
            "priorityClassName": priority_class,
        },
        "status": {"phase": "Pending"},
    }


def occupy(live: Live) -> None:
    """Let tenant a hold both nodes, one of them as burst."""
    for uid, node in (("v1", "n0"), ("v2", "n1")):
        bound = {"type": "PodBound", "uid": uid, "node": node}
        assert live.report({**bound, "pod": pod_json(uid, gpus=8)}).status == 200
    live.clock.now += 3600


@contextlib.contextmanager
def serving(config: str = FLEET, *, start: bool = True) -> Iterator[Live]:
    """Run a service; without `start` it listens and is not ready."""
    ready: threading.Event = threading.Event()
    box: list[Live] = []

    async def run() -> None:
        settings, clock = parse_config(config), FakeClock()
        service = Standalone(settings, clock)
        live = Live(service, asyncio.get_running_loop(), clock)
        extender = Extender(service, settings)
        rpc = RpcServer(service, settings.server.grpc_listen)
        live.address = await extender.start()
        host, port = await rpc.start()
        live.grpc = f"{host}:{port}"
        if start:
            await service.start()
        box.append(live)
        ready.set()
        await live.stop.wait()
        service.drain()
        await extender.stop()
        await rpc.stop(0)
        await service.stop()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(10), "the service did not start"
    live = box[0]
    try:
        yield live
    finally:
        live.loop.call_soon_threadsafe(live.stop.set)
        thread.join(15)
        assert not thread.is_alive()
