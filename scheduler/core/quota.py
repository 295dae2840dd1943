"""The tenant tree: who may hold how much, in integers.

Theory of operation
-------------------
A tree of queues; pods are charged to leaves (tenants). Per form of GPU each queue has

* a *guarantee*, theirs whenever they ask;
* a *borrowing limit* (most it may hold above the guarantee) and a hard *limit*;
  their minimum is the queue's *ceiling*;
* a *lending limit*: how much of its idle guarantee others may use. What it does not
  lend is *kept*: ``kept = max(0, guarantee - lending limit)``.

Three numbers follow for every queue and form, each a small recursion:

* ``used``: the sum of the charges in the subtree;
* ``held``: what the subtree takes out of its parent, used or kept idle:
  ``held = max(kept, direct use + sum of the children's held)``;
* ``available``: what one more charge may be without touching what others keep: what
  the subtree keeps idle itself, plus what its parent has available, below its ceiling;
  there, what its other children keep idle counts as used.

``room`` looks at the ceilings alone: demand that its guarantee covers may claim its
room even when nothing is available, because borrowers give way (``reclaim``).

The model is Kueue's ``resource_node.go`` with one difference: a parent's guarantee is
a total that contains its children's, not an addition to them (design, section 6).

Amounts are quanta. Forms do not replace one another: each is a pool of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from scheduler.core.gpu import Form, charge
from scheduler.core.workload import TenantName

UNLIMITED = 1 << 62

Counts = tuple[tuple[Form, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One node of the tenant tree; a leaf is a tenant. Amounts are device counts.

    Parameters
    ----------
    guarantee
        Devices per form that are theirs on demand.
    borrowing_limit
        Most devices above the guarantee; a form not listed has no such limit.
    lending_limit
        Most idle guaranteed devices others may use; a form not listed lends all.
    limit
        Most devices in total; a form not listed has none.
    weight
        Share of the burst pool relative to its siblings; 0: only what is left over.
    priority
        Tenant priority in the division, larger first.
    order
        Age: the older (smaller) of two equals wins.
    """

    name: TenantName
    parent: TenantName | None = None
    guarantee: Counts = ()
    borrowing_limit: Counts = ()
    lending_limit: Counts = ()
    limit: Counts = ()
    weight: int = 1
    priority: int = 0
    order: int = 0


def _quanta(counts: Counts) -> dict[Form, int]:
    return {form: count * charge(form) for form, count in counts}


