"""Time, concurrency and the two lanes: what the service adds to the engine."""

import asyncio
import os
import pickle
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.codec import CodecError, Reported
from scheduler.config import Config, parse_config
from scheduler.core import (
    CheckpointDone,
    CheckpointRequest,
    Event,
    Evict,
    Fleet,
    Form,
    GangId,
    Group,
    NodeChanged,
    NodeName,
    Pod,
    PodBound,
    PodGone,
    PodUid,
    allocate,
    verify,
)
from scheduler.service import Outbox, Solver, Standalone
from scheduler.service.solver import pack
from scheduler.tenancy import Tenancy
from tests.builders import counts, node, pod, tenant
from tests.serving import FLEET, FakeClock


def parsed(**policy: str) -> Config:
    """The usual fleet with some settings of the policy replaced."""
    changes = "".join(f", {key}: {value}" for key, value in policy.items())
    return parse_config(FLEET.replace("cycle: 1s", f"cycle: 1s{changes}"))


def run(
    play: Callable[[Standalone, FakeClock], Coroutine[Any, Any, None]], **policy: str
) -> None:
    """Play something with a started service whose cycle runs only when asked to."""

    async def scene() -> None:
        clock = FakeClock()
        service = Standalone(parsed(**policy), clock)
        await service.start()
        assert service._cycling is not None
        service._cycling.cancel()
        try:
            await play(service, clock)
        finally:
            await service.stop()

    asyncio.run(scene())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens by itself."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within 10 s")


def reported(*events: Event | Tenancy) -> list[Reported]:
    return [Reported(line, event) for line, event in enumerate(events, start=1)]


def bound(uid: str, at: str, gpus: int = 8, tenant: str = "a") -> PodBound:
    return PodBound(PodUid(uid), NodeName(at), pod(uid, tenant, gpus))


NODES = [NodeName("n0"), NodeName("n1"), NodeName("m0")]


# -- outbox -----------------------------------------------------------------------


def evict(uid: str) -> Evict:
    return Evict(PodUid(uid), GangId(uid), NodeName("n0"), 10.0, "reclaimed")


def request(uid: str) -> CheckpointRequest:
    return CheckpointRequest(
        PodUid(uid), GangId(uid), NodeName("n0"), 60.0, GangId("other")
    )


def test_outbox_keeps_order_and_one_wish_a_pod() -> None:
    outbox = Outbox()
    for action in (request("a"), evict("b"), evict("a")):
        outbox.put(action, "name")
    assert [(w.id, type(w.action).__name__) for w in outbox.after(0)] == [
        (2, "Evict"),
        (3, "Evict"),
    ]
    assert [w.id for w in outbox.after(2)] == [3]
    assert outbox.acknowledge([1, 3, 3]) == 1  # 1 was overtaken, 3 counts once
    outbox.forget(PodUid("b"))
    outbox.forget(PodUid("never heard of"))
    assert len(outbox) == 0
    assert outbox.last == 3


def test_outbox_is_bounded_by_pods_and_pages() -> None:
    outbox = Outbox()
    for round_ in range(3):
        for index in range(1500):
            outbox.put(evict(f"p{index}"), f"round {round_}")
    assert len(outbox) == 1500
    first = outbox.after(0)
    assert len(first) == 1000
    assert len(outbox.after(first[-1].id)) == 500


def test_all_polls_wake_up() -> None:
    async def play() -> None:
        outbox = Outbox()
        polls = [asyncio.create_task(outbox.wait(0, 10)) for _ in range(3)]
        await asyncio.sleep(0)
        outbox.put(evict("a"), "name")
        for poll in polls:
            assert len(await asyncio.wait_for(poll, 1)) == 1
        late = asyncio.create_task(outbox.wait(outbox.last, 10))
        await asyncio.sleep(0)
        outbox.close()
        assert await asyncio.wait_for(late, 1) == []

    asyncio.run(play())


# -- batches of events ---------------------------------------------------------------

