"""The log as standings: who runs, who waits, and what of it a guarantee covers.

Hidden here: how records become the state that the walk of `scheduler.core.covered`
looks at, and how little of it is computed anew at each instant.
"""

from collections.abc import Callable, Iterable, Sequence

from scheduler.core import (
    Form,
    GangId,
    NodeName,
    QuotaTree,
    Standing,
    TenantName,
    covered,
)
from scheduler.core.fairness import granted
from simulator.simulation import (
    Admitted,
    Bound,
    Evicted,
    Finished,
    Record,
    Submitted,
    Withdrawn,
)
from simulator.trace import Trace, TraceJob


class Gang:
    """One job that waits or runs; `seats` are its admitted members."""

    __slots__ = ("bound", "job", "offers", "seats", "standing", "turn")

    def __init__(self, job: TraceJob, forms: Sequence[Form], record: Submitted) -> None:
        self.job = job
        self.offers = tuple((form, _quanta(job, form)) for form in forms)
        self.seats: dict[int, tuple[NodeName, Form]] = {}
        self.bound = 0
        self.turn = 0
        self.standing = self._stand(record.gang, record.at, self.offers, running=False)

    def _stand(
        self,
        gang: GangId,
        since: float,
        offers: Sequence[tuple[Form, int]],
        *,
        running: bool,
    ) -> Standing:
        form, quanta = offers[0]
        return Standing(
            gang,
            self.job.workload_class,
            self.job.priority,
            running,
            since,
            form,
            quanta,
            tuple(offers[1:]),
            turn=self.turn if running else 0,
        )

    @property
    def waits(self) -> bool:
        """Whether some member has no devices yet."""
        return self.bound < len(self.job.members)

    def run(self, at: float) -> None:
        """Stand as a running gang, on the form it got."""
        (_, form), *_ = self.seats.values()
        offers = ((form, _quanta(self.job, form)),)
        self.standing = self._stand(self.standing.gang, at, offers, running=True)

    def queue(self, at: float) -> None:
        """Stand as a waiting gang again."""
        self.standing = self._stand(self.standing.gang, at, self.offers, running=False)


def _quanta(job: TraceJob, form: Form) -> int:
    return sum(demand.charge(form) for demand in job.members)


class Tenant:
    """The live gangs of a tenant, and which of them its guarantee covers."""

    __slots__ = ("_demand", "_tree", "_ungranted", "covered", "dirty", "gangs", "name")

    def __init__(self, name: TenantName, tree: QuotaTree) -> None:
        self.name = name
        self._tree = tree
        self._ungranted: dict[GangId, Standing] = {}
        self.gangs: dict[GangId, Gang] = {}
        self.covered: set[GangId] = set()
        self.dirty = False
        self._demand: dict[Form, int] = {}

    def put(self, gang: Gang, sign: int = 1) -> None:
        """Add a gang as it stands now, or take it away if `sign` is -1."""
        standing = gang.standing
        self._demand[standing.form] = (
            self._demand.get(standing.form, 0) + sign * standing.quanta
        )
        if sign > 0:
            self.gangs[standing.gang] = gang
        else:
            del self.gangs[standing.gang]
        self.dirty = True

    def waiting(self) -> dict[GangId, Gang]:
        """Return covered gangs that wait."""
        return {
            name: g
            for name, g in self.gangs.items()
            if g.waits and name in self.covered
        }

    def bursting(self) -> dict[GangId, Gang]:
        """Return running gangs that are not covered."""
        return {
            name: gang
            for name, gang in self.gangs.items()
            if gang.standing.running and name not in self.covered
        }

    def judge(self) -> None:
        """Bring `covered` up to date."""
        self.dirty = False
        guarantee, pools = self._tree.promised(self.name), self._tree.pools
        given = [gang.standing for gang in self.gangs.values()]
        seen = granted(given, self._tree.critical(self.name), pools)
        self._ungranted = {}
        if seen != given:
            self._ungranted = {standing.gang: standing for standing in seen}
        fits = all(n <= guarantee.get(form, 0) for form, n in self._demand.items())
        # With room for all of it the walk would take everybody: no need to walk.
        self.covered = set(self.gangs) if fits else covered(seen, guarantee, pools)

    def standing(self, gang: Gang) -> Standing:
        """Return a gang as others must see it: critical as far as it is granted."""
        return self._ungranted.get(gang.standing.gang, gang.standing)


