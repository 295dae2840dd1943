"""Prometheus series, derived from decisions.

Hidden here: the series' names. What the fleet looks like is computed when somebody
scrapes; only what happens is counted as it happens, on label children that are bound
once. Series are per tenant, form and reason, never per node or pod.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.core import (
    QUANTA_PER_GPU,
    Form,
    QueueEntry,
    TenantUse,
    class_of,
)

VERBS = ("filter", "prioritize", "preempt")
_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0)
_GAUGES = {
    "guarantee": "GPUs that are theirs whenever they ask, as far as they are there.",
    "promised": "GPUs that are guaranteed to them, there or not.",
    "used": "GPUs they are charged for now.",
    "burst": "Part of the use that the guarantee does not pay for.",
    "leaving": "GPUs held by pods that were told to go, charged no more.",
    "pending": "GPUs asked for and waiting.",
    "share": "GPUs that the division of capacity grants now.",
}
_OF_WATCHES = {
    "objects": "Objects of a collection that are known.",
    "lists": "Times a collection was read whole.",
    "failures": "Reads of a collection that failed, and watches that broke.",
    "skipped": "States of objects that could not be read.",
    "silent_s": "Seconds since the API server was last heard of.",
}
_OF_GROUPS = ("guarantee", "promised")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One watched collection; `silent_s` is the time since the API server spoke."""

    path: str
    objects: int
    lists: int
    failures: int
    skipped: int
    silent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """What a scrape shows; amounts in quanta.

    Of `groups` only what is guaranteed is shown: what is used of a group is shown for
    its members, so that sums over all forms are right.
    """

    groups: frozenset[Form]
    tenants: tuple[TenantUse, ...]
    queue: tuple[QueueEntry, ...]
    capacity: dict[Form, int]
    stranded: int
    wishes: int
    watches: tuple[Watch, ...] = ()


class Metrics:
    """All series of one service, in a registry of their own.

    `fleet` is called at every scrape.
    """

    def __init__(self, fleet: Callable[[], Scrape]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_FleetCollector(fleet))
        latency = Histogram(
            "fairshare_webhook_seconds",
            "Time to answer kube-scheduler, without the network.",
            ["verb"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.latency = {verb: latency.labels(verb) for verb in VERBS}
        self._decisions = Counter(
            "fairshare_decisions",
            "Answers by verb and reason.",
            ["verb", "reason"],
            registry=self._registry,
        )
        self._actions = Counter(
            "fairshare_actions",
            "Actions by kind: Admit, Withdraw, CheckpointRequest, Evict.",
            ["kind"],
            registry=self._registry,
        )
        self.cycle = Histogram(
            "fairshare_cycle_seconds",
            "Time of one look at the queue (lane 1).",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._solves = Counter(
            "fairshare_solves",
            "Solves of lane 2 by outcome: planned, empty, failed.",
            ["outcome"],
            registry=self._registry,
        )
        self.events = Counter(
            "fairshare_events", "Events taken.", registry=self._registry
        )
        self._writes = Counter(
            "fairshare_api_writes",
            "Writes to the API server, by kind and outcome: done, or the status.",
            ["kind", "outcome"],
            registry=self._registry,
        )
        self._children: dict[tuple[int | str, ...], Counter] = {}

    def decided(self, verb: str, reason: str) -> None:
        """Count one answer."""
        self._child(self._decisions, verb, reason).inc()

    def acted(self, kind: str) -> None:
        """Count one action."""
        self._child(self._actions, kind).inc()

    def solved(self, outcome: str) -> None:
        """Count one solve of lane 2."""
        self._child(self._solves, outcome).inc()

    def written(self, kind: str, outcome: str) -> None:
        """Count one write to the API server."""
        self._child(self._writes, kind, outcome).inc()

    def _child(self, series: Counter, *labels: str) -> Counter:
        key: tuple[int | str, ...] = (id(series), *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = series.labels(*labels)
        return child

    def render(self) -> bytes:
        """Return everything in the text format."""
        return generate_latest(self._registry)


class _FleetCollector(Collector):
    """Who holds what, computed when it is asked for."""

    def __init__(self, fleet: Callable[[], Scrape]) -> None:
        self._fleet = fleet

    def describe(self) -> Iterator[Metric]:
        """Name nothing in advance: nothing is computed before the first scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Compute the gauges."""
        fleet = self._fleet()
        yield from _tenant_gauges(fleet)
        yield _conditions(fleet)
        yield _waiting(fleet)
        yield _capacity(fleet)
        yield _plain("stranded_gpus", "GPUs that MIG layouts leave unused.")(
            fleet.stranded / QUANTA_PER_GPU
        )
        yield _plain("wishes", "Actions that nobody has acknowledged.")(fleet.wishes)
        yield from _watch_gauges(fleet)


def _tenant_gauges(fleet: Scrape) -> Iterator[Metric]:
    for name, text in _GAUGES.items():
        gauge = GaugeMetricFamily(
            f"fairshare_{name}_gpus", text, labels=("tenant", "gpu_class", "form")
        )
        for row in fleet.tenants:
            if name in _OF_GROUPS or row.form not in fleet.groups:
                labels = (row.name, class_of(row.form), row.form)
                gauge.add_metric(labels, getattr(row, name) / QUANTA_PER_GPU)
        yield gauge


def _watch_gauges(fleet: Scrape) -> Iterator[Metric]:
    for name, text in _OF_WATCHES.items():
        gauge = GaugeMetricFamily(f"fairshare_watch_{name}", text, labels=("path",))
        for watch in fleet.watches:
            gauge.add_metric((watch.path,), getattr(watch, name))
        yield gauge


def _conditions(fleet: Scrape) -> Metric:
    gauge = GaugeMetricFamily(
        "fairshare_condition",
        "1 while something keeps a queue from being as it was written: Unreachable, "
        "Deleted, Inner.",
        labels=("tenant", "gpu_class", "form", "condition"),
    )
    for row in fleet.tenants:
        for name in sorted({text.partition(":")[0] for text in row.conditions}):
            gauge.add_metric((row.name, class_of(row.form), row.form, name), 1)
    return gauge


def _waiting(fleet: Scrape) -> Metric:
    pods: Tally[tuple[str, str, str]] = Tally()
    for entry in fleet.queue:
        key = (entry.tenant, entry.workload_class.label, entry.reason.name)
        pods[key] += entry.pods
    gauge = GaugeMetricFamily(
        "fairshare_waiting_pods",
        "Pods that wait, by what they wait for.",
        labels=("tenant", "workload_class", "reason"),
    )
    for labels, count in sorted(pods.items()):
        gauge.add_metric(labels, count)
    return gauge


def _capacity(fleet: Scrape) -> Metric:
    gauge = GaugeMetricFamily(
        "fairshare_capacity_gpus", "GPUs of the fleet.", labels=("gpu_class", "form")
    )
    for form, quanta in fleet.capacity.items():
        gauge.add_metric((class_of(form), form), quanta / QUANTA_PER_GPU)
    return gauge


def _plain(name: str, text: str) -> Callable[[float], Metric]:
    def gauge(value: float) -> Metric:
        return GaugeMetricFamily(f"fairshare_{name}", text, value=value)

    return gauge
