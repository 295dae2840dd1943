"""What is decided and not yet so: for the driver that must make it so.

A driver may compare this with what it sees outside and make good every difference. It
then needs no memory of what it has done: after a crash, a lost write or a change by
somebody else the next comparison finds what is missing.
"""

from collections.abc import Iterator

from scheduler.core.engine.gangs import Phase
from scheduler.core.engine.known import Known
from scheduler.core.engine.views import Leaving, Planned


def plans(known: Known) -> Iterator[Planned]:
    """Yield pods whose node is decided and that are not bound, by gang and UID."""
    for phase in (Phase.HELD, Phase.ADMITTED):
        gangs = known.gangs.by_phase[phase]
        for gang in (gangs[name] for name in sorted(gangs)):
            assert gang.form is not None
            for uid, demand in gang.members:
                if not gang.pods[uid].bound:
                    yield Planned(
                        uid=uid,
                        gang=gang.id,
                        tenant=gang.tenant,
                        workload_class=gang.workload_class,
                        node=known.node_of(uid),
                        form=gang.form,
                        quanta=demand.charge(gang.form),
                        decision=gang.decision if phase is Phase.ADMITTED else 0,
                        held=phase is Phase.HELD,
                    )


def leaving(known: Known) -> Iterator[Leaving]:
    """Yield pods that were told to go and are still here, by gang and UID."""
    gangs = known.gangs.by_phase[Phase.LEAVING]
    for gang in (gangs[name] for name in sorted(gangs)):
        for uid in sorted(gang.pods):
            if uid in known.cluster.placed:
                yield Leaving(
                    uid=uid,
                    gang=gang.id,
                    node=known.node_of(uid),
                    save_by=None if gang.pods[uid].evicted else gang.deadline,
                    grace_s=known.policy.eviction_grace_s,
                    reason=gang.leaves_because,
                    beneficiary=gang.leaves_for,
                )
