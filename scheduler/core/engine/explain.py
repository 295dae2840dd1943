"""Why a pod is where it is, and who holds what: answers for people."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from scheduler.core.engine.gangs import Gang, Phase
from scheduler.core.engine.lane import Lane
from scheduler.core.engine.state import State
from scheduler.core.engine.views import Explanation, QueueEntry, TenantUse
from scheduler.core.events import Reason
from scheduler.core.gpu import QUANTA_PER_GPU, Form, charge, class_of
from scheduler.core.placement import fits_empty
from scheduler.core.quota import UNLIMITED
from scheduler.core.workload import PodUid, TenantName


def reason_for(state: State, gang: Gang) -> Reason:
    """Return the one reason that stands in the gang's way, the hardest first."""
    settled = {
        Phase.RUNNING: Reason.RUNNING,
        Phase.ADMITTED: Reason.STARTING,
        Phase.HELD: Reason.RECLAIMING,
        Phase.LEAVING: Reason.TERMINATING,
    }.get(gang.phase)
    return settled or _reason_to_wait(state, gang)


def _reason_to_wait(state: State, gang: Gang) -> Reason:
    if not state.is_tenant(gang.tenant):
        return Reason.UNKNOWN_TENANT
    if not gang.is_whole or _waits_for_core(state, gang):
        return Reason.GANG_INCOMPLETE
    if not state.forms_of(gang):
        return Reason.UNKNOWN_CLASS
    forms = _forms_that_hold(state, gang)
    if not forms:
        return Reason.TOO_LARGE
    if gang.dormant:
        return Reason.NOT_STARTED
    return _reason_of_quota(state, gang, forms)


def _waits_for_core(state: State, gang: Gang) -> bool:
    core = state.gangs.by_id.get(gang.core) if gang.core else None
    return core is not None and not core.takes_extras


def _forms_that_hold(state: State, gang: Gang) -> tuple[Form, ...]:
    """Forms of which the empty cluster has enough for the gang, preferred first."""
    return tuple(
        form
        for form in state.forms_of(gang)
        if fits_empty(state.cluster, gang.members, form)
    )


def _reason_of_quota(state: State, gang: Gang, forms: tuple[Form, ...]) -> Reason:
    tree, tenant = state.tree, gang.tenant
    within = [f for f in forms if gang.quanta(f) <= tree.room(tenant, f)]
    if not within:
        return Reason.LIMIT
    if state.window() <= 0:
        return Reason.QUEUED
    if gang.id in state.cover(tenant):
        return Reason.NO_ROOM
    if any(_is_lent_out(state, gang, form) for form in within):
        return Reason.LENT_OUT
    return Reason.NO_ROOM


def _is_lent_out(state: State, gang: Gang, form: Form) -> bool:
    """Whether devices are idle that their owner does not lend."""
    need = gang.quanta(form)
    return state.tree.available(gang.tenant, form) < need <= _idle(state, form)


def _idle(state: State, form: Form) -> int:
    """Quanta of whole devices that nobody holds or is promised."""
    cluster = state.cluster
    free = cluster.free[cluster.rows[form]][cluster.ready]
    return int(free.clip(0).sum()) * charge(form)


def explain(state: State, lane: Lane, uid: PodUid, now: float) -> Explanation | None:
    """Explain one pod; None when it is unknown."""
    gang = state.gangs.by_pod.get(uid)
    if gang is None:
        return None
    reason = reason_for(state, gang)
    placed = state.cluster.placed.get(uid)
    reclaim = state.reclaims.get(gang.id)
    return Explanation(
        uid=uid,
        name=gang.pods[uid].pod.name,
        tenant=gang.tenant,
        gang=gang.id,
        workload_class=gang.workload_class,
        reason=reason,
        detail=_detail(state, gang, reason, now),
        node=state.cluster.names[placed.column] if placed else None,
        covered=_covered(state, gang),
        position=_position(state, lane, gang),
        blockers=reclaim.names if reclaim else (),
    )


