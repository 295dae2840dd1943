"""Which exchanges are legal: named rules over one taker and one victim.

Capacity changes hands against the will of its holder by four rules only (design,
section 9). The taker is a waiting gang, the victim a running one:

* ``covered_takes_burst`` (exchange a): demand its guarantee covers takes the burst of
  another tenant. Cover is judged at the two queues below the point where the paths of
  taker and victim meet.
* ``inference_takes_lower`` (b): inference burst within its tier's share takes training
  or batch burst.
* ``toward_shares`` (c): in one tier, the taker ends at or below its share, while the
  victim's tenant was above its own and ends no lower, relative to share.
* ``preempts_within``: inside a tenant, a more urgent class takes from a lower one, and
  at equal class a higher priority from a lower one (or as the tenant says); burst never
  from covered work.

A covered workload is never a victim for another tenant. Each exchange lowers, in this
order, (unserved covered demand by class, unserved inference burst, sorted over-shares),
so with frozen inputs they come to an end.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from scheduler.core.fairness import Share, give_back_key
from scheduler.core.gpu import Form
from scheduler.core.placement import Member
from scheduler.core.quota import PreemptWithin, QuotaTree
from scheduler.core.workload import GangId, PodUid, TenantName, WorkloadClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A running gang as the search for victims sees it.

    `leaving` is one that was told to go already: whoever fits into the room it leaves
    waits for it, and nobody else is evicted for that. `planned` is one that waits for
    such room itself: nothing of it runs, and it loses nothing when its plan is void.
    `saved` is when its work was last safe (checkpoint or start), seconds.
    `tier` is the tier its demand counts in (a workload class).
    """

    gang: GangId
    tenant: TenantName
    workload_class: WorkloadClass
    tier: WorkloadClass
    priority: int
    preemptible: bool
    form: Form
    quanta: int
    pods: tuple[PodUid, ...]
    started: float
    saved: float
    restart_cost_s: float
    submitted: float = 0.0
    leaving: bool = False
    planned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Taker:
    """A waiting gang that looks for room on `form`.

    `covered`: its guarantee pays for it there. `uses` is what its tenant and each queue
    above hold of `form` before anybody is evicted, quanta.
    """

    gang: GangId
    tenant: TenantName
    workload_class: WorkloadClass
    tier: WorkloadClass
    priority: int
    form: Form
    quanta: int
    covered: bool
    uses: Mapping[TenantName, int]
    members: tuple[Member, ...]
    submitted: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Court:
    """Everything a rule may look at.

    Parameters
    ----------
    covers
        Covered gangs of a queue, and in which form its guarantee pays for each.
    shares
        Quanta per tier that division grants a queue now.
    tier_use
        Quanta per tier that a tenant uses.
    min_runtime_s
        Burst younger than this is spared by exchanges b and c, seconds.
    loans
        ``fairness.borrowed_share`` from memory.
    """

    now: float
    tree: QuotaTree
    covers: Callable[[TenantName], Mapping[GangId, Form]]
    shares: Callable[[TenantName, Form], Sequence[int]]
    tier_use: Callable[[TenantName, Form], Sequence[int]]
    min_runtime_s: float
    loans: Callable[[TenantName], float] | None = None

    def dues(
        self, taker: "Taker", tenants: Iterable[TenantName]
    ) -> dict[TenantName, tuple[Share, ...]]:
        """Return, per tenant, a key by which who borrows most gives back first."""
        found = {}
        for tenant in sorted(set(tenants)):
            key = give_back_key(self.tree, tenant, taker.tenant, self.loans)
            found[tenant] = (inf,) if key is None else key
        return found

    def is_covered(self, gang: Taker | Holding, against: TenantName) -> bool:
        """Whether the gang is covered, on its form, where the two tenants part."""
        at, _ = self.tree.parting(gang.tenant, against)
        return self.covers(at).get(gang.gang) == gang.form


Urgency = tuple[int, int, float]
"""Workload class, priority negated, submission: what a tenant's own order goes by."""


def outranks(rule: PreemptWithin, ours: Urgency, theirs: Urgency) -> bool:
    """Whether a tenant's rule lets one of its gangs stop another.

    The rules are those of Kueue's ``withinClusterQueue``. None lets equals stop each
    other in turn: class, priority and age never change.
    """
    if rule is PreemptWithin.NEVER:
        return False
    if rule is PreemptWithin.LOWER_OR_NEWER:
        return ours < theirs
    return ours[:2] < theirs[:2]


