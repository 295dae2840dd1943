"""The control plane itself does what the other tests here rely on."""

from tests.controlplane import objects
from tests.controlplane.client import Client, eventually
from tests.controlplane.plane import ControlPlane
from tests.e2e.conftest import NewNamespace


def phase(client: Client, name: str, namespace: str) -> str:
    pod = client.find("pods", name, namespace)
    return pod["status"]["phase"] if pod else "gone"


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
