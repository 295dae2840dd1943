"""A real Kubernetes control plane on loopback, whose life is a `with` statement."""

import atexit
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.controlplane import hollow
from tests.controlplane.build import Binaries
from tests.controlplane.client import (
    MERGE,
    ApiError,
    Client,
    Object,
    eventually,
)
from tests.controlplane.process import LOOPBACK, Process, free_ports, wait_until_free

ADMIN = "admin"
MASTERS = ("system:masters",)
COMPONENT_USERS: Mapping[str, Sequence[str]] = {
    ADMIN: MASTERS,
    # Bound to its own role, as in a real cluster; the other two may do all.
    "system:kube-scheduler": (),
    "system:kube-controller-manager": MASTERS,
    "system:hollow-kubelets": MASTERS,
}
# Nothing here has clouds, volumes or autoscalers, and they cost start-up and memory.
LEFT_OUT = (
    "cloud-node-lifecycle-controller",
    "ephemeral-volume-controller",
    "horizontal-pod-autoscaler-controller",
    "node-ipam-controller",
    "node-route-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "persistentvolumeclaim-protection-controller",
    "persistentvolume-protection-controller",
    "root-ca-certificate-publisher-controller",
    "service-lb-controller",
)
_PORTS = ("etcd", "etcd-peer", "kube-apiserver", "kube-scheduler", "kwok")
LEASE_S = (4.0, 3.0, 0.5)
"""Duration, renew deadline and retry period of the scheduler's Lease."""


