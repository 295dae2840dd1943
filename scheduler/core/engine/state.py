"""The moves between phases, so that all books agree.

Every change of state goes through a method here: the cluster knows where each pod is,
the tree what each tenant is charged, the gangs how far each has come. What should
happen outside gathers in ``actions``.
"""

from collections.abc import Iterable, Sequence

from scheduler.core.allocator import Admission
from scheduler.core.cluster import Node
from scheduler.core.engine.books import Books
from scheduler.core.engine.gangs import Gang, Phase
from scheduler.core.engine.known import Reclaim
from scheduler.core.events import (
    Admit,
    CheckpointRequest,
    Evict,
    Withdraw,
)
from scheduler.core.gpu import Form
from scheduler.core.quota import Fleet, Queue, QuotaTree
from scheduler.core.reclaim import Exchange
from scheduler.core.workload import (
    GangId,
    NodeName,
    Pod,
    PodUid,
    TenantName,
)

LONGEST_REST = 16
"""Most of its start timeouts that a gang rests after failures to start."""


class State(Books):
    """Everything the engine remembers, and how it changes."""

    # -- moves -----------------------------------------------------------------

    def submit(self, pod: Pod, since: float) -> Gang:
        """Hear of a pod; hearing of it again changes nothing."""
        known = self.gangs.by_pod.get(pod.uid)
        if known is not None:
            return known
        gang = self.gangs.add_pod(pod, since)
        self.heard += 1
        self.touch(pod.tenant)
        return gang

    def await_fellow(self, gang: Gang, now: float) -> None:
        """Let a gang that was found running wait for a member from before its start.

        Without it the gang has never been whole (GANG): it becomes so in time, or is
        given up. A member that came later takes the place of one that is gone.
        """
        core = self.gangs.by_id.get(gang.core) if gang.core else None
        if core is None or core.phase is not Phase.RUNNING or core.is_whole:
            return
        if core.decision == 0 and gang.submitted <= core.started:
            core.deadline = now + self.policy.gang_start_timeout_s
            self.gangs.set_phase(core, Phase.ADMITTED)
            self.touch(core.tenant)

    def admit(self, gang: Gang, plan: Admission, now: float) -> None:
        """Place and charge a waiting gang, and wish for its start."""
        stands = self.cover_stands(gang, plan.form)
        self._plan(gang, plan)
        self._start(gang, now)
        if stands:
            self.touch_started(gang.tenant)
        else:
            self.touch(gang.tenant)

    def hold(self, gang: Gang, exchange: Exchange, form: Form, now: float) -> None:
        """Plan a gang into room that its victims still use, and ask them to go.

        A victim that only waits for room itself gives up its hold to this one.
        """
        deadline = now + self.policy.checkpoint_notice_s
        chosen = [self.gangs.by_id[name] for name in exchange.victims]
        held = [victim for victim in chosen if victim.phase is Phase.HELD]
        void = [self._unseat(v, "more urgent work needs its room") for v in held]
        chosen = [victim for victim in chosen if victim not in held]
        victims = self._with_extras(chosen)
        for victim in victims:
            if victim.phase is not Phase.LEAVING:
                self._ask_to_leave(victim, gang.id, deadline)
        for victim in chosen:
            self._scatter(victim, now)
        self._charge(gang, form)
        for p in exchange.placed:
            self.cluster.place(p.uid, p.column, form, p.demand, p.slot)
        self.gangs.begin(gang, now)
        self.gangs.set_phase(gang, Phase.HELD)
        self.reclaims[gang.id] = Reclaim(gang.id, victims)
        self.touch(gang.tenant)
        for reclaim in void:
            self._spare(reclaim, now)

    def _with_extras(self, cores: Sequence[Gang]) -> tuple[Gang, ...]:
        """Return the gangs and those of their extras that run, by id."""
        found = {core.id: core for core in cores}
        for core in cores:
            for extra in self.gangs.extras(core):
                if extra.phase is Phase.RUNNING:
                    found[extra.id] = extra
        return tuple(found[name] for name in sorted(found))

    def _scatter(self, core: Gang, now: float) -> None:
        """Let extras of a gang that takes no more members wait for the next one."""
        for extra in self.gangs.extras(core):
            if extra.phase in (Phase.HELD, Phase.ADMITTED):
                self.withdraw(extra, "its gang is evicted", now)
        self._regroup(core)

    def _regroup(self, core: Gang) -> None:
        """Let extras that wait join anew: their core lacks members, or is closed."""
        for extra in self.gangs.extras(core):
            if extra.phase is Phase.WAITING:
                for member in list(extra.pods.values()):
                    self.gangs.remove_pod(member.pod.uid)
                    self.gangs.add_pod(member.pod, extra.submitted)

    def seat_held(self, gang: Gang, now: float) -> None:
        """Start a gang whose victims have all left."""
        del self.reclaims[gang.id]
        self._start(gang, now)
        self.touch(gang.tenant)

    def withdraw(self, gang: Gang, reason: str, now: float) -> None:
        """Take back a hold or an admission that no pod has bound; it waits again."""
        self._spare(self._unseat(gang, reason), now)

    def _unseat(
        self, gang: Gang, reason: str, gone: PodUid | None = None
    ) -> Reclaim | None:
        """Void a gang's plan, and return the hold that it had."""
        self._take_back(gang, sorted(gang.pods), reason, gone)
        self._release(gang)
        self.gangs.set_phase(gang, Phase.WAITING)
        self.touch(gang.tenant)
        return self.reclaims.pop(gang.id, None)

    def _take_back(
        self,
        gang: Gang,
        uids: Iterable[PodUid],
        reason: str,
        gone: PodUid | None = None,
    ) -> None:
        """Give up the planned places of pods that are not bound."""
        for uid in uids:
            node = self.node_of(uid)
            self.cluster.remove(uid)
            if gang.phase is Phase.ADMITTED and uid != gone:
                self.actions.append(Withdraw(uid, gang.id, node, reason))

    def give_up(self, gang: Gang, now: float) -> None:
        """End an admission that has not become a started gang in time.

        Where no member is bound, all wait again. Else those that are bound are evicted
        (GANG), and the others wait in a gang that their re-created fellows will join.
        """
        self.heard += 1
        failures = gang.failures + 1
        loose = sorted(uid for uid, member in gang.pods.items() if not member.bound)
        if len(loose) == len(gang.pods):
            self.withdraw(gang, "nobody bound it in time", now)
            self._rest(gang, failures, now)
            return
        reason = "its gang did not start whole in time"
        self._take_back(gang, loose, reason)
        self.evict(gang, reason, now)
        for uid in loose:
            pod = self.gangs.remove_pod(uid).pod
            fresh = self.gangs.add_pod(pod, gang.submitted)
            self._rest(fresh, failures, now)

    def _rest(self, gang: Gang, failures: int, now: float) -> None:
        """Keep a gang that did not start from taking the room again and again.

        It rests longer after each failure; inline, at least until somebody asks.
        """
        times = min((1 << (failures - 1)) - 1, LONGEST_REST)
        gang.failures = failures
        gang.deadline = now + times * self.policy.gang_start_timeout_s
        gang.dormant = self.policy.inline or times > 0
        self.touch(gang.tenant)

    def wake(self, gang: Gang, now: float) -> None:
        """Let a gang whose rest is over be decided again."""
        if gang.dormant and now >= gang.deadline:
            gang.dormant = False
            self.touch(gang.tenant)

    def evict(
        self, gang: Gang, reason: str, now: float, beneficiary: GangId | None = None
    ) -> None:
        """Wish every pod of the gang away; its charge ends with the decision.

        Its extras go with it. Asking again says nothing new.
        """
        if gang.phase is not Phase.LEAVING:
            self._release(gang)
            self.gangs.set_phase(gang, Phase.LEAVING)
            self.touch(gang.tenant)
        fresh = [uid for uid in sorted(gang.pods) if not gang.pods[uid].evicted]
        if fresh:
            gang.leaves_for = beneficiary or gang.leaves_for
            gang.leaves_because = reason
            self._wish_away(gang, fresh, reason, now)
        for extra in self.gangs.extras(gang):
            if extra.phase in (Phase.RUNNING, Phase.LEAVING):
                self.evict(extra, reason, now, beneficiary)
        self._scatter(gang, now)

    def _wish_away(
        self, gang: Gang, uids: Iterable[PodUid], reason: str, now: float
    ) -> None:
        grace = self.policy.eviction_grace_s
        for uid in uids:
            if uid in self.cluster.placed:
                gang.pods[uid].evicted = True
                node = self.node_of(uid)
                self.actions.append(
                    Evict(uid, gang.id, node, grace, reason, gang.leaves_for)
                )
        gang.deadline = now + grace + self.policy.margin_s
        self.version += 1

    def remind(self, gang: Gang, now: float) -> None:
        """Evict once more who should be gone by now; nobody waits for it any longer."""
        self.heard += 1
        gang.overdue = True
        reason = "was evicted, and is still here"
        self._wish_away(gang, sorted(gang.pods), reason, now)
        waiting = [n for n, r in sorted(self.reclaims.items()) if gang in r.victims]
        for name in waiting:
            if name in self.reclaims:
                self.withdraw(self.gangs.by_id[name], f"{gang.id} does not leave", now)

    def bind(self, gang: Gang, uid: PodUid, column: int, now: float) -> None:
        """Take note that a planned pod sits on a node, the planned one or another."""
        placed = self.cluster.placed[uid]
        gang.pods[uid].bound = True
        if placed.column != column:
            self.cluster.remove(uid)
            self.cluster.place(uid, column, placed.form, placed.demand)
            self._concede(column, now)
        self._see_whole(gang, now)
        self.touch(gang.tenant)

    def _concede(self, column: int, now: float) -> None:
        """Somebody else placed a pod on the node: plans that it displaced are void."""
        self.cluster.concede(column)
        if self._is_short(column):
            self._withdraw_from(column, "its node was given to another", now)

    def _see_whole(self, gang: Gang, now: float) -> None:
        """Let a gang run whose members are bound, and join its core if that is short.

        A gang of which we found some members bound waits for its fellows, until its
        deadline.
        """
        if gang.phase is Phase.ADMITTED and all(m.bound for m in gang.pods.values()):
            extras = self.gangs.extras(gang)
            if not gang.is_whole and any(e.phase is not Phase.RUNNING for e in extras):
                return
            self.gangs.begin(gang, now)
            gang.failures = 0
            self.gangs.set_phase(gang, Phase.RUNNING)
        core = self.gangs.by_id.get(gang.core) if gang.core else None
        if core is None or core.is_whole or gang.phase is not Phase.RUNNING:
            return
        if core.phase in (Phase.ADMITTED, Phase.RUNNING) and core.form == gang.form:
            self.gangs.merge(gang, core)
            self._see_whole(core, now)

    def adopt(
        self, pod: Pod, column: int, form: Form, now: float, since: float
    ) -> None:
        """Take note of a bound pod that no decision of this engine has placed.

        It runs since `since`. Its fellows that wait become extras of the gang that so
        has begun.
        """
        gang = self.gangs.by_pod.get(pod.uid)
        if gang is not None and gang.is_loose:
            self.withdraw(gang, "bound elsewhere", now)
        if gang is None:
            gang = self.gangs.add_bound(pod, since)
        fellows = [m.pod for uid, m in sorted(gang.pods.items()) if uid != pod.uid]
        for fellow in fellows:
            self.gangs.remove_pod(fellow.uid)
        self._charge(gang, form)
        self.cluster.place(pod.uid, column, form, pod.demand)
        gang.pods[pod.uid].bound = True
        self.gangs.begin(gang, since)
        gang.deadline = now + self.policy.gang_start_timeout_s
        gang.dormant = False
        self.gangs.set_phase(gang, Phase.ADMITTED)
        for fellow in fellows:
            self.gangs.add_pod(fellow, gang.submitted)
        self._excuse(gang.tenant, form)
        self._concede(column, now)
        self._see_whole(gang, since)
        self.touch(gang.tenant)

    def replace(self, uid: PodUid, pod: Pod, now: float) -> None:
        """Let a pod take over the place of one that never ran, if it asks for the same.

        Else the one is gone, and the other waits.
        """
        gang = self.gangs.by_pod[uid]
        if gang.pods[uid].pod.is_like(pod):
            placed = self.cluster.placed.get(uid)
            self.gangs.replace_pod(uid, pod)
            if placed is not None:
                self.cluster.remove(uid)
                place = (placed.column, placed.form, placed.demand, placed.slot)
                self.cluster.place(pod.uid, *place)
                self.cluster.concede(placed.column)  # as it was before
            self.touch(gang.tenant)
        else:
            since = gang.submitted
            self.gone(uid, now)
            self.submit(pod, since)

    def gone(self, uid: PodUid, now: float) -> None:
        """Release what a pod held, and forget it."""
        gang = self.gangs.by_pod[uid]
        if gang.is_loose:
            self._spare(self._unseat(gang, "a member of the gang is gone", uid), now)
        if uid in self.cluster.placed:
            self.cluster.remove(uid)
        if gang.phase.is_charged and gang.form is not None:
            quanta = gang.pods[uid].pod.demand.charge(gang.form)
            self._give_back(gang.tenant, gang.form, quanta)
        self.gangs.remove_pod(uid)
        if gang.phase is Phase.WAITING:
            self._regroup(gang)
        self.touch(gang.tenant)

    # -- nodes and tenants -------------------------------------------------------

    def set_node(self, node: Node, now: float) -> None:
        """Let a node in, or change what it offers."""
        if self.cluster.node(node.name) == node:
            return
        self.cluster.set_node(node)
        self._nodes_changed(node.name, now)

    def drop_node(self, name: NodeName, now: float) -> None:
        """Take a node away."""
        self.cluster.drop_node(name)
        self._nodes_changed(name, now)

    def _nodes_changed(self, name: NodeName, now: float) -> None:
        self.tree.capacity = self.cluster.capacity()
        self.touch_all()
        node, column = self.cluster.node(name), self.cluster.index[name]
        if node is None or not node.ready:
            self._withdraw_from(column, "its node is gone", now)
        elif self._is_short(column):
            self._withdraw_from(column, "its node has no room for it any more", now)

    def _is_short(self, column: int) -> bool:
        """Whether a node has too little even once all who were told to go are gone."""
        if not self.cluster.is_short(column):
            return False
        with self.cluster.trial():
            for gang in self.gangs.by_phase[Phase.LEAVING].values():
                for uid in gang.pods:
                    if self.cluster.placed[uid].column == column:
                        self.cluster.remove(uid)
            return self.cluster.is_short(column)

    def _withdraw_from(self, column: int, reason: str, now: float) -> None:
        """Give up what was planned on a node that cannot have it any more."""
        placed, phases = self.cluster.placed, self.gangs.by_phase
        planned = [
            gang
            for phase in (Phase.HELD, Phase.ADMITTED)
            for gang in phases[phase].values()
            if any(placed[uid].column == column for uid in gang.pods)
        ]
        for gang in sorted(planned, key=lambda gang: gang.id):
            if gang.is_loose:
                self.withdraw(gang, reason, now)

    def set_tenants(self, queues: Sequence[Queue], fleet: Fleet, now: float) -> None:
        """Replace the tree; nothing that runs is lost.

        A tenant that is gone while its pods hold devices keeps a queue without
        guarantee, so that all it holds is burst.
        """
        QuotaTree(queues, fleet)  # refuses what is wrong, whoever is added below
        gangs = self.gangs.by_id.values()
        holders = {gang.tenant for gang in gangs if gang.phase is not Phase.WAITING}
        orphans = sorted(holders - {queue.name for queue in queues})
        self._plant(queues, orphans, fleet)
        self.touch_all()
        self._withdraw_unentitled(now)

    def shelter(self, tenant: TenantName) -> None:
        """Give a tenant that nobody has named a queue without guarantee."""
        queues = [q for name, q in self.tree.queues.items() if name not in self.orphans]
        self._plant(queues, sorted({*self.orphans, tenant}), self.tree.fleet)
        self.touch_all()

    def _plant(
        self, queues: Sequence[Queue], orphans: Sequence[TenantName], fleet: Fleet
    ) -> None:
        tree = QuotaTree((*queues, *(Queue(name=name) for name in orphans)), fleet)
        if self.cluster.names:  # else nobody knows yet what there is
            tree.capacity = self.cluster.capacity()
        self.tree = tree
        self.orphans = frozenset(orphans)
        self.excused.clear()
        charged = [g for g in self.gangs.by_id.values() if g.phase.is_charged]
        for gang in charged:
            assert gang.form is not None
            tree.charge(gang.tenant, gang.form, gang.quanta(gang.form))
        for gang in charged:
            assert gang.form is not None
            self._excuse(gang.tenant, gang.form)

    def _withdraw_unentitled(self, now: float) -> None:
        """Give up plans of who is no tenant any more, or above a ceiling; latest first.

        Pods that run stay.
        """
        gangs = [gang for gang in self.gangs.by_id.values() if gang.is_loose]
        for gang in sorted(gangs, key=lambda g: (-g.started, g.id)):
            path = self.tree.path(gang.tenant)
            if not gang.is_loose:
                continue
            if not self.is_tenant(gang.tenant):
                self.withdraw(gang, "its tenant is gone", now)
            elif self.is_excused(path, gang.form):
                self.withdraw(gang, "its tenant's limit was lowered", now)
            elif any(self.tree.is_overdrawn(queue) for queue in path):
                self.withdraw(gang, "its tenant's burst was lowered", now)

    # -- plans -------------------------------------------------------------------

    def _plan(self, gang: Gang, plan: Admission) -> None:
        self._charge(gang, plan.form)
        for a in plan.assignments:
            demand = gang.pods[a.uid].pod.demand
            column = self.cluster.index[a.node]
            self.cluster.place(a.uid, column, plan.form, demand)

    def _start(self, gang: Gang, now: float) -> None:
        assert gang.form is not None
        self.decisions += 1
        gang.decision = self.decisions
        self.gangs.begin(gang, now)
        gang.deadline = now + self.policy.gang_start_timeout_s
        self.gangs.set_phase(gang, Phase.ADMITTED)
        for uid, demand in gang.members:
            quanta = demand.charge(gang.form)
            node = self.node_of(uid)
            self.actions.append(
                Admit(uid, gang.id, node, gang.form, quanta, self.decisions)
            )

    def _ask_to_leave(self, gang: Gang, beneficiary: GangId, deadline: float) -> None:
        self._release(gang)
        self.gangs.set_phase(gang, Phase.LEAVING)
        gang.leaves_for = beneficiary
        gang.leaves_because = "reclaimed"
        gang.deadline = deadline
        for uid in sorted(gang.pods):
            member = gang.pods[uid]
            if member.pod.on_request and member.bound:
                member.asked = True
                node = self.node_of(uid)
                self.actions.append(
                    CheckpointRequest(uid, gang.id, node, deadline, beneficiary)
                )
        self.touch(gang.tenant)

    def _spare(self, reclaim: Reclaim | None, now: float) -> None:
        """Let victims stay that were only asked, where their quota still allows it."""
        for gang in reclaim.present if reclaim else ():
            if gang.is_evicted:
                continue
            if any(gang in other.victims for other in self.reclaims.values()):
                continue
            assert gang.form is not None
            if gang.quanta(gang.form) <= self.tree.room(gang.tenant, gang.form):
                for member in gang.pods.values():
                    member.asked = False
                self._charge(gang, gang.form)
                self.gangs.set_phase(gang, Phase.RUNNING)
                self.touch(gang.tenant)
            else:
                self.evict(gang, "its tenant has used its room otherwise", now)
