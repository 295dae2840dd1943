"""How fast the engine decides, and how that grows: ITP jobs through the simulator.

    python benchmarks/engine_itp.py

Two ladders: more jobs of one cluster under the same load (time per job should stay),
and more of everything at once: the demo's two clusters, that share, on 1, 2 and 4
times the nodes with 1, 2 and 4 times the jobs. Asserts that every job ends and that no
promise breaks. The first ladder needs the published trace and is left out without it.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

from scheduler.core import Engine, Form, Policy, TenantName
from simulator.audit import audit
from simulator.importers import load
from simulator.metrics import figures, outcomes
from simulator.simulation import simulate
from simulator.trace import RowErrors, Trace, merge, parse_nodes, settle

HERE = Path(__file__).parent
DEMO = HERE.parent / "deploy" / "demo" / "data"
ARCHIVE = HERE.parents[1] / "shared/traces/elasticflow_itp/raw-traces.tar.gz"
GPU = Form("gpu")


def measure(name: str, given: Trace) -> None:
    """Replay under the engine, print one line, and check the promises."""
    policy = Policy(inline=False)
    began = time.process_time()
    log = simulate(given, Engine(policy), seed=0)
    took = time.process_time() - began
    found = audit(given, log, policy.reclaim_bound_s)
    done = figures(outcomes(given, log), 1, 1.0)
    each = 1000 * took / len(given.jobs)
    print(
        f"{name:32} {len(given.jobs):6,} jobs {len(given.nodes):4} nodes"
        f" {took:7.2f} s {len(given.jobs) / took:7,.0f}/s {each:6.2f} ms a job"
        f" {done.evictions:5,} evictions",
        flush=True,
    )
    assert done.unfinished == 0
    assert sum(episode.violation_s for episode in found.episodes) == 0
    assert not found.broken


def one_cluster() -> None:
    """More and more jobs of cluster 03 on its 64 nodes."""
    whole = load(f"itp:{ARCHIVE}#cluster03", 8, RowErrors())
    for quarter in (1, 2, 4):
        part = replace(whole, jobs=whole.jobs[: len(whole.jobs) * quarter // 4])
        measure(
            f"cluster03, {quarter}/4 of its jobs", settle(part, parse_nodes("64x8"), {})
        )


def copies(times: int) -> Trace:
    """The demo's clusters, several times over, as tenants of one larger cluster."""
    traces: list[Trace] = []
    for copy in range(times):
        for name in ("cluster01", "cluster02"):
            read = load(f"itp:{DEMO / name}.csv", 8, RowErrors())
            tenant = TenantName(f"{name}-{copy}")
            jobs = (replace(j, id=f"{j.id}-{copy}", tenant=tenant) for j in read.jobs)
            traces.append(replace(read, jobs=tuple(jobs)))
    whole = merge(traces, RowErrors())
    guarantees = {name: ((GPU, 80),) for name in whole.tenant_names()}
    return settle(whole, parse_nodes(f"{20 * times}x8"), guarantees)


def main() -> int:
    if ARCHIVE.exists():
        one_cluster()
    for times in (1, 2, 4):
        measure(f"demo clusters, {times} times over", copies(times))
    return 0


if __name__ == "__main__":
    sys.exit(main())
