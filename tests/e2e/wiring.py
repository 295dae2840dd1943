"""kube-scheduler with extenders that do as they are told, one for each question.

Which extender a pod's scheduling depends on is chosen by the extended resource it asks
for, so one kube-scheduler is enough for all that can be set up in different ways. Each
has nodes of its own.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import yaml

from tests.controlplane import objects
from tests.controlplane.build import pinned_version
from tests.controlplane.client import Client, Object
from tests.controlplane.plane import ControlPlane
from tests.e2e.extenders import (
    Listener,
    Scripted,
    SecretlyScripted,
    condition,
    resource_of,
    stanza,
)
from tests.e2e.running import until

VERSION = os.environ.get("K8S") or pinned_version()
"""The Kubernetes that these tests run on."""

ALL = ("filter", "prioritize", "preempt")
NODES = {
    "strict": 8,
    "ignorable": 8,
    "hurried": 1,
    "hurried-ignorable": 1,
    "heavy": 3,
    "whole": 2,
    "blind": 1,
    "secret": 1,
    "distrustful": 1,
}
"""How many nodes offer the resource of each extender."""

DEVICES = 4
"""Of each of these nodes."""

PURE = "pure"
"""A profile without any taste but required and preferred node affinity."""

LOW, HIGH, HIGHER = "wire-low", "wire-high", "wire-higher"
PRIORITIES = {LOW: 10, HIGH: 1000, HIGHER: 2000}
"""PriorityClasses that may preempt, unlike ours."""

ANYWHERE = {"operator": "Exists"}
"""Tolerates all taints: nodes carry one until a controller has seen them Ready."""


def needs(version: str, what: str) -> pytest.MarkDecorator:
    """Skip a test where Kubernetes is older than what it is about."""
    reason = f"{what}: from Kubernetes {version} on, this is {VERSION}"
    return pytest.mark.skipif(minor(VERSION) < minor(version), reason=reason)


def until_version(version: str, what: str) -> pytest.MarkDecorator:
    """Skip a test where Kubernetes is newer than what it is about."""
    reason = f"{what}: until Kubernetes {version}, this is {VERSION}"
    return pytest.mark.skipif(minor(VERSION) > minor(version), reason=reason)


def minor(version: str) -> tuple[int, int]:
    major, number = version.split(".")[:2]
    return int(major), int(number)


class Wire:
    """Pods of one test, and what happened to them."""

    def __init__(
        self, plane: ControlPlane, server: Scripted, secret: Scripted, space: str
    ) -> None:
        self.plane = plane
        self.client: Client = plane.client
        self.server = server
        self.secret = secret
        self.space = space

    def pod(self, name: str, extender: str, devices: int = 1, **more: Any) -> Object:
        """Create a pod whose scheduling depends on an extender."""
        more.setdefault("resource", resource_of(extender))
        return self.create(objects.pod(name, self.space, devices, cpu="1m", **more))

    def create(self, pod: Object) -> Object:
        pod["spec"].setdefault("tolerations", [ANYWHERE])
        return self.client.create(pod)

    def get(self, name: str) -> Object:
        return self.client.get("pods", name, self.space)

    def node_of(self, name: str) -> str:
        found = self.client.find("pods", name, self.space) or {}
        return str(found.get("spec", {}).get("nodeName", ""))

    def bound(self, name: str) -> str:
        """Wait for a pod to be bound; return its node."""
        return str(until(f"{name} is bound", lambda: self.node_of(name)))

    def outcome(self, name: str) -> str:
        """Wait for kube-scheduler to say something about a pod: "bound", or why not."""

        def look() -> str:
            found = self.get(name)
            if found["spec"].get("nodeName"):
                return "bound"
            return str(condition(found).get("reason", ""))

        return str(until(f"something is said about {name}", look))

    def message(self, name: str) -> str:
        """What kube-scheduler says about a pod."""
        return str(condition(self.get(name)).get("message", ""))

    def asked(self, verb: str, pod: str) -> int:
        """How often it asked about a pod."""
        return len(self.calls(verb, pod))

    def calls(self, verb: str, pod: str) -> list[Any]:
        return self.server.asked(verb, f"{self.space}/{pod}")

    def is_gone(self, name: str) -> bool:
        """Whether a pod was deleted, or is on its way out."""
        found = self.client.find("pods", name, self.space)
        return found is None or "deletionTimestamp" in found["metadata"]

    def metric(self, name: str, **labels: str) -> float:
        return scheduler_metric(self.plane, name, **labels)


def scheduler_metric(plane: ControlPlane, name: str, **labels: str) -> float:
    """Sum of a series of kube-scheduler over the labels not given."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    total = 0.0
    for line in plane.scheduler_metrics().splitlines():
        series = line.partition(" ")[0]
        if series.partition("{")[0] == name and all(w in series for w in wanted):
            total += float(line.rpartition(" ")[2])
    return total


