"""Door by door: what each call answers, and that it changes nothing it should not."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from scheduler.core import (
    CheckpointDone,
    Event,
    Form,
    Node,
    NodeChanged,
    NodeDown,
    NodeName,
    NodeUp,
    Plan,
    Pod,
    PodBound,
    PodGone,
    PodSubmitted,
    PodUid,
    Policy,
    Queue,
    Reason,
    TenantsChanged,
    allocate,
)
from scheduler.core.allocator import Admission, Assignment
from scheduler.core.engine.gangs import Phase
from tests import builders
from tests.builders import node, pod, tenant
from tests.core.desk import Desk, dump

GPUS = builders.CLASS
OTHER = "a100-80gb"
SLICE = f"{GPUS}/1g.10gb"
GPU = 126_000
START = 60.0
LATE = 1000.0


def inline(*queues: Queue, nodes: Sequence[Node] = ()) -> Desk:
    """An engine that decides in Filter; two nodes unless others are named."""
    return Desk(nodes or [node("n1"), node("n2")], queues, Policy(inline=True))


def gated(*queues: Queue, nodes: Sequence[Node] = ()) -> Desk:
    """An engine whose pods wait at their gates; one node unless others are named."""
    return Desk(nodes or [node("n1")], queues, Policy(inline=False))


def pair(name: str, owner: str, gpus: int) -> list[Pod]:
    """A gang of two: ``name-0`` and ``name-1``."""
    return [pod(f"{name}-{i}", owner, gpus, gang=name, min_member=2) for i in range(2)]


def busy() -> Desk:
    """Pods in every phase; tenant b owns all and takes back what a borrowed."""
    nodes = [node(f"n{i}") for i in range(1, 6)]
    at = gated(tenant("a"), tenant("b", f"40x{GPUS}", order=1), nodes=nodes)
    at.start(pod("asked", "a", 8))
    at.start(pod("evicted", "a", 8, on_request=False))
    at.start(*(replace(p, restart_cost_s=9999.0) for p in pair("stays", "a", 4)))
    at.now = LATE
    at.start(pod("running", "b", 8))
    at.submit(*pair("part", "b", 3))
    at.bind("part-0")
    at.submit(pod("admitted", "b", 2))
    at.submit(*pair("held", "b", 8))
    at.submit(pod("waiting", "a", 8))
    at.submit(pod("incomplete", "a", 1, gang="i", min_member=2))
    return at


PODS = [
    *("asked", "evicted", "stays-0", "stays-1", "running", "part-0", "part-1"),
    *("admitted", "held-0", "held-1", "waiting", "incomplete"),
]


def test_the_busy_desk_has_a_pod_in_every_phase() -> None:
    at = busy()
    assert at.reasons(*PODS) == [
        "TERMINATING",
        "TERMINATING",
        "RUNNING",
        "RUNNING",
        "RUNNING",
        "STARTING",
        "STARTING",
        "STARTING",
        "RECLAIMING",
        "RECLAIMING",
        "NO_ROOM",
        "GANG_INCOMPLETE",
    ]
    assert at.gang("asked").pods[PodUid("asked")].asked
    assert at.gang("evicted").pods[PodUid("evicted")].evicted
    assert {at.gang(name).phase for name in PODS} == set(Phase)


# -- observe -----------------------------------------------------------------------


def known_events() -> list[Event]:
    """One of each kind that the busy desk takes, for pods in every phase."""
    gone: list[Event] = [PodGone(PodUid(name)) for name in (*PODS, "nobody")]
    saved = [CheckpointDone(PodUid(name)) for name in (*PODS, "nobody")]
    stray = pod("stray", "a", 1)
    bound = [
        PodBound(PodUid("admitted"), NodeName("n5")),
        PodBound(PodUid("admitted"), NodeName("n4")),
        PodBound(PodUid("part-1"), NodeName("n5")),
        PodBound(PodUid("running"), NodeName("n4")),
        PodBound(PodUid("asked"), NodeName("n1")),
        PodBound(PodUid("held-0"), NodeName("n1")),
        PodBound(PodUid("waiting"), NodeName("n3")),
        PodBound(PodUid("incomplete"), NodeName("n3")),
        PodBound(PodUid("stray"), NodeName("n3"), stray, Form(GPUS)),
        PodBound(PodUid("stray"), NodeName("n3"), pod("stray", "nobody", 1)),
    ]
    nodes = [
        NodeUp(node("n1")),
        NodeUp(node("n6")),
        NodeChanged(node("n5", f"4x{GPUS}")),
        NodeChanged(node("n1", f"4x{GPUS}")),
        NodeChanged(node("n1", ready=False)),
    ]
    tenants = [
        TenantsChanged((tenant("a"), tenant("b", f"40x{GPUS}", order=1))),
        TenantsChanged((tenant("a"),)),
        TenantsChanged((tenant("b", f"8x{GPUS}", limit=f"8x{GPUS}"),)),
        TenantsChanged((tenant("a"), tenant("b"), tenant("below", parent="b"))),
    ]
    submitted = [PodSubmitted(stray), PodSubmitted(pod("waiting", "a", 8))]
    return [*gone, *saved, *bound, *nodes, *tenants, *submitted]


@pytest.mark.parametrize("event", known_events(), ids=repr)
def test_hearing_an_event_again_changes_nothing(event: Event) -> None:
    at = busy()
    at.tell(event)
    before = dump(at.engine)
    assert at.tell(event) == []
    after = dump(at.engine)
    before.pop("version")
    after.pop("version")  # may have been computed anew
    assert after == before


@pytest.mark.parametrize("event", known_events(), ids=repr)
def test_nothing_leaks_whatever_happened_on_the_way(event: Event) -> None:
    """CONSERVATION: once all pods are gone, all is as if they had never been."""
    at = busy()
    at.tell(event)
    at.gone(*PODS, "stray")
    at.wait(at.now + 10_000.0)
    state = at.engine._state
    left = [
        state.gangs.by_id,
        state.gangs.by_pod,
        state.gangs._open,
        state.cluster.placed,
        state.reclaims,
        [n for used in state.tree._used.values() for n in used.values() if n],
        state.excused,
        *state.gangs._extras.values(),
        *state.gangs.by_phase.values(),
    ]
    assert not any(left)
    assert (state.cluster.free == state.cluster.total).all()
    assert at.engine.next_deadline() is None


def broken_events() -> list[tuple[Event, str]]:
    odd = pod("odd", "b", 3, kind="batch", gang="part", min_member=2)
    other = pod("odd", "b", 3, gang="part", min_member=3)
    a, b = tenant("a", f"4x{GPUS}", parent="b"), tenant("b", f"3x{GPUS}")
    return [
        (NodeChanged(node("n9")), "NodeChanged: unknown node 'n9'"),
        (NodeDown(NodeName("n9")), "NodeDown: unknown node 'n9'"),
        (PodBound(PodUid("running"), NodeName("n9")), "unknown node 'n9'"),
        (PodBound(PodUid("running"), NodeName("n5")), "bound to 'n4' already"),
        (PodBound(PodUid("asked"), NodeName("n5")), "bound to 'n1' already"),
        (PodBound(PodUid("nobody"), NodeName("n1")), "unknown pod 'nobody'"),
        (
            PodBound(PodUid("x"), NodeName("n1"), pod("x", "a", classes=(OTHER,))),
            "node 'n1' offers nothing pod a/x accepts",
        ),
        (PodSubmitted(odd), "workload_class 'batch' differs from 'training'"),
        (PodSubmitted(other), "min_member 3 differs from 2"),
        (TenantsChanged((b, b)), "queue 'b' is defined twice"),
        (TenantsChanged((a,)), "unknown parent 'b'"),
    ]


@pytest.mark.parametrize(("event", "message"), broken_events(), ids=repr)
def test_a_refused_event_leaves_everything_as_it_was(
    event: Event, message: str
) -> None:
    at = busy()
    before = dump(at.engine)
    with pytest.raises(ValueError, match=message.replace("'", ".")):
        at.engine.observe(event, at.now)
    assert dump(at.engine) == before


def test_what_is_no_event_is_refused() -> None:
    at = busy()
    with pytest.raises(ValueError, match="not an event: 'hello'"):
        at.engine.observe("hello", at.now)  # type: ignore[arg-type]


def test_a_node_that_is_gone_is_unknown_until_it_comes_back() -> None:
    at = busy()
    at.tell(NodeDown(NodeName("n3")))
    with pytest.raises(ValueError, match="unknown node 'n3'"):
        at.tell(PodBound(PodUid("waiting"), NodeName("n3")))
    at.tell(NodeUp(node("n3")))
    assert at.reasons("stays-0") == ["RUNNING"]


# -- filter, inline ------------------------------------------------------------------


def accepted(at: Desk, name: Pod | str, *nodes: str) -> str:
    """The one node that Filter accepts, empty when it rejects all."""
    return " ".join(at.filter(name, *nodes).accepted)


def test_a_pod_is_decided_when_it_is_asked_for() -> None:
    at = inline(tenant("a"))
    assert accepted(at, pod("p", "a", 8), "n1", "n2") == "n1"
    assert accepted(at, pod("q", "a", 8), "n1", "n2") == "n2"
    assert accepted(at, pod("r", "a", 8), "n1", "n2") == ""


def test_the_same_question_has_the_same_answer_and_changes_nothing() -> None:
    at = inline(tenant("a"))
    asked = [pod("p", "a", 8), pod("late", "a", 16), pod("odd", "nobody")]
    first = [at.filter(p, "n1", "n2") for p in asked]
    before = dump(at.engine)
    assert [at.filter(p, "n1", "n2") for p in asked] == first
    assert dump(at.engine) == before


def test_asking_again_does_not_prolong_a_reservation() -> None:
    """Nothing holds devices for ever, however often its pod comes back unbound."""
    at = inline(tenant("a"))
    at.filter(pod("p", "a", 8), "n1", "n2")
    at.now = 59.0
    assert accepted(at, "p", "n1", "n2") == "n1"
    assert at.wait(START) == ["withdraw p"]


def test_a_reservation_that_ended_is_renewed_when_its_pod_is_asked_for() -> None:
    at = inline(tenant("a"))
    at.filter(pod("p", "a", 8), "n1", "n2")
    assert at.wait(500.0) == ["withdraw p"]
    assert at.reasons("p") == ["NOT_STARTED"]
    assert at.explain("p").detail == "is decided again when it is asked for"
    assert at.engine.next_deadline() is None
    assert accepted(at, "p", "n1", "n2") == "n1"


def test_a_pod_that_is_accepted_and_never_bound_must_rest_for_a_while() -> None:
    at = inline(tenant("a"))
    at.filter(pod("p", "a", 8), "n1")
    at.wait(START)
    at.filter("p", "n1")
    at.wait(2 * START)
    at.now += 10.0
    answer = at.filter("p", "n1", "n2")
    assert (answer.accepted, answer.default) == ((), Reason.NOT_STARTED)
    assert not answer.default.resolvable
    assert at.explain("p").detail == (
        "is decided again when it is asked for, in 50 s at the earliest"
    )
    at.now += 50.0
    assert accepted(at, "p", "n1", "n2") == "n1"


def test_covered_demand_that_rested_takes_its_guarantee_back() -> None:
    """Who comes late is covered all the same: b owns what a took meanwhile."""
    at = inline(tenant("a"), tenant("b", f"16x{GPUS}"))
    at.filter(pod("owner", "b", 8), "n1")
    at.wait(START)
    for name in ("n1", "n2"):
        at.filter(pod(f"on-{name}", "a", 8), name)
        at.bind(f"on-{name}", name)
    at.now = LATE
    at.filter("owner", "n1", "n2")
    at.cycle()
    assert at.filter("owner", "n1", "n2").rejected == {"n1": Reason.RECLAIMING}


def test_a_pod_of_the_same_name_is_another_pod() -> None:
    at = inline(tenant("a"))
    first, second = pod("uid-1", "a", 8), pod("uid-2", "a", 8)
    assert accepted(at, first, "n1", "n2") == "n1"
    assert accepted(at, second, "n1", "n2") == "n2"
    at.gone("uid-1")
    assert at.node_of("uid-2") == "n2"


def test_a_pod_whose_node_is_not_offered_moves_and_its_old_room_is_free() -> None:
    at = inline(tenant("a"), nodes=[node(f"n{i}") for i in (1, 2, 3)])
    assert accepted(at, pod("p", "a", 8), "n1", "n2", "n3") == "n1"
    assert accepted(at, "p", "n2", "n3") == "n2"
    assert accepted(at, pod("q", "a", 8), "n1", "n2", "n3") == "n1"


def test_a_nominated_node_that_is_tried_alone_is_no_reason_to_move() -> None:
    """kube-scheduler tries it first, and then all others."""
    at = inline(tenant("a"))
    at.filter(pod("p", "a", 8), "n1", "n2")
    before = dump(at.engine)
    answer = at.filter("p", "n2")
    assert (answer.accepted, answer.default) == ((), Reason.STEERED)
    assert not answer.default.resolvable
    assert dump(at.engine) == before


def test_a_pod_stays_planned_when_no_offered_node_has_room() -> None:
    at = inline(tenant("a"), nodes=[node(f"n{i}") for i in (1, 2, 3)])
    for name, place in (("x", "n2"), ("y", "n3")):
        at.filter(pod(name, "a", 8), place)
        at.bind(name, place)
    at.filter(pod("p", "a", 8), "n1")
    answer = at.filter("p", "n2", "n3")
    assert (answer.accepted, answer.default) == ((), Reason.STEERED)
    assert at.node_of("p") == "n1"


def test_a_gang_is_reserved_whole_when_its_last_member_is_asked_for() -> None:
    at = inline(tenant("a"))
    first, second = pair("g", "a", 8)
    answer = at.filter(first, "n1", "n2")
    assert (answer.accepted, answer.default) == ((), Reason.GANG_INCOMPLETE)
    assert not answer.default.resolvable
    places = {accepted(at, member, "n1", "n2") for member in (second, first)}
    assert places == {"n1", "n2"}
    assert accepted(at, pod("late", "a", 1), "n1", "n2") == ""


def test_the_reservation_of_a_gang_ends_for_all_its_members() -> None:
    at = inline(tenant("a"))
    for member in pair("g", "a", 8):
        at.filter(member, "n1", "n2")
    assert at.wait(START) == ["withdraw g-0", "withdraw g-1"]
    assert not at.engine._state.cluster.placed
    assert not at.engine._state.tree.used(at.gang("g-0").tenant, Form(GPUS))


def test_pods_that_never_come_back_leave_nothing_behind() -> None:
    """Held, admitted or waiting: without any further word all devices come free."""
    at = inline(tenant("a"), tenant("b", f"16x{GPUS}"))
    at.filter(pod("a1", "a", 8), "n1")
    at.bind("a1", "n1")
    at.now = LATE
    at.filter(pod("b1", "b", 16), "n1", "n2")
    at.filter(pod("b2", "b", 8), "n1", "n2")
    at.filter(pod("b3", "b", 8), "n1", "n2")
    at.cycle()
    assert sorted(at.reasons("b2", "b3")) == ["RECLAIMING", "STARTING"]
    at.saved("a1")
    at.gone("a1")
    at.wait(LATE + 10_000.0)
    assert not at.engine._state.cluster.placed
    assert at.engine.next_deadline() is None


@pytest.mark.parametrize(
    ("offered", "message"),
    [
        (["n1", "n9"], "unknown node 'n9'"),
        (["n1", "n2", "n1"], "node 'n1' is offered twice"),
    ],
)
def test_a_question_about_wrong_nodes_is_refused_and_decides_nothing(
    offered: list[str], message: str
) -> None:
    at = inline(tenant("a"))
    before = dump(at.engine)
    with pytest.raises(ValueError, match=message):
        at.filter(pod("p", "a", 8), *offered)
    assert dump(at.engine) == before


def test_a_pod_that_contradicts_its_gang_is_refused_and_decides_nothing() -> None:
    at = inline(tenant("a"))
    at.filter(pair("g", "a", 8)[0], "n1", "n2")
    before = dump(at.engine)
    odd = pod("odd", "a", 8, gang="g", min_member=2, priority=5)
    with pytest.raises(ValueError, match="priority 5 differs from 0 of its gang"):
        at.filter(odd, "n1", "n2")
    assert dump(at.engine) == before


def test_no_node_offered_is_no_error() -> None:
    at = inline(tenant("a"))
    answer = at.filter(pod("p", "a", 8))
    assert (answer.accepted, answer.default) == ((), Reason.NO_ROOM)


@pytest.mark.parametrize(
    ("wants", "reason"),
    [
        (pod("p", "nobody"), Reason.UNKNOWN_TENANT),
        (pod("p", "a", 4), Reason.LIMIT),
        (pod("p", "a", 1, classes=("b200-180gb",)), Reason.UNKNOWN_CLASS),
        (pod("p", "a", 9, classes=(OTHER,)), Reason.TOO_LARGE),
        (pod("p", "a", 1, gang="g", min_member=2), Reason.GANG_INCOMPLETE),
        (pod("p", "b", 3), Reason.LENT_OUT),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else "",
)
def test_what_no_eviction_can_cure_is_unresolvable(wants: Pod, reason: Reason) -> None:
    """Else kube-scheduler would evict others for nothing."""
    at = inline(
        tenant("a", limit=f"3x{GPUS}"),
        tenant("b"),
        tenant("c", f"14x{GPUS}", lending=f"0x{GPUS}"),
        nodes=[node("n1"), node("n2"), node("m1", f"8x{OTHER}")],
    )
    answer = at.filter(wants, "n1", "n2", "m1")
    assert (answer.accepted, answer.default) == ((), reason)
    assert not answer.default.resolvable
    assert not answer.rejected


def test_a_lack_of_room_can_be_cured_only_where_the_class_is_offered() -> None:
    at = inline(tenant("a"), nodes=[node("n1"), node("m1", f"8x{OTHER}")])
    at.filter(pod("x", "a", 8), "n1")
    answer = at.filter(pod("p", "a", 8), "n1", "m1")
    assert answer.default is Reason.NO_ROOM
    assert answer.default.resolvable
    assert answer.rejected == {"m1": Reason.UNKNOWN_CLASS}


def test_a_pod_that_waits_for_victims_is_rejected_resolvably_on_its_node_alone() -> (
    None
):
    """Unresolvable there would make kube-scheduler preempt somewhere else."""
    at = inline(tenant("a"), tenant("b", f"8x{GPUS}"))
    for place in ("n1", "n2"):
        at.filter(pod(f"on-{place}", "a", 8), place)
        at.bind(f"on-{place}", place)
    at.now = LATE
    at.filter(pod("owner", "b", 8), "n1", "n2")
    at.cycle()
    answer = at.filter("owner", "n1", "n2")
    assert (answer.accepted, answer.default) == ((), Reason.STEERED)
    assert answer.rejected == {at.node_of("owner"): Reason.RECLAIMING}


def test_a_bound_pod_is_steered_to_where_it_is() -> None:
    at = inline(tenant("a"))
    at.filter(pod("p", "a", 8), "n1", "n2")
    at.bind("p")
    assert accepted(at, "p", "n1", "n2") == "n1"
    assert accepted(at, "p", "n2") == ""


# -- filter, gated ---------------------------------------------------------------------


def test_a_pod_without_our_mark_is_rejected_and_not_remembered() -> None:
    at = gated(tenant("a"))
    before = dump(at.engine)
    answer = at.filter(pod("p", "a", 1), "n1")
    assert (answer.accepted, answer.default) == ((), Reason.UNMARKED)
    assert not answer.default.resolvable
    assert dump(at.engine) == before


def test_a_gated_pod_is_decided_by_the_cycle_alone() -> None:
    at = gated(tenant("a"))
    wants = pod("p", "a", 1)
    at.pods["p"] = wants
    at.engine.observe(PodSubmitted(wants), 0.0)
    assert not at.engine.filter(wants, [NodeName("n1")], 0.0).accepted
    assert at.cycle() == ["admit p n1"]
    assert accepted(at, "p", "n1") == "n1"


# -- score -----------------------------------------------------------------------------


def score(at: Desk, wants: Pod, *nodes: str) -> list[int]:
    names = [NodeName(name) for name in nodes]
    before = dump(at.engine)
    scores = at.engine.score(wants, names, at.now)
    assert dump(at.engine) == before, "a question changed something"
    return list(scores)


def test_the_planned_node_beats_all_others() -> None:
    at = inline(tenant("a"))
    planned = pod("p", "a", 1)
    at.filter(planned, "n1", "n2")
    assert score(at, planned, "n2", "n1") == [0, 10]


def test_the_fuller_node_is_better_and_one_without_room_is_worst() -> None:
    at = inline(tenant("a"), nodes=[node(f"n{i}") for i in (1, 2, 3)])
    for name, size in (("n1", 8), ("n2", 4)):
        at.filter(pod(f"on-{name}", "a", size), name)
    scores = score(at, pod("p", "a", 4), "n1", "n2", "n3")
    assert scores[1] == 10 > scores[2] > scores[0] == 0


def test_nodes_of_a_class_that_is_only_second_best_are_rated_if_no_other_is_left() -> (
    None
):
    at = inline(tenant("a"), nodes=[node("n1"), node("m1", f"8x{OTHER}")])
    at.filter(pod("x", "a", 8), "n1")
    assert score(at, pod("p", "a", 4, classes=(GPUS, OTHER)), "n1", "m1") == [0, 10]


def test_what_no_node_offers_is_rated_nowhere() -> None:
    at = inline(tenant("a"))
    assert score(at, pod("p", "a", 1, classes=("b200-180gb",)), "n1", "n2") == [0, 0]
    assert score(at, pod("p", "a", 1)) == []


def test_rating_an_unknown_node_is_refused() -> None:
    at = inline(tenant("a"))
    with pytest.raises(ValueError, match="unknown node 'n9'"):
        score(at, pod("p", "a", 1), "n1", "n9")


# -- preempt ------------------------------------------------------------------------


def waiting_for_victims(wants: Pod) -> Desk:
    """Two nodes of burst and one of covered work; the pod is known, not yet decided."""
    at = inline(
        tenant("a"),
        tenant("b", f"8x{GPUS}"),
        tenant("c", f"8x{GPUS}"),
        nodes=[node(f"n{i}") for i in (1, 2, 3)],
    )
    running = [
        (pod("small-low", "a", 4, kind="batch"), "n1"),
        (pod("small-high", "a", 4, kind="training"), "n1"),
        (pod("big", "a", 8), "n2"),
        (pod("covered", "c", 8), "n3"),
    ]
    for victim, place in running:
        assert accepted(at, victim, place) == place
        at.bind(victim.uid, place)
    at.now = LATE
    at.pods[wants.uid] = wants
    at.engine.observe(PodSubmitted(wants), at.now)
    return at


def victims(at: Desk, name: str, *nodes: str) -> dict[str, list[str]]:
    before = dump(at.engine)
    answer = at.preempt(name, *nodes)
    assert dump(at.engine) == before, "a question changed something"
    return {node: list(pods) for node, pods in answer.victims.items()}


def test_each_offered_node_has_its_cheapest_victims_the_most_urgent_first() -> None:
    at = waiting_for_victims(pod("owner", "b", 8))
    assert victims(at, "owner", "n1", "n2", "n3") == {
        "n1": ["small-high", "small-low"],
        "n2": ["big"],
    }


def test_only_offered_nodes_come_back_and_unknown_ones_do_not() -> None:
    at = waiting_for_victims(pod("owner", "b", 8))
    assert victims(at, "owner", "n2", "n9") == {"n2": ["big"]}
    assert victims(at, "owner") == {}


def test_covered_work_of_another_tenant_is_never_a_victim() -> None:
    """PROTECTED: whatever kube-scheduler's priorities say."""
    at = waiting_for_victims(pod("owner", "b", 8, kind="inference-critical"))
    assert "n3" not in victims(at, "owner", "n3")


