"""A real Kubernetes control plane on loopback, whose life is a `with` statement."""

import atexit
import itertools
import os
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

from tests.controlplane import components, hollow, objects
from tests.controlplane.build import Binaries
from tests.controlplane.client import MERGE, ApiError, Client, Object, eventually
from tests.controlplane.components import ADMIN, COMPONENT_USERS, Site
from tests.controlplane.process import LOOPBACK, Process, wait_until_free

START_S = 60.0
"""How long a component may take to come up, seconds; it takes two on a free machine."""

LEASE_S = (6.0, 5.0, 0.5)
"""Duration, renew deadline and retry period of the scheduler's Lease, seconds."""


class ControlPlane:
    """etcd and the API server, and on request all that makes them a cluster.

    Every process ends with the `with` block, and with this Python process however that
    ends.

    Parameters
    ----------
    binaries
        What `build.ensure` returned.
    directory
        Where logs, keys and kubeconfigs go. Data is removed when it stops.
    users
        Further users and their groups, as in {"alice": ("team-a",)}. They may do what
        RBAC objects let them.
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
        self._site = Site(
            directory.absolute(),
            users={**COMPONENT_USERS, **(users or {})},
            manager=manager,
            load=load,
            feature_gates=feature_gates or {},
        )
        self._hollow_nodes = hollow_nodes
        self._processes: dict[str, Process] = {}
        self._clients: dict[str, Client] = {}
        self._scheduler_config: dict[str, Any] = {}
        self._numbers = itertools.count(1)
        self._tie: tuple[int, int] | None = None

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
        """Start all but the scheduler; returns when they are ready."""
        self._tie = os.pipe()
        atexit.register(self.stop)
        try:
            self._site.write()
            key = [self.binaries.controlplane, "key", self._site.account_key]
            subprocess.run(key, check=True)
            self._run("etcd", components.etcd_flags(self._site))
            self.start_apiserver()
            if self._site.manager:
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
        last_first = list(self._processes.values())[::-1]
        for process in last_first:
            process.signal(signal.SIGTERM)
        patience = time.monotonic() + 3
        for process in last_first:
            process.stop(max(0.0, patience - time.monotonic()))
        for end in self._tie:
            os.close(end)
        self._tie = None
        atexit.unregister(self.stop)
        wait_until_free(self.ports)
        shutil.rmtree(self._site.data, ignore_errors=True)

    def start_apiserver(self) -> None:
        self._run("kube-apiserver", components.apiserver_flags(self._site))
        self._await("kube-apiserver", self.is_ready)

    def stop_apiserver(self) -> None:
        self._end("kube-apiserver")

    def kill_apiserver(self) -> None:
        self._end("kube-apiserver", kill=True)

    def restart_apiserver(self, *, kill: bool = False) -> None:
        """End it and start it again.

        A scheduler that could not renew its Lease meanwhile gave up; it is started
        again, as a kubelet would.
        """
        led = self.scheduler_runs
        self._end("kube-apiserver", kill=kill)
        self.start_apiserver()
        if led and not self.scheduler_runs:
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
        self._scheduler_config = components.scheduler_config(
            self._site, config, lease_s
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
    def client(self) -> Client:
        """Of the user who may do everything."""
        return self.client_for(ADMIN)

    @property
    def kubeconfig(self) -> Path:
        """Of the user who may do everything."""
        return self.kubeconfig_for(ADMIN)

    def client_for(self, user: str) -> Client:
        if user not in self._clients:
            token = self.token_for(user)
            self._clients[user] = Client(self.server, self._site.authority, token)
        return self._clients[user]

    def kubeconfig_for(self, user: str) -> Path:
        return self._site.kubeconfig(user)

    def token_for(self, user: str) -> str:
        return self._site.token(user)

    @property
    def server(self) -> str:
        return self._site.server

    @property
    def authority(self) -> Path:
        """The certificate by which the API server is known."""
        return self._site.authority

    @property
    def ports(self) -> list[int]:
        return list(self._site.ports.values())

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the components that run."""
        return {name: p.pid for name, p in self._processes.items() if p.running}

    @property
    def fallen(self) -> dict[str, str]:
        """The last words of the components that ended though nobody told them to."""
        return {name: p.tail() for name, p in self._processes.items() if p.fell}

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints; raises with what it complains about."""
        done = subprocess.run(
            [self.binaries.kubectl, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self._site.directory),
                "KUBECONFIG": str(self.kubeconfig),
            },
        )
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def logs(self, name: str) -> str:
        """All that a component has said so far, over its restarts."""
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
        server = f"https://{LOOPBACK}:{self._site.ports['kube-scheduler']}"
        authority = self._site.certificates / "kube-scheduler.crt"
        scheduler = Client(server, authority, self.token_for(ADMIN))
        _, text = scheduler.raw("GET", "/metrics")
        scheduler.close()
        return text.decode()

    def new_namespace(
        self, prefix: str = "team", labels: Mapping[str, str] | None = None
    ) -> str:
        """Make a namespace that takes pods at once, and say its name.

        The name is new: namespaces of earlier tests may still be on their way out.
        """
        name = f"{prefix}-{next(self._numbers)}"
        self.client.create(objects.namespace(name, labels))
        # Pods are refused until there is one; do not wait for the controller.
        self.client.ensure(objects.service_account("default", name))
        return name

    def clear(self) -> None:
        """Take away what a test left: namespaces, pods, nodes, tenants, fleets.

        Returns when no pod and no node is left. Namespaces go a little later by
        themselves, so the next test must not use the same names.
        """
        client = self.client
        for namespace in client.items("namespaces"):
            # Nothing can be created in a namespace that is on its way out, so no
            # controller makes new pods.
            if not _is_builtin(namespace["metadata"]["name"]):
                client.delete("namespaces", namespace["metadata"]["name"])
        for resource in ("tenants", "fleets"):
            with suppress(ApiError):  # there need not be such a kind
                client.delete_all(resource)
        client.delete_all("nodes")
        client.in_parallel(lambda pod: _remove(client, pod), client.items("pods"))
        eventually(lambda: not client.items("pods"), 30, "no pod is left")
        eventually(lambda: not client.items("nodes"), 30, "no node is left")

    # Parts

    def _run(self, name: str, flags: Sequence[str], program: str | None = None) -> None:
        assert self._tie is not None, "the control plane is not running"
        command = [str(self.binaries.controlplane), "tied", program or name, *flags]
        process = Process(name, command, self._site.directory)
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
        wait_until_free([self._site.ports[name]])

    def _lead(self) -> None:
        path = self._site.directory / "kube-scheduler.yaml"
        path.write_text(yaml.safe_dump(self._scheduler_config))
        before = self.lease_holder()
        self._run("kube-scheduler", components.scheduler_flags(self._site, path))
        self._await("kube-scheduler", lambda: self.lease_holder() not in (None, before))

    def _start_manager(self) -> None:
        name = "kube-controller-manager"
        self._run(name, components.manager_flags(self._site))
        # The first thing it does that can be seen from outside.
        account = ("serviceaccounts", "default", "default")
        self._await(name, lambda: self.client.find(*account) is not None)

    def _start_hollow_nodes(self) -> None:
        config = self._site.directory / "kwok.yaml"
        config.write_text(hollow.configuration())
        flags = components.hollow_flags(self._site, config)
        self._run("kwok", flags, str(self.binaries.kwok))

    def _await(self, name: str, probe: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        process = self._processes[name]
        while not probe():
            if not process.running or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not start:\n{process.tail()}")
            time.sleep(0.03)


def _is_builtin(namespace: str) -> bool:
    return namespace == "default" or namespace.startswith("kube-")


def _remove(client: Client, pod: Object) -> None:
    """Delete a pod at once, whoever still wants to count it."""
    meta = pod["metadata"]
    name, namespace = meta["name"], meta["namespace"]
    with suppress(ApiError):  # gone meanwhile
        if meta.get("finalizers"):
            body = {"metadata": {"finalizers": None}}
            client.patch("pods", name, body, namespace, form=MERGE)
        client.delete("pods", name, namespace, grace=0)
