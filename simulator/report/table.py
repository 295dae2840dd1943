"""The figures as tables on the screen.

Hidden here: which figures matter to a person, their names, and how amounts are written.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from simulator.fluid import FluidRun, Served

Summary = Mapping[str, Any]
Row = tuple[str, Callable[[Summary], str]]


def duration(seconds: float) -> str:
    """Write a duration as people say it: ``45 s``, ``3.2 min``, ``15 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    value, unit = (seconds / 60, "min") if seconds < 5400 else (seconds / 3600, "h")
    return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"


def gpu_hours(gpu_s: float) -> str:
    """Write GPU-seconds as GPU-hours."""
    return f"{gpu_s / 3600:,.1f} GPU-h"


def percent(part: float) -> str:
    """Write a part of one."""
    return f"{100 * part:.1f} %"


HEADLINES: tuple[Row, ...] = (
    ("utilisation", lambda s: percent(s["utilisation"])),
    ("makespan", lambda s: duration(s["makespan_s"])),
    ("mean completion time", lambda s: duration(s["mean_jct_s"])),
    ("mean queueing", lambda s: duration(s["mean_queue_s"])),
    ("P95 queueing", lambda s: duration(s["p95_queue_s"])),
    ("evenness (Jain)", lambda s: f"{s['jain_speed']:.3f}"),
    ("covered demand waited", lambda s: duration(s["guarantee_wait_s"])),
    ("guarantee violated", lambda s: duration(s["guarantee_violation_s"])),
    ("reclaim latency, P95", lambda s: _latency(s)),
    ("evictions", lambda s: f"{s['evictions']:,}"),
    ("lost work", lambda s: gpu_hours(s["lost_gpu_s"])),
    ("jobs that never ran", lambda s: f"{s['unfinished']:,}"),
)
"""Figure by figure, what a person looks at first."""

GROUP: tuple[Row, ...] = (
    ("jobs", lambda s: f"{s['jobs']:,}"),
    ("mean queue", lambda s: duration(s["mean_queue_s"])),
    ("P95 queue", lambda s: duration(s["p95_queue_s"])),
    ("mean JCT", lambda s: duration(s["mean_jct_s"])),
    ("covered waits", lambda s: duration(s["guarantee_wait_s"])),
    ("violated", lambda s: duration(s["guarantee_violation_s"])),
    ("burst GPU-h", lambda s: f"{s['burst_gpu_s'] / 3600:,.0f}"),
    ("lost GPU-h", lambda s: f"{s['lost_gpu_s'] / 3600:,.1f}"),
)
"""What a person looks at for one tenant or class."""


def _latency(found: Summary) -> str:
    return duration(found["reclaim_latency_s"]) if found["reclaims"] else "no reclaim"


def print_policies(console: Console, policies: Mapping[str, Summary]) -> None:
    """Print runs side by side: the headlines, then rows for tenants and classes."""
    console.print(_headlines(policies))
    for kind, title in (("tenants", "tenant"), ("classes", "class")):
        if any(len(found[kind]) > 1 for found in policies.values()):
            console.print(_groups(kind, title, policies))


def print_fluid(console: Console, run: FluidRun) -> None:
    """Print a fluid replay: what quotas and sharing serve of each tenant's demand."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("tenant")
    for name in ("quota", "demand", "static", "shared", "unmet static", "unmet shared"):
        table.add_column(name, justify="right")
    for name, served in run.tenants.items():
        table.add_row(name, *_served(served))
    table.add_section()
    table.add_row("all", *_served(run.total), style="bold")
    console.print(table)
    console.print(
        f"GPU-minutes, over {run.minutes:,} minutes and {run.capacity} GPUs. "
        f"Utilisation: static {percent(run.utilisation_static)}, "
        f"shared {percent(run.utilisation_shared)}. "
        f"Guarantee violated for {run.guarantee_violation_s} s."
    )


def _served(served: Served) -> Sequence[str]:
    amounts = (served.quota, served.demand, served.static, served.shared)
    unmet = (served.unmet_static, served.unmet_shared)
    return [f"{amount:,.0f}" for amount in (*amounts, *unmet)]


def _headlines(policies: Mapping[str, Summary]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for policy in policies:
        table.add_column(policy, justify="right")
    for name, write in HEADLINES:
        table.add_row(name, *(write(found) for found in policies.values()))
    return table


def _groups(kind: str, title: str, policies: Mapping[str, Summary]) -> Table:
    several = len(policies) > 1
    shown = GROUP[1:] if several else GROUP  # all policies get the same jobs
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(title, no_wrap=True)
    if several:
        table.add_column("policy", no_wrap=True)
    for name, _ in shown:
        table.add_column(name.replace(" ", "\n", 1), justify="right", no_wrap=True)
    first = next(iter(policies))
    names = sorted({name for found in policies.values() for name in found[kind]})
    for name in names:
        for policy, found in policies.items():
            label = [name if policy == first else "", *([policy] if several else [])]
            table.add_row(*label, *(write(found[kind][name]) for _, write in shown))
        if several:
            table.add_row()
    return table
