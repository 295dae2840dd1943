"""Bound pods per second: the bare kube-scheduler, our extender alone, and all of ours.

    python benchmarks/admission.py [--json] [--quick] [--only a,b,c] [--fleet 1000]

A real control plane, hollow nodes, 2,000 gated pods of one GPU that exist beforehand.
Sixteen workers open the gates: in (a) nobody else is asked; in (b) kube-scheduler asks
our extender, which has no plan (standalone, inline); in (c) our service admits them:
mark and nomination, then the gate. The clock runs from the first gate that may be
opened until the last pod is bound. Everything shares the machine.

Asserted: every pod is bound, no node holds more than it has, and in (c) every pod sits
where its mark was written for. Targets: (c) is at least 0.9 of (a), and 3 of (a) where
5,000 nodes are all scored.
"""

import argparse
import contextlib
import http.client
import json
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml

from tests.controlplane import objects
from tests.controlplane.build import ensure
from tests.controlplane.plane import ControlPlane
from tests.e2e.running import (
    H100,
    Fairshare,
    gated,
    install,
    scheduler_config,
    tenant,
)

PODS = 2_000
WORKERS = 16
NAMESPACE = "load"
SLOWEST_S = 300.0
OPEN = {
    "metadata": {"annotations": {"opened": "true"}},
    "spec": {"schedulingGates": [{"$patch": "delete", "name": objects.GATE}]},
}
LEASE_S = (60.0, 40.0, 5.0)
NAME = re.compile(rb'"name":"p[0-9]+"')


@dataclass(frozen=True)
class Fleet:
    """So many nodes; kube-scheduler scores so many per cent of them, 0: its default."""

    nodes: int
    percentage: int
    target: float

    @property
    def name(self) -> str:
        scored = "all scored" if self.percentage else "default sampling"
        return f"{self.nodes:,} nodes, {scored}"


