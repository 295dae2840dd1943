"""What the rules that we follow instead of a peer's must answer, restated apart.

Where a difference on purpose shows, the product's answer is another than the peer's. It
must be this one then: a difference excuses our rule, not a fault in how we keep it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from tests.conformance.amounts import close, exact, plain, scale_of, table
from tests.conformance.kinds import kai_shares, koordinator
from tests.conformance.oracles import (
    Shares,
    Sibling,
    strict_division,
    tiers,
    tilted_once,
)
from tests.conformance.verdict import Case

TILT_PARTS = 1000


def agrees(got: object, ours: object) -> bool:
    """Whether an answer is ours, number by number; what was not asked is left out."""
    if isinstance(got, Mapping) and isinstance(ours, Mapping):
        return all(key in ours and agrees(got[key], ours[key]) for key in got)
    return close(got, ours)


def answer(case: Case) -> Mapping[str, Any]:
    """Divide strictly: exact level per tier, rounded once, nobody beyond a request."""
    return _ANSWERS[case["kind"]](case)


# -- one level ------------------------------------------------------------------


def _flat(case: Case) -> dict[str, Any]:
    total, siblings = exact(case["total"]), kai_shares.siblings_of(case)
    shares = _divide(case, total, siblings)
    rest = kai_shares.remaining(total, siblings, shares)
    return {"fair_share": _plain(shares), "remaining": plain(rest)}


def _multi(case: Case) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    totals = table(case["total"])
    asked = {r for row in table(case["expected"]["fair_share"]).values() for r in row}
    for resource in sorted(asked):
        siblings = kai_shares.siblings_for(case, resource)
        shares = _divide(case, exact(totals.get(resource)), siblings)
        for name, share in shares.items():
            found.setdefault(name, {})[resource] = plain(share)
    return found


def _divide(case: Case, total: Fraction, siblings: Sequence[Sibling]) -> Shares:
    step = Fraction(1, scale_of(kai_shares.amounts_of(total, siblings)))
    return strict_division(total, _tilted(case, total, siblings), step)


def _tilted(case: Case, total: Fraction, siblings: Sequence[Sibling]) -> list[Sibling]:
    """Tilt as past use does, in the thousandths that weights are kept in."""
    k = Fraction(round(TILT_PARTS * exact(case.get("k_value"))), TILT_PARTS)
    if not k:
        return list(siblings)
    parts = TILT_PARTS * scale_of([s.weight for s in siblings], fine=1)
    return [
        replace(s, weight=Fraction(math.floor(s.weight * parts), parts))
        for s in tilted_once(total, siblings, k)
    ]


def _plain(shares: Shares) -> dict[str, Any]:
    return {name: plain(share) for name, share in shares.items()}


# -- a tree ---------------------------------------------------------------------


def _tree(case: Case) -> dict[str, Any]:
    total, queues = exact(case["total"]), kai_shares.siblings_of(case)
    tree = _Tree(total, queues, kai_shares.parents_of(case))
    tree.descend(None, total, total)
    return _plain(tree.shares)


class _Tree:
    """Division down a tree: what is asked goes up, what is granted comes down."""

    def __init__(
        self, total: Fraction, queues: Sequence[Sibling], parents: Mapping[str, str]
    ) -> None:
        self.shares: Shares = {}
        self._step = Fraction(1, scale_of(kai_shares.amounts_of(total, queues)))
        self._below: dict[str | None, list[Sibling]] = {}
        asked = kai_shares.requests_below(queues, parents)
        for queue in sorted(queues, key=lambda q: q.age):
            owned = total if queue.guarantee is None else queue.guarantee
            if queue.request < asked.get(queue.name, Fraction(0)):
                owned = min(owned, queue.request)  # it is held to what it asks for
            known = replace(queue, guarantee=owned, start=None)
            self._below.setdefault(parents.get(queue.name), []).append(known)

    def descend(self, parent: str | None, total: Fraction, owned: Fraction) -> None:
        """Divide what a parent got, and the guarantees that its own can pay for."""
        level = self._below.get(parent, [])
        if level:
            kept = self._scaled(level, owned)
            asking = [
                replace(queue, guarantee=kept[queue.name], request=self._most(queue))
                for queue in level
            ]
            found = strict_division(total, asking, self._step)
            self.shares |= found
            for queue in level:
                self.descend(queue.name, found[queue.name], kept[queue.name])

    def _most(self, queue: Sibling) -> Fraction:
        """What a queue may hold of what is asked below it."""
        below = self._below.get(queue.name)
        asked = queue.request
        if below is not None:
            asked = min(asked, sum(map(self._most, below), Fraction(0)))
        return asked if queue.weight else min(asked, queue.guarantee or Fraction(0))

    def _scaled(self, level: Sequence[Sibling], there: Fraction) -> Shares:
        """Cut guarantees to what is there: by priority, then all by the same part."""
        kept: Shares = {}
        for tier in tiers(level):
            owned = {s.name: s.guarantee or Fraction(0) for s in tier}
            whole = sum(owned.values(), Fraction(0))
            part = min(there, whole)
            due = {n: own * part / whole if whole else own for n, own in owned.items()}
            given = {
                n: self._step * math.floor(amount / self._step)
                for n, amount in due.items()
            }
            spare = round((part - sum(given.values(), Fraction(0))) / self._step)
            order = sorted(tier, key=lambda s: (given[s.name] - due[s.name], s.age))
            for sibling in order[:spare]:
                given[sibling.name] += self._step
            kept |= given
            there -= part
        return kept


_ANSWERS: Mapping[str, Callable[[Case], Mapping[str, Any]]] = {
    "fair_share": _flat,
    "fair_share_multi": _multi,
    "fair_share_hierarchical": _tree,
    "koordinator_runtime_quota": koordinator.rounded_once,
}
