"""What a driver must make so: plans, departures, and what it tells after a restart."""

from dataclasses import replace

import pytest

from scheduler.core import (
    Engine,
    NodeName,
    NodeUp,
    PodBound,
    PodReplaced,
    PodStopping,
    PodSubmitted,
    PodUid,
    Policy,
    Reason,
    TenantsChanged,
)
from tests import builders
from tests.builders import node, pod, tenant
from tests.core.desk import Desk
from tests.core.test_lane import desk, owner_and_borrower, team

GPUS = builders.CLASS


def plans(at: Desk) -> list[str]:
    """Plans in short: ``p n1`` or ``p n1 held``."""
    return [f"{p.uid} {p.node}" + p.held * " held" for p in at.engine.plans()]


def leaving(at: Desk) -> list[tuple[str, float | None, str | None]]:
    """Who leaves, until when it may save, and for whom."""
    return [(x.uid, x.save_by, x.beneficiary) for x in at.engine.leaving()]


def test_a_plan_is_listed_until_the_pod_is_bound() -> None:
    """A driver that compares plans with what is there needs no memory."""
    at = desk(tenant("a"))
    at.submit(*team("g", "a", 2, 4, least=2))
    assert plans(at) == ["g-0 n1", "g-1 n1"]
    assert {plan.decision for plan in at.engine.plans()} == {1}
    at.bind("g-0")
    assert plans(at) == ["g-1 n1"]
    at.bind("g-1")
    assert plans(at) == []


def test_a_hold_is_a_plan_and_its_victims_leave_for_it() -> None:
    """The beneficiary is nominated while its victims save their work."""
    at = owner_and_borrower()
    at.start(pod("burst", "a", 8))
    at.submit(pod("own", "b", 8))
    assert plans(at) == ["own n1 held"]
    assert leaving(at) == [("burst", 60.0, "own")]
    at.wait(60.0)
    assert leaving(at) == [("burst", None, "own")]
    at.gone("burst")
    assert (plans(at), leaving(at)) == (["own n1"], [])


def test_gated_mode_shows_nobody_a_node_without_a_plan() -> None:
    """A pod whose gate somebody else removed waits; nobody is evicted for it."""
    at = desk(tenant("a"))
    at.start(pod("first", "a", 8))
    at.submit(pod("second", "a", 8))
    answer = at.filter("second", "n1")
    assert (answer.accepted, answer.default) == ((), Reason.UNMARKED)
    assert not answer.rejected
    assert not answer.default.resolvable


def test_at_the_gate_one_other_node_that_is_offered_alone_is_taken() -> None:
    """It is all that kube-scheduler can use: a pool of one, or the last that lives."""
    at = desk(tenant("a"), nodes=[node("n1"), node("n2")])
    at.submit(pod("p", "a", 8))
    assert at.filter("p", "n2").accepted == ("n2",)
    assert plans(at) == ["p n2"]


def test_a_plan_that_filter_moved_is_listed_where_it_is_now() -> None:
    """Its nomination must follow."""
    at = desk(tenant("a"), nodes=[node("n1"), node("n2"), node("n3")])
    at.submit(pod("p", "a", 8))
    planned = at.node_of("p")
    others = [name for name in ("n1", "n2", "n3") if name != planned]
    (chosen,) = at.filter("p", *others).accepted
    assert plans(at) == [f"p {chosen}"]


def test_a_burst_is_let_through_at_the_pace_at_which_it_is_bound() -> None:
    """Else those at its end would run out of time before anybody looked at them."""
    at = desk(tenant("a"), policy=Policy(inline=False, admission_window=3))
    at.submit(*(pod(f"p{i}", "a", 1) for i in range(5)))
    assert plans(at) == ["p0 n1", "p1 n1", "p2 n1"]
    assert at.reasons("p2", "p3") == ["STARTING", "QUEUED"]
    assert at.bind("p0") == ["admit p3 n1"]
    assert at.bind("p3") == ["admit p4 n1"]


def test_a_gang_larger_than_the_window_starts_whole() -> None:
    """The window bounds bursts; it is no limit on the size of a gang."""
    at = desk(tenant("a"), policy=Policy(inline=False, admission_window=3))
    at.submit(*team("g", "a", 8, 1, least=8), pod("next", "a", 1))
    assert len(plans(at)) == 8
    assert at.reasons("next") == ["QUEUED"]


# -- after a restart -------------------------------------------------------------