UIDS = st.sampled_from(["p0", "p1", "p2", "p3"])
PLACES = st.sampled_from(["n0", "n1", "m0", "new", "zz"])
PODS: st.SearchStrategy[Pod | None] = st.none() | st.builds(
    lambda uid, tenant, gpus: pod(uid, tenant, gpus),
    UIDS,
    st.sampled_from(["a", "b", "nobody"]),
    st.sampled_from([1, 8]),
)


def as_bound(uid: str, at: str, of: Pod | None) -> Event:
    carried = pod(uid, of.tenant, of.demand.count) if of else None
    return PodBound(PodUid(uid), NodeName(at), carried)


def as_node(name: str, offers: str, ready: bool) -> Event:
    return NodeChanged(node(name, offers, gpus=8, ready=ready))


ANY = Fleet(
    groups=(Group(name=Form("any"), members=(Form("a100-80gb"), Form("h100-80gb"))),)
)


def as_tenants(
    parts: list[tuple[str, str | None, str, int | None]], fleet: Fleet | None
) -> Tenancy:
    """A tree of queues (name, parent, guarantee, burst); each has its namespace."""
    queues = tuple(
        replace(
            tenant(name, guarantee, parent=parent, order=order),
            burst_milli=burst,
            critical=counts(guarantee),
        )
        for order, (name, parent, guarantee, burst) in enumerate(parts)
    )
    inner = {queue.parent for queue in queues}
    names = tuple(() if queue.name in inner else (queue.name,) for queue in queues)
    return Tenancy(queues=queues, namespaces=names, fleet=fleet)