def test_a_gang_leaves_with_its_extras_or_not_at_all() -> None:
    """GANG: kube-scheduler could not evict those on another node with it."""
    at = inline(tenant("a"), tenant("b", f"8x{GPUS}"))
    for member in pair("g", "a", 3):
        at.filter(member, "n1", "n2")
    at.bind("g-0")
    at.bind("g-1")
    at.filter(pod("g-2", "a", 2, gang="g", min_member=2), "n1", "n2")
    at.bind("g-2")
    at.now = LATE
    at.pods["owner"] = pod("owner", "b", 8)
    at.engine.observe(PodSubmitted(at.pods["owner"]), at.now)
    assert victims(at, "owner", "n1") == {"n1": ["g-0", "g-1", "g-2"]}


def test_nobody_is_evicted_for_who_has_no_claim() -> None:
    at = waiting_for_victims(pod("more", "a", 8))
    assert victims(at, "more", "n1", "n2", "n3") == {}


@pytest.mark.parametrize("name", ["unknown", "covered", "reclaims"])
def test_a_pod_that_does_not_wait_to_be_decided_gets_no_victims(name: str) -> None:
    at = waiting_for_victims(pod("reclaims", "b", 8))
    at.pods["unknown"] = pod("unknown", "b", 8)
    at.cycle()
    assert victims(at, name, "n1", "n2") == {}


