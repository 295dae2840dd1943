"""The series at /metrics: what the engine says, under their names."""

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import Live, args, occupy, pod_json, serving

Labels = dict[str, str]


@pytest.fixture
def live() -> Iterator[Live]:
    with serving() as fresh:
        yield fresh


class Page:
    """A scrape, read by Prometheus' own parser."""

    def __init__(self, live: Live) -> None:
        reply = live.get("/metrics")
        assert reply.status == 200
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        self.samples = [
            sample
            for family in text_string_to_metric_families(reply.body.decode())
            for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """Return the one sample with these labels, 0 when there is none."""
        found = [
            s.value
            for s in self.samples
            if s.name == name and labels.items() <= s.labels.items()
        ]
        assert len(found) < 2, found
        return found[0] if found else 0.0


def test_use_guarantee_and_burst_per_tenant_and_class(live: Live) -> None:
    occupy(live)
    page = Page(live)
    form = {"tenant": "a", "gpu_class": "h100-80gb", "form": "h100-80gb"}
    assert page.value("fairshare_guarantee_gpus", **form) == 8
    assert page.value("fairshare_used_gpus", **form) == 16
    assert page.value("fairshare_burst_gpus", **form) == 8
    assert page.value("fairshare_capacity_gpus", form="h100-80gb") == 16
    assert page.value("fairshare_stranded_gpus") == 0.125  # seven 1g leave an eighth
    assert page.value("fairshare_events_total") == 2


def test_waiting_pods_and_decisions_by_reason(live: Live) -> None:
    live.filter(pod_json("u1", gpus=4))
    live.filter(pod_json("u2", "team-b", 13))  # limit: 12
    live.filter(pod_json("u2", "team-b", 13))
    page = Page(live)
    count = "fairshare_decisions_total"
    assert page.value(count, verb="filter", reason="ACCEPTED") == 1
    assert page.value(count, verb="filter", reason="TOO_LARGE") == 2
    waiting = {"tenant": "b", "workload_class": "training", "reason": "TOO_LARGE"}
    assert page.value("fairshare_waiting_pods", **waiting) == 1


def test_latency_counts_every_call_of_a_verb(live: Live) -> None:
    live.filter(pod_json("u1"))
    live.post("/prioritize", args(pod_json("u1"), ["n0"]))
    live.post("/filter", b"{")
    page = Page(live)
    assert page.value("fairshare_webhook_seconds_count", verb="filter") == 2
    assert page.value("fairshare_webhook_seconds_count", verb="prioritize") == 1
    assert page.value("fairshare_webhook_seconds_count", verb="preempt") == 0
    assert page.value("fairshare_cycle_seconds_count") > 0


def test_actions_and_wishes(live: Live) -> None:
    occupy(live)
    live.filter(pod_json("u1", "team-b", 8))
    live.cycle()
    page = Page(live)
    assert page.value("fairshare_wishes") == 1
    assert page.value("fairshare_actions_total", kind="CheckpointRequest") == 1


def test_no_series_per_pod_or_node(live: Live) -> None:
    """Their number must not grow with the fleet: a scrape holds all answers up."""
    occupy(live)
    live.filter(pod_json("u1", "team-b", 8))
    names = {label for sample in Page(live).samples for label in sample.labels}
    allowed = {"tenant", "gpu_class", "form", "verb", "reason", "kind", "le", "outcome"}
    assert names <= allowed | {"workload_class"}
