"""How fast the service knows a large cluster, and what it keeps of it.

    python benchmarks/informers.py [--json] [--quick]

A real API server with 5,000 nodes of 8 GPUs and 50,000 pods that are bound already (two
of five ask for two GPUs and carry our mark; the rest are CPU pods as every cluster has
them). First the informers alone, each time in a process of its own, with a sink that
forgets everything and with one that keeps the decoded objects; then the whole service,
from its start until ``/readyz`` says yes.

Asserted: nothing is missed, doubled or skipped; the service knows every node, and every
tenant's use to the GPU. Targets: ready within 20 s, at most 600 MB resident.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvloop

from scheduler.codec.mark import ADMISSION, Mark, encode_mark
from scheduler.codec.objects import NodeObject, PodObject
from scheduler.core import QUANTA_PER_GPU, TenantName, WorkloadClass, parse_form
from scheduler.kube.api import Api
from scheduler.kube.informer import Informer
from tests.controlplane import objects
from tests.controlplane.build import ensure
from tests.controlplane.plane import ControlPlane
from tests.controlplane.process import free_ports
from tests.e2e.running import H100, Fairshare, install, tenant

NODES, PODS, TENANTS = 5_000, 50_000, 20
GPUS = 2
"""What a GPU pod asks for; four of them fill a node, beside six CPU pods."""

TARGET_S, TARGET_MB = 20.0, 600.0
WRITERS = 32
NODE = "gpu-h100-{}.pool-a.example.net"
PLACES = {"/api/v1/nodes": NodeObject, "/api/v1/pods": PodObject}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--quick", action="store_true", help="a tenth of the cluster")
    parser.add_argument("--follow", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.follow:
        kubeconfig, keep = chosen.follow
        print(json.dumps(uvloop.run(follow(Path(kubeconfig), keep == "keep"))))
        return 0
    nodes, pods = (NODES // 10, PODS // 10) if chosen.quick else (NODES, PODS)
    rows = measure(nodes, pods)
    print(json.dumps(rows, indent=1) if chosen.json else table(rows))
    return 0


def measure(nodes: int, pods: int) -> list[dict[str, Any]]:
    """Fill a cluster, and let each part read it."""
    with running() as plane:
        begun = time.perf_counter()
        uvloop.run(fill(plane.kubeconfig, nodes, pods))
        say(f"{nodes:,} nodes and {pods:,} pods in {time.perf_counter() - begun:.0f} s")
        rows = []
        for keep in ("forget", "keep"):
            row = followed(plane.kubeconfig, keep)
            assert row.pop("objects") == [nodes, pods], row
            assert row.pop("skipped") == 0
            rows.append({"part": f"informers, {keep}", **row})
        rows.append({"part": "service", **served(plane, nodes)})
    return rows


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows as text, and the last one beside its targets."""
    lines = [
        f"{'':18}{'wall s':>8}{'CPU s':>8}{'RSS MB':>8}{'peak MB':>9}{'pause ms':>10}"
    ]
    for row in rows:
        figures = [row[name] for name in ("wall_s", "cpu_s", "rss_mb", "peak_mb")]
        wall, cpu, rss, peak = figures
        line = f"{row['part']:18}{wall:8.1f}{cpu:8.1f}{rss:8.0f}{peak:9.0f}"
        lines.append(f"{line}{row['pause_ms']:10.0f}")
    lines.append(f"{'target':18}{TARGET_S:8.0f}{'':8}{TARGET_MB:8.0f}")
    return "\n".join(lines)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# -- the cluster ------------------------------------------------------------------


@contextlib.contextmanager
def running() -> Iterator[ControlPlane]:
    """The API server alone: no controllers, no kubelets."""
    binaries = ensure(say=say)
    with (
        tempfile.TemporaryDirectory(prefix="informers-") as directory,
        ControlPlane(
            binaries, Path(directory), manager=False, hollow_nodes=False, load=True
        ) as plane,
    ):
        install(plane)
        plane.client.create_all(objects.priority_classes())
        yield plane


