"""Closed forms of the literature, as collected beside the project."""

import json
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from scheduler.core import Form, Queue, QuotaTree, TenantName, charge
from scheduler.core.fairness import borrowed_share
from simulator.metrics import jain

EXPECTED = Path(__file__).parents[2] / "shared/expected/simulator.json"
ANY = Form("any-gpu")
A, B = TenantName("A"), TenantName("B")


@pytest.fixture
def closed() -> dict[str, Any]:
    if not EXPECTED.exists():
        pytest.skip("the collected expectations are not beside the project")
    found: dict[str, Any] = json.loads(EXPECTED.read_text())["A8_closed_form"]
    return found


def test_progressive_filling_by_dominant_share_is_drf(closed: dict[str, Any]) -> None:
    """Ghodsi et al. 2011, 4.1: CPU and memory; three tasks of A and two of B.

    One tree per resource: nobody owns anything, so all use is borrowed, and what a
    tenant borrows of what there is is its share of that resource.
    """
    drf = closed["drf"]
    capacity = tuple(drf["capacity"].values())
    tasks = {A: drf["A_task"], B: drf["B_task"]}
    trees = [QuotaTree([Queue(name=A), Queue(name=B, order=1)]) for _ in capacity]
    for tree, amount in zip(trees, capacity, strict=True):
        tree.capacity = {ANY: amount * charge(ANY)}
    count = {A: 0, B: 0}

    def dominant(name: TenantName) -> Fraction:
        return max(Fraction(borrowed_share(tree, name)) for tree in trees)

    def fits(name: TenantName) -> bool:
        pairs = zip(trees, tasks[name], strict=True)
        return all(n * charge(ANY) <= tree.available(name, ANY) for tree, n in pairs)

    while ready := [name for name in tasks if fits(name)]:
        poorest = min(ready, key=lambda name: (dominant(name), name))
        count[poorest] += 1
        for tree, amount in zip(trees, tasks[poorest], strict=True):
            tree.charge(poorest, ANY, amount * charge(ANY))
    assert {str(name): n for name, n in count.items()} == drf["expected_tasks"]
    assert dominant(A) == dominant(B)
    assert float(dominant(A)) == pytest.approx(drf["dominant_share"])
    assert ceil(1000 * dominant(A)) == 667


def test_jains_index(closed: dict[str, Any]) -> None:
    """1 where all are equal, 1/n where one has everything."""
    for case in closed["jain"]:
        assert jain(case["x"]) == pytest.approx(case["J"]), case
    assert len(closed["jain"]) >= 3
