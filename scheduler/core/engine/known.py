"""What is known: cluster, tenant tree and gangs, and what follows from them.

What follows (who may be decided, what a guarantee covers, in which tier a demand is
divided, what the shares are) is computed on demand and forgotten when something it
depends on changes.
"""

from bisect import insort

from scheduler.core.cluster import Cluster
from scheduler.core.engine.gangs import NEVER, Gang, Gangs, Phase
from scheduler.core.engine.shares import Shares, Wants
from scheduler.core.engine.tenant_view import TenantView, guarantee_of
from scheduler.core.engine.views import Policy
from scheduler.core.events import Action
from scheduler.core.fairness import (
    TIERS,
    Rank,
    Spending,
    Standing,
    covered_forms,
)
from scheduler.core.gpu import Form
from scheduler.core.placement import Wish, fits_empty, placeable
from scheduler.core.quota import QuotaTree
from scheduler.core.reclaim import Court, Holding, Taker
from scheduler.core.workload import (
    GangId,
    NodeName,
    PodUid,
    TenantName,
    WorkloadClass,
)


class Reclaim:
    """A hold: a beneficiary with its room planned, and the victims that must leave.

    Victims are kept as gangs, not by name: their re-created pods may found a gang of
    the same name before the cycle looks.
    """

    __slots__ = ("beneficiary", "victims")

    def __init__(self, beneficiary: GangId, victims: tuple[Gang, ...]) -> None:
        self.beneficiary = beneficiary
        self.victims = victims

    @property
    def present(self) -> list[Gang]:
        """Victims that have pods left."""
        return [victim for victim in self.victims if victim.pods]

    @property
    def names(self) -> tuple[GangId, ...]:
        """Names of the victims that have pods left."""
        return tuple(victim.id for victim in self.present)


