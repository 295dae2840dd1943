"""Wishes that wait to be performed by whoever polls for them.

A wish is sent again and again until it is acknowledged, or until its pod is gone. A pod
has one wish at a time: to evict it overtakes the request for a checkpoint. That bounds
the box by the number of pods.
"""

import asyncio
import contextlib
from collections.abc import Iterable

from scheduler.codec import Wish
from scheduler.core import CheckpointRequest, Evict, PodUid

PAGE = 1000
"""Most wishes in one answer."""


class Outbox:
    """Unacknowledged wishes, in the order they were made."""

    def __init__(self) -> None:
        self.last = 0
        self._wishes: dict[int, Wish] = {}
        self._of_pod: dict[PodUid, int] = {}
        self._news = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._wishes)

    def put(self, action: CheckpointRequest | Evict, pod: str) -> None:
        """Add a wish for a pod called `pod`, in place of the one it had."""
        self.forget(action.uid)
        self.last += 1
        self._wishes[self.last] = Wish(self.last, action, pod)
        self._of_pod[action.uid] = self.last
        self._news.set()

    def forget(self, uid: PodUid) -> None:
        """Drop the wish of a pod, if it has one."""
        number = self._of_pod.pop(uid, None)
        if number is not None:
            del self._wishes[number]

    def acknowledge(self, numbers: Iterable[int]) -> int:
        """Drop wishes that have been taken care of; return how many there were.

        A number that is no longer here was overtaken, which is no error.
        """
        done = [self._wishes[n] for n in sorted({*numbers} & self._wishes.keys())]
        for wish in done:
            self.forget(wish.action.uid)
        return len(done)

    def after(self, number: int) -> list[Wish]:
        """Return the first wishes with a larger number."""
        newer = (wish for n, wish in self._wishes.items() if n > number)
        return [wish for wish, _ in zip(newer, range(PAGE), strict=False)]

    async def wait(self, number: int, timeout_s: float) -> list[Wish]:
        """Return wishes with a larger number, as soon as there are any.

        After `timeout_s` seconds, or when the box is closed, what there is, if nothing.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not (self.after(number) or self._closed):
                    self._news.clear()
                    await self._news.wait()
        return self.after(number)

    def close(self) -> None:
        """Let every poll that waits return."""
        self._closed = True
        self._news.set()
