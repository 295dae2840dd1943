"""The judge, by logs written by hand."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from scheduler.core import QUANTA_PER_GPU, Fleet, Form, GangId, Group, NodeName
from simulator.audit import Audit, audit
from simulator.baselines import fifo, static
from simulator.simulation import (
    Admitted,
    Bound,
    Evicted,
    Finished,
    Gone,
    Record,
    Started,
    Submitted,
    simulate,
)
from simulator.trace import Trace, TraceJob
from tests.simulator.builders import GPU, job, nodes, trace

BOUND = 186.0


def submit(at: float, name: str, attempt: int = 0) -> list[Record]:
    return [Submitted(at, name, attempt, GangId(name))]


def start(at: float, one: TraceJob, node: str = "n0") -> list[Record]:
    log: list[Record] = []
    for member, demand in enumerate(one.members):
        quanta = demand.count * QUANTA_PER_GPU
        log.append(Admitted(at, one.id, member, NodeName(node), GPU, quanta))
        log.append(Bound(at, one.id, member))
    return [*log, Started(at, one.id)]


def finish(at: float, one: TraceJob) -> list[Record]:
    gone = [Gone(at, one.id, member) for member in range(len(one.members))]
    return [Finished(at, one.id, one.duration_s, 0.0), *gone]


def evict(at: float, one: TraceJob, taker: str) -> list[Record]:
    return [Evicted(at, one.id, 0, "reclaimed", GangId(taker))]


def gone(at: float, one: TraceJob) -> list[Record]:
    return [Gone(at, one.id, 0)]


def judge(given: Trace, *log: Sequence[Record]) -> Audit:
    records = [record for part in log for record in part]
    return audit(given, sorted(records, key=lambda record: record.at), BOUND)


def waited(found: Audit) -> dict[str, float]:
    """How long each job waited while it was covered, seconds."""
    return {e.job.id: e.until - e.since for e in found.episodes}


MINE = job("mine", 100, 50, (4,), tenant="a")
FIRST = job("first", 0, 999, (4,), tenant="b")
SECOND = job("second", 0, 999, (4,), tenant="b")


def borrowed(end: float) -> Audit:
    """Tenant b runs on all 8 GPUs, half of them burst; a waits from 100 to `end`."""
    given = trace([FIRST, SECOND, MINE], nodes(8), {"a": 4, "b": 4})
    return judge(
        given,
        submit(0, "first"),
        submit(0, "second"),
        start(0, FIRST),
        start(0, SECOND),
        submit(100, "mine"),
        evict(end - 10, SECOND, "mine"),
        gone(end, SECOND),
        start(end, MINE),
        finish(end + 50, MINE),
        finish(999, FIRST),
    )


@pytest.mark.parametrize(
    ("end", "violation"), [(130, 0), (286, 0), (287, 1), (400, 114)]
)
def test_a_covered_gang_may_wait_for_the_bound_and_no_longer(
    end: float, violation: float
) -> None:
    (episode,) = borrowed(end).episodes
    assert episode.job.id == "mine"
    assert (episode.since, episode.until) == (100, end)
    assert episode.violation_s == violation
    assert episode.unplaceable_s == 0
    assert episode.latency_s == end - 100


def test_burst_is_what_runs_uncovered() -> None:
    """Both of b's gangs are equally old: the name decides which one is covered."""
    found = borrowed(130)
    assert found.burst == {"second": 4 * QUANTA_PER_GPU * 120}
    assert found.broken == []  # it was burst that went


def test_what_exceeds_the_guarantee_may_wait_for_ever() -> None:
    given = trace([FIRST, MINE], nodes(8), {"a": 3, "b": 4})
    found = judge(given, submit(0, "first"), start(0, FIRST), submit(100, "mine"))
    assert found.episodes == []


def test_waiting_while_nobody_bursts_is_no_reclaim() -> None:
    given = trace([FIRST, MINE], nodes(8), {"a": 4, "b": 4})
    found = judge(
        given,
        submit(0, "first"),
        start(0, FIRST),
        submit(100, "mine"),
        start(120, MINE),
    )
    (episode,) = found.episodes
    assert (episode.until, episode.latency_s) == (120, None)


def test_the_latency_runs_from_the_first_burst_of_another() -> None:
    given = trace([FIRST, SECOND, MINE], nodes(8, 8), {"a": 4, "b": 4})
    found = judge(
        given,
        submit(0, "first"),
        submit(0, "mine"),
        start(0, FIRST),
        submit(60, "second"),
        start(60, SECOND, "n1"),
        start(100, MINE, "n1"),
    )
    (episode,) = found.episodes
    assert episode.latency_s == 40


