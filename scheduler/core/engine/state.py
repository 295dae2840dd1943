"""What is known and held: cluster, tenant tree, gangs, and the moves between phases.

Every change goes through a method here, so that the books agree: the cluster knows
where each pod is, the tree what each tenant is charged, the gangs how far each has
come. What follows from them (cover, tiers, shares) is computed on demand and forgotten
when something it depends on changes.
"""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from scheduler.core.allocator import Admission
from scheduler.core.cluster import Cluster, Node
from scheduler.core.engine.gangs import Gang, Gangs, Phase
from scheduler.core.engine.views import Policy
from scheduler.core.events import (
    Action,
    Admit,
    CheckpointRequest,
    Evict,
    Withdraw,
)
from scheduler.core.fairness import (
    TIERS,
    Standing,
    covered_forms,
    division,
    tiers,
)
from scheduler.core.gpu import Form, charge
from scheduler.core.placement import fits_empty
from scheduler.core.quota import UNLIMITED, Queue, QuotaTree
from scheduler.core.reclaim import Court, Exchange, Holding, Taker
from scheduler.core.workload import (
    GangId,
    NodeName,
    Pod,
    PodUid,
    TenantName,
    WorkloadClass,
)


class Reclaim:
    """A hold: a beneficiary with its room planned, and the victims that must leave."""

    __slots__ = ("beneficiary", "deadline", "victims")

    def __init__(
        self, beneficiary: GangId, victims: tuple[GangId, ...], deadline: float
    ) -> None:
        self.beneficiary = beneficiary
        self.victims = victims
        self.deadline = deadline


class TenantView:
    """What follows from one tenant's gangs alone; thrown away when one changes."""

    def __init__(
        self, standings: list[Standing], guarantees: Mapping[Form, int]
    ) -> None:
        self.standings = standings
        self.guarantees = guarantees

    @cached_property
    def cover(self) -> dict[GangId, Form]:
        """Gangs the guarantee pays for, and in which form."""
        return covered_forms(self.standings, self.guarantees)

    @cached_property
    def tier_of(self) -> dict[GangId, WorkloadClass]:
        """Tier of each gang; inference burst is capped at the guarantee."""
        caps = {form: 2 * quanta for form, quanta in self.guarantees.items()}
        return tiers(self.standings, caps)

    @cached_property
    def wanted(self) -> dict[Form, list[int]]:
        """Quanta running and waiting, per form and tier."""
        return self._by_tier(self.standings)

    @cached_property
    def use(self) -> dict[Form, list[int]]:
        """Quanta running, per form and tier."""
        return self._by_tier(s for s in self.standings if s.running)

    def _by_tier(self, standings: Iterable[Standing]) -> dict[Form, list[int]]:
        found: dict[Form, list[int]] = {}
        for standing in standings:
            row = found.setdefault(standing.form, [0] * TIERS)
            row[self.tier_of[standing.gang]] += standing.quanta
        return found


