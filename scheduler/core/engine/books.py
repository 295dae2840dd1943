"""What each tenant is charged, and which ceilings it is above through no fault of ours.

The tree knows the amounts. Hidden here: that a gang's charge is made and ended once,
and the *excuses*: use above a ceiling that no decision of the engine has caused (a
lowered limit, a pod that somebody else bound) is remembered until it is worn off.
"""

from collections.abc import Iterator, Sequence

from scheduler.core.engine.gangs import Gang, Phase
from scheduler.core.engine.known import Known
from scheduler.core.gpu import Form
from scheduler.core.quota import UNLIMITED
from scheduler.core.workload import PodUid, TenantName


class Books(Known):
    """Everything the engine remembers, and who pays for what."""

    def stop(self, gang: Gang, uid: PodUid, by: float, now: float) -> None:
        """Hear that somebody has told a pod to stop; its gang leaves when all are.

        Its charge ends then, and its room may be planned for others. One that takes
        longer than a victim may is left as it is: nobody uses devices for hours that
        he does not pay for.
        """
        gang.pods[uid].stops_by = by
        ends = [member.stops_by for member in gang.pods.values()]
        last = max((end for end in ends if end is not None), default=by)
        longest = now + self.policy.eviction_grace_s + self.policy.margin_s
        if None in ends or last > longest or gang.is_evicted:
            return
        if gang.phase is not Phase.LEAVING:
            self._release(gang)
            self.gangs.set_phase(gang, Phase.LEAVING)
            gang.leaves_for, gang.leaves_because = None, "is being deleted"
        for member in gang.pods.values():
            member.evicted = True
        gang.deadline = max(last, now) + self.policy.margin_s
        self.touch(gang.tenant)

    def _charge(self, gang: Gang, form: Form) -> None:
        gang.form = gang.planned = form
        self.tree.charge(gang.tenant, form, gang.quanta(form))

    def _release(self, gang: Gang) -> None:
        if gang.form is not None:
            self._give_back(gang.tenant, gang.form, gang.quanta(gang.form))

    def _give_back(self, tenant: TenantName, form: Form, quanta: int) -> None:
        self.tree.release(tenant, form, quanta)
        if self.excused:
            for queue, pool in self.bounds(tenant, form):
                if (queue, pool) in self.excused:
                    self._excuse_queue(queue, pool)

    def _excuse(self, tenant: TenantName, form: Form) -> None:
        """Remember use above a ceiling that no decision of ours has caused."""
        for queue, pool in self.bounds(tenant, form):
            self._excuse_queue(queue, pool)

    def bounds(
        self, tenant: TenantName, form: Form
    ) -> Iterator[tuple[TenantName, Form]]:
        """Queues and pools whose ceilings bind the tenant's use of a form."""
        for queue in self.tree.path(tenant):
            for pool in self.tree.pools.chain(form):
                yield queue, pool

    def _excuse_queue(self, queue: TenantName, form: Form) -> None:
        used, ceiling = self.tree.used(queue, form), self.tree.ceiling(queue, form)
        if used > ceiling < UNLIMITED:
            self.excused[queue, form] = used
        else:
            self.excused.pop((queue, form), None)

    def is_excused(self, path: Sequence[TenantName], form: Form | None) -> bool:
        """Whether a queue on the path is above a ceiling that binds the form."""
        chain = self.tree.pools.chain(form) if form else ()
        return any((q, pool) in self.excused for q in path for pool in chain)
