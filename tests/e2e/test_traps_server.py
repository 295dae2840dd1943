"""Traps of the connection and of the configuration, with what we ship and serve."""

import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tests.controlplane import objects
from tests.controlplane.client import Object
from tests.e2e.extenders import condition
from tests.e2e.running import (
    H100,
    ROOT,
    SCHEDULER_CONFIG,
    gated,
    node_of,
    scheduler_config,
    tenant,
    until,
)
from tests.e2e.tapped import Ours, second_scheduler
from tests.serving import exchange


def bound(ours: Ours, pod: Object) -> str:
    name, space = pod["metadata"]["name"], pod["metadata"]["namespace"]
    return str(until(f"{name} is bound", lambda: node_of(ours.client, name, space)))


def said(ours: Ours, pod: Object) -> Object:
    """Wait for what kube-scheduler says about a pod."""
    name, space = pod["metadata"]["name"], pod["metadata"]["namespace"]
    found: Object = until(
        "something is said",
        lambda: condition(ours.client.get("pods", name, space)),
    )
    return found


# Connections


def test_one_connection_serves_all_calls_also_after_a_pause(ours: Ours) -> None:
    """Trap 18: longer pauses than ours to endure are kube-scheduler's to end."""
    space = ours.plane.new_namespace()
    ours.client.create_all(objects.nodes(2))
    ours.client.create(tenant("alpha", space))
    bound(ours, ours.client.create(gated("first", space)))
    time.sleep(2.5)
    for index in range(5):
        bound(ours, ours.client.create(gated(f"p{index}", space)))
    calls = ours.tap.asked("filter")
    assert len(calls) == 6
    assert len({call.connection for call in calls}) == 1


def test_connections_may_not_be_kept_shorter_than_kube_scheduler_keeps_them(
    tmp_path: Path,
) -> None:
    """Trap 18: its client keeps idle ones for 90 s and repeats no call."""
    config = tmp_path / "config.yaml"
    config.write_text("server: {keepAlive: 90s}\nkubernetes: {}\n")
    command = [sys.executable, "-m", "scheduler", "serve", "--config", str(config)]
    done = subprocess.run(
        [*command, "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "server.keepAlive" in done.stderr


def test_there_is_no_redirect_and_no_bind(ours: Ours) -> None:
    """Traps 17 and 307: other paths are errors, so nothing is half understood."""
    with closing(HTTPConnection(ours.service.http, timeout=10)) as connection:
        for path in ("/bind", "/filter/", "//filter", "/"):
            reply = exchange(connection, "POST", path, {})
            assert reply.status == 404, path
            assert reply.error


# Configuration


def test_the_shipped_stanza_avoids_what_cannot_be_mended_later() -> None:
    """Traps 12, 13, 16, 17, 19, 20, 31: one place where they are chosen."""
    config = yaml.safe_load(SCHEDULER_CONFIG.read_text())
    (extender,) = config["extenders"]
    assert extender["ignorable"] is False
    assert extender["nodeCacheCapable"] is True
    assert "bindVerb" not in extender
    assert not any(r["ignoredByScheduler"] for r in extender["managedResources"])
    url = urlsplit(extender["urlPrefix"])
    assert ip_address(url.hostname or "").is_loopback
    assert (url.scheme, extender["enableHTTPS"]) == ("http", False)
    assert {p["percentageOfNodesToScore"] for p in config["profiles"]} == {100}


def test_whole_nodes_are_refused_and_the_pod_waits(ours: Ours) -> None:
    """Trap 31: an error with a hint, in place of a wrong score of every node."""
    space = ours.plane.new_namespace()
    ours.client.create_all(objects.nodes(2))
    ours.client.create(tenant("alpha", space))
    config = yaml.safe_load(scheduler_config(ours.tap.address))
    config["profiles"][0]["schedulerName"] = "fairshare"
    config["extenders"][0]["nodeCacheCapable"] = False
    ours.failures.append(400)
    with second_scheduler(ours.plane, yaml.safe_dump(config)):
        pod = ours.client.create(gated("p", space, schedulerName="fairshare"))
        assert said(ours, pod)
        until("it was asked about", lambda: ours.asked("filter", pod))
        until("it is an error", lambda: said(ours, pod)["reason"] == "SchedulerError")
    refused = ours.asked("filter", pod)[0]
    assert refused.status == 400
    assert "nodeCacheCapable: true" in refused.result["Error"]


def test_sampling_loses_no_planned_node(ours: Ours) -> None:
    """Trap 12: even where nobody has set the percentage, of 300 nodes."""
    space = ours.plane.new_namespace()
    small = objects.nodes(299, "a", product="NVIDIA-A10", memory_mib=23_028)
    ours.client.create_all([*small, objects.node("h")])
    ours.client.create(tenant("alpha", space))
    config = yaml.safe_load(scheduler_config(ours.tap.address))
    config["profiles"][0]["schedulerName"] = "fairshare"
    del config["profiles"][0]["percentageOfNodesToScore"]
    notes = {"fairshare.dev/gpu-classes": H100}
    with second_scheduler(ours.plane, yaml.safe_dump(config)):
        pod = ours.client.create(
            gated("p", space, schedulerName="fairshare", annotations=notes)
        )
        assert bound(ours, pod) == "h"
        (call,) = ours.asked("filter", pod)
        assert call.names == ["h"]
