"""Kueue's shares, quota, usage memory, order of victims and preemption policies."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from scheduler.core import fairness, quota, reclaim
from scheduler.core.workload import TenantName
from tests import builders, courtroom
from tests.conformance.amounts import close, number, plain, table
from tests.conformance.kinds.kueue_tree import (
    Family,
    Grove,
    Usage,
    queue_name,
    usages,
)
from tests.conformance.verdict import Case, Verdict

LONG_S = 200.0
"""Half-lives after which nothing of the past is left in a float."""


# -- dominant share -----------------------------------------------------------


def dominant_share(case: Case) -> Verdict:
    """Judge the weighted share of each node, and which resource dominates it."""
    expected = case["expected"]["shares"]
    incoming = table(case.get("incoming"))
    scales = Scales(Grove(case), Grove(case, unweighted=True))
    extra = usages(incoming.get("hypotheticalUsage"))
    if incoming.get("queue"):
        scales.charge(queue_name(incoming["queue"]), extra)
        extra = []
    got = [scales.weigh(row, extra) for row in expected]
    agrees = all(_same_share(g, e) for g, e in zip(got, expected, strict=True))
    return Verdict(agrees, got, expected)


@dataclass(frozen=True, slots=True)
class Scales:
    """The case's trees with their weights, and without: those tell what dominates."""

    real: Grove
    even: Grove

    def charge(self, name: TenantName, used: Sequence[Usage], sign: int = 1) -> None:
        """Charge amounts in both."""
        for grove in (self.real, self.even):
            grove.charge(name, used, sign)

    def weigh(self, row: Mapping[str, Any], extra: Sequence[Usage]) -> dict[str, Any]:
        """Ask for a node's share with `extra` of what it has quota for on top."""
        name = self.real.family.find(row["node"], row.get("nodeType"))
        known = _known(self.real.family, name)
        own = [usage for usage in extra if usage.key in known]
        self.charge(name, own)
        try:
            return {"node": row["node"], **self._share(name)}
        finally:
            self.charge(name, own, -1)

    def _share(self, name: TenantName) -> dict[str, Any]:
        if self.real.family.nodes[name].parent is None:
            # what the fleet is to us: it has nobody to borrow from
            return {"share": 0, "dominantResource": "", "borrowing": False}
        resources = self.real.family.resources(self.real.family.root(name))
        ratios = {r: _borrowed(self.even, name, r) for r in resources}
        top = max(resources, key=lambda r: ratios[r], default="")
        if not top or not ratios[top]:
            top = ""
        share = _borrowed(self.real, name, top) if top else 0
        return {
            "share": "inf" if share == math.inf else math.ceil(1000 * share),
            "dominantResource": top,
            "borrowing": any(_borrows(self.real, name, r) for r in resources),
        }


def _known(family: Family, name: TenantName) -> set[tuple[str, str]]:
    """What a node or anybody below it has quota for."""
    below = {name}
    for node in family.members(family.root(name)):
        at = node.name
        path = [at]
        while (parent := family.nodes[at].parent) is not None:
            path.append(parent)
            at = parent
        if name in path:
            below.update(path[: path.index(name)])
    return {key for found in below for key in family.nodes[found].quotas}


def _borrowed(grove: Grove, name: TenantName, resource: str) -> Fraction | float:
    """Ask the product; its weights are whole, so the scale is taken out again."""
    share = fairness.borrowed_share(grove.tree(name, resource), name)
    return share * grove.parts


def _borrows(grove: Grove, name: TenantName, resource: str) -> bool:
    """Whether a node holds more than it owns, in some flavor."""
    tree = grove.tree(name, resource)
    return any(
        tree.held(name, form) > tree.guarantee(name, form) for form in tree.forms()
    )


