"""The promises that the state alone can prove, asserted after every event in tests."""

from scheduler.core.engine.explain import reason_for
from scheduler.core.engine.gangs import Gang, Phase
from scheduler.core.engine.state import State
from scheduler.core.events import Reason
from scheduler.core.gpu import Form
from scheduler.core.workload import PodUid, TenantName


def check_invariants(state: State) -> None:
    """Raise AssertionError, naming the invariant, when one is broken."""
    held = {
        uid
        for gang in state.gangs.by_id.values()
        if gang.phase is Phase.HELD
        for uid in gang.pods
    }
    state.cluster.check(held)
    _check_books(state)
    _check_limit(state)
    for gang in state.gangs.by_id.values():
        _check_gang(state, gang)
    _check_holds(state)
    _check_explained(state)
    assert not state.misjudged(), f"PROTECTED: {state.misjudged()} judged by old cover"


def _check_books(state: State) -> None:
    """CONSERVATION: charges equal what the gangs hold, and nothing else is placed."""
    fresh: dict[tuple[TenantName, Form], int] = {}
    placed: set[PodUid] = set()
    for gang in state.gangs.by_id.values():
        placed.update(u for u in gang.pods if u in state.cluster.placed)
        if gang.phase.is_charged and gang.form is not None:
            for key in state.bounds(gang.tenant, gang.form):
                fresh[key] = fresh.get(key, 0) + gang.quanta(gang.form)
    assert placed == set(state.cluster.placed), "CONSERVATION: a pod leaked"
    for queue in state.tree.queues:
        for form in state.tree.forms():
            used = state.tree.used(queue, form)
            assert used == fresh.get((queue, form), 0), f"CONSERVATION: {queue} {form}"


def _check_limit(state: State) -> None:
    for queue in state.tree.queues:
        for form in state.tree.forms():
            used = state.tree.used(queue, form)
            allowed = max(
                state.tree.ceiling(queue, form), state.excused.get((queue, form), 0)
            )
            assert used <= allowed, f"LIMIT: {queue} holds {used} of {form} > {allowed}"


def _check_gang(state: State, gang: Gang) -> None:
    seated = [uid for uid in gang.pods if uid in state.cluster.placed]
    if gang.phase is Phase.WAITING:
        assert not seated, f"GANG: {gang.id} waits, yet {seated} are placed"
    elif gang.phase.is_charged:
        assert len(seated) == len(gang.pods), f"GANG: {gang.id} is placed in part"
    forms = {state.cluster.placed[uid].form for uid in seated}
    assert len(forms) <= 1, f"GANG: {gang.id} sits on several forms: {sorted(forms)}"
    assert (gang.phase is Phase.HELD) == (gang.id in state.reclaims), (
        f"GANG: {gang.id} is {gang.phase.value}, hold says otherwise"
    )


def _check_holds(state: State) -> None:
    """PROTECTED and WORK CONSERVING: no eviction and no idle room without an owner.

    Every hold has a beneficiary, victims that are leaving, and an end. That no covered
    gang is asked to leave is asserted where it is decided (``reclaim.faults``).
    """
    for name, reclaim in state.reclaims.items():
        assert name in state.gangs.by_id, f"WORK CONSERVING: hold for {name}, gone"
        for victim in reclaim.present:
            assert victim.phase is Phase.LEAVING, (
                f"PROTECTED: {victim.id} is a victim of {name}, and not leaving"
            )
    sought = {victim.id for r in state.reclaims.values() for victim in r.present}
    for gang in state.gangs.by_phase[Phase.LEAVING].values():
        assert gang.is_evicted or gang.id in sought, (
            f"WORK CONSERVING: {gang.id} is to leave, for nobody"
        )
    for gang in state.gangs.by_phase[Phase.ADMITTED].values():
        assert gang.deadline >= gang.started, f"WORK CONSERVING: {gang.id} has no end"


def _check_explained(state: State) -> None:
    """EXPLAINED: whoever does not run has a reason that says so."""
    for gang in state.gangs.by_id.values():
        reason = reason_for(state, gang)
        runs = gang.phase is Phase.RUNNING
        assert (reason is Reason.RUNNING) == runs, f"EXPLAINED: {gang.id}: {reason}"
