"""What becomes of a decision when something happens between Filter and bind.

kube-scheduler never tells how it went: all is read from the API server, and nothing is
lost, doubled or over its limit.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import yaml

from tests.controlplane import objects
from tests.controlplane.client import Object
from tests.controlplane.plane import ControlPlane
from tests.controlplane.process import free_ports, is_free
from tests.e2e.extenders import Call, condition
from tests.e2e.running import (
    H100,
    ROOT,
    gated,
    node_of,
    scheduler_config,
    tenant,
    until,
)
from tests.e2e.sound import faults
from tests.e2e.tapped import Ours, second_scheduler
from tests.serving import Reply, exchange


def bound(ours: Ours, name: str, space: str) -> str:
    return str(until(f"{name} is bound", lambda: node_of(ours.client, name, space)))


def names_bound(ours: Ours, space: str) -> list[str]:
    pods = ours.client.items("pods", space)
    return [p["metadata"]["name"] for p in pods if p["spec"].get("nodeName")]


def first_accepted(act: Callable[[Call], None]) -> Callable[[Call], None]:
    """Act once, after Filter has said yes and before kube-scheduler hears of it."""
    done: list[Call] = []

    def meddle(call: Call) -> None:
        if call.verb == "filter" and call.result["NodeNames"] and not done:
            done.append(call)
            act(call)

    return meddle


# Two hundred at once


def test_of_200_pods_at_once_never_more_than_the_limit_of_100_start(ours: Ours) -> None:
    """Not for a moment; and all 100 do. Who waits is never asked about."""
    space = ours.plane.new_namespace()
    ours.client.create_all(objects.nodes(14))
    ours.client.create(tenant("alpha", space, limit={H100: 100}))
    pods = ours.client.create_all(
        gated(f"p{i}", space, 1, cpu="1m") for i in range(200)
    )
    most = 0

    def are_there() -> bool:
        nonlocal most
        most = max(most, len(names_bound(ours, space)))
        return most >= 100

    until("a hundred run", are_there, 90)
    time.sleep(1)  # no more follow
    started = set(names_bound(ours, space))
    assert len(started) == 100
    assert ours.used("alpha") == 100
    asked = {pod["metadata"]["name"]: len(ours.asked("filter", pod)) for pod in pods}
    assert {name for name, count in asked.items() if count} == started
    assert faults(ours.client, limits={space: 100}) == []


def test_two_kube_schedulers_share_one_limit(ours: Ours) -> None:
    """Calls overlap then; each pod is placed once, and no node is over-full."""
    space = ours.plane.new_namespace()
    ours.client.create_all(objects.nodes(6))
    ours.client.create(tenant("alpha", space, limit={H100: 40}))
    config = yaml.safe_load(scheduler_config(ours.tap.address))
    config["profiles"][0]["schedulerName"] = "fairshare"
    with second_scheduler(ours.plane, yaml.safe_dump(config)):
        ours.client.create_all(
            gated(f"{name}-{i}", space, 1, cpu="1m", schedulerName=name)
            for name in ("fairshare", "default-scheduler")
            for i in range(30)
        )
        until("forty run", lambda: len(names_bound(ours, space)) >= 40, 60)
        time.sleep(1)  # no more follow
        started = names_bound(ours, space)
        assert len(started) == 40
        assert {name.rpartition("-")[0] for name in started} == {
            "fairshare",
            "default-scheduler",
        }
        assert ours.used("alpha") == 40
        assert faults(ours.client, limits={space: 40}) == []


# Killed


def test_killed_after_yes_was_said_it_finds_the_bound_pod_again(ours: Ours) -> None:
    """The bind happens while nobody is there to see it."""
    space = ours.plane.new_namespace()
    ours.client.create_all(objects.nodes(2))
    ours.client.create(tenant("alpha", space, limit={H100: 8}))
    ours.failures.extend([0, 503])
    ours.tap.meddle = first_accepted(lambda _: ours.service.kill())
    ours.client.create(gated("one", space, 8))
    bound(ours, "one", space)
    ours.service.start()
    second = ours.client.create(gated("second", space, 8))
    ours.settled(second)
    assert ours.used("alpha") == 8
    assert ours.reason(second) == "LIMIT"


def test_killed_before_yes_was_heard_the_pod_starts_where_it_was_planned(
    ours: Ours,
) -> None:
    """An answer that is lost is an error to kube-scheduler: it asks again."""
    space = ours.plane.new_namespace()
    ours.client.create_all(objects.nodes(3))
    ours.client.create(tenant("alpha", space, limit={H100: 8}))
    ours.failures.extend([0, 503])
    planned: list[str] = []

    def lose(call: Call) -> None:
        planned.extend(call.result["NodeNames"])
        ours.service.kill()
        raise OSError("lost")

    ours.tap.meddle = first_accepted(lose)
    pod = ours.client.create(gated("one", space, 8))
    until(
        "it is an error",
        lambda: (
            condition(ours.client.get("pods", "one", space)).get("reason")
            == "SchedulerError"
        ),
    )
    ours.service.start()
    assert bound(ours, "one", space)
    until("it is charged once", lambda: ours.used("alpha") == 8)
    assert len({call.uid for call in ours.asked("filter", pod)}) == 1
    assert planned


def test_while_it_is_away_gpu_pods_wait_and_all_others_start(ours: Ours) -> None:
    """Traps 2, 13, 21: closed, and only for those who ask for GPUs. Our own pod is
    one of the others."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    ours.client.create(tenant("alpha", space, guarantee={H100: 8}))
    ours.plane.stop_scheduler()
    ours.client.create(gated("own", space, 8))
    until(
        "it is let through",
        lambda: (
            not ours.client.get("pods", "own", space)["spec"].get("schedulingGates")
        ),
    )
    ours.service.kill()
    ours.failures.extend([0, 503])
    ours.plane.restart_scheduler()
    ours.client.create(objects.pod("other", space, 0))
    bound(ours, "other", space)
    own = until(
        "an error is said",
        lambda: condition(ours.client.get("pods", "own", space)),
    )
    assert own["reason"] == "SchedulerError"
    assert not node_of(ours.client, "own", space)
    ours.service.start()
    bound(ours, "own", space)
    assert all(call.status in (0, 200, 503) for call in ours.tap.asked())