WIDE = job("wide", 0, 50, (8,), tenant="a")


@pytest.mark.parametrize(("end", "violation"), [(600, 0), (686, 0), (700, 14)])
def test_the_bound_counts_from_when_the_gang_became_placeable(
    end: float, violation: float
) -> None:
    """Covered work sits on both nodes until 500: nobody could have helped before."""
    given = trace([WIDE, FIRST, SECOND], nodes(8, 8), {"a": 8, "b": 8})
    found = judge(
        given,
        submit(0, "first"),
        submit(0, "second"),
        start(0, FIRST, "n0"),
        start(0, SECOND, "n1"),
        submit(100, "wide"),
        finish(500, FIRST),
        start(end, WIDE, "n0"),
        finish(999, SECOND),
    )
    (episode,) = found.episodes
    assert episode.unplaceable_s == 400
    assert episode.violation_s == violation


def test_a_gang_that_came_back_is_seen_where_it_sits_now() -> None:
    """Covered work of b moves from n0 to n1 and back to where a's gang had room."""
    two = job("two", 0, 999, (4,), tenant="b")
    mate = job("mate", 0, 999, (4, 4), tenant="b")
    given = trace([WIDE, two, mate], nodes(8, 8, 4), {"a": 8, "b": 12})
    log = [submit(0, "mate"), start(0, mate, "n0"), submit(0, "wide")]
    log += [submit(0, "two"), start(0, two, "n1")]  # both nodes of 8 are taken
    log += [[Evicted(500, "mate", 0, "", GangId(""))], [Gone(500, "mate", 0)]]
    log += [[Gone(500, "mate", 1)], submit(500, "mate", 1)]
    back = start(500, mate, "n1")
    back[2] = back[2]._replace(node=NodeName("n2"))  # type: ignore[call-arg]
    log += [back, finish(999, two), finish(999, mate)]
    (episode,) = judge(given, *log).episodes
    assert episode.unplaceable_s == 500
    assert episode.violation_s == 499 - BOUND


def test_gangs_that_fit_only_one_at_a_time_are_not_both_placeable() -> None:
    """Nodes of 3: two gangs of 2 are covered, but their second never has a place."""
    pair = [job(name, 0, 50, (2,), tenant="a") for name in ("p", "q")]
    given = trace(pair, nodes(3), {"a": 4})
    found = judge(given, submit(0, "p"), submit(0, "q"), start(400, pair[0]))
    by_job = {episode.job.id: episode for episode in found.episodes}
    assert by_job["p"].violation_s == 400 - BOUND
    assert by_job["q"].violation_s == 0


@pytest.mark.parametrize(
    ("tenant", "kind", "violated"),
    [
        ("a", "training", False),  # a's own equal: nobody else stands in the way
        ("a", "batch", True),  # less urgent than the gang that waits
        ("b", "training", True),
    ],
)
def test_burst_that_need_not_give_way_makes_a_gang_unplaceable(
    tenant: str, kind: str, violated: bool
) -> None:
    hog = job("hog", 0, 999, (8,), tenant=tenant, kind=kind)  # above any guarantee
    given = trace([hog, MINE], nodes(8), {"a": 4, "b": 4})
    found = judge(
        given, submit(0, "hog"), start(0, hog), submit(100, "mine"), finish(999, hog)
    )
    (episode,) = found.episodes
    assert (episode.violation_s > 0) == violated
    assert (episode.unplaceable_s > 0) != violated


def test_more_urgent_work_of_the_tenant_takes_the_cover() -> None:
    """From 100 on, inference claims a's guarantee: its training becomes burst."""
    training = job("training", 0, 500, (4,), tenant="a")
    serving = job("serving", 100, 50, (4,), tenant="a", kind="inference")
    given = trace([training, serving], nodes(8), {"a": 4, "b": 4})
    found = judge(
        given,
        submit(0, "training"),
        start(0, training),
        submit(100, "serving"),
        start(100, serving),
        finish(150, serving),
        finish(500, training),
    )
    assert found.burst == {"training": 4 * QUANTA_PER_GPU * 50}
    assert found.episodes == []


