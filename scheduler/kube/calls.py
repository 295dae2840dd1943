"""Makes calls to the API server, many at once, and no more than it can take.

Work is handed over under a key; a key has one task at a time, and one that failed
rests, longer each time. When the API server says that it has too much to do, everybody
waits.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from scheduler.kube.api import ApiError

WORKERS = 16
"""Most calls under way at once."""

FIRST_REST_S = 0.5
LONGEST_REST_S = 10.0

log = logging.getLogger(__name__)

Counted = Callable[[str, str], None]
"""Counts a call by kind and outcome."""


class Calls:
    """Tasks under way, and who rests."""

    def __init__(self, count: Counted, workers: int = WORKERS) -> None:
        self._count = count
        self._free = asyncio.Semaphore(workers)
        self._pressed_until = 0.0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._rests: dict[str, tuple[float, int]] = {}

    def start(self, key: str, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Begin some work, unless the key is busy or rests; return whether it began."""
        until, _ = self._rests.get(key, (0.0, 0))
        if key in self._tasks or time.monotonic() < until:
            return False
        task = asyncio.create_task(self._run(key, work))
        self._tasks[key] = task
        return True

    def is_busy(self, key: str) -> bool:
        """Whether work under the key is under way."""
        return key in self._tasks

    def __len__(self) -> int:
        """Return how much work is under way."""
        return len(self._tasks)

    async def _run(
        self, key: str, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        rest = self._rests.get(key)
        try:
            await work()
            if self._rests.get(key) is rest:
                self._rests.pop(key, None)
        except ApiError as error:
            self.rest(key, error.retry_after_s or 0.0)
            level = logging.DEBUG if is_gone(error) else logging.WARNING
            log.log(level, "%s; again later", error)
        except Exception:
            self.rest(key)
            log.exception("a write for %s failed; it is tried again", key)
        finally:
            self._tasks.pop(key, None)

    def rest(self, key: str, at_least_s: float = 0.0) -> None:
        """Begin nothing more under a key for a while, longer each time in a row."""
        _, failures = self._rests.get(key, (0.0, 0))
        pause = min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(failures, 10))
        pause = max(at_least_s, pause * random.uniform(0.5, 1.0))
        self._rests[key] = (time.monotonic() + pause, failures + 1)

    def wake(self, key: str) -> None:
        """Let a key begin at once: what it failed for may be over."""
        self._rests.pop(key, None)

    def forget(self, alive: Callable[[str], bool]) -> None:
        """Forget rests of keys that are not alive any more."""
        self._rests = {k: rest for k, rest in self._rests.items() if alive(k)}

    async def call(self, kind: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """Make one call when there is room for it.

        Raises
        ------
        ApiError
            When it did not succeed.
        """
        async with self._free:
            while (pause := self._pressed_until - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            try:
                answer = await make()
            except ApiError as error:
                self._count(kind, str(error.status or error.reason))
                if error.status == 429 and not error.causes:
                    self._press(error.retry_after_s)
                raise
            self._count(kind, "done")
            return answer

    def _press(self, retry_after_s: float | None) -> None:
        """Let everybody wait: the API server has too much to do."""
        pause = (retry_after_s or 1.0) * random.uniform(1.0, 1.5)
        self._pressed_until = max(self._pressed_until, time.monotonic() + pause)

    async def stop(self) -> None:
        """End everything that is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def all_of(works: Iterable[Awaitable[None]]) -> None:
    """Do all, at once; raise the first failure when all have ended."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def is_gone(error: ApiError) -> bool:
    """Whether it is another object by now, or none, or it has changed meanwhile.

    A patch that names another's UID is refused as one that would change it.
    """
    changes_uid = error.status == 422 and "metadata.uid" in error.message
    return error.status in (404, 409) or changes_uid