def _same_share(got: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    if not close(got["share"], expected["share"]):
        return False
    keys = ("dominantResource", "borrowing")
    return all(
        got[key] == expected[key] for key in keys if expected.get(key) is not None
    )


# -- quota --------------------------------------------------------------------


def available_quota(case: Case) -> Verdict:
    """Judge what each queue may still use, and could use were everything idle."""
    grove = Grove(case)
    got: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for what in ("available", "potential"):
        rows = table(case["expected"].get(what))
        got[what] = {name: _room(grove, what, name, rows[name] or ()) for name in rows}
    agrees = all(
        close(mine["amount"], theirs["amount"])
        for what, rows in got.items()
        for name, amounts in rows.items()
        for mine, theirs in zip(
            amounts, case["expected"][what][name] or (), strict=True
        )
    )
    return Verdict(agrees, got, case["expected"])


def _room(
    grove: Grove, what: str, name: str, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    node = grove.family.find(name)
    found = []
    for row in rows:
        tree, form = grove.tree(node, row["resource"]), grove.form(row["flavor"])
        ask = tree.available if what == "available" else tree.potential
        quanta = ask(node, form)
        if node == queue_name(name):
            quanta = max(0, quanta)  # a queue in debt has nothing, says Kueue
        found.append({**row, "amount": plain(Fraction(quanta, grove.scale))})
    return found


# -- usage memory -------------------------------------------------------------


def usage_decay(case: Case) -> Verdict:
    """Judge how use decays, and what score it gives a queue."""
    given, expected = table(case["input"]), table(case["expected"])
    got: dict[str, float] = {}
    if "consumed" in expected:
        got["consumed"] = _consumed(given)
    if "usage" in expected:
        got["usage"] = _score(given)
    if not got:
        raise ValueError(f"nothing known is expected: {sorted(expected)}")
    tolerance = number(expected.get("tolerance") or 0)
    agrees = all(close(got[key], expected[key], tolerance) for key in got)
    return Verdict(agrees, got, expected)


def _consumed(given: Mapping[str, Any]) -> float:
    """Level after so long at one rate; `startConsumed` is an earlier, settled level."""
    half_life_s = float(given.get("halfLifeSeconds") or 0)
    lasted = float(given.get("sampleSeconds") or 0) * float(given.get("samples") or 0)
    queue = TenantName("queue")
    memory = fairness.UsageMemory(half_life_s)
    before = float(given.get("startConsumed") or 0)
    if before:
        memory.change(queue, before, -LONG_S * half_life_s)
    memory.change(queue, float(given.get("usage") or 0), 0.0)
    return float(memory.average(queue, lasted))


def _score(given: Mapping[str, Any]) -> float:
    averages: dict[str, float] = {}
    for part in (table(given.get("consumed")), table(given.get("pendingPenalty"))):
        for resource, amount in part.items():
            averages[resource] = averages.get(resource, 0.0) + float(amount or 0)
    worth = {r: float(w) for r, w in table(given.get("resourceWeights")).items()}
    weight = given.get("queueWeight")
    return float(
        fairness.usage_score(averages, worth, 1.0 if weight is None else float(weight))
    )


# -- order of victims ---------------------------------------------------------


def victim_queue_order(case: Case) -> Verdict:
    """Judge in which order queues are asked to give back."""
    expected = list(case["expected"]["order"] or ())
    got = list(Offers(case).walk(case.get("actions") or ()))
    return Verdict(got == expected, got, expected)


class Offers:
    """The candidates of each queue, best first, and who is asked next."""

    def __init__(self, case: Case) -> None:
        incoming = table(case.get("incoming"))
        self.taker = queue_name(incoming["queue"])
        asked = case.get("candidateQueues")
        self.left: dict[TenantName, list[Mapping[str, Any]]] = {}
        for row in sorted(case.get("admitted") or (), key=_victim_key):
            if asked is None or row["queue"] in asked:
                self.left.setdefault(queue_name(row["queue"]), []).append(row)
        self.grove = Grove(case)
        self.grove.charge(self.taker, usages(incoming.get("usage")))
        self.names = {
            queue_name(row["queue"]): row["queue"] for row in case.get("admitted") or ()
        }

    def walk(self, actions: Sequence[str]) -> list[str]:
        """Record who is asked, until nobody is left.

        A victim that is taken stays charged: releasing it is the caller's part in
        Kueue, and the cases look at the order alone.
        """
        order: list[str] = []
        while (holder := self._next()) is not None:
            action = actions[len(order)] if len(order) < len(actions) else "pop"
            order.append(self.names[holder])
            if action == "drop":
                del self.left[holder]
                continue
            self.left[holder].pop(0)
            if not self.left[holder]:
                del self.left[holder]
        return order

    def _next(self) -> TenantName | None:
        keys = {}
        for holder in sorted(self.left, key=lambda q: _victim_key(self.left[q][0])):
            key = self._key(holder)
            if key is not None:
                keys[holder] = key
        return min(keys, key=lambda holder: keys[holder], default=None)

    def _key(self, holder: TenantName) -> tuple[Any, ...] | None:
        """Ask the product, resource by resource: the dominant one decides."""
        root = self.grove.family.root(holder)
        if root != self.grove.family.root(self.taker):
            return None
        keys = [self._key_in(holder, r) for r in self.grove.family.resources(root)]
        return min((key for key in keys if key is not None), default=None)

    def _key_in(self, holder: TenantName, resource: str) -> tuple[Any, ...] | None:
        tree = self.grove.tree(holder, resource)
        key = fairness.give_back_key(tree, holder, self.taker)
        if key is None and holder == self.taker:
            # its own work gives back nothing: it makes way, whether it borrows or not
            return (-fairness.borrowed_share(tree, holder),)
        return key


def _victim_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Kueue's order of victims (kueue.md 2.5); equals stay as they are listed."""
    return (
        not row.get("evicted"),
        row.get("priority") or 0,
        -float(row.get("reservedAt") or 0),
        row.get("uid") or "",
    )


# -- policies -----------------------------------------------------------------

_WITHIN = {
    "Never": "never",
    "LowerPriority": "lower-priority",
    "LowerOrNewerEqualPriority": "lower-or-newer-equal-priority",
}
ANY = "Any"


def policy_check(case: Case) -> Verdict:
    """Judge whether one workload may preempt another under a policy.

    Inside a tenant the policies are the product's own. ``Any`` knows no priority: with
    us that is what covered demand may do to another tenant's burst.
    """
    (victim,) = case["admitted"]
    policy = case.get("policy") or "Never"
    ask = _may_reclaim if policy == ANY else _may_preempt
    got = ask(table(case["incoming"]), victim, policy)
    expected = bool(case["expected"]["mayPreempt"])
    return Verdict(got == expected, got, expected)


def _priority(row: Mapping[str, Any]) -> int:
    return int((row.get("priority") or 0) + (row.get("priorityBoost") or 0))


def _created(row: Mapping[str, Any]) -> float:
    """When it was submitted; older than everything where that is not told."""
    created = row.get("createdAt")
    return -math.inf if created is None else float(created)


def _may_preempt(
    incoming: Mapping[str, Any], victim: Mapping[str, Any], policy: str
) -> bool:
    within = quota.PreemptWithin(_WITHIN[policy])
    court = courtroom.court((replace(builders.tenant("a"), preempt_within=within),))
    taker = replace(
        courtroom.taker(priority=_priority(incoming)), submitted=_created(incoming)
    )
    holding = replace(
        courtroom.holding(owner="a", priority=_priority(victim)),
        submitted=_created(victim),
    )
    return reclaim.preempts_within(taker, holding, court)


def _may_reclaim(
    incoming: Mapping[str, Any], victim: Mapping[str, Any], _: str
) -> bool:
    court = courtroom.court(covers={"a": ["taker"]})
    taker = courtroom.taker(priority=_priority(incoming), covered=True)
    holding = courtroom.holding(priority=_priority(victim))
    return reclaim.covered_takes_burst(taker, holding, court)