def test_critical_work_takes_the_cover_only_as_far_as_it_is_granted() -> None:
    """Else who calls his work critical would wrong those whom he overtakes."""
    older = job("older", 0, 900, (4,), kind="inference")
    urgent = job("urgent", 100, 50, (4,), kind="inference-critical")
    base = trace([older, urgent], nodes(4), {"a": 4})
    log = [submit(0, "older"), start(0, older), submit(100, "urgent")]
    log += [finish(900, older), start(900, urgent), finish(950, urgent)]
    assert waited(judge(base, *log)) == {}
    (tenant,) = base.tenants
    granted = replace(base, tenants=(replace(tenant, critical=((GPU, 4),)),))
    assert waited(judge(granted, *log)) == {"urgent": 800}


def test_guarantee_of_a_group_covers_any_of_its_classes() -> None:
    base = trace([FIRST, SECOND, MINE], nodes(8), {"a": 0, "b": 8})
    group = Form("any")
    owner = replace(base.tenants[0], guarantee=((group, 4),))
    fleet = Fleet(groups=(Group(name=group, members=(GPU,)),))
    given = replace(base, tenants=(owner, base.tenants[1]), fleet=fleet)
    log = [submit(0, "first"), submit(0, "second"), start(0, FIRST), start(0, SECOND)]
    log += [submit(100, "mine")]
    assert waited(judge(base, *log, finish(999, SECOND))) == {}
    assert waited(judge(given, *log, finish(999, SECOND))) == {"mine": 899}


def test_evicting_what_is_covered_for_another_tenant_breaks_a_promise() -> None:
    other = job("other", 100, 50, (4,), tenant="a")
    given = trace([FIRST, other], nodes(4), {"a": 0, "b": 4})
    parts = (submit(0, "first"), start(0, FIRST), submit(100, "other"))
    assert judge(given, *parts, evict(120, FIRST, "other")).broken == ["first"]
    own = job("own", 100, 50, (4,), tenant="b")
    given = trace([FIRST, own], nodes(4), {"a": 0, "b": 4})
    parts = (submit(0, "first"), start(0, FIRST), submit(100, "own"))
    assert judge(given, *parts, evict(120, FIRST, "own")).broken == []


def test_cover_is_judged_at_the_instant_of_the_eviction() -> None:
    """The gang that was burst is covered once the older one has ended."""
    given = trace([FIRST, SECOND, MINE], nodes(8), {"a": 4, "b": 4})
    parts = (
        submit(0, "first"),
        submit(0, "second"),
        start(0, FIRST),
        start(0, SECOND),
        submit(100, "mine"),
    )
    late = (finish(119, FIRST), evict(120, SECOND, "mine"))
    assert judge(given, *parts, *late).broken == ["second"]


def test_victims_of_one_instant_are_judged_before_any_of_them_is_gone() -> None:
    """The first is covered, which breaks the promise; the second was burst."""
    small = [job(name, 0, 999, (2,), tenant="b") for name in ("v1", "v2")]
    given = trace([FIRST, *small, MINE], nodes(8), {"a": 4, "b": 6})
    parts = [submit(0, "first"), start(0, FIRST), submit(100, "mine")]
    parts += [part for one in small for part in (submit(1, one.id), start(1, one))]
    both = [evict(120, one, "mine") for one in small]
    assert judge(given, *parts, *both).broken == ["v1"]


def test_a_gang_waits_until_its_last_member_holds_its_devices() -> None:
    pair = job("pair", 0, 50, (1, 1), tenant="a")
    given = trace([pair], nodes(8), {"a": 8})
    log = [record._replace(at=30.0) for record in start(10, pair)[3:4]]
    found = judge(given, submit(0, "pair"), start(10, pair)[:3], log)
    (episode,) = found.episodes
    assert episode.until == 30


def test_what_still_waits_at_the_end_has_waited_until_then() -> None:
    given = trace([FIRST, MINE], nodes(4), {"a": 4, "b": 0})
    found = judge(
        given,
        submit(0, "first"),
        start(0, FIRST),
        submit(100, "mine"),
        finish(999, FIRST),
    )
    (episode,) = found.episodes
    assert (episode.until, episode.latency_s) == (999, None)
    assert episode.violation_s == 899 - BOUND


def test_fifo_breaks_the_guarantee_that_partitions_keep() -> None:
    jobs = [
        job("hog", 0, 1000, (8,), tenant="b"),
        job("mine", 100, 50, (4,), tenant="a"),
    ]
    given = trace(jobs, nodes(8), {"a": 4, "b": 4})
    found = audit(given, simulate(given, fifo(given)), BOUND)
    assert [episode.violation_s for episode in found.episodes] == [900 - BOUND]
    kept = audit(given, simulate(given, static(given)), BOUND)
    assert kept.episodes == []
