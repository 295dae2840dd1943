"""Runs every benchmark, one process each, and fails when one does."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ORDER = (
    "itp_fifo.py",
    "division.py",
    "cycle.py",
    "engine_itp.py",
    "trading.py",
    "webhook.py",
)


def main() -> int:
    failed = []
    for name in ORDER:
        print(f"\n== {name}", flush=True)
        done = subprocess.run([sys.executable, str(HERE / name)], check=False)
        if done.returncode:
            failed.append(name)
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall answers right")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