def restarted(now: float) -> Desk:
    """An engine that has just started, long after its nodes and tenants were made."""
    at = Desk([], [], Policy(inline=False))
    at.now = now
    queues = (tenant("a"), tenant("b", f"8x{GPUS}", order=1))
    at.tell(NodeUp(node("n1")), TenantsChanged(queues))
    return at


def test_who_ran_before_the_restart_keeps_its_age() -> None:
    """Else every victim would look freshly started, and nobody's work old."""
    at = restarted(1000.0)
    at.pods["p"] = pod("p", "a", 8)
    at.tell(PodBound(PodUid("p"), NodeName("n1"), at.pods["p"], None, 200.0))
    gang = at.gang("p")
    assert (gang.started, gang.submitted) == (200.0, 200.0)


def test_who_waited_before_the_restart_keeps_its_place() -> None:
    """The older of two equals is served first, whoever is told first."""
    at = restarted(1000.0)
    young, old = pod("young", "a", 8), pod("old", "a", 8)
    for each, since in ((young, 700.0), (old, 300.0)):
        at.engine.observe(PodSubmitted(each, since), at.now)
    assert at.cycle() == ["admit old n1"]


def test_a_time_in_the_future_counts_as_now() -> None:
    """Clocks differ; nobody is younger than now."""
    at = restarted(1000.0)
    at.tell(PodSubmitted(pod("p", "a", 8), 5000.0))
    assert at.gang("p").submitted == 1000.0


def test_a_gang_found_half_bound_has_its_start_time_anew() -> None:
    """It is finished, not given up at the first look."""
    at = restarted(1000.0)
    at.pods.update((each.uid, each) for each in team("g", "a", 2, 4, least=2))
    bound = PodBound(PodUid("g-0"), NodeName("n1"), at.pods["g-0"], None, 100.0)
    wishes = at.tell(bound, PodSubmitted(at.pods["g-1"], 100.0))
    assert wishes == ["admit g-1 n1"]
    assert at.wait(1059.0) == []
    at.bind("g-1")
    assert at.reasons("g-0", "g-1") == ["RUNNING", "RUNNING"]


def half_a_gang(created: float) -> Desk:
    """One of two members runs since 100; the other, of some age, finds no room."""
    at = restarted(1000.0)
    pods = {each.uid: each for each in team("g", "a", 2, 8, least=2)}
    at.pods.update(pods)
    at.tell(PodBound(PodUid("g-0"), NodeName("n1"), pods["g-0"], None, 100.0))
    at.tell(PodSubmitted(pods["g-1"], created))
    return at


def test_half_a_gang_that_finds_no_room_for_the_rest_is_given_up() -> None:
    """GANG over a restart: the other half has waited since before it began."""
    at = half_a_gang(100.0)
    assert at.reasons("g-0", "g-1") == ["STARTING", "NO_ROOM"]
    assert at.wait(1059.0) == []
    assert at.wait(1060.0) == ["evict g-0"]


def test_a_gang_that_has_lost_a_member_runs_on_while_a_new_one_waits() -> None:
    """It was whole once; a restart of ours is no reason to stop it."""
    at = half_a_gang(101.0)
    assert at.reasons("g-0", "g-1") == ["RUNNING", "NO_ROOM"]
    assert at.wait(2000.0) == []


# -- told to stop by somebody else -------------------------------------------------


def two_bursts() -> Desk:
    """`a` bursts on both nodes, of which one is `b`'s; the clock is at 1000."""
    at = desk(
        tenant("a"),
        tenant("b", f"8x{GPUS}", order=1),
        nodes=[node("n1"), node("n2")],
    )
    at.start(pod("u", "a", 8))
    at.now = 1000.0
    at.start(pod("v", "a", 8))
    return at


def stop(at: Desk, name: str, by: float) -> list[str]:
    return at.tell(PodStopping(PodUid(name), by))


def test_room_that_is_being_left_is_waited_for_and_nobody_else_is_evicted() -> None:
    """Its owner deleted it, or we have before a restart of ours."""
    at = two_bursts()
    assert stop(at, "u", 1030.0) == []
    at.submit(pod("own", "b", 8))
    assert plans(at) == [f"own {at.node_of('u')} held"]
    assert leaving(at) == [("u", None, None)]
    assert at.reasons("u", "v") == ["TERMINATING", "RUNNING"]
    assert at.gone("u") == ["admit own n1"]


def test_who_should_be_gone_and_is_not_is_waited_for_no_longer() -> None:
    """Its kubelet is dead: other room is taken."""
    at = two_bursts()
    stop(at, "u", 1030.0)
    at.submit(pod("own", "b", 8))
    at.wait(1036.0)
    assert plans(at) == [f"own {at.node_of('v')} held"]


