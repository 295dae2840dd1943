"""Usage memory: who has borrowed much lately waits a little longer.

Past *borrowed* use, never use within the guarantee, decays with a half-life. For
constant use the memory tends to its level, so ``average`` reads in the unit of what is
noted. Decay and growth are closed forms: a run that is noted in pieces is remembered
like the whole, and each note costs the same however much time has passed.

It tilts the weights of waiting burst, within bounds. It never touches guarantees and
never justifies an eviction.
"""

from collections.abc import Hashable, Mapping
from fractions import Fraction
from typing import TypeVar

from scheduler.core.gpu import Form

Kind = TypeVar("Kind", bound=str)

TILT_SCALE = 1000
MOST_TILT = 4
"""A weight is never tilted to more than so many times itself, nor to less than that
part of itself."""


class UsageMemory:
    """Decayed averages of what each queue has borrowed.

    A queue's past is one number (``change``, ``average``) or one per pool (``note``,
    ``averages``). A clock that goes back stands still here until it has caught up.

    Parameters
    ----------
    half_life_s
        Time in which the memory of a past use halves, seconds; 0: only now counts.
    """

    def __init__(self, half_life_s: float) -> None:
        self.half_life_s = half_life_s
        self._known: dict[Hashable, tuple[float, float, float]] = {}
        self._pools: dict[Hashable, set[Form]] = {}

    def change(self, queue: Hashable, rate: float, now: float) -> None:
        """Note that the queue borrows `rate` from now on."""
        if queue in self._known:
            now = max(now, self._known[queue][2])
        self._known[queue] = (self.average(queue, now), rate, now)

    def average(self, queue: Hashable, now: float) -> float:
        """Return the decayed average of what the queue has borrowed, in its unit."""
        if queue not in self._known:
            return 0.0
        past, rate, since = self._known[queue]
        if not self.half_life_s:
            return rate
        left: float = 0.5 ** (max(0.0, now - since) / self.half_life_s)
        return past * left + rate * (1.0 - left)

    def note(self, queue: Hashable, rates: Mapping[Form, float], now: float) -> None:
        """Note that the queue borrows `rates` from now on, and of other pools nothing.

        O(pools that the queue has ever borrowed of).
        """
        pools = self._pools.setdefault(queue, set())
        pools.update(rates)
        for pool in sorted(pools):
            self.change((queue, pool), rates.get(pool, 0.0), now)

    def averages(self, queue: Hashable, now: float) -> dict[Form, float]:
        """Return the decayed averages of what was noted of a queue, by pool."""
        pools = sorted(self._pools.get(queue, ()))
        return {pool: self.average((queue, pool), now) for pool in pools}

    def with_half_life(self, half_life_s: float, now: float) -> "UsageMemory":
        """Return a memory that knows the same as of now, and forgets at another pace.

        What is borrowed now goes on being borrowed.
        """
        twin = UsageMemory(half_life_s)
        twin._pools = {queue: set(pools) for queue, pools in self._pools.items()}
        for queue, (_, rate, since) in self._known.items():
            past = self.average(queue, now)
            twin._known[queue] = (past, rate, max(now, since))
        return twin


def usage_score(
    averages: Mapping[Kind, float], worth: Mapping[Kind, float], weight: float
) -> float:
    """Add up averages by worth (1 where none is given), over the queue's weight."""
    if weight <= 0:
        return float("inf")
    return sum(n * worth.get(kind, 1) for kind, n in sorted(averages.items())) / weight


def tilted(weight: int, siblings: int, usage: Fraction, strength_milli: int) -> int:
    """Return a weight times `TILT_SCALE`, tilted by past borrowing.

    KAI's formula: ``n + k (n - u)`` for a queue whose part of the weights is n and that
    has borrowed the part u of what it shares with its siblings; ours is bounded on both
    sides.

    Parameters
    ----------
    siblings
        Sum of the weights of the queue and its siblings.
    usage
        Part that the queue has borrowed, on the decayed average, of what there is for
        it and its siblings.
    strength_milli
        k in thousandths.
    """
    if not weight:
        return 0
    part = Fraction(weight, siblings)
    factor = 1 + Fraction(strength_milli, 1000) * (1 - usage / part)
    bounded = min(max(factor, Fraction(1, MOST_TILT)), Fraction(MOST_TILT))
    return max(1, int(weight * TILT_SCALE * bounded))
