"""Whole replays: what must hold for every policy, whatever the trace."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core import QUANTA_PER_GPU, Engine, Policy
from simulator.__main__ import Source
from simulator.audit import audit
from simulator.baselines import fifo, static
from simulator.metrics import capacity, figures, makespan, outcomes
from simulator.simulation import (
    Admitted,
    Gone,
    Kubelet,
    Record,
    Scheduler,
    Started,
    Withdrawn,
    simulate,
)
from simulator.trace import RowErrors, Trace
from tests.simulator.builders import job, nodes, trace

DEMO = Path(__file__).parents[2] / "deploy" / "demo" / "data"


def engine(_given: Trace) -> Scheduler:
    return Engine(Policy(inline=False))


POLICIES: dict[str, Callable[[Trace], Scheduler]] = {
    "fairshare": engine,
    "static": static,
    "fifo": fifo,
}


@st.composite
def contended(draw: st.DrawFn) -> Trace:
    """Two tenants on three nodes, with gangs, classes and bursts that meet."""
    sizes = st.one_of(
        st.tuples(st.integers(1, 4)),
        st.tuples(st.just(4), st.integers(1, 4)),
        st.tuples(st.integers(1, 2), st.integers(1, 2)),
    )
    jobs = [
        job(
            f"j{number}",
            draw(st.integers(0, 60)) * 30,
            draw(st.integers(1, 40)) * 30,
            sorted(draw(sizes), reverse=True),
            tenant=draw(st.sampled_from("ab")),
            kind=draw(st.sampled_from(["inference", "training", "batch"])),
            every=draw(st.sampled_from([None, 60.0, 600.0])),
            restart=draw(st.sampled_from([0.0, 15.0])),
            on_request=draw(st.booleans()),
        )
        for number in range(draw(st.integers(1, 14)))
    ]
    mine = draw(st.integers(0, 12))
    return trace(jobs, nodes(4, 4, 4), {"a": mine, "b": 12 - mine})


def loads(given: Trace, log: Sequence[Record]) -> Iterator[tuple[str, int]]:
    """Yield (node, GPUs in use on it) after each record that changes it."""
    held: dict[tuple[str, int], tuple[str, int]] = {}
    used = {str(node.name): 0 for node in given.nodes}
    for record in log:
        if isinstance(record, Admitted):
            held[record.job, record.member] = (record.node, record.quanta)
            used[record.node] += record.quanta
            yield record.node, used[record.node] // QUANTA_PER_GPU
        elif isinstance(record, Gone | Withdrawn):
            node, quanta = held.pop((record.job, record.member))
            used[node] -= quanta
    assert not held
    assert not any(used.values())


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_node_is_overfull_and_no_gang_is_torn(
    policy: str, data: st.DataObject
) -> None:
    """CONSERVATION and GANG from outside; and the GPU time adds up."""
    given = data.draw(contended())
    delays = Kubelet(startup_s=data.draw(st.sampled_from([0.0, 45.0])))
    log = simulate(given, POLICIES[policy](given), kubelet=delays, seed=1)
    sizes = {str(node.name): node.gpus for node in given.nodes}
    for node, gpus in loads(given, log):
        assert gpus <= sizes[node]
    members = {job.id: len(job.members) for job in given.jobs}
    admitted: dict[tuple[str, float], int] = {}
    for record in log:
        if isinstance(record, Admitted):
            key = (record.job, record.at)
            admitted[key] = admitted.get(key, 0) + 1
    assert all(count == members[name] for (name, _), count in admitted.items())
    found = figures(outcomes(given, log), capacity(given.nodes), 1.0)
    parts = found.useful_gpu_s + found.lost_gpu_s + found.overhead_gpu_s
    assert found.allocated_gpu_s == pytest.approx(parts)
    assert found.overhead_gpu_s > -1e-6
    if policy != "static":  # there a gang may exceed its partition
        assert found.unfinished == 0
        work = sum(one.gpus * one.duration_s for one in given.jobs)
        assert found.useful_gpu_s == pytest.approx(work)


@settings(max_examples=120, deadline=None)
@given(contended())
def test_the_engine_keeps_its_promises_in_every_replay(given: Trace) -> None:
    """GUARANTEE and PROTECTED, by the judge that also convicts the baselines."""
    policy = Policy(inline=False)
    log = simulate(given, Engine(policy), seed=1)
    found = audit(given, log, policy.reclaim_bound_s)
    assert [episode for episode in found.episodes if episode.violation_s] == []
    assert found.broken == []


MIXED = """\
nodes:
- {name: 'cut-{i}', count: 2, gpuClass: h100-80gb, gpus: 8,
   mig: [{gpus: 2, slices: {1g.10gb: 7}}], cpu: 64}