def counts_still(
    listener: Listener, verb: str, pod: str, quiet_s: float = 2.0, within_s: float = 20
) -> int:
    """Wait until a pod is asked about no more for a while; return how often it was."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        calls = listener.asked(verb, pod)
        if calls and time.monotonic() - calls[-1].at > quiet_s:
            return len(calls)
        time.sleep(0.05)
    raise AssertionError(f"{pod} was still asked about after {within_s:g} s: {calls}")


def nodes() -> list[Object]:
    """Nodes of all extenders: strict-0, strict-1 and so on."""
    return [
        node(f"{name}-{index}", {resource_of(name): DEVICES})
        for name, count in NODES.items()
        for index in range(count)
    ]


def node(name: str, devices: Mapping[str, int]) -> Object:
    """A node that offers some devices, and room for everything else."""
    made = objects.node(name, 0)
    made["status"]["allocatable"] |= {key: str(n) for key, n in devices.items()}
    made["status"]["capacity"] = made["status"]["allocatable"]
    return made


def configuration(url: str, secret: str, wrong_authority: str) -> str:
    """One kube-scheduler for all of them."""
    extenders = [
        # Listed first, and asked last, as it is ignorable. It has a say in everything.
        stanza(url, "everything", "filter", managedResources=[], ignorable=True),
        stanza(url, "strict", *ALL),
        stanza(url, "ignorable", *ALL, ignorable=True),
        stanza(url, "hurried", *ALL, httpTimeout="400ms"),
        stanza(url, "hurried-ignorable", *ALL, httpTimeout="400ms", ignorable=True),
        stanza(url, "heavy", "prioritize", weight=12),
        stanza(url, "whole", *ALL, nodeCacheCapable=False),
        stanza(url, "blind", "filter"),
        stanza(secret, "secret", "filter", enableHTTPS=True),
        stanza(
            secret,
            "distrustful",
            "filter",
            enableHTTPS=True,
            tlsConfig={"caFile": wrong_authority},
        ),
    ]
    blind = next(e for e in extenders if e["urlPrefix"].endswith("/blind"))
    blind["managedResources"][0]["ignoredByScheduler"] = True
    taste = {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeAffinity"}]}
    return yaml.safe_dump(
        {
            "profiles": [
                {"schedulerName": "default-scheduler", "percentageOfNodesToScore": 100},
                {"schedulerName": "sampling"},
                {"schedulerName": PURE, "plugins": {"score": taste}},
            ],
            "extenders": extenders,
        }
    )


@contextmanager
def wired(plane: ControlPlane) -> Iterator[tuple[ControlPlane, Scripted, Scripted]]:
    """The control plane with all of these extenders and their nodes."""
    certificates = plane.authority.parent
    server = Scripted()
    certificate, key = (
        str(certificates / f"apiserver.{end}") for end in ("crt", "key")
    )
    secret = SecretlyScripted(certificate, key)
    with ExitStack() as stack:
        stack.enter_context(server)
        stack.enter_context(secret)
        stack.callback(plane.clear)
        stack.callback(plane.stop_scheduler)
        for name, value in PRIORITIES.items():
            made = objects.priority_class(name, value, "PreemptLowerPriority")
            plane.client.ensure(made)
        plane.client.create_all(nodes())
        # Nobody's authority: kube-scheduler signs its own certificate at its start.
        wrong = certificates / "kube-scheduler.crt"
        if not wrong.exists():
            plane.start_scheduler()
            plane.stop_scheduler()
        plane.start_scheduler(configuration(server.url, secret.url, str(wrong)))
        yield plane, server, secret


@contextmanager
def wire(plane: ControlPlane, server: Scripted, secret: Scripted) -> Iterator[Wire]:
    """A namespace of a test's own; what it made is gone afterwards."""
    server.scripts.clear()
    server.calls.clear()
    secret.calls.clear()
    space = plane.new_namespace("wire")
    yield Wire(plane, server, secret, space)
    server.scripts.clear()
    plane.client.delete_all("pods", space, grace=0)
    until("its pods are gone", lambda: not plane.client.items("pods", space))
