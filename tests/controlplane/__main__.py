"""Runs a control plane until Ctrl-C: `python -m tests.controlplane`."""

import argparse
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.controlplane import objects
from tests.controlplane.build import ensure
from tests.controlplane.plane import ControlPlane


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=4, help="hollow nodes of 8 H100")
    options = parser.parse_args()
    binaries = ensure(os.environ.get("K8S") or None, say)
    with (
        tempfile.TemporaryDirectory(prefix="controlplane-") as directory,
        ControlPlane(binaries, Path(directory)) as plane,
    ):
        plane.client.create_all(
            [*objects.priority_classes(), *objects.nodes(options.nodes)]
        )
        plane.start_scheduler()
        say(f"Kubernetes {binaries.version}, logs in {directory}; Ctrl-C ends it")
        say(f"export KUBECONFIG={plane.kubeconfig}")
        say(f"export PATH={binaries.directory}:$PATH")
        while True:
            signal.pause()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        main()
