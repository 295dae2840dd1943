"""Lane 1: the cycle that decides, every time something changed.

1. give up admissions and holds whose time is over;
2. move reclaims on: evict whose notice is over, start whose victims have left;
3. order the waiting gangs in bands: covered by class, inference burst, other burst;
4. per band: place what fits (``allocator``), in order of share;
5. per band: take room back for what did not fit (``reclaim``);
6. remember when to look again although nothing happens.

A band is finished before the next begins, so that burst never takes the room that
covered demand could have used without evicting anyone.
"""

from collections.abc import Iterable, Sequence

from scheduler.core.allocator import (
    Admission,
    Ask,
    Plan,
    Problem,
    allocate,
    may_charge,
    place_ask,
)
from scheduler.core.cluster import Mask
from scheduler.core.engine.gangs import Gang, Phase
from scheduler.core.engine.state import Reclaim, State
from scheduler.core.gpu import Form
from scheduler.core.reclaim import find_exchange
from scheduler.core.workload import GangId, PodUid, WorkloadClass

SHARE_SCALE = 1 << 20
NEVER = float("inf")


class Lane:
    """Lane 1 over one state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.look_again = NEVER
        self._seen_version = -1

    def cycle(self, now: float) -> None:
        """Decide everything that can be decided now; actions gather in the state."""
        state = self.state
        self._expire(now)
        self._move_reclaims(now)
        if state.version == self._seen_version and now < self.look_again:
            return
        for band in self.bands():
            asks = tuple(self.ask(gang) for gang in band)
            self._admit_band(asks, now)
            self._reclaim_band(asks, now)
        self.look_again = self._when_burst_matures(now)
        self._seen_version = state.version

    # -- 1, 2: time ------------------------------------------------------------

    def _expire(self, now: float) -> None:
        for gang in self._in_phase(Phase.ADMITTED):
            if now < gang.deadline:
                continue
            bound = [uid for uid, m in gang.pods.items() if m.bound]
            if bound:
                self._roll_back(gang, now)
            else:
                gang.dormant = self.state.policy.inline
                self.state.withdraw(gang, "nobody bound it in time")

    def _roll_back(self, gang: Gang, now: float) -> None:
        """Stop a gang that started in part as a whole (GANG).

        Members that never started wait again, in a gang that their re-created
        fellows will join.
        """
        state = self.state
        loose = [m.pod for _, m in sorted(gang.pods.items()) if not m.bound]
        for pod in loose:
            state.cluster.remove(pod.uid)
        state.evict(gang, "its gang did not start whole in time")
        for pod in loose:
            state.gangs.remove_pod(pod.uid)
            state.submit(pod, now)

    def _move_reclaims(self, now: float) -> None:
        state = self.state
        for gang_id in sorted(state.reclaims):
            reclaim = state.reclaims[gang_id]
            present = [v for v in reclaim.victims if v in state.gangs.by_id]
            for victim in present:
                self._press(state.gangs.by_id[victim], reclaim, now)
            if not present:
                state.seat_held(state.gangs.by_id[gang_id], now)

    def _press(self, victim: Gang, reclaim: Reclaim, now: float) -> None:
        waiting = [m for m in victim.pods.values() if m.asked]
        if not waiting or now >= reclaim.deadline:
            self.state.evict(victim, "reclaimed", reclaim.beneficiary)

    def _in_phase(self, phase: Phase) -> list[Gang]:
        gangs = self.state.gangs.by_id.values()
        return [gang for gang in gangs if gang.phase is phase]

    # -- 3: order ----------------------------------------------------------------

    def bands(self) -> list[list[Gang]]:
        """Return the waiting gangs that may be decided, in order, band by band."""
        state = self.state
        groups: dict[int, list[Gang]] = {}
        for gang in self._fair_order():
            tier = state.tier(gang)
            if gang.id in state.cover(gang.tenant):
                band = int(gang.workload_class)
            else:
                band = len(WorkloadClass) + int(not tier.is_inference)
            groups.setdefault(band, []).append(gang)
        return [groups[band] for band in sorted(groups)]

    def _fair_order(self) -> list[Gang]:
        """Eligible gangs by tier, then by the share their tenant would reach."""
        state = self.state
        by_tenant: dict[str, list[Gang]] = {}
        for gang in state.gangs.waiting.values():
            if state.is_eligible(gang):
                by_tenant.setdefault(gang.tenant, []).append(gang)
        keyed: list[tuple[tuple[object, ...], Gang]] = []
        for tenant in sorted(by_tenant):
            keyed.extend(self._keys(by_tenant[tenant]))
        keyed.sort(key=lambda pair: pair[0])
        return [gang for _, gang in keyed]

    def _keys(self, gangs: list[Gang]) -> Iterable[tuple[tuple[object, ...], Gang]]:
        """Sort keys of one tenant's gangs; each counts those before it as started."""
        state = self.state
        gangs.sort(key=lambda g: (int(state.tier(g)), -g.priority, g.submitted, g.id))
        reached: dict[Form, int] = {}
        for gang in gangs:
            form = state.possible_forms(gang)[0]
            used = reached.get(form, state.tree.used(gang.tenant, form))
            reached[form] = used + gang.quanta(form)
            share = sum(state.shares(form)[gang.tenant])
            ratio = reached[form] * SHARE_SCALE // share if share else 1 << 62
            tier = int(state.tier(gang))
            yield (tier, ratio, -gang.priority, gang.submitted, gang.id), gang

    def ask(self, gang: Gang) -> Ask:
        """Return the gang as the allocator sees it."""
        forms = self.state.possible_forms(gang)
        return gang.ask(forms, self.state.cover(gang.tenant).get(gang.id))

    # -- 4: place ----------------------------------------------------------------

    def _admit_band(self, asks: tuple[Ask, ...], now: float) -> None:
        state = self.state
        problem = Problem(
            version=state.version,
            now=now,
            asks=asks,
            cluster=state.cluster,
            tree=state.tree,
        )
        self.commit(allocate(problem), now)

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
        if not may_charge(state.tree, self.ask(gang), admission.form):
            return False
        with state.cluster.trial():
            for a in admission.assignments:
                column = state.cluster.index.get(a.node, -1)
                fits = state.cluster.fits(members[a.uid], admission.form)
                if column < 0 or not fits[column]:
                    return False
                state.cluster.place(
                    a.uid, column, admission.form, members[a.uid], a.slot
                )
        return True

    # -- 5: take back --------------------------------------------------------------

    def _reclaim_band(self, asks: Sequence[Ask], now: float) -> None:
        """Look for victims for whoever still waits; equal gangs fail alike."""
        failed: set[tuple[object, ...]] = set()
        for ask in asks:
            gang = self.state.gangs.waiting.get(ask.gang)
            if gang is None:
                continue
            demands = tuple(demand for _, demand in ask.members)
            shape = (
                ask.tenant,
                gang.workload_class,
                gang.priority,
                ask.covered,
                demands,
            )
            if shape in failed:
                continue
            if not self.reclaim(gang, ask, now):
                failed.add(shape)
                if ask.covered is not None:
                    self._not_placeable(gang)

    def reclaim(
        self,
        gang: Gang,
        ask: Ask,
        now: float,
        allowed: dict[PodUid, Mask] | None = None,
    ) -> bool:
        """Hold room for the gang by asking the cheapest legal victims to leave."""
        state = self.state
        court = state.court(now)
        for form in ask.forms:
            if not self._may_reclaim(gang, form):
                continue
            holdings = [
                state.holding(other, now)
                for other in self._in_phase(Phase.RUNNING)
                if other.form == form
            ]
            taker = state.taker(gang, form)
            exchange = find_exchange(state.cluster, taker, holdings, court, allowed)
            if exchange is not None:
                state.hold(gang, exchange, form, now)
                return True
        return False

    def _may_reclaim(self, gang: Gang, form: Form) -> bool:
        """Whether the tenant's own victims could make room below its ceilings."""
        state = self.state
        lower = sum(
            other.quanta(form)
            for other in state.gangs.by_tenant[gang.tenant].values()
            if other.form == form and other.phase is Phase.RUNNING
            if (other.workload_class, -other.priority)
            > (gang.workload_class, -gang.priority)
        )
        return gang.quanta(form) <= state.tree.room(gang.tenant, form) + lower

    def _not_placeable(self, gang: Gang) -> None:
        """Covered, yet no set of victims would help: not *placeable* until room frees.

        It claims no cover meanwhile, so that it strips nobody of protection.
        """
        gang.stuck = self.state.freed
        self.state.touch(gang.tenant)

    # -- 6: time of the next look --------------------------------------------------

    def _when_burst_matures(self, now: float) -> float:
        """When running burst becomes old enough to be exchanged for waiting burst."""
        if not self.state.gangs.waiting:
            return NEVER
        spared = self.state.policy.min_runtime_s
        times = (gang.started + spared for gang in self._in_phase(Phase.RUNNING))
        return min((time for time in times if time > now), default=NEVER)

    def next_deadline(self) -> float | None:
        """Earliest time at which the cycle would act although nothing happens."""
        times = [r.deadline for r in self.state.reclaims.values() if self._presses(r)]
        times.extend(gang.deadline for gang in self._in_phase(Phase.ADMITTED))
        times.append(self.look_again)
        return None if min(times) == NEVER else min(times)

    def _presses(self, reclaim: Reclaim) -> bool:
        """Whether some victim has not been told to stop yet."""
        gangs = self.state.gangs.by_id
        return any(
            not member.evicted
            for victim in reclaim.victims
            if victim in gangs
            for member in gangs[victim].pods.values()
        )

    def decide_now(
        self, gang: Gang, now: float, allowed: dict[PodUid, Mask]
    ) -> GangId | None:
        """Decide one gang at once (inline mode); None when it has to wait."""
        state = self.state
        if not state.is_eligible(gang):
            return None
        ask = self.ask(gang)
        with state.cluster.trial():
            admission = place_ask(state.cluster, state.tree, ask, allowed)
        if admission is not None:
            state.admit(gang, admission, now)
            return gang.id
        self.reclaim(gang, ask, now, allowed)
        return None
