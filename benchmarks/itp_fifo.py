"""How fast the simulator is: FIFO over all ten clusters of Microsoft's ITP trace.

    python benchmarks/itp_fifo.py

Asserts the published protocol's answer (`simulator.baselines`) and the time limit.
Needs the published trace, which is not part of the project: without it, nothing is
measured. Time is CPU time of the simulation alone: reading is told beside it.
"""

import json
import sys
import time
from pathlib import Path

from simulator.baselines import fifo
from simulator.importers import load
from simulator.simulation import Finished, Started, simulate
from simulator.trace import RowErrors, Trace, parse_nodes, settle

SHARED = Path(__file__).parents[2] / "shared"
ARCHIVE = SHARED / "traces" / "elasticflow_itp" / "raw-traces.tar.gz"
EXPECTED = SHARED / "expected" / "simulator.json"
LIMIT_S = 3.0  # for all 69,351 jobs: the time of a bare event loop on this protocol
JOBS = 69_351
# Over all clusters, from the same source as the figures for each (seconds).
MEAN_JCT_S, MEAN_QUEUE_S = 18_867.79, 145.51


def replay(given: Trace) -> tuple[float, float, float]:
    """Return the seconds it took, and the sums of completion time and queueing."""
    scheduler = fifo(given)
    began = time.process_time()
    log = simulate(given, scheduler)
    took = time.process_time() - began
    submitted = sum(job.submit_s for job in given.jobs)
    started = sum(record.at for record in log if isinstance(record, Started))
    ended = sum(record.at for record in log if isinstance(record, Finished))
    return took, ended - submitted, started - submitted


def main() -> int:
    if not ARCHIVE.exists():
        print(f"skipped: {ARCHIVE.name} is not there")
        return 0
    wanted = json.loads(EXPECTED.read_text())["A2_helios_fifo_sjf"]["itp"]
    jobs, total_s, read_s, jct, queue = 0, 0.0, 0.0, 0.0, 0.0
    for cluster, nodes in sorted(wanted["nodes"].items()):
        began = time.process_time()
        read = load(f"itp:{ARCHIVE}#cluster{cluster}", 8, RowErrors())
        given = settle(read, parse_nodes(f"{nodes}x8"), {})
        read_s += time.process_time() - began
        took, jct_sum, queue_sum = replay(given)
        told = wanted["expected"].get(f"fifo/{cluster}", {})
        assert jct_sum == told.get("jct_sum", jct_sum), cluster
        assert queue_sum == told.get("queue_sum", queue_sum), cluster
        rate = len(given.jobs) / took
        count = f"{len(given.jobs):6,} jobs"
        print(f"cluster{cluster}  {count}  {took:5.2f} s  {rate:8,.0f}/s")
        jobs, total_s = jobs + len(given.jobs), total_s + took
        jct, queue = jct + jct_sum, queue + queue_sum
    print(f"all        {jobs:6,} jobs  {total_s:5.2f} s  {jobs / total_s:8,.0f}/s")
    print(f"reading {read_s:.2f} s; limit {LIMIT_S} s")
    assert jobs == JOBS
    assert round(jct / jobs, 2) == MEAN_JCT_S
    assert round(queue / jobs, 2) == MEAN_QUEUE_S
    return 0 if total_s <= LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
