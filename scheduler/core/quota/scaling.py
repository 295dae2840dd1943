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


MOST_TOLD = 8
"""Siblings that the text of a shortage names; the others are added up."""


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
        shown, rest = self.parts[:MOST_TOLD], self.parts[MOST_TOLD:]
        terms = " + ".join(devices(amount, self.form) for _, amount in shown)
        names = ", ".join(name for name, _ in shown)
        if rest:
            terms += f" + {devices(sum(n for _, n in rest), self.form)}"
            names += f" and {len(rest)} more"
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


def resolved(
    pools: Pools, children: Children, promised: Promises
) -> dict[TenantName, dict[Form, int]]:
    """Return the promises with groups turned into the classes that are needed of them.

    What a queue promises its children of a class beyond its own guarantee of the class
    must come out of its groups: so much of them is a promise of that class.
    """
    found: dict[TenantName, dict[Form, int]] = {}

    def climb(queue: Queue) -> None:
        mine = found[queue.name] = dict(promised[queue.name])
        needed: dict[Form, int] = {}
        for child in children(queue.name):
            climb(child)
            for form, amount in found[child.name].items():
                if form not in pools.members:
                    needed[form] = needed.get(form, 0) + amount
        for form in sorted(needed):
            for group in pools.chain(form)[1:]:
                short = needed[form] - mine.get(form, 0)
                part = min(max(0, short), mine.get(group, 0))
                if part:
                    mine[group] -= part
                    mine[form] = mine.get(form, 0) + part

    for root in children(None):
        climb(root)
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
    scaling = _Scaling(pools, children, promised)
    scaling.descend(None, capacity, capacity)
    if not pools.members or capacity is None:
        return scaling.kept, scaling.shortages
    needs = {
        name: {form: n for form, n in amounts.items() if form not in pools.members}
        for name, amounts in resolved(pools, children, promised).items()
    }
    classes = _Scaling(pools, children, needs)
    classes.descend(None, capacity, capacity)
    there = {
        name: _at_most(owned, classes.kept[name], pools)
        for name, owned in promised.items()
    }
    again = _Scaling(pools, children, there)
    again.descend(None, capacity, capacity)
    known = {(shortage.queue, shortage.form) for shortage in scaling.shortages}
    more = [s for s in classes.shortages if (s.queue, s.form) not in known]
    at_roots = [shortage for shortage in more if shortage.queue is None]
    return again.kept, [*scaling.shortages, *at_roots]


def _at_most(owned: Amounts, classes: Amounts, pools: Pools) -> Amounts:
    """Cut classes that groups were thought to supply, and are not there."""
    less = {
        form: classes[form]
        for form, amount in owned.items()
        if form not in pools.members and classes[form] < amount
    }
    return {**owned, **less} if less else owned


class _Scaling:
    """One walk down the tree with promises that may be too large."""

    def __init__(self, pools: Pools, children: Children, promised: Promises) -> None:
        self._pools = pools
        self._children = children
        self._promised = promised
        self.kept: dict[TenantName, Amounts] = dict(promised)
        self.shortages: list[Shortage] = []

    def descend(
        self,
        parent: TenantName | None,
        promise: Amounts | None,
        supply: Amounts | None,
    ) -> None:
        """Give `supply` to the children; they are short of more than `promise`."""
        queues = self._children(parent)
        wanted: dict[Form, int] = {}
        for queue in queues:
            for form, amount in self._promised[queue.name].items():
                wanted[form] = wanted.get(form, 0) + amount
        had = wanted if supply is None else served(self._pools, supply, wanted)
        due = had if promise is supply else served(self._pools, promise or {}, wanted)
        for form in sorted(wanted):
            owned = [self._promised[queue.name].get(form, 0) for queue in queues]
            if due[form] < wanted[form]:
                parts = zip(queues, owned, strict=True)
                named = tuple((q.name, n) for q, n in parts if n)
                self.shortages.append(Shortage(parent, form, named, due[form]))
            if had[form] < wanted[form]:
                self._cut(queues, owned, form, had[form])
        for queue in queues:
            self.descend(queue.name, self._promised[queue.name], self.kept[queue.name])

    def _cut(
        self, queues: Sequence[Queue], owned: Sequence[int], form: Form, total: int
    ) -> None:
        unit = charge(form)
        rest = cut(queues, [n // unit for n in owned], total // unit)
        for queue, count in zip(queues, rest, strict=True):
            if form in self._promised[queue.name]:
                kept = self.kept[queue.name]
                self.kept[queue.name] = {**kept, form: count * unit}
