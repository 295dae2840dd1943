"""The figures of one run, put together from `metrics` and `audit`.

Hidden here: the JSON document and its schema. ``fairshare-sim/1`` is

* ``schema``, ``policy``, ``seed``, ``reclaim_bound_s``;
* ``input``: traces, jobs, nodes, GPUs, guarantees, and the rows that were skipped as
  bad or left out by a rule;
* ``summary``: the figures below for the whole run, and the same for each tenant under
  ``tenants`` and each workload class under ``classes``; and ``jain_speed``, Jain's
  index over the tenants of the part of its time that a tenant's jobs did not queue.

Times are seconds, amounts GPU-seconds; what the figures mean is said in `metrics` and
`audit`. A comparison has ``policies`` in place of ``policy`` and ``summary``: a summary
for each policy. Keys may be added; a change of meaning changes the number. The same
input and seed give the same bytes: nothing here depends on when or where it ran.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from scheduler.core import QUANTA_PER_GPU
from simulator.audit import Audit, Episode
from simulator.metrics import (
    Outcome,
    capacity,
    figures,
    jain,
    makespan,
    outcomes,
    percentile,
    speed,
    split,
)
from simulator.simulation import Record
from simulator.trace import Trace

SCHEMA = "fairshare-sim/1"
_SHOWN_ERRORS = 20

Summary = dict[str, Any]


@dataclass(frozen=True)
class Replay:
    """One policy's run over a trace, and what the judge found."""

    policy: str
    trace: Trace
    log: Sequence[Record]
    audit: Audit

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """What became of each job."""
        return outcomes(self.trace, self.log)

    @cached_property
    def capacity(self) -> int:
        """All that the nodes offer, in quanta."""
        return capacity(self.trace.nodes)


def summary(replay: Replay) -> Summary:
    """Return the figures of a run: in all, by tenant, and by workload class."""
    whole = _figures(replay, replay.outcomes)
    tenants = split(replay.outcomes, lambda outcome: outcome.job.tenant)
    classes = split(replay.outcomes, lambda outcome: outcome.job.workload_class.label)
    whole["jain_speed"] = _tidy(jain([speed(group) for group in tenants.values()]))
    whole["tenants"] = {
        name: _figures(replay, group) for name, group in tenants.items()
    }
    whole["classes"] = {
        name: _figures(replay, group) for name, group in classes.items()
    }
    return whole


def document(
    replays: Sequence[Replay],
    *,
    sources: Sequence[str],
    seed: int,
    bound_s: float,
    comparison: bool,
) -> dict[str, Any]:
    """Return the JSON document of one run, or of a comparison."""
    trace = replays[0].trace
    head = {"schema": SCHEMA, "seed": seed, "reclaim_bound_s": _tidy(bound_s)}
    described = {"input": _input(trace, sources)}
    if comparison:
        policies = {replay.policy: summary(replay) for replay in replays}
        return head | described | {"policies": policies}
    policy = {"policy": replays[0].policy}
    return head | policy | described | {"summary": summary(replays[0])}


def _input(trace: Trace, sources: Sequence[str]) -> dict[str, Any]:
    bad = trace.errors.bad
    return {
        "traces": list(sources),
        "jobs": len(trace.jobs),
        "nodes": len(trace.nodes),
        "gpus": sum(node.gpus for node in trace.nodes),
        "guarantees": {
            queue.name: dict(queue.guarantee)
            for queue in sorted(trace.tenants, key=lambda queue: queue.name)
        },
        "bad_rows": len(bad),
        "bad_row_examples": [str(error) for error in bad[:_SHOWN_ERRORS]],
        "excluded_rows": dict(sorted(trace.errors.excluded.items())),
    }


def _figures(replay: Replay, group: Sequence[Outcome]) -> Summary:
    whole = makespan(replay.outcomes)
    done = asdict(figures(group, replay.capacity, whole))
    promised = _promises(replay.audit, {outcome.job.id for outcome in group})
    return {name: _tidy(value) for name, value in (done | promised).items()}


def _promises(audit: Audit, jobs: set[str]) -> dict[str, float]:
    """Return the guarantee figures of some jobs; see `audit`."""
    episodes = [episode for episode in audit.episodes if episode.job.id in jobs]
    latencies = sorted(_latencies(episodes))
    burst = sum(amount for job, amount in audit.burst.items() if job in jobs)
    return {
        "guarantee_wait_s": sum(e.until - e.since for e in episodes),
        "guarantee_violation_s": sum(e.violation_s for e in episodes),
        "guarantee_unplaceable_s": sum(e.unplaceable_s for e in episodes),
        "covered_evictions": sum(job in jobs for job in audit.broken),
        "reclaims": len(latencies),
        "reclaim_latency_s": percentile(latencies, 0.95),
        "mean_reclaim_latency_s": sum(latencies) / max(1, len(latencies)),
        "max_reclaim_latency_s": latencies[-1] if latencies else 0.0,
        "burst_gpu_s": burst / QUANTA_PER_GPU,
    }


def _latencies(episodes: Iterable[Episode]) -> Iterable[float]:
    return (e.latency_s for e in episodes if e.latency_s is not None)


def _tidy(value: float) -> float | int:
    """Round to microseconds; whole numbers are written as such."""
    rounded = round(value, 6)
    return int(rounded) if rounded == int(rounded) else rounded


def promises_kept(found: Mapping[str, Any]) -> bool:
    """Whether a summary shows no broken promise."""
    return not found["guarantee_violation_s"] and not found["covered_evictions"]
