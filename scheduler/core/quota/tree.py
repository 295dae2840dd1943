"""The tenant tree: who may hold how much, in integers.

Theory of operation
-------------------
A tree of queues; pods are charged to leaves (tenants). Per *pool*, which is a form of
GPU or a group of classes (``pools``), each queue has

* a *guarantee*, theirs whenever they ask. What was *promised* is scaled down while it
  does not fit what is there (``scaling``);
* a *borrowing limit* (most it may hold above the guarantee) and a hard *limit*;
  their minimum is the queue's *ceiling*;
* a *burst* bound over all pools without a borrowing limit, by value (``lending``);
* a *lending limit*: how much of its idle guarantee others may use (``keeping``).

Two questions follow, each a walk up the tree:

* ``room``: how much more may be charged before a ceiling is met. Demand that the
  guarantee covers may claim it even when nothing is idle: borrowers give way;
* ``available``: how much of it without touching what others keep for themselves.

The model is Kueue's ``resource_node.go`` with one difference: a parent's guarantee is
a total that contains its children's, not an addition to them (design, section 6).

Amounts are quanta. Forms do not replace one another: each is a pool of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy

from scheduler.core.gpu import Form
from scheduler.core.quota.keeping import Keeping
from scheduler.core.quota.lending import borrowed, burst_left, idle, loan, worth
from scheduler.core.quota.pools import Pools
from scheduler.core.quota.queue import UNLIMITED, Amounts, Fleet, Queue, quanta
from scheduler.core.quota.scaling import Shortage, resolved, scale
from scheduler.core.quota.shape import Shape
from scheduler.core.workload import TenantName


class QuotaTree(Shape):
    """The tree with its charges.

    Raises
    ------
    ValueError
        When a name is taken twice, a parent is missing, the parents form a cycle, or
        groups overlap. Guarantees that do not fit are scaled, not refused (``rules``
        says what an owner may not ask for).
    """

    def __init__(self, queues: Iterable[Queue], fleet: Fleet | None = None) -> None:
        super().__init__(queues)
        self.fleet = fleet or Fleet()
        self.pools = Pools(self.fleet)
        self._limits = {n: quanta(q.limit) for n, q in self.queues.items()}
        self._promised: dict[TenantName, Amounts] = {
            name: self._within_limits(queue) for name, queue in self.queues.items()
        }
        self._loans = {n: quanta(q.borrowing_limit) for n, q in self.queues.items()}
        self._top_ceiling = quanta(self.fleet.burst_ceiling)
        self._ceilings: dict[tuple[TenantName, Form], int] = {}
        self._bounded = frozenset(
            name
            for name, queue in self.queues.items()
            if queue.burst_milli is not None and any(self._promised[name].values())
        )
        self._keeps = any(queue.lending_limit for queue in self.queues.values())
        self._used: dict[TenantName, dict[Form, int]] = {n: {} for n in self.queues}
        self._top: dict[Form, int] = {}
        self._top_over: dict[Form, int] = {}
        self._owned: Mapping[TenantName, Amounts] = self._promised
        self._shortages: tuple[Shortage, ...] = ()
        self._keeping: Keeping | None = None
        self._group_bounds: dict[TenantName, dict[Form, int]] = {}
        self._capacity: dict[Form, int] | None = None  # unknown: roots get all
        self._settled = False
        self._twin: QuotaTree | None = None
        self._potentials: dict[tuple[TenantName, Form], int] = {}

    def _within_limits(self, queue: Queue) -> dict[Form, int]:
        """Return the guarantees; where an own limit is lower, the limit binds.

        A limit of a group leaves to each pool inside it what those before it left.
        """
        left = dict(self._limits[queue.name])
        found: dict[Form, int] = {}
        for pool, amount in sorted(quanta(queue.guarantee).items()):
            chain = self.pools.chain(pool)
            found[pool] = min(amount, *(left.get(p, UNLIMITED) for p in chain))
            for around in chain:
                if around in left:
                    left[around] -= found[pool]
        return found

    # -- what is there ---------------------------------------------------------

    @property
    def capacity(self) -> Mapping[Form, int]:
        """Quanta of the fleet by form."""
        return self._capacity or {}

    @capacity.setter
    def capacity(self, capacity: Mapping[Form, int]) -> None:
        if capacity != self._capacity:
            self._capacity = dict(capacity)
            self._settled = False
            self._twin = None
            self._potentials = {}

    @property
    def shortages(self) -> tuple[Shortage, ...]:
        """Guarantees that cannot all be served now: condition ``Unreachable``."""
        self._settle()
        return self._shortages

    def _settle(self) -> None:
        """Scale the guarantees to what is there, and open the books on what is kept."""
        if self._settled:
            return
        self._settled = True
        owned, shortages = scale(
            self.pools, self._queues_below, self._promised, self._capacity
        )
        self._shortages = tuple(shortages)
        self._group_bounds.clear()
        if self._keeps and (owned != self._owned or self._keeping is None):
            self._owned = owned
            self._keeping = self._open_books()
        self._owned = owned

    def _queues_below(self, name: TenantName | None) -> list[Queue]:
        return [self.queues[child] for child in self.children.get(name, ())]

    def _open_books(self) -> Keeping:
        kept = {name: self._kept(name) for name in self.queues}
        pools = {pool for amounts in kept.values() for pool in amounts}
        books = Keeping(self.pools, kept)
        for name in self._bottom_up():
            books.seed(self._paths[name], pools)
        for name, used in self._used.items():
            for form in sorted(used):
                own = self._own_use(name, form)
                if own and form not in self.pools.members:
                    books.charge(self._paths[name], form, own)
        return books

    def _bottom_up(self) -> list[TenantName]:
        return sorted(self.queues, key=lambda name: (-len(self._paths[name]), name))

    def _own_use(self, name: TenantName, form: Form) -> int:
        below = (self._used[child] for child in self.children.get(name, ()))
        return self._used[name][form] - sum(used.get(form, 0) for used in below)

    def _kept(self, name: TenantName) -> dict[Form, int]:
        lent = quanta(self.queues[name].lending_limit)
        kept = {p: self._inside_of(name, p) - amount for p, amount in lent.items()}
        return {pool: amount for pool, amount in kept.items() if amount > 0}

    def _inside_of(self, name: TenantName, pool: Form) -> int:
        """Quanta guaranteed of the pool itself and of all inside it."""
        chain, owned = self.pools.chain, self._owned[name]
        return sum(n for other, n in owned.items() if pool in chain(other))

    # -- rules ---------------------------------------------------------------

    def guarantee(self, name: TenantName, pool: Form) -> int:
        """Quanta of a pool that are theirs on demand, as far as they are there."""
        if not self._settled:
            self._settle()
        return self._owned[name].get(pool, 0)

    def guarantees(self, name: TenantName) -> Amounts:
        """All guarantees of one queue, quanta by pool, as far as they are there."""
        if not self._settled:
            self._settle()
        return self._owned[name]

    def group_bounds(self, name: TenantName) -> Amounts:
        """Return, by class, how much of it the queue's groups may pay for, in quanta.

        What is there and promised to nobody as that class; and what the queue itself
        promises its children of the class out of its groups.
        """
        self._settle()
        if not self.pools.members or self._capacity is None:
            return {}
        if not self._group_bounds:
            self._bind_groups()
        return self._group_bounds[name]

    def _bind_groups(self) -> None:
        needs = resolved(self.pools, self._queues_below, self._owned)
        forms = self.pools.forms()
        roots = [needs[root] for root in self.children[None]]
        free = {
            form: self.capacity.get(form, 0) - sum(n.get(form, 0) for n in roots)
            for form in forms
        }
        for name, need in needs.items():
            owned = self._owned[name]
            self._group_bounds[name] = {
                form: max(0, free[form]) + need.get(form, 0) - owned.get(form, 0)
                for form in forms
            }

    def promised(self, name: TenantName) -> Amounts:
        """All guarantees of one queue as its owner wrote them, quanta by pool."""
        return self._promised[name]

    def ceiling(self, name: TenantName, pool: Form) -> int:
        """Return the most quanta the queue may hold, ``UNLIMITED`` if nothing binds.

        It counts from what was promised: lost nodes put nobody above a ceiling. A
        borrowing limit counts from all that could pay for the pool; where groups pay,
        ``own_room`` knows more exactly what is borrowed.
        """
        known = self._ceilings.get((name, pool))
        if known is None:
            known = self._limits[name].get(pool, UNLIMITED)
            loan = self._loans[name].get(pool)
            if self.queues[name].weight == 0:
                loan = 0  # no part in the burst pool
            if loan is not None:
                known = min(known, loan + self.entitled(name, pool))
            self._ceilings[name, pool] = known
        return known

    def entitled(self, name: TenantName, pool: Form) -> int:
        """Quanta promised for forms inside the pool, and for groups around it."""
        related = (
            amount
            for other, amount in self._promised[name].items()
            if pool in self.pools.chain(other) or other in self.pools.chain(pool)
        )
        return sum(related)

    def inference_caps(self, name: TenantName) -> dict[Form, int]:
        """Return the most quanta by pool that may count as the tenant's inference.

        What is guaranteed, and as much again where no other burst is written down.
        """
        owned, burst = self._promised[name], quanta(self.queues[name].inference_burst)
        return {
            pool: owned.get(pool, 0) + burst.get(pool, owned.get(pool, 0))
            for pool in sorted({*owned, *burst})
        }

    def critical(self, name: TenantName) -> dict[Form, int]:
        """Return the most quanta by pool that may count as inference-critical."""
        return quanta(self.queues[name].critical)

    def kept(self, name: TenantName, pool: Form) -> int:
        """Quanta of the guarantee that are never lent."""
        if not self._keeps:
            return 0
        self._settle()
        return self._kept(name).get(pool, 0)

    def value(self, pool: Form) -> int:
        """Worth of a quantum of the pool, in thousandths of an A100-80GB's."""
        return self.pools.value(pool)

    # -- amounts -------------------------------------------------------------

    def used(self, name: TenantName, pool: Form) -> int:
        """Quanta charged in the subtree."""
        return self._used[name].get(pool, 0)

    def held(self, name: TenantName, pool: Form) -> int:
        """Quanta the subtree takes out of its parent: used, or kept while idle."""
        self._settle()
        if self._keeping is None:
            return self.used(name, pool)
        return self._keeping.held(name, pool)

    def inside(self, name: TenantName, pool: Form) -> int:
        """Quanta used by the queue itself or held by its children."""
        self._settle()
        if self._keeping is None:
            return self.used(name, pool)
        return self._keeping.inside(name, pool)

    def borrowed(self, name: TenantName) -> dict[Form, int]:
        """Quanta held above the guarantee, by the pool that would have to pay."""
        return borrowed(self.pools, self._used[name], self.guarantees(name))

    def room(self, name: TenantName, form: Form) -> int:
        """Quanta that may still be charged before a ceiling on the path is met."""
        path = self._paths[name]
        left = min(self.own_room(queue, form) for queue in path)
        return min(left, self.fleet_room(name, form)) if self._top_ceiling else left

    def own_room(self, name: TenantName, form: Form) -> int:
        """Quanta that may still be charged before a bound of this queue is met."""
        return self._room_beside(name, form, self._used[name])

    def _room_beside(self, name: TenantName, form: Form, used: Amounts) -> int:
        """Quanta that may be charged beside some use before an own bound is met."""
        left, chain = UNLIMITED, self.pools.chain(form)
        for pool in chain:
            free = self.ceiling(name, pool) - used.get(pool, 0)
            if free < left:
                left = free
        if len(chain) > 1:
            left = min(left, self._loan_room(name, form, used))
        if self.is_burst_bound(name):
            left = min(left, self._burst_room(name, form, used))
        return left

    def _loan_room(self, name: TenantName, form: Form, used: Amounts) -> int:
        """Quanta until a borrowing limit around a form in a group is met."""
        limits = self._loans[name] if self.queues[name].weight else {form: 0}
        left, promised = UNLIMITED, self._promised[name]
        for pool in self.pools.chain(form):
            if pool in limits:
                more = limits[pool] - loan(self.pools, used, promised, pool)
                left = min(left, more + idle(self.pools, used, promised, form))
        return left

    def is_burst_bound(self, name: TenantName) -> bool:
        """Whether what the queue borrows is bound by value over all forms."""
        return name in self._bounded

    def _burst_room(self, name: TenantName, form: Form, used: Amounts) -> int:
        pools, loans = self.pools, self._loans[name]
        if any(pool in loans for pool in pools.chain(form)):
            return UNLIMITED
        promised = self._promised[name]
        left = max(0, self._burst_left(name, used)) // worth(pools, promised, form)
        return left + idle(pools, used, promised, form)

    def _burst_left(self, name: TenantName, used: Amounts) -> int:
        burst = self.queues[name].burst_milli
        assert burst is not None
        promised, loans = self._promised[name], self._loans[name]
        return burst_left(self.pools, used, promised, loans, burst)

    def is_overdrawn(self, name: TenantName) -> bool:
        """Whether the queue borrows more than a bound over several forms allows."""
        used, promised = self._used[name], self._promised[name]
        if self.is_burst_bound(name) and self._burst_left(name, used) < 0:
            return True
        if self.queues[name].parent is None:
            for pool, ceiling in self._top_ceiling.items():
                if self._top_over.get(pool, 0) > ceiling and used.get(pool):
                    return True
        return bool(self.pools.members) and any(
            loan(self.pools, used, promised, pool) > limit
            for pool, limit in self._loans[name].items()
        )

    def is_cross_bound(self, name: TenantName) -> bool:
        """Whether some bound of the queue spans several forms."""
        spanning = {*self._limits[name], *self._loans[name]} & self.pools.members.keys()
        return bool(spanning) or self.is_burst_bound(name)

    def may_hold(
        self, name: TenantName, wants: Mapping[Form, Sequence[int]]
    ) -> dict[Form, int]:
        """Return how much of what is wanted the queue's own bounds would let it hold.

        Parameters
        ----------
        wants
            Quanta per form and tier; the most urgent tier is served first.
        """
        used: dict[Form, int] = {}
        forms = sorted(wants)
        for tier in zip(*(wants[form] for form in forms), strict=True):
            for form, want in zip(forms, tier, strict=True):
                part = min(want, max(0, self._room_beside(name, form, used)))
                for pool in self.pools.chain(form) if part else ():
                    used[pool] = used.get(pool, 0) + part
        return {form: used.get(form, 0) for form in wants}

    def fleet_room(self, name: TenantName, form: Form) -> int:
        """Quanta that may still be charged below the fleet's burst ceiling."""
        root, left = self._paths[name][-1], UNLIMITED
        for pool in self.pools.chain(form):
            ceiling = self._top_ceiling.get(pool)
            if ceiling is not None:
                more = idle(self.pools, self._used[root], self._promised[root], form)
                left = min(left, ceiling - self._top_over.get(pool, 0) + more)
        return left

    def available(self, name: TenantName, form: Form) -> int:
        """Quanta that may be charged without touching what others keep for themselves.

        Negative when more is held than there is (nodes were lost).
        """
        self._settle()
        left = self.room(name, form)
        if self._keeping is None:
            for pool in self.pools.chain(form):
                free = self._capacity_of(pool) - self._top.get(pool, 0)
                left = min(left, free)
            return left
        *rows, fleet = self._keeping.slacks(self._paths[name], form)
        for queue, row in zip(self._paths[name], rows, strict=True):
            for pool, inside, slack in row:
                left = min(left, self.ceiling(queue, pool) - inside + slack)
        for pool, inside, slack in fleet:
            left = min(left, self._capacity_of(pool) - inside + slack)
        return left

    def _capacity_of(self, pool: Form) -> int:
        return self.pools.total(self.capacity, pool)

    def potential(self, name: TenantName, form: Form) -> int:
        """Quanta that would be available if nobody used anything, at least 0."""
        known = self._potentials.get((name, form))
        if known is None:
            known = max(0, self._idle_twin().available(name, form))
            self._potentials[name, form] = known
        return known

    def most(self, name: TenantName, form: Form) -> int:
        """Return the most quanta its ceilings would ever let the queue hold."""
        return self._idle_twin().room(name, form)

    def _idle_twin(self) -> "QuotaTree":
        if self._twin is None:
            self._twin = QuotaTree(self.queues.values(), self.fleet)
            if self._capacity is not None:
                self._twin.capacity = self._capacity
        return self._twin

    def charge(self, name: TenantName, form: Form, amount: int) -> None:
        """Charge quanta to the tenant and its ancestors; negative gives them back."""
        path, chain = self._paths[name], self.pools.chain(form)
        before = self._top_loans(path[-1])
        for queue in path:
            used = self._used[queue]
            for pool in chain:
                used[pool] = used.get(pool, 0) + amount
        for pool, after in self._top_loans(path[-1]).items():
            rise = after - before[pool]
            self._top_over[pool] = self._top_over.get(pool, 0) + rise
        for pool in chain:
            self._top[pool] = self._top.get(pool, 0) + amount
        if self._keeping is not None:
            self._keeping.charge(path, form, amount)

    def _top_loans(self, root: TenantName) -> dict[Form, int]:
        """Quanta of each pool with a fleet ceiling that a root holds as burst."""
        used, promised = self._used[root], self._promised[root]
        return {p: loan(self.pools, used, promised, p) for p in self._top_ceiling}

    def release(self, name: TenantName, form: Form, amount: int) -> None:
        """Give back what was charged."""
        self.charge(name, form, -amount)

    def __copy__(self) -> "QuotaTree":
        """Share what is written down; books are the twin's own."""
        twin = object.__new__(QuotaTree)
        twin.__dict__ = self.__dict__ | {
            "_used": {name: dict(used) for name, used in self._used.items()},
            "_top": dict(self._top),
            "_top_over": dict(self._top_over),
            "_keeping": self._keeping.copy() if self._keeping else None,
        }
        return twin

    def copy(self) -> "QuotaTree":
        """Return a tree with the same queues, capacity and charges."""
        self._settle()
        return copy(self)

    def forms(self) -> list[Form]:
        """Every pool that is guaranteed, charged or offered, sorted."""
        named = {pool for amounts in self._promised.values() for pool in amounts}
        charged = {pool for pool, amount in self._top.items() if amount}
        return sorted(named | charged | set(self.capacity))
