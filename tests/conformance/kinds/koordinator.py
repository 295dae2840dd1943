"""Koordinator's runtime quota: a minimum, then shared weights, rounded exactly."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from scheduler.core import fairness
from tests.conformance.amounts import bound, close, exact, plain, scale_of, table, whole
from tests.conformance.oracles import (
    QuotaNode,
    Sibling,
    koordinator_runtime,
    strict_division,
)
from tests.conformance.verdict import Case, Verdict


def runtime_quota(case: Case) -> Verdict:
    """Judge what each quota may hold at run time."""
    got = {name: plain(share) for name, share in divide(case).items()}
    expected = table(case.get("expected"))
    agrees = all(close(got[name], amount) for name, amount in expected.items())
    if case.get("expected_sum") is not None:
        agrees = agrees and close(sum(got.values()), case["expected_sum"])
    if case.get("expected_at_least_min"):
        agrees = agrees and _keeps_minima(case, got)
    return Verdict(agrees, got, expected)


def divide(case: Case) -> dict[str, Fraction]:
    """Ask the product to divide; what is kept from lending stays with its owner."""
    nodes = sorted(case["nodes"], key=lambda node: str(node["name"]))
    total = exact(case["total"])
    scale = scale_of([total, *(a for node in nodes for a in _amounts(case, node))])
    weights = [max(Fraction(0), exact(node.get("shared_weight"))) for node in nodes]
    parts = scale_of(weights, fine=1)
    claims = [
        _claim(case, node, order, whole(weight * parts), scale)
        for order, (node, weight) in enumerate(zip(nodes, weights, strict=True))
    ]
    shares = fairness.divide(whole(total * scale), claims, 1)
    return {
        str(node["name"]): Fraction(max(share, claim.kept), scale)
        for node, claim, share in zip(nodes, claims, shares, strict=True)
    }


def _claim(
    case: Case, node: Mapping[str, Any], order: int, weight: int, scale: int
) -> fairness.Claim:
    least, ceiling = _least(node), _ceiling(case, node)
    return fairness.Claim(
        guarantee=whole(least * scale),
        demands=(whole(_request(case, node) * scale),),
        weight=weight,
        order=order,
        ceiling=None if ceiling is None else whole(ceiling * scale),
        kept=0 if _lends(node) else whole(least * scale),
    )


def _least(node: Mapping[str, Any]) -> Fraction:
    return max(exact(node.get("min")), exact(node.get("guarantee")))


def _lends(node: Mapping[str, Any]) -> bool:
    lend = node.get("lend")
    return lend is None or bool(lend)


def _ceiling(case: Case, node: Mapping[str, Any]) -> Fraction | None:
    most = node.get("max", table(case.get("max")).get(node["name"]))
    return bound(most)


def _request(case: Case, node: Mapping[str, Any]) -> Fraction:
    raw = table(case.get("raw_request")).get(node["name"])
    return exact(node.get("request") if raw is None else raw)


def _amounts(case: Case, node: Mapping[str, Any]) -> list[Fraction | None]:
    return [_least(node), _request(case, node), _ceiling(case, node)]


def _keeps_minima(case: Case, got: Mapping[str, Any]) -> bool:
    """Whether everybody who asks for its minimum has it."""
    return all(
        exact(got[str(node["name"])])
        >= min(exact(node.get("min")), _request(case, node))
        for node in case["nodes"]
    )


def published(case: Case) -> dict[str, int]:
    """Koordinator's own arithmetic on the case.

    Raises
    ------
    ValueError
        Where an amount is not whole: Koordinator knows integers only.
    """
    nodes = [
        QuotaNode(
            name=str(node["name"]),
            weight=whole(exact(node.get("shared_weight"))),
            request=whole(_capped(case, node)),
            least=whole(_least(node)),
            lends=_lends(node),
        )
        for node in case["nodes"]
    ]
    return koordinator_runtime(whole(exact(case["total"])), nodes)


def rounded_once(case: Case) -> dict[str, int]:
    """Give the same division, with the remainders handed out once at the end."""
    siblings = [
        Sibling(
            name=str(node["name"]),
            request=_capped(case, node),
            guarantee=_least(node),
            weight=exact(node.get("shared_weight")),
            age=(0.0, str(node["name"])),
        )
        for node in case["nodes"]
    ]
    idle = {
        str(node["name"]): max(Fraction(0), _least(node) - _capped(case, node))
        for node in case["nodes"]
        if not _lends(node)
    }
    total = exact(case["total"]) - sum(idle.values(), Fraction(0))
    shares = strict_division(total, siblings)
    return {name: whole(share + idle.get(name, 0)) for name, share in shares.items()}


def _capped(case: Case, node: Mapping[str, Any]) -> Fraction:
    ceiling, request = _ceiling(case, node), _request(case, node)
    return request if ceiling is None else min(request, ceiling)