def _covered(state: State, gang: Gang) -> bool | None:
    if gang.tenant not in state.tree.queues or gang.phase is Phase.LEAVING:
        return None
    return gang.id in state.cover(gang.tenant)


def _position(state: State, lane: Lane, gang: Gang) -> int | None:
    if gang.phase not in (Phase.WAITING, Phase.HELD):
        return None
    return _in_line(state, lane).index(gang) + 1


def _in_line(state: State, lane: Lane) -> list[Gang]:
    """Gangs that wait: for their victims, to be decided, and who cannot be decided."""
    held = [state.gangs.by_id[name] for name in sorted(state.reclaims)]
    ordered = lane.order()
    known = {gang.id for gang in ordered}
    rest = [g for g in state.gangs.waiting.values() if g.id not in known]
    rest.sort(key=lambda gang: (gang.submitted, gang.id))
    return [*held, *ordered, *rest]


def _detail(state: State, gang: Gang, reason: Reason, now: float) -> str:
    """Put the numbers behind the reason into one sentence."""
    if reason is Reason.UNKNOWN_TENANT:
        inner = gang.tenant in state.tree.queues and gang.tenant not in state.orphans
        if inner:
            return f"{gang.tenant} has tenants below it, and takes no pods itself"
        return f"no tenant is named {gang.tenant}"
    if reason is Reason.GANG_INCOMPLETE:
        if gang.core is not None:
            return f"starts once {gang.core} runs"
        return f"{len(gang.pods)} of {gang.min_member} members are here"
    if reason is Reason.NOT_STARTED:
        return _rest(state, gang, now)
    if reason is Reason.RECLAIMING:
        return _wait_for_victims(state, gang, now)
    if reason is Reason.TERMINATING:
        return _leave(state, gang, now)
    if reason is Reason.UNKNOWN_CLASS:
        classes = sorted({c for m in gang.pods.values() for c in m.pod.demand.classes})
        return f"asked for {', '.join(classes) or 'any class'}"
    return _numbers(state, gang, reason)


def _rest(state: State, gang: Gang, now: float) -> str:
    left = max(0.0, gang.deadline - now)
    if not state.policy.inline:
        return f"is tried again in {left:.0f} s"
    soonest = f", in {left:.0f} s at the earliest" if left else ""
    return f"is decided again when it is asked for{soonest}"


def _wait_for_victims(state: State, gang: Gang, now: float) -> str:
    reclaim, policy = state.reclaims[gang.id], state.policy
    stop = policy.eviction_grace_s + policy.margin_s
    ends = [v.deadline + (0 if v.is_evicted else stop) for v in reclaim.present]
    left = max(0.0, max(ends, default=now) - now)
    names = ", ".join(victim.title for victim in reclaim.present)
    return f"waiting for {names} to leave, for {left:.0f} s at most"


def _leave(state: State, gang: Gang, now: float) -> str:
    left = max(0.0, gang.deadline - now)
    if gang.overdue:
        return f"should have left by now, and is evicted again in {left:.0f} s"
    reclaims = [r for _, r in sorted(state.reclaims.items()) if gang in r.victims]
    takers = ", ".join(state.gangs.by_id[r.beneficiary].title for r in reclaims)
    if not takers:
        return "is being stopped"
    if gang.is_evicted:
        return f"makes room for {takers}"
    return f"makes room for {takers}; has {left:.0f} s left to save its work"


def _numbers(state: State, gang: Gang, reason: Reason) -> str:
    forms = _forms_that_hold(state, gang) or state.forms_of(gang)
    form = gang.form or state.cover(gang.tenant).get(gang.id) or forms[0]
    verb = "holds" if gang.phase.is_charged else "needs"
    text = f"{verb} {amount(gang.quanta(form), form)} of {class_of(form)}"
    if reason is Reason.TOO_LARGE:
        there = state.cluster.capacity().get(form, 0)
        return f"{text}; the whole cluster has {amount(there, form)}"
    text = f"{text}; {_account(state, gang, form)}"
    if reason is Reason.LIMIT and _is_ceiling_met(state, gang, form):
        return f"{text}; what all tenants burst together is at the fleet's ceiling"
    if reason not in (Reason.NO_ROOM, Reason.LENT_OUT):
        return text
    text = f"{text}; {amount(_idle(state, form), form)} idle"
    if reason is Reason.NO_ROOM:
        return text + _cannot_be_placed(state, gang)
    lent = max(0, state.tree.available(gang.tenant, form))
    return f"{text}, {amount(lent, form)} of it lent"


