"""The offline half of the demo: two days of a real trace under three policies.

Two training clusters of Microsoft's ITP trace (``data/PROVENANCE.md``) share 160 GPUs
with a service that bursts within its guarantee. This is the call behind it, which
works as well for your own traces::

    fairshare-sim compare --trace itp:FILE --trace burst:... --cluster FILE --html OUT
"""

import sys
from pathlib import Path

from simulator.__main__ import app

DATA = Path(__file__).parent / "data"
REPORT = Path("build") / "demo.html"
BURSTS = "tenant=serving,gpus=32,pod=2,on=2400,off=7200,from=3196800,until=3369600"


def main() -> int:
    """Compare the policies, and say where the page is."""
    REPORT.parent.mkdir(exist_ok=True)
    traces = (f"itp:{DATA}/cluster01.csv", f"itp:{DATA}/cluster02.csv")
    arguments = [f"--trace={trace}" for trace in (*traces, f"burst:{BURSTS}")]
    arguments += [f"--cluster={DATA}/cluster.yaml", f"--html={REPORT}"]
    arguments.append("--title=Two days of a real trace under three policies")
    code: int = app(["compare", *arguments], standalone_mode=False) or 0
    print(f"Plots: {REPORT.resolve().as_uri()}")
    return code


if __name__ == "__main__":
    sys.exit(main())