async def fill(kubeconfig: Path, nodes: int, pods: int) -> None:
    """Create tenants, nodes and pods."""
    api = await Api.connect(kubeconfig)
    share = nodes * 8 // TENANTS
    tenants = [
        tenant(f"t{i}", f"t{i}", guarantee={H100: share}) for i in range(TENANTS)
    ]
    spaces = [objects.namespace(f"t{i}") for i in range(TENANTS)]
    try:
        await post(api, "/api/v1/namespaces", spaces)
        await post(api, "/apis/fairshare.dev/v1alpha1/tenants", tenants)
        await post(api, "/api/v1/nodes", (node(i) for i in range(nodes)))
        for space in range(TENANTS):
            path = f"/api/v1/namespaces/t{space}/pods"
            await post(api, path, pods_of(space, pods, nodes))
    finally:
        await api.close()


async def post(api: Api, path: str, things: Iterable[objects.Object]) -> None:
    """Create objects, so many at a time."""
    waiting = iter(things)

    async def write() -> None:
        for thing in waiting:
            await api.create(path, json.dumps(thing).encode())

    await asyncio.gather(*(write() for _ in range(WRITERS)))


def node(index: int) -> objects.Object:
    """A node with what feature discovery, CSI drivers and clouds write on one."""
    labels = {
        f"feature.node.kubernetes.io/cpu-cpuid.FEATURE{i}": "true" for i in range(50)
    }
    zone = {"topology.kubernetes.io/zone": f"zone-{index % 3}"}
    made = objects.node(NODE.format(index), labels=labels | zone)
    made["metadata"]["annotations"] |= {
        f"example.net/driver-{i}": "x" * 100 for i in range(8)
    }
    return made


