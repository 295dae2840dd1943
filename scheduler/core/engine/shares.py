"""What division grants now, kept up to date gang by gang; and how the past tilts it.

Shares are computed when somebody asks, for what has changed since. Two kinds:

* ``share`` follows from what is asked for now. The rules of reclaim look at it;
* ``turn_share`` is tilted by past borrowing (usage memory) and orders waiting work.
  It justifies no eviction. Without memory the two are one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from scheduler.core.fairness import (
    TIERS,
    Division,
    Guarantee,
    Standing,
    UsageMemory,
    borrowed_share,
    entitlements,
    tilted,
    usage_score,
)
from scheduler.core.gpu import Form
from scheduler.core.quota import QuotaTree
from scheduler.core.workload import TenantName


@dataclass(frozen=True, slots=True)
class Wants:
    """What a queue wants: its own quanta per form and tier, and all gangs below it."""

    wanted: Mapping[Form, Sequence[int]]
    standings: Callable[[], list[Standing]]


class Shares:
    """Shares of every queue of a tree.

    Parameters
    ----------
    wants
        Answers what a queue wants now.
    """

    def __init__(self, wants: Callable[[TenantName], Wants]) -> None:
        self._wants = wants
        self._tree = QuotaTree(())
        self._memory: UsageMemory | None = None
        self._clock = 0.0  # when past borrowing was weighed last
        self._borrowers: set[TenantName] = set()  # have borrowed or given back since
        self._division: Division | None = None
        self._tilted: Division | None = None
        self._changed: set[TenantName] = set()
        self._loans: dict[TenantName, float] = {}
        self._entitled: dict[TenantName, dict[Form, int]] = {}
        self._bound: frozenset[TenantName] = frozenset()  # over several forms

    # -- what has changed --------------------------------------------------------

    def restart(self, tree: QuotaTree) -> None:
        """Start anew: the tree, or what there is, has changed. The memory stays."""
        self._tree = tree
        if not tree.fleet.half_life_s:
            self._memory = None
        elif self._memory is None:
            self._memory = UsageMemory(tree.fleet.half_life_s)
        self._division = self._tilted = None
        self._entitled.clear()
        self._bound = frozenset(q for q in tree.queues if tree.is_cross_bound(q))
        self._borrowers.update(tree.queues)
        self._loans.clear()

    def touch(self, tenant: TenantName) -> None:
        """Note that a tenant wants or uses something else."""
        if tenant in self._tree.queues:
            self._tilted = None
            self._changed.add(tenant)
            self._borrowers.update(self._tree.path(tenant))
            for queue in self._tree.path(tenant):
                self._loans.pop(queue, None)

    # -- shares --------------------------------------------------------------------

    def share(self, queue: TenantName, form: Form) -> list[int]:
        """Return what division grants the queue now of `form`, quanta per tier."""
        return self._divided().share(queue, form)

    def turn_share(self, queue: TenantName, form: Form) -> int:
        """Return the share, in quanta, by which waiting work is ordered."""
        if self._memory is None:
            return sum(self.share(queue, form))
        if self._tilted is None:
            self._tilted = self._divided().reweighed(self._tilts(self._memory))
        return sum(self._tilted.share(queue, form))

    def loan(self, queue: TenantName) -> float:
        """Return the queue's share of what is borrowed, by value."""
        found = self._loans.get(queue)
        if found is None:
            found = self._loans[queue] = float(borrowed_share(self._tree, queue))
        return found

    def _divided(self) -> Division:
        """Return the division, after it was told what is asked for by now."""
        if self._division is None:
            self._division = Division(self._tree)
            self._changed.update(self._tree.queues)
        changed = sorted(name for name in self._changed if name in self._tree.queues)
        self._changed.clear()
        for tenant in changed:
            wanted = self._wants(tenant).wanted
            for form in sorted(self._division.asked_for(tenant).union(wanted)):
                self._division.ask(tenant, form, wanted.get(form, [0] * TIERS))
        if changed and (self._tree.pools.members or self._bound):
            above = {queue for name in changed for queue in self._tree.path(name)}
            deepest = sorted(above, key=lambda q: (-len(self._tree.path(q)), q))
            for queue in deepest:
                self._entitle(self._division, queue)
                if queue in self._bound:
                    self._limit(self._division, queue)
        return self._division

    def _entitle(self, division: Division, queue: TenantName) -> None:
        """Say which forms the queue's guarantees of groups are spent on."""
        tree = self._tree
        owned, pools = tree.guarantees(queue), tree.pools
        if not any(owned.get(group) for group in pools.members):
            return
        owed: dict[Form, int] = {}
        for child in tree.children.get(queue, ()):
            amounts = self._entitled.get(child) or _forms_only(tree, child)
            for form, amount in amounts.items():
                owed[form] = owed.get(form, 0) + amount
        guarantee = Guarantee(owned, pools, tree.group_bounds(queue))
        amounts = entitlements(self._wants(queue).standings(), guarantee, owed=owed)
        self._entitled[queue] = amounts
        for form in sorted(set(pools.forms()) | amounts.keys()):
            division.entitle(queue, form, amounts.get(form, 0))

    def _limit(self, division: Division, queue: TenantName) -> None:
        """Say what the bounds of a queue over several forms let it hold of each."""
        wants: dict[Form, list[int]] = {}
        for standing in self._wants(queue).standings():
            row = wants.setdefault(standing.form, [0] * TIERS)
            row[standing.workload_class] += standing.quanta
        for form, most in self._tree.may_hold(queue, wants).items():
            division.bound(queue, form, min(most, self._tree.ceiling(queue, form)))

    # -- the past --------------------------------------------------------------------

    def weigh(self, now: float) -> None:
        """Look at past borrowing as of now: the order of waiting work goes by it."""
        if self._memory is not None:
            self._clock = max(now, self._clock)
            self._tilted = None

    def remember(self, now: float) -> None:
        """Note who borrows how much from now on: each door that changes use ends so."""
        if self._memory is None:
            self._borrowers.clear()
            return
        half_life_s = self._tree.fleet.half_life_s
        if self._memory.half_life_s != half_life_s:
            self._memory = self._memory.with_half_life(half_life_s, now)
        for queue in sorted(self._borrowers & self._tree.queues.keys()):
            self._memory.note(queue, self._tree.borrowed(queue), now)
        self._borrowers.clear()

    def _tilts(self, memory: UsageMemory) -> dict[TenantName, int]:
        """Weights as past borrowing tilts them.

        What a queue has borrowed is measured against what there is for it and its
        siblings: for roots the fleet, below them what their parent is guaranteed and
        has itself borrowed.
        """
        tree, fleet = self._tree, self._worth(self._tree.capacity)
        strength = tree.fleet.memory_strength_milli
        past = {name: self._past(memory, name) for name in tree.queues}
        found: dict[TenantName, int] = {}
        for parent, siblings in tree.children.items():
            there = fleet
            if parent is not None:
                there = self._worth(tree.guarantees(parent)) + past[parent]
            total = sum(tree.queues[name].weight for name in siblings)
            for name in siblings:
                usage = past[name] / there if there else Fraction(0)
                found[name] = tilted(tree.queues[name].weight, total, usage, strength)
        return found

    def _past(self, memory: UsageMemory, queue: TenantName) -> Fraction:
        """Return what a queue has borrowed on the decayed average, by value."""
        averages = memory.averages(queue, self._clock)
        worth = {pool: float(self._tree.value(pool)) for pool in averages}
        return Fraction(usage_score(averages, worth, 1))

    def _worth(self, amounts: Mapping[Form, int]) -> Fraction:
        """Add up amounts by value."""
        return Fraction(sum(n * self._tree.value(pool) for pool, n in amounts.items()))


def _forms_only(tree: QuotaTree, queue: TenantName) -> dict[Form, int]:
    groups = tree.pools.members
    return {p: n for p, n in tree.guarantees(queue).items() if p not in groups}
