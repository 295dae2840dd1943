"""The control plane itself does what the other tests here rely on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.controlplane import hollow, objects
from tests.controlplane.build import Binaries
from tests.controlplane.client import MERGE, ApiError, Client, eventually
from tests.controlplane.plane import ControlPlane
from tests.controlplane.process import is_free
from tests.e2e.conftest import NewNamespace


def phase(client: Client, name: str, namespace: str) -> str:
    pod = client.find("pods", name, namespace)
    return pod["status"]["phase"] if pod else "gone"


def is_ready(pod: dict) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def measured(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


# Life


def test_starts_in_seconds_and_leaves_nothing(
    binaries: Binaries, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plane = ControlPlane(binaries, tmp_path)
    start = measured(plane.start)
    scheduler = measured(plane.start_scheduler)
    pids = plane.pids
    stop = measured(plane.stop)
    with capsys.disabled():
        line = f"start {start:.1f} s, scheduler {scheduler:.1f} s, stop {stop:.1f} s"
        sys.stdout.write(f"\n  {binaries.version}: {line}\n")
    assert start < 30
    assert sorted(pids) == [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kwok",
    ]
    assert not [name for name, pid in pids.items() if is_alive(pid)]
    assert all(is_free(port) for port in plane.ports)


def test_dies_with_whoever_started_it(binaries: Binaries, tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from tests.controlplane.build import Binaries
from tests.controlplane.plane import ControlPlane
binaries = Binaries({binaries.version!r}, Path({str(binaries.directory)!r}))
plane = ControlPlane(binaries, Path({str(tmp_path)!r}))
plane.start()
print(*plane.pids.values(), flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pids = [int(pid) for pid in starter.stdout.readline().split()]
        assert len(pids) == 4
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
    eventually(lambda: not [pid for pid in pids if is_alive(pid)], 5, "all have ended")


def test_a_restarted_scheduler_takes_the_lease(plane: ControlPlane) -> None:
    plane.start_scheduler()
    first = plane.lease_holder()
    plane.restart_scheduler()
    second = plane.lease_holder()
    plane.restart_scheduler(kill=True)
    assert len({first, second, plane.lease_holder()}) == 3
    assert "scheduler_pending_pods" in plane.scheduler_metrics()


def test_a_restarted_api_server_knows_what_it_knew(
    fresh_plane: ControlPlane,
) -> None:
    client = fresh_plane.client
    client.create(objects.node("n0"))
    fresh_plane.kill_apiserver()
    with pytest.raises(OSError, match="refused"):
        client.get("nodes", "n0")
    fresh_plane.start_apiserver()
    assert client.get("nodes", "n0")["metadata"]["name"] == "n0"


def test_users_may_do_what_they_are_bound_to(plane: ControlPlane) -> None:
    alice = plane.client_for("alice")
    with pytest.raises(ApiError, match="cannot list resource") as refused:
        alice.items("nodes")
    assert refused.value.status == 403
    who = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = alice.create({**who, "metadata": {}})
    assert "team-a" in answer["status"]["userInfo"]["groups"]


def test_kubectl_is_at_hand(plane: ControlPlane) -> None:
    assert f"v{plane.binaries.version}" in plane.kubectl("version")
    with pytest.raises(RuntimeError, match="not found"):
        plane.kubectl("get", "node", "nowhere")


def test_clearing_leaves_neither_nodes_nor_pods(
    plane: ControlPlane, client: Client, new_namespace: NewNamespace
) -> None:
    team = new_namespace()
    plane.start_scheduler()
    client.create_all(objects.nodes(3))
    slow = {hollow.RUNS_FOR: "forever", hollow.SHUTS_DOWN_IN: "30"}
    client.create(objects.job("train", team, pods=5, annotations=slow))
    client.create(objects.deployment("serve", team, pods=5, annotations=slow))
    eventually(lambda: len(client.items("pods", team)) == 10)
    assert measured(plane.clear) < 10
    assert not client.items("pods")
    assert not client.items("nodes")


def test_a_watch_tells_what_changes(client: Client) -> None:
    with client.watch("nodes") as events:
        client.create(objects.node("n0"))
        kind, node = next(events)
    assert (kind, node["metadata"]["name"]) == ("ADDED", "n0")


# Controllers


def test_a_job_runs_and_completes(
    plane: ControlPlane, client: Client, new_namespace: NewNamespace
) -> None:
    team = new_namespace()
    plane.start_scheduler()
    client.create(objects.node("n0", gpus=2))
    client.create(objects.job("train", team, gpus=1, pods=2))

    def succeeded() -> bool:
        return client.get("jobs", "train", team)["status"].get("succeeded") == 2

    eventually(succeeded, 15)
    assert {pod["spec"]["nodeName"] for pod in client.items("pods", team)} == {"n0"}


def test_a_gated_pod_waits_and_its_neighbour_runs(
    plane: ControlPlane, client: Client, new_namespace: NewNamespace
) -> None:
    team = new_namespace()
    client.create(objects.node("n0"))
    client.create(objects.pod("gated", team, gated=True))
    client.create(objects.pod("free", team))
    plane.start_scheduler()
    eventually(lambda: phase(client, "free", team) == "Running")
    gated = client.get("pods", "gated", team)
    assert gated["status"]["conditions"][0]["reason"] == "SchedulingGated"
    assert "nodeName" not in gated["spec"]


def test_a_budget_refuses_evictions(
    plane: ControlPlane, client: Client, new_namespace: NewNamespace
) -> None:
    team = new_namespace()
    client.create(objects.node("n0"))
    plane.start_scheduler()
    client.create(objects.budget("all", team, {"app": "serve"}, min_available=3))
    client.create(objects.deployment("serve", team, pods=3))

    def status(field: str) -> int:
        budget = client.get("poddisruptionbudgets", "all", team)
        return budget.get("status", {}).get(field, 0)

    eventually(lambda: status("currentHealthy") == 3, 15)
    victim = client.items("pods", team)[0]["metadata"]["name"]
    with pytest.raises(ApiError, match="disruption budget") as refused:
        client.evict(victim, team)
    assert refused.value.status == 429
    two = {"spec": {"minAvailable": 2}}
    client.patch("poddisruptionbudgets", "all", two, team, form=MERGE)
    eventually(lambda: status("disruptionsAllowed") == 1)
    client.evict(victim, team)
    eventually(lambda: phase(client, victim, team) == "gone")


def test_a_node_that_hangs_is_tainted(plane: ControlPlane, client: Client) -> None:
    # Where all nodes hang at once, nobody is thrown out: it may be the network.
    client.create_all(objects.nodes(2))
    eventually(lambda: not client.get("nodes", "n0")["spec"].get("taints"))
    client.annotate("nodes", "n0", objects.hangs())

    def taints() -> set[str]:
        spec = client.get("nodes", "n0")["spec"]
        return {taint["effect"] for taint in spec.get("taints", ())}

    eventually(lambda: taints() == {"NoSchedule", "NoExecute"})
    client.annotate("nodes", "n0", objects.hangs(False))
    eventually(lambda: not taints())


# Kubelets


@pytest.fixture
def running(
    plane: ControlPlane, client: Client, new_namespace: NewNamespace
) -> Callable[..., str]:
    """Makes a pod that runs on a hollow node, and says its namespace."""

    def make(name: str, grace_s: int = 30, **annotations: str) -> str:
        team = new_namespace()
        client.create(objects.node("n0"))
        plane.start_scheduler()
        known = {
            f"hollow.fairshare.dev/{k.replace('_', '-')}": v
            for k, v in annotations.items()
        }
        client.create(objects.pod(name, team, annotations=known, grace_s=grace_s))
        eventually(lambda: phase(client, name, team) == "Running")
        return team

    return make


def test_a_deleted_pod_goes_at_once(
    client: Client, running: Callable[..., str]
) -> None:
    team = running("p")
    client.delete("pods", "p", team)
    eventually(lambda: phase(client, "p", team) == "gone", 5)


def test_a_slow_pod_takes_its_time_to_end(
    client: Client, running: Callable[..., str]
) -> None:
    team = running("p", shuts_down_in="3")
    gone = measured(lambda: end(client, "p", team))
    assert 1.9 < gone < 10


def test_a_pod_never_takes_longer_than_its_grace(
    client: Client, running: Callable[..., str]
) -> None:
    team = running("p", shuts_down_in="20", grace_s=2)
    assert measured(lambda: end(client, "p", team)) < 10


def test_a_pod_that_hangs_stays_until_forced(
    client: Client, running: Callable[..., str]
) -> None:
    team = running("p", grace_s=1)
    client.annotate("pods", "p", objects.hangs(), team)
    client.delete("pods", "p", team)
    time.sleep(2.5)
    assert phase(client, "p", team) == "Running"
    client.delete("pods", "p", team, grace=0)
    assert phase(client, "p", team) == "gone"


def test_a_pod_runs_as_long_as_it_says_even_if_touched(
    client: Client, running: Callable[..., str]
) -> None:
    team = running("p", runs_for="3", exit_code="7")

    def over() -> None:
        while phase(client, "p", team) == "Running":
            client.annotate("pods", "p", {"touched": str(time.monotonic())}, team)
            time.sleep(0.1)

    assert 1.5 < measured(over) < 10
    status = client.get("pods", "p", team)["status"]
    assert status["phase"] == "Failed"
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == 7


def test_a_pod_becomes_ready_when_it_says(
    client: Client, running: Callable[..., str]
) -> None:
    team = running("p", ready_after="2")
    assert not is_ready(client.get("pods", "p", team))
    eventually(lambda: is_ready(client.get("pods", "p", team)), 10)


def end(client: Client, name: str, namespace: str) -> None:
    client.delete("pods", name, namespace)
    eventually(lambda: phase(client, name, namespace) == "gone", 40)


# Nodes


@pytest.mark.parametrize(
    ("node", "product", "devices"),
    [
        (
            objects.node("n", gpus=4, product="NVIDIA-A10", replicas=4),
            "NVIDIA-A10-SHARED",
            {"nvidia.com/gpu": "16"},
        ),
        (
            objects.node("n", gpus=2, mig={"1g.10gb": 7}),
            "NVIDIA-H100-80GB-HBM3",
            {"nvidia.com/gpu": "1", "nvidia.com/mig-1g.10gb": "7"},
        ),
        (
            objects.node("n", gpus=2, mig={"3g.40gb": 4}, mig_strategy="single"),
            "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb",
            {"nvidia.com/gpu": "4"},
        ),
    ],
    ids=["shared", "mixed", "single"],
)
def test_nodes_offer_what_feature_discovery_would_say(
    client: Client, node: dict, product: str, devices: dict[str, str]
) -> None:
    made = client.create(node)
    assert made["metadata"]["labels"]["nvidia.com/gpu.product"] == product
    allocatable = made["status"]["allocatable"]
    assert {k: v for k, v in allocatable.items() if k.startswith("nvidia")} == devices