class QuotaTree:
    """The tree with its charges.

    Raises
    ------
    ValueError
        When a name is taken twice, a parent is missing, the parents form a cycle, an
        amount is negative, or children are guaranteed more than their parent.
    """

    def __init__(self, queues: Iterable[Queue]) -> None:
        self.queues: dict[TenantName, Queue] = {}
        for queue in queues:
            if queue.name in self.queues:
                raise ValueError(f"queue {queue.name!r} is defined twice")
            _check_amounts(queue)
            self.queues[queue.name] = queue
        self.children: dict[TenantName | None, list[TenantName]] = {None: []}
        self._paths: dict[TenantName, tuple[TenantName, ...]] = {}
        self._partings: dict[
            tuple[TenantName, TenantName], tuple[TenantName, TenantName]
        ] = {}
        self._link()
        self._guarantee = {n: _quanta(q.guarantee) for n, q in self.queues.items()}
        self._ceiling = {n: _ceilings(q) for n, q in self.queues.items()}
        self._kept = {n: _kept(q) for n, q in self.queues.items()}
        self._check_sums()
        self.capacity: dict[Form, int] = {}
        self._used: dict[tuple[TenantName, Form], int] = {}
        self._inside: dict[tuple[TenantName | None, Form], int] = {}
        self._seed_kept()

    # -- shape ---------------------------------------------------------------

    def _link(self) -> None:
        for name, queue in self.queues.items():
            if queue.parent is not None and queue.parent not in self.queues:
                raise ValueError(f"queue {name!r}: unknown parent {queue.parent!r}")
            self.children.setdefault(queue.parent, []).append(name)
        for name in self.queues:
            self._paths[name] = tuple(self._climb(name))
        for siblings in self.children.values():
            siblings.sort(key=lambda name: (self.queues[name].order, name))

    def _climb(self, name: TenantName) -> Iterator[TenantName]:
        seen: set[TenantName] = set()
        at: TenantName | None = name
        while at is not None:
            if at in seen:
                raise ValueError(f"queue {name!r}: its parents form a cycle")
            seen.add(at)
            yield at
            at = self.queues[at].parent

    def path(self, name: TenantName) -> tuple[TenantName, ...]:
        """Return the queue and its ancestors, the root last."""
        return self._paths[name]

    def is_leaf(self, name: TenantName) -> bool:
        """Whether pods may be charged to the queue."""
        return name in self.queues and not self.children.get(name)

    def parting(self, a: TenantName, b: TenantName) -> tuple[TenantName, TenantName]:
        """Return the ancestors of two tenants just below where their paths meet.

        Protection between tenants is judged at these siblings (design, section 6).
        """
        found = self._partings.get((a, b))
        if found is None:
            path_a, path_b = self._paths[a], self._paths[b]
            shared = set(path_a) & set(path_b)
            below_a = [name for name in path_a if name not in shared]
            below_b = [name for name in path_b if name not in shared]
            found = (below_a[-1] if below_a else a, below_b[-1] if below_b else b)
            self._partings[a, b] = found
        return found

    # -- rules ---------------------------------------------------------------

    def guarantee(self, name: TenantName, form: Form) -> int:
        """Quanta of `form` that are theirs on demand."""
        return self._guarantee[name].get(form, 0)

    def guarantees(self, name: TenantName) -> Mapping[Form, int]:
        """All guarantees of one queue, quanta by form."""
        return self._guarantee[name]

    def ceiling(self, name: TenantName, form: Form) -> int:
        """Return the most quanta the queue may hold, ``UNLIMITED`` if nothing binds."""
        limit, borrowing = self._ceiling[name]
        total = borrowing.get(form)
        if total is not None:
            total += self.guarantee(name, form)
        return min(limit.get(form, UNLIMITED), UNLIMITED if total is None else total)

    def kept(self, name: TenantName, form: Form) -> int:
        """Quanta of the guarantee that are never lent."""
        return self._kept[name].get(form, 0)

    # -- amounts -------------------------------------------------------------

    def used(self, name: TenantName, form: Form) -> int:
        """Quanta charged in the subtree."""
        return self._used.get((name, form), 0)

    def held(self, name: TenantName, form: Form) -> int:
        """Quanta the subtree takes out of its parent: used, or kept while idle."""
        return max(self.kept(name, form), self._inside.get((name, form), 0))

    def room(self, name: TenantName, form: Form) -> int:
        """Quanta that may still be charged before a ceiling on the path is met."""
        return min(self.ceiling(q, form) - self.used(q, form) for q in self.path(name))

    def available(self, name: TenantName, form: Form) -> int:
        """Quanta that may be charged without touching what others keep for themselves.

        Negative when more is held than there is (nodes were lost).
        """
        free = self.capacity.get(form, 0) - self._inside.get((None, form), 0)
        for queue in reversed(self.path(name)):
            inside = self._inside.get((queue, form), 0)
            idle_kept = self.held(queue, form) - inside
            free = min(free + idle_kept, self.ceiling(queue, form) - inside)
        return free

    def charge(self, name: TenantName, form: Form, quanta: int) -> None:
        """Charge `quanta` to the tenant and its ancestors; negative gives them back."""
        for queue in self.path(name):
            key = (queue, form)
            self._used[key] = self._used.get(key, 0) + quanta
        delta = quanta
        for queue in self.path(name):
            key = (queue, form)
            before = self.held(queue, form)
            self._inside[key] = self._inside.get(key, 0) + delta
            delta = self.held(queue, form) - before
        self._inside[None, form] = self._inside.get((None, form), 0) + delta

    def release(self, name: TenantName, form: Form, quanta: int) -> None:
        """Give back what was charged."""
        self.charge(name, form, -quanta)

    def copy(self) -> "QuotaTree":
        """Return a tree with the same queues, capacity and charges."""
        copy = QuotaTree(self.queues.values())
        copy.capacity = dict(self.capacity)
        copy._used, copy._inside = dict(self._used), dict(self._inside)
        return copy

    def forms(self) -> list[Form]:
        """Every form that is guaranteed, charged or offered, sorted."""
        named = {form for amounts in self._guarantee.values() for form in amounts}
        charged = {form for (_, form), amount in self._used.items() if amount}
        return sorted(named | charged | set(self.capacity))

    # -- set-up --------------------------------------------------------------

    def _check_sums(self) -> None:
        for parent, children in self.children.items():
            if parent is None:
                continue
            for form in sorted({f for c in children for f in self._guarantee[c]}):
                parts = [self.guarantee(child, form) for child in children]
                whole = self.guarantee(parent, form)
                if sum(parts) > whole:
                    raise ValueError(_oversold(parent, form, parts, whole))

    def _seed_kept(self) -> None:
        """Take what idle queues keep for themselves out of the fleet."""
        for name in self.queues:
            for form in self._kept[name]:
                self._inside.setdefault((name, form), 0)
        forms = {form for kept in self._kept.values() for form in kept}
        for form in forms:
            self._inside[None, form] = sum(
                self._settle(root, form) for root in self.children[None]
            )

    def _settle(self, name: TenantName, form: Form) -> int:
        inside = sum(self._settle(child, form) for child in self.children.get(name, ()))
        self._inside[name, form] = inside
        return self.held(name, form)


def _check_amounts(queue: Queue) -> None:
    if queue.weight < 0:
        raise ValueError(f"queue {queue.name!r}: weight {queue.weight} is negative")
    for field in ("guarantee", "borrowing_limit", "lending_limit", "limit"):
        for form, count in getattr(queue, field):
            if count < 0:
                raise ValueError(
                    f"queue {queue.name!r}: {field} of {form} is negative: {count}"
                )


def _ceilings(queue: Queue) -> tuple[dict[Form, int], dict[Form, int]]:
    return _quanta(queue.limit), _quanta(queue.borrowing_limit)


def _kept(queue: Queue) -> dict[Form, int]:
    guarantee, lending = _quanta(queue.guarantee), _quanta(queue.lending_limit)
    return {
        form: guarantee[form] - amount
        for form, amount in lending.items()
        if guarantee.get(form, 0) > amount
    }


def _oversold(parent: str, form: Form, parts: list[int], whole: int) -> str:
    unit = charge(form)
    terms = " + ".join(str(part // unit) for part in parts if part)
    return (
        f"guarantees of {form} below {parent!r}: {terms} > {whole // unit} "
        f"guaranteed to {parent!r}"
    )
