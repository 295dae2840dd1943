"""What each tenant is charged, and which ceilings it is above through no fault of ours.

The tree knows the amounts. Hidden here: that a gang's charge is made and ended once,
and the *excuses*: use above a ceiling that no decision of the engine has caused (a
lowered limit, a pod that somebody else bound) is remembered until it is worn off.
"""

from collections.abc import Iterator

from scheduler.core.engine.gangs import Gang
from scheduler.core.engine.known import Known
from scheduler.core.gpu import Form
from scheduler.core.quota import UNLIMITED
from scheduler.core.workload import TenantName


class Books(Known):
    """Everything the engine remembers, and who pays for what."""

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
