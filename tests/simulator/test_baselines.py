"""First in first out, fixed partitions, and where they place gangs."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core import (
    QUANTA_PER_GPU,
    Demand,
    Pod,
    PodUid,
    TenantName,
    WorkloadClass,
)
from simulator.baselines import fifo, static
from simulator.baselines.rooms import Buckets, Columns
from simulator.importers import load
from simulator.metrics import Outcome, makespan, outcomes, percentile
from simulator.simulation import Admitted, Record, Started, simulate
from simulator.trace import RowErrors, Trace, parse_nodes, settle
from tests.simulator.builders import EXPECTED, GPU, ITP, job, nodes, trace

A2 = (
    json.loads(EXPECTED.read_text())["A2_helios_fifo_sjf"]["itp"]
    if EXPECTED.exists()
    else {}
)
RUNS = sorted(name for name in A2.get("expected", {}) if name.startswith("fifo/"))


def starts(log: Sequence[Record]) -> dict[str, float]:
    return {record.job: record.at for record in log if isinstance(record, Started)}


def placed(log: Sequence[Record]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in log:
        if isinstance(record, Admitted):
            found.setdefault(record.job, []).append(record.node)
    return found


# -- the published protocol ---------------------------------------------------


def replay_itp(cluster: str) -> list[Outcome]:
    read = load(f"itp:{ITP}#cluster{cluster}", 8, RowErrors())
    given = settle(read, parse_nodes(f"{A2['nodes'][cluster]}x8"), {})
    return outcomes(given, simulate(given, fifo(given), seed=0))


@pytest.mark.skipif(not RUNS or not ITP.exists(), reason="needs the published traces")
def test_fifo_equals_the_published_protocol_on_every_cluster() -> None:
    """A2, to the second: jobs, completion, queueing, percentiles, makespan."""
    for name in RUNS:
        done = replay_itp(name.removeprefix("fifo/"))
        queues = sorted(outcome.queue_s for outcome in done)
        ends = [outcome.end for outcome in done if outcome.end is not None]
        jct = sum(ends) - sum(outcome.job.submit_s for outcome in done)
        wanted = dict(A2["expected"][name])
        del wanted["peer_code_equal"]
        assert {
            "jobs": len(ends),
            "avg_jct": round(jct / len(done), 2),
            "avg_queue": round(sum(queues) / len(done), 2),
            "p50_queue": percentile(queues, 0.50),
            "p95_queue": percentile(queues, 0.95),
            "p99_queue": percentile(queues, 0.99),
            "jct_sum": jct,
            "queue_sum": sum(queues),
            "makespan": makespan(done),
        } == wanted, name


# -- lanes --------------------------------------------------------------------


def test_nobody_overtakes_the_head_of_the_line() -> None:
    jobs = [job("run", 0, 100, (6,)), job("big", 1, 10, (4,)), job("small", 2, 10)]
    given = trace(jobs, nodes(8))
    assert starts(simulate(given, fifo(given))) == {"run": 0, "big": 100, "small": 100}


def test_what_ends_at_an_instant_makes_room_for_what_comes_at_it() -> None:
    given = trace([job("one", 0, 10, (8,)), job("two", 10, 10, (8,))], nodes(8))
    assert starts(simulate(given, fifo(given))) == {"one": 0, "two": 10}


def test_a_gang_starts_whole_or_not_at_all() -> None:
    jobs = [job("run", 0, 50, (8,)), job("gang", 1, 10, (8, 8))]
    given = trace(jobs, nodes(8, 8))
    log = simulate(given, fifo(given))
    assert starts(log)["gang"] == 50
    assert [r.at for r in log if isinstance(r, Admitted) and r.job == "gang"] == [
        50,
        50,
    ]


def test_what_never_fits_blocks_nobody() -> None:
    jobs = [job("huge", 0, 10, (16,)), job("wide", 0, 1, (8, 8, 8)), job("ok", 0, 10)]
    given = trace(jobs, nodes(8, 8))
    assert starts(simulate(given, fifo(given))) == {"ok": 0}


def test_a_static_partition_is_the_guarantee_and_no_more() -> None:
    jobs = [
        job("a1", 0, 100, (4,), tenant="a"),
        job("a2", 0, 100, (4,), tenant="a"),  # a's partition is full: 4 idle GPUs wait
        job("b1", 50, 10, (4,), tenant="b"),
    ]
    given = trace(jobs, nodes(8), {"a": 4, "b": 4})
    assert starts(simulate(given, static(given))) == {"a1": 0, "a2": 100, "b1": 50}


def test_what_exceeds_its_partition_blocks_nobody_in_it() -> None:
    jobs = [job("big", 0, 10, (6,)), job("small", 1, 10, (2,))]
    given = trace(jobs, nodes(8), {"a": 4, "b": 4})
    assert starts(simulate(given, static(given))) == {"small": 1}


def test_partitions_are_kept_for_each_class_of_gpu() -> None:
    cluster = (*nodes(4), *parse_nodes("1x4:h100-80gb"))
    jobs = [
        job("any", 0, 100, (4,)),  # gpu is guaranteed: it goes there
        job("h100", 1, 10, (1,), classes=("h100-80gb",)),  # none of it is guaranteed
    ]
    given = trace(jobs, cluster, {"a": 4})
    assert starts(simulate(given, static(given))) == {"any": 0}


def test_a_choice_of_classes_is_tried_in_its_order() -> None:
    cluster = (*nodes(4), *parse_nodes("1x4:h100-80gb"))
    both = ("h100-80gb", "gpu")
    jobs = [job(name, 0, 10, (4,), classes=both) for name in ("one", "two", "three")]
    given = trace(jobs, cluster)
    log = simulate(given, fifo(given))
    assert starts(log) == {"one": 0, "two": 0, "three": 10}
    assert placed(log)["one"] == ["node-0000"]
    assert placed(log)["two"] == ["n0"]


# -- places -------------------------------------------------------------------


def test_a_pod_takes_the_tightest_node_and_the_first_of_equals() -> None:
    jobs = [
        job("fill", 0, 99, (5,)),
        job("two", 1, 99, (2,)),
        job("eight", 1, 99, (8,)),
    ]
    given = trace(jobs, nodes(8, 8, 8))
    places = placed(simulate(given, fifo(given)))
    assert places == {"fill": ["n0"], "two": ["n0"], "eight": ["n1"]}


def test_the_rest_of_a_wide_gang_takes_the_emptiest_node_left() -> None:
    """The published rule: not the tightest, which would be n0."""
    jobs = [job("a", 0, 99, (4,)), job("b", 0, 99, (6,)), job("wide", 1, 99, (8, 2))]
    given = trace(jobs, nodes(8, 8, 8, 8))
    assert placed(simulate(given, fifo(given)))["wide"] == ["n2", "n3"]


def test_the_rest_of_a_wide_gang_shares_no_node_with_its_gang() -> None:
    jobs = [job("fill", 0, 50, (5,)), job("wide", 1, 10, (8, 4))]
    given = trace(jobs, nodes(8, 8))
    assert starts(simulate(given, fifo(given)))["wide"] == 50


def test_small_pods_of_a_gang_share_a_node() -> None:
    given = trace([job("gang", 0, 10, (2, 2, 2))], nodes(8, 8))
    assert placed(simulate(given, fifo(given)))["gang"] == ["n0", "n0", "n0"]


def test_fractions_share_a_gpu_where_they_fit() -> None:
    half = (Demand(count=1, fraction=QUANTA_PER_GPU // 2),)
    jobs = [replace(job(str(i), 0, 10), members=half) for i in range(3)]
    given = trace(jobs, nodes(1))
    assert starts(simulate(given, fifo(given))) == {"0": 0, "1": 0, "2": 10}


def test_cpu_and_memory_bind_where_nodes_track_them() -> None:
    cluster = [replace(node, cpu_milli=1000) for node in nodes(8)]
    needs = (Demand(count=1, cpu_milli=600),)
    jobs = [replace(job(str(i), 0, 10), members=needs) for i in range(2)]
    given = trace(jobs, cluster)
    assert starts(simulate(given, fifo(given))) == {"0": 0, "1": 10}


def pods(name: str, counts: Sequence[int]) -> list[Pod]:
    return [
        Pod(
            uid=PodUid(f"{name}.{i}"),
            name=name,
            tenant=TenantName("a"),
            workload_class=WorkloadClass.TRAINING,
            demand=Demand(count=count),
        )
        for i, count in enumerate(counts)
    ]


gangs = st.one_of(
    st.lists(st.integers(1, 4), min_size=1, max_size=1),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.builds(
        lambda n, rest: [4] * n + rest,
        st.integers(1, 3),
        st.lists(st.integers(1, 3), max_size=1),
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(gangs, st.integers(0, 5)), max_size=25))
def test_buckets_keep_their_books(steps: list[tuple[list[int], int]]) -> None:
    """Against plain counting: no node over its size, and refused only where it must."""
    room = Buckets()
    for node in nodes(4, 4, 4, 2):
        room.add(node)
    size = {"n0": 4, "n1": 4, "n2": 4, "n3": 2}
    live: dict[str, list[tuple[str, str, int]]] = {}
    for number, (counts, leaving) in enumerate(steps):
        gang = pods(f"g{number}", counts)
        used = dict.fromkeys(size, 0)
        for held in live.values():
            for _, place, count in held:
                used[place] += count
        free = {name: size[name] - used[name] for name in size}
        places = room.take(gang, GPU)
        if places is None:
            assert len(counts) > 1 or max(free.values()) < counts[0]
        else:
            for pod, place in zip(gang, places, strict=True):
                free[place] -= pod.demand.count
            assert min(free.values()) >= 0
            live[f"g{number}"] = [
                (pod.uid, place, pod.demand.count)
                for pod, place in zip(gang, places, strict=True)
            ]
        for name in sorted(live)[:leaving]:
            for uid, _, _ in live.pop(name):
                room.free(PodUid(uid))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=12))
def test_both_rooms_admit_the_same_single_pods(counts: list[int]) -> None:
    rooms = Buckets(), Columns()
    for room in rooms:
        for node in nodes(4, 4, 2):
            room.add(node)
    for number, count in enumerate(counts):
        one = pods(str(number), [count])
        fast, exact = (room.take(one, GPU) is not None for room in rooms)
        assert fast == exact
        for room in rooms:
            assert room.could_hold(one, GPU) == (count <= 4)
        if not fast:
            break


def test_an_unused_trace_needs_no_scheduler() -> None:
    given = Trace(jobs=(), nodes=nodes(8))
    assert simulate(given, fifo(given)) == []
