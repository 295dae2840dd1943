"""Figures of the jobs, by small examples computed by hand."""

import pytest

from scheduler.core import Action, CheckpointRequest, Evict, GangId, NodeName, PodUid
from simulator.metrics import (
    Figures,
    Outcome,
    capacity,
    figures,
    jain,
    makespan,
    outcomes,
    percentile,
    speed,
    split,
    usage,
)
from simulator.simulation import Kubelet, simulate
from simulator.trace import Trace, parse_nodes
from tests.simulator.builders import Script, job, nodes, trace

N0 = NodeName("n0")


def whole(given: Trace, found: list[Outcome]) -> Figures:
    return figures(found, capacity(given.nodes), makespan(found))


def test_a_run_without_incident() -> None:
    """One waits 60 s behind the other on two GPUs."""
    given = trace([job("one", 0, 100, (2,)), job("two", 40, 20)], nodes(2))
    script = Script({100.0: []}, eager=True)
    found = outcomes(given, simulate(given, _Late(script)))
    got = whole(given, found)
    assert (got.jobs, got.unfinished) == (2, 0)
    assert got.jct_sum_s == 100 + 80
    assert got.mean_jct_s == 90
    assert got.mean_queue_s == 30
    assert got.p95_queue_s == 60
    assert got.makespan_s == 120
    assert got.allocated_gpu_s == 2 * 100 + 1 * 20
    assert got.utilisation == pytest.approx(220 / (2 * 120))
    assert (got.evictions, got.lost_gpu_s, got.overhead_gpu_s) == (0, 0, 0)


class _Late:
    """Admits nothing new before 100 s, except what comes first."""

    def __init__(self, inner: Script) -> None:
        self.observe = inner.observe
        self._inner = inner
        self.next_deadline = inner.next_deadline

    def cycle(self, now: float) -> list[Action]:
        return self._inner.cycle(now) if now in (0, 100) else []


def test_an_eviction_is_split_into_useful_lost_and_overhead() -> None:
    """Two GPUs: 75 s, asked, 20 s writing, evicted, 10 s leaving, 7 s restart, 25 s."""
    given = trace([job("j", 0, 100, (2,), restart=7.0)], nodes(2))
    uid, gang = PodUid("j.0.0"), GangId("j.0.0")
    acts: dict[float, list[Action]] = {
        75.0: [CheckpointRequest(uid, gang, N0, 135.0, GangId("x"))],
        95.0: [Evict(uid, gang, N0, 120.0, "reclaimed")],
    }
    found = outcomes(given, simulate(given, Script(acts), kubelet=Kubelet(startup_s=3)))
    got = whole(given, found)
    # With 3 s of start-up before both attempts: 72 s of work when asked.
    assert got.evictions == 1
    assert got.useful_gpu_s == 2 * 100
    assert got.lost_gpu_s == 2 * 7
    assert got.overhead_gpu_s == 2 * (3 + 20 + 10 + 3)
    assert got.allocated_gpu_s == 2 * (105 + 3 + 7 + 28)
    assert got.mean_queue_s == 3 + 10 - 10 + 3  # both waits for the start
    assert got.mean_jct_s == 105 + 3 + 7 + 28


def test_work_since_the_last_checkpoint_is_lost() -> None:
    given = trace([job("j", 0, 100, (4,), every=30.0, restart=5.0)], nodes(4))
    evict = Evict(PodUid("j.0.0"), GangId("j.0.0"), N0, 120.0, "reclaimed")
    found = outcomes(given, simulate(given, Script({75.0: [evict]})))
    got = whole(given, found)
    assert got.lost_gpu_s == 4 * (15 + 5)
    assert got.allocated_gpu_s == got.useful_gpu_s + got.lost_gpu_s + got.overhead_gpu_s
    assert got.overhead_gpu_s == 4 * 10


def test_jobs_that_never_run_are_counted_and_left_out() -> None:
    given = trace([job("one", 0, 10), job("never", 0, 10)], nodes(1))
    script = Script({}, eager=False)
    log = simulate(given, script)
    got = whole(given, outcomes(given, log))
    assert (got.jobs, got.unfinished) == (2, 2)
    assert (got.mean_jct_s, got.mean_queue_s, got.makespan_s) == (0, 0, 0)


def test_a_percentile_is_the_value_at_its_index() -> None:
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.95) == 96
    assert percentile(values, 0.5) == 51
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) == 0


def test_capacity_counts_what_slices_are_worth() -> None:
    assert capacity(parse_nodes("2x8:h100-80gb")) == 16 * 126_000


def test_groups_are_sorted_by_name() -> None:
    jobs = [job("1", 0, 1, tenant="b"), job("2", 0, 1, tenant="a")]
    given = trace(jobs, nodes(2))
    found = outcomes(given, simulate(given, Script({})))
    parts = split(found, lambda outcome: outcome.job.tenant)
    assert [(name, len(part)) for name, part in parts.items()] == [("a", 1), ("b", 1)]


def test_usage_is_a_step_for_each_instant_that_changes_it() -> None:
    jobs = [job("1", 0, 10, (2,)), job("2", 10, 5, (3,)), job("3", 4, 2, (1,))]
    given = trace(jobs, nodes(8))
    steps = usage(given, simulate(given, Script({})))
    assert steps == {"a": [(0, 2.0), (4, 3.0), (6, 2.0), (10, 3.0), (15, 0.0)]}


def test_speed_is_the_part_of_the_time_that_was_not_queued() -> None:
    """One of two queues 60 of its 80 seconds."""
    given = trace([job("one", 0, 100, (2,)), job("two", 40, 20)], nodes(2))
    script = Script({100.0: []}, eager=True)
    found = outcomes(given, simulate(given, _Late(script)))
    assert speed(found) == pytest.approx(1 - 60 / 180)
    assert speed([]) == 1.0


def test_jain_of_nothing_is_even() -> None:
    assert jain([]) == jain([0.0, 0.0]) == 1.0
