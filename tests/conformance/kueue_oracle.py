"""Kueue's published arithmetic (its resource nodes and shares), restated in fractions.

It answers where no table does: on trees made at random the product must agree with it.
"""

import math
from collections.abc import Mapping
from fractions import Fraction

from scheduler.core.workload import TenantName
from tests.conformance.kinds.kueue_tree import (
    Family,
    Key,
    Quota,
    Usage,
    queue_name,
    usages,
)
from tests.conformance.verdict import Case

ZERO = Fraction(0)


class KueueOracle:
    """All nodes of a case with what is admitted; amounts per flavor and resource."""

    def __init__(self, case: Case) -> None:
        self.family = Family(case)
        self.admitted: dict[TenantName, list[Usage]] = {}
        for row in case.get("admitted") or ():
            held = self.admitted.setdefault(queue_name(row["queue"]), [])
            held += usages(row.get("usage"))

    def _rule(self, name: TenantName, key: Key) -> Quota:
        return self.family.nodes[name].quotas.get(key, Quota())

    def _below(self, name: TenantName) -> list[TenantName]:
        nodes = self.family.nodes.values()
        return [node.name for node in nodes if node.parent == name]

    def subtree(self, name: TenantName, key: Key) -> Fraction:
        """Own quota, and what those below do not keep for themselves."""
        lent = (self.subtree(c, key) - self.local(c, key) for c in self._below(name))
        return self._rule(name, key).nominal + sum(lent, ZERO)

    def local(self, name: TenantName, key: Key) -> Fraction:
        """What is never visible to the parent."""
        lending = self._rule(name, key).lending
        return ZERO if lending is None else max(ZERO, self.subtree(name, key) - lending)

    def usage(self, name: TenantName, key: Key, *, idle: bool = False) -> Fraction:
        """Admitted requests, and what spills over from those below."""
        if idle:
            return ZERO
        own = (u.amount for u in self.admitted.get(name, ()) if u.key == key)
        spilt = (
            max(ZERO, self.usage(c, key) - self.local(c, key))
            for c in self._below(name)
        )
        return sum((*own, *spilt), ZERO)

    def available(self, name: TenantName, key: Key, *, idle: bool = False) -> Fraction:
        """What may still be used; negative where a cohort is in debt."""
        parent = self.family.nodes[name].parent
        subtree, used = self.subtree(name, key), self.usage(name, key, idle=idle)
        if parent is None:
            return subtree - used
        local, limit = self.local(name, key), self._rule(name, key).borrowing
        above = self.available(parent, key, idle=idle)
        if limit is not None:
            above = min(above, subtree - local - max(ZERO, used - local) + limit)
        return max(ZERO, local - used) + above

    def keys(self, name: TenantName) -> set[Key]:
        """What a node or anybody below it has quota for."""
        found = set(self.family.nodes[name].quotas)
        return found.union(*(self.keys(child) for child in self._below(name)))

    def over(self, name: TenantName) -> Mapping[str, Fraction]:
        """What a node borrows, by resource."""
        found: dict[str, Fraction] = {}
        for key in sorted(self.keys(name)):
            amount = self.usage(name, key) - self.subtree(name, key)
            if amount > 0 and self.family.nodes[name].parent is not None:
                found[key[1]] = found.get(key[1], ZERO) + amount
        return found

    def ratio(self, name: TenantName) -> tuple[Fraction, str]:
        """What it borrows of what can be lent, and the resource where that is most."""
        parent = self.family.nodes[name].parent
        best = ZERO, ""
        for resource, amount in sorted(self.over(name).items()):
            lend = sum(
                (
                    self.available(parent or name, key, idle=True)
                    for key in self.keys(self.family.root(name))
                    if key[1] == resource
                ),
                ZERO,
            )
            if lend > 0 and amount / lend > best[0]:
                best = amount / lend, resource
        return best

    def share(self, name: TenantName) -> float:
        """The weighted share as Kueue reports it."""
        ratio, weight = self.ratio(name)[0], self.family.nodes[name].weight
        if not ratio:
            return 0
        return math.ceil(1000 * ratio / weight) if weight else math.inf

    def order(self, case: Case) -> list[str]:
        """Who is asked to give back, victim by victim, from the root down."""
        taker = queue_name(case["incoming"]["queue"])
        left: dict[TenantName, list[int]] = {}
        for place, row in enumerate(case.get("admitted") or ()):
            if row["queue"] in case["candidateQueues"]:
                left.setdefault(queue_name(row["queue"]), []).append(place)
        found = []
        while (name := self._next(self.family.root(taker), taker, left)) is not None:
            found.append(name.split(":", 1)[1])
            left[name].pop(0)
        return found

    def _next(
        self, at: TenantName, taker: TenantName, left: Mapping[TenantName, list[int]]
    ) -> TenantName | None:
        """Descend to the largest share; on a tie to a cohort, to the first candidate.

        Kueue decides ties of two cohorts at random; here, too, by candidate.
        """
        if not self._below(at):
            return at if left.get(at) else None
        path = self._path(taker)
        found: dict[TenantName, TenantName] = {}
        for child in self._below(at):
            if child in path or self.over(child):
                holder = self._next(child, taker, left)
                if holder is not None:
                    found[child] = holder
        best = max(
            found,
            key=lambda c: (self.weighed(c), bool(self._below(c)), -left[found[c]][0]),
            default=None,
        )
        return None if best is None else found[best]

    def weighed(self, name: TenantName) -> tuple[float, Fraction]:
        """Compare shares: two infinite ones by their ratio."""
        ratio, weight = self.ratio(name)[0], self.family.nodes[name].weight
        if not weight and ratio:
            return math.inf, ratio
        return (float(ratio / weight) if ratio else 0.0), ZERO

    def _path(self, name: TenantName) -> set[TenantName]:
        found = {name}
        at: TenantName | None = name
        while at is not None:
            found.add(at)
            at = self.family.nodes[at].parent
        return found