QUEUES = st.tuples(
    st.sampled_from(["a", "b", "c", "org"]),
    st.sampled_from([None, None, "org"]),
    st.sampled_from(["", "4xh100-80gb", "8xh100-80gb", "24xh100-80gb", "8xany"]),
    st.sampled_from([None, 0, 1500]),
)
EVENTS = st.one_of(
    st.builds(
        as_tenants,
        st.lists(QUEUES, max_size=4),
        st.sampled_from([None, ANY, Fleet()]),
    ),
    st.builds(as_bound, UIDS, PLACES, PODS),
    st.builds(lambda uid: PodGone(PodUid(uid)), UIDS),
    st.builds(lambda uid: CheckpointDone(PodUid(uid)), UIDS),
    st.builds(
        as_node,
        st.sampled_from(["n0", "new"]),
        st.sampled_from(["8xh100-80gb", "", "8xa100-80gb"]),
        st.booleans(),
    ),
)
STEPS = st.lists(
    st.one_of(
        st.lists(EVENTS, max_size=5),
        st.builds(pod, UIDS, st.sampled_from(["a", "b"]), st.sampled_from([1, 8])),
        st.sampled_from([1.0, 61.0]),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_batch_is_applied_whole_or_not_at_all(steps: list[Any]) -> None:
    """Pods, time and batches in any order: no batch fails after it has begun."""

    async def play(service: Standalone, clock: FakeClock) -> None:
        for step in steps:
            if isinstance(step, float):
                clock.now += step
                service._cycle()
            elif isinstance(step, Pod):
                service.filter(step, NODES)
            else:
                report(service, step)
            service._engine.check_invariants()

    run(play)


def report(service: Standalone, batch: list[Event | Tenancy]) -> None:
    before = snapshot(service)
    try:
        service.report(reported(*batch))
    except CodecError:
        assert snapshot(service) == before


def snapshot(service: Standalone) -> Any:
    engine, roster = service._engine, service._roster
    books = (dict(roster.nodes), dict(roster.pods), dict(roster.bound))
    books = (*books, roster.tenants, service.naming)
    return (engine.version, engine.tenants(0), engine.queue(0), books)


# -- lane 1 ---------------------------------------------------------------------------


def test_events_wake_the_cycle_and_deadlines_too() -> None:
    """Reclaim runs to its end though nobody asks: notice, eviction, start."""

    async def play() -> None:
        fleet = FLEET.replace("checkpointNotice: 60s", "checkpointNotice: 100ms")
        service = Standalone(parse_config(fleet.replace("cycle: 1s", "cycle: 10s")))
        await service.start()
        service.report(reported(bound("v1", "n0"), bound("v2", "n1")))
        service.filter(pod("u1", "b", 8), NODES)
        begun = time.monotonic()
        first = await service.outbox.wait(0, 5)
        second = await service.outbox.wait(first[-1].id, 5)
        assert [type(w.action) for w in (*first, *second)] == [
            CheckpointRequest,
            Evict,
        ]
        service.report(reported(PodGone(PodUid("v2"))))
        await until(
            lambda: service.filter(pod("u1", "b", 8), NODES).accepted == ("n1",)
        )
        assert time.monotonic() - begun < 9  # sooner than policy.cycle
        await service.stop()

    asyncio.run(play())


def test_pods_that_nobody_asks_about_are_taken_for_deleted() -> None:
    async def play(service: Standalone, clock: FakeClock) -> None:
        service.filter(pod("ghost", "b", 12), NODES)
        service.filter(pod("asked", "b", 12), NODES)
        service.report(reported(bound("runs", "n0")))
        clock.now += 400
        service.filter(pod("asked", "b", 12), NODES)
        clock.now += 200
        service._cycle()
        assert service.explain("ghost") is None
        assert service.explain("asked") is not None
        assert service.explain("runs") is not None
        clock.now += 10_000
        service._cycle()
        assert set(service._roster.pods) == {"runs"}

    run(play, forgetAfter="450s")


def test_a_cycle_that_fails_is_not_the_last_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        service = Standalone(parse_config(FLEET))
        await service.start()
        calls: list[float] = []

        def fail(now: float) -> tuple[()]:
            calls.append(now)
            raise AssertionError("GANG: broken")

        monkeypatch.setattr(service._engine, "cycle", fail)
        for count in (1, 2):
            service._changed.set()
            await until(lambda: len(calls) >= count)  # noqa: B023 (awaited here)
        await service.stop()

    asyncio.run(play())
    assert "GANG: broken" in caplog.text


# -- lane 2 ---------------------------------------------------------------------------


def test_solver_answers_from_a_process_of_low_priority_and_survives_its_death() -> None:
    async def play(service: Standalone, clock: FakeClock) -> None:
        service.filter(pod("u1", "a", 8), [])  # waits: it was offered no node
        problem = service._engine.problem(clock.now)
        package = pack(problem, 1.0)
        solver = Solver()
        try:
            plan = solver.solve(package, 1.0)
            assert plan is not None
            assert plan == allocate(pickle.loads(package)[0])  # noqa: S301 (our own)
            assert plan.admissions
            assert not verify(problem, plan)
            assert solver.pid is not None
            assert os.getpriority(os.PRIO_PROCESS, solver.pid) == 19
            os.kill(solver.pid, signal.SIGKILL)
            again = solver.solve(package, 1.0) or solver.solve(package, 1.0)
            assert again == plan
            assert solver.solve(b"no problem", 1.0) is None
        finally:
            solver.close()
            solver.discard()
        assert solver.solve(package, 1.0) is None

    run(play)


def test_lane_two_admits_what_lane_one_left_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With lane 1 asleep, the solver's plan starts the pod."""

    async def play() -> None:
        config = parse_config(FLEET.replace("enabled: false", "enabled: true"))
        service = Standalone(config)
        await service.start()
        monkeypatch.setattr(service._engine, "cycle", lambda now: ())
        service.filter(pod("u1", "a", 8), [])
        assert service.explain("u1") is not None
        await until(lambda: getattr(service.explain("u1"), "node", None) == "n0")
        page = service.metrics.render().decode()
        assert 'fairshare_solves_total{outcome="planned"} 1.0' in page
        pid = service._solver.pid
        await service.stop()
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    asyncio.run(play())


def test_stop_does_not_wait_for_a_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        config = parse_config(FLEET.replace("enabled: false", "enabled: true"))
        service = Standalone(config)
        await service.start()
        service._solver.solve(b"start it", 1.0)
        monkeypatch.setattr(service._engine, "cycle", lambda now: ())
        service.filter(pod("u1", "a", 8), [])
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        await service.stop()
        assert time.monotonic() - begun < 2
        assert not service.ready

    asyncio.run(play())
