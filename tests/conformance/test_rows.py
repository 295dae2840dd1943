"""Rows as no table has them, written so that their answer is plain to see.

They pin how fields are read: what is absent, null, unlimited or a fraction.
"""

from typing import Any

import pytest

from tests.conformance.runner import judge

GPU = {"flavor": "red", "resource": "gpu"}


def entry(**amounts: Any) -> dict[str, Any]:
    return {"resources": {"gpu": amounts}}


def flat(total: Any, queues: list[Any], **expected: Any) -> dict[str, Any]:
    return {
        "kind": "fair_share",
        "total": total,
        "queues": queues,
        "expected": {"fair_share": expected},
    }


def check(name: str, bound: Any, used: Any, ask: Any, short: str | None) -> Any:
    return {
        "kind": "capacity_check",
        "check": name,
        "bound": bound,
        "in_use": used,
        "request": ask,
        "expected": {"blocked": short is not None, "resource": short},
    }


def grown(name: str, job: Any, fits: bool, *queues: Any) -> dict[str, Any]:
    return {
        "kind": "capacity_check_tree",
        "check": name,
        "queues": list(queues),
        "job": {"queue": "leaf", **job},
        "request": {"gpu": 1},
        "expected": {"schedulable": fits},
    }


def cohort(expected: Any, **rows: Any) -> dict[str, Any]:
    return {
        "kind": "available-quota",
        "clusterQueues": [
            {"name": name, "cohort": "nobody listed it", **row}
            for name, row in rows.items()
        ],
        "expected": {"available": {"a": [{**GPU, "amount": expected}]}},
    }


def owns(nominal: Any, **limits: Any) -> dict[str, Any]:
    return {"quotas": [{**GPU, "nominal": nominal, **limits}]}


LIMIT, QUOTA = "over_limit", "nonpreemptible_over_quota"
A = {"name": "a", "request": 5, "over_quota_weight": 1}
B = {"name": "b", "request": 5, "over_quota_weight": 1}

