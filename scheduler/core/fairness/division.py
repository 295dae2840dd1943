"""Division of capacity: who may hold how much now.

Theory of operation
-------------------
Division (design, section 6) splits the quanta of one form among siblings:

1. everyone gets ``min(guarantee, demand)``, most urgent demand first;
2. what is left (less what owners keep unlent) goes to the remaining demand tier by
   tier: workload class, then tenant priority. Inside a tier it is weighted max-min
   fair (``filling``). Nobody gets more than they ask, and a claim of weight 0 nothing
   above its guarantee.

Nothing reaches a lower tier while a higher one wants more. ``Division`` applies it
recursively down the tenant tree, a parent's demand being what its children may hold:
what is asked goes up, what is granted comes down.

Everything is whole integers: of whole devices where all amounts of a form are whole
devices, else of quanta. All siblings of a level and all forms that changed are computed
at once, as numpy arrays (tiers, queues, forms).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.core.fairness.filling import Ints, fill_groups
from scheduler.core.gpu import Form, charge
from scheduler.core.quota import UNLIMITED, Queue, QuotaTree, quanta
from scheduler.core.workload import TenantName, WorkloadClass

TIERS = len(WorkloadClass)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one sibling brings to a division, in quanta.

    `demands` holds one amount per tier, most urgent first. `ceiling` is the most it may
    hold, None for no limit. `kept` is the least it takes out of the capacity: what it
    does not ask for of that stays idle, out of its guarantee.
    """

    guarantee: int
    demands: tuple[int, ...]
    weight: int = 1
    priority: int = 0
    order: int = 0
    ceiling: int | None = None
    kept: int = 0


def divide(total: int, claims: Sequence[Claim], unit: int = 1) -> tuple[int, ...]:
    """Divide `total` quanta among siblings; see the module's theory.

    Parameters
    ----------
    unit
        Granularity in quanta: a whole GPU where whole GPUs are asked for. Where some
        amount is no multiple of it, single quanta are divided.

    Returns
    -------
    tuple of int
        One share per claim, in the order of `claims`.
    """
    return tuple(sum(tiers) for tiers in divide_tiers(total, claims, unit))