FLEETS = (Fleet(1_000, 100, 0.9), Fleet(5_000, 0, 0.9), Fleet(5_000, 100, 3.0))
MODES = {
    "a": "bare scheduler",
    "b": "our extender, no planned placement",
    "c": "ours",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--quick", action="store_true", help="500 pods, 1,000 nodes")
    parser.add_argument("--only", default="a,b,c", help="modes to run")
    parser.add_argument("--fleet", type=int, default=0, help="only this many nodes")
    chosen = parser.parse_args()
    count = 500 if chosen.quick else PODS
    fleets = [f for f in FLEETS if chosen.fleet in (0, f.nodes)]
    rows = [
        row
        for fleet in (fleets[:1] if chosen.quick else fleets)
        for row in measure(fleet, count, chosen.only.split(","))
    ]
    if chosen.json:
        print(json.dumps(rows, indent=1))
    return 0


def measure(fleet: Fleet, count: int, modes: list[str]) -> list[dict[str, object]]:
    """Run the modes on one fleet, and print what came out."""
    print(f"{fleet.name}, {count:,} pods", file=sys.stderr)
    rates: dict[str, float] = {}
    with running(fleet) as plane:
        for mode in modes:
            plane.client.create_all(pods(count), 24)
            rates[mode] = count / RUNS[mode](plane, fleet, count)
            check(plane, count, mode)
            print(f"  ({mode}) {MODES[mode]:36} {rates[mode]:6.0f}/s", file=sys.stderr)
            forget(plane)
    for mode in rates:
        if mode != "a" and "a" in rates:
            ratio, wanted = rates[mode] / rates["a"], fleet.target
            told = f", target {wanted:g}" if mode == "c" else ""
            print(f"  ({mode}) / (a) = {ratio:.2f}{told}", file=sys.stderr)
    return [
        {"fleet": fleet.name, "mode": mode, "pods_per_s": round(rate, 1)}
        for mode, rate in rates.items()
    ]


@contextlib.contextmanager
def running(fleet: Fleet) -> Iterator[ControlPlane]:
    """The API server with nodes in it; no kubelets, no controllers."""
    binaries = ensure(say=lambda line: print(line, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="admission-") as directory:
        plane = ControlPlane(
            binaries,
            Path(directory),
            manager=False,
            hollow_nodes=False,
            load=True,
        )
        with plane:
            install(plane)
            plane.client.create(objects.namespace(NAMESPACE))
            plane.client.create_all(objects.priority_classes())
            plane.client.create_all(objects.nodes(fleet.nodes), 24)
            yield plane


def pods(count: int) -> list[objects.Object]:
    return [gated(f"p{i}", NAMESPACE, 1) for i in range(count)]


# -- the three modes ------------------------------------------------------------


def bare(plane: ControlPlane, fleet: Fleet, count: int) -> float:
    """(a) kube-scheduler asks nobody."""
    with scheduling(plane, config(fleet)):
        return timed(plane, count, lambda: open_gates(plane, count))


def asked(plane: ControlPlane, fleet: Fleet, count: int) -> float:
    """(b) Filter decides, for one pod at a time, out of all nodes it is shown."""
    with standalone(fleet) as address, scheduling(plane, config(fleet, address)):
        return timed(plane, count, lambda: open_gates(plane, count))


def ours(plane: ControlPlane, fleet: Fleet, count: int) -> float:
    """(c) The pods become a tenant's, and are admitted by our own workers."""
    service = Fairshare(plane)
    service.start()
    try:
        with scheduling(plane, config(fleet, service.http)):
            owner = tenant("load", NAMESPACE, guarantee={H100: count})
            return timed(plane, count, lambda: plane.client.create(owner))
    except BaseException:
        print(service.log.read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        service.stop()


RUNS: dict[str, Callable[[ControlPlane, Fleet, int], float]] = {
    "a": bare,
    "b": asked,
    "c": ours,
}


def config(fleet: Fleet, address: str = "") -> str:
    """kube-scheduler's configuration; without an address it asks nobody."""
    found = yaml.safe_load(scheduler_config(address or "127.0.0.1:1"))
    found["profiles"][0]["percentageOfNodesToScore"] = fleet.percentage
    found["clientConnection"] = {"qps": 5_000, "burst": 5_000}
    if not address:
        del found["extenders"]
    return yaml.safe_dump(found)


@contextlib.contextmanager
def scheduling(plane: ControlPlane, configuration: str) -> Iterator[None]:
    plane.start_scheduler(configuration, lease_s=LEASE_S)
    time.sleep(2)  # it has read all nodes and pods by then
    try:
        yield
    finally:
        plane.stop_scheduler()


@contextlib.contextmanager
def standalone(fleet: Fleet) -> Iterator[str]:
    """Our service without Kubernetes; yields its address."""
    settings = {
        "server": {"listen": "127.0.0.1:0", "grpcListen": "127.0.0.1:0"},
        "policy": {"solver": {"enabled": False}},
        "nodes": [
            {
                "name": "n{i}",
                "count": fleet.nodes,
                "gpuClass": H100,
                "gpus": 8,
                "cpu": 96,
                "memory": "1024Gi",
            }
        ],
        "tenants": [{"name": "load", "namespaces": [NAMESPACE]}],
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(settings, file)
        file.flush()
        command = [sys.executable, "-m", "scheduler", "serve", "--config", file.name]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["http"]
        finally:
            process.terminate()
            process.wait(15)
            process.stdout.close()


# -- timing ----------------------------------------------------------------------


def open_gates(plane: ControlPlane, count: int) -> None:
    """Take the gates away, sixteen at a time."""
    plane.client.in_parallel(
        lambda pod: plane.client.patch("pods", pod["name"], OPEN, NAMESPACE),
        [{"name": f"p{i}"} for i in range(count)],
        WORKERS,
    )


def timed(plane: ControlPlane, count: int, begin: Callable[[], object]) -> float:
    """Seconds from `begin` until so many pods are bound."""
    counter = BoundPods(plane, count)
    begun = time.perf_counter()
    begin()
    if not counter.done.wait(SLOWEST_S):
        log = plane.logs("kube-scheduler")[-2000:]
        raise AssertionError(f"{counter.seen} of {count} pods bound\n{log}")
    return counter.at - begun


class BoundPods:
    """Counts pods as they are bound, without reading more than it must."""

    def __init__(self, plane: ControlPlane, count: int) -> None:
        self.at = 0.0
        self.done = threading.Event()
        self._plane, self._count = plane, count
        self._names: set[bytes] = set()
        threading.Thread(target=self._follow, daemon=True).start()

    @property
    def seen(self) -> int:
        return len(self._names)

    def _follow(self) -> None:
        """Watch until all are bound; a watch that ends is begun anew."""
        while not self.done.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._watch()

    def _watch(self) -> None:
        parts = urlsplit(self._plane.server)
        tls = ssl.create_default_context(cafile=str(self._plane.authority))
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, context=tls, timeout=SLOWEST_S
        )
        with contextlib.closing(connection):
            selector = "watch=1&fieldSelector=spec.nodeName!%3D"
            connection.request(
                "GET",
                f"/api/v1/namespaces/{NAMESPACE}/pods?{selector}",
                headers={"Authorization": f"Bearer {self._plane.client.token}"},
            )
            for line in connection.getresponse():
                found = NAME.search(line)
                if found is None or found[0] in self._names:
                    continue
                self._names.add(found[0])
                if len(self._names) == self._count:
                    self.at = time.perf_counter()
                    self.done.set()
                    return


def check(plane: ControlPlane, count: int, mode: str) -> None:
    """Every pod is bound, no node holds more than it has; in (c) by our mark."""
    found = plane.client.items("pods", NAMESPACE)
    held = Counter(pod["spec"].get("nodeName", "") for pod in found)
    assert len(found) == count, f"{len(found)} pods of {count}"
    assert "" not in held, f"{held['']} pods are not bound"
    assert max(held.values()) <= 8, held.most_common(3)
    marked = sum(objects.GATE in (p["metadata"]["annotations"] or {}) for p in found)
    assert marked == (count if mode == "c" else 0), f"{marked} pods are marked"


def forget(plane: ControlPlane) -> None:
    """Take pods and tenant away."""
    plane.client.delete_all("tenants")
    plane.client.delete_all("pods", NAMESPACE, grace=0)
    while plane.client.items("pods", NAMESPACE):
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