ROWS = {
    "unlimited deserved is all there is": flat(4, [{**A, "deserved": -1}, B], a=4, b=0),
    "a null limit is none": flat(4, [{**A, "limit": None}], a=4),
    "a limit of 0 is 0": flat(4, [{**A, "limit": 0}, B], a=0, b=4),
    "weight 0 takes no burst": flat(
        4, [{**A, "over_quota_weight": 0, "deserved": 1}], a=1
    ),
    "weights may be fractions": flat(
        3, [{**A, "over_quota_weight": 0.5}, {**B, "over_quota_weight": 0.25}], a=2, b=1
    ),
    "the older of equals rounds up": flat(
        3, [{**A, "created": 2}, {**B, "created": 1}], a=1, b=2
    ),
    "nothing to divide": flat(None, [A], a=0),
    "a bound of -1 binds nothing": check(
        LIMIT, {"gpu": -1}, {"gpu": 9}, {"gpu": 1}, None
    ),
    "what is full is not asked for": check(
        QUOTA, {"gpu": 1, "memory": 1}, {"memory": 5}, {"gpu": 1, "memory": 0}, None
    ),
    "any resource blocks": check(
        QUOTA, {"gpu": 1, "memory": 1}, None, {"gpu": 0.5, "memory": 1.5}, "memory"
    ),
    "an ancestor's limit binds": grown(
        LIMIT,
        {},
        False,
        {"name": "top", **entry(limit=2, allocated=2)},
        {"name": "leaf", "parent": "top", **entry(limit=-1, allocated=0)},
    ),
    "what may be evicted needs no quota": grown(
        QUOTA,
        {"preemptible": True},
        True,
        {"name": "leaf", **entry(deserved=0, allocated_nonpreemptible=0)},
    ),
    "unlimited quota contains what is below": grown(
        QUOTA,
        {"preemptible": False},
        True,
        {"name": "top", **entry(deserved=-1, allocated_nonpreemptible=7)},
        {"name": "leaf", "parent": "top", **entry(deserved=1)},
    ),
    "a cohort nobody listed lends": cohort(6, a=owns(2), b=owns(4)),
    "a null limit lends all": cohort(
        6, a=owns(2, borrowingLimit=None), b=owns(4, lendingLimit=None)
    ),
    "a lending limit of 0 lends nothing": cohort(
        2, a=owns(2), b=owns(4, lendingLimit=0)
    ),
    "a borrowing limit may be half": cohort(
        2.5, a=owns(2, borrowingLimit=0.5), b=owns(4)
    ),
    "who keeps its quota is not told by it": {
        "kind": "koordinator_runtime_quota",
        "total": 10,
        "nodes": [
            {"name": "a", "shared_weight": 1, "request": 0, "min": 4, "lend": False},
            {"name": "b", "shared_weight": 1, "request": 9, "min": 1, "lend": True},
        ],
        "raw_request": None,
        "max": {"b": 5},
        "expected": {"a": 4, "b": 5},
        "expected_sum": 9,
        "expected_at_least_min": False,
    },
    "the score of an idle queue of weight 0": {
        "kind": "usage-decay",
        "input": {"consumed": {}, "pendingPenalty": None, "queueWeight": 0},
        "expected": {"usage": "inf"},
    },
    "penalties add up": {
        "kind": "usage-decay",
        "input": {
            "consumed": {"gpu": 2, "cpu": 1},
            "pendingPenalty": {"gpu": 1},
            "queueWeight": 2,
            "resourceWeights": {"gpu": 3},
        },
        "expected": {"usage": 5},
    },
    "a hypothetical use counts where it has quota": {
        "kind": "dominant-share",
        "clusterQueues": [
            {"name": "a", "cohort": "c", "weight": 0.5, **owns(2)},
            {"name": "b", "cohort": "c", "quotas": [{**GPU, "flavor": "blue"}]},
        ],
        "incoming": {"hypotheticalUsage": [{**GPU, "amount": 3}]},
        "expected": {
            "shares": [
                {"node": "a", "share": 1000, "dominantResource": "gpu"},
                {"node": "b", "share": 0, "borrowing": False},
                {"node": "c", "nodeType": "cohort", "share": 0},
            ]
        },
    },
    "borrowing at weight 0 has no bound": {
        "kind": "dominant-share",
        "clusterQueues": [
            {"name": "a", "cohort": "c", "weight": 0, **owns(0)},
            {"name": "b", "cohort": "c", **owns(2)},
        ],
        "admitted": [{"queue": "a", "usage": [{**GPU, "amount": 1}]}],
        "expected": {
            "shares": [{"node": "a", "share": (1 << 63) - 1, "borrowing": True}]
        },
    },
    "no guarantee and no maximum is no share": {
        "kind": "yunikorn_dominant_fair_share",
        "allocated": {"gpu": 5},
        "guaranteed": [],
        "fairmax": None,
        "expected": 0,
    },
    "a ratio to nothing has a sign": {
        "kind": "yunikorn_fairness_ratio",
        "left": {"gpu": -1},
        "right": {},
        "total": {"gpu": 10},
        "expectedRatio": None,
        "expectedIsInf": True,
        "expectedInfSign": -1,
    },
    "GPU memory is nothing where no GPU is known": {
        "kind": "queue_order",
        "left": {"name": "one", "priority": None, **entry(deserved=1, fair_share=1)},
        "right": {"name": "two", **entry(deserved=1, fair_share=1, allocated=1)},
        "left_job": {"devices": 4, "gpu_memory_mib_per_device": 8000},
        "min_node_gpu_memory_mib": None,
        "expected": {"first": "one"},
    },
}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_fields_are_read_as_they_mean(name: str) -> None:
    result = judge(ROWS[name], "x")
    assert result.outcome == "passed", result.reason