def _cannot_be_placed(state: State, gang: Gang) -> str:
    if not state.is_promised(gang) or gang.id in state.placeable():
        return ""
    return "; its guarantee covers it, and without any burst there is no room either"


def _is_ceiling_met(state: State, gang: Gang, form: Form) -> bool:
    return gang.quanta(form) > state.tree.fleet_room(gang.tenant, form)


def _what_binds(state: State, gang: Gang, form: Form) -> tuple[TenantName, Form]:
    """Return the queue whose ceiling a waiting gang meets, and the pool it is on.

    Else its tenant, and the form.
    """
    tree, need = state.tree, gang.quanta(form)
    for queue in tree.path(gang.tenant) if gang.phase is Phase.WAITING else ():
        if need > tree.own_room(queue, form):
            for pool in tree.pools.chain(form):
                if need > tree.ceiling(queue, pool) - tree.used(queue, pool):
                    return queue, pool
            return queue, form
    return gang.tenant, form


def _account(state: State, gang: Gang, form: Form) -> str:
    tree = state.tree
    queue, pool = _what_binds(state, gang, form)
    if pool != form:
        return _account_of_group(state, queue, pool)
    used = amount(tree.used(queue, form), form)
    text = f"{queue} uses {used}, guaranteed {_owned(state, queue, form)}"
    ceiling = tree.ceiling(queue, form)
    if ceiling != UNLIMITED:
        return f"{text}, limit {amount(ceiling, form)}"
    if tree.is_burst_bound(queue):
        room = tree.own_room(queue, form)
        return f"{text}, may burst by {amount(max(0, room), form)} more"
    return text


def _account_of_group(state: State, queue: TenantName, group: Form) -> str:
    """Write what a queue uses of the group that it is bound on."""
    tree = state.tree
    text = f"{queue} uses {amount(tree.used(queue, group), group)} of {group}"
    owned = tree.entitled(queue, group)
    if owned:
        text = f"{text}, guaranteed {amount(owned, group)}"
    return f"{text}, limit {amount(tree.ceiling(queue, group), group)}"


def _owned(state: State, queue: TenantName, form: Form) -> str:
    """Write what is guaranteed for a form, by itself and by the groups around it."""
    tree = state.tree
    owned, promised = tree.guarantees(queue), tree.promised(queue)
    parts = [_kept_of(owned.get(form, 0), promised.get(form, 0), form)]
    for group in tree.pools.chain(form)[1:]:
        if promised.get(group):
            kept = _kept_of(owned.get(group, 0), promised[group], group)
            parts.append(f"{kept} of {group}")
    return " and ".join(parts)


def _kept_of(kept: int, promised: int, pool: Form) -> str:
    text = amount(kept, pool)
    if kept == promised:
        return text
    return f"{text} (promised {amount(promised, pool)}, which is not there)"


def amount(quanta: int, form: Form) -> str:
    """Quanta as people read them: ``2.5 GPU``, ``3 x 1g.10gb``."""
    whole, part = divmod(quanta, charge(form))
    if "/" in form and not part:
        return f"{whole} x {form.partition('/')[2]}"
    if not part:
        return f"{whole} GPU"
    return f"{round(quanta / QUANTA_PER_GPU, 4):g} GPU"


def tenants(state: State) -> tuple[TenantUse, ...]:
    """One row per queue and form that is guaranteed, used or wanted."""
    unreachable, leaving = _unreachable(state), _leaving(state)
    rows: list[TenantUse] = []
    for name in sorted(state.tree.queues):
        use = _Use(state, name, leaving.get(name, {}), unreachable.get(name, {}))
        rows += filter(_tells, map(use.row, state.tree.forms()))
    return tuple(rows)


