"""What is fair: division of capacity, and what a guarantee covers.

Theory of operation
-------------------
*Division* (design, section 6) splits the quanta of one form among siblings:

1. everyone gets ``min(guarantee, demand)``, most urgent demand first;
2. what is left (less what owners keep unlent) goes to the remaining demand tier by
   tier: workload class, then tenant priority. Inside a tier it is weighted max-min
   fair: a level rises until the capacity is used, and nobody gets more than they ask.
   Integers throughout; the remainder goes to the largest fractions, then the oldest.

Nothing reaches a lower tier while a higher one wants more. ``division`` applies it
recursively down the tenant tree, a parent's demand being what its children may hold.

*Cover* says which of a queue's gangs its guarantee pays for. It is computed each time
and never stored: walk the gangs by class, priority, then running before waiting, then
age, and take each whole gang that still fits the guarantee. The rest is burst,
including a gang that straddles the edge; a member above ``minMember`` comes after its
gang and is covered with it only. Running comes before waiting at equal class
and priority, so that a waiting gang which cannot be placed strips nobody of protection,
and starting a gang changes no other gang's cover.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from scheduler.core.gpu import Form
from scheduler.core.quota import UNLIMITED, QuotaTree
from scheduler.core.workload import GangId, TenantName, WorkloadClass

TIERS = len(WorkloadClass)

Rank = tuple[int, int, bool, float, str]


@dataclass(frozen=True, slots=True)
class Claim:
    """What one sibling brings to a division, in quanta.

    `demands` holds one amount per tier, most urgent first. `ceiling` is the most it may
    hold, None for no limit. `kept` is the least it takes out of the capacity: what it
    does not ask for of that stays idle, out of its guarantee.
    """

    guarantee: int
    demands: tuple[int, ...]
    weight: int = 1
    priority: int = 0
    order: int = 0
    ceiling: int | None = None
    kept: int = 0


@dataclass(frozen=True)
class Standing:
    """One gang as the cover sees it.

    `since` is its start, or its submission if it waits. `form` and `quanta` are what
    it holds or would like best; `also` holds the other forms a waiting gang accepts.
    `core` is set on a member above ``minMember``: the gang that it extends.
    """

    gang: GangId
    workload_class: WorkloadClass
    priority: int
    running: bool
    since: float
    form: Form
    quanta: int
    also: tuple[tuple[Form, int], ...] = ()
    core: GangId | None = None

    @cached_property
    def rank(self) -> Rank:
        """Sort key of the walk: the guarantee is spent in this order."""
        return (
            int(self.workload_class),
            -self.priority,
            not self.running,
            self.since,
            self.gang,
        )


def covered_forms(
    gangs: Sequence[Standing], guarantee: Mapping[Form, int]
) -> dict[GangId, Form]:
    """Return the gangs that `guarantee` (quanta by form) pays for, with the form."""
    if any(gang.core is not None for gang in gangs):
        return Spending(gangs, guarantee).taken
    left = dict(guarantee)
    rest = sum(left.values())
    taken: dict[GangId, Form] = {}
    for gang in sorted(gangs, key=_rank):
        if not rest:
            break  # nothing is left for anybody
        for form, quanta in ((gang.form, gang.quanta), *gang.also):
            if quanta <= left.get(form, 0):
                left[form] -= quanta
                rest -= quanta
                taken[gang.gang] = form
                break
    return taken


class Spending:
    """One walk along the gangs: whom the guarantee pays for, and what is left where.

    `taken` holds the gangs that are paid for, with the form.
    """

    def __init__(
        self, gangs: Iterable[Standing], guarantee: Mapping[Form, int]
    ) -> None:
        self.taken: dict[GangId, Form] = {}
        self._keys: list[tuple[Rank, bool]] = []
        self._left = {form: [amount] for form, amount in guarantee.items()}
        left = dict(guarantee)
        passed: set[GangId | None] = set()
        for key, gang in _walk(gangs):
            if gang.core not in passed:
                self._pay(gang, left)
            if gang.gang not in self.taken:
                passed.add(gang.gang)
            self._keys.append(key)
            for form, amounts in self._left.items():
                amounts.append(left[form])

    def _pay(self, gang: Standing, left: dict[Form, int]) -> None:
        for form, quanta in ((gang.form, gang.quanta), *gang.also):
            if quanta <= left.get(form, 0):
                left[form] -= quanta
                self.taken[gang.gang] = form
                return

    def would_pay(self, gang: Standing) -> bool:
        """Whether the guarantee would pay for one more gang that holds its form."""
        step = bisect_left(self._keys, (gang.rank, False))
        return gang.form in self._left and gang.quanta <= self._left[gang.form][step]


def _walk(gangs: Iterable[Standing]) -> list[tuple[tuple[Rank, bool], Standing]]:
    """Sort by rank, but no member above ``minMember`` before the gang it extends."""
    found = sorted(gangs, key=lambda gang: gang.rank)
    if all(gang.core is None for gang in found):
        return [((gang.rank, False), gang) for gang in found]
    ranks = {gang.gang: gang.rank for gang in found}
    keyed = [(_rank_behind(gang, ranks), gang) for gang in found]
    return sorted(keyed, key=lambda pair: pair[0])


def _rank_behind(gang: Standing, ranks: Mapping[GangId, Rank]) -> tuple[Rank, bool]:
    if gang.core is None:
        return gang.rank, False
    return max(gang.rank, ranks.get(gang.core, gang.rank)), True


def covered(gangs: Iterable[Standing], guarantee: Mapping[Form, int]) -> set[GangId]:
    """Return the gangs that `guarantee` (quanta by form) pays for."""
    return set(covered_forms(list(gangs), guarantee))


def demoted(gangs: Sequence[Standing], caps: Mapping[Form, int]) -> set[GangId]:
    """Return the inference gangs whose demand is divided in the training tier.

    Calling training "inference" must not pay: inference beyond `caps` (quanta by form)
    queues in the training tier (design, section 6).
    """
    left = dict(caps)
    found: set[GangId] = set()
    urgent = [gang for gang in gangs if gang.workload_class.is_inference]
    for gang in sorted(urgent, key=_rank):
        if gang.quanta <= left.get(gang.form, 0):
            left[gang.form] -= gang.quanta
        else:
            found.add(gang.gang)
    return found


def _rank(standing: Standing) -> Rank:
    return standing.rank


# -- division -----------------------------------------------------------------


def divide(total: int, claims: Sequence[Claim], unit: int = 1) -> tuple[int, ...]:
    """Divide `total` quanta among siblings; see the module's theory.

    Parameters
    ----------
    unit
        Granularity of burst in quanta: a whole GPU where whole GPUs are asked for.

    Returns
    -------
    tuple of int
        One share per claim, in the order of `claims`.
    """
    return tuple(sum(tiers) for tiers in divide_tiers(total, claims, unit))


def divide_tiers(total: int, claims: Sequence[Claim], unit: int = 1) -> list[list[int]]:
    """Divide like `divide`, telling each claim's share tier by tier."""
    wants = [_capped(claim) for claim in claims]
    idle = [max(0, c.kept - sum(w)) for c, w in zip(claims, wants, strict=True)]
    grants = [
        _spend(claim.guarantee - unasked, want)
        for claim, unasked, want in zip(claims, idle, wants, strict=True)
    ]
    rest = max(0, total - sum(idle) - sum(map(sum, grants)))
    for tier in range(max((len(c.demands) for c in claims), default=0)):
        for priority in sorted({c.priority for c in claims}, reverse=True):
            members = [
                i
                for i, claim in enumerate(claims)
                if claim.priority == priority and tier < len(wants[i])
            ]
            asked = [wants[i][tier] - grants[i][tier] for i in members]
            given = _fill_weighted(rest, asked, [claims[i] for i in members], unit)
            for i, amount in zip(members, given, strict=True):
                grants[i][tier] += amount
            rest -= sum(given)
    return grants


