"""Lane 1: the cycle that decides, every time something changed.

1. give up admissions whose time is over, wake who has rested long enough, evict again
   who should be gone;
2. move reclaims on: evict whose notice is over, start whose victims have left;
3. order the waiting gangs: covered by class, inference burst, other burst; each part
   by the share its tenant would reach;
4. gang by gang: place it (``allocator``), else take room back for it (``reclaim``);
5. remember when to look again although nothing happens.

Gang by gang, because a later gang must not take the room that an earlier one could have
had by evicting fewer.
"""

from collections.abc import Collection, Iterable, Iterator

from scheduler.core.allocator import (
    Admission,
    Ask,
    Plan,
    Problem,
    Status,
    allocate,
    may_charge,
    place_ask,
    verify,
)
from scheduler.core.cluster import Mask
from scheduler.core.engine.gangs import NEVER, Gang, Phase
from scheduler.core.engine.known import Reclaim
from scheduler.core.engine.state import State
from scheduler.core.engine.tenant_view import TenantView
from scheduler.core.fairness import turn
from scheduler.core.gpu import Form
from scheduler.core.reclaim import (
    Court,
    Taker,
    Urgency,
    faults,
    find_exchange,
    may_take_burst,
    outranks,
)
from scheduler.core.workload import GangId, PodUid, TenantName, WorkloadClass