def pods_of(space: int, pods: int, nodes: int) -> Iterator[objects.Object]:
    """A namespace's pods: of five in a row two ask for GPUs, all dealt out in turn."""
    for asks, count in ((True, pods * 2 // 5), (False, pods * 3 // 5)):
        for index in range(space, count, TENANTS):
            yield pod(index, f"t{space}", index % nodes, asks)


def pod(index: int, owner: str, place: int, asks: bool) -> objects.Object:
    """A bound pod with the usual ballast."""
    notes = {f"example.net/note-{i}": "n" * 60 for i in range(4)}
    made = objects.pod(
        f"{'train' if asks else 'agent'}-{index:05}-x7k2p",
        owner,
        GPUS if asks else 0,
        priority_class="fairshare-training" if asks else None,
        labels={
            f"app.kubernetes.io/label-{i}": f"value-{index % 50}" for i in range(8)
        },
        annotations=notes | ({ADMISSION: mark(owner, index)} if asks else {}),
        nodeName=NODE.format(place),
    )
    made["spec"]["containers"][0] |= {
        "image": "registry.example.net/team/train:2026.11.3",
        "env": [{"name": f"VARIABLE_{i}", "value": "x" * 40} for i in range(24)],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    made["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    return made


def mark(owner: str, index: int) -> str:
    """What the service writes on a pod that it admits."""
    return encode_mark(
        Mark(
            tenant=TenantName(owner),
            workload_class=WorkloadClass.TRAINING,
            form=parse_form(H100),
            quanta=GPUS * QUANTA_PER_GPU,
            gang="",
            decision=f"d{index}",
        )
    )


# -- the informers alone ------------------------------------------------------------


def followed(kubeconfig: Path, keep: str) -> dict[str, Any]:
    """Let a process of its own follow nodes and pods until it knows all."""
    command = [sys.executable, __file__, "--follow", str(kubeconfig), keep]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


class Counting:
    """A sink that only counts, or keeps what it hears as well."""

    def __init__(self, keep: bool) -> None:
        self.count = 0
        self.kept: dict[str, Any] = {}
        self._keep = keep

    def changed(self, obj: Any) -> None:
        self.count += 1
        if self._keep:
            self.kept[obj.metadata.uid] = obj

    def gone(self, uid: str) -> None:
        raise AssertionError(f"{uid} cannot be gone")


async def follow(kubeconfig: Path, keep: bool) -> dict[str, Any]:
    """Read everything once; return what it cost."""
    api = await Api.connect(kubeconfig)
    before = time.process_time()
    begun = time.perf_counter()
    sinks = {path: Counting(keep) for path in PLACES}
    informers = [Informer(api, path, PLACES[path], sinks[path]) for path in PLACES]
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(informer.run()) for informer in informers
    ]
    pauses = Pauses()
    tasks.append(asyncio.create_task(pauses.measure()))
    await asyncio.gather(*(informer.synced.wait() for informer in informers))
    row = {
        "objects": [sink.count for sink in sinks.values()],
        "skipped": sum(informer.health.skipped for informer in informers),
        "wall_s": time.perf_counter() - begun,
        "cpu_s": time.process_time() - before,
        "rss_mb": memory(os.getpid(), "VmRSS"),
        "peak_mb": memory(os.getpid(), "VmHWM"),
    }
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in done), done
    await api.close()
    return row | {"pause_ms": 1000 * pauses.longest_s}


class Pauses:
    """How long somebody who asks has to wait at most."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def measure(self) -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(0.001)
            waited = time.perf_counter() - asked - 0.001
            self.longest_s = max(self.longest_s, waited)


def memory(pid: int, name: str) -> float:
    """A figure of /proc/PID/status, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no {name}")


# -- the service ------------------------------------------------------------------


def served(plane: ControlPlane, nodes: int) -> dict[str, Any]:
    """Start the service; return what it cost until it was ready, and afterwards."""
    service = Fairshare(plane)
    service.http = f"127.0.0.1:{free_ports(1)[0]}"
    watcher = Watcher(service.http)
    begun = time.perf_counter()
    try:
        watcher.start()
        service.start()
        watcher.join()
        row = {
            "wall_s": watcher.ready_at - begun,
            "cpu_s": cpu_s(service.pid),
            "rss_mb": memory(service.pid, "VmRSS"),
            "peak_mb": memory(service.pid, "VmHWM"),
            "pause_ms": 1000 * watcher.longest,
        }
        check(service, nodes)
        return row
    except BaseException:
        say(service.log.read_text()[-4000:])
        raise
    finally:
        service.stop()


class Watcher(threading.Thread):
    """Asks whether the service is ready, and how long it takes to say no."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.ready_at = 0.0
        self.longest = 0.0
        self._url = f"http://{address}/readyz"

    def run(self) -> None:
        while not self.ready_at:
            asked = time.perf_counter()
            ready = self._is_ready()
            now = time.perf_counter()
            if ready is not None:
                self.longest = max(self.longest, now - asked)
            if ready:
                self.ready_at = now
            time.sleep(0.02)

    def _is_ready(self) -> bool | None:
        """None while nobody answers."""
        try:
            with urllib.request.urlopen(self._url, timeout=60) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return None


def cpu_s(pid: int) -> float:
    """Seconds of CPU a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check(service: Fairshare, nodes: int) -> None:
    """Every tenant uses its whole guarantee, and no node is missing to keep it."""
    share = nodes * 8 // TENANTS
    rows = service.get("/v1/tenants")["tenants"]
    found = {
        row["tenant"]: (row["guarantee"]["gpus"], row["used"]["gpus"])
        for row in rows
        if row["form"] == H100
    }
    wanted = {f"t{i}": (share, share) for i in range(TENANTS)}
    assert found == wanted, found
    assert not service.get("/v1/queue")["queue"]


if __name__ == "__main__":
    sys.exit(main())