class Standings:
    """The state of a replay."""

    def __init__(self, trace: Trace) -> None:
        offered = sorted({form for node in trace.nodes for form, _ in node.offers})
        kinds = {job.members[0] for job in trace.jobs}
        self._forms = {demand: demand.forms(offered) for demand in kinds}
        self._jobs = {job.id: job for job in trace.jobs}
        self._live: dict[str, Gang] = {}
        self._owner: dict[GangId, TenantName] = {}
        self._judged = False
        self._begun = 0
        self.broken: list[str] = []  # covered jobs evicted for another tenant
        tree = QuotaTree(trace.tenants, trace.fleet)
        self.tenants: dict[TenantName, Tenant] = {
            name: Tenant(name, tree) for name in sorted(tree.queues)
        }
        self._handlers: dict[type[Record], Callable[..., None]] = {
            Submitted: self._submitted,
            Admitted: self._admitted,
            Withdrawn: self._withdrawn,
            Bound: self._bound,
            Evicted: self._evicted,
            Finished: self._finished,
        }

    def apply(self, records: Iterable[Record]) -> list[Tenant]:
        """Take note of one instant; return the tenants it changed, judged anew."""
        self._judged = False
        for record in records:
            handler = self._handlers.get(type(record))
            if handler is not None:
                handler(record)
        changed = [tenant for tenant in self.tenants.values() if tenant.dirty]
        for tenant in changed:
            tenant.judge()
        return changed

    def _submitted(self, record: Submitted) -> None:
        job = self._jobs[record.job]
        forms = self._forms[job.members[0]]
        if forms:  # what no node offers is nobody's to give
            gang = self._live[job.id] = Gang(job, forms, record)
            self._owner[record.gang] = job.tenant
            self.tenants[job.tenant].put(gang)

    def _admitted(self, record: Admitted) -> None:
        gang = self._live[record.job]
        gang.seats[record.member] = (record.node, record.form)
        if len(gang.seats) == len(gang.job.members):
            self._begin(gang, record.at)

    def _begin(self, gang: Gang, at: float) -> None:
        """Let a gang run: when it is planned, and again when it is bound."""
        self._begun += 1
        gang.turn = self._begun
        self._restand(gang, at, gang.run)

    def _withdrawn(self, record: Withdrawn) -> None:
        gang = self._live.get(record.job)
        if gang is None:
            return
        whole = len(gang.seats) == len(gang.job.members)
        del gang.seats[record.member]
        if whole:
            self._restand(gang, record.at, gang.queue)

    def _bound(self, record: Bound) -> None:
        gang = self._live.get(record.job)
        if gang is None:
            return
        gang.bound += 1
        self.tenants[gang.job.tenant].dirty = True
        if gang.bound == len(gang.job.members):
            self._begin(gang, record.at)

    def _evicted(self, record: Evicted) -> None:
        gang = self._live.get(record.job)
        if gang is None:
            return
        if not self._judged:
            self._judge_evictions()
        tenant = self.tenants[gang.job.tenant]
        taker = self._owner.get(record.beneficiary, gang.job.tenant)
        if taker != gang.job.tenant and gang.standing.gang in tenant.covered:
            self.broken.append(gang.job.id)
        self._drop(gang)

    def _judge_evictions(self) -> None:
        """Fix the covers that all evictions of the instant are held against.

        Once and for all of them: when the first victim has gone its tenant's cover
        moves on to the next, which was burst when both were chosen.
        """
        self._judged = True
        for tenant in self.tenants.values():
            if tenant.dirty:
                tenant.judge()
                tenant.dirty = True

    def _finished(self, record: Finished) -> None:
        self._drop(self._live[record.job])

    def _restand(self, gang: Gang, at: float, change: Callable[[float], None]) -> None:
        tenant = self.tenants[gang.job.tenant]
        tenant.put(gang, -1)
        change(at)
        tenant.put(gang)

    def _drop(self, gang: Gang) -> None:
        self.tenants[gang.job.tenant].put(gang, -1)
        del self._live[gang.job.id]
