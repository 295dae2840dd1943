"""How long kube-scheduler waits for an answer: whole HTTP calls, p50 and p99.

    python benchmarks/webhook.py [--json] [--quick]

The real service (``fairshare serve``), pinned to one core, knows 5,000 nodes and 20,000
bound pods. A paced client on another core plays kube-scheduler over one keep-alive
connection: per round it asks filter for a pod it has never seen, asks again now that
the pod has its plan, asks prioritize, reports the pod bound and lets the oldest
one go. Then the same while lane 2 solves, and against an echo handler on the same
server software, which is the floor. Every answer is checked.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NODES, PODS, TENANTS = 5_000, 20_000, 20
SIZES = (500, 1_000, 5_000)
PACE_S = 0.002
"""Pause between calls, seconds: kube-scheduler in a burst makes 200 to 300 a second."""

TARGET_MS = {500: 0.5, 5_000: 2.0}
"""Targets for the p99 of filter, in milliseconds, by number of node names."""

NAMES = [f"gpu-h100-{i}.pool-a.example.net" for i in range(NODES)]
ECHO = Path(__file__).with_name("echo_server.py")


def settings(solver: bool) -> str:
    """The service's settings: equal nodes, equal tenants, one that cannot be served."""
    tenants = [
        {"name": f"t{i}", "namespaces": [f"t{i}"], "guarantee": {"h100-80gb": 1500}}
        for i in range(TENANTS)
    ]
    beggar = {"name": "beggar", "namespaces": ["beggar"]}
    nodes = {
        "name": "gpu-h100-{i}.pool-a.example.net",
        "count": NODES,
        "gpuClass": "h100-80gb",
        "gpus": 8,
        "cpu": 128,
        "memory": "2Ti",
    }
    listen = {"listen": "127.0.0.1:0", "grpcListen": "127.0.0.1:0"}
    policy = {"solver": {"enabled": solver}}
    parts = {"server": listen, "policy": policy, "nodes": [nodes]}
    return json.dumps({**parts, "tenants": [*tenants, beggar]})


def pod(uid: str, tenant: str, gpus: int = 1) -> dict[str, Any]:
    """A pod as the API server writes it, with the usual ballast."""
    env = [{"name": f"VARIABLE_{i}", "value": "x" * 60} for i in range(40)]
    resources = {
        "requests": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": str(gpus)},
        "limits": {"memory": "64Gi", "nvidia.com/gpu": str(gpus)},
    }
    return {
        "metadata": {
            "uid": uid,
            "name": f"worker-{uid}",
            "namespace": tenant,
            "labels": {f"label-{i}": "value" for i in range(10)},
            "annotations": {"fairshare.dev/gpu-classes": "h100-80gb"},
        },
        "spec": {
            "containers": [{"name": "main", "env": env, "resources": resources}],
            "priorityClassName": "fairshare-training",
        },
        "status": {"phase": "Pending"},
    }


# -- processes ----------------------------------------------------------------


@contextlib.contextmanager
def running(command: list[str], core: int) -> Iterator[tuple[str, int]]:
    """Start a server on one core; it prints its address as one line of JSON."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        assert process.stdout is not None
        host, port = json.loads(process.stdout.readline())["http"].rsplit(":", 1)
        yield host, int(port)
    finally:
        process.terminate()
        assert process.wait(timeout=15) == 0, "the server did not end well"


class Client:
    """kube-scheduler's side: one keep-alive connection, read as cheaply as Go does."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 20)

    def post(self, path: str, body: bytes) -> tuple[float, bytes]:
        """Call; return milliseconds and the answer, which must be 200."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return self._exchange(head.encode() + body)

    def get(self, path: str) -> bytes:
        """Read a page."""
        return self._exchange(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )[1]

    def _exchange(self, request: bytes) -> tuple[float, bytes]:
        begun = time.perf_counter()
        self._socket.sendall(request)
        answer = self._read()
        elapsed = 1000 * (time.perf_counter() - begun)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), answer
        return elapsed, body

    def _read(self) -> bytes:
        view, have, want = memoryview(self._buffer), 0, len(self._buffer)
        while have < want:
            got = self._socket.recv_into(view[have:])
            assert got, "the server closed the connection"
            have += got
            if want == len(self._buffer):
                want = whole_length(bytes(view[:have])) or want
        return bytes(view[:have])


def whole_length(begun: bytes) -> int:
    """Length of an answer from its head; 0 while the head is not complete."""
    head, end, _ = begun.partition(b"\r\n\r\n")
    if not end:
        return 0
    (length,) = (
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    return len(head) + 4 + length


# -- the load -----------------------------------------------------------------


@dataclass
class Load:
    """A fleet in a steady state: for each pod that comes, the oldest one goes."""

    client: Client
    alive: list[str] = field(default_factory=list)
    made: int = 0

    def fill(self) -> None:
        """Report 20,000 bound pods, four a node."""
        lines = []
        for index in range(PODS):
            uid = self.new_uid()
            self.alive.append(uid)
            bound = {"type": "PodBound", "uid": uid, "node": NAMES[index % NODES]}
            slim = pod(uid, f"t{index % TENANTS}")
            slim["spec"]["containers"][0]["env"] = []
            lines.append(json.dumps({**bound, "pod": slim}))
        for start in range(0, PODS, 1000):
            self.report(lines[start : start + 1000])

    def beg(self, count: int) -> None:
        """Let pods wait that no lane can serve: what lane 2 is there for."""
        names = NAMES[:500]
        for _ in range(count):
            body = arguments(pod(self.new_uid(), "beggar", gpus=8), names)
            _, answer = self.client.post("/filter", body)
            assert not json.loads(answer)["NodeNames"]

    def new_uid(self) -> str:
        """Return a UID of a real one's length."""
        self.made += 1
        return f"00000000-0000-0000-0000-{self.made:012d}"

    def report(self, lines: list[str]) -> None:
        """Send events."""
        _, answer = self.client.post("/v1/events", "\n".join(lines).encode())
        assert json.loads(answer) == {"applied": len(lines)}

    def round(self, names: list[str]) -> dict[str, float]:
        """Play one pod's life; return milliseconds per call."""
        uid = self.new_uid()
        body = arguments(pod(uid, f"t{self.made % TENANTS}"), names)
        first, answer = self.client.post("/filter", body)
        node = check_filter(answer, names)
        time.sleep(PACE_S)
        again, answer = self.client.post("/filter", body)
        assert check_filter(answer, names) == node, "the plan must not move"
        time.sleep(PACE_S)
        scored, answer = self.client.post("/prioritize", body)
        check_scores(answer, names, node)
        gone = self.alive.pop(0)
        self.alive.append(uid)
        bound = json.dumps({"type": "PodBound", "uid": uid, "node": node})
        self.report([bound, json.dumps({"type": "PodGone", "uid": gone})])
        time.sleep(PACE_S)
        return {
            "filter, new pod": first,
            "filter, planned": again,
            "prioritize": scored,
        }


