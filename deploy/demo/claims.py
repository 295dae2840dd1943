"""What the demo claims, each checked before it is said."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

PATIENCE_S = 60.0
"""How long something may take that takes seconds on a machine that is free."""


interrupted = threading.Event()
"""Set when somebody wants the end; the exception for it may get lost on its way."""


class DemoError(Exception):
    """What the demo claims is not so."""


@dataclass(frozen=True)
class Claim:
    """Something that was found to be so, and when."""

    at: float
    text: str


class Claims:
    """All that was found to be so; whatever is not ends the demo.

    Parameters
    ----------
    clock
        Seconds since the story began.
    say
        Shows a claim that holds.
    alive
        Raises if the demo can not go on.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        say: Callable[[str], None],
        alive: Callable[[], None],
    ) -> None:
        self.held: list[Claim] = []
        self._clock, self._say, self._alive = clock, say, alive

    def check(self, text: str, truth: object) -> None:
        """Claim what is so by now."""
        if not truth:
            raise DemoError(f"it is not so that {text}")
        self.held.append(Claim(self._clock(), text))
        self._say(text)

    def until(self, text: str, probe: Callable[[], object]) -> None:
        """Claim what comes to be so in time."""
        deadline = time.monotonic() + PATIENCE_S
        while not probe():
            self._alive()
            if interrupted.is_set():
                raise KeyboardInterrupt
            if time.monotonic() > deadline:
                raise DemoError(f"within {PATIENCE_S:g} s it was not so that {text}")
            time.sleep(0.05)
        self.check(text, True)
