"""How long one look at the queue takes when a burst has come: lane 1, CPU seconds.

    python benchmarks/cycle.py [--json]

One tenant, 1,000 nodes of eight GPUs, so many gangs of one GPU that come at once; half
of them covered. Asserted: each is admitted, and the time grows with their number, not
with its square (what a start leaves as it is must not be computed anew for each).
"""

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scheduler.core import (
    Admit,
    Engine,
    NodeUp,
    PodSubmitted,
    Policy,
    TenantsChanged,
)
from tests.builders import CLASS, node, pod, tenant

COUNTS = (500, 1_000, 2_000, 4_000)
NODES = 1_000
MOST_GROWTH = 3.0
"""Most that twice as many gangs may take longer; the square would be four times."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    as_json = parser.parse_args().json
    seconds = {count: min(measure(count) for _ in range(3)) for count in COUNTS}
    for fewer, more in pairwise(COUNTS):
        growth = seconds[more] / seconds[fewer]
        assert growth < MOST_GROWTH, f"{more} gangs take {growth:.1f} times as long"
    if as_json:
        print(json.dumps({str(count): spent for count, spent in seconds.items()}))
        return 0
    for count, spent in seconds.items():
        print(f"{count:5,} gangs  {spent:.3f} s  {1000 * spent / count:.2f} ms a gang")
    return 0


def measure(count: int) -> float:
    """Seconds of CPU that one cycle takes to admit `count` gangs."""
    engine = Engine(Policy(inline=False))
    for index in range(NODES):
        engine.observe(NodeUp(node(f"n{index}", cpu=96_000, memory=1 << 20)), 0.0)
    owner = tenant("a", f"{count // 2}x{CLASS}")
    engine.observe(TenantsChanged((owner,)), 0.0)
    for index in range(count):
        asks = pod(f"p{index}", "a", 1, cpu=1_000, memory=1_024)
        engine.observe(PodSubmitted(asks), index / count)
    begun = time.process_time()
    actions = engine.cycle(10.0)
    spent = time.process_time() - begun
    assert sum(isinstance(action, Admit) for action in actions) == count
    return spent


if __name__ == "__main__":
    sys.exit(main())