class Known:
    """Everything the engine remembers; ``state.State`` changes it."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.version = 0
        self.epoch = 0  # counts changes of nodes and tenants
        self.decisions = 0
        self.cluster = Cluster()
        self.tree = QuotaTree(())
        self.gangs = Gangs()
        self.reclaims: dict[GangId, Reclaim] = {}
        self.actions: list[Action] = []
        self.excused: dict[tuple[TenantName, Form], int] = {}
        self.orphans: frozenset[TenantName] = frozenset()
        self.forms: list[Form] = []  # that some node offers
        self._aside: dict[GangId, set[Form]] = {}
        self.heard = 0  # counts what has happened outside, and plans that ran out
        self._looked = 0
        self._views: dict[TenantName, TenantView] = {}
        self._orders: dict[TenantName, TenantView] = {}  # from before gangs started
        self._covers: dict[TenantName, dict[GangId, Form]] = {}
        self._placeable: tuple[int, frozenset[GangId]] | None = None
        self.shares = Shares(self._wants)
        self._spending: dict[TenantName, Spending] = {}
        self._burst: dict[TenantName, dict[TenantName, tuple[Gang, ...]]] = {}

    # -- what follows ----------------------------------------------------------

    def touch(self, tenant: TenantName) -> None:
        """Forget what followed from the tenant's gangs."""
        self._orders.pop(tenant, None)
        self._views.pop(tenant, None)
        self._forget_around(tenant)

    def cover_stands(self, gang: Gang, form: Form) -> bool:
        """Whether its start on `form` changes nothing about who is covered.

        Nor in which form, nor in which tier demand counts. Ask before it starts.
        """
        view = self._order(gang.tenant)
        if gang.core is not None or self.gangs.extras(gang):
            return False  # extras move with it
        return view.stands_after(gang.id, gang.workload_class, gang.priority, form)

    def touch_started(self, tenant: TenantName) -> None:
        """Forget what followed from a gang's waiting, but not who is covered.

        Recomputing that for each of many gangs that start at once would take a time
        that is quadratic in them.
        """
        view = self._views.pop(tenant, None)
        if view is not None:
            self._orders.setdefault(tenant, view)
        self._forget_around(tenant)

    def _forget_around(self, tenant: TenantName) -> None:
        self.version += 1
        self.shares.touch(tenant)
        if tenant in self.tree.queues:
            for queue in self.tree.path(tenant):
                self._covers.pop(queue, None)
                self._spending.pop(queue, None)
                self._burst.pop(queue, None)

    def set_aside(self, gang: Gang, form: Form) -> None:
        """Take a covered gang that no exchange can place out of the cover for now.

        It is not *placeable* on that form: it must not strip others of protection there
        while it waits. Its guarantee may still pay for another form that it accepts.
        """
        self._aside.setdefault(gang.id, set()).add(form)
        self.touch(gang.tenant)

    def look_anew(self) -> None:
        """Something happened: whoever was set aside may be placeable now.

        What the engine itself decides is no such thing: it would decide in circles.
        """
        if self.heard == self._looked:
            return
        self._looked = self.heard
        for name in sorted(self._aside):
            if name in self.gangs.by_id:
                self.touch(self.gangs.by_id[name].tenant)
        self._aside.clear()

    def touch_all(self) -> None:
        """Forget everything that was computed: nodes or tenants changed."""
        self.version += 1
        self.epoch += 1
        self._aside.clear()
        self.forms = self.cluster.forms()
        self._views.clear()
        self._orders.clear()
        self._covers.clear()
        self._spending.clear()
        self.shares.restart(self.tree)
        self._burst.clear()

    def forms_of(self, gang: Gang) -> tuple[Form, ...]:
        """Forms the gang accepts and some node offers, preferred first.

        A gang that names no class takes one its tenant is guaranteed first.
        """
        forms = gang.forms(self.forms)
        if gang.tenant not in self.tree.queues or not forms:
            return forms
        if all(member.pod.demand.classes for member in gang.pods.values()):
            return forms
        owned = self.tree.guarantees(gang.tenant)
        chain = self.tree.pools.chain
        return tuple(
            sorted(forms, key=lambda form: not any(p in owned for p in chain(form)))
        )

    def is_eligible(self, gang: Gang) -> bool:
        """Whether a waiting gang may be decided now: known, whole, possible."""
        if gang.dormant or not gang.is_whole or not self.is_tenant(gang.tenant):
            return False
        if gang.core is not None:
            core = self.gangs.by_id.get(gang.core)
            if core is not None and not core.takes_extras:
                return False
        return bool(self.possible_forms(gang))

    def window(self) -> float:
        """Return how many more pods may be let through now, by policy."""
        most = self.policy.admission_window
        return NEVER if most is None else most - self.gangs.starting

    def is_tenant(self, name: TenantName) -> bool:
        """Whether the name may start pods: a leaf of the tree that is not deleted."""
        return self.tree.is_leaf(name) and name not in self.orphans

    def possible_forms(self, gang: Gang) -> tuple[Form, ...]:
        """Forms on which the gang could run if nothing else did."""
        if gang.options is None or gang.options[0] != self.epoch:
            found = tuple(
                form
                for form in self.forms_of(gang)
                if gang.quanta(form) <= self.tree.most(gang.tenant, form)
                and fits_empty(self.cluster, gang.members, form)
            )
            gang.options, gang.wish, gang.asked = (self.epoch, found), None, None
        return gang.options[1]

    def view(self, tenant: TenantName) -> TenantView:
        """Return what follows from the tenant's gangs."""
        view = self._views.get(tenant)
        if view is None:
            gangs = self._standings(tenant)
            view = TenantView(self.tree, tenant, gangs, self._aside)
            self._views[tenant] = view
        return view

    def misjudged(self) -> list[TenantName]:
        """Name tenants of whom something else is so than `touch_started` has kept."""
        return [
            tenant
            for tenant, kept in sorted(self._orders.items())
            for fresh in (self.view(tenant),)
            if (kept.cover, kept.tiers, kept.kinds)
            != (fresh.cover, fresh.tiers, fresh.kinds)
        ]

    def _order(self, tenant: TenantName) -> TenantView:
        """Return a view that is right about covers, tiers and classes, if not more."""
        return self._orders.get(tenant) or self.view(tenant)

    def _standings(self, tenant: TenantName) -> list[Standing]:
        found = list(self.gangs.seated(tenant))
        for gang in self.gangs.waiting_of(tenant):
            if self.is_eligible(gang):
                insort(
                    found,
                    gang.waiting(self.possible_forms(gang)),
                    key=lambda standing: standing.rank,
                )
        return found

    def cover(self, queue: TenantName) -> dict[GangId, Form]:
        """Gangs below `queue` that its guarantee pays for, and in which form."""
        if self.tree.is_leaf(queue):
            return self._order(queue).cover
        found = self._covers.get(queue)
        if found is None:
            below = self.standings_below(queue)
            found = covered_forms(below, guarantee_of(self.tree, queue))
            self._covers[queue] = found
        return found

    def would_cover(self, leaving: Gang, against: TenantName) -> bool:
        """Whether a gang that is asked to leave would be covered if it stayed."""
        at, _ = self.tree.parting(leaving.tenant, against)
        found = self._spending.get(at)
        if found is None:
            below = self.standings_below(at)
            found = Spending(below, guarantee_of(self.tree, at))
            self._spending[at] = found
        return found.would_pay(self.view(leaving.tenant).seen(leaving.seated()))

    def burst(self, tenant: TenantName, at: TenantName) -> tuple[Gang, ...]:
        """Return the tenant's running gangs that the guarantee of `at` does not cover.

        `at` is the tenant itself or a queue above it, where protection is judged.
        """
        known = self._burst.setdefault(at, {})
        if tenant not in known:
            cover = self.cover(at)
            running = self.gangs.running_of(tenant)
            known[tenant] = tuple(g for g in running if g.id not in cover)
        return known[tenant]

    def standings_below(self, queue: TenantName) -> list[Standing]:
        """Gangs below `queue` that run or may be decided."""
        found = list(self.view(queue).pinned)
        for child in self.tree.children.get(queue, ()):
            found.extend(self.standings_below(child))
        return found

    def _wants(self, tenant: TenantName) -> Wants:
        """Return what the division must know of a tenant."""
        view = self.view(tenant)
        return Wants(view.wanted, lambda: self.standings_below(tenant))

    def court(self, now: float) -> Court:
        """Return what the rules of reclaim may look at."""
        nothing = [0] * TIERS
        return Court(
            now=now,
            tree=self.tree,
            covers=self.cover,
            shares=self.shares.share,
            tier_use=lambda tenant, form: self.view(tenant).use.get(form, nothing),
            min_runtime_s=self.policy.min_runtime_s,
            loans=self.shares.loan,
        )

    def holding(self, gang: Gang, now: float) -> Holding:
        """Return a gang that holds devices as the search for victims sees it."""
        assert gang.form is not None
        return Holding(
            gang=gang.id,
            tenant=gang.tenant,
            workload_class=gang.workload_class,
            tier=self.tier(gang),
            priority=gang.priority,
            preemptible=gang.preemptible,
            form=gang.form,
            quanta=gang.quanta(gang.form),
            pods=tuple(sorted(u for u in gang.pods if u in self.cluster.placed)),
            started=gang.started,
            saved=gang.saved_at(now),
            restart_cost_s=gang.restart_cost_s,
            submitted=gang.submitted,
            leaving=gang.phase is Phase.LEAVING,
            planned=gang.phase is Phase.HELD,
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
            uses={q: self.tree.used(q, form) for q in self.tree.path(gang.tenant)},
            members=gang.members,
            submitted=gang.submitted,
        )

    def placeable(self) -> frozenset[GangId]:
        """Covered gangs that wait and would fit if all burst were gone.

        The promise GUARANTEE is about these (design, section 6).
        """
        if self._placeable is None or self._placeable[0] != self.version:
            staying: set[PodUid] = set()
            wishes: list[tuple[Rank, Wish]] = []
            for tenant in sorted(self.tree.queues):
                for standing, form in self.view(tenant).promised:
                    gang = self.gangs.by_id[standing.gang]
                    if gang.phase in (Phase.ADMITTED, Phase.RUNNING):
                        staying.update(gang.pods)
                    else:
                        wish = Wish(gang.id, self._payable(gang, form), gang.members)
                        wishes.append((standing.rank, wish))
            wishes.sort(key=lambda pair: pair[0])
            found = placeable(self.cluster, staying, [wish for _, wish in wishes])
            self._placeable = (self.version, found)
        return self._placeable[1]

    def _payable(self, gang: Gang, form: Form) -> tuple[Form, ...]:
        """Forms on which the guarantee that pays for `form` would pay as well."""
        owned, chain = self.tree.guarantees(gang.tenant), self.tree.pools.chain
        payers = {pool for pool in chain(form) if owned.get(pool)}
        others = (f for f in self.possible_forms(gang) if f != form)
        return (form, *(other for other in others if payers <= set(chain(other))))

    def is_promised(self, gang: Gang) -> bool:
        """Whether the guarantee covers a gang, placeable or not."""
        mine = self.view(gang.tenant).promised
        return any(standing.gang == gang.id for standing, _ in mine)

    def tier(self, gang: Gang) -> WorkloadClass:
        """Return the tier in which the gang's demand is divided."""
        return self._order(gang.tenant).tier(gang.id, gang.workload_class)

    def kind(self, gang: Gang) -> WorkloadClass:
        """Return the gang's class as other tenants must see it."""
        return self._order(gang.tenant).kinds.get(gang.id, gang.workload_class)

    def node_of(self, uid: PodUid) -> NodeName:
        """Return the node a pod is placed on."""
        return self.cluster.names[self.cluster.placed[uid].column]