class State:
    """Everything the engine remembers."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.version = 0
        self.epoch = 0  # counts changes of nodes and tenants
        self.freed = 0  # counts what may let a gang in that could not be placed before
        self.decisions = 0
        self.cluster = Cluster()
        self.tree = QuotaTree(())
        self.gangs = Gangs()
        self.reclaims: dict[GangId, Reclaim] = {}
        self.actions: list[Action] = []
        self.excused: dict[tuple[TenantName, Form], int] = {}
        self.orphans: frozenset[TenantName] = frozenset()
        self._forms: list[Form] = []
        self._views: dict[TenantName, TenantView] = {}
        self._covers: dict[TenantName, dict[GangId, Form]] = {}
        self._shares: dict[Form, dict[TenantName, list[int]]] = {}

    # -- what follows ----------------------------------------------------------

    def touch(self, tenant: TenantName) -> None:
        """Forget what followed from the tenant's gangs."""
        self.version += 1
        self._views.pop(tenant, None)
        self._shares.clear()
        if tenant in self.tree.queues:
            for queue in self.tree.path(tenant):
                self._covers.pop(queue, None)

    def touch_all(self) -> None:
        """Forget everything that was computed: nodes or tenants changed."""
        self.version += 1
        self.epoch += 1
        self.freed += 1
        self._forms = self.cluster.forms()
        self._views.clear()
        self._covers.clear()
        self._shares.clear()

    def forms_of(self, gang: Gang) -> tuple[Form, ...]:
        """Forms the gang accepts and some node offers, preferred first.

        A gang that names no class takes one its tenant is guaranteed first.
        """
        forms = gang.forms(self._forms)
        if gang.tenant not in self.tree.queues or not forms:
            return forms
        if all(member.pod.demand.classes for member in gang.pods.values()):
            return forms
        owned = self.tree.guarantees(gang.tenant)
        return tuple(sorted(forms, key=lambda form: form not in owned))

    def is_eligible(self, gang: Gang) -> bool:
        """Whether a waiting gang may be decided now: known, whole, possible."""
        if gang.dormant or not gang.is_whole or not self.is_tenant(gang.tenant):
            return False
        if gang.core is not None:
            core = self.gangs.by_id.get(gang.core)
            if core is not None and core.phase not in (Phase.ADMITTED, Phase.RUNNING):
                return False
        return bool(self.possible_forms(gang))

    def is_tenant(self, name: TenantName) -> bool:
        """Whether the name may start pods: a leaf of the tree that is not deleted."""
        return self.tree.is_leaf(name) and name not in self.orphans

    def possible_forms(self, gang: Gang) -> tuple[Form, ...]:
        """Forms on which the gang could run if nothing else did."""
        if gang.options is None or gang.options[0] != self.epoch:
            found = tuple(
                form
                for form in self.forms_of(gang)
                if gang.quanta(form) <= self._most(gang.tenant, form)
                and fits_empty(self.cluster, gang.members, form)
            )
            gang.options = (self.epoch, found)
        return gang.options[1]

    def _most(self, tenant: TenantName, form: Form) -> int:
        return min(self.tree.ceiling(q, form) for q in self.tree.path(tenant))

    def view(self, tenant: TenantName) -> TenantView:
        """Return what follows from the tenant's gangs."""
        view = self._views.get(tenant)
        if view is None:
            guarantees = self.tree.guarantees(tenant)
            view = TenantView(self._standings(tenant), guarantees)
            self._views[tenant] = view
        return view

    def _standings(self, tenant: TenantName) -> list[Standing]:
        found = list(self.gangs.seated(tenant))
        for gang in self.gangs.waiting_of(tenant):
            if self._may_be_covered(gang):
                insort(
                    found,
                    gang.waiting(self.possible_forms(gang)),
                    key=lambda standing: standing.rank,
                )
        return found

    def _may_be_covered(self, gang: Gang) -> bool:
        """Whether a gang that waits is demand that counts now."""
        return gang.stuck != self.freed and self.is_eligible(gang)

    def cover(self, queue: TenantName) -> dict[GangId, Form]:
        """Gangs below `queue` that its guarantee pays for, and in which form."""
        if self.tree.is_leaf(queue):
            return self.view(queue).cover
        found = self._covers.get(queue)
        if found is None:
            below = self.standings_below(queue)
            found = covered_forms(below, self.tree.guarantees(queue))
            self._covers[queue] = found
        return found

    def standings_below(self, queue: TenantName) -> list[Standing]:
        """Gangs below `queue` that run or may be decided."""
        found = list(self.view(queue).standings)
        for child in self.tree.children.get(queue, ()):
            found.extend(self.standings_below(child))
        return found

    def shares(self, form: Form) -> dict[TenantName, list[int]]:
        """Return what division grants now of `form`, per queue and tier, in quanta."""
        found = self._shares.get(form)
        if found is None:
            demands = {
                tenant: tuple(self.view(tenant).wanted.get(form, [0] * TIERS))
                for tenant in self.tree.queues
            }
            unit = charge(form)
            amounts = (amount for tiers_ in demands.values() for amount in tiers_)
            if any(amount % unit for amount in amounts):
                unit = 1
            found = division(self.tree, form, demands, unit)
            self._shares[form] = found
        return found

    def court(self, now: float) -> Court:
        """Return what the rules of reclaim may look at."""
        nothing = [0] * TIERS
        return Court(
            now=now,
            tree=self.tree,
            covers=lambda queue: frozenset(self.cover(queue)),
            shares=lambda queue, form: self.shares(form)[queue],
            tier_use=lambda tenant, form: self.view(tenant).use.get(form, nothing),
            min_runtime_s=self.policy.min_runtime_s,
        )

    def holding(self, gang: Gang, now: float) -> Holding:
        """Return a running gang as the search for victims sees it."""
        assert gang.form is not None
        return Holding(
            gang=gang.id,
            tenant=gang.tenant,
            workload_class=gang.workload_class,
            tier=self.view(gang.tenant).tier_of.get(gang.id, gang.workload_class),
            priority=gang.priority,
            preemptible=gang.preemptible,
            form=gang.form,
            quanta=gang.quanta(gang.form),
            pods=tuple(sorted(u for u in gang.pods if u in self.cluster.placed)),
            started=gang.started,
            saved=gang.saved_at(now),
            restart_cost_s=gang.restart_cost_s,
            leaving=gang.phase is Phase.LEAVING,
        )

    def taker(self, gang: Gang, form: Form) -> Taker:
        """Return a waiting gang as the search for victims sees it."""
        return Taker(
            gang=gang.id,
            tenant=gang.tenant,
            workload_class=gang.workload_class,
            tier=self.tier(gang),
            priority=gang.priority,
            form=form,
            quanta=gang.quanta(form),
            covered=self.cover(gang.tenant).get(gang.id) == form,
            members=gang.members,
        )

    def tier(self, gang: Gang) -> WorkloadClass:
        """Return the tier in which the gang's demand is divided."""
        tier_of = self.view(gang.tenant).tier_of
        return tier_of.get(gang.id, gang.workload_class)

    # -- moves -----------------------------------------------------------------

    def submit(self, pod: Pod, now: float) -> Gang:
        """Hear of a pod; hearing of it again changes nothing."""
        known = self.gangs.by_pod.get(pod.uid)
        if known is not None:
            return known
        gang = self.gangs.add_pod(pod, now)
        self.touch(pod.tenant)
        return gang

    def admit(self, gang: Gang, plan: Admission, now: float) -> None:
        """Place and charge a waiting gang, and wish for its start."""
        self._plan(gang, plan)
        self._start(gang, now)

    def hold(self, gang: Gang, exchange: Exchange, form: Form, now: float) -> None:
        """Plan a gang into room that its victims still use, and ask them to go."""
        deadline = now + self.policy.checkpoint_notice_s
        victims = self._with_extras(exchange.victims)
        for victim in victims:
            if self.gangs.by_id[victim].phase is not Phase.LEAVING:
                self._ask_to_leave(self.gangs.by_id[victim], gang.id, deadline)
        self._charge(gang, form)
        for p in exchange.placed:
            self.cluster.place(p.uid, p.column, form, p.demand, p.slot)
        gang.started = now
        self.gangs.set_phase(gang, Phase.HELD)
        self.reclaims[gang.id] = Reclaim(gang.id, victims, deadline)
        self.touch(gang.tenant)

    def _with_extras(self, victims: Sequence[GangId]) -> tuple[GangId, ...]:
        found = set(victims)
        for victim in victims:
            for extra in self.gangs.extras(self.gangs.by_id[victim]):
                if extra.phase is Phase.RUNNING:
                    found.add(extra.id)
                elif extra.phase in (Phase.HELD, Phase.ADMITTED):
                    self.withdraw(extra, "its gang is evicted")
        return tuple(sorted(found))

    def seat_held(self, gang: Gang, now: float) -> None:
        """Start a gang whose victims have all left."""
        del self.reclaims[gang.id]
        self._start(gang, now)

    def withdraw(self, gang: Gang, reason: str) -> None:
        """Take back a hold or an admission that no pod has bound; it waits again."""
        for uid in sorted(gang.pods):
            if uid in self.cluster.placed:
                placed = self.cluster.remove(uid)
                if gang.phase is Phase.ADMITTED:
                    node = self.cluster.names[placed.column]
                    self.actions.append(Withdraw(uid, gang.id, node, reason))
        self._release(gang)
        reclaim = self.reclaims.pop(gang.id, None)
        self.gangs.set_phase(gang, Phase.WAITING)
        if reclaim is not None:
            self._spare(reclaim)
        self.freed += 1
        self.touch(gang.tenant)

    def evict(self, gang: Gang, reason: str, beneficiary: GangId | None = None) -> None:
        """Wish every pod of the gang away; its charge ends with the decision."""
        if gang.phase is not Phase.LEAVING:
            self._release(gang)
            self.gangs.set_phase(gang, Phase.LEAVING)
            self.touch(gang.tenant)
        for uid in sorted(gang.pods):
            member = gang.pods[uid]
            if not member.evicted and uid in self.cluster.placed:
                member.evicted = True
                node = self.node_of(uid)
                grace = self.policy.eviction_grace_s
                self.actions.append(
                    Evict(uid, gang.id, node, grace, reason, beneficiary)
                )
        self.version += 1

    def adopt(
        self, gang: Gang, uid: PodUid, column: int, form: Form, now: float
    ) -> None:
        """Take note of a pod that runs where we did not plan it."""
        self._charge(gang, form)
        self.cluster.place(uid, column, form, gang.pods[uid].pod.demand)
        gang.pods[uid].bound = True
        gang.started = now
        self.gangs.set_phase(gang, Phase.RUNNING)
        self._excuse(gang.tenant, form)
        self.touch(gang.tenant)

    def gone(self, uid: PodUid, now: float) -> None:
        """Release what a pod held, and forget it."""
        gang = self.gangs.by_pod[uid]
        if gang.phase is Phase.HELD or (
            gang.phase is Phase.ADMITTED
            and not any(m.bound for m in gang.pods.values())
        ):
            self.withdraw(gang, "a member of the gang is gone")
        if uid in self.cluster.placed:
            self.cluster.remove(uid)
        if gang.phase.is_charged and gang.form is not None:
            quanta = gang.pods[uid].pod.demand.charge(gang.form)
            self._give_back(gang.tenant, gang.form, quanta)
        self.gangs.remove_pod(uid)
        self.freed += 1
        self.touch(gang.tenant)

    def node_of(self, uid: PodUid) -> NodeName:
        """Return the node a pod is placed on."""
        return self.cluster.names[self.cluster.placed[uid].column]

    # -- nodes and tenants -------------------------------------------------------

    def set_node(self, node: Node) -> None:
        """Let a node in, or change what it offers."""
        self.cluster.set_node(node)
        self._nodes_changed(node.name)

    def drop_node(self, name: NodeName) -> None:
        """Take a node away."""
        self.cluster.drop_node(name)
        self._nodes_changed(name)

    def _nodes_changed(self, name: NodeName) -> None:
        self.tree.capacity = self.cluster.capacity()
        self.touch_all()
        node = self.cluster.node(name)
        if node is None or not node.ready:
            self._withdraw_from(self.cluster.index[name])

    def _withdraw_from(self, column: int) -> None:
        """Give up what was planned on a node that is no longer there."""
        planned = {
            self.gangs.by_pod[uid].id
            for uid, placed in self.cluster.placed.items()
            if placed.column == column
        }
        for gang_id in sorted(planned):
            gang = self.gangs.by_id[gang_id]
            loose = not any(member.bound for member in gang.pods.values())
            if gang.phase is Phase.HELD or (gang.phase is Phase.ADMITTED and loose):
                self.withdraw(gang, "its node is gone")

    def set_tenants(self, queues: Sequence[Queue]) -> None:
        """Replace the tree; nothing that runs is lost.

        A tenant that is gone while its pods run keeps a queue without guarantee, so
        that all it holds is burst.
        """
        charged = [
            gang
            for gang in self.gangs.by_id.values()
            if gang.phase.is_charged and gang.form is not None
        ]
        names = {queue.name for queue in queues}
        orphans = sorted({gang.tenant for gang in charged} - names)
        tree = QuotaTree((*queues, *(Queue(name=n, limit=()) for n in orphans)))
        tree.capacity = self.cluster.capacity()
        self.tree = tree
        self.orphans = frozenset(orphans)
        for gang in charged:
            assert gang.form is not None
            tree.charge(gang.tenant, gang.form, gang.quanta(gang.form))
        self.excused.clear()
        for gang in charged:
            assert gang.form is not None
            self._excuse(gang.tenant, gang.form)
        self.touch_all()

    # -- books -------------------------------------------------------------------

    def _plan(self, gang: Gang, plan: Admission) -> None:
        self._charge(gang, plan.form)
        for a in plan.assignments:
            demand = gang.pods[a.uid].pod.demand
            column = self.cluster.index[a.node]
            self.cluster.place(a.uid, column, plan.form, demand)

    def _start(self, gang: Gang, now: float) -> None:
        assert gang.form is not None
        self.decisions += 1
        gang.started = now
        gang.deadline = now + self.policy.gang_start_timeout_s
        self.gangs.set_phase(gang, Phase.ADMITTED)
        for uid, demand in gang.members:
            quanta = demand.charge(gang.form)
            node = self.node_of(uid)
            self.actions.append(
                Admit(uid, gang.id, node, gang.form, quanta, self.decisions)
            )
        self.touch(gang.tenant)

    def _ask_to_leave(self, gang: Gang, beneficiary: GangId, deadline: float) -> None:
        self._release(gang)
        self.gangs.set_phase(gang, Phase.LEAVING)
        for uid in sorted(gang.pods):
            member = gang.pods[uid]
            if member.pod.on_request and member.bound:
                member.asked = True
                node = self.node_of(uid)
                self.actions.append(
                    CheckpointRequest(uid, gang.id, node, deadline, beneficiary)
                )
        self.touch(gang.tenant)

    def _spare(self, reclaim: Reclaim) -> None:
        """Let victims stay that were only asked, where their quota still allows it."""
        for name in reclaim.victims:
            gang = self.gangs.by_id.get(name)
            if gang is None or any(m.evicted for m in gang.pods.values()):
                continue
            if any(name in other.victims for other in self.reclaims.values()):
                continue
            form = next(iter({self.cluster.placed[u].form for u in gang.pods}))
            if gang.quanta(form) <= self.tree.room(gang.tenant, form):
                for member in gang.pods.values():
                    member.asked = False
                self._charge(gang, form)
                self.gangs.set_phase(gang, Phase.RUNNING)
                self.touch(gang.tenant)
            else:
                self.evict(gang, "its tenant has used its room otherwise")

    def _charge(self, gang: Gang, form: Form) -> None:
        gang.form = form
        self.tree.charge(gang.tenant, form, gang.quanta(form))

    def _release(self, gang: Gang) -> None:
        if gang.form is not None:
            self._give_back(gang.tenant, gang.form, gang.quanta(gang.form))

    def _give_back(self, tenant: TenantName, form: Form, quanta: int) -> None:
        self.tree.release(tenant, form, quanta)
        for queue in self.tree.path(tenant):
            if (queue, form) in self.excused:
                self._excuse_queue(queue, form)

    def _excuse(self, tenant: TenantName, form: Form) -> None:
        """Remember use above a ceiling that no decision of ours has caused."""
        for queue in self.tree.path(tenant):
            self._excuse_queue(queue, form)

    def _excuse_queue(self, queue: TenantName, form: Form) -> None:
        used, ceiling = self.tree.used(queue, form), self.tree.ceiling(queue, form)
        if used > ceiling < UNLIMITED:
            self.excused[queue, form] = used
        else:
            self.excused.pop((queue, form), None)