def test_who_takes_long_to_stop_stays_charged() -> None:
    """Else a tenant could use for hours what it does not pay for."""
    at = two_bursts()
    stop(at, "u", 8200.0)
    assert at.reasons("u") == ["RUNNING"]
    at.submit(pod("own", "b", 8))
    assert [uid for uid, _, _ in leaving(at)] == ["v"]


def test_a_gang_leaves_when_all_of_it_was_told_to_stop() -> None:
    """A member that is deleted alone comes again, and joins its fellows."""
    at = desk(tenant("a"))
    at.start(*team("g", "a", 2, 4, least=2))
    stop(at, "g-0", 10.0)
    assert at.reasons("g-0", "g-1") == ["RUNNING", "RUNNING"]
    stop(at, "g-1", 10.0)
    assert at.reasons("g-0", "g-1") == ["TERMINATING", "TERMINATING"]
    at.gone("g-0")
    at.gone("g-1")


# -- stand-ins -------------------------------------------------------------------


def test_a_pod_inherits_the_place_of_the_one_it_stands_in_for() -> None:
    """What was decided for a suspended Job is for its pods, and for nobody else."""
    at = desk(tenant("a"), tenant("b", order=1))
    at.submit(*team("job", "a", 2, 4, least=2))
    at.submit(pod("rival", "b", 8))
    for i in range(2):
        real = replace(at.pods[f"job-{i}"], uid=PodUid(f"real-{i}"), name="a/real")
        at.pods[real.uid] = real
        assert at.tell(PodReplaced(PodUid(f"job-{i}"), real)) == []
    assert plans(at) == ["real-0 n1", "real-1 n1"]
    assert at.engine.explain(PodUid("job-0"), at.now) is None
    at.bind("real-0")
    at.bind("real-1")
    assert at.reasons("real-0", "rival") == ["RUNNING", "NO_ROOM"]


def test_a_pod_inherits_a_hold() -> None:
    """Its victims go on leaving."""
    at = owner_and_borrower()
    at.start(pod("burst", "a", 8))
    at.submit(pod("stand-in", "b", 8))
    real = replace(at.pods["stand-in"], uid=PodUid("real"))
    at.tell(PodReplaced(PodUid("stand-in"), real))
    assert plans(at) == ["real n1 held"]
    at.wait(60.0)
    at.gone("burst")
    assert plans(at) == ["real n1"]


def test_a_pod_that_asks_for_something_else_waits_like_any_other() -> None:
    """It is not what was decided about; but it has waited as long."""
    at = desk(tenant("a"))
    at.submit(pod("stand-in", "a", 4))
    at.now = 10.0
    real = pod("real", "a", 8)
    wishes = at.tell(PodReplaced(PodUid("stand-in"), real))
    assert wishes == ["admit real n1"]
    assert at.gang("real").submitted == 0.0


def test_inheriting_a_place_on_a_crowded_node_changes_nothing_there() -> None:
    """Another was bound there by somebody else while a third is on its way out."""
    at = desk(tenant("a"))
    at.start(pod("old", "a", 1))
    at.tell(PodStopping(PodUid("old"), 60.0))
    at.submit(pod("stand-in", "a", 4))
    other = pod("other", "a", 4)
    at.tell(PodBound(other.uid, NodeName("n1"), other))
    assert plans(at) == ["stand-in n1"]
    real = replace(at.pods["stand-in"], uid=PodUid("real"))
    at.tell(PodReplaced(PodUid("stand-in"), real))
    assert plans(at) == ["real n1"]


@pytest.mark.parametrize("case", ["unknown", "known already", "runs"])
def test_a_stand_in_that_cannot_be_is_refused(case: str) -> None:
    """Nothing has changed then."""
    at = desk(tenant("a"))
    at.submit(pod("one", "a", 1), pod("two", "a", 1))
    old, new = "one", pod("fresh", "a", 1)
    if case == "unknown":
        old = "nobody"
    elif case == "known already":
        new = at.pods["two"]
    else:
        at.bind("one")
    before = at.engine.version
    with pytest.raises(ValueError, match=old):
        at.engine.observe(PodReplaced(PodUid(old), new), at.now)
    assert at.engine.version == before


def test_a_fresh_engine_has_nothing_to_do() -> None:
    """No plans, nobody leaves."""
    engine = Engine(Policy(inline=False))
    assert (engine.plans(), engine.leaving()) == ((), ())
