"""What a guarantee covers, and in which tier a demand counts.

*Cover* says which of a queue's gangs its guarantee pays for. It is computed each time
and never stored: walk the gangs by class, priority, then running before waiting, then
age, and take each whole gang that still fits the guarantee. The rest is burst,
including a gang that straddles the edge; a member above ``minMember`` comes after its
gang and is covered with it only. Running comes before waiting at equal class
and priority, so that a waiting gang which cannot be placed strips nobody of protection,
and starting a gang changes no other gang's cover.

A gang on a form is paid by the guarantee of the form first, then by those of the groups
around it, the smallest first.

Calling training "inference" must not pay: what of a tenant's inference is above its cap
counts as training, and inference-critical without a grant is plain inference.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from scheduler.core.gpu import Form
from scheduler.core.quota import Amounts, Fleet, Pools
from scheduler.core.workload import GangId, WorkloadClass

Rank = tuple[int, int, bool, float, int, str]

NO_GROUPS = Pools(Fleet())


@dataclass(frozen=True)
class Standing:
    """One gang as the cover sees it.

    `since` is its start, or its submission if it waits; of those that started at the
    same time, the one with the smaller `turn` was first. `form` and `quanta` are what
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
    turn: int = 0

    @cached_property
    def rank(self) -> Rank:
        """Sort key of the walk: the guarantee is spent in this order."""
        return (
            int(self.workload_class),
            -self.priority,
            not self.running,
            self.since,
            self.turn,
            self.gang,
        )


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What a queue is guaranteed, as a purse that gangs are paid from.

    Parameters
    ----------
    owned
        Quanta by pool.
    bounds
        Most quanta of a form that groups may pay for: what is there and promised to
        nobody as that very form. A form that is not listed has no bound.
    """

    owned: Amounts
    pools: Pools = NO_GROUPS
    bounds: Amounts = field(default_factory=dict)

    def purse(self) -> "Purse":
        """Return the guarantee, unspent."""
        return Purse(dict(self.owned), self.pools, dict(self.bounds))


class Purse:
    """A guarantee that is being spent: what is left of it, quanta by pool."""

    def __init__(
        self, left: dict[Form, int], pools: Pools, bounds: dict[Form, int]
    ) -> None:
        self.left = left
        self._pools = pools
        self._bounds = bounds
        self._grouped = bool(pools.members)

    def copy(self) -> "Purse":
        """Return a purse that is spent by itself from now on."""
        return Purse(dict(self.left), self._pools, dict(self._bounds))

    def by_form(self) -> dict[Form, int]:
        """Return what is left for forms by themselves, groups left out."""
        groups = self._pools.members
        return {pool: n for pool, n in self.left.items() if pool not in groups}

    def holds(self, form: Form) -> int:
        """Quanta that could still be paid for the form."""
        own, *groups = self._pools.chain(form)
        shared = sum(self.left.get(group, 0) for group in groups)
        return self.left.get(own, 0) + min(shared, self._bounds.get(form, shared))

    def pay(self, form: Form, quanta: int) -> bool:
        """Pay all of it, or nothing and say so."""
        if not self._grouped:
            left = self.left.get(form, 0)
            if quanta > left:
                return False
            self.left[form] = left - quanta
            return True
        if quanta > self.holds(form):
            return False
        own, *groups = self._pools.chain(form)
        quanta -= self._take(own, quanta)
        if form in self._bounds:
            self._bounds[form] -= quanta
        for group in groups:
            quanta -= self._take(group, quanta)
        return True

    def _take(self, pool: Form, quanta: int) -> int:
        part = min(quanta, self.left.get(pool, 0))
        if part:
            self.left[pool] -= part
        return part


def covered_forms(
    gangs: Sequence[Standing], guarantee: Guarantee | Amounts, pools: Pools = NO_GROUPS
) -> dict[GangId, Form]:
    """Return the gangs that `guarantee` pays for, with the form."""
    if any(gang.core is not None for gang in gangs):
        return Spending(gangs, guarantee, pools).taken
    purse = _purse(guarantee, pools)
    pay, rest = purse.pay, sum(purse.left.values())
    taken: dict[GangId, Form] = {}
    for gang in sorted(gangs, key=_rank):
        if not rest:
            break  # nothing is left for anybody
        if pay(gang.form, gang.quanta):
            taken[gang.gang] = gang.form
            rest -= gang.quanta
            continue
        for form, quanta in gang.also:
            if pay(form, quanta):
                rest -= quanta
                taken[gang.gang] = form
                break
    return taken


def _purse(guarantee: Guarantee | Amounts, pools: Pools) -> Purse:
    """Open a guarantee; plain amounts are one without bounds."""
    if isinstance(guarantee, Guarantee):
        return guarantee.purse()
    return Guarantee(guarantee, pools).purse()


class Spending:
    """One walk along the gangs: whom the guarantee pays for, and what is left where.

    `taken` holds the gangs that are paid for, with the form.
    """

    def __init__(
        self,
        gangs: Iterable[Standing],
        guarantee: Guarantee | Amounts,
        pools: Pools = NO_GROUPS,
    ) -> None:
        self.taken: dict[GangId, Form] = {}
        self._keys: list[tuple[Rank, bool]] = []
        self._ranks: dict[GangId, Rank] = {}
        purse = _purse(guarantee, pools)
        self._left = [purse.copy()]
        passed: set[GangId | None] = set()
        for key, gang in _walk(gangs):
            if gang.core not in passed:
                self._pay(gang, purse)
            if gang.gang not in self.taken:
                passed.add(gang.gang)
            self._keys.append(key)
            self._ranks[gang.gang] = gang.rank
            self._left.append(purse.copy())

    def _pay(self, gang: Standing, purse: Purse) -> None:
        for form, quanta in ((gang.form, gang.quanta), *gang.also):
            if purse.pay(form, quanta):
                self.taken[gang.gang] = form
                return

    def would_pay(self, gang: Standing) -> bool:
        """Whether the guarantee would pay for one more gang that holds its form.

        For a member above ``minMember``: behind its gang, and only with it.
        """
        if gang.core in self._ranks and gang.core not in self.taken:
            return False
        step = bisect_left(self._keys, _rank_behind(gang, self._ranks))
        return gang.quanta <= self._left[step].holds(gang.form)


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


def covered(
    gangs: Iterable[Standing],
    guarantee: Guarantee | Amounts,
    pools: Pools = NO_GROUPS,
) -> set[GangId]:
    """Return the gangs that `guarantee` pays for."""
    return set(covered_forms(list(gangs), guarantee, pools))


def entitlements(
    gangs: Sequence[Standing],
    guarantee: Guarantee | Amounts,
    pools: Pools = NO_GROUPS,
    owed: Amounts | None = None,
) -> dict[Form, int]:
    """Return the guarantee by form: what is owned of groups goes where it is asked for.

    Covered gangs first, as the cover has it; what is left of a group pays in part for
    the others, by rank. So that division and cover spend the same guarantee.

    Parameters
    ----------
    owed
        What the queues below are entitled to, by form: paid before anybody else.
    """
    cover = covered_forms(gangs, guarantee, pools)
    purse, credit = _purse(guarantee, pools), dict(owed or {})
    found = purse.by_form()
    for form in sorted(credit):
        _entitle(found, purse, form, credit[form])
    for gang in sorted(gangs, key=lambda gang: (gang.gang not in cover, gang.rank)):
        form = cover.get(gang.gang, gang.form)
        asked = dict(((gang.form, gang.quanta), *gang.also))[form]
        paid = min(asked, credit.get(form, 0))
        if paid:
            credit[form] -= paid
        _entitle(found, purse, form, asked - paid)
    return found


def _entitle(found: dict[Form, int], purse: Purse, form: Form, asked: int) -> None:
    own = purse.left.get(form, 0)
    part = min(asked, purse.holds(form))
    purse.pay(form, part)
    found[form] = found.get(form, 0) + max(0, part - own)


# -- tiers --------------------------------------------------------------------


def granted(
    gangs: Sequence[Standing], grant: Amounts, pools: Pools = NO_GROUPS
) -> list[Standing]:
    """Return the gangs with inference-critical beyond `grant` as plain inference."""
    critical = WorkloadClass.INFERENCE_CRITICAL
    urgent = [gang for gang in gangs if gang.workload_class is critical]
    if not urgent:
        return list(gangs)
    purse = _purse(grant, pools)
    kept = {
        gang.gang
        for gang in sorted(urgent, key=_rank)
        if purse.pay(gang.form, gang.quanta)
    }
    return [
        replace(gang, workload_class=WorkloadClass.INFERENCE)
        if gang.workload_class is critical and gang.gang not in kept
        else gang
        for gang in gangs
    ]


def demoted(
    gangs: Sequence[Standing], caps: Amounts, pools: Pools = NO_GROUPS
) -> set[GangId]:
    """Return the inference gangs whose demand is divided in the training tier.

    Inference beyond `caps` (quanta by pool) queues in the training tier (design,
    section 6).
    """
    purse = _purse(caps, pools)
    urgent = [gang for gang in gangs if gang.workload_class.is_inference]
    return {
        gang.gang
        for gang in sorted(urgent, key=_rank)
        if not purse.pay(gang.form, gang.quanta)
    }


def _rank(standing: Standing) -> Rank:
    return standing.rank
