"""The informer, against an API server whose network and memory fail on demand.

A healthy server is left to tests/e2e/test_informer.py: that one is real.
"""

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.kube import informer as module
from scheduler.kube.informer import Informer
from tests.kube.apiserver import (
    THINGS,
    Break,
    FlakyServer,
    connected,
    event,
    flaky,
    hang_up,
    refuse,
    status,
)
from tests.kube.sink import Sink, Thing, until

GONE = event("ERROR", status(410, "Expired", "too old resource version"))


@pytest.fixture(autouse=True)
def _hurry() -> Iterator[None]:
    """Let pauses be short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRST_DELAY_S", 0.001)
        patch.setattr(module, "LAST_DELAY_S", 0.01)
        yield


class Stage:
    """A server, an informer that follows it, and what its sink knows."""

    def __init__(self, server: FlakyServer, informer: Informer[Thing]) -> None:
        self.server = server
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

    async def agree(self) -> None:
        """Wait until the sink knows what there is; the informer must be alive."""
        await self.until(lambda: self.sink.state == self.server.state())

    async def until(self, probe: Callable[[], object]) -> None:
        assert self.running is not None
        await until(lambda: probe() or (self.running and self.running.done()))
        if self.running.done():
            self.running.result()

    async def watching(self) -> None:
        """Wait until a watch is open."""
        count = self.health.watches
        await self.until(lambda: self.health.watches > count or self.server._watches)


@contextlib.asynccontextmanager
async def staged(page: int = 3, watch_s: float = 60.0) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory() as folder:
        async with flaky() as server, connected(server, Path(folder)) as api:
            follower: Informer[Thing] = Informer(
                api, THINGS, Thing, Sink(), page=page, watch_s=(watch_s, watch_s)
            )
            server.lasts_s = watch_s  # less than a second, too
            stage = Stage(server, follower)
            try:
                yield stage
            finally:
                await stage.stop()


def play(
    script: Callable[[Stage], Awaitable[None]], page: int = 3, watch_s: float = 60.0
) -> None:
    async def run() -> None:
        async with staged(page, watch_s) as stage:
            await script(stage)

    asyncio.run(run())


# -- listing --------------------------------------------------------------------


def test_lists_in_pages_then_watches() -> None:
    async def script(stage: Stage) -> None:
        for number in range(7):
            stage.server.put(f"t{number}", number)
        assert not stage.informer.synced.is_set()
        stage.start()
        await stage.informer.synced.wait()
        assert stage.sink.state == stage.server.state()
        assert len(stage.informer) == 7
        lists = [one.query for one in stage.server.lists()]
        assert [one["limit"] for one in lists] == ["3", "3", "3"]
        assert ["continue" in one for one in lists] == [False, True, True]
        assert all("resourceVersion" not in one for one in lists)
        await stage.watching()
        (watch,) = [one.query for one in stage.server.watches()]
        assert watch == {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": "107",
            "timeoutSeconds": "60",
        }
        stage.server.put("t0", 10)
        stage.server.put("new", 1)
        stage.server.remove("t1")
        await stage.agree()
        assert stage.health.lists == 1
        assert stage.health.watches == 1
        assert stage.health.failures == 0

    play(script)


def test_a_selector_goes_with_every_call() -> None:
    async def script(stage: Stage) -> None:
        stage.informer._query["fieldSelector"] = "a=b"
        stage.start()
        await stage.watching()
        await stage.until(lambda: len(stage.server.seen) == 2)
        assert {one.query["fieldSelector"] for one in stage.server.seen} == {"a=b"}

    play(script)


def test_an_empty_collection_is_synced() -> None:
    async def script(stage: Stage) -> None:
        stage.start()
        await stage.informer.synced.wait()
        assert stage.sink.heard == []

    play(script)


def test_a_list_that_expires_between_pages_begins_anew() -> None:
    async def script(stage: Stage) -> None:
        server = stage.server
        for number in range(5):
            server.put(f"t{number}")
        pages = 0

        def compact(_: Any) -> Any:
            nonlocal pages
            pages += 1
            if pages == 1:
                return server._list(_)
            server.remove("t0")
            server.compact()
            return server._list(_)

        server.faults["list"].extend([compact, compact])
        stage.start()
        await stage.agree()
        assert stage.informer.synced.is_set()
        assert stage.health.lists == 2
        assert ("gone", "uid-1") in stage.sink.heard

    play(script)


@pytest.mark.parametrize(
    ("fault", "calls"),
    [
        (refuse(500, "InternalError"), 1),
        (refuse(401, "Unauthorized"), 1),
        (refuse(404, "NotFound"), 1),
        (hang_up, 2),  # aiohttp asks once more by itself
    ],
)
def test_a_list_is_tried_again(fault: Any, calls: int) -> None:
    async def script(stage: Stage) -> None:
        stage.server.put("a")
        stage.server.faults["list"].extend([fault] * 3 * calls)
        stage.start()
        await stage.agree()
        assert stage.health.failures == 3
        assert stage.health.lists == 4

    play(script)


def test_a_list_that_is_no_list_is_tried_again() -> None:
    from aiohttp import web

    async def script(stage: Stage) -> None:
        stage.server.put("a")
        for text in ("", "[]", '{"metadata": {}, "items": [1]}'):
            answer = lambda _, text=text: web.Response(text=text)  # noqa: E731
            stage.server.faults["list"].append(answer)
        stage.start()
        await stage.agree()
        assert stage.health.failures == 3

    play(script)


def test_waits_as_long_as_the_server_asks(caplog: pytest.LogCaptureFixture) -> None:
    async def script(stage: Stage) -> None:
        stage.server.faults["list"].append(refuse(429, "TooMany", Retry_After="1"))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        stage.start()
        await stage.informer.synced.wait()
        assert 1.0 <= loop.time() - begun < 2.0

    play(script)
    (line,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "429 TooMany" in line.getMessage()


def test_a_token_that_has_ended_is_not_the_end(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.server.put("a")
        stage.server.faults["watch"].append(refuse(401, "Unauthorized"))
        stage.start()
        await stage.agree()
        await stage.until(lambda: stage.health.watches == 1)
        assert stage.health.lists == 1, "the list is still good"

    play(script)


# -- watching -------------------------------------------------------------------


def test_resumes_where_it_was_cut() -> None:
    async def script(stage: Stage) -> None:
        server = stage.server
        server.faults["watch"].append(Break(after=2, cut=True))
        stage.start()
        await stage.watching()
        for number in range(5):
            server.put(f"t{number}")
        await stage.agree()
        await stage.until(lambda: len(server.watches()) == 2)
        versions = [one.query["resourceVersion"] for one in server.watches()]
        assert versions == ["100", "102"]
        assert stage.health.lists == 1
        assert [what for what, _ in stage.sink.heard] == ["changed"] * 5

    play(script)


def test_a_bookmark_is_where_it_resumes() -> None:
    async def script(stage: Stage) -> None:
        server = stage.server
        stage.start()
        await stage.watching()
        server.version = 500  # other collections change
        await stage.until(lambda: len(server.watches()) == 2)
        assert server.watches()[-1].query["resourceVersion"] == "500"
        assert stage.health.failures == 0

    play(script, watch_s=0.1)


@pytest.mark.parametrize("how", ["event", "status"])
def test_a_version_that_is_too_old_is_listed_anew(how: str) -> None:
    async def script(stage: Stage) -> None:
        server = stage.server
        for name in ("stays", "goes", "returns"):
            server.put(name)
        if how == "event":
            server.faults["watch"].append(Break(line=GONE))
        else:
            server.faults["watch"].append(refuse(410, "Expired"))
        stage.start()
        await stage.informer.synced.wait()
        server.remove("goes")
        server.remove("returns")
        server.put("returns", 1)
        server.compact()
        await stage.agree()
        assert stage.health.lists >= 2
        order = stage.sink.heard
        assert order.index(("gone", "uid-3")) < order.index(("changed", "uid-4"))

    play(script)


@pytest.mark.parametrize(
    "line",
    [
        event("ERROR", status(500, "InternalError")),
        event("ERROR", status(504, "Timeout")),
    ],
)
def test_another_error_event_resumes(line: bytes) -> None:
    async def script(stage: Stage) -> None:
        stage.server.put("a")
        stage.server.faults["watch"].append(Break(line=line))
        stage.start()
        await stage.until(lambda: stage.health.watches == 2)
        assert (stage.health.lists, stage.health.failures) == (1, 1)

    play(script)


@pytest.mark.parametrize(
    "line", [b"{]\n", b"[]\n", b'{"type": "ADDED", "object": {"spec": {}}}\n']
)
def test_an_event_that_is_none_lists_anew(line: bytes) -> None:
    async def script(stage: Stage) -> None:
        stage.server.faults["watch"].append(Break(line=line))
        stage.start()
        await stage.until(lambda: stage.health.watches == 2)
        assert stage.health.lists == 2

    play(script)


def test_a_watch_that_ends_early_is_a_failure() -> None:
    async def script(stage: Stage) -> None:
        stage.server.faults["watch"].extend([Break()] * 4)
        stage.start()
        await stage.until(lambda: stage.health.watches == 5)
        assert (stage.health.lists, stage.health.failures) == (1, 4)

    play(script)


def test_a_server_that_went_back_in_time_is_found_out() -> None:
    async def script(stage: Stage) -> None:
        server = stage.server
        server.put("a", 1)
        stage.start()
        await stage.watching()
        # Restored from a backup: versions begin again below the one we ask for, and a
        # real server then sends nothing, not even bookmarks, for as long as that lasts.
        server.bookmarks = False
        server.version = 50
        server.history.clear()
        server.remove("a")
        server.put("b", 1)
        await stage.agree()
        assert stage.health.lists == 2

    play(script, watch_s=0.1)


def test_long_lines_and_slow_ones() -> None:
    async def script(stage: Stage) -> None:
        server = stage.server
        stage.start()
        await stage.watching()
        server.put("long", 1, filler="x" * 3_000_000)
        await stage.agree()
        server.slow = True
        server.put("slow", 2)
        server.put("slow", 3)
        await stage.agree()
        assert stage.health.failures == 0

    play(script)


def test_one_name_two_objects() -> None:
    async def script(stage: Stage) -> None:
        server = stage.server
        stage.start()
        await stage.watching()
        server.put("a", 1)
        server.remove("a")
        server.put("a", 0)
        await stage.agree()
        assert stage.sink.heard == [
            ("changed", "uid-1"),
            ("gone", "uid-1"),
            ("changed", "uid-2"),
        ]

    play(script)


def test_cancelling_ends_it() -> None:
    async def script(stage: Stage) -> None:
        stage.start()
        await stage.watching()
        await stage.stop()
        assert stage.running is not None
        assert stage.running.cancelled()
        stage.server.put("late")
        await asyncio.sleep(0.01)
        assert stage.sink.heard == []
        assert stage.informer.synced.is_set()

    play(script)


# -- objects that cannot be read --------------------------------------------------


def test_a_bad_object_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async def script(stage: Stage) -> None:
        server, sink = stage.server, stage.sink
        server.put("good", 1)
        server.put("bad", "seven")
        stage.start()
        await stage.watching()
        assert sink.state == {"uid-1": 1}
        assert stage.health.skipped == 1
        server.put("bad", "eight")  # in a watch, too
        server.put("good", "nine")  # stays as it was
        server.put("late", 1)
        await stage.until(lambda: "uid-3" in sink.state)
        assert sink.state == {"uid-1": 1, "uid-3": 1}
        assert stage.health.skipped == 3
        server.put("bad", 3)  # readable again
        server.put("good", 9)
        await stage.agree()
        server.put("bad", "ten")
        server.remove("bad")
        await stage.agree()
        assert stage.health.failures == 0

    play(script)
    told = [one.getMessage() for one in caplog.records if "left out" in one.message]
    assert [line.split()[1] for line in told] == ["bad", "good", "bad"]
    assert "$.spec.value" in told[0]


def test_an_object_that_the_sink_refuses_is_left_out() -> None:
    async def script(stage: Stage) -> None:
        server, sink = stage.server, stage.sink
        sink.refuse = lambda thing: thing.spec.value == 13
        server.put("a", 13)
        server.put("b", 1)
        stage.start()
        await stage.watching()
        assert sink.state == {"uid-2": 1}
        server.remove("a")
        server.put("b", 2)
        await stage.agree()
        assert ("gone", "uid-1") in sink.heard
        assert stage.health.skipped == 1

    play(script)


def test_a_sink_that_is_broken_ends_it() -> None:
    async def script(stage: Stage) -> None:
        def broken(_: Thing) -> bool:
            raise KeyError("a mistake in a program, not in an object")

        stage.sink.refuse = broken
        stage.server.put("a")
        stage.start()
        with pytest.raises(KeyError):
            await stage.agree()

    play(script)


# -- manners ----------------------------------------------------------------------


def test_others_get_their_turn_while_it_lists() -> None:
    async def script(stage: Stage) -> None:
        for number in range(3000):
            stage.server.put(f"t{number}")
        slow = stage.sink.changed

        def changed(thing: Thing) -> None:
            slow(thing)
            sum(range(500))

        stage.sink.changed = changed  # type: ignore[method-assign]
        most = 0
        stage.start()
        while not stage.informer.synced.is_set():
            before = len(stage.sink.state)
            await asyncio.sleep(0)
            most = max(most, len(stage.sink.state) - before)
        assert 0 < most < 1500, "objects of one page in one turn"

    play(script, page=3000)


def test_pauses_grow_and_end_after_a_healthy_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        if low == 0:
            bounds.append(high)
        return low

    monkeypatch.setattr(module.random, "uniform", uniform)
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.1)
    monkeypatch.setattr(module, "LAST_DELAY_S", 30.0)

    async def script(stage: Stage) -> None:
        stage.server.faults["list"].extend([refuse(500)] * 12)
        stage.start()
        await stage.until(lambda: stage.health.watches == 1)
        assert bounds[:4] == [0.1, 0.2, 0.4, 0.8]
        assert bounds[-1] == 30.0
        await stage.until(lambda: stage.health.watches == 2)  # the first one was well
        stage.server.cut_watches()
        await stage.until(lambda: stage.health.watches == 3)
        assert bounds[-1] == 0.1

    play(script, watch_s=0.1)


def test_says_when_the_server_was_last_heard_of() -> None:
    async def script(stage: Stage) -> None:
        assert stage.health.last_event_monotonic == 0.0
        stage.start()
        await stage.watching()
        first = stage.health.last_event_monotonic
        assert first > 0
        stage.server.put("a")
        await stage.agree()
        assert stage.health.last_event_monotonic > first

    play(script)


# -- whatever happens -------------------------------------------------------------

NAMES = st.sampled_from("abcd")
STEPS = st.one_of(
    st.tuples(st.just("put"), NAMES),
    st.tuples(st.just("put"), NAMES),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("compact"), st.none()),
    st.tuples(st.just("cut"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.002, 0.01])),
    st.tuples(
        st.just("list fails"),
        st.sampled_from([refuse(410), refuse(500), refuse(429), hang_up]),
    ),
    st.tuples(
        st.just("watch fails"),
        st.sampled_from(
            [
                refuse(410),
                refuse(503),
                hang_up,
                Break(after=1, cut=True),
                Break(after=2),
                Break(line=GONE),
                Break(line=b"{]\n"),
            ]
        ),
    ),
)


async def perform(server: FlakyServer, step: tuple[str, Any], value: int) -> None:
    what, detail = step
    if what == "put":
        server.put(detail, value)
    elif what == "remove":
        server.remove(detail)
    elif what == "compact":
        server.compact()
    elif what == "cut":
        server.cut_watches()
    elif what == "wait":
        await asyncio.sleep(detail)
    else:
        server.faults[what.partition(" ")[0]].append(detail)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
    ],
)
@given(st.lists(STEPS, max_size=25), st.integers(1, 3))
def test_the_sink_knows_in_the_end_what_there_is(
    steps: list[tuple[str, Any]], page: int
) -> None:
    async def script(stage: Stage) -> None:
        stage.start()
        for value, step in enumerate(steps):
            await perform(stage.server, step, value)
        await stage.agree()
        stage.server.put("last", len(steps))
        await stage.agree()

    play(script, page=page)
