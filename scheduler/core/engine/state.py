"""The moves between phases, so that all books agree.

Every change of state goes through a method here: the cluster knows where each pod is,
the tree what each tenant is charged, the gangs how far each has come. What should
happen outside gathers in ``actions``.
"""

from collections.abc import Sequence

from scheduler.core.allocator import Admission
from scheduler.core.cluster import Node
from scheduler.core.engine.gangs import Gang, Phase
from scheduler.core.engine.known import Known, Reclaim
from scheduler.core.events import (
    Admit,
    CheckpointRequest,
    Evict,
    Withdraw,
)
from scheduler.core.gpu import Form
from scheduler.core.quota import UNLIMITED, Queue, QuotaTree
from scheduler.core.reclaim import Exchange
from scheduler.core.workload import (
    GangId,
    NodeName,
    Pod,
    PodUid,
    TenantName,
)


class State(Known):
    """Everything the engine remembers, and how it changes."""

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
            if victim.phase is not Phase.LEAVING:
                self._ask_to_leave(victim, gang.id, deadline)
        self._charge(gang, form)
        for p in exchange.placed:
            self.cluster.place(p.uid, p.column, form, p.demand, p.slot)
        gang.started = now
        self.gangs.set_phase(gang, Phase.HELD)
        self.reclaims[gang.id] = Reclaim(gang.id, victims, deadline)
        self.touch(gang.tenant)

    def _with_extras(self, victims: Sequence[GangId]) -> tuple[Gang, ...]:
        found = {name: self.gangs.by_id[name] for name in victims}
        for victim in list(found.values()):
            for extra in self.gangs.extras(victim):
                if extra.phase is Phase.RUNNING:
                    found[extra.id] = extra
                elif extra.phase in (Phase.HELD, Phase.ADMITTED):
                    self.withdraw(extra, "its gang is evicted")
        return tuple(found[name] for name in sorted(found))

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
        self.touch(gang.tenant)

    def evict(self, gang: Gang, reason: str, beneficiary: GangId | None = None) -> None:
        """Wish every pod of the gang away; its charge ends with the decision."""
        if gang.phase is not Phase.LEAVING:
            self._release(gang)
            self.gangs.set_phase(gang, Phase.LEAVING)
            gang.leaves_for = beneficiary
            self.touch(gang.tenant)
        for uid in sorted(gang.pods):
            member = gang.pods[uid]
            if not member.evicted and uid in self.cluster.placed:
                member.evicted = True
                node = self.node_of(uid)
                grace = self.policy.eviction_grace_s
                self.actions.append(
                    Evict(uid, gang.id, node, grace, reason, gang.leaves_for)
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
        gang.leaves_for = beneficiary
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
        for gang in reclaim.present:
            if any(m.evicted for m in gang.pods.values()):
                continue
            if any(gang in other.victims for other in self.reclaims.values()):
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
