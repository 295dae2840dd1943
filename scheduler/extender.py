"""Speaks HTTP: kube-scheduler's extender verbs, health, and standalone's event door.

Hidden here: aiohttp, and the rules of the wire that kube-scheduler's client needs. An
answer that is not 200 is an error, never a rejection, and says in one line of JSON what
is wrong; there is no empty result in place of an error. Answers carry Content-Length,
idle connections stay open longer than the client's own 90 s, bodies have a limit.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from scheduler.codec import (
    CodecError,
    NodesCall,
    Readers,
    decode_acknowledgement,
    decode_events,
    decode_nodes_call,
    decode_preempt_call,
    encode_acknowledged,
    encode_all_pass,
    encode_applied,
    encode_explanation,
    encode_failure,
    encode_filtered,
    encode_preemption,
    encode_queue,
    encode_scores,
    encode_tenants,
    encode_wishes,
    pod_of,
)
from scheduler.config import Config, node_of, read_tenancy
from scheduler.core import NodeName
from scheduler.quantity import seconds
from scheduler.service import Service, Standalone

CLOSE_S = 0.5
"""Time connections have to close once no call is in flight, seconds."""

MAX_WAIT_S = 60.0
"""Longest time a poll for actions may wait, seconds."""

_SETTINGS = Readers(node=node_of, tenancy=read_tenancy)

log = logging.getLogger(__name__)

Answer = web.StreamResponse
Handler = Callable[[web.Request], Awaitable[Answer]]


class Extender:
    """The HTTP server of one service."""

    def __init__(self, service: Service, config: Config) -> None:
        self._service = service
        self._config = config.server
        self._runner: web.AppRunner | None = None
        self._in_flight = 0
        self._idle = asyncio.Event()

    async def start(self) -> tuple[str, int]:
        """Listen; return host and port."""
        app = web.Application(
            client_max_size=self._config.max_body,
            middlewares=[self._count, _failures_as_json],
        )
        self._add_routes(app)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=self._config.keep_alive,
            shutdown_timeout=CLOSE_S,
        )
        await self._runner.setup()
        host, port = self._config.listen
        site = web.TCPSite(self._runner, host, port, backlog=512)
        await site.start()
        bound_host, bound_port = self._runner.addresses[0][:2]
        return str(bound_host), int(bound_port)

    async def stop(self) -> None:
        """Accept no more, let calls in flight end, close every connection.

        aiohttp by itself would drop what is still missing of a body.
        """
        if self._runner is None:
            return
        for site in list(self._runner.sites):
            await site.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.stop_timeout):
                while self._in_flight:
                    self._idle.clear()
                    await self._idle.wait()
        await self._runner.cleanup()

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> Answer:
        """Know how many calls are in flight."""
        self._in_flight += 1
        try:
            return await handler(request)
        finally:
            self._in_flight -= 1
            self._idle.set()

    def _add_routes(self, app: web.Application) -> None:
        post, get = app.router.add_post, app.router.add_get
        post("/filter", self._verb("filter", self._filter))
        post("/prioritize", self._verb("prioritize", self._prioritize))
        post("/preempt", self._verb("preempt", self._preempt))
        if isinstance(self._service, Standalone):
            door = _Door(self._service)
            post("/v1/events", door.events)
            get("/v1/actions", door.actions)
            post("/v1/actions/ack", door.acknowledge)
        get("/v1/tenants", self._tenants)
        get("/v1/queue", self._queue)
        get("/v1/explain", self._explain)
        get("/metrics", self._metrics)
        get("/healthz", self._healthz)
        get("/readyz", self._readyz)

    # -- kube-scheduler ----------------------------------------------------------

    def _verb(self, name: str, answer: Callable[[bytes], bytes]) -> Handler:
        """Answer a verb from its body: the bytes are all that matters."""
        service, latency = self._service, self._service.metrics.latency[name]

        async def handle(request: web.Request) -> web.Response:
            body = await _read(request)
            _require_ready(service)
            with latency.time():
                return _json(answer(body))

        return handle

    def _filter(self, body: bytes) -> bytes:
        call = decode_nodes_call(body)
        known = self._service.pod(
            call.pod.metadata.uid
        )  # what else it says is old news
        pod = known or pod_of(call.pod, self._service.naming)
        if pod is None:
            return encode_all_pass(call.table)
        return encode_filtered(call.table, self._service.filter(pod, _names(call)))

    def _prioritize(self, body: bytes) -> bytes:
        call = decode_nodes_call(body)
        pod = pod_of(call.pod, self._service.naming)
        if pod is None:
            return encode_scores(call.table, [0] * len(call.table))
        return encode_scores(call.table, self._service.score(pod, _names(call)))

    def _preempt(self, body: bytes) -> bytes:
        call = decode_preempt_call(body)
        pod = pod_of(call.pod, self._service.naming)
        victims = self._service.preempt(pod, call.offers)
        return encode_preemption(victims, call.breaches)

    # -- views -------------------------------------------------------------------

    async def _tenants(self, _: web.Request) -> web.Response:
        _require_ready(self._service)
        return _json(encode_tenants(self._service.tenants()))

    async def _queue(self, _: web.Request) -> web.Response:
        _require_ready(self._service)
        return _json(encode_queue(self._service.queue(), self._service.now))

    async def _explain(self, request: web.Request) -> web.Response:
        _require_ready(self._service)
        pod = request.query.get("pod", "")
        found = self._service.explain(pod)
        if found is None:
            return _failure(404, f"pod: {pod!r} is unknown (a UID or namespace/name)")
        return _json(encode_explanation(found))

    async def _metrics(self, _: web.Request) -> web.Response:
        text = self._service.metrics.render()
        return web.Response(
            body=text,
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _healthz(self, _: web.Request) -> web.Response:
        if not self._service.healthy:
            return _failure(503, "the decision cycle has stopped")
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        _require_ready(self._service)
        if self._service.draining:
            return _failure(503, "not ready: the service is stopping")
        return web.Response(text="ready\n")


class _Door:
    """Standalone mode's event door."""

    def __init__(self, service: Standalone) -> None:
        self._service = service

    async def events(self, request: web.Request) -> web.Response:
        """Take a batch of events."""
        body = await _read(request)
        _require_ready(self._service)
        batch = decode_events(body, self._service.naming, _SETTINGS)
        return _json(encode_applied(self._service.report(batch)))

    async def actions(self, request: web.Request) -> web.Response:
        """Say what should happen."""
        wait_s = _query_seconds(request, "wait")
        after = _query_number(request, "after")
        _require_ready(self._service)
        outbox = self._service.outbox
        found = await outbox.wait(after, wait_s)
        last = found[-1].id if found else max(after, 0)
        return _json(encode_wishes(found, last, self._service.now))

    async def acknowledge(self, request: web.Request) -> web.Response:
        """Drop wishes that have been taken care of."""
        numbers = decode_acknowledgement(await _read(request))
        _require_ready(self._service)
        outbox = self._service.outbox
        unknown = [number for number in numbers if not 0 < number <= outbox.last]
        if unknown:
            problem = f"was never given out (the last is {outbox.last})"
            raise CodecError("acknowledgement", "ids", unknown[0], problem)
        return _json(encode_acknowledged(outbox.acknowledge(numbers)))