def _tells(row: TenantUse) -> bool:
    return bool(row.promised or row.used or row.pending or row.leaving)


class _Use:
    """What one queue uses and wants, added up for its rows."""

    def __init__(
        self,
        state: State,
        name: TenantName,
        leaving: Mapping[Form, int],
        unreachable: Mapping[Form, Sequence[str]],
    ) -> None:
        self._state, self._name = state, name
        self._leaving, self._unreachable = leaving, unreachable
        self._conditions = tuple(_conditions(state, name))
        self._used: Counter[Form] = Counter()
        self._covered: Counter[Form] = Counter()
        self._pending: Counter[Form] = Counter()
        cover = state.cover(name)
        for standing in state.standings_below(name):
            if not standing.running or standing.gang in state.reclaims:
                self._pending[standing.form] += standing.quanta
                continue
            self._used[standing.form] += standing.quanta
            if standing.gang in cover:
                self._covered[standing.form] += standing.quanta

    def row(self, form: Form) -> TenantUse:
        """Return the row of a form, or of a group with all that is inside it."""
        tree, shares, name = self._state.tree, self._state.shares, self._name
        total, ceiling = tree.pools.total, tree.ceiling(name, form)
        inside = sorted(tree.pools.inside(form))
        return TenantUse(
            name=name,
            parent=tree.queues[name].parent,
            form=form,
            guarantee=tree.guarantee(name, form),
            promised=tree.promised(name).get(form, 0),
            used=total(self._used, form),
            covered=total(self._covered, form),
            pending=total(self._pending, form),
            share=sum(sum(shares.share(name, f)) for f in inside),
            leaving=total(self._leaving, form),
            limit=None if ceiling == UNLIMITED else ceiling,
            conditions=(*self._unreachable.get(form, ()), *self._conditions),
        )


def _conditions(state: State, name: TenantName) -> Iterator[str]:
    """Say what keeps the whole queue from being as its owner wrote it."""
    if name in state.orphans:
        yield "Deleted: its pods run on, all of them as burst"
    own = state.gangs.by_tenant.get(name, {}).values()
    held = any(gang.phase is not Phase.WAITING for gang in own)
    if held and state.tree.children.get(name):
        yield "Inner: it has tenants below it now; its own pods run on"


def _unreachable(state: State) -> dict[TenantName, dict[Form, list[str]]]:
    """Say by queue and form which guarantees do not fit what is there."""
    found: dict[TenantName, dict[Form, list[str]]] = {}
    for shortage in state.tree.shortages:
        told = f"Unreachable: {shortage}"
        for name, _ in shortage.parts:
            found.setdefault(name, {}).setdefault(shortage.form, []).append(told)
    return found


def _leaving(state: State) -> dict[TenantName, Counter[Form]]:
    """Add up by queue and form what pods still hold that were told to go."""
    found: dict[TenantName, Counter[Form]] = {}
    for gang in state.gangs.by_phase[Phase.LEAVING].values():
        if gang.form is not None:
            for name in state.tree.path(gang.tenant):
                held = found.setdefault(name, Counter())
                held[gang.form] += gang.quanta(gang.form)
    return found


def queue(state: State, lane: Lane) -> tuple[QueueEntry, ...]:
    """List gangs that wait, in decision order; last those not to be decided yet."""
    return tuple(
        _entry(state, gang, position)
        for position, gang in enumerate(_in_line(state, lane), start=1)
    )


def _entry(state: State, gang: Gang, position: int) -> QueueEntry:
    forms = (gang.form,) if gang.form else state.forms_of(gang)
    return QueueEntry(
        position=position,
        gang=gang.id,
        tenant=gang.tenant,
        workload_class=gang.workload_class,
        pods=len(gang.pods),
        quanta=gang.quanta(forms[0]) if forms else 0,
        forms=forms,
        submitted=gang.submitted,
        covered=bool(_covered(state, gang)),
        reason=reason_for(state, gang),
    )
