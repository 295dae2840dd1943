"""Our service as a process beside a control plane, and kube-scheduler asking it."""

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.controlplane import objects
from tests.controlplane.client import Client, Object
from tests.controlplane.plane import ControlPlane

ROOT = Path(__file__).parents[2]
CRDS = sorted((ROOT / "deploy" / "crds").glob("*.yaml"))
SCHEDULER_CONFIG = ROOT / "deploy" / "kube-scheduler-config.yaml"
H100 = "h100-80gb"
PATIENCE_S = 30.0


class Fairshare:
    """One service process; `restart` and `kill` keep its ports."""

    def __init__(
        self,
        plane: ControlPlane,
        policy: Mapping[str, object] | None = None,
        kubeconfig: Path | None = None,
    ) -> None:
        self._kubeconfig = kubeconfig or plane.kubeconfig
        self._directory = Path(tempfile.mkdtemp(prefix="fairshare-"))
        self._policy = dict(policy or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.http = self.grpc = "127.0.0.1:0"

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        settings = {
            "server": {"listen": self.http, "grpcListen": self.grpc},
            "policy": {"solver": {"enabled": False}, **self._policy},
            **self._world(),
        }
        config = self._directory / "config.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "scheduler", "serve", "--config", str(config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log.read_text()
        addresses = json.loads(line)
        self.http, self.grpc = addresses["http"], addresses["grpc"]

    def _world(self) -> dict[str, object]:
        """Where nodes, tenants and pods come from: the sections of the file."""
        return {"kubernetes": {"kubeconfig": str(self._kubeconfig)}}

    @property
    def log(self) -> Path:
        return self._directory / "log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait(15)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as answer:
            return json.load(answer)

    def explain(self, pod: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/v1/explain?pod={pod}")
        return found

    def knows(self, pod: str) -> bool:
        """Whether it has been told of a pod."""
        try:
            self.explain(pod)
        except urllib.error.HTTPError:
            return False
        return True

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a series over all labels but those that are given."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10) as a:
            lines = a.read().decode().splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.split("{")[0].split(" ")[0] == name
            and all(label in line for label in wanted)
        )


def scheduler_config(http: str, **changes: Any) -> str:
    """Our kube-scheduler configuration, as we ship it, for a service's address."""
    config = yaml.safe_load(SCHEDULER_CONFIG.read_text())
    config["profiles"][0]["schedulerName"] = "default-scheduler"
    config["extenders"][0]["urlPrefix"] = f"http://{http}"
    config.pop("leaderElection", None)
    config.update(changes)
    return yaml.safe_dump(config)


@contextmanager
def fairshare(
    plane: ControlPlane,
    policy: Mapping[str, object] | None = None,
    kubeconfig: Path | None = None,
) -> Iterator[Fairshare]:
    """The service, and a kube-scheduler that asks it."""
    install(plane)
    service = Fairshare(plane, policy, kubeconfig)
    try:
        service.start()
        plane.start_scheduler(scheduler_config(service.http))
        yield service
    except BaseException:
        sys.stdout.write(service.log.read_text()[-8000:])  # pytest shows it
        raise
    finally:
        service.stop()


def install(plane: ControlPlane) -> None:
    """Our kinds of objects."""
    for path in CRDS:
        plane.kubectl("apply", "-f", str(path))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all")


def tenant(name: str, namespace: str = "", **spec: Any) -> Object:
    """A Tenant that owns one namespace."""
    if namespace:
        labels = {"kubernetes.io/metadata.name": namespace}
        spec["namespaces"] = {"matchLabels": labels}
    return {
        "apiVersion": "fairshare.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": spec,
    }


def gated(name: str, namespace: str, gpus: int = 1, **more: Any) -> Object:
    """A pod at our gate; training unless it says otherwise."""
    more.setdefault("priority_class", "fairshare-training")
    return objects.pod(name, namespace, gpus, gated=True, **more)


def team(name: str, namespace: str, count: int, gpus: int, **more: Any) -> list[Object]:
    """Pods of one gang: name-0, name-1, ..."""
    notes = {
        "fairshare.dev/gang": name,
        "fairshare.dev/gang-min-member": str(count),
        **more.pop("annotations", {}),
    }
    return [
        gated(f"{name}-{i}", namespace, gpus, annotations=notes, **more)
        for i in range(count)
    ]


def node_of(client: Client, pod: str, namespace: str) -> str:
    """Where a pod is bound; empty while it is not."""
    found = client.find("pods", pod, namespace) or {}
    return str(found.get("spec", {}).get("nodeName", ""))


def nominated(client: Client, pod: str, namespace: str) -> str:
    found = client.find("pods", pod, namespace) or {}
    return str(found.get("status", {}).get("nominatedNodeName", ""))


def until(
    what: str, probe: Callable[[], object], patience_s: float = PATIENCE_S
) -> Any:
    """Wait for something that happens by itself, and return what it was."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"within {patience_s:g} s it was not so that {what}")
