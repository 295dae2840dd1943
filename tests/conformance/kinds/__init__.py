"""Which adapter answers a kind of case, and which kinds are later work."""

from collections.abc import Mapping
from typing import Any, Final

from tests.conformance.kinds import (
    kai_queues,
    kai_shares,
    koordinator,
    kueue,
    yunikorn,
)
from tests.conformance.verdict import Adapter

ADAPTERS: Final[dict[str, Adapter]] = {
    "fair_share": kai_shares.fair_share,
    "fair_share_multi": kai_shares.fair_share_multi,
    "fair_share_hierarchical": kai_shares.fair_share_hierarchical,
    "queue_order": kai_queues.queue_order,
    "capacity_check": kai_queues.capacity_check,
    "capacity_check_tree": kai_queues.capacity_check_tree,
    "dominant-share": kueue.dominant_share,
    "available-quota": kueue.available_quota,
    "usage-decay": kueue.usage_decay,
    "fair-victim-queue-order": kueue.victim_queue_order,
    "policy-check": kueue.policy_check,
    "koordinator_runtime_quota": koordinator.runtime_quota,
    "yunikorn_dominant_fair_share": yunikorn.dominant_fair_share,
    "yunikorn_compare_usage_ratio": yunikorn.compare_usage_ratio,
    "yunikorn_fairness_ratio": yunikorn.fairness_ratio,
    "yunikorn_compare_shares": yunikorn.compare_shares,
}

_CYCLES = "a whole scheduling cycle: needs nodes and an engine, not shares alone"
_VICTIMS = "a search for victims: comes with the rules of reclaim"

LATER: Final[dict[str, str]] = {
    "scenario": _CYCLES,
    "cycle-fair": _CYCLES,
    "cycle-classical": _CYCLES,
    "volcano": _CYCLES,
    "issue": _CYCLES,
    "reclaim_rule": _VICTIMS,
    "reclaim_strategy": _VICTIMS,
    "min_runtime": _VICTIMS,
    "preempt-classical": _VICTIMS,
    "preempt-hierarchical": _VICTIMS,
    "preempt-fair": _VICTIMS,
    "candidate-order": _VICTIMS,
    "yunikorn_preemption_doc": _VICTIMS,
}
"""Kinds that are skipped, and why."""

_SHAPES: Final = {
    "volcano": frozenset({"actions", "podgroups", "nodes"}),
    "issue": frozenset({"setup", "target"}),
}


def kind_of(case: Mapping[str, Any]) -> str:
    """Name the kind; files that do not tell it are known by their fields."""
    if case.get("kind") is not None:
        return str(case["kind"])
    for kind, fields in _SHAPES.items():
        if fields <= case.keys():
            return kind
    return "unknown"
