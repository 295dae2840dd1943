"""Every difference on purpose, in its smallest example, with both answers."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.conformance.differences import TABLE
from tests.conformance.kinds import ADAPTERS
from tests.conformance.runner import judge
from tests.conformance.verdict import Case, Verdict


@dataclass(frozen=True)
class Example:
    """A case that expects what the peer's formula gives, and what we give."""

    case: dict[str, Any]
    ours: dict[str, Any]


def flat(total: float, *queues: dict[str, Any], k: float = 0) -> dict[str, Any]:
    return {
        "kind": "fair_share",
        "total": total,
        "k_value": k,
        "queues": [{"over_quota_weight": 1, **queue} for queue in queues],
    }


def tree(total: float, *queues: dict[str, Any]) -> dict[str, Any]:
    return {**flat(total, *queues), "kind": "fair_share_hierarchical"}


def shares(case: dict[str, Any], theirs: dict[str, Any], **ours: Any) -> Example:
    return Example({**case, "expected": {"fair_share": theirs}}, {"fair_share": ours})


# A tier's leftover unit reaches a lower tier before the tier itself (peers.md 2.2 A).
LEAK = shares(
    flat(
        5,
        {"name": "a", "priority": 200, "request": 5},
        {"name": "b", "priority": 200, "request": 5},
        {"name": "c", "priority": 100, "request": 1},
    ),
    {"a": 2, "b": 2, "c": 1},
    a=3,
    b=2,
    c=0,
)

MORE_THAN_ASKED = shares(
    flat(1, {"name": "a", "request": 0.6}, {"name": "b", "request": 0.6}),
    {"a": 1, "b": 0},
    a=0.5,
    b=0.5,
)

FRACTIONS = shares(
    flat(3.5, {"name": "a", "request": 4}, {"name": "b", "request": 4}),
    {"a": 2, "b": 1.5},
    a=1.75,
    b=1.75,
)

# Weights 1:2 share what `small` leaves of 9: 2 2/3 and 5 1/3.
ROUNDS = shares(
    flat(
        9,
        {"name": "small", "over_quota_weight": 3, "request": 1},
        {"name": "one", "request": 5},
        {"name": "two", "over_quota_weight": 2, "request": 9},
    ),
    {"small": 1, "one": 2, "two": 6},
    small=1,
    one=3,
    two=5,
)

PAST_USE = shares(
    flat(
        8,
        {"name": "busy", "request": 8, "usage": 1.0},
        {"name": "new", "request": 8, "usage": 0.0},
        k=1,
    ),
    {"busy": 0, "new": 8},
    busy=1,
    new=7,
)

PARENT_ASKS_MORE = shares(
    tree(
        4,
        {"name": "p", "request": 4},
        {"name": "child", "parent": "p", "request": 4, "limit": 1},
        {"name": "other", "request": 4},
    ),
    {"p": 2, "child": 1, "other": 2},
    p=1,
    child=1,
    other=3,
)

CHILDREN_OWN_MORE = shares(
    tree(
        6,
        {"name": "p", "request": 12, "deserved": 2},
        {"name": "a", "parent": "p", "request": 6, "deserved": 3},
        {"name": "b", "parent": "p", "request": 6},
    ),
    {"p": 6, "a": 5, "b": 1},
    p=6,
    a=4,
    b=2,
)

# 3 among weights 1:1:3 rounds to 1, 0, 2; what c hands back goes to a alone.
REMAINDERS = Example(
    {
        "kind": "koordinator_runtime_quota",
        "total": 3,
        "nodes": [
            {"name": "a", "shared_weight": 1, "request": 2, "min": 0},
            {"name": "b", "shared_weight": 1, "request": 1, "min": 0},
            {"name": "c", "shared_weight": 3, "request": 1, "min": 0},
        ],
        "expected": {"a": 2, "b": 0, "c": 1},
    },
    {"a": 1, "b": 1, "c": 1},
)

QUOTA = {"flavor": "red", "resource": "gpu"}
WEIGHT_0 = Example(
    {
        "kind": "available-quota",
        "clusterQueues": [
            {"name": "q", "cohort": "c", "weight": 0, "quotas": [{**QUOTA}]},
            {"name": "r", "cohort": "c", "quotas": [{**QUOTA, "nominal": 4}]},
        ],
        "admitted": [],
        "expected": {"available": {"q": [{**QUOTA, "amount": 4}]}},
    },
    {"available": {"q": [{**QUOTA, "amount": 0}]}, "potential": {}},
)

