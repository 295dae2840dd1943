"""Answers for people: what a row of a tenant says, and what making it costs."""

import time

from scheduler.core import Engine, Policy
from scheduler.core.events import NodeUp, TenantsChanged
from scheduler.core.workload import TenantName
from tests.builders import node, pod, tenant
from tests.core.desk import Desk

CLASSES = (
    "a100-40gb",
    "a100-80gb",
    "h100-80gb",
    "h200-141gb",
    "l4-24gb",
    "l40s-48gb",
    "t4-16gb",
    "v100-16gb",
)


def test_rows_of_many_tenants_in_a_shortage_are_cheap() -> None:
    """What is short is written down once, not looked for in every row."""
    engine = Engine(Policy())
    engine.observe(NodeUp(node("n", " ".join(f"8x{c}" for c in CLASSES))), 0.0)
    owned = " ".join(f"1x{c}" for c in CLASSES)
    queues = tuple(tenant(f"t{i:04}", owned) for i in range(1000))
    engine.observe(TenantsChanged(queues), 0.0)
    engine.tenants(0.0)  # the guarantees are scaled, and the shares are computed
    begun = time.perf_counter()
    rows = engine.tenants(0.0)
    assert time.perf_counter() - begun < 2
    assert len(rows) == 1000 * len(CLASSES)
    assert all(len(row.conditions) == 1 for row in rows)
    assert rows[0].conditions[0].startswith("Unreachable: guarantees of a100-40gb: 1 +")


def test_a_tenant_that_gets_tenants_below_it_says_that_its_pods_run_on() -> None:
    """They are charged where they are; nothing new may start there."""
    desk = Desk([node("n1")], [tenant("a", "4xh100-80gb")], Policy(inline=False))
    desk.start(pod("p", "a", 2))
    assert rows(desk) == {"a": ()}
    desk.tenants(tenant("a", "4xh100-80gb"), tenant("b", parent="a"))
    inner = "Inner: it has tenants below it now; its own pods run on"
    assert rows(desk) == {"a": (inner,)}
    desk.submit(pod("q", "a", 1))
    desk.gone("p")
    assert rows(desk) == {"a": ()}


def rows(desk: Desk) -> dict[TenantName, tuple[str, ...]]:
    return {row.name: row.conditions for row in desk.engine.tenants(desk.now)}
