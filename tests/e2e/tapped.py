"""Our service between kube-scheduler and a tap, and what all its answers must be.

On Kubernetes it is told by the API server; standalone (inline) it is told by
kube-scheduler's questions and an event door, which a reporter here serves.
"""

import json
import sys
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from scheduler.core import Reason
from tests.controlplane.client import ApiError, Client, Object
from tests.controlplane.components import scheduler_config as filled_in
from tests.controlplane.components import scheduler_flags
from tests.controlplane.objects import GPU
from tests.controlplane.plane import ControlPlane
from tests.controlplane.process import LOOPBACK, Process, free_ports
from tests.e2e.extenders import Call, Tap
from tests.e2e.running import Fairshare, install, scheduler_config, until

WORDS = {reason.value for reason in Reason}
RESULT = [
    "Nodes",
    "NodeNames",
    "FailedNodes",
    "FailedAndUnresolvableNodes",
    "Error",
]


# What all our answers must be


def breaches(calls: Iterable[Call], *, failures: Sequence[int] = ()) -> list[str]:
    """Say which answers break the contract; `failures` are statuses to expect."""
    found = []
    for call in calls:
        try:
            if call.status != 200:
                _check_failure(call, failures)
            else:
                _check_head(call)
                _CHECKS[call.verb](call)
        except AssertionError as error:
            answer = call.answer[:200].decode()
            found.append(f"{call.verb} {call.pod}: {call.status} {answer}: {error}")
    return found


def _check_failure(call: Call, failures: Sequence[int]) -> None:
    """A failure has a status of its own and one line that says why."""
    if call.status == 0:  # it died: no answer at all
        assert 0 in failures, "no answer"
        return
    assert call.status in failures, "unexpected"
    assert list(call.result) == ["Error"]
    assert "\n" not in call.result["Error"]


def _check_head(call: Call) -> None:
    headers = call.answer_headers
    assert headers.get("Content-Length") == str(len(call.answer)), "no length"
    assert "Transfer-Encoding" not in headers, "chunked"
    assert headers.get("Connection", "keep-alive").lower() != "close", "closes"


def _check_filter(call: Call) -> None:
    result, offered = call.result, call.names
    assert list(result) == RESULT, "keys"
    names = result["NodeNames"]
    assert isinstance(names, list), "no list of names: rejects all in silence"
    assert result["Error"] == "", "an error beside a result"
    assert result["Nodes"] is None
    assert len(set(names)) == len(names), "a node twice"
    assert set(names) <= set(offered), "a node that was not offered"
    failed, final = result["FailedNodes"], result["FailedAndUnresolvableNodes"]
    assert not set(failed) & set(final), "in both maps"
    assert set(failed) | set(final) <= set(offered) - set(names), "reasons"
    if not names:
        assert set(failed) | set(final) == set(offered), "a node without a reason"
    assert {*failed.values(), *final.values()} <= WORDS, "not of the vocabulary"


def _check_prioritize(call: Call) -> None:
    result = call.result
    assert isinstance(result, list), "no array"
    assert [list(score) for score in result] == [["Host", "Score"]] * len(result)
    assert [score["Host"] for score in result] == call.names
    for score in result:
        assert type(score["Score"]) is int, "no whole number"
        assert 0 <= score["Score"] <= 10, "out of range"


def _check_preempt(call: Call) -> None:
    result, offered = call.result, call.args["NodeNameToMetaVictims"]
    assert list(result) == ["NodeNameToMetaVictims"]
    for node, victims in result["NodeNameToMetaVictims"].items():
        assert node in offered, "a node that was not offered"
        assert victims["Pods"], "a node without victims"
        number = victims["NumPDBViolations"]
        assert number == offered[node]["NumPDBViolations"], "budgets"


_CHECKS = {
    "filter": _check_filter,
    "prioritize": _check_prioritize,
    "preempt": _check_preempt,
}


# On Kubernetes


@dataclass
class Ours:
    """Our service, the tap before it, and the cluster."""

    plane: ControlPlane
    service: Fairshare
    tap: Tap
    failures: list[int] = field(default_factory=list)
    """Statuses other than 200 that a test provokes; 0 is no answer at all."""

    @property
    def client(self) -> Client:
        return self.plane.client

    def used(self, tenant: str) -> float:
        """GPUs that a tenant is charged for."""
        rows = self.service.get("/v1/tenants")["tenants"]
        return float(sum(r["used"]["gpus"] for r in rows if r["tenant"] == tenant))

    def asked(self, verb: str, pod: Object) -> list[Call]:
        """Calls about one pod, and about no other of its name."""
        return self.tap.asked(verb, pod["metadata"]["uid"])

    def reason(self, pod: Object) -> str:
        """Why a pod is where it is, in one word of the service."""
        found = self.service.explain(pod["metadata"]["uid"])
        return str(found["reason"])

    def settled(self, pod: Object) -> None:
        """Wait until the service has been told of a pod."""
        until("the pod is known", lambda: self.service.knows(pod["metadata"]["uid"]))