class ControlPlane:
    """etcd and the API server, and on request all that makes them a cluster.

    Parameters
    ----------
    binaries
        What `build.ensure` returned.
    directory
        Where logs, keys and kubeconfigs go. Data is removed when it stops.
    users
        Further users and their groups; `client_for` and `kubeconfig_for` know them.
    manager, hollow_nodes
        Whether the controller manager, and KWOK for the nodes, run.
    load
        For thousands of nodes: no limits on requests in flight, no taint on nodes that
        are not Ready yet.
    feature_gates
        Of all components.
    """

    def __init__(
        self,
        binaries: Binaries,
        directory: Path,
        *,
        users: Mapping[str, Sequence[str]] | None = None,
        manager: bool = True,
        hollow_nodes: bool = True,
        load: bool = False,
        feature_gates: Mapping[str, bool] | None = None,
    ) -> None:
        self.binaries = binaries
        self.directory = directory.absolute()
        self._users = {**COMPONENT_USERS, **(users or {})}
        self._tokens = {user: secrets.token_hex(16) for user in self._users}
        self._manager, self._hollow_nodes, self._load = manager, hollow_nodes, load
        self._gates = ",".join(
            f"{name}={str(on).lower()}" for name, on in (feature_gates or {}).items()
        )
        self._processes: dict[str, Process] = {}
        self._scheduler_config: dict[str, Any] = {}
        self._tie: tuple[int, int] | None = None
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self._clients: dict[str, Client] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # Life

    def start(self) -> None:
        """Start all but the scheduler; returns when the API server is ready."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._tie = os.pipe()
        atexit.register(self.stop)
        try:
            self._prepare()
            self._run("etcd", self._etcd_flags())
            self.start_apiserver()
            if self._manager:
                self._start_manager()
            if self._hollow_nodes:
                self._start_hollow_nodes()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process; returns when they are gone and their ports are free."""
        if self._tie is None:
            return
        for client in self._clients.values():
            client.close()
        started_last_first = list(self._processes.values())[::-1]
        for process in started_last_first:
            process.signal(signal.SIGTERM)
        patience = time.monotonic() + 3
        for process in started_last_first:
            process.stop(max(0.0, patience - time.monotonic()))
        for end in self._tie:
            os.close(end)
        self._tie = None
        atexit.unregister(self.stop)
        wait_until_free(list(self._ports.values()))
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    def start_apiserver(self) -> None:
        self._run("kube-apiserver", self._apiserver_flags())
        self._await("kube-apiserver", self.is_ready, 60)

    def stop_apiserver(self) -> None:
        self._end("kube-apiserver")

    def kill_apiserver(self) -> None:
        self._end("kube-apiserver", kill=True)

    def restart_apiserver(self, *, kill: bool = False) -> None:
        """End it and start it again.

        A scheduler that could not renew its Lease meanwhile gave up; it is started
        again, as a kubelet would.
        """
        leading = self.scheduler_runs
        self._end("kube-apiserver", kill=kill)
        self.start_apiserver()
        if leading and not self.scheduler_runs:
            self._lead()

    def start_scheduler(
        self, config: str = "", *, lease_s: tuple[float, float, float] = LEASE_S
    ) -> None:
        """Run kube-scheduler; returns when it leads.

        Parameters
        ----------
        config
            A KubeSchedulerConfiguration as YAML; what it leaves out of the client
            connection and of leader election is filled in.
        lease_s
            Duration, renew deadline and retry period of its Lease. Let it be longer
            where the machine is kept busy.
        """
        self._scheduler_config = _scheduler_config(
            config, str(self.kubeconfig_for("system:kube-scheduler")), lease_s
        )
        self._lead()

    def stop_scheduler(self) -> None:
        """End it in good order: it gives its Lease back."""
        self._end("kube-scheduler")

    def kill_scheduler(self) -> None:
        """End it at once: its successor waits until the Lease has run out."""
        self._end("kube-scheduler", kill=True)

    def restart_scheduler(self, *, kill: bool = False) -> None:
        self._end("kube-scheduler", kill=kill)
        self._lead()

    @property
    def scheduler_runs(self) -> bool:
        scheduler = self._processes.get("kube-scheduler")
        return scheduler is not None and scheduler.running

    # Use

    @property
    def server(self) -> str:
        return f"https://{LOOPBACK}:{self._ports['kube-apiserver']}"

    @property
    def authority(self) -> Path:
        """The certificate by which the API server is known."""
        return self.directory / "certificates" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """Of the user who may do everything."""
        return self.kubeconfig_for(ADMIN)

    @property
    def client(self) -> Client:
        return self.client_for(ADMIN)

    @property
    def ports(self) -> list[int]:
        return list(self._ports.values())

    @property
    def pids(self) -> dict[str, int]:
        return {name: p.pid for name, p in self._processes.items() if p.running}

    def client_for(self, user: str) -> Client:
        if user not in self._clients:
            self._clients[user] = Client(
                self.server, self.authority, self.token_for(user)
            )
        return self._clients[user]

    def token_for(self, user: str) -> str:
        return self._tokens[user]

    def kubeconfig_for(self, user: str) -> Path:
        return self.directory / f"{user.replace(':', '-')}.kubeconfig"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints; raises with what it complains about."""
        done = subprocess.run(
            [self.binaries.kubectl, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                "KUBECONFIG": str(self.kubeconfig),
            },
        )
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def logs(self, name: str) -> str:
        return self._processes[name].log.read_text(errors="replace")

    def is_ready(self) -> bool:
        try:
            status, _ = self.client.raw("GET", "/readyz")
        except OSError:
            return False
        return status == 200

    def lease_holder(self) -> str | None:
        """Who leads the schedulers, as their Lease has it."""
        lease = self.client.find("leases", "kube-scheduler", "kube-system")
        return (lease or {}).get("spec", {}).get("holderIdentity") or None

    def scheduler_metrics(self) -> str:
        """What kube-scheduler tells Prometheus."""
        server = f"https://{LOOPBACK}:{self._ports['kube-scheduler']}"
        authority = self.authority.parent / "kube-scheduler.crt"
        scheduler = Client(server, authority, self.token_for(ADMIN))
        _, text = scheduler.raw("GET", "/metrics")
        scheduler.close()
        return text.decode()

    def clear(self) -> None:
        """Take away what a test left: nodes, pods, namespaces, our own objects.

        Returns when no pod and no node is left. Namespaces go a little later by
        themselves, so the next test must not use the same names.
        """
        client = self.client
        ours = [
            name
            for name in (n["metadata"]["name"] for n in client.items("namespaces"))
            if name != "default" and not name.startswith("kube-")
        ]
        for name in ours:
            # Nothing can be created in a namespace that is on its way out, so no
            # controller makes new pods.
            client.delete("namespaces", name)
        for resource in ("tenants", "fleets"):
            with suppress(ApiError):  # there need not be such a kind
                client.delete_all(resource)
        client.delete_all("nodes")
        client.in_parallel(_remove_pod(client), client.items("pods"))
        eventually(lambda: not client.items("pods"), 30, "no pod is left")
        eventually(lambda: not client.items("nodes"), 30, "no node is left")

    # Parts

    def _prepare(self) -> None:
        for name in ("certificates", "data"):
            (self.directory / name).mkdir(exist_ok=True)
        key = [self.binaries.controlplane, "key", self._service_account_key]
        subprocess.run(key, check=True)
        lines = [
            f'{self._tokens[user]},{user},{user},"{",".join(groups)}"'
            for user, groups in self._users.items()
        ]
        self._token_file.write_text("\n".join(lines))
        for user in self._users:
            self.kubeconfig_for(user).write_text(self._kubeconfig_text(user))

    @property
    def _service_account_key(self) -> Path:
        return self.directory / "service-accounts.key"

    @property
    def _token_file(self) -> Path:
        return self.directory / "tokens.csv"

    def _run(self, name: str, flags: Sequence[str], program: str | None = None) -> None:
        assert self._tie is not None, "the control plane is not running"
        command = [str(self.binaries.controlplane), "tied", program or name, *flags]
        process = Process(name, command, self.directory)
        self._processes[name] = process
        process.start(self._tie[0])

    def _end(self, name: str, *, kill: bool = False) -> None:
        process = self._processes.get(name)
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.stop()
        if name in self._ports:
            wait_until_free([self._ports[name]])

    def _lead(self) -> None:
        path = self.directory / "kube-scheduler.yaml"
        path.write_text(yaml.safe_dump(self._scheduler_config))
        before = self.lease_holder()
        self._run("kube-scheduler", self._scheduler_flags(path))
        self._await(
            "kube-scheduler", lambda: self.lease_holder() not in (None, before), 60
        )

    def _start_manager(self) -> None:
        name = "kube-controller-manager"
        self._run(name, self._manager_flags())
        # The first thing it does that can be seen from outside.
        account = ("serviceaccounts", "default", "default")
        self._await(name, lambda: self.client.find(*account) is not None, 60)

    def _start_hollow_nodes(self) -> None:
        config = self.directory / "kwok.yaml"
        config.write_text(hollow.configuration())
        flags = [
            f"--kubeconfig={self.kubeconfig_for('system:hollow-kubelets')}",
            f"--config={config}",
            "--manage-all-nodes",
            f"--server-address={LOOPBACK}:{self._ports['kwok']}",
        ]
        self._run("kwok", flags, str(self.binaries.kwok))

    def _await(self, name: str, probe: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        process = self._processes[name]
        while not probe():
            if not process.running or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not start:\n{process.tail()}")
            time.sleep(0.03)

    # Flags

    def _etcd_flags(self) -> list[str]:
        return [
            f"--data-dir={self.directory / 'data'}",
            f"--client-port={self._ports['etcd']}",
            f"--peer-port={self._ports['etcd-peer']}",
        ]

    def _apiserver_flags(self) -> list[str]:
        flags = [
            f"--etcd-servers=http://{LOOPBACK}:{self._ports['etcd']}",
            f"--secure-port={self._ports['kube-apiserver']}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            # There is no network that could reach a kubernetes service.
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.authority.parent}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._service_account_key}",
            f"--service-account-signing-key-file={self._service_account_key}",
            f"--token-auth-file={self._token_file}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/16",
            *self._gate_flags(),
        ]
        refused = []
        if not self._manager:
            refused.append("ServiceAccount")
        if self._load or not self._manager:
            refused.append("TaintNodesByCondition")
        if refused:
            flags.append(f"--disable-admission-plugins={','.join(refused)}")
        if self._load:
            flags += [
                "--max-requests-inflight=0",
                "--max-mutating-requests-inflight=0",
                "--enable-priority-and-fairness=false",
            ]
        return flags

    def _manager_flags(self) -> list[str]:
        kubeconfig = self.kubeconfig_for("system:kube-controller-manager")
        return [
            f"--kubeconfig={kubeconfig}",
            f"--service-account-private-key-file={self._service_account_key}",
            "--controllers=*," + ",".join(f"-{name}" for name in LEFT_OUT),
            "--secure-port=0",
            "--leader-elect=false",
            "--kube-api-qps=5000",
            "--kube-api-burst=5000",
            # Hollow nodes send no heartbeats.
            "--node-monitor-grace-period=24h",
            "--node-monitor-period=1s",
            *self._gate_flags(),
        ]

    def _scheduler_flags(self, config: Path) -> list[str]:
        return [
            f"--config={config}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self._ports['kube-scheduler']}",
            f"--cert-dir={self.authority.parent}",
            f"--authentication-kubeconfig={self.kubeconfig}",
            "--authentication-skip-lookup",
            f"--authorization-kubeconfig={self.kubeconfig}",
            *self._gate_flags(),
        ]

    def _gate_flags(self) -> list[str]:
        return [f"--feature-gates={self._gates}"] if self._gates else []

    def _kubeconfig_text(self, user: str) -> str:
        cluster = {"server": self.server, "certificate-authority": str(self.authority)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [
                {"name": "tests", "context": {"cluster": "tests", "user": user}}
            ],
            "current-context": "tests",
        }
        return json.dumps(document, indent=1)


def _remove_pod(client: Client) -> Callable[[Object], None]:
    def remove(pod: Object) -> None:
        meta = pod["metadata"]
        name, namespace = meta["name"], meta["namespace"]
        with suppress(ApiError):  # gone meanwhile
            if meta.get("finalizers"):
                body = {"metadata": {"finalizers": None}}
                client.patch("pods", name, body, namespace, form=MERGE)
            client.delete("pods", name, namespace, grace=0)

    return remove


def _scheduler_config(
    config: str, kubeconfig: str, lease_s: tuple[float, float, float]
) -> dict[str, Any]:
    document = yaml.safe_load(config) or {}
    duration, renew, retry = (f"{seconds:g}s" for seconds in lease_s)
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        **document,
        "clientConnection": {
            "kubeconfig": kubeconfig,
            "qps": 5000,
            "burst": 5000,
            **document.get("clientConnection", {}),
        },
        "leaderElection": {
            "leaderElect": True,
            "leaseDuration": duration,
            "renewDeadline": renew,
            "retryPeriod": retry,
            **document.get("leaderElection", {}),
        },
    }
