"""Calls are made many at once, and never twice for one thing."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

from scheduler.kube import calls as module
from scheduler.kube.api import ApiError
from scheduler.kube.calls import Calls, all_of, is_gone
from tests.kube.sink import until


class Desk:
    """Calls, and what was counted of them."""

    def __init__(self, workers: int = 4) -> None:
        self.counted: list[tuple[str, str]] = []
        self.calls = Calls(lambda kind, end: self.counted.append((kind, end)), workers)
        self.begun: list[str] = []
        self.gate = asyncio.Event()

    def start(self, key: str, end: ApiError | None) -> bool:
        """Begin work that makes one call, which ends so."""

        async def work() -> None:
            self.begun.append(key)
            await self.calls.call("k", lambda: self.answer(end))

        return self.calls.start(key, work)

    async def answer(self, end: ApiError | None) -> bytes:
        await self.gate.wait()
        if end is not None:
            raise end
        return b"{}"

    async def idle(self) -> None:
        self.gate.set()
        await until(lambda: len(self.calls) == 0)


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())


@pytest.fixture(autouse=True)
def _hurry() -> Iterator[None]:
    """Let rests be short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRST_REST_S", 0.02)
        patch.setattr(module, "LONGEST_REST_S", 0.08)
        yield


def test_a_key_has_one_task_at_a_time() -> None:
    """Each look begins what is missing, also what is on its way already."""

    async def scene() -> None:
        desk = Desk()
        assert desk.start("a", None)
        assert not desk.start("a", None)
        assert desk.start("b", None)
        assert desk.calls.is_busy("a")
        await desk.idle()
        assert desk.start("a", None)
        await desk.idle()
        assert desk.begun == ["a", "b", "a"]
        assert desk.counted == [("k", "done")] * 3

    run(scene)


def test_no_more_calls_are_under_way_than_there_are_workers() -> None:
    async def scene() -> None:
        desk, under_way, most = Desk(3), 0, 0

        async def slow() -> bytes:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.001)
            under_way -= 1
            return b""

        async def work() -> None:
            works = (desk.calls.call("k", slow) for _ in range(20))
            await asyncio.gather(*works)

        desk.calls.start("a", work)
        await desk.idle()
        assert most == 3

    run(scene)


def test_what_failed_rests_longer_each_time_and_begins_anew_after_success() -> None:
    async def scene() -> None:
        desk = Desk()
        desk.gate.set()
        pauses = []
        for _ in range(4):
            assert desk.start("a", ApiError(500))
            await desk.idle()
            begun = time.monotonic()
            assert not desk.start("a", None)
            until_, _ = desk.calls._rests["a"]
            pauses.append(until_ - begun)
            await asyncio.sleep(max(0.0, until_ - time.monotonic()))
        assert pauses[0] < pauses[-1] < 0.1
        assert desk.start("a", None)
        await desk.idle()
        assert desk.start("a", None)
        await desk.idle()

    run(scene)


def test_other_keys_do_not_rest() -> None:
    async def scene() -> None:
        desk = Desk()
        desk.start("a", ApiError(500))
        await desk.idle()
        assert desk.start("b", None)
        await desk.idle()

    run(scene)


def test_a_server_with_too_much_to_do_is_left_alone_by_everybody() -> None:
    """Also by calls that were under way already, and for as long as it asked."""

    async def scene() -> None:
        desk = Desk()
        desk.start("a", ApiError(429, retry_after_s=0.2))
        await desk.idle()
        begun = time.monotonic()
        desk.start("b", None)
        desk.start("c", None)
        await desk.idle()
        assert time.monotonic() - begun >= 0.19
        assert desk.counted == [("k", "429"), ("k", "done"), ("k", "done")]

    run(scene)


def test_a_disruption_budget_is_no_load() -> None:
    """It says 429 as well, of one pod; all others may go on."""

    async def scene() -> None:
        desk = Desk()
        budget = ApiError(429, retry_after_s=5.0, causes=("DisruptionBudget",))
        desk.start("a", budget)
        await desk.idle()
        begun = time.monotonic()
        desk.start("b", None)
        await desk.idle()
        assert time.monotonic() - begun < 1.0
        assert not desk.start("a", None)

    run(scene)


def test_who_was_woken_begins_at_once() -> None:
    async def scene() -> None:
        desk = Desk()
        desk.start("a", ApiError(500, retry_after_s=60.0))
        await desk.idle()
        assert not desk.start("a", None)
        desk.calls.wake("a")
        assert desk.start("a", None)
        await desk.idle()

    run(scene)


def test_rests_of_the_dead_are_forgotten() -> None:
    """Pods come and go for months."""

    async def scene() -> None:
        desk = Desk()
        for i in range(100):
            desk.start(f"pod {i}", ApiError(404))
        await desk.idle()
        desk.calls.forget(lambda key: key == "pod 7")
        assert list(desk.calls._rests) == ["pod 7"]

    run(scene)


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ApiError(404), logging.DEBUG),
        (ApiError(409), logging.DEBUG),
        (ApiError(422, message="metadata.uid: is immutable"), logging.DEBUG),
        (ApiError(422, message="spec: is wrong"), logging.WARNING),
        (ApiError(500), logging.WARNING),
    ],
)
def test_what_is_gone_is_no_news(
    error: ApiError, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Pods are deleted all the time; a warning is for what somebody should look at."""
    caplog.set_level(logging.DEBUG, "scheduler.kube.calls")

    async def scene() -> None:
        desk = Desk()
        desk.start("a", error)
        await desk.idle()

    run(scene)
    (record,) = [r for r in caplog.records if "again later" in r.message]
    assert record.levelno == level
    assert is_gone(error) == (level == logging.DEBUG)


def test_a_fault_of_ours_is_told_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        desk = Desk()

        async def broken() -> None:
            raise KeyError("oops")

        desk.calls.start("a", broken)
        await desk.idle()
        assert "a" in desk.calls._rests

    run(scene)
    assert "oops" in caplog.text


def test_stopping_ends_everything_also_what_has_not_begun() -> None:
    async def scene() -> None:
        desk = Desk()
        desk.start("a", None)
        await until(lambda: desk.begun)
        desk.start("b", None)
        await desk.calls.stop()
        assert desk.begun == ["a"]

    run(scene)


def test_all_end_before_the_first_failure_is_told() -> None:
    """A gang's writes are not left half under way."""
    ended: list[int] = []

    async def one(number: int, error: ApiError | None) -> None:
        await asyncio.sleep(number / 1000)
        ended.append(number)
        if error:
            raise error

    works: list[Awaitable[None]] = []

    async def scene() -> None:
        works.extend([one(3, None), one(1, ApiError(500)), one(2, ApiError(404))])
        with pytest.raises(ApiError) as caught:
            await all_of(works)
        assert caught.value.status == 500

    run(scene)
    assert ended == [1, 2, 3]
