"""An API server that keeps objects, applies our writes, and has bad days on demand.

Pods and Jobs are kept as JSON, with versions and preconditions as the real server has
them; lists and watches are served for the informers, or `news` are taken by hand, late
and in whatever lumps a test likes. What stands in for the network is `weather`: it may
answer in the server's place, before a write is applied or after, or take its time.
"""

import asyncio
import contextlib
import copy
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.kube.apiserver import event, hang_up, status

Json = dict[str, Any]
Handler = Callable[[], web.Response]
Weather = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
"""Answers a request, by the handler or otherwise."""

GATE = "fairshare.dev/admission"


class RefusedError(Exception):
    """A status in place of an answer."""

    def __init__(self, code: int, reason: str, message: str = "", **more: Any) -> None:
        super().__init__(message)
        self.code = code
        self.body = status(code, reason, message, **more)


async def fair(_: web.Request, handle: Handler) -> web.StreamResponse:
    """A good day."""
    return handle()


@dataclass
class Store:
    """Objects by path, and what has been asked for."""

    objects: dict[str, Json] = field(default_factory=dict)
    version: int = 100
    history: list[tuple[int, str, str, Json]] = field(default_factory=list)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    weather: Weather = fair
    on_change: Callable[[str, Json], None] = lambda _path, _new: None
    budgeted: set[str] = field(default_factory=set)
    grace: bool = True
    closed: bool = False
    under_way: int = 0
    most_under_way: int = 0
    port: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    # -- what is there -------------------------------------------------------------

    def put(self, path: str, obj: Json) -> Json:
        """Create or replace an object."""
        self.version += 1
        kind = "MODIFIED" if path in self.objects else "ADDED"
        obj = copy.deepcopy(obj)
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.objects[path] = obj
        self._record(kind, path, obj)
        return obj

    def put_pod(self, pod: Json) -> str:
        """Create or replace a pod; return its path."""
        path = pod_path(pod["metadata"]["name"], pod["metadata"]["namespace"])
        self.put(path, pod)
        return path

    def change(self, path: str, change: Callable[[Json], None]) -> Json:
        """Let somebody change an object."""
        fresh = copy.deepcopy(self.objects[path])
        change(fresh)
        return self.put(path, fresh)

    def remove(self, path: str) -> None:
        """Delete an object for good."""
        self.version += 1
        gone = self.objects.pop(path)
        self._record("DELETED", path, gone)

    def _record(self, kind: str, path: str, obj: Json) -> None:
        self.history.append((self.version, kind, path, obj))
        self._news.set()
        self._news = asyncio.Event()

    def counts(self) -> Counter[str]:
        """How often what was asked for, by method and last word of the path."""
        words = (f"{method} {_last_word(path)}" for method, path, _ in self.asked)
        return Counter(words)

    # -- writes --------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        text = await request.read()
        body = json.loads(text) if text else None
        if self.closed:
            return web.json_response(status(403, "Forbidden"), status=403)
        if request.method == "GET":
            return await self._read(request)
        self.asked.append((request.method, request.path, body))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self.weather(request, lambda: self._write(request, body))
        finally:
            self.under_way -= 1

    def _write(self, request: web.Request, body: Any) -> web.Response:
        path = request.path
        try:
            if request.method == "PATCH":
                return web.json_response(self._patch(path, body))
            if request.method == "DELETE":
                return web.json_response(self._delete(path, body))
            if path.endswith("/eviction"):
                options = body.get("deleteOptions") or {}
                return web.json_response(
                    self._evict(path[: -len("/eviction")], options)
                )
            if request.method == "PUT":
                return web.json_response(self._replace(path, body))
            return web.json_response(body, status=201)
        except RefusedError as refusal:
            return web.json_response(refusal.body, status=refusal.code)

    def _find(self, path: str, conditions: Json) -> Json:
        found = self.objects.get(path)
        if found is None:
            raise RefusedError(404, "NotFound", path)
        metadata = found["metadata"]
        version = conditions.get("resourceVersion", metadata["resourceVersion"])
        if version != metadata["resourceVersion"]:
            raise RefusedError(409, "Conflict", "the object has been modified")
        return found

    def _patch(self, path: str, body: Json) -> Json:
        is_status = path.endswith("/status")
        path = path.removesuffix("/status")
        found = self._find(path, body["metadata"])
        if body["metadata"]["uid"] != found["metadata"]["uid"]:
            raise RefusedError(422, "Invalid", "metadata.uid: field is immutable")
        fresh = copy.deepcopy(found)
        notes = fresh["metadata"].setdefault("annotations", {})
        _merge(notes, body["metadata"].get("annotations", {}))
        if is_status:
            _merge(fresh["status"], body.get("status", {}))
        else:
            _merge_spec(fresh["spec"], dict(body.get("spec", {})))
        if fresh == found:
            return found
        self.on_change(path, fresh)
        return self.put(path, fresh)

    def _replace(self, path: str, body: Json) -> Json:
        path = path.removesuffix("/status")
        fresh = copy.deepcopy(self._find(path, body["metadata"]))
        fresh["status"] = body["status"]
        return self.put(path, fresh)

    def _delete(self, path: str, body: Json) -> Json:
        conditions = (body or {}).get("preconditions", {})
        found = self._find(path, conditions)
        if conditions.get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
            raise RefusedError(409, "Conflict", "the UID in the precondition differs")
        self.remove(path)
        return found

    def _evict(self, path: str, options: Json) -> Json:
        found = self._find(path, {})
        if options["preconditions"]["uid"] != found["metadata"]["uid"]:
            raise RefusedError(409, "Conflict", "the UID in the precondition differs")
        if path in self.budgeted:
            causes = [
                {"reason": "DisruptionBudget", "message": "the budget b needs it"}
            ]
            message = "Cannot evict pod as it would violate its disruption budget."
            details = {"causes": causes, "retryAfterSeconds": 10}
            raise RefusedError(429, "TooManyRequests", message, details=details)
        if self.grace:
            when = "2026-11-21T12:00:00Z"
            self.change(
                path, lambda pod: pod["metadata"].update(deletionTimestamp=when)
            )
        else:
            self.remove(path)
        return {"kind": "Status", "status": "Success"}

    # -- lists and watches ----------------------------------------------------------

    async def _read(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await self._watch(request)
        items = [o for p, o in self.objects.items() if _collection(p, request.path)]
        meta = {"resourceVersion": str(self.version)}
        return web.json_response({"kind": "List", "metadata": meta, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        version = int(request.query["resourceVersion"])
        seen = 0
        with contextlib.suppress(ConnectionError):
            while True:
                news = self._news
                for change, kind, path, obj in self.history[seen:]:
                    if change > version and _collection(path, request.path):
                        await response.write(event(kind, obj))
                seen = len(self.history)
                await news.wait()
        return response


def pod_path(name: str, space: str = "team-a") -> str:
    return f"/api/v1/namespaces/{space}/pods/{name}"


def job_path(name: str = "train", space: str = "team-a") -> str:
    return f"/apis/batch/v1/namespaces/{space}/jobs/{name}"


def _last_word(path: str) -> str:
    word = path.rsplit("/", 1)[1]
    return word if word in ("status", "eviction", "events") else path.split("/")[-2]


def _collection(path: str, asked: str) -> bool:
    """Whether an object is in a collection, that of a namespace or of all of them."""
    parts, words = path.split("/"), asked.split("/")
    own = parts[:-1]
    if "namespaces" in own and "namespaces" not in words and len(own) > 4:
        at = own.index("namespaces")
        own = own[:at] + own[at + 2 :]
    return own == words


def _merge(target: Json, changes: Json) -> None:
    for key, value in changes.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = value


def _merge_spec(spec: Json, changes: Json) -> None:
    for gate in changes.pop("schedulingGates", ()):
        assert gate["$patch"] == "delete"
        there = [
            g for g in spec.get("schedulingGates", ()) if g["name"] != gate["name"]
        ]
        spec["schedulingGates"] = there
    _merge(spec, changes)


@contextlib.asynccontextmanager
async def serving(store: Store) -> AsyncIterator[Store]:
    """Serve on a free port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", store.handle)
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    store.port = runner.addresses[0][1]
    try:
        yield store
    finally:
        await runner.cleanup()


def refusing(code: int, reason: str = "", **headers: str) -> Weather:
    """Refuse everything, and apply nothing."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(_: web.Request, __: Handler) -> web.StreamResponse:
        return web.json_response(status(code, reason), status=code, headers=names)

    return answer


async def cutting(request: web.Request, handle: Handler) -> web.StreamResponse:
    """Apply what is asked, and cut the connection: nobody knows."""
    handle()
    hang_up(request)
    return web.Response()