async def _read(request: web.Request) -> bytes:
    """Read the whole body; one that says it is too large is not waited for."""
    size, most = request.content_length or 0, request.client_max_size
    if size > most:
        text = f"{size} bytes are more than the limit of {most}"
        raise web.HTTPRequestEntityTooLarge(max_size=most, actual_size=size, text=text)
    return await request.read()


def _require_ready(service: Service) -> None:
    if not service.ready:
        reason = "not ready: the service is starting or stopping"
        raise web.HTTPServiceUnavailable(reason=reason)


def _names(call: NodesCall) -> list[NodeName]:
    return list(call.table)


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(
        body=body, status=status, headers={"Content-Type": "application/json"}
    )


def _failure(status: int, message: str) -> web.Response:
    return _json(encode_failure(message), status)


@web.middleware
async def _failures_as_json(request: web.Request, handler: Handler) -> Answer:
    """Turn everything that goes wrong into a status and one line of JSON."""
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge as error:
        return _failure(413, f"body: {error.text}")
    except web.HTTPException as error:
        message = f"{request.method} {request.path}: {error.reason}"
        return _failure(error.status, message)
    except ValueError as error:
        return _failure(400, str(error))
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _failure(500, "internal error, see the service's log")


def _query_seconds(request: web.Request, name: str) -> float:
    text = request.query.get(name, "0s")
    try:
        value = seconds(text)
    except ValueError as error:
        raise CodecError("query", name, text, str(error)) from error
    if value > MAX_WAIT_S:
        raise CodecError("query", name, text, f"is longer than {MAX_WAIT_S:g}s")
    return value


def _query_number(request: web.Request, name: str) -> int:
    text = request.query.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise CodecError("query", name, text, "is not a whole number")
    return int(text)
