"""Minute-by-minute division of demand curves, without single jobs.

Hidden here: how the core's division (`scheduler.core.divide`) is replayed over measured
demand, as if GPUs were a fluid: no gangs, no nodes, no delays. It answers what sharing
could serve at best, and what fixed quotas leave unserved. Amounts are quanta inside,
GPU-minutes outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.core import QUANTA_PER_GPU, Claim, divide
from simulator.trace import Curve

MINUTE_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What one tenant, or all, asked for and got: GPU-minutes.

    `static` is served by fixed quotas, `shared` by guarantee and burst; `min_under`
    counts the minutes in which sharing gave less than the guarantee and demand allow.
    """

    quota: int
    demand: int
    static: int
    shared: float
    unmet_static: int
    unmet_shared: float
    min_under: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FluidRun:
    """A replay: the whole and its parts; `utilisation` as parts of the capacity."""

    capacity: int
    minutes: int
    total: Served
    tenants: dict[str, Served]
    utilisation_static: float
    utilisation_shared: float

    @property
    def guarantee_violation_s(self) -> int:
        """Time in which some tenant got less than its guarantee and demand allow."""
        return self.total.min_under * MINUTE_S


def replay(curves: Sequence[Curve]) -> FluidRun:
    """Divide the sum of the quotas among the tenants, minute by minute.

    What guarantees leave is divided in proportion to them (weight = guarantee).
    """
    books = [_Book() for _ in curves]
    known: dict[tuple[tuple[int, int], ...], tuple[int, ...]] = {}
    minutes = len(curves[0].demand) if curves else 0
    for minute in range(minutes):
        asked = tuple((curve.quota[minute], curve.demand[minute]) for curve in curves)
        shares = known.get(asked)
        if shares is None:
            shares = known[asked] = _divide(asked)
        for book, (quota, demand), share in zip(books, asked, shares, strict=True):
            book.add(quota, demand, share)
    pairs = list(zip(curves, books, strict=True))
    capacity = sum(curve.quota[-1] for curve in curves) if minutes else 0
    total = _sum(books).served(capacity)
    offered = sum(sum(curve.quota) for curve in curves) or 1
    return FluidRun(
        capacity=capacity,
        minutes=minutes,
        total=total,
        tenants={curve.tenant: book.served(curve.quota[-1]) for curve, book in pairs},
        utilisation_static=total.static / offered,
        utilisation_shared=total.shared / offered,
    )


def _divide(asked: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    claims = [
        Claim(
            guarantee=quota * QUANTA_PER_GPU,
            demands=(demand * QUANTA_PER_GPU,),
            weight=quota,
            order=order,
        )
        for order, (quota, demand) in enumerate(asked)
    ]
    return divide(sum(quota for quota, _ in asked) * QUANTA_PER_GPU, claims)


class _Book:
    """One tenant's sums; `shared` in quanta, the others in GPUs, times minutes."""

    __slots__ = ("demand", "shared", "static", "under")

    def __init__(self) -> None:
        self.demand = 0
        self.static = 0
        self.shared = 0
        self.under = 0

    def add(self, quota: int, demand: int, share: int) -> None:
        """Book one minute."""
        due = min(quota, demand)
        self.demand += demand
        self.static += due
        self.shared += share
        self.under += share < due * QUANTA_PER_GPU

    def served(self, quota: int) -> Served:
        """Return the sums for people."""
        unmet = self.demand * QUANTA_PER_GPU - self.shared
        return Served(
            quota=quota,
            demand=self.demand,
            static=self.static,
            shared=self.shared / QUANTA_PER_GPU,
            unmet_static=self.demand - self.static,
            unmet_shared=unmet / QUANTA_PER_GPU,
            min_under=self.under,
        )


def _sum(books: Sequence[_Book]) -> _Book:
    total = _Book()
    total.demand = sum(book.demand for book in books)
    total.static = sum(book.static for book in books)
    total.shared = sum(book.shared for book in books)
    total.under = sum(book.under for book in books)
    return total