# Between Filter and bind


def test_a_pod_deleted_in_between_frees_what_was_planned_for_it(ours: Ours) -> None:
    """Nobody says so to an extender: it is seen in the API server."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    ours.client.create(tenant("alpha", space, limit={H100: 8}))

    def delete(call: Call) -> None:
        ours.client.delete("pods", "one", space, grace=0)

    ours.tap.meddle = first_accepted(delete)
    one = ours.client.create(gated("one", space, 8))
    until("it was asked about", lambda: ours.asked("filter", one))
    ours.client.create(gated("two", space, 8))
    assert bound(ours, "two", space) == "n0"
    assert ours.used("alpha") == 8


def test_a_pod_of_the_same_name_is_another_pod(ours: Ours) -> None:
    """Plans belong to UIDs: what was decided for the first is not the second's."""
    space = ours.plane.new_namespace()
    ours.client.create_all(objects.nodes(2))
    ours.client.create(tenant("alpha", space, limit={H100: 8}))
    again: list[Object] = []

    def recreate(call: Call) -> None:
        ours.client.delete("pods", "one", space, grace=0)
        again.append(ours.client.create(gated("one", space, 3)))

    ours.tap.meddle = first_accepted(recreate)
    first = ours.client.create(gated("one", space, 8))
    until("it was made again", lambda: again)
    bound(ours, "one", space)
    found = ours.client.get("pods", "one", space)
    assert found["metadata"]["uid"] == again[0]["metadata"]["uid"]
    assert found["metadata"]["uid"] != first["metadata"]["uid"]
    until("only the second is charged", lambda: ours.used("alpha") == 3)


# Starting


def test_before_it_knows_the_cluster_it_answers_nothing(
    ours: Ours, tmp_path: Path
) -> None:
    """Traps 1, 33: an empty result would reject everything in silence."""
    with starting(ours.plane, tmp_path) as address:
        for verb in ("filter", "prioritize", "preempt"):
            reply = ask(address, "POST", f"/{verb}", {"Pod": {}, "NodeNames": []})
            assert reply.status == 503
            assert "not ready" in reply.error
        assert ask(address, "GET", "/readyz").status == 503
        assert ask(address, "GET", "/healthz").status == 200


@contextmanager
def starting(plane: ControlPlane, directory: Path) -> Iterator[str]:
    """The address of a service whose API server takes calls and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        server = f"https://127.0.0.1:{mute.getsockname()[1]}"
        kubeconfig = directory / "kubeconfig"
        kubeconfig.write_text(
            plane.kubeconfig.read_text().replace(plane.server, server)
        )
        http, grpc = (f"127.0.0.1:{port}" for port in free_ports(2))
        settings = {
            "server": {"listen": http, "grpcListen": grpc},
            "kubernetes": {"kubeconfig": str(kubeconfig)},
        }
        config = directory / "config.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "scheduler", "serve", "--config", str(config)]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            until("it listens", lambda: not is_free(int(http.rpartition(":")[2])))
            yield http
        finally:
            process.kill()
            process.wait()


def ask(address: str, method: str, path: str, body: Object | None = None) -> Reply:
    with closing(HTTPConnection(address, timeout=10)) as connection:
        return exchange(connection, method, path, body)
