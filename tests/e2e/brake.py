"""A proxy that can be stopped between two calls, to look at what lies between them.

In front of the API server it freezes our service in the middle of what it writes; in
front of our extender it breaks answers to kube-scheduler.
"""

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from tests.controlplane.plane import ControlPlane

HOP = {"host", "transfer-encoding", "content-length", "connection"}
"""Headers that are between two neighbours only."""


@dataclass(frozen=True)
class Call:
    """What was asked; reads are not kept."""

    method: str
    path: str
    body: bytes

    def is_about(self, pod: str) -> bool:
        return f"/pods/{pod}" in self.path

    @property
    def nominates(self) -> bool:
        """Whether it writes marks, nominations or holds."""
        return self.method == "PATCH" and self.path.endswith("/status")

    @property
    def opens(self) -> bool:
        """Whether it removes a gate."""
        return self.method == "PATCH" and b"schedulingGates" in self.body


Picks = Callable[[Call], bool]


class Brake:
    """Passes calls on; see `hold` and `answer`."""

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        self._upstream = upstream.rstrip("/")
        self._tls = tls
        self._lock = threading.Lock()
        self._picks: Picks = lambda _: False
        self._passing = 0
        self._broken: tuple[int, bytes] | None = None
        self._loop = asyncio.new_event_loop()
        self._free = asyncio.Event()
        self.calls: list[Call] = []
        self.stopped = threading.Event()
        self.url = ""

    def hold(self, picks: Picks, passing: int = 0) -> None:
        """Let so many of the picked writes pass; from the next one on all writes hang.

        `stopped` is set once one hangs.
        """
        with self._lock:
            self._picks, self._passing = picks, passing
            self._free.clear()
            self.stopped.clear()

    def release(self) -> None:
        """Let everything pass again; what hangs is refused: it is out of date."""
        with self._lock:
            self._picks = lambda _: False
            self.stopped.clear()
        self._loop.call_soon_threadsafe(self._free.set)

    def answer(self, status: int | None, body: bytes = b"") -> None:
        """Answer all calls so; None: pass them on again."""
        self._broken = None if status is None else (status, body)

    def _must_wait(self, call: Call) -> bool:
        with self._lock:
            if self.stopped.is_set():
                return True
            if self._picks(call):
                if self._passing == 0:
                    self.stopped.set()
                    return True
                self._passing -= 1
            self.calls.append(call)
            return False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self._broken is not None:
            return web.Response(status=self._broken[0], body=self._broken[1])
        call = Call(request.method, request.path, body)
        if call.method != "GET" and self._must_wait(call):
            await self._free.wait()
            return web.Response(status=503)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP}
        async with self._session.request(
            request.method,
            self._upstream + request.path_qs,
            data=body or None,
            headers=headers,
            ssl=self._tls or True,
        ) as answer:
            return await _passed_on(request, answer)

    async def serve(self) -> web.AppRunner:
        """Begin to listen."""
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(
            timeout=timeout, auto_decompress=False, read_bufsize=1 << 20
        )
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{rest:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    def run(self, ready: threading.Event) -> None:
        """Serve until `end`; the body of the proxy's thread."""
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self.serve())
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._session.close())
        self._loop.run_until_complete(runner.cleanup())
        rest = asyncio.all_tasks(self._loop)
        for task in rest:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        self._loop.close()

    def end(self) -> None:
        self.release()
        self._loop.call_soon_threadsafe(self._loop.stop)


async def _passed_on(
    request: web.Request, answer: aiohttp.ClientResponse
) -> web.StreamResponse:
    headers = {k: v for k, v in answer.headers.items() if k.lower() not in HOP}
    mine = web.StreamResponse(status=answer.status, headers=headers)
    await mine.prepare(request)
    with suppress(ConnectionError, aiohttp.ClientError):  # somebody was killed
        async for chunk in answer.content.iter_any():
            await mine.write(chunk)
        await mine.write_eof()
    return mine


@contextmanager
def brake(upstream: str, tls: ssl.SSLContext | None = None) -> Iterator[Brake]:
    """A running proxy."""
    proxy, ready = Brake(upstream, tls), threading.Event()
    thread = threading.Thread(target=proxy.run, args=(ready,), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield proxy
    finally:
        proxy.end()
        thread.join(10)


@contextmanager
def braked(plane: ControlPlane) -> Iterator[tuple[Brake, Path]]:
    """A proxy in front of the API server, and a kubeconfig that goes through it."""
    tls = ssl.create_default_context(cafile=str(plane.authority))
    with brake(plane.server, tls) as proxy, tempfile.TemporaryDirectory() as directory:
        config: dict[str, Any] = yaml.safe_load(plane.kubeconfig.read_text())
        for cluster in config["clusters"]:
            cluster["cluster"] = {"server": proxy.url}
        path = Path(directory) / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        yield proxy, path
