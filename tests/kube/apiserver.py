"""An API server that misbehaves on demand, on a real socket.

It lists in pages and watches like the real one, for one collection, and breaks where
a test says so: the network and the server's bad days are what it stands in for. How a
healthy server behaves is tested against the real one, in tests/e2e.
"""

import asyncio
import base64
import contextlib
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from scheduler.kube.api import Api

THINGS = "/apis/test/v1/things"

Answer = Callable[[web.Request], Any]


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Break:
    """How one watch goes wrong: after so many lines."""

    after: int = 0
    cut: bool = False
    line: bytes = b""


def status(code: int, reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    """Return the object that stands in place of an answer."""
    head = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return {**head, "code": code, "reason": reason, "message": message, **more}


def refuse(code: int, reason: str = "", **headers: str) -> Answer:
    """Answer with a status."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(_: web.Request) -> web.Response:
        return web.json_response(status(code, reason), status=code, headers=names)

    return answer


def hang_up(request: web.Request) -> None:
    """Cut the connection, if it is still there, instead of answering."""
    if request.transport is not None:
        request.transport.abort()


@dataclass
class FlakyServer:
    """A collection with a history, and the faults still to come."""

    things: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: int = 100
    oldest: int = 0
    history: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    faults: dict[str, deque[Answer | Break]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    seen: list[Seen] = field(default_factory=list)
    slow: bool = False
    bookmarks: bool = True
    lasts_s: float | None = None
    port: int = 0
    _made: int = 0
    _watches: list[web.Request] = field(default_factory=list)
    _snapshots: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    # -- what happens to the collection ------------------------------------------

    def put(self, name: str, value: Any = 0, filler: str = "") -> str:
        """Create or change a thing; return its UID."""
        known = self.things.get(name)
        if known is None:
            self._made += 1
        uid = known["metadata"]["uid"] if known else f"uid-{self._made}"
        self.version += 1
        meta = {"uid": uid, "name": name, "resourceVersion": str(self.version)}
        spec = {"value": value, "filler": filler}
        self.things[name] = {"kind": "Thing", "metadata": meta, "spec": spec}
        self._record("MODIFIED" if known else "ADDED", self.things[name])
        return str(uid)

    def remove(self, name: str) -> None:
        """Delete a thing, if it is there."""
        thing = self.things.pop(name, None)
        if thing is not None:
            self.version += 1
            meta = {**thing["metadata"], "resourceVersion": str(self.version)}
            self._record("DELETED", {**thing, "metadata": meta})

    def _record(self, kind: str, thing: dict[str, Any]) -> None:
        self.history.append((self.version, kind, thing))
        self.tell()

    def tell(self) -> None:
        """Wake the watches."""
        self._news.set()
        self._news = asyncio.Event()

    def compact(self) -> None:
        """Forget the past: older versions and pages under way are gone."""
        self.version += 1
        self.oldest = self.version
        self.history.clear()
        self._snapshots.clear()

    def cut_watches(self) -> None:
        """Cut every open watch."""
        for request in self._watches:
            hang_up(request)

    def state(self) -> dict[str, Any]:
        """Return what a sink must know: value by UID."""
        return {
            thing["metadata"]["uid"]: thing["spec"]["value"]
            for thing in self.things.values()
        }

    def lists(self) -> list[Seen]:
        """Requests for pages."""
        return [one for one in self.seen if "watch" not in one.query]

    def watches(self) -> list[Seen]:
        """Requests for watches."""
        return [one for one in self.seen if "watch" in one.query]

    # -- answering ---------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        body = await request.read()
        query, headers = dict(request.query), dict(request.headers)
        self.seen.append(Seen(request.method, request.path, query, headers, body))
        kind = request.method
        if request.path == THINGS and kind == "GET":
            kind = "watch" if "watch" in query else "list"
        fault = self.faults[kind].popleft() if self.faults[kind] else None
        if callable(fault):
            answer = fault(request)
            if asyncio.iscoroutine(answer):
                answer = await answer
            return answer or web.Response()
        if kind == "watch":
            return await self._watch(request, fault or Break(after=1 << 30))
        if kind == "list":
            return self._list(request)
        return web.json_response({"kind": "Thing"})

    def _list(self, request: web.Request) -> web.Response:
        limit = int(request.query["limit"])
        version, start = self.version, 0
        if token := request.query.get("continue"):
            version, start = json.loads(base64.b64decode(token))
            if version not in self._snapshots:
                return refuse(410, "Expired")(request)  # type: ignore[no-any-return]
        else:
            self._snapshots[version] = list(self.things.values())
        things = self._snapshots[version]
        meta = {"resourceVersion": str(version)}
        if start + limit < len(things):
            token = json.dumps([version, start + limit]).encode()
            meta["continue"] = base64.b64encode(token).decode()
        items = things[start : start + limit]
        return web.json_response({"kind": "List", "metadata": meta, "items": items})

    async def _watch(self, request: web.Request, fault: Break) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        self._watches.append(request)
        try:
            with contextlib.suppress(ConnectionError):
                await self._send(request, response, fault)
        finally:
            self._watches.remove(request)
        return response

    async def _send(
        self, request: web.Request, response: web.StreamResponse, fault: Break
    ) -> None:
        version, sent = int(request.query["resourceVersion"]), 0
        asked = float(request.query["timeoutSeconds"])
        deadline = _now() + (asked if self.lasts_s is None else self.lasts_s)
        while True:
            if version < self.oldest:
                gone = status(410, "Expired", "too old resource version")
                return await self._write(response, event("ERROR", gone))
            news = self._news
            for change, kind, thing in list(self.history):
                if change > version:
                    if sent >= fault.after:
                        return await self._fail(
                            request, response, fault, event(kind, thing)
                        )
                    await self._write(response, event(kind, thing))
                    version, sent = change, sent + 1
            if sent >= fault.after:
                return await self._fail(request, response, fault, b"")
            try:
                async with asyncio.timeout_at(deadline):
                    await news.wait()
            except TimeoutError:
                if self.bookmarks:
                    await self._write(response, bookmark(self.version))
                return None

    async def _fail(
        self,
        request: web.Request,
        response: web.StreamResponse,
        fault: Break,
        line: bytes,
    ) -> None:
        """End the watch before its time, in the middle of a line if need be."""
        if fault.line:
            await self._write(response, fault.line)
        if fault.cut:
            if line:
                await response.write(line[: len(line) // 2])
            hang_up(request)

    async def _write(self, response: web.StreamResponse, line: bytes) -> None:
        step = 7 if self.slow else len(line)
        for start in range(0, len(line), step):
            await response.write(line[start : start + step])


def event(kind: str, thing: dict[str, Any]) -> bytes:
    """Return a line of a watch."""
    return json.dumps({"type": kind, "object": thing}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    """Return the line that says how far the watch is."""
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def _now() -> float:
    return asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def flaky() -> AsyncIterator[FlakyServer]:
    """Serve on a free port."""
    server = FlakyServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        server.cut_watches()
        await runner.cleanup()


def kubeconfig(folder: Path, server: str, **user: Any) -> Path:
    """Write a kubeconfig; JSON is YAML."""
    path = folder / "kubeconfig"
    cluster = user.pop("cluster", {})
    parts = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(parts))
    return path


@contextlib.asynccontextmanager
async def connected(
    server: FlakyServer, folder: Path, **options: Any
) -> AsyncIterator[Api]:
    """Connect to the server as anybody does: by a kubeconfig."""
    path = kubeconfig(folder, f"http://127.0.0.1:{server.port}", token="first")  # noqa: S106
    api = await Api.connect(path, None, **options)
    try:
        yield api
    finally:
        await api.close()