- {name: 'a10-{i}', count: 2, gpuClass: a10-24gb, gpus: 4, sharedReplicas: 4}
tenants:
- {name: a, guarantee: {h100-80gb: 6, h100-80gb/1g.10gb: 14}}
- {name: b, guarantee: {h100-80gb: 6, a10-24gb/shared-4: 16}}
"""
ASKS = """\
[jobs]
id,tenant,class,submit_s,duration_s,gpus,pods,gpu_classes,profile,gpu_milli,cpu_milli
whole,a,training,0,900,6,2,h100-80gb,,,1000
slices,b,training,0,900,7,4,,1g.10gb,,
mine,a,inference,300,300,7,2,h100-80gb,1g.10gb,,
shared,b,inference,0,300,4,4,a10-24gb/shared-4,,,
half,b,batch,0,300,,2,h100-80gb,,500,
back,b,inference,400,300,6,1,h100-80gb,,,
"""


@pytest.mark.parametrize("policy", POLICIES)
def test_slices_replicas_and_fractions_are_replayed_like_gpus(
    policy: str, tmp_path: Path
) -> None:
    (tmp_path / "cluster.yaml").write_text(MIXED)
    (tmp_path / "jobs.csv").write_text(ASKS)
    spec = (f"normal:{tmp_path}/jobs.csv",)
    given = Source(spec, tmp_path / "cluster.yaml", None, (), 0).read(RowErrors())
    log = simulate(given, POLICIES[policy](given), seed=0)
    started = {record.job for record in log if isinstance(record, Started)}
    walls = {"whole", "slices"}  # more than their tenants' partitions
    assert started == {job.id for job in given.jobs} - (
        walls if policy == "static" else set()
    )
    bound = Policy(inline=False).reclaim_bound_s
    found = audit(given, log, bound)
    late = sum(episode.violation_s for episode in found.episodes)
    assert (late > 0) == (policy == "fifo")


def test_the_demo_tells_its_story() -> None:
    """A real trace: promises kept, and better than walls in every respect."""
    traces = (f"itp:{DEMO}/cluster01.csv", f"itp:{DEMO}/cluster02.csv")
    bursts = "burst:tenant=serving,gpus=32,pod=2,on=2400,off=7200"
    spec = (*traces, f"{bursts},from=3196800,until=3369600")
    given = Source(spec, DEMO / "cluster.yaml", None, (), 0).read(RowErrors())
    bound = Policy(inline=False).reclaim_bound_s
    results = {}
    for name, scheduler in POLICIES.items():
        log = simulate(given, scheduler(given), seed=0)
        done = outcomes(given, log)
        found = audit(given, log, bound)
        waited = sum(episode.until - episode.since for episode in found.episodes)
        violated = sum(episode.violation_s for episode in found.episodes)
        total = figures(done, capacity(given.nodes), makespan(done))
        results[name] = (total, waited, violated, found.broken)
    ours, waited, violated, broken = results["fairshare"]
    walls, theirs = results["static"][0], results["fifo"]
    assert (violated, broken, ours.unfinished) == (0, [], 0)
    assert ours.utilisation > 1.15 * walls.utilisation
    assert ours.mean_queue_s < walls.mean_queue_s / 3
    assert waited < theirs[1] / 30
    assert ours.mean_queue_s < theirs[0].mean_queue_s / 2
