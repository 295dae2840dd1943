"""When guarantees exceed what there is: one written rule, and who is short.

Among siblings, per form: tenants of higher priority are served first; inside a
priority everybody gets the same part of its guarantee, in whole devices, the largest
remainders rounded up first, then the older. What a queue is left with is divided among
its children by the same rule. A group is served from what its members have left.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.core.gpu import Form, charge
from scheduler.core.quota.pools import Pools
from scheduler.core.quota.queue import Amounts, Queue, devices
from scheduler.core.workload import TenantName

Children = Callable[[TenantName | None], Sequence[Queue]]
Promises = Mapping[TenantName, Amounts]


@dataclass(frozen=True, slots=True)
class Shortage:
    """More is guaranteed below `queue` (None: at the roots) than can be had at once.

    `parts` are the siblings' guarantees of `form`, `available` what there is for them,
    in quanta.
    """

    queue: TenantName | None
    form: Form
    parts: tuple[tuple[TenantName, int], ...]
    available: int

    @property
    def missing(self) -> int:
        """Quanta that are guaranteed and not there."""
        return sum(amount for _, amount in self.parts) - self.available

    def __str__(self) -> str:
        """Say it in numbers: ``guarantees of h100-80gb: 40 + 8 > 44 available``."""
        terms = " + ".join(devices(amount, self.form) for _, amount in self.parts)
        names = ", ".join(name for name, _ in self.parts)
        there = devices(self.available, self.form)
        whose = f"guaranteed to {self.queue}" if self.queue else "available"
        return f"guarantees of {self.form}: {terms} > {there} {whose} ({names})"


def served(pools: Pools, supply: Amounts, wanted: Amounts) -> dict[Form, int]:
    """Return how much of each wanted pool can be had at once, in quanta.

    What is supplied for a group may be used for any of its members. Exact for nested
    groups: a pool takes what is over inside it before what is supplied around it.
    """
    found = dict.fromkeys(wanted, 0)
    over: dict[Form, int] = {}  # supplied inside a pool and not needed there
    short: dict[Form, list[Form]] = {}  # inside a pool, not yet had in full
    for pool in pools.ascending({*supply, *wanted}):
        below, here = over.get(pool, 0), supply.get(pool, 0)
        taken = min(wanted.get(pool, 0), below)
        below -= taken
        if taken:
            found[pool] = taken
        for needy in [*short.get(pool, ()), pool]:
            part = min(wanted.get(needy, 0) - found.get(needy, 0), here)
            if part:
                found[needy] += part
                here -= part
        around = pools.chain(pool)[1:2]
        for larger in around:
            over[larger] = over.get(larger, 0) + below + here
            waiting = [p for p in [*short.get(pool, ()), pool] if p in wanted]
            still = [p for p in waiting if found[p] < wanted[p]]
            short.setdefault(larger, []).extend(still)
    return found


def cut(queues: Sequence[Queue], owned: Sequence[int], total: int) -> list[int]:
    """Divide `total` devices among guarantees of `owned` devices, which exceed it."""
    given = [0] * len(queues)
    for priority in sorted({queue.priority for queue in queues}, reverse=True):
        tier = [i for i, queue in enumerate(queues) if queue.priority == priority]
        asked = sum(owned[i] for i in tier)
        part = min(total, asked)
        for i in tier:
            given[i] = owned[i] * part // asked if asked else 0
        spare = part - sum(given[i] for i in tier)
        fractions = sorted(
            tier, key=lambda i: (-(owned[i] * part % asked if asked else 0), i)
        )
        for i in fractions[:spare]:
            given[i] += 1
        total -= part
    return given


def scale(
    pools: Pools, children: Children, promised: Promises, capacity: Amounts | None
) -> tuple[dict[TenantName, Amounts], list[Shortage]]:
    """Return the guarantees that can be kept, and where the promises exceed each other.

    Queues that get all they were promised keep their very mapping. Children are short
    when they are promised more than their parent was; that the parent is short itself
    is told of the parent alone. Without a known capacity the roots get all.
    """
    kept = dict(promised)
    shortages: list[Shortage] = []

    def descend(
        parent: TenantName | None, promise: Amounts | None, supply: Amounts | None
    ) -> None:
        queues = children(parent)
        wanted: dict[Form, int] = {}
        for queue in queues:
            for form, amount in promised[queue.name].items():
                wanted[form] = wanted.get(form, 0) + amount
        had = wanted if supply is None else served(pools, supply, wanted)
        due = had if promise is supply else served(pools, promise or {}, wanted)
        for form in sorted(wanted):
            owned = [promised[queue.name].get(form, 0) for queue in queues]
            if due[form] < wanted[form]:
                parts = zip(queues, owned, strict=True)
                named = tuple((q.name, n) for q, n in parts if n)
                shortages.append(Shortage(parent, form, named, due[form]))
            if had[form] < wanted[form]:
                unit = charge(form)
                rest = cut(queues, [n // unit for n in owned], had[form] // unit)
                for queue, count in zip(queues, rest, strict=True):
                    if form in promised[queue.name]:
                        kept[queue.name] = {**kept[queue.name], form: count * unit}
        for queue in queues:
            descend(queue.name, promised[queue.name], kept[queue.name])

    descend(None, capacity, capacity)
    return kept, shortages
