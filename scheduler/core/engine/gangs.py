"""Who is here: the gangs the engine has heard of, and how far each has come.

A gang's life::

    WAITING -> ADMITTED -> RUNNING -> (gone)
    WAITING -> HELD -> ADMITTED          room is planned, victims are leaving
    HELD | ADMITTED -> WAITING           hold or admission given up
    ADMITTED | RUNNING -> LEAVING -> (gone)   evicted

Members above ``minMember`` are *extras* and come and go singly: each is a gang of its
own that remembers its core. While the core lacks members, an extra that is bound
becomes one of them. A gang that is leaving takes no new members; its re-created pods
form a new one.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from enum import Enum

from scheduler.core.allocator import Ask
from scheduler.core.fairness import Rank, Standing
from scheduler.core.gpu import Form
from scheduler.core.placement import Member
from scheduler.core.workload import GangId, Pod, PodUid, TenantName, WorkloadClass

NEVER = float("inf")


class Phase(Enum):
    """How far a gang has come."""

    WAITING = "waiting"
    HELD = "held"
    ADMITTED = "admitted"
    RUNNING = "running"
    LEAVING = "leaving"

    @property
    def is_charged(self) -> bool:
        """Whether the tenant is charged for it."""
        return self in (Phase.HELD, Phase.ADMITTED, Phase.RUNNING)


class Joined:
    """One pod of a gang and what happened to it."""

    __slots__ = ("asked", "bound", "evicted", "pod", "saved", "stops_by")

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.bound = False
        self.asked = False
        self.evicted = False
        self.saved: float | None = None
        self.stops_by: float | None = None  # somebody else has told it to stop


class Gang:
    """One gang, mutable; only the engine changes it."""

    __slots__ = (
        "asked",
        "base",
        "core",
        "deadline",
        "decision",
        "dormant",
        "failures",
        "form",
        "id",
        "leaves_because",
        "leaves_for",
        "min_member",
        "options",
        "overdue",
        "phase",
        "planned",
        "pods",
        "priority",
        "seat",
        "started",
        "submitted",
        "tenant",
        "turn",
        "wish",
        "workload_class",
    )

    def __init__(
        self, gang_id: GangId, pod: Pod, now: float, core: GangId | None = None
    ) -> None:
        self.id = gang_id
        self.base = pod.gang_id
        self.tenant: TenantName = pod.tenant
        self.workload_class: WorkloadClass = pod.workload_class
        self.priority = pod.priority
        self.min_member = 1 if core else pod.min_member
        self.core = core
        self.submitted = now
        self.pods: dict[PodUid, Joined] = {pod.uid: Joined(pod)}
        self.phase = Phase.WAITING
        self.form: Form | None = None
        self.planned: Form | None = None  # the form it held last
        self.started = now
        self.turn = 0  # among those that started at the same time
        self.deadline = 0.0  # bound by; save by; gone by; or rests until
        self.dormant = False  # did not start in time, and rests
        self.failures = 0  # starts in a row that came to nothing
        self.decision = 0  # number of its admission
        self.leaves_for: GangId | None = None  # the beneficiary it was told to go for
        self.leaves_because = ""
        self.overdue = False  # was told to go, and is still here after its time
        self.seat: Standing | None = None  # as it runs; forgotten when it changes
        self.options: tuple[int, tuple[Form, ...]] | None = None  # by state epoch
        self.wish: Standing | None = None  # as it waits for its options
        self.asked: Ask | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the members that must start together are known."""
        return len(self.pods) >= self.min_member

    @property
    def members(self) -> tuple[Member, ...]:
        """Members as the placement wants them, by UID."""
        return tuple((uid, self.pods[uid].pod.demand) for uid in sorted(self.pods))

    @property
    def preemptible(self) -> bool:
        """Whether every member may be evicted while it bursts."""
        return all(member.pod.preemptible for member in self.pods.values())

    @property
    def restart_cost_s(self) -> float:
        """Time a restart of the gang loses, seconds."""
        return max((m.pod.restart_cost_s for m in self.pods.values()), default=0.0)

    @property
    def takes_extras(self) -> bool:
        """Whether extras may start: it runs, or has started and lacks members."""
        begun = self.phase is Phase.ADMITTED and not self.is_whole
        return begun or self.phase is Phase.RUNNING

    @property
    def title(self) -> str:
        """What people call it: a pod on its own has a name, its UID says nothing."""
        first = next((member.pod for member in self.pods.values()), None)
        return first.name if first and first.name and not first.gang else self.id

    @property
    def is_evicted(self) -> bool:
        """Whether it was told to stop, not only to save its work."""
        return any(member.evicted for member in self.pods.values())

    @property
    def is_loose(self) -> bool:
        """Whether it holds a plan that no member is bound to."""
        if self.phase is Phase.ADMITTED:
            return not any(member.bound for member in self.pods.values())
        return self.phase is Phase.HELD

    def quanta(self, form: Form) -> int:
        """Quanta the gang is charged on `form`."""
        return sum(member.pod.demand.charge(form) for member in self.pods.values())

    def forms(self, offered: Iterable[Form]) -> tuple[Form, ...]:
        """Forms that every member accepts, in the order of the first one by UID."""
        demands = dict.fromkeys(demand for _, demand in self.members)
        first, *rest = (demand.forms(offered) for demand in demands)
        return tuple(form for form in first if all(form in other for other in rest))

    def saved_at(self, now: float) -> float:
        """When the whole gang's work was last safe, seconds; its start if never."""
        return min(self._saved(m, now) for m in self.pods.values())

    def _saved(self, member: Joined, now: float) -> float:
        interval = member.pod.checkpoint_interval_s
        last = self.started if member.saved is None else max(self.started, member.saved)
        if interval and now > last:
            last += (now - last) // interval * interval
        return last

    def seated(self) -> Standing:
        """Return the gang as the cover sees it while it holds devices."""
        assert self.form is not None
        return self._standing(True, self.started, self.form, ())

    def waiting(self, forms: tuple[Form, ...]) -> Standing:
        """Return the gang as the cover sees it while it waits for one of `forms`."""
        if self.wish is None:
            self.wish = self._standing(False, self.submitted, forms[0], forms[1:])
        return self.wish

    def _standing(
        self, running: bool, since: float, form: Form, others: tuple[Form, ...]
    ) -> Standing:
        return Standing(
            self.id,
            self.workload_class,
            self.priority,
            running,
            since,
            form,
            self.quanta(form),
            tuple((other, self.quanta(other)) for other in others),
            self.core,
            self.turn if running else 0,
        )

    def ask(self, forms: tuple[Form, ...], covered: Form | None) -> Ask:
        """Return the gang as the allocator sees it; the covered form goes first."""
        if self.asked is None or self.asked.covered != covered:
            if covered is not None:
                forms = (covered, *(form for form in forms if form != covered))
            self.asked = Ask(
                gang=self.id,
                tenant=self.tenant,
                forms=forms,
                members=self.members,
                covered=covered,
            )
        return self.asked


