"""Mirror, engine and writer beside an API server of ours, driven step by step."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from aiohttp import web

from scheduler.codec import JobObject, PodObject
from scheduler.core import Leaving, Planned
from scheduler.kube.api import Api
from scheduler.kube.writer import Writer
from tests.kube.apiserver import kubeconfig
from tests.kube.decided import plan
from tests.kube.seen import Seen, node, pod_json
from tests.kube.store import GATE, Handler, Json, Store, serving

ADMISSION = "fairshare.dev/admission"


class Stage:
    """What is there, what is seen of it, what is decided, and what is written."""

    def __init__(self, store: Store, api: Api, workers: int = 16) -> None:
        self.store = store
        self.seen = Seen()
        self.counted: list[tuple[str, str]] = []
        self.writer = Writer(
            api, self.seen.mirror, lambda *row: self.counted.append(row), workers
        )
        self.heard = 0
        self.broken: list[str] = []
        store.on_change = self.check_gates

    def nodes(self, count: int = 2, gpus: int = 8) -> None:
        self.seen.see(*(node(f"n{i + 1}", gpus) for i in range(count)))

    def check_gates(self, path: str, fresh: Json) -> None:
        """At no moment is a gate open while a member of the gang lacks its mark."""
        opened = _is_gated(self.store.objects[path]) and not _is_gated(fresh)
        if not opened or "/pods/" not in path:
            return
        gang = _note(fresh, "gang")
        for other, found in [*self.store.objects.items(), (path, fresh)]:
            mine = other == path or (gang and _note(found, "gang") == gang)
            if mine and "/pods/" in other:
                text = (found["metadata"].get("annotations") or {}).get(ADMISSION)
                self.broken += [] if text else [f"{path} opens, {other} has no mark"]

    # -- steps -----------------------------------------------------------------------

    def look(self, most: int | None = None) -> None:
        """Let the watch tell of what has happened, up to so many changes."""
        end = len(self.store.history)
        end = end if most is None else min(end, self.heard + most)
        for _, kind, path, obj in self.store.history[self.heard : end]:
            self._tell(kind, path, obj)
        self.heard = end

    def _tell(self, kind: str, path: str, obj: Json) -> None:
        if kind == "DELETED":
            self.seen.lose(obj["metadata"]["uid"])
        else:
            self.seen.see(decoded(path, obj))

    def decide(self) -> None:
        """Let the engine hear, decide, and be obeyed."""
        self.seen.hear()
        self.seen.cycle()
        self.obey(self.seen.engine.plans(), self.seen.engine.leaving())

    def obey(self, plans: Sequence[Planned], leaving: Sequence[Leaving] = ()) -> None:
        self.seen.hear()
        self.writer.reconcile(plans, leaving, 1_000_000_000.0)

    async def idle(self, timeout_s: float = 10.0) -> None:
        """Wait until nothing is under way."""
        async with asyncio.timeout(timeout_s):
            while len(self.writer._calls):
                await asyncio.sleep(0.001)

    async def obeyed(
        self, plans: Sequence[Planned], leaving: Sequence[Leaving] = ()
    ) -> None:
        """Reconcile once, and let all of it be done."""
        self.look()
        self.obey(plans, leaving)
        await self.idle()
        self.look()

    def schedule(self, rng: Random | None = None) -> None:
        """Be kube-scheduler: bind who is through the gate to its nominated node."""
        for path, pod in list(self.store.objects.items()):
            at = pod.get("status", {}).get("nominatedNodeName")
            if "/pods/" not in path or _is_gated(pod) or not at:
                continue
            if not pod["spec"].get("nodeName") and (rng is None or rng.random() < 0.5):
                self.store.change(path, lambda p, at=at: p["spec"].update(nodeName=at))

    def pod(self, path: str) -> Json:
        return self.store.objects[path]

    def events(self) -> list[tuple[str, str, str]]:
        """Events that were written: about whom, why, and what."""
        bodies = [
            body for _, path, body in self.store.asked if path.endswith("/events")
        ]
        rows = (
            (b["involvedObject"]["name"], b["reason"], b["message"]) for b in bodies
        )
        return sorted(rows)


def decoded(path: str, obj: Json) -> PodObject | JobObject:
    kind = PodObject if "/pods/" in path else JobObject
    return msgspec.json.decode(json.dumps(obj), type=kind)


def is_open(pod: Json) -> bool:
    return not _is_gated(pod)


def _is_gated(pod: Json) -> bool:
    gates = pod.get("spec", {}).get("schedulingGates") or ()
    return any(gate["name"] == GATE for gate in gates)


def _note(pod: Json, name: str) -> str:
    notes = pod["metadata"].get("annotations") or {}
    return notes.get(f"fairshare.dev/{name}", "")


def marks(pods: Iterable[Json]) -> list[Any]:
    notes = (pod["metadata"].get("annotations") or {} for pod in pods)
    return [json.loads(n[ADMISSION]) if ADMISSION in n else None for n in notes]


@contextlib.asynccontextmanager
async def staged(folder: Path, **options: Any) -> AsyncIterator[Stage]:
    store = Store()
    async with serving(store):
        path = kubeconfig(folder, f"http://127.0.0.1:{store.port}", token="t")  # noqa: S106
        api = await Api.connect(path, None, timeout_s=5.0)
        stage = Stage(store, api, **options)
        try:
            yield stage
        finally:
            await stage.writer.stop()
            await api.close()
        assert stage.broken == []


def play(
    folder: Path, scene: Callable[[Stage], Coroutine[Any, Any, None]], **options: Any
) -> None:
    """Play something on a stage of its own."""

    async def whole() -> None:
        async with staged(folder, **options) as stage:
            await scene(stage)

    asyncio.run(whole())


def team(stage: Stage, size: int = 3, **more: Any) -> list[str]:
    """A gang g of pods a, b, c ...; return their paths."""
    names = "abcdefghij"[:size]
    pods = [pod_json(name, gang="g", size=size, **more) for name in names]
    return [stage.store.put_pod(each) for each in pods]


def plans(size: int = 3, node: str = "n1", **more: Any) -> list[Any]:
    return [plan(name, node, gang="g", **more) for name in "abcdefghij"[:size]]


class Gate:
    """Lets calls wait until it is opened."""

    def __init__(self) -> None:
        self.waiting = 0
        self._open = asyncio.Event()

    async def weather(self, _: web.Request, handle: Handler) -> web.StreamResponse:
        self.waiting += 1
        await self._open.wait()
        return handle()

    async def reached(self, count: int) -> None:
        async with asyncio.timeout(5):
            while self.waiting < count:
                await asyncio.sleep(0.001)

    def open(self) -> None:
        self._open.set()


def only(part: str, bad: Any) -> Any:
    async def answer(request: web.Request, handle: Handler) -> web.StreamResponse:
        if part in request.path:
            return await bad(request, handle)
        return handle()

    return answer
