"""KAI's division of shares: flat, of several resources, and down a tree.

A row is read into `Sibling`s once; the product's claims and the oracles in
`tests.conformance.oracles` are both made from those.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from scheduler.core import fairness, quota
from scheduler.core.workload import TenantName, WorkloadClass
from tests.conformance.amounts import (
    bound,
    close,
    exact,
    plain,
    scale_of,
    sliver,
    table,
    whole,
)
from tests.conformance.oracles import Shares, Sibling
from tests.conformance.verdict import Case, Verdict

GPUS = sliver("gpu")
TIER = int(WorkloadClass.TRAINING)  # KAI has one kind of work: any of our tiers will do


# -- reading ------------------------------------------------------------------


def siblings_of(case: Case) -> list[Sibling]:
    """Read the queues of a flat or hierarchical row."""
    phase = case.get("phase") or "full"
    if phase not in ("full", "over_quota_only"):
        raise ValueError(f"unknown phase {phase!r}")
    started = phase == "over_quota_only"
    return [_sibling(queue, queue, started) for queue in case["queues"]]


def siblings_for(case: Case, resource: str) -> list[Sibling]:
    """Read the queues of a multi-resource row, as they stand in one resource."""
    return [
        _sibling(queue, table(table(queue.get("resources")).get(resource)), False)
        for queue in case["queues"]
    ]


def _sibling(
    queue: Mapping[str, Any], amounts: Mapping[str, Any], started: bool
) -> Sibling:
    request, limit = exact(amounts.get("request")), bound(amounts.get("limit"))
    deserved = amounts.get("deserved")
    name = str(queue["name"])
    return Sibling(
        name=name,
        request=request if limit is None else min(request, limit),
        guarantee=Fraction(0) if deserved is None else bound(deserved),
        weight=max(Fraction(0), exact(amounts.get("over_quota_weight"))),
        priority=queue.get("priority") or 0,
        age=(queue.get("created") or 0, name),
        usage=exact(amounts.get("usage", queue.get("usage"))),
        start=exact(amounts.get("fair_share")) if started else None,
    )


def amounts_of(total: Fraction, siblings: Sequence[Sibling]) -> list[Fraction]:
    """List every amount of a division."""
    found = [total]
    for sibling in siblings:
        found += [sibling.request, sibling.guarantee or total]
        found += [] if sibling.start is None else [sibling.start]
    return found


# -- the product's answer -----------------------------------------------------


def divide(
    total: Fraction, siblings: Sequence[Sibling], k: Fraction = Fraction(0)
) -> Shares:
    """Ask the product to divide: by the unit where all amounts are whole."""
    scale = scale_of(amounts_of(total, siblings))
    weights = _tilted(total, siblings, k)
    orders = _ranks(siblings)
    claims = [
        _claim(s, total, scale, weight, orders[s.name])
        for s, weight in zip(siblings, weights, strict=True)
    ]
    parts = fairness.divide(whole(total * scale), claims, 1)
    return {
        s.name: (s.start or 0) + Fraction(part, scale)
        for s, part in zip(siblings, parts, strict=True)
    }


def _claim(
    sibling: Sibling, total: Fraction, scale: int, weight: int, order: int
) -> fairness.Claim:
    owned = total if sibling.guarantee is None else sibling.guarantee
    started = sibling.start is not None
    rest = sibling.request - (sibling.start or 0)
    return fairness.Claim(
        guarantee=0 if started else whole(owned * scale),
        demands=(whole(max(Fraction(0), rest) * scale),),
        weight=weight,
        priority=int(sibling.priority),
        order=order,
    )


def _tilted(total: Fraction, siblings: Sequence[Sibling], k: Fraction) -> list[int]:
    """Ask the product to tilt the weights by past use, `k` being the strength."""
    weights = _integers([s.weight for s in siblings])
    if not k:
        return weights
    together: dict[float, int] = {}
    for s, weight in zip(siblings, weights, strict=True):
        wants = s.request > s.granted(total)
        together[s.priority] = together.get(s.priority, 0) + (weight if wants else 0)
    strength = round(1000 * k)
    return [
        fairness.tilted(weight, together[s.priority] or weight, s.usage, strength)
        for s, weight in zip(siblings, weights, strict=True)
    ]


def _integers(weights: Sequence[Fraction]) -> list[int]:
    scale = scale_of(weights, fine=1)
    return [whole(weight * scale) for weight in weights]


def _ranks(siblings: Sequence[Sibling]) -> dict[str, int]:
    order = sorted(siblings, key=lambda s: s.age)
    return {sibling.name: rank for rank, sibling in enumerate(order)}


def remaining(total: Fraction, siblings: Sequence[Sibling], shares: Shares) -> Fraction:
    """What nobody was given of the total."""
    spent = sum((shares[s.name] - (s.start or 0) for s in siblings), Fraction(0))
    return max(Fraction(0), total - spent)


# -- the kinds ----------------------------------------------------------------


def fair_share(case: Case) -> Verdict:
    """Judge one resource divided among queues without a parent."""
    siblings, total = siblings_of(case), exact(case["total"])
    shares = divide(total, siblings, exact(case.get("k_value")))
    expected = case["expected"]
    got: dict[str, Any] = {"fair_share": _asked(shares, table(expected["fair_share"]))}
    if expected.get("remaining") is not None:
        got["remaining"] = plain(remaining(total, siblings, shares))
    return Verdict(_same(got, expected), got, expected)


def fair_share_multi(case: Case) -> Verdict:
    """Judge several resources, each divided alone."""
    expected = table(case["expected"]["fair_share"])
    totals = table(case["total"])
    named = {r for amounts in expected.values() for r in table(amounts)}
    shares = {
        resource: divide(
            exact(totals.get(resource)),
            siblings_for(case, resource),
            exact(case.get("k_value")),
        )
        for resource in sorted(named)
    }
    got = {
        name: {r: plain(shares[r][name]) for r in table(amounts)}
        for name, amounts in expected.items()
    }
    return Verdict(_same(got, expected), got, expected)


def fair_share_hierarchical(case: Case) -> Verdict:
    """Judge one resource divided down a tree of queues."""
    expected = table(case["expected"]["fair_share"])
    got = _asked(divide_tree(case), expected)
    return Verdict(_same(got, expected), got, expected)


def divide_tree(case: Case) -> Shares:
    """Ask the product to divide down the tree."""
    total, siblings = exact(case["total"]), siblings_of(case)
    parents = parents_of(case)
    scale = scale_of(amounts_of(total, siblings))
    tree = quota.QuotaTree(_queues(total, siblings, parents, scale))
    tree.capacity = {GPUS: whole(total * scale)}
    division = fairness.Division(tree)
    inner = set(parents.values())
    for sibling in siblings:
        if sibling.name not in inner:
            demand = [0] * len(WorkloadClass)
            demand[TIER] = whole(sibling.request * scale)
            division.ask(TenantName(sibling.name), GPUS, demand)
    return {
        s.name: Fraction(sum(division.share(TenantName(s.name), GPUS)), scale)
        for s in siblings
    }


def parents_of(case: Case) -> dict[str, str]:
    """Return the parent of each queue that has one in the row."""
    names = {str(queue["name"]) for queue in case["queues"]}
    return {
        str(queue["name"]): str(queue["parent"])
        for queue in case["queues"]
        if queue.get("parent") in names
    }


def _queues(
    total: Fraction,
    siblings: Sequence[Sibling],
    parents: Mapping[str, str],
    scale: int,
) -> list[quota.Queue]:
    weights = _integers([s.weight for s in siblings])
    orders = _ranks(siblings)
    asked = requests_below(siblings, parents)
    return [
        quota.Queue(
            name=TenantName(s.name),
            parent=TenantName(parents[s.name]) if s.name in parents else None,
            guarantee=((GPUS, whole((s.guarantee or total) * scale)),)
            if s.guarantee != 0
            else (),
            # an inner queue that asks for less than its children is held to that
            limit=((GPUS, whole(s.request * scale)),)
            if s.request < asked.get(s.name, Fraction(0))
            else (),
            weight=weight,
            priority=int(s.priority),
            order=orders[s.name],
        )
        for s, weight in zip(siblings, weights, strict=True)
    ]


def requests_below(
    siblings: Sequence[Sibling], parents: Mapping[str, str]
) -> dict[str, Fraction]:
    """Add up what the children of each inner queue ask for, below their limits."""
    found: dict[str, Fraction] = {}
    for sibling in siblings:
        if sibling.name in parents:
            parent = parents[sibling.name]
            found[parent] = found.get(parent, Fraction(0)) + sibling.request
    return found


# -- comparing ----------------------------------------------------------------


def _asked(shares: Shares, expected: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(shares[name]) for name in expected}


def _same(got: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether every number that is expected is the one we got."""
    for key, value in got.items():
        if isinstance(value, Mapping):
            if not _same(value, expected[key]):
                return False
        elif not close(value, expected[key]):
            return False
    return True