@contextmanager
def ours(
    plane: ControlPlane,
    policy: Mapping[str, object] | None = None,
    service: Fairshare | None = None,
    **changes: Any,
) -> Iterator[Ours]:
    """The service and a kube-scheduler that asks it through the tap.

    `changes` are of the shipped KubeSchedulerConfiguration.
    """
    install(plane)
    service = service or Fairshare(plane, policy)
    with Tap() as tap:
        try:
            service.start()
            tap.service = service.http
            plane.start_scheduler(scheduler_config(tap.address, **changes))
            yield Ours(plane, service, tap)
        except BaseException:
            sys.stdout.write(service.log.read_text()[-8000:])  # pytest shows it
            raise
        finally:
            plane.stop_scheduler()
            service.stop()


@contextmanager
def told(ours: Ours) -> Iterator[Ours]:
    """One test of a service that several share: it ends with an empty cluster.

    All that the service has answered meanwhile must be right.
    """
    ours.tap.calls.clear()
    ours.tap.meddle = lambda _: None
    ours.failures.clear()
    yield ours
    wrong = breaches(ours.tap.asked(), failures=ours.failures)
    ours.plane.clear()
    until(
        "it has forgotten all", lambda: not ours.service.get("/v1/tenants")["tenants"]
    )
    assert wrong == []


@contextmanager
def second_scheduler(plane: ControlPlane, config: str) -> Iterator[Process]:
    """Another kube-scheduler, which leads nobody and waits for nobody."""
    site = plane._site
    document = filled_in(site, config, (4, 3, 0.5))
    document["leaderElection"] = {"leaderElect": False}
    path = site.directory / "second-scheduler.json"
    path.write_text(json.dumps(document))
    (port,) = free_ports(1)
    flags = [f for f in scheduler_flags(site, path) if "--secure-port" not in f]
    command = [str(plane.binaries.controlplane), "tied", "kube-scheduler", *flags]
    name = "second-scheduler"
    process = Process(name, [*command, f"--secure-port={port}"], site.directory)
    assert plane._tie is not None
    process.start(plane._tie[0])
    client = Client(
        f"https://{LOOPBACK}:{port}",
        site.certificates / "kube-scheduler.crt",
        site.token("admin"),
    )

    def is_well() -> bool:
        try:
            return client.raw("GET", "/readyz")[0] == 200
        except OSError:
            return False

    try:
        until("the second scheduler is ready", is_well)
        yield process
    finally:
        client.close()
        process.stop()


# Standalone


class Inline(Fairshare):
    """The service without Kubernetes: nodes and tenants in its file."""

    def __init__(
        self,
        plane: ControlPlane,
        nodes: Sequence[Object],
        tenants: Sequence[Object],
        policy: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(plane, policy)
        self._nodes, self._tenants = list(nodes), list(tenants)

    def _world(self) -> dict[str, object]:
        return {"nodes": self._nodes, "tenants": self._tenants}

    def report(self, *events: Object) -> None:
        """Bring events to the door; raises for what it refuses."""
        body = "\n".join(json.dumps(event) for event in events).encode()
        request = urllib.request.Request(f"http://{self.http}/v1/events", body)
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            assert answer.status == 200

    def wishes(self) -> list[Object]:
        """Actions that nobody has taken care of."""
        return list(self.get("/v1/actions?after=0")["actions"])


class Reporter(threading.Thread):
    """Tells a standalone service what becomes of pods, and evicts whom it wishes."""

    def __init__(self, client: Client, service: Inline) -> None:
        super().__init__()
        self._client, self._service = client, service
        self._bound: set[str] = set()
        self._evicted: list[str] = []
        self._ending = threading.Event()

    @property
    def evicted(self) -> list[str]:
        """Names of the pods it has evicted, in order."""
        return list(self._evicted)

    def run(self) -> None:
        while not self._ending.wait(0.1):
            self._look()
            self._obey()

    def stop(self) -> None:
        self._ending.set()
        self.join()

    def _look(self) -> None:
        """Compare what runs with what was reported."""
        pods = {pod["metadata"]["uid"]: pod for pod in self._client.items("pods")}
        events: list[Object] = []
        for uid, pod in pods.items():
            node = pod["spec"].get("nodeName")
            if node and uid not in self._bound and _gpus(pod):
                bound = {"type": "PodBound", "uid": uid, "node": node, "pod": pod}
                events.append(bound)
        gone = self._bound - set(pods)
        events += [{"type": "PodGone", "uid": uid} for uid in sorted(gone)]
        if events:
            self._service.report(*events)
        self._bound -= gone
        self._bound |= {e["uid"] for e in events if e["type"] == "PodBound"}

    def _obey(self) -> None:
        for wish in self._service.wishes():
            namespace, _, name = wish["pod"].partition("/")
            if wish["type"] == "Evict" and wish["pod"] not in self._evicted:
                self._evicted.append(wish["pod"])
                with suppress(ApiError):  # gone meanwhile
                    self._client.evict(name, namespace, uid=wish["uid"])


def _gpus(pod: Object) -> int:
    containers = pod["spec"]["containers"]
    return sum(int(c["resources"].get("limits", {}).get(GPU, 0)) for c in containers)


@contextmanager
def inline(
    plane: ControlPlane, service: Inline, **changes: Any
) -> Iterator[tuple[Ours, Reporter]]:
    """A standalone service that a kube-scheduler asks, and who reports to it."""
    with ours(plane, service=service, **changes) as found:
        reporter = Reporter(plane.client, service)
        reporter.start()
        try:
            yield found, reporter
        finally:
            reporter.stop()