def arguments(of: dict[str, Any], names: list[str]) -> bytes:
    """ExtenderArgs as Go writes them."""
    return json.dumps({"Pod": of, "Nodes": None, "NodeNames": names}).encode()


def check_filter(answer: bytes, names: list[str]) -> str:
    """Exactly one node accepted, and it was offered; return it."""
    result = json.loads(answer)
    (node,) = result["NodeNames"]
    assert node in names
    assert not result["Error"]
    return str(node)


def check_scores(answer: bytes, names: list[str], node: str) -> None:
    """The planned node scores 10, all others 0."""
    scores = json.loads(answer)
    assert [entry["Host"] for entry in scores] == names
    assert {e["Host"] for e in scores if e["Score"]} == {node}


# -- measuring ----------------------------------------------------------------

Samples = dict[tuple[str, int, str], list[float]]


def measure(mode: str, load: Load, rounds: int, samples: Samples) -> None:
    """Play rounds at every size; the first ones warm up."""
    for size in SIZES:
        step = NODES // size
        names = NAMES[::step]
        for index in range(rounds + 20):
            times = load.round(names)
            if index >= 20:
                for call, elapsed in times.items():
                    samples.setdefault((mode, size, call), []).append(elapsed)


def measure_service(mode: str, solver: bool, rounds: int, samples: Samples) -> int:
    """Measure the real service; return how many solves lane 2 made."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(settings(solver))
        file.flush()
        serve = [sys.executable, "-m", "scheduler", "serve", "--config", file.name]
        with running(serve, server_core()) as address:
            load = Load(Client(address))
            load.fill()
            if solver:
                load.beg(50)
            measure(mode, load, rounds, samples)
            return solves(load.client.get("/metrics").decode())


def solves(page: str) -> int:
    """Read from the metrics how many solves came to an end."""
    lines = [
        line for line in page.splitlines() if line.startswith("fairshare_solves_t")
    ]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))


def measure_echo(rounds: int, samples: Samples) -> None:
    """Measure the same server software with nothing to decide, same sizes of bytes."""
    with running([sys.executable, str(ECHO)], server_core()) as address:
        client = Client(address)
        for size in SIZES:
            body = arguments(pod("0" * 36, "t0"), NAMES[:: NODES // size])
            for index in range(rounds + 20):
                elapsed, answer = client.post("/", body)
                assert len(answer) == len(body)
                time.sleep(PACE_S)
                if index >= 20:
                    samples.setdefault(("echo", size, "echo"), []).append(elapsed)


def server_core() -> int:
    """The first core we may use is the server's, the last one ours."""
    return min(CORES)


CORES = os.sched_getaffinity(0)


def quantile(values: list[float], share: float) -> float:
    """The value below which so large a share lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def rows(samples: Samples) -> list[dict[str, Any]]:
    """Sum up."""
    floor = {
        size: quantile(values, 0.5)
        for (mode, size, _), values in samples.items()
        if mode == "echo"
    }
    return [
        {
            "mode": mode,
            "names": size,
            "call": call,
            "calls": len(values),
            "p50_ms": round(quantile(values, 0.5), 3),
            "p99_ms": round(quantile(values, 0.99), 3),
            "max_ms": round(max(values), 3),
            "target_p99_ms": TARGET_MS.get(size) if "filter" in call else None,
            "times_echo": round(quantile(values, 0.5) / floor[size], 2),
        }
        for (mode, size, call), values in samples.items()
    ]


def show(found: list[dict[str, Any]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in found[0]:
        table.add_column(name, justify="left" if name in ("mode", "call") else "right")
    for row in found:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=100).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    rounds = 100 if options.quick else 500
    os.sched_setaffinity(0, {max(CORES)})
    samples: Samples = {}
    measure_echo(rounds, samples)
    measure_service("quiet", False, rounds, samples)
    count = measure_service("solving", True, rounds, samples)
    assert count, "lane 2 never solved anything"
    found = rows(samples)
    if options.json:
        load = os.getloadavg()[0]
        print(json.dumps({"solves": count, "load": load, "rows": found}))
    else:
        show(found)
        print(f"lane 2 made {count} solves in the part called solving")
        print(f"load of the machine {os.getloadavg()[0]:.1f}; ours is about 1")


if __name__ == "__main__":
    main()
