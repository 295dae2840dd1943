"""``make demo``: the main job twice, with the same engine, live and offline."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

from deploy.demo.service import served

HERE = Path(__file__).parent
PYTHON_M = (sys.executable, "-m")


def live(console: Console) -> None:
    """Start the real service, let a second process drive a cluster through it."""
    console.print(Rule("Live: the service decides for a cluster"))
    with tempfile.TemporaryDirectory(prefix="fairshare-demo-") as directory:
        log = Path(directory) / "service.log"
        try:
            with served(HERE / "fairshare.yaml", log) as service:
                where = f"process {service.pid}, at {service.url}"
                console.print(f"fairshare serve, {where}")
                subprocess.run([*PYTHON_M, "deploy.demo.live", service.url], check=True)
        except (RuntimeError, subprocess.CalledProcessError):
            console.print(log.read_text(), markup=False)
            raise
    console.print(f"SIGTERM: the service ended with status {service.status}.\n")


def offline(console: Console) -> None:
    """Replay a real trace under three policies."""
    console.print(Rule("Offline: the same engine replays a real trace"))
    subprocess.run([sys.executable, str(HERE / "offline.py")], check=True)


def main() -> int:
    """Run both halves."""
    console = Console(width=None if sys.stdout.isatty() else 118)
    begin = time.monotonic()
    os.environ.setdefault("COLUMNS", "118")
    try:
        live(console)
        offline(console)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        console.print(f"[red]the demo failed:[/] {error}")
        return 1
    console.print(f"\nDone in {time.monotonic() - begin:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