# -- problem, commit ----------------------------------------------------------------


def plan_for(at: Desk, name: str, place: str, form: str = GPUS) -> Plan:
    """A plan from another process that lets one pod start."""
    plan = allocate(at.engine.problem(at.now))
    gang, uid = at.gang(name), PodUid(name)
    where = (Assignment(uid, NodeName(place)),)
    admission = Admission(gang.id, Form(form), where)
    return Plan(
        version=plan.version,
        admissions=(admission,),
        status=plan.status,
        objective=0,
        bound=0,
    )


def committed(at: Desk, plan: Plan) -> list[object]:
    actions = at.engine.commit(plan, at.now)
    at.engine.check_invariants()
    return list(actions)


def undecided(*pods: Pod) -> Desk:
    """Pods that were heard of, and no cycle yet."""
    at = gated(tenant("a", limit=f"12x{GPUS}"), nodes=[node("n1"), node("n2")])
    for wants in pods:
        at.pods[wants.uid] = wants
        at.engine.observe(PodSubmitted(wants), 0.0)
    return at


def test_a_plan_that_still_holds_is_carried_out() -> None:
    at = undecided(pod("p", "a", 8))
    assert len(committed(at, plan_for(at, "p", "n2"))) == 1
    assert at.node_of("p") == "n2"


