"""The `fairshare` command as a user runs it: real processes, real signals."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.serving import FLEET, NODES, args, exchange, lines, pod_json

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "deploy" / "example-config.yaml"
FAIRSHARE = [sys.executable, "-m", "scheduler"]


@dataclass
class Server:
    """A running `fairshare serve`."""

    process: subprocess.Popen[str]
    address: tuple[str, int]
    grpc: str

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=10)

    def post(self, path: str, body: Any) -> Any:
        with contextlib.closing(self.connect()) as connection:
            reply = exchange(connection, "POST", path, body)
        assert reply.status == 200, reply.body
        return reply.json


def fairshare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*FAIRSHARE, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )


@contextlib.contextmanager
def served(path: Path, *more: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [*FAIRSHARE, "serve", "--config", str(path), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        told = json.loads(line)
        assert told["event"] == "listening"
        host, port = told["http"].rsplit(":", 1)
        yield Server(process, (host, int(port)), told["grpc"])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "fleet.yaml"
    path.write_text(FLEET.replace("enabled: false", "enabled: true"))
    return path


@pytest.fixture(scope="module")
def server(fleet: Path) -> Iterator[Server]:
    """A server in which tenant a runs one pod and tenant b waits with another."""
    with served(fleet) as running:
        bound = {"type": "PodBound", "uid": "r", "node": "n0"}
        running.post("/v1/events", lines({**bound, "pod": pod_json("r", gpus=8)}))
        running.post("/filter", args(pod_json("w", "team-b", 9), NODES))
        yield running


# -- serve ------------------------------------------------------------------------


def test_sigterm_ends_it_well_whatever_is_going_on(fleet: Path) -> None:
    """A poll that waits, an idle connection, half a body, and a solver's process."""
    with served(fleet) as server, contextlib.ExitStack() as stack:
        server.post("/filter", args(pod_json("w", "team-b", 9), NODES))
        idle = stack.enter_context(contextlib.closing(server.connect()))
        assert exchange(idle, "GET", "/readyz").status == 200
        poll = stack.enter_context(contextlib.closing(server.connect()))
        poll.request("GET", "/v1/actions?wait=60s")
        half = stack.enter_context(socket.create_connection(server.address))
        half.sendall(b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        time.sleep(0.3)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert json.loads(poll.getresponse().read()) == {"actions": [], "last": 0}
        assert server.process.wait(timeout=8) == 0
        assert time.monotonic() - begun < 6
        with pytest.raises(OSError, match="refused"):
            server.connect().connect()


def test_call_in_flight_is_finished(fleet: Path) -> None:
    """SIGTERM comes between the two halves of a body: the call is still answered."""
    with served(fleet) as server:
        body = json.dumps(args(pod_json("u", gpus=8), NODES)).encode()
        head = (
            f"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(server.address, timeout=5) as connection:
            connection.sendall(head.encode() + body[:40])
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            connection.sendall(body[40:])
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        assert server.process.wait(timeout=8) == 0


def test_sigterm_ends_a_start_that_finds_no_api_server(tmp_path: Path) -> None:
    """It waits for the API server as long as it takes, and no longer than it should."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        path = on_kubernetes(tmp_path, f"http://127.0.0.1:{port}")
        process = subprocess.Popen(
            [*FAIRSHARE, "serve", "--config", str(path)], cwd=ROOT
        )
        silent.settimeout(20)
        silent.accept()[0].close()  # it asks, and gets no answer
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_kubeconfig_that_cannot_be_used_exits_2(tmp_path: Path) -> None:
    """One line says which file, and what is wrong with it."""
    path = tmp_path / "config.yaml"
    path.write_text("kubernetes: {kubeconfig: /nowhere/kubeconfig}")
    free = ("--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0")
    done = fairshare("serve", "--config", str(path), *free)
    assert done.returncode == 2
    assert "/nowhere/kubeconfig" in done.stderr
    assert "Traceback" not in done.stderr


def on_kubernetes(tmp_path: Path, server: str) -> Path:
    """Settings for an API server at that address."""
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": server}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"token": "t"}}
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "contexts": [context],
                "users": [user],
                "current-context": "x",
            }
        )
    )
    free = {"listen": "127.0.0.1:0", "grpcListen": "127.0.0.1:0"}
    settings = {"server": free, "kubernetes": {"kubeconfig": str(kubeconfig)}}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(settings))
    return path


def test_options_replace_the_files_addresses(fleet: Path) -> None:
    with served(fleet, "--listen", "127.0.0.2:0") as server:
        assert server.address[0] == "127.0.0.2"
        with contextlib.closing(server.connect()) as connection:
            assert exchange(connection, "GET", "/healthz").status == 200


def test_address_in_use_is_said(fleet: Path, server: Server) -> None:
    taken = f"{server.address[0]}:{server.address[1]}"
    done = fairshare("serve", "--config", str(fleet), "--listen", taken)
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert "Traceback" not in done.stderr
    done = fairshare("serve", "--config", str(fleet), "--grpc-listen", server.grpc)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


# -- --check ------------------------------------------------------------------------


def test_check_accepts_the_example() -> None:
    done = fairshare("serve", "--check", "--config", str(EXAMPLE))
    assert done.returncode == 0
    assert done.stdout == f"{EXAMPLE}: ok: 8 nodes, 56 GPUs, 5 queues\n"


def test_check_lists_every_fault_and_exits_2(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    guarantees = "{ h100-80gb: 24 }", "{h100-80gb: 24, h100-80gb/9g.99gb: 1}"
    path.write_text(EXAMPLE.read_text().replace(*guarantees).replace("8080", "8080x"))
    done = fairshare("serve", "--check", "--config", str(path))
    assert done.returncode == 2
    assert done.stdout == ""
    first, *faults = done.stderr.splitlines()
    assert first == f"{path}: cannot be used"
    assert faults == [
        "server.listen: '127.0.0.1:8080x': is not host:port, as 127.0.0.1:8080"
    ]
    path.write_text(EXAMPLE.read_text().replace(*guarantees))
    done = fairshare("serve", "--config", str(path))
    assert done.returncode == 2
    assert "h100-80gb has no profile '9g.99gb'" in done.stderr
    assert done.stderr.startswith(f"{path}: cannot be used\ntenants[0].guarantee.")


def test_bad_option_and_missing_file_exit_2(fleet: Path, tmp_path: Path) -> None:
    done = fairshare("serve", "--config", str(fleet), "--listen", "here")
    assert done.returncode == 2
    assert "--listen: 'here' is not host:port" in done.stderr
    done = fairshare("serve", "--config", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "No such file" in done.stderr


# -- client verbs ---------------------------------------------------------------------


def test_tenants_is_a_table_and_json(server: Server) -> None:
    done = fairshare("tenants", "--server", server.grpc)
    assert done.returncode == 0, done.stderr
    header, a, b = (line.split() for line in done.stdout.splitlines())
    assert header[:5] == ["tenant", "form", "guarantee", "used", "burst"]
    assert a[:5] == ["a", "h100-80gb", "8", "8", "0"]
    assert b[-1] == "12"
    done = fairshare("tenants", "--json", "--server", server.grpc)
    assert json.loads(done.stdout)["rows"][0]["used"]["gpus"] == 8.0


def test_queue_and_explain(server: Server) -> None:
    done = fairshare("queue", "--server", server.grpc)
    assert done.returncode == 0, done.stderr
    assert "training" in done.stdout
    done = fairshare("queue", "--json", "--tenant", "a", "--server", server.grpc)
    assert json.loads(done.stdout) == {"entries": []}
    done = fairshare("explain", "team-b/pod-w", "--server", server.grpc)
    assert done.stdout.startswith("team-b/pod-w: larger than the whole cluster")
    done = fairshare("explain", "r", "--json", "--server", server.grpc)
    assert json.loads(done.stdout)["reason"] == "RUNNING"


def test_client_errors_are_one_line_and_exit_1(server: Server) -> None:
    done = fairshare("explain", "no/pod", "--server", server.grpc)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{server.grpc}: NOT_FOUND: pod 'no/pod' is unknown")
    done = fairshare("tenants", "--server", "127.0.0.1:1")
    assert done.returncode == 1
    assert "UNAVAILABLE" in done.stderr
    assert "Traceback" not in done.stderr
