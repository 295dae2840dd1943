"""How each component of the control plane is told what to do: flags and files."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.controlplane.process import LOOPBACK, free_ports

ADMIN = "admin"
MASTERS = ("system:masters",)
SCHEDULER = "system:kube-scheduler"
MANAGER = "system:kube-controller-manager"
KUBELETS = "system:hollow-kubelets"
COMPONENT_USERS: Mapping[str, Sequence[str]] = {
    ADMIN: MASTERS,
    # Bound to its own role, as in a real cluster; the other two may do all.
    SCHEDULER: (),
    MANAGER: MASTERS,
    KUBELETS: MASTERS,
}

LISTENERS = ("etcd", "etcd-peer", "kube-apiserver", "kube-scheduler")

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
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "root-ca-certificate-publisher-controller",
    "service-lb-controller",
)


@dataclass(frozen=True)
class Site:
    """Where one control plane lives, who may use it and how it is set up."""

    directory: Path
    users: Mapping[str, Sequence[str]]
    manager: bool
    load: bool
    feature_gates: Mapping[str, bool]
    ports: Mapping[str, int] = field(
        default_factory=lambda: dict(
            zip(LISTENERS, free_ports(len(LISTENERS)), strict=True)
        )
    )
    _secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def server(self) -> str:
        return f"https://{LOOPBACK}:{self.ports['kube-apiserver']}"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def certificates(self) -> Path:
        return self.directory / "certificates"

    @property
    def authority(self) -> Path:
        return self.certificates / "apiserver.crt"

    @property
    def account_key(self) -> Path:
        return self.directory / "service-accounts.key"

    @property
    def token_file(self) -> Path:
        return self.directory / "tokens.csv"

    def token(self, user: str) -> str:
        if user not in self.users:
            raise KeyError(f"{user} is not a user of this control plane")
        return f"{user.replace(':', '-')}.{self._secret}"

    def kubeconfig(self, user: str) -> Path:
        return self.directory / f"{user.replace(':', '-')}.kubeconfig"

    def write(self) -> None:
        """Write what the components read at their start, but for the account key."""
        for directory in (self.certificates, self.data):
            directory.mkdir(parents=True, exist_ok=True)
        lines = [
            f'{self.token(user)},{user},{user},"{",".join(groups)}"'
            for user, groups in self.users.items()
        ]
        self.token_file.write_text("\n".join(lines))
        for user in self.users:
            document = _kubeconfig(self.server, self.authority, user, self.token(user))
            self.kubeconfig(user).write_text(json.dumps(document, indent=1))


def etcd_flags(site: Site) -> list[str]:
    return [
        f"--data-dir={site.data}",
        f"--client-port={site.ports['etcd']}",
        f"--peer-port={site.ports['etcd-peer']}",
    ]


def apiserver_flags(site: Site) -> list[str]:
    flags = [
        f"--etcd-servers=http://{LOOPBACK}:{site.ports['etcd']}",
        f"--secure-port={site.ports['kube-apiserver']}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        # There is no network that could reach a kubernetes service.
        "--endpoint-reconciler-type=none",
        f"--cert-dir={site.certificates}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={site.account_key}",
        f"--service-account-signing-key-file={site.account_key}",
        f"--token-auth-file={site.token_file}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/16",
        *_gates(site),
    ]
    left_out = [] if site.manager else ["ServiceAccount"]
    if site.load or not site.manager:
        # Nobody, or nobody in time, takes the taint away again.
        left_out.append("TaintNodesByCondition")
    if left_out:
        flags.append(f"--disable-admission-plugins={','.join(left_out)}")
    if site.load:
        flags += [
            "--max-requests-inflight=0",
            "--max-mutating-requests-inflight=0",
            "--enable-priority-and-fairness=false",
        ]
    return flags


def manager_flags(site: Site) -> list[str]:
    return [
        f"--kubeconfig={site.kubeconfig(MANAGER)}",
        f"--service-account-private-key-file={site.account_key}",
        "--controllers=*," + ",".join(f"-{name}" for name in LEFT_OUT),
        "--secure-port=0",
        "--leader-elect=false",
        "--kube-api-qps=5000",
        "--kube-api-burst=5000",
        # Hollow nodes send no heartbeats.
        "--node-monitor-grace-period=24h",
        "--node-monitor-period=1s",
        # The default lets a test wait ten seconds for each further node.
        "--node-eviction-rate=100",
        "--secondary-node-eviction-rate=100",
        *_gates(site),
    ]


def scheduler_flags(site: Site, config: Path) -> list[str]:
    kubeconfig = site.kubeconfig(ADMIN)
    return [
        f"--config={config}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={site.ports['kube-scheduler']}",
        f"--cert-dir={site.certificates}",
        f"--authentication-kubeconfig={kubeconfig}",
        "--authentication-skip-lookup",
        f"--authorization-kubeconfig={kubeconfig}",
        *_gates(site),
    ]


def scheduler_config(
    site: Site, config: str, lease_s: tuple[float, float, float]
) -> dict[str, Any]:
    """A KubeSchedulerConfiguration, with what it leaves out filled in."""
    document = yaml.safe_load(config) or {}
    duration, renew, retry = (f"{seconds:g}s" for seconds in lease_s)
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        **document,
        "clientConnection": {
            "kubeconfig": str(site.kubeconfig(SCHEDULER)),
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


def hollow_flags(site: Site, config: Path) -> list[str]:
    return [
        f"--kubeconfig={site.kubeconfig(KUBELETS)}",
        f"--config={config}",
        "--manage-all-nodes",
    ]


def _gates(site: Site) -> list[str]:
    settings = [f"{name}={str(on).lower()}" for name, on in site.feature_gates.items()]
    return [f"--feature-gates={','.join(settings)}"] if settings else []


def _kubeconfig(server: str, authority: Path, user: str, token: str) -> dict[str, Any]:
    cluster = {"server": server, "certificate-authority": str(authority)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
        "current-context": "tests",
    }
