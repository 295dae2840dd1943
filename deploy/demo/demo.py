"""``make demo``: the main job twice, with the same engine, live and offline."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

HERE = Path(__file__).parent
PYTHON_M = (sys.executable, "-m")
STOP_S = 10.0


def live(console: Console) -> None:
    """Start the real service, let a second process drive a cluster through it."""
    console.print(Rule("Live: the service decides for a cluster"))
    with tempfile.TemporaryFile("w+") as log:
        service = subprocess.Popen(
            [*PYTHON_M, "scheduler", "serve", "--config", str(HERE / "fairshare.yaml")],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            url = address(service)
            console.print(f"fairshare serve, process {service.pid}, at {url}")
            subprocess.run([*PYTHON_M, "deploy.demo.live", url], check=True)
        except (RuntimeError, subprocess.CalledProcessError):
            log.seek(0)
            console.print(log.read(), markup=False)
            raise
        finally:
            service.send_signal(signal.SIGTERM)
            code = service.wait(timeout=STOP_S)
    console.print(f"SIGTERM: the service ended with status {code}.\n")


def address(service: "subprocess.Popen[str]") -> str:
    """Return the service's URL from the one line it prints when it listens."""
    assert service.stdout is not None
    line = service.stdout.readline()
    if not line:
        raise RuntimeError("the service did not start; its log follows")
    return f"http://{json.loads(line)['http']}"


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