class Lane:
    """Lane 1 over one state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.look_again = NEVER
        self._seen_version = -1

    def cycle(self, now: float) -> None:
        """Decide everything that can be decided now; actions gather in the state."""
        state = self.state
        state.shares.weigh(now)
        self._expire(now)
        self._move_reclaims(now)
        if state.version == self._seen_version and now < self.look_again:
            return
        state.look_anew()
        waiting: set[GangId] = set()
        again = True
        while again or not state.gangs.waiting.keys() <= waiting:
            waiting = set(state.gangs.waiting)
            again = self._decide(now)  # once more for who has lost a plan to another
        self.look_again = self._when_burst_matures(now)
        self._seen_version = state.version

    # -- 1, 2: time ------------------------------------------------------------

    def _expire(self, now: float) -> None:
        state = self.state
        for gang in self._in_phase(Phase.ADMITTED):
            if gang.phase is Phase.ADMITTED and now >= gang.deadline:
                state.give_up(gang, now)
        for gang in self._in_phase(Phase.LEAVING):
            if gang.is_evicted and now >= gang.deadline:
                state.remind(gang, now)
        for gang in self._resting():
            state.wake(gang, now)

    def _resting(self) -> list[Gang]:
        """Gangs that will be tried again by themselves; inline, somebody must ask."""
        if self.state.policy.inline:
            return []
        return [gang for gang in self._in_phase(Phase.WAITING) if gang.dormant]

    def _move_reclaims(self, now: float) -> None:
        for name in sorted(self.state.reclaims):
            if name in self.state.reclaims:  # not given up because of one before it
                self._move_reclaim(name, now)

    def _move_reclaim(self, name: GangId, now: float) -> None:
        state = self.state
        gang, reclaim = state.gangs.by_id[name], state.reclaims[name]
        if not reclaim.present:
            state.seat_held(gang, now)
        elif self._has_covered_victim(reclaim):
            state.withdraw(gang, "its victim is covered meanwhile", now)
        else:
            for victim in reclaim.present:
                saving = any(member.asked for member in victim.pods.values())
                if not saving or now >= victim.deadline:
                    taker = self._own_taker(victim) or name
                    state.evict(victim, "reclaimed", now, taker)

    def _has_covered_victim(self, reclaim: Reclaim) -> bool:
        """Whether a victim must be spared: its tenant's other work may have ended."""
        taker = self.state.gangs.by_id[reclaim.beneficiary]
        return any(self._is_protected(v, taker.tenant) for v in reclaim.present)

    def _is_protected(self, leaving: Gang, taker: TenantName) -> bool:
        """Whether a gang that is asked to leave would be covered by now (PROTECTED).

        One that leaves for its own tenant's more urgent work leaves anyway.
        """
        return (
            not leaving.is_evicted
            and leaving.tenant != taker
            and self._own_taker(leaving) is None
            and self.state.would_cover(leaving, taker)
        )

    def _own_taker(self, victim: Gang) -> GangId | None:
        """Return the gang of its own tenant that a gang has to leave for, if any."""
        state = self.state
        mine = (
            name
            for name, hold in state.reclaims.items()
            if state.gangs.by_id[name].tenant == victim.tenant
            and victim in hold.victims
        )
        return min(mine, default=None)

    def _in_phase(self, phase: Phase) -> list[Gang]:
        return list(self.state.gangs.by_phase[phase].values())

    # -- 3: order ----------------------------------------------------------------

    def order(self) -> list[Gang]:
        """Return the waiting gangs that may be decided, in the order they are."""
        return sorted(self._fair_order(), key=self._band)

    def _band(self, gang: Gang) -> int:
        if gang.id in self.state.cover(gang.tenant):
            return int(self.state.kind(gang))
        return len(WorkloadClass) + int(not self.state.tier(gang).is_inference)

    def _fair_order(self) -> list[Gang]:
        """Eligible gangs by tier, then by the share their tenant would reach."""
        state = self.state
        by_tenant: dict[TenantName, list[Gang]] = {}
        for gang in state.gangs.waiting.values():
            if state.is_eligible(gang):
                by_tenant.setdefault(gang.tenant, []).append(gang)
        keyed: list[tuple[tuple[object, ...], Gang]] = []
        for tenant in sorted(by_tenant):
            keyed.extend(self._keys(tenant, by_tenant[tenant]))
        keyed.sort(key=lambda pair: pair[0])
        return [gang for _, gang in keyed]

    def _keys(
        self, tenant: TenantName, gangs: list[Gang]
    ) -> Iterable[tuple[tuple[object, ...], Gang]]:
        """Sort keys of one tenant's gangs; each counts those before it as started.

        A tenant's own order is by class and priority whatever the shares say, so that
        nothing is started that its next gang would preempt.
        """
        state, view = self.state, self.state.view(tenant)
        reached: dict[Form, int] = {}
        lines: dict[Form, list[_Sibling]] = {}
        latest: tuple[object, ...] = ()
        for own, gang in sorted((_own_order(gang, view), gang) for gang in gangs):
            form, quanta = view.wish(gang.waiting(state.possible_forms(gang)))
            if form not in lines:
                path = state.tree.path(tenant)[::-1]
                lines[form] = [_Sibling(state, queue, form) for queue in path]
            started = reached.get(form, 0)
            mine = tuple(sibling.turn(started, quanta) for sibling in lines[form])
            reached[form] = started + quanta
            latest = max(latest, mine)
            yield (own[0], latest, *own[1:]), gang

    def ask(self, gang: Gang) -> Ask:
        """Return the gang as the allocator sees it."""
        forms = self.state.possible_forms(gang)
        return gang.ask(forms, self.state.cover(gang.tenant).get(gang.id))

    # -- 4: decide ---------------------------------------------------------------

    def _decide(self, now: float) -> bool:
        """Place each gang, or hold room for it; gangs of one shape fail alike.

        Returns whether to look once more: victims have given back quota that a gang
        before them in the order may have lacked.
        """
        failed: set[tuple[object, ...]] = set()
        again = False
        room = self.state.window()
        for gang in self.order():
            if room <= 0:
                break  # once some of those are bound there is another look
            if self.state.gangs.waiting.get(gang.id) is not gang:
                continue  # an extra that a decision before it has regrouped
            if self._serve(gang, failed, now):
                again = again or bool(failed)
                failed.clear()
            if gang.phase is Phase.ADMITTED:
                room -= len(gang.pods)
        return again

    def _serve(self, gang: Gang, failed: set[tuple[object, ...]], now: float) -> bool:
        """Place one gang or hold room for it, whichever form its guarantee pays for.

        Returns whether victims were asked to leave. What failed is noted.
        """
        ask = self.ask(gang)
        while True:
            shape = self._shape(gang, ask)
            if shape in failed or self._place(ask, now):
                return False
            if self.reclaim(gang, ask, now):
                return True
            failed.add(shape)
            if ask.covered is None:
                return False
            self.state.set_aside(gang, ask.covered)
            ask = self.ask(gang)
            if ask.covered is None:
                return False  # as burst it waits for its turn

    def _shape(self, gang: Gang, ask: Ask) -> tuple[object, ...]:
        demands = tuple(demand for _, demand in ask.members)
        kind = (ask.tenant, gang.workload_class, gang.priority, self.state.tier(gang))
        return (*kind, ask.covered, ask.forms, demands)

    def _place(self, ask: Ask, now: float) -> bool:
        plan = allocate(self._problem(ask, now))
        self.commit(plan, now)
        return bool(plan.admissions)

    def commit(self, plan: Plan, now: float) -> None:
        """Admit what of the plan still holds; whole gangs only."""
        for admission in plan.admissions:
            gang = self.state.gangs.waiting.get(admission.gang)
            if gang is not None and self._still_holds(gang, admission):
                self.state.admit(gang, admission, now)

    def _still_holds(self, gang: Gang, admission: Admission) -> bool:
        """Whether the gang may still be admitted just so."""
        state = self.state
        members = dict(gang.members)
        if {a.uid for a in admission.assignments} != set(members):
            return False
        if not state.is_eligible(gang):
            return False
        ask = self.ask(gang)
        if admission.form not in ask.forms:
            return False
        if not may_charge(state.tree, ask, admission.form):
            return False
        with state.cluster.trial():
            for a in admission.assignments:
                column = state.cluster.index.get(a.node, -1)
                fits = state.cluster.fits(members[a.uid], admission.form)
                if column < 0 or not fits[column]:
                    return False
                state.cluster.place(a.uid, column, admission.form, members[a.uid])
        return True

    # -- take back -----------------------------------------------------------------

    def reclaim(self, gang: Gang, ask: Ask, now: float) -> bool:
        """Hold room for the gang by asking the cheapest legal victims to leave."""
        state = self.state
        court = state.court(now)
        for form in ask.forms:
            taker = state.taker(gang, form)
            candidates = self._candidates(gang, taker, court)
            holdings = [state.holding(other, now) for other in candidates]
            if not holdings:
                continue
            exchange = find_exchange(state.cluster, taker, holdings, court)
            if exchange is not None:
                chosen = [h for h in holdings if h.gang in exchange.victims]
                wrong = faults(state.cluster, taker, chosen, court, exchange)
                assert not wrong, "; ".join(wrong)
                state.hold(gang, exchange, form, now)
                self._move_reclaim(gang.id, now)
                return gang.phase is not Phase.WAITING
        return False

    def _candidates(self, gang: Gang, taker: Taker, court: Court) -> Iterator[Gang]:
        """Find gangs that some rule might let go for the taker.

        On its form; where it lacks quota, on any form: they may hold what it lacks.
        """
        state, form = self.state, taker.form
        if taker.quanta > state.tree.room(taker.tenant, form):
            yield from self._losers(gang, taker, court, state.forms)
        else:
            yield from self._losers(gang, taker, court, (form,))

    def _losers(
        self, gang: Gang, taker: Taker, court: Court, forms: Collection[Form]
    ) -> Iterator[Gang]:
        state, phases = self.state, self.state.gangs.by_phase
        for other in phases[Phase.LEAVING].values():
            if other.form != taker.form or other.overdue:
                continue
            if not self._is_protected(other, gang.tenant):
                yield other
        rule, ours = state.tree.queues[gang.tenant].preempt_within, _urgency(gang)
        for other in state.gangs.running_of(gang.tenant):
            if other.form in forms and outranks(rule, ours, _urgency(other)):
                yield other
        takes_burst = may_take_burst(taker, court)
        for other in phases[Phase.HELD].values():
            own = other.tenant == gang.tenant
            wins = outranks(rule, ours, _urgency(other)) if own else takes_burst
            if other.form in forms and wins:
                yield other
        if takes_burst:
            yield from self._burst_of_others(gang.tenant, forms)

    def _burst_of_others(
        self, tenant: TenantName, forms: Collection[Form]
    ) -> Iterator[Gang]:
        state = self.state
        for other in state.tree.queues:
            if other != tenant:
                at, _ = state.tree.parting(other, tenant)
                yield from (g for g in state.burst(other, at) if g.form in forms)

    # -- 5: time of the next look --------------------------------------------------

    def _when_burst_matures(self, now: float) -> float:
        """When running burst becomes old enough to be exchanged for waiting burst."""
        state = self.state
        if not state.gangs.waiting:
            return NEVER
        spared = state.policy.min_runtime_s
        times = (
            gang.started + spared
            for tenant in state.tree.queues
            for at in state.tree.path(tenant)  # cover is judged at each, for some taker
            for gang in state.burst(tenant, at)
        )
        return min((time for time in times if time > now), default=NEVER)

    def next_deadline(self) -> float | None:
        """Earliest time at which the cycle would act although nothing happens."""
        ending = (Phase.ADMITTED, Phase.LEAVING)
        gangs = [gang for phase in ending for gang in self._in_phase(phase)]
        gangs.extend(self._resting())
        first = min((gang.deadline for gang in gangs), default=NEVER)
        first = min(first, self.look_again)
        return None if first == NEVER else first

    def decide_now(self, gang: Gang, now: float, allowed: dict[PodUid, Mask]) -> None:
        """Place one gang at once if there is room (inline mode).

        Only that: kube-scheduler waits for the answer. Whom to evict is decided in the
        cycle that follows within milliseconds.
        """
        state = self.state
        if not state.is_eligible(gang):
            return
        forms = state.possible_forms(gang)
        need = gang.quanta(forms[0])
        if len(forms) == 1 and need <= state.tree.available(gang.tenant, forms[0]):
            ask = gang.ask(forms, None)  # nobody keeps that room: cover does not matter
        else:
            ask = self.ask(gang)
        with state.cluster.trial():
            admission = place_ask(state.cluster, state.tree, ask, allowed)
        if admission is not None:
            served = ask.quanta(admission.form)
            plan = Plan(
                version=state.version,
                admissions=(admission,),
                status=Status.GREEDY,
                objective=served,
                bound=served,
            )
            wrong = verify(self._problem(ask, now), plan)
            assert not wrong, "; ".join(wrong)
            state.admit(gang, admission, now)

    def _problem(self, ask: Ask, now: float) -> Problem:
        """Return the problem of one gang on the live state, which stays as it is."""
        state = self.state
        return Problem(
            version=state.version,
            now=now,
            asks=(ask,),
            cluster=state.cluster,
            tree=state.tree,
        )


class _Sibling:
    """A queue among those beside it: what decides whose turn it is on one form."""

    __slots__ = ("_loan", "_order", "_priority", "_share", "_used")

    def __init__(self, state: State, queue: TenantName, form: Form) -> None:
        rules = state.tree.queues[queue]
        self._used = state.tree.used(queue, form)
        self._share = state.shares.turn_share(queue, form)
        self._loan = state.shares.loan(queue)
        self._priority, self._order = rules.priority, rules.order

    def turn(self, started: int, quanta: int) -> tuple[object, ...]:
        """Sort key for a gang of `quanta`, once gangs of `started` have begun."""
        return turn(
            covered=False,  # by bands, above
            used=self._used + started,
            quanta=quanta,
            share=self._share,
            priority=self._priority,
            borrowed=self._loan,
            order=self._order,
        )


def _urgency(gang: Gang) -> Urgency:
    return int(gang.workload_class), -gang.priority, gang.submitted


def _own_order(gang: Gang, view: TenantView) -> tuple[int, int, int, float, GangId]:
    """Order inside a tenant: the one its guarantee is spent in."""
    kind = gang.workload_class
    tier = view.tier(gang.id, kind)
    return (int(tier), int(kind), -gang.priority, gang.submitted, gang.id)