def take_the_node(at: Desk) -> None:
    at.tell(PodBound(PodUid("x"), NodeName("n2"), pod("x", "a", 4)))


def stop_waiting(at: Desk) -> None:
    at.tell(PodGone(PodUid("p")))


def lose_the_node(at: Desk) -> None:
    at.engine.observe(NodeDown(NodeName("n2")), at.now)


def lower_the_limit(at: Desk) -> None:
    at.engine.observe(TenantsChanged((tenant("a", limit=f"4x{GPUS}"),)), at.now)


@pytest.mark.parametrize(
    "change", [take_the_node, stop_waiting, lose_the_node, lower_the_limit]
)
def test_what_went_stale_is_dropped(change: Callable[[Desk], None]) -> None:
    at = undecided(pod("p", "a", 8))
    plan = plan_for(at, "p", "n2")
    change(at)
    if PodUid("p") in at.engine._state.gangs.by_pod:
        at.gang("p").dormant = True  # nobody else decides it meanwhile
        at.gang("p").deadline = 0.0
    assert committed(at, plan) == []


def test_a_form_that_the_gang_does_not_accept_is_dropped() -> None:
    at = undecided(pod("p", "a", 1))
    at.engine.observe(NodeUp(node("n1", f"8x{GPUS} 7x{SLICE}")), 0.0)
    assert committed(at, plan_for(at, "p", "n1", SLICE)) == []


def test_part_of_a_gang_is_dropped() -> None:
    at = undecided(*pair("g", "a", 1))
    assert committed(at, plan_for(at, "g-0", "n1")) == []


def test_a_problem_is_frozen() -> None:
    """Another process solves it while the engine goes on."""
    at = undecided(pod("p", "a", 8))
    problem = at.engine.problem(at.now)
    first = allocate(problem)
    at.cycle()
    assert allocate(problem) == first
    assert at.engine.problem(at.now).asks == ()
