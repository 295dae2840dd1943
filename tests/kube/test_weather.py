"""On an API server's bad days nothing is lost, and nothing is done by halves."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from scheduler.kube import calls, gaps
from tests.kube.apiserver import hang_up, status
from tests.kube.seen import pod_json
from tests.kube.stage import Stage, is_open, plans, play, team
from tests.kube.store import Handler, cutting, refusing
from tests.strategies import SOME


@pytest.fixture(autouse=True)
def _hurry() -> Iterator[None]:
    """Let rests be short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "FIRST_REST_S", 0.01)
        patch.setattr(calls, "LONGEST_REST_S", 0.05)
        yield


def test_nothing_is_kept_of_what_was_written(tmp_path: Path) -> None:
    """A service runs for months."""

    async def scene(stage: Stage) -> None:
        stage.nodes()
        paths = team(stage)
        stage.store.weather = refusing(500)
        await stage.obeyed(plans(), [])
        assert stage.writer._calls._rests
        for path in paths:
            stage.store.remove(path)
        await stage.obeyed([])
        kept = {
            name: v for name, v in vars(stage.writer).items() if isinstance(v, dict)
        }
        assert {name: v for name, v in kept.items() if v} == {}
        assert stage.writer._calls._rests == {}
        assert len(stage.writer._calls) == 0

    play(tmp_path, scene)


def test_an_answer_that_got_lost_is_made_good_by_the_watch(tmp_path: Path) -> None:
    """Nobody knows whether such a write was done; doing it twice does no harm."""

    async def scene(stage: Stage) -> None:
        stage.nodes()
        paths = team(stage)
        stage.store.weather = cutting
        for _ in range(4):
            await stage.obeyed(plans())
            await asyncio.sleep(0.06)
        assert all(is_open(stage.pod(path)) for path in paths)

    play(tmp_path, scene)


class Weather:
    """Bad by chance: refused, overloaded, cut before or after, or slow."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.bad = 0.5

    async def __call__(
        self, request: web.Request, handle: Handler
    ) -> web.StreamResponse:
        if self.rng.random() > self.bad:
            return handle()
        kind = self.rng.choice(["500", "429", "409", "404", "cut", "lost", "slow"])
        if kind == "429":
            headers = {"Retry-After": "0"}
            return web.json_response(status(429, "Busy"), status=429, headers=headers)
        if kind.isdigit():
            return web.json_response(status(int(kind), "Bad"), status=int(kind))
        await asyncio.sleep(self.rng.uniform(0, 0.01))
        answer = handle() if kind in ("lost", "slow") else web.Response()
        if kind != "slow":
            hang_up(request)
        return answer


@SOME
@given(st.integers(0, 2**32))
def test_whatever_the_api_does_all_is_well_when_it_stops(seed: int) -> None:
    """Pods of gangs and single ones, edits and deletions; news that lag by any amount.

    That no gate opens for a gang of which a member lacks its mark is checked by the
    server, at every write.
    """

    async def scene(stage: Stage) -> None:
        rng, weather = Random(seed), Weather(seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(calls.Calls, "_press", lambda *_: None)
            stage.store.weather = weather
            stage.nodes(3)
            for step in range(25):
                happen(stage, rng, step)
                stage.look(rng.randrange(12))
                stage.decide()
                await asyncio.sleep(rng.choice([0, 0.002, 0.01]))
            weather.bad = 0.0
            await settle(stage)

    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder), scene, workers=4)


def happen(stage: Stage, rng: Random, step: int) -> None:
    """Let owners, controllers and kube-scheduler do something."""
    kind = rng.choice(["gang", "pod", "edit", "delete", "bind", "bind", "end"])
    pods = [p for p in stage.store.objects if "/pods/" in p]
    if kind == "gang":
        size = rng.randint(2, 3)
        for i in range(size):
            raw = pod_json(f"g{step}-{i}", 2, gang=f"g{step}", size=size, keeper="r")
            stage.store.put_pod(raw)
    elif kind == "pod":
        space = rng.choice(["team-a", "team-b"])
        stage.store.put_pod(pod_json(f"p{step}", rng.choice([1, 8]), space=space))
    elif kind == "bind":
        stage.schedule(rng)
    elif pods:
        path = rng.choice(pods)
        if kind == "delete":
            stage.store.remove(path)
        elif kind == "edit" and not is_open(stage.pod(path)):
            stage.store.change(path, _costs(rng.choice(["60s", "90s"])))
        elif kind == "end" and stage.pod(path)["spec"].get("nodeName"):
            stage.store.change(path, lambda p: p["status"].update(phase="Succeeded"))


async def settle(stage: Stage) -> None:
    """Wait until nothing is missing any more; kubelets let evicted pods go."""
    for _ in range(100):
        for path, found in list(stage.store.objects.items()):
            if "deletionTimestamp" in found["metadata"]:
                stage.store.remove(path)
        stage.seen.now += 5.0
        stage.look()
        stage.decide()
        await stage.idle()
        stage.schedule()
        stage.look()
        stage.seen.hear()
        if not missing(stage):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(missing(stage))


def missing(stage: Stage) -> list[Any]:
    pods, engine = stage.seen.mirror.pods, stage.seen.engine
    planned = {p.uid: p for p in engine.plans()}
    going = {wish.uid: wish for wish in engine.leaving()}
    assert all(record.mark for record in pods.records.values() if record.node)
    return [
        *gaps.admissions(planned.values(), pods.records, 0),
        *gaps.leftovers(pods.adorned, pods.records, planned),
        *gaps.requests(going, pods.records, pods.asked, 0.0),
        *planned.values(),
    ]


def _costs(text: str) -> Any:
    notes = {"fairshare.dev/restart-cost": text}
    return lambda pod: pod["metadata"]["annotations"].update(notes)
