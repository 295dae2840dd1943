"""One component of the control plane as a process that surely ends."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
GRACE_S = 3.0


class Process:
    """A process of its own group, its output in a log file.

    It is started with `tied`, so it ends with this Python process even if that is
    killed: its standard input is the pipe given here.
    """

    def __init__(self, name: str, command: Sequence[str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._command = list(command)
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._told_to_end = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def fell(self) -> bool:
        """Whether it ended though nobody told it to."""
        ended = self._process is not None and not self.running
        return ended and not self._told_to_end

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, tie: int) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=tie,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                # Proxies and kubeconfigs of the person at the keyboard stay out of it.
                env={"PATH": os.environ["PATH"], "HOME": str(self._directory)},
                start_new_session=True,
            )

    def stop(self, grace_s: float = GRACE_S) -> None:
        """SIGTERM, then SIGKILL after the grace period; returns when it is gone."""
        self.signal(signal.SIGTERM)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group; returns when it is gone."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            self._told_to_end = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on.

    They lie below the range that outgoing connections use, so none of those takes the
    port of a server while it restarts.
    """
    ports: list[int] = []
    for port in random.sample(range(20_000, _ephemeral()), 1_000):
        if len(ports) == count:
            return ports
        if is_free(port):
            ports.append(port)
    raise RuntimeError("no free ports on loopback")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def wait_until_free(ports: Sequence[int], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while taken := [port for port in ports if not is_free(port)]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"ports {taken} are still taken")
        time.sleep(0.02)


def _ephemeral() -> int:
    bounds = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(bounds.read_text().split()[0]) if bounds.exists() else 32_768
    return max(first, 22_000)