class Gangs:
    """All gangs, found by id, by pod, by tenant and by phase."""

    def __init__(self) -> None:
        self.by_id: dict[GangId, Gang] = {}
        self.by_pod: dict[PodUid, Gang] = {}
        self.by_tenant: dict[TenantName, dict[GangId, Gang]] = {}
        self.by_phase: dict[Phase, dict[GangId, Gang]] = {p: {} for p in Phase}
        self._begun = 0
        self._open: dict[GangId, Gang] = {}
        self._extras: dict[GangId, dict[GangId, Gang]] = {}
        self._waiting: dict[TenantName, dict[GangId, Gang]] = {}
        self._seated: dict[TenantName, list[Standing]] = {}
        self._unseated: dict[TenantName, dict[GangId, Gang]] = {}

    def add_pod(self, pod: Pod, now: float) -> Gang:
        """Let a pod join its gang, or found one.

        Raises
        ------
        ValueError
            When it contradicts the gang it names.
        """
        gang = self._open.get(pod.gang_id)
        if gang is None:
            return self._found(pod.gang_id, pod, now, None)
        wrong = _contradiction(gang, pod)
        if wrong:
            raise ValueError(wrong)
        if gang.phase is Phase.WAITING and not gang.is_whole:
            self._join(gang, Joined(pod))
            return gang
        return self._found(GangId(f"{gang.id}#{pod.uid}"), pod, now, gang.id)

    def add_bound(self, pod: Pod, now: float) -> Gang:
        """Let a pod in that runs already; one that contradicts its gang stays alone."""
        gang = self._open.get(pod.gang_id)
        if gang is not None and _contradiction(gang, pod):
            return self._found(GangId(f"{gang.id}#{pod.uid}"), pod, now, None)
        return self.add_pod(pod, now)

    def merge(self, extra: Gang, core: Gang) -> None:
        """Make an extra a member of its core; both hold devices of one form."""
        for uid, member in list(extra.pods.items()):
            self.remove_pod(uid)
            self._join(core, member)

    def replace_pod(self, uid: PodUid, pod: Pod) -> None:
        """Let a pod take the place of another in its gang."""
        gang = self.by_pod.pop(uid)
        del gang.pods[uid]
        self._join(gang, Joined(pod))

    def remove_pod(self, uid: PodUid) -> Joined:
        """Forget a pod and return it; a gang without pods is forgotten too."""
        gang = self.by_pod.pop(uid)
        member = gang.pods.pop(uid)
        self._forget(gang)
        if not gang.pods:
            self.close(gang)
            del self.by_id[gang.id]
            del self.by_tenant[gang.tenant][gang.id]
            del self.by_phase[gang.phase][gang.id]
            self._waiting.get(gang.tenant, {}).pop(gang.id, None)
            if gang.core is not None:
                del self._extras[gang.core][gang.id]
        return member

    def begin(self, gang: Gang, at: float) -> None:
        """Note when a gang began: after all that began at the same time before it.

        Its name must not decide: burst that starts would go before what is covered.
        """
        self._begun += 1
        gang.started, gang.turn = at, self._begun

    def set_phase(self, gang: Gang, phase: Phase) -> None:
        """Move a gang on in its life."""
        del self.by_phase[gang.phase][gang.id]
        self.by_phase[phase][gang.id] = gang
        gang.phase = phase
        self._forget(gang)
        waiting = self._waiting.setdefault(gang.tenant, {})
        if phase is Phase.WAITING:
            gang.form = None
            waiting[gang.id] = gang
        else:
            waiting.pop(gang.id, None)
        if phase is Phase.LEAVING:
            self.close(gang)
        elif gang.core is None:
            self._open.setdefault(gang.base, gang)  # a spared one takes members again

    @property
    def starting(self) -> int:
        """Pods that are admitted and not bound."""
        admitted = self.by_phase[Phase.ADMITTED].values()
        return sum(not m.bound for gang in admitted for m in gang.pods.values())

    @property
    def waiting(self) -> dict[GangId, Gang]:
        """Gangs that wait, by id."""
        return self.by_phase[Phase.WAITING]

    def running_of(self, tenant: TenantName) -> list[Gang]:
        """Return the tenant's gangs that run whole."""
        mine = self.by_tenant.get(tenant, {}).values()
        return [gang for gang in mine if gang.phase is Phase.RUNNING]

    def waiting_of(self, tenant: TenantName) -> list[Gang]:
        """Return the tenant's waiting gangs."""
        return list(self._waiting.get(tenant, {}).values())

    def seated(self, tenant: TenantName) -> list[Standing]:
        """Return the tenant's charged gangs in the order its guarantee is spent.

        Kept sorted from call to call: only gangs that changed are looked at.
        """
        found = self._seated.setdefault(tenant, [])
        for gang in self._unseated.pop(tenant, {}).values():
            gang.seat = gang.seated()
            insort(found, gang.seat, key=_rank)
        return found

    def _forget(self, gang: Gang) -> None:
        """Forget what was computed from members, phase or form: one has changed."""
        gang.options = gang.wish = gang.asked = None
        if gang.seat is not None:
            row = self._seated[gang.tenant]
            del row[bisect_left(row, gang.seat.rank, key=_rank)]
            gang.seat = None
        changed = self._unseated.setdefault(gang.tenant, {})
        if gang.phase.is_charged and gang.pods:
            changed[gang.id] = gang
        else:
            changed.pop(gang.id, None)

    def close(self, gang: Gang) -> None:
        """Let no further pod join the gang."""
        if self._open.get(gang.base) is gang:
            del self._open[gang.base]

    def extras(self, gang: Gang) -> list[Gang]:
        """Return the gangs of single members above ``minMember``, oldest first."""
        mine = self._extras.get(gang.id, {}).values()
        return sorted(mine, key=lambda extra: (extra.submitted, extra.id))

    def _join(self, gang: Gang, member: Joined) -> None:
        gang.pods[member.pod.uid] = member
        self.by_pod[member.pod.uid] = gang
        self._forget(gang)

    def _found(self, name: GangId, pod: Pod, now: float, core: GangId | None) -> Gang:
        gang = Gang(self._fresh_id(name), pod, now, core)
        self.by_id[gang.id] = gang
        self.by_pod[pod.uid] = gang
        self.by_tenant.setdefault(gang.tenant, {})[gang.id] = gang
        self.by_phase[gang.phase][gang.id] = gang
        self._waiting.setdefault(gang.tenant, {})[gang.id] = gang
        if core is None:
            self._open.setdefault(gang.base, gang)
        else:
            self._extras.setdefault(core, {})[gang.id] = gang
        return gang

    def _fresh_id(self, base: GangId) -> GangId:
        candidate, count = base, 1
        while candidate in self.by_id:
            count += 1
            candidate = GangId(f"{base}~{count}")
        return candidate


def _rank(standing: Standing) -> Rank:
    return standing.rank


def _contradiction(gang: Gang, pod: Pod) -> str:
    """Say what keeps the pod from being of that gang; empty if nothing does."""
    for field, theirs, ours in (
        ("tenant", gang.tenant, pod.tenant),
        ("workload_class", gang.workload_class.label, pod.workload_class.label),
        ("priority", gang.priority, pod.priority),
        ("min_member", gang.min_member, pod.min_member),
    ):
        if theirs != ours:
            return (
                f"pod {pod.name}: {field} {ours!r} differs from {theirs!r} of its "
                f"gang {pod.gang!r}"
            )
    return ""