def _capped(claim: Claim) -> list[int]:
    """Demand per tier, cut where the ceiling is reached."""
    left = UNLIMITED if claim.ceiling is None else max(0, claim.ceiling)
    return _spend(left, claim.demands)


def _spend(budget: int, wants: Sequence[int]) -> list[int]:
    given: list[int] = []
    for want in wants:
        part = min(want, budget)
        given.append(part)
        budget -= part
    return given


def _fill_weighted(
    total: int, wants: Sequence[int], claims: Sequence[Claim], unit: int
) -> list[int]:
    """Fill by weight; claims of weight 0 get what the others leave, as equals."""
    weighted = [
        want if claim.weight else 0 for want, claim in zip(wants, claims, strict=True)
    ]
    given = fill(
        total, weighted, [c.weight for c in claims], [c.order for c in claims], unit
    )
    rest = total - sum(given)
    unpaid = [
        want if not claim.weight else 0
        for want, claim in zip(wants, claims, strict=True)
    ]
    more = fill(rest, unpaid, [1] * len(claims), [c.order for c in claims], unit)
    return [a + b for a, b in zip(given, more, strict=True)]


def fill(
    total: int,
    wants: Sequence[int],
    weights: Sequence[int],
    orders: Sequence[int],
    unit: int = 1,
) -> list[int]:
    """Weighted max-min division on integers (water-filling).

    Claims that want no more than the level reaches are served whole; the others get
    the level times their weight, rounded down to `unit`, and what rounding left over
    goes unit by unit to the largest fraction, then the oldest.
    """
    given = [0] * len(wants)
    open_ = [i for i, want in enumerate(wants) if want > 0]
    rest = total
    while open_:
        weight = sum(weights[i] for i in open_)
        sated = [i for i in open_ if wants[i] * weight <= rest * weights[i]]
        if not sated:
            break
        for i in sated:
            given[i] = wants[i]
            rest -= wants[i]
        open_ = [i for i in open_ if not given[i]]
    if open_ and rest > 0:
        _round(rest, wants, weights, orders, unit, open_, given)
    return given