def divide_tiers(total: int, claims: Sequence[Claim], unit: int = 1) -> list[list[int]]:
    """Divide like `divide`, telling each claim's share tier by tier."""
    if not claims:
        return []
    ages = sorted(range(len(claims)), key=lambda i: (claims[i].order, i))
    ordered = [claims[i] for i in ages]
    tiers = max(len(claim.demands) for claim in claims)
    wants = np.zeros((tiers, len(claims), 1), np.int64)
    for row, claim in enumerate(ordered):
        wants[: len(claim.demands), row, 0] = claim.demands
    ceilings = [UNLIMITED if c.ceiling is None else c.ceiling for c in ordered]
    ceiling, kept, guarantee, there = (
        np.array(amounts, np.int64).reshape(-1, 1)
        for amounts in (
            [max(0, n) for n in ceilings],
            [c.kept for c in ordered],
            [c.guarantee for c in ordered],
            [total],
        )
    )
    bound = ceiling[ceiling < UNLIMITED]
    unit = _unit(unit, (wants, bound, kept, guarantee, there))
    wants //= unit
    wants = _spend(ceiling // unit, wants)
    siblings = Siblings(
        np.zeros(len(claims), np.int64), [(c.weight, c.priority) for c in ordered]
    )
    idle = np.maximum(0, kept // unit - wants.sum(0))
    shares = siblings.share_out(there // unit, guarantee // unit, idle, wants)
    found: list[list[int]] = [[] for _ in claims]
    for row, i in enumerate(ages):
        amounts = shares[: len(claims[i].demands), row, 0] * unit
        found[i] = [int(amount) for amount in amounts]
    return found


def fill(
    total: int,
    wants: Sequence[int],
    weights: Sequence[int],
    orders: Sequence[int],
    unit: int = 1,
) -> list[int]:
    """Weighted max-min division of one tier on integers (water-filling)."""
    claims = [
        Claim(0, (want,), weight, order=order)
        for want, weight, order in zip(wants, weights, orders, strict=True)
    ]
    return list(divide(total, claims, unit))


def _unit(unit: int, amounts: Iterable[Ints]) -> int:
    """Return `unit` if it divides every amount, else 1."""
    whole = all(not (array % unit).any() for array in amounts) if unit > 1 else True
    return unit if whole else 1


def _spend(budget: Ints, wants: Ints) -> Ints:
    """Pay demand tier by tier, most urgent first, until the budget is used."""
    left = np.maximum(0, budget)
    paid = np.empty_like(wants)
    for tier, want in enumerate(wants):
        paid[tier] = np.minimum(want, left)
        left = left - paid[tier]
    return paid


class Siblings:
    """Queues of one level, siblings side by side, and how they share.

    Parameters
    ----------
    family
        Number of each queue's parent, ascending from 0 without gaps.
    standing
        Weight and priority of each queue.
    """

    def __init__(self, family: Ints, standing: Sequence[tuple[int, int]]) -> None:
        self.family = family
        self.starts = np.flatnonzero(np.diff(family, prepend=-1))
        self._weights = np.array([weight for weight, _ in standing], np.int64)
        priorities = np.array([priority for _, priority in standing], np.int64)
        self._tiers = [
            (priorities == priority)[:, None]
            for priority in sorted(set(priorities.tolist()), reverse=True)
        ]

    def total(self, amounts: Ints) -> Ints:
        """Add up over each family: (queues, forms) to (families, forms)."""
        found: Ints = np.add.reduceat(amounts, self.starts, axis=0)
        return found

    def kept_to(self, there: Ints, owned: Ints) -> Ints:
        """Cut guarantees that are asked for to what is there: by priority, in parts."""
        left, found = np.maximum(0, there), np.zeros_like(owned)
        if (self.total(owned) <= left).all():
            return owned
        for members in self._tiers:
            part = self._fill(left, owned * members, owned)
            found += part
            left = left - self.total(part)
        return found

    def share_out(
        self,
        there: Ints,
        guarantee: Ints,
        idle: Ints,
        wants: Ints,
        burst: Ints | None = None,
    ) -> Ints:
        """Divide what is there for each family; see the module's theory.

        Parameters
        ----------
        there
            (families, forms).
        guarantee, idle
            (queues, forms); `idle` is kept out of the guarantee, unused.
        wants
            (tiers, queues, forms), within the ceilings.
        burst
            Most that may be given above the guarantees, (forms,).

        Returns
        -------
        array
            Shares, (tiers, queues, forms).
        """
        shares = _spend(guarantee - idle, wants)
        rest = np.maximum(0, there - self.total(idle) - self.total(shares.sum(0)))
        if burst is not None:
            rest = np.minimum(rest, burst)
        for tier, want in enumerate(wants):
            more = want - shares[tier]
            if not more.any() or not rest.any():
                continue
            for members in self._tiers:
                given = self._fill(rest, more * members, self._weights[:, None])
                shares[tier] += given
                rest = rest - self.total(given)
        return shares

    def _fill(self, rest: Ints, wants: Ints, weights: Ints) -> Ints:
        """Raise the level of one tier in every family and form."""
        flat = wants.T.ravel()
        live = np.flatnonzero(flat)
        given = np.zeros(len(flat), np.int64)
        if len(live):
            queues = len(self.family)
            form, queue = live // queues, live % queues
            group = form * len(rest) + self.family[queue]
            there = rest.T.ravel()
            weight = np.broadcast_to(weights, wants.shape).T.ravel()[live]
            given[live] = fill_groups(there, group, flat[live], weight)
        return given.reshape(wants.T.shape).T


class _Level:
    """One depth of the tree: rows of the arrays, and the rows of their parents."""

    def __init__(
        self, queues: Sequence[Queue], first: int, parents: Sequence[int]
    ) -> None:
        self.queues = queues
        self.rows = slice(first, first + len(queues))
        self.family = np.cumsum(np.diff(np.array(parents), prepend=-2) != 0) - 1
        self.parents = np.array(sorted(set(parents)), np.int64)
        self.siblings = self._weighed({})

    def _weighed(self, weights: Mapping[TenantName, int]) -> Siblings:
        standing = [(weights.get(q.name, q.weight), q.priority) for q in self.queues]
        return Siblings(self.family, standing)

    def reweighed(self, weights: Mapping[TenantName, int]) -> "_Level":
        twin = copy(self)
        twin.siblings = self._weighed(weights)
        return twin


class Division:
    """Division of the whole tree, kept up to date demand by demand.

    ``ask`` says what a tenant wants, ``share`` what it is granted; only forms in which
    something changed are divided anew. The guarantees and limits are those of the tree
    at construction.
    """

    def __init__(self, tree: QuotaTree) -> None:
        self._tree = tree
        self._rows: dict[TenantName, int] = {}
        self._levels: list[_Level] = []
        names: Sequence[TenantName] = tree.children[None]
        parents = [-1] * len(names)
        while names:
            first = len(self._rows)
            self._rows.update({name: first + i for i, name in enumerate(names)})
            queues = [tree.queues[name] for name in names]
            self._levels.append(_Level(queues, first, parents))
            pairs = [(n, c) for n in names for c in tree.children.get(n, ())]
            names, parents = [c for _, c in pairs], [self._rows[n] for n, _ in pairs]
        self._columns: dict[Form, int] = {}
        self._wants = np.zeros((TIERS, len(self._rows), 0), np.int64)
        self._shares = self._wants.copy()
        self._ceiling = self._kept = self._owned = self._wants[0]
        self._stale: set[int] = set()
        self._asked: dict[TenantName, set[Form]] = {}
        for form in sorted(tree.capacity):
            self._column(form)

    def _column(self, form: Form) -> int:
        """Return the column of a form, a new one with the tree's rules if need be."""
        found = self._columns.get(form)
        if found is None:
            found = self._columns[form] = len(self._columns)
            empty = np.zeros((TIERS, len(self._rows), 1), np.int64)
            self._wants = np.concatenate([self._wants, empty], axis=2)
            self._shares = np.concatenate([self._shares, empty], axis=2)
            self._ceiling = self._with(self._ceiling, self._tree.ceiling, form)
            self._kept = self._with(self._kept, self._tree.kept, form)
            self._owned = self._with(self._owned, self._tree.guarantee, form)
        return found

    def _with(
        self, known: Ints, rule: Callable[[TenantName, Form], int], form: Form
    ) -> Ints:
        column = np.array([rule(name, form) for name in self._rows], np.int64)
        return np.concatenate([known, column.reshape(-1, 1)], axis=1)

    def reweighed(self, weights: Mapping[TenantName, int]) -> "Division":
        """Return the same division with other weights, for the queues listed."""
        twin = copy(self)
        vars(twin).update(
            _levels=[level.reweighed(weights) for level in self._levels],
            _columns=dict(self._columns),
            _wants=self._wants.copy(),
            _owned=self._owned.copy(),
            _ceiling=self._ceiling.copy(),
            _shares=self._shares.copy(),
            _asked={name: set(forms) for name, forms in self._asked.items()},
            _stale=set(self._columns.values()),
        )
        return twin

    def ask(self, tenant: TenantName, form: Form, tiers: Sequence[int]) -> None:
        """Say what a tenant wants of a form, running and waiting: quanta per tier."""
        column, row = self._column(form), self._rows[tenant]
        self._asked.setdefault(tenant, set()).add(form)
        if self._wants[:, row, column].tolist() != list(tiers):
            self._wants[:, row, column] = tiers
            self._stale.add(column)

    def asked_for(self, tenant: TenantName) -> set[Form]:
        """Forms the tenant has asked for so far."""
        return self._asked.get(tenant, set())

    def entitle(self, queue: TenantName, form: Form, quanta: int) -> None:
        """Say what of its guarantees a queue may claim on a form, groups included."""
        column, row = self._column(form), self._rows[queue]
        if self._owned[row, column] != quanta:
            self._owned[row, column] = quanta
            self._stale.add(column)

    def bound(self, queue: TenantName, form: Form, quanta: int) -> None:
        """Say what a queue may hold of a form, bounds over several forms included."""
        column, row = self._column(form), self._rows[queue]
        if self._ceiling[row, column] != quanta:
            self._ceiling[row, column] = quanta
            self._stale.add(column)

    def share(self, queue: TenantName, form: Form) -> list[int]:
        """Return what the queue is granted of a form, quanta per tier."""
        if self._stale:
            columns = np.array(sorted(self._stale), np.int64)
            self._stale.clear()
            self._divide(columns)
        column = self._columns.get(form)
        if column is None:
            return [0] * TIERS
        amounts: list[int] = self._shares[:, self._rows[queue], column].tolist()
        return amounts

    def _divide(self, columns: Ints) -> None:
        wants = np.minimum(self._wants[:, :, columns], self._there(columns))
        ceiling, kept = self._ceiling[:, columns], self._kept[:, columns]
        owned = self._owned[:, columns]
        units = self._units(columns, wants, kept, owned)
        there = self._there(columns) // units
        own = wants.sum(0) // units
        wants, idle, below = self._gather(
            wants // units, ceiling // units, kept // units
        )
        shares = np.zeros_like(wants)
        burst: Ints | None = self._burst(columns) // units
        for level in self._levels:
            if level.parents[0] >= 0:
                parents = level.parents
                there = shares[:, parents].sum(0) - own[parents] + below[parents]
            rows, siblings = level.rows, level.siblings
            asked = np.minimum(owned[rows] // units - idle[rows], wants[:, rows].sum(0))
            due = siblings.kept_to(there - siblings.total(idle[rows]), asked)
            shares[:, rows] = siblings.share_out(
                there, due + idle[rows], idle[rows], wants[:, rows], burst
            )
            burst = None  # below, a queue's share may all be burst
        self._shares[:, :, columns] = shares * units

    def _units(self, columns: Ints, *amounts: Ints) -> Ints:
        """Return a device's charge where all amounts are whole devices, else 1."""
        forms = {column: form for form, column in self._columns.items()}
        charges = np.array([charge(forms[int(c)]) for c in columns], np.int64)
        whole = np.ones(len(columns), np.bool_)
        for array in (*amounts, self._there(columns)):
            flat = array.reshape(-1, len(columns))
            whole &= ~(flat % charges).any(axis=0)
        return np.where(whole, charges, 1)

    def _there(self, columns: Ints) -> Ints:
        forms = {column: form for form, column in self._columns.items()}
        capacity = self._tree.capacity
        there = [capacity.get(forms[int(column)], 0) for column in columns]
        return np.array([there], np.int64)

    def _burst(self, columns: Ints) -> Ints:
        """Most that the roots together may have above their guarantees."""
        forms = {column: form for form, column in self._columns.items()}
        ceilings = quanta(self._tree.fleet.burst_ceiling)
        found = [ceilings.get(forms[int(column)], UNLIMITED) for column in columns]
        return np.array(found, np.int64)

    def _gather(
        self, wants: Ints, ceiling: Ints, kept: Ints
    ) -> tuple[Ints, Ints, NDArray[np.int64]]:
        """Add up demand from the leaves to the roots, each queue's below its ceiling.

        Returns it with what each queue keeps idle for itself, and what its children do.
        """
        idle = np.zeros_like(kept)
        below = np.zeros_like(kept)
        for level in reversed(self._levels):
            rows = level.rows
            mine = _spend(ceiling[rows] - below[rows], wants[:, rows])
            wants[:, rows] = mine
            idle[rows] = np.maximum(below[rows], kept[rows] - mine.sum(0))
            if level.parents[0] >= 0:
                total = level.siblings.total
                below[level.parents] += total(idle[rows])
                for tier in range(TIERS):
                    wants[tier, level.parents] += total(mine[tier])
        return wants, idle, below
