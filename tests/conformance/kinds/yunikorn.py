"""YuniKorn's share tables.

Their ratios are no part of the product, which compares what is borrowed. An oracle
checks that we read them right; it says nothing about the product.
"""

import math

from tests.conformance.amounts import close, number, table
from tests.conformance.oracles import (
    Amounts,
    yunikorn_compare,
    yunikorn_ratio,
    yunikorn_share,
    yunikorn_vector,
)
from tests.conformance.verdict import Case, Verdict


def dominant_fair_share(case: Case) -> Verdict:
    """Judge a queue's share: of its guarantee, else of its maximum."""
    got = yunikorn_share(
        _amounts(case, "allocated"),
        _amounts(case, "guaranteed"),
        _amounts(case, "fairmax"),
    )
    return Verdict(close(got, case["expected"]), got, case["expected"], "oracle")


def compare_usage_ratio(case: Case) -> Verdict:
    """Judge the comparison of two uses of one total."""
    total = _amounts(case, "total")
    sides = [yunikorn_vector(_amounts(case, side), total) for side in ("left", "right")]
    got = yunikorn_compare(sides[0], sides[1])
    return Verdict(got == case["expected"], got, case["expected"], "oracle")


def fairness_ratio(case: Case) -> Verdict:
    """Judge the ratio of the two largest shares."""
    total = _amounts(case, "total")
    sides = [yunikorn_vector(_amounts(case, side), total) for side in ("left", "right")]
    got = yunikorn_ratio(sides[0], sides[1])
    expected = number(case.get("expectedRatio") or 0)
    if case.get("expectedIsInf"):
        sign = case.get("expectedInfSign") or 0  # 0: either will do
        agrees = math.isinf(got) and (not sign or (got > 0) == (sign > 0))
        return Verdict(agrees, got, f"inf, sign {sign}", "oracle")
    return Verdict(close(got, expected), got, expected, "oracle")


def compare_shares(case: Case) -> Verdict:
    """Judge which of two queues has the larger share."""
    ours, theirs = (
        yunikorn_share(
            _amounts(case, f"{side}Allocated"),
            _amounts(case, f"{side}Guaranteed"),
            _amounts(case, f"{side}FairMax"),
        )
        for side in ("left", "right")
    )
    got = (ours > theirs) - (ours < theirs)
    expected = case.get("expectedRatio", case.get("expected"))
    return Verdict(got == expected, got, expected, "oracle")


def _amounts(case: Case, key: str) -> Amounts:
    return {name: float(v) for name, v in table(case.get(key)).items() if v is not None}