HALF_LIFE_0 = Example(
    {
        "kind": "usage-decay",
        "input": {"usage": 2, "halfLifeSeconds": 0, "sampleSeconds": 300, "samples": 9},
        "expected": {"consumed": 0},
    },
    {"consumed": 2.0},
)

EXAMPLES = {
    "lower tier is served first": LEAK,
    "more is given than asked": MORE_THAN_ASKED,
    "fractions are rounded": FRACTIONS,
    "every round is rounded": ROUNDS,
    "past use tilts without bound": PAST_USE,
    "parent asks more than its children may hold": PARENT_ASKS_MORE,
    "children own more than their parent": CHILDREN_OWN_MORE,
    "remainders are given every round": REMAINDERS,
    "weight 0 borrows": WEIGHT_0,
    "half-life is 0": HALF_LIFE_0,
}


def test_every_difference_has_an_example() -> None:
    assert sorted(EXAMPLES) == sorted(found.name for found in TABLE)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_both_answers_are_known(name: str) -> None:
    example = EXAMPLES[name]
    kind = example.case["kind"]
    verdict = ADAPTERS[kind](example.case)
    got = verdict.got
    assert isinstance(got, dict)
    if "fair_share" in example.ours and "fair_share" not in got:
        got = {"fair_share": got}
    assert got == example.ours
    result = judge(example.case, "x")
    assert result.outcome == "differs"
    assert result.reason.startswith(f"{name}: ")


def test_the_leak_shows_both_answers() -> None:
    """The example of peers.md 2.2 A, as it is printed."""
    reason = judge(LEAK.case, "x").reason
    assert "theirs {'fair_share': {'a': 2, 'b': 2, 'c': 1}}" in reason
    assert "ours {'fair_share': {'a': 3, 'b': 2, 'c': 0}}" in reason


def test_a_difference_excuses_nothing_where_its_rule_does_not_show() -> None:
    """The same queues with room for all: another answer is a plain failure."""
    wrong = {**LEAK.case, "total": 11}
    assert judge(wrong, "x").outcome == "failed"


TAMPERED = sorted(
    name for name in EXAMPLES if name not in ("weight 0 borrows", "half-life is 0")
)


@pytest.mark.parametrize("name", TAMPERED)
def test_a_difference_excuses_our_rule_and_no_other_answer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit given to another queue than our rule says is a plain failure."""
    case = EXAMPLES[name].case
    honest = ADAPTERS[case["kind"]]

    def tampered(case: Case) -> Verdict:
        verdict = honest(case)
        return replace(verdict, agrees=False, got=_moved(verdict.got))

    assert judge(case, "x").outcome == "differs"
    monkeypatch.setitem(ADAPTERS, case["kind"], tampered)
    assert judge(case, "x").outcome == "failed"


def _moved(got: Any) -> Any:
    """Take a unit from the first queue and give it to the last."""
    if "fair_share" in got:
        return {**got, "fair_share": _moved(got["fair_share"])}
    first, *_, last = got
    return {**got, first: got[first] - 1, last: got[last] + 1}


def test_several_resources_are_held_to_our_rule_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One wrong number among right ones is enough."""
    queues = [
        {
            "name": row["name"],
            "priority": row["priority"],
            "resources": {"gpu": {"over_quota_weight": 1, "request": row["request"]}},
        }
        for row in LEAK.case["queues"]
    ]
    theirs = {"a": {"gpu": 2}, "b": {"gpu": 2}, "c": {"gpu": 1}}
    case = {
        "kind": "fair_share_multi",
        "total": {"gpu": 5},
        "queues": queues,
        "expected": {"fair_share": theirs},
    }
    assert judge(case, "x").outcome == "differs"
    wrong = {"a": {"gpu": 2}, "b": {"gpu": 3}, "c": {"gpu": 0}}
    tampered = Verdict(False, wrong, theirs)
    monkeypatch.setitem(ADAPTERS, "fair_share_multi", lambda case: tampered)
    assert judge(case, "x").outcome == "failed"
