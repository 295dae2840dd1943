"""`fairshare serve` as a process of its own, whose life is a `with` statement."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_S = 10.0


@dataclass
class Served:
    """A service that runs; `status` is what it ended with."""

    url: str
    grpc: str
    pid: int
    status: int | None = None


@contextmanager
def served(config: Path, log: Path) -> Iterator[Served]:
    """Start the service; end it with the block. What it logs goes to a file."""
    command = [sys.executable, "-m", "scheduler", "serve", "--config", str(config)]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            service = Served(*_addresses(process), process.pid)
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(STOP_S)
            except BaseException:
                process.kill()
                raise
        service.status = status


def _addresses(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return URL and gRPC address from the one line it prints when it listens."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the service did not start; its log follows")
    told = json.loads(line)
    return f"http://{told['http']}", told["grpc"]