def _round(
    rest: int,
    wants: Sequence[int],
    weights: Sequence[int],
    orders: Sequence[int],
    unit: int,
    open_: list[int],
    given: list[int],
) -> None:
    """Hand `rest` to the unsated in proportion, largest remainder first."""
    weight = sum(weights[i] for i in open_)
    exact = {i: Fraction(rest * weights[i], weight) for i in open_}
    for i in open_:
        given[i] = int(exact[i]) // unit * unit
    spare = rest - sum(given[i] for i in open_)
    queue = sorted(open_, key=lambda i: (given[i] - exact[i], orders[i], i))
    progress = True
    while progress:  # ends when less than a unit is left that would complete nobody
        progress = False
        for i in queue:
            part = min(unit, wants[i] - given[i])
            if 0 < part <= spare:
                given[i] += part
                spare -= part
                progress = True


def division(
    tree: QuotaTree,
    form: Form,
    demands: Mapping[TenantName, tuple[int, ...]],
    unit: int = 1,
) -> dict[TenantName, list[int]]:
    """Divide the fleet's capacity of `form` down the tenant tree.

    Parameters
    ----------
    demands
        Quanta running and waiting, per tenant and tier.

    Returns
    -------
    dict
        Share per queue (tenants and inner queues) and tier, in quanta.
    """
    run = _Division(tree, form, demands, unit)
    for root in tree.children[None]:
        run.gather(root)
    run.grant(None, tree.capacity.get(form, 0))
    return run.shares


class _Division:
    """One division down the tree: what is asked goes up, what is granted comes down.

    `idle` is what a subtree keeps for itself although nobody below asks for it. It is
    taken out of the guarantees on the way, so that every level divides the same room.
    """

    def __init__(
        self,
        tree: QuotaTree,
        form: Form,
        demands: Mapping[TenantName, tuple[int, ...]],
        unit: int,
    ) -> None:
        self.tree = tree
        self.form = form
        self.demands = demands
        self.unit = unit
        self.asked: dict[TenantName, tuple[int, ...]] = {}
        self.idle: dict[TenantName, int] = {}
        self.shares: dict[TenantName, list[int]] = {}

    def gather(self, name: TenantName) -> None:
        """Note the demand of a subtree: what its children may hold of what they ask."""
        wants = list(self.demands.get(name, (0,) * TIERS))
        for child in self.tree.children.get(name, ()):
            self.gather(child)
            wants = [a + b for a, b in zip(wants, self.asked[child], strict=True)]
        below = self._idle_below(name)
        ceiling = self.tree.ceiling(name, self.form)
        self.asked[name] = tuple(_spend(max(0, ceiling - below), wants))
        unasked = self.tree.kept(name, self.form) - sum(self.asked[name])
        self.idle[name] = max(below, unasked)

    def grant(self, parent: TenantName | None, total: int) -> None:
        """Divide `total` among the children of a queue, then among theirs."""
        names = self.tree.children.get(parent, [])
        claims = [self._claim(name) for name in names]
        parts = divide_tiers(total, claims, self.unit)
        for name, granted in zip(names, parts, strict=True):
            self.shares[name] = granted
            self.grant(name, sum(granted) + self._idle_below(name))

    def _idle_below(self, name: TenantName) -> int:
        return sum(self.idle[child] for child in self.tree.children.get(name, ()))

    def _claim(self, name: TenantName) -> Claim:
        queue = self.tree.queues[name]
        return Claim(
            guarantee=self.tree.guarantee(name, self.form),
            demands=self.asked[name],
            weight=queue.weight,
            priority=queue.priority,
            order=queue.order,
            kept=sum(self.asked[name]) + self.idle[name],
        )
