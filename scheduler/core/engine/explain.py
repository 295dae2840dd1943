"""Why a pod is where it is, and who holds what: answers for people."""

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
    if not gang.is_whole:
        return Reason.GANG_INCOMPLETE
    forms = state.forms_of(gang)
    if not forms:
        return Reason.UNKNOWN_CLASS
    if not any(fits_empty(state.cluster, gang.members, form) for form in forms):
        return Reason.TOO_LARGE
    return _reason_of_quota(state, gang, forms)


def _reason_of_quota(state: State, gang: Gang, forms: tuple[Form, ...]) -> Reason:
    tree, tenant = state.tree, gang.tenant
    within = [f for f in forms if gang.quanta(f) <= tree.room(tenant, f)]
    if not within:
        return Reason.LIMIT
    if gang.core is not None and not state.is_eligible(gang):
        return Reason.GANG_INCOMPLETE
    if gang.id in state.cover(tenant):
        return Reason.NO_ROOM
    if any(_is_lent_out(state, gang, form) for form in within):
        return Reason.LENT_OUT
    return Reason.NO_ROOM


def _is_lent_out(state: State, gang: Gang, form: Form) -> bool:
    """Whether devices are idle that their owner does not lend."""
    need = gang.quanta(form)
    row = state.cluster.rows[form]
    idle = int(state.cluster.free[row].clip(0).sum()) * charge(form)
    return state.tree.available(gang.tenant, form) < need <= idle


def explain(state: State, lane: Lane, uid: PodUid) -> Explanation | None:
    """Explain one pod; None when it is unknown."""
    gang = state.gangs.by_pod.get(uid)
    if gang is None:
        return None
    reason = reason_for(state, gang)
    placed = state.cluster.placed.get(uid)
    waits = gang.phase is Phase.WAITING
    reclaim = state.reclaims.get(gang.id)
    return Explanation(
        uid=uid,
        name=gang.pods[uid].pod.name,
        tenant=gang.tenant,
        gang=gang.id,
        workload_class=gang.workload_class,
        reason=reason,
        detail=_detail(state, gang, reason),
        node=state.cluster.names[placed.column] if placed else None,
        covered=_covered(state, gang),
        position=_position(lane, gang) if waits else None,
        blockers=reclaim.names if reclaim else (),
    )


def _covered(state: State, gang: Gang) -> bool | None:
    if gang.tenant not in state.tree.queues or gang.phase is Phase.LEAVING:
        return None
    return gang.id in state.cover(gang.tenant)


def _position(lane: Lane, gang: Gang) -> int | None:
    order = [other.id for other in lane.order()]
    return order.index(gang.id) + 1 if gang.id in order else None


def _detail(state: State, gang: Gang, reason: Reason) -> str:
    """Put the numbers behind the reason into one sentence."""
    if reason is Reason.UNKNOWN_TENANT:
        return f"no tenant is named {gang.tenant}"
    if reason is Reason.GANG_INCOMPLETE:
        return f"{len(gang.pods)} of {gang.min_member} members are here"
    if reason is Reason.RECLAIMING:
        victims = ", ".join(state.reclaims[gang.id].names)
        return f"waiting for {victims} to leave"
    forms = (gang.form,) if gang.form else state.forms_of(gang)
    if not forms:
        classes = sorted({c for m in gang.pods.values() for c in m.pod.demand.classes})
        return f"asked for {', '.join(classes) or 'any class'}"
    return _numbers(state, gang, forms[0])


def _numbers(state: State, gang: Gang, form: Form) -> str:
    need = f"needs {amount(gang.quanta(form), form)} of {class_of(form)}"
    if gang.tenant not in state.tree.queues:
        return need
    used = amount(state.tree.used(gang.tenant, form), form)
    owned = amount(state.tree.guarantee(gang.tenant, form), form)
    text = f"{need}; {gang.tenant} uses {used}, guaranteed {owned}"
    ceiling = state.tree.ceiling(gang.tenant, form)
    return text if ceiling == UNLIMITED else f"{text}, limit {amount(ceiling, form)}"


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
    rows: list[TenantUse] = []
    for name in sorted(state.tree.queues):
        for form in state.tree.forms():
            row = _tenant_use(state, name, form)
            if row.guarantee or row.used or row.pending or row.leaving:
                rows.append(row)
    return tuple(rows)


def _tenant_use(state: State, name: TenantName, form: Form) -> TenantUse:
    tree = state.tree
    below = [s for s in state.standings_below(name) if s.form == form]
    cover = state.cover(name)
    ceiling = tree.ceiling(name, form)
    seated = [s for s in below if s.running and s.gang not in state.reclaims]
    return TenantUse(
        name=name,
        parent=tree.queues[name].parent,
        form=form,
        guarantee=tree.guarantee(name, form),
        used=sum(s.quanta for s in seated),
        covered=sum(s.quanta for s in seated if s.gang in cover),
        pending=sum(s.quanta for s in below) - sum(s.quanta for s in seated),
        share=sum(state.shares(form).get(name, ())),
        leaving=_leaving(state, name, form),
        limit=None if ceiling == UNLIMITED else ceiling,
    )


def _leaving(state: State, name: TenantName, form: Form) -> int:
    gangs = state.gangs.by_phase[Phase.LEAVING].values()
    return sum(
        gang.quanta(form)
        for gang in gangs
        if gang.form == form and name in state.tree.path(gang.tenant)
    )


def queue(state: State, lane: Lane) -> tuple[QueueEntry, ...]:
    """List waiting gangs in decision order, then those that cannot be decided yet."""
    ordered = lane.order()
    known = {gang.id for gang in ordered}
    rest = [g for g in state.gangs.waiting.values() if g.id not in known]
    rest.sort(key=lambda gang: (gang.submitted, gang.id))
    held = [state.gangs.by_id[name] for name in sorted(state.reclaims)]
    return tuple(
        _entry(state, gang, position)
        for position, gang in enumerate([*held, *ordered, *rest], start=1)
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
