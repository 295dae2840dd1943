"""The search for the cheapest legal victims that really free room.

Greedy: victims in order until the taker can be placed, then *add back*, dearest first,
everyone whose room turned out not to be needed. Orders that are tried: the cheapest
first, by cost per device that the taker can use, and for a gang node after node; for a
single pod each node by itself, the most promising first. The cheapest answer wins. Of
equals, the tenant that borrows most gives back first.

Lost work is the cost: quanta x (time since the last checkpoint + restart time) x value
of the class, plus a fixed amount per gang and a penalty for one freshly started.

Nobody is evicted unless the taker is placed in the room that this frees; ``faults``
states that again, and PROTECTED, and every exchange passes it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from scheduler.core.cluster import Cluster, Mask, Placed
from scheduler.core.gpu import QUANTA_PER_GPU, charge
from scheduler.core.placement import place_gang
from scheduler.core.quota import UNLIMITED
from scheduler.core.reclaim.rules import Court, Holding, Taker, may_take
from scheduler.core.workload import GangId, PodUid

FIXED_COST_S = 30
"""Cost of breaking up any gang, in seconds of one GPU."""

FRESH_S = 600.0
"""A gang younger than this costs up to as much more, in seconds of one GPU."""


def lost_work(victim: Holding, court: Court) -> int:
    """Return the cost of evicting the gang, in quanta x milliseconds of a GPU.

    Worth is relative to an A100-80GB (``gpu.value_weight``, or what the fleet says).
    """
    if victim.leaving or victim.planned:
        return 0
    now = court.now
    redo_s = max(0.0, now - victim.saved) + victim.restart_cost_s
    fresh_s = max(0.0, FRESH_S - (now - victim.started))
    work = victim.quanta * round(1000 * redo_s) * court.tree.value(victim.form)
    fixed = QUANTA_PER_GPU * round(1000 * (FIXED_COST_S + fresh_s))
    return work // 1000 + fixed


# -- search -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exchange:
    """Victims, cheapest set found, and where the taker goes once they are gone."""

    victims: tuple[GangId, ...]
    placed: tuple[Placed, ...]
    cost: int


def faults(
    cluster: Cluster,
    taker: Taker,
    victims: Sequence[Holding],
    court: Court,
    exchange: Exchange,
) -> list[str]:
    """Return what is wrong with an exchange; empty when it may be carried out.

    A second, plain statement of PROTECTED and of "never evict when it would not help",
    that every exchange passes before anybody is asked to leave.
    """
    found = [
        f"PROTECTED: {victim.gang} is covered, and not {taker.tenant}'s"
        for victim in victims
        if victim.tenant != taker.tenant
        and not victim.leaving
        and court.is_covered(victim, taker.tenant)
    ]
    demands = dict(taker.members)
    if sorted(p.uid for p in exchange.placed) != sorted(demands):
        found.append(f"GANG: {taker.gang} is not placed whole")
    with cluster.trial():
        for victim in victims:
            for uid in victim.pods:
                cluster.remove(uid)
        for p in exchange.placed:
            if not cluster.fits(p.demand, p.form)[p.column]:
                found.append(f"{p.uid} does not fit {cluster.names[p.column]} then")
            cluster.place(p.uid, p.column, p.form, p.demand, p.slot)
    return found


Priced = Sequence[tuple[int, Holding]]
"""Candidates, each with the cost of its lost work."""


def find_exchange(
    cluster: Cluster,
    taker: Taker,
    holdings: Iterable[Holding],
    court: Court,
    allowed: dict[PodUid, Mask] | None = None,
) -> Exchange | None:
    """Return the cheapest legal exchange found that places the taker, else None.

    Covered work of the taker's own tenant goes last, whatever it costs: only where no
    burst helps does one covered gang make way for a more urgent one. Nothing is
    changed: all trials are undone.

    Parameters
    ----------
    allowed
        Nodes that are open to a pod; a pod that is not listed may go anywhere.
    """
    lacks_quota = taker.quanta > court.tree.room(taker.tenant, taker.form)
    fitting = [h for h in holdings if h.form == taker.form or lacks_quota]
    dues = court.dues(taker, (holding.tenant for holding in fitting))
    fitting.sort(key=lambda holding: (dues[holding.tenant], holding.gang))
    priced = [(lost_work(holding, court), holding) for holding in fitting]
    own = court.covers(taker.tenant)
    burst = [pair for pair in priced if pair[1].gang not in own or pair[1].leaving]
    search = _Search(cluster, taker, court, allowed)
    found = _cheapest(search, burst)
    if found is None and len(burst) < len(priced):
        found = _cheapest(search, priced)
    return found


def _cheapest(search: "_Search", priced: Priced) -> Exchange | None:
    """Return the cheapest answer among these candidates, None when there is none."""
    taker, tree = search.taker, search.court.tree
    found: list[Exchange] = []
    if len(taker.members) == 1:
        found.extend(search.run_by_node(priced))
    if not found or taker.quanta > tree.room(taker.tenant, taker.form):
        found.extend(search.run_all(priced))
    place = {pair[1].gang: i for i, pair in enumerate(priced)}
    return min(
        found,
        key=lambda answer: (answer.cost, sorted(place[v] for v in answer.victims)),
        default=None,
    )


class _Search:
    """One search for victims; every change it makes to cluster and tree is undone."""

    def __init__(
        self,
        cluster: Cluster,
        taker: Taker,
        court: Court,
        allowed: dict[PodUid, Mask] | None,
    ) -> None:
        self.cluster = cluster
        self.taker = taker
        self.court = court
        self.allowed = allowed
        self.removed: dict[GangId, list[Placed]] = {}

    def run_by_node(self, priced: Priced) -> list[Exchange]:
        """Search node by node, the most promising first, until none can be cheaper."""
        found: list[Exchange] = []
        for bound, group in self._nodes(priced):
            if found and bound >= min(answer.cost for answer in found):
                break
            found.extend(self.run_all(group))
        return found

    def run_all(self, priced: Priced) -> Iterator[Exchange]:
        """Try the orders of the theory; yield what is found."""
        cheapest = sorted(priced, key=lambda p: p[0])
        most = self.taker.quanta
        useful = sorted(cheapest, key=lambda p: p[0] * most // min(p[1].quanta, most))
        orders = [cheapest] if useful == cheapest else [cheapest, useful]
        if len(self.taker.members) > 1:
            nodes = chain.from_iterable(group for _, group in self._nodes(cheapest))
            orders.append(list({pair[1].gang: pair for pair in nodes}.values()))
        for ranked in orders:
            found = self.run(ranked)
            if found is None:
                return  # all who may leave have left: no order will help
            yield found

    def _nodes(self, priced: Priced) -> list[tuple[int, Priced]]:
        """Group candidates by the nodes they sit on, the most promising node first.

        Each comes with a cost below which its candidates cannot make room there for
        the largest member.
        """
        groups: dict[int, list[tuple[int, Holding]]] = {}
        for pair in priced:
            for column in {self.cluster.placed[uid].column for uid in pair[1].pods}:
                groups.setdefault(column, []).append(pair)
        bounds = sorted((self._bound(n, group), n) for n, group in groups.items())
        return [(bound, groups[column]) for bound, column in bounds]

    def _bound(self, column: int, priced: Priced) -> int:
        """Bound the cost of one node: they may be evicted in part, cheapest first.

        Each pod counts as the whole device that its leaving may free.
        """
        form = self.taker.form
        device = charge(form)
        free = int(self.cluster.free[self.cluster.rows[form], column]) * device
        need = max(demand.charge(form) for _, demand in self.taker.members) - free
        cost = 0
        offers = [(price, max(h.quanta, len(h.pods) * device)) for price, h in priced]
        for price, most in sorted(offers, key=lambda o: o[0] * QUANTA_PER_GPU // o[1]):
            part = min(max(0, need), most)
            cost += price * part // most
            need -= part
        return cost if need <= 0 else UNLIMITED

    def run(self, ranked: Priced) -> Exchange | None:
        """Evict legal candidates in order until the taker fits, then add back."""
        self.removed.clear()
        taken: list[tuple[int, Holding]] = []
        with self.cluster.trial():
            for cost, holding in ranked:
                if may_take(self.taker, holding, self.court):
                    self._evict(holding)
                    taken.append((cost, holding))
                    if self._fits():
                        return self._add_back(taken)
            self._recharge(holding for _, holding in taken)
        return None

    def _add_back(self, taken: list[tuple[int, Holding]]) -> Exchange:
        """Put back, dearest first, every victim without whom the taker still fits.

        The last one taken stays: without it the taker did not fit.
        """
        needed = list(taken)
        for pair in sorted(taken[:-1], key=lambda p: (-p[0], p[1].gang)):
            self._put_back(pair[1])
            if self._fits():
                needed.remove(pair)
            else:
                self._evict(pair[1])
        placed = self._place()
        assert placed is not None, "the taker fitted a moment ago"
        self._recharge(holding for _, holding in needed)
        victims = tuple(sorted(holding.gang for _, holding in needed))
        return Exchange(victims, placed, sum(cost for cost, _ in needed))

    def _evict(self, victim: Holding) -> None:
        self.removed[victim.gang] = [self.cluster.remove(uid) for uid in victim.pods]
        if not victim.leaving:  # else its charge has ended already
            self.court.tree.release(victim.tenant, victim.form, victim.quanta)

    def _put_back(self, victim: Holding) -> None:
        for pod in self.removed[victim.gang]:
            self.cluster.place(pod.uid, pod.column, pod.form, pod.demand, pod.slot)
        self._recharge([victim])

    def _recharge(self, victims: Iterable[Holding]) -> None:
        for victim in victims:
            if not victim.leaving:
                self.court.tree.charge(victim.tenant, victim.form, victim.quanta)

    def _fits(self) -> bool:
        return self._within_quota() and self._could_fit() and self._place() is not None

    def _within_quota(self) -> bool:
        """Whether ceilings, and for burst lending limits, let the taker in now."""
        taker, tree = self.taker, self.court.tree
        if taker.quanta > tree.room(taker.tenant, taker.form):
            return False
        return taker.covered or taker.quanta <= tree.available(taker.tenant, taker.form)

    def _place(self) -> tuple[Placed, ...] | None:
        with self.cluster.trial():
            return place_gang(
                self.cluster, self.taker.members, self.taker.form, self.allowed
            )

    def _could_fit(self) -> bool:
        """Cheap necessary test before a full placement is tried."""
        members = self.taker.members
        if any(demand.is_fraction for _, demand in members):
            return True
        free = self.cluster.free[self.cluster.rows[self.taker.form]]
        return int(free[free > 0].sum()) >= sum(d.count for _, d in members)