def preempts_within(taker: Taker, victim: Holding, court: Court) -> bool:
    """Rule ``preempt``: by class, then priority, inside one tenant.

    Burst does not displace what the guarantee covers, not even its own tenant's: that
    would raise the covered demand that is not served.
    """
    if taker.tenant != victim.tenant:
        return False
    if court.is_covered(victim, taker.tenant) and not taker.covered:
        return False
    ours = (int(taker.workload_class), -taker.priority, taker.submitted)
    theirs = (int(victim.workload_class), -victim.priority, victim.submitted)
    return outranks(court.tree.queues[taker.tenant].preempt_within, ours, theirs)


def covered_takes_burst(taker: Taker, victim: Holding, court: Court) -> bool:
    """Exchange a of design section 9."""
    return (
        taker.tenant != victim.tenant
        and court.is_covered(taker, victim.tenant)
        and not court.is_covered(victim, taker.tenant)
    )


def may_take_burst(taker: Taker, court: Court) -> bool:
    """Whether any exchange is open to the taker at all, whoever the victim is.

    A necessary condition of exchanges a, b and c that looks at the taker alone.
    """
    if taker.covered or any(
        taker.gang in court.covers(queue) for queue in court.tree.path(taker.tenant)
    ):
        return True
    share = court.shares(taker.tenant, taker.form)
    used = court.tree.used(taker.tenant, taker.form)
    if used + taker.quanta <= sum(share):
        return True
    return taker.tier.is_inference and _within_tier(taker, court)


def _within_tier(taker: Taker, court: Court) -> bool:
    """Whether the taker's tenant stays within what the inference tiers grant it."""
    urgent = WorkloadClass.INFERENCE + 1
    share = sum(court.shares(taker.tenant, taker.form)[:urgent])
    used = sum(court.tier_use(taker.tenant, taker.form)[:urgent])
    return used + taker.quanta <= share


def inference_takes_lower(taker: Taker, victim: Holding, court: Court) -> bool:
    """Exchange b of design section 9."""
    if not taker.tier.is_inference or victim.tier.is_inference:
        return False
    return _may_trade_burst(taker, victim, court) and _within_tier(taker, court)


def toward_shares(taker: Taker, victim: Holding, court: Court) -> bool:
    """Exchange c of design section 9, judged at the queues where the two part.

    The taker counts what its side held before the search: victims of its own may turn
    out not to be needed, and stay.
    """
    if taker.tier != victim.tier or not _may_trade_burst(taker, victim, court):
        return False
    form, tree = taker.form, court.tree
    ours, theirs = tree.parting(taker.tenant, victim.tenant)
    our_share = sum(court.shares(ours, form))
    their_share = sum(court.shares(theirs, form))
    our_end = taker.uses[ours] + taker.quanta
    their_use = tree.used(theirs, form)
    their_end = their_use - victim.quanta
    return (
        our_end <= our_share
        and taker.uses[taker.tenant] + taker.quanta
        <= sum(court.shares(taker.tenant, form))
        and their_use > their_share
        and their_end * our_share >= our_end * their_share
    )


def _may_trade_burst(taker: Taker, victim: Holding, court: Court) -> bool:
    """Tell what b and c have in common: other tenant, burst, run long enough."""
    return (
        taker.tenant != victim.tenant
        and not court.is_covered(victim, taker.tenant)
        and court.now - victim.started >= court.min_runtime_s
    )


def may_take(taker: Taker, victim: Holding, court: Court) -> bool:
    """Whether some rule lets the taker evict the victim.

    One on another form gives back quota only, and only where that is what the taker
    lacks: what is covered may claim it, and a tenant's more urgent work from its own.
    """
    room = court.tree.room
    if victim.form != taker.form and taker.quanta <= room(taker.tenant, taker.form):
        return False
    if victim.leaving:  # its quota is given back already
        return victim.form == taker.form
    if not victim.preemptible and court.is_covered(victim, victim.tenant):
        return False
    if preempts_within(taker, victim, court):
        return True
    if covered_takes_burst(taker, victim, court):
        return True
    return (
        not victim.planned
        and victim.form == taker.form
        and (
            inference_takes_lower(taker, victim, court)
            or toward_shares(taker, victim, court)
        )
    )
