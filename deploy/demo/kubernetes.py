"""``make demo-kubernetes``: a day of a shared fleet on a real control plane.

etcd, kube-apiserver, kube-controller-manager and kube-scheduler run as processes of
this machine, and so does our service; only the nodes are hollow (KWOK). All of it ends
with the demo.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from rich.console import Console
from rich.padding import Padding

from deploy.demo import page, work
from deploy.demo.claims import DemoError, interrupted
from deploy.demo.service import served
from deploy.demo.shift import Shift
from deploy.demo.stage import Stage
from deploy.demo.telling import Story
from scheduler.config import load_config, policy_of
from tests.controlplane import objects
from tests.controlplane.build import Binaries, UnavailableError, ensure
from tests.controlplane.client import ApiError
from tests.controlplane.plane import ControlPlane

HERE = Path(__file__).parent
CRDS = HERE.parent / "crds"
SCHEDULER = HERE.parent / "kube-scheduler-config.yaml"
SETTINGS = HERE / "kubernetes.yaml"
REPORT = Path("build") / "demo-kubernetes.html"
COLOURS = {"research": "cyan", "vision": "green", "chat": "magenta"}
UNAVAILABLE, INTERRUPTED = 2, 130
FAILURES = (DemoError, ApiError, RuntimeError, OSError)


def main() -> int:
    """Play the story; 1: a claim did not hold, 2: no control plane can be built."""
    options = parsed()
    screen = Console(stderr=options.json, width=None if sys.stdout.isatty() else 118)
    signal.signal(signal.SIGINT, _interrupt)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not so under nohup
            signal.signal(number, _interrupt)
    try:
        binaries = ensure(os.environ.get("K8S") or None, _say)
        played = play(binaries, screen, options.report)
    except UnavailableError as reason:
        _say(f"{reason}; `make demo` shows the same without a cluster")
        return UNAVAILABLE
    except KeyboardInterrupt:
        _say("interrupted; everything has ended")
        return INTERRUPTED
    except FAILURES as error:
        screen.print(f"[red]the demo failed:[/] {error}", highlight=False)
        return 1
    if options.json:
        print(json.dumps(played, indent=2))
    return 0


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print all of it as JSON; what people read goes to stderr",
    )
    parser.add_argument("--report", type=Path, default=REPORT, help="the HTML page")
    return parser.parse_args()


def play(binaries: Binaries, screen: Console, report: Path) -> dict[str, Any]:
    """Start everything, play, end everything, and write the page."""
    began = time.monotonic()
    with scene(binaries, screen) as stage:
        Shift(stage).play()
        day = page.day_of(stage)
        played = page.document(stage, binaries.version, bound_s())
        screen.print(Padding(stage.story.table(), (1, 0)))
    page.write(report, day, played)
    screen.print(summary(played), highlight=False, soft_wrap=True)
    screen.print(f"Report: {report.resolve().as_uri()}", soft_wrap=True)
    screen.print(f"All processes have ended, after {time.monotonic() - began:.0f} s.")
    return played


def summary(played: Mapping[str, Any]) -> str:
    """Say what it came to."""
    found = played["figures"]
    return (
        f"chat waited {found['guarantee_wait_s']:.1f} s for its guarantee (at most "
        f"{found['reclaim_bound_s']:.0f} s are promised). {found['pods_asked_to_go']} "
        f"burst jobs gave way and lost {found['lost_gpu_s']:.0f} GPU-seconds of work; "
        f"{len(played['claims'])} claims were checked."
    )


@contextmanager
def scene(binaries: Binaries, screen: Console) -> Iterator[Stage]:
    """Run a control plane with hollow nodes, the service, and its kube-scheduler."""
    screen.print(f"Starting Kubernetes {binaries.version} ...")
    with tempfile.TemporaryDirectory(prefix="fairshare-demo-") as name:
        directory = Path(name)
        log = directory / "service.log"
        try:
            with ControlPlane(binaries, directory / "plane") as plane:
                furnish(plane)
                with served(settings(plane, directory), log) as service:
                    plane.start_scheduler(scheduler(service.url))
                    screen.print(introduction(plane, service.pid), highlight=False)
                    story = Story(screen, COLOURS, work.GPUS, gpus_a_mark=2)
                    stage = Stage(plane, service, story)
                    yield stage
                    stage.chronicle.closing = True
        except FAILURES:
            screen.print("The service's log ends so:", _tail(log), markup=False)
            raise


def furnish(plane: ControlPlane) -> None:
    """Make our kinds of objects, PriorityClasses and the nodes."""
    plane.kubectl("apply", "-f", str(CRDS))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all")
    plane.client.create_all([*objects.priority_classes(), *work.fleet()])


def introduction(plane: ControlPlane, service: int) -> str:
    """Who takes part, for the reader."""
    pids = ", ".join(f"{name} {pid}" for name, pid in plane.pids.items())
    return (
        f"Processes: {pids}, fairshare {service}.\n"
        f"{work.NODES} hollow nodes of 8 H100, labelled as GPU feature discovery does."
    )


def bound_s() -> float:
    """Return how long a guarantee may have to wait by the demo's settings."""
    return policy_of(load_config(SETTINGS)).reclaim_bound_s


def settings(plane: ControlPlane, directory: Path) -> Path:
    """Write the service's configuration: the demo's, for this control plane."""
    document = yaml.safe_load(SETTINGS.read_text())
    document["server"] = {"listen": "127.0.0.1:0", "grpcListen": "127.0.0.1:0"}
    document["kubernetes"] = {"kubeconfig": str(plane.kubeconfig)}
    path = directory / "fairshare.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def scheduler(url: str) -> str:
    """Our kube-scheduler configuration as we ship it, for the service's address."""
    document = yaml.safe_load(SCHEDULER.read_text())
    document["extenders"][0]["urlPrefix"] = url
    return yaml.safe_dump(document)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    interrupted.set()
    raise KeyboardInterrupt


def _tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
