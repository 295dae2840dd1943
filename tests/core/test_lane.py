"""What the cycle decides as time passes and pods come and go, in gated mode."""

from collections.abc import Sequence

import pytest

from scheduler.core import (
    Evict,
    Form,
    Node,
    NodeChanged,
    NodeDown,
    NodeName,
    Pod,
    Policy,
    Queue,
    Withdraw,
)
from scheduler.core.engine.gangs import Phase
from tests import builders
from tests.builders import node, pod, tenant
from tests.core.desk import Desk

GPUS = builders.CLASS
OTHER = "a100-80gb"
NOTICE, GRACE, START = 60.0, 120.0, 60.0
LATE = 1000.0


def desk(
    *queues: Queue, nodes: Sequence[Node] = (), policy: Policy | None = None
) -> Desk:
    """A gated engine; one node of eight GPUs unless others are named."""
    return Desk(nodes or [node("n1")], queues, policy or Policy(inline=False))


def owner_and_borrower(*nodes: Node) -> Desk:
    """Tenant b owns all, tenant a only borrows."""
    return desk(tenant("a"), tenant("b", f"8x{GPUS}", order=1), nodes=nodes)


def team(name: str, owner: str, count: int, gpus: int, least: int) -> list[Pod]:
    """Pods of one gang: ``name-0``, ``name-1``, ..."""
    return [
        pod(f"{name}-{i}", owner, gpus, gang=name, min_member=least)
        for i in range(count)
    ]


# -- an admission has an end -----------------------------------------------------


def test_a_pod_that_nobody_binds_rests_longer_each_time_and_lets_others_start() -> None:
    """Else one that can never start would keep the devices to itself for ever."""
    at = desk(tenant("a"))
    at.submit(pod("broken", "a", 8), pod("fine", "a", 8))
    told = [at.wait(60.0), at.wait(120.0)]
    assert told == [
        ["withdraw broken", "admit broken n1"],  # once may be bad luck
        ["withdraw broken", "admit fine n1"],
    ]
    assert at.reasons("broken") == ["NOT_STARTED"]
    assert at.explain("broken").detail == "is tried again in 60 s"
    assert at.bind("fine") == []
    at.wait(LATE)
    assert at.reasons("broken", "fine") == ["NO_ROOM", "RUNNING"]


def test_the_rest_of_a_pod_that_never_starts_is_bounded() -> None:
    at = desk(tenant("a"))
    at.submit(pod("broken", "a", 8))
    at.wait(100_000.0)
    failures = at.gang("broken").failures
    longest = 17 * START  # 16 timeouts of rest and the one it was admitted for
    assert (100_000.0 - 900.0) / longest - 2 < failures < 100_000.0 / longest + 7


def test_a_pod_that_starts_has_its_failures_forgiven() -> None:
    at = desk(tenant("a"))
    at.submit(pod("p", "a", 8))
    at.wait(60.0)
    at.bind("p")
    assert at.gang("p").failures == 0


def test_a_gang_bound_in_part_is_rolled_back_whole_and_every_member_is_told() -> None:
    """GANG: the driver must take back the admission of those who never started."""
    at = desk(tenant("a"))
    at.submit(*team("g", "a", 2, 1, least=2))
    at.bind("g-0")
    assert at.wait(START) == ["withdraw g-1", "evict g-0"]
    assert at.reasons("g-0", "g-1") == ["TERMINATING", "GANG_INCOMPLETE"]
    at.gone("g-0")
    again = pod("g-2", "a", 1, gang="g", min_member=2)
    assert at.submit(again) == ["admit g-1 n1", "admit g-2 n1"]


def test_who_waits_again_after_a_roll_back_keeps_its_age() -> None:
    at = desk(tenant("a"))
    at.submit(*team("g", "a", 2, 1, least=2))
    at.bind("g-0")
    at.wait(START)
    assert at.gang("g-1").submitted == 0.0


def test_a_member_that_goes_before_it_is_bound_takes_the_admission_with_it() -> None:
    at = desk(tenant("a"))
    at.submit(*team("g", "a", 2, 1, least=2))
    assert at.gone("g-0") == ["withdraw g-1"]  # nothing of who is gone
    assert at.reasons("g-1") == ["GANG_INCOMPLETE"]


# -- elastic gangs ------------------------------------------------------------------


def test_an_extra_starts_once_its_gang_runs() -> None:
    at = desk(tenant("a"))
    wishes = at.submit(*team("g", "a", 3, 1, least=2))
    assert wishes == ["admit g-0 n1", "admit g-1 n1"]
    assert at.reasons("g-2") == ["GANG_INCOMPLETE"]
    assert at.explain("g-2").detail == "starts once a/g runs"
    assert at.bind("g-0") == []
    assert at.bind("g-1") == ["admit g-2 n1"]


def test_an_extra_fills_the_place_of_a_member_that_left_while_all_wait() -> None:
    """Two pods are here and two are needed, whichever of them came first."""
    at = desk(tenant("a"))
    at.start(pod("x", "a", 8))
    at.submit(*team("g", "a", 3, 1, least=2))
    at.gone("g-0")
    assert at.gone("x") == ["admit g-1 n1", "admit g-2 n1"]


def test_extras_whose_gang_left_while_all_wait_do_not_start_alone() -> None:
    """GANG: minMember holds for whoever is left."""
    at = desk(tenant("a"))
    at.start(pod("x", "a", 8))
    at.submit(*team("g", "a", 3, 1, least=2))
    at.gone("g-0", "g-1", "x")
    assert at.reasons("g-2") == ["GANG_INCOMPLETE"]
    assert at.submit(pod("g-3", "a", 1, gang="g", min_member=2)) == [
        "admit g-2 n1",
        "admit g-3 n1",
    ]


def test_extras_go_with_their_gang_and_those_that_wait_join_the_next() -> None:
    at = owner_and_borrower()
    at.start(*team("g", "a", 2, 3, least=2))
    at.start(pod("g-2", "a", 2, gang="g", min_member=2))
    at.submit(pod("g-3", "a", 2, gang="g", min_member=2))
    at.now = LATE
    assert at.start(pod("owner", "b", 8)) == ["ask g-0", "ask g-1", "ask g-2"]
    assert at.reasons("g-3") == ["GANG_INCOMPLETE"]
    at.saved("g-0", "g-1", "g-2")
    at.gone("g-0", "g-1", "g-2")
    at.bind("owner")
    at.submit(pod("g-4", "a", 2, gang="g", min_member=2))
    assert at.gone("owner") == ["admit g-3 n1", "admit g-4 n1"]


def test_an_extra_in_place_of_a_lost_member_becomes_a_member() -> None:
    """GANG: it would else be evicted alone, and the gang be left with too few."""
    at = owner_and_borrower()
    at.start(*team("g", "a", 2, 2, least=2))
    at.gone("g-1")
    at.start(pod("g-2", "a", 2, gang="g", min_member=2))
    assert sorted(at.gang("g-0").pods) == ["g-0", "g-2"]
    at.now = LATE
    assert at.start(pod("owner", "b", 6)) == ["ask g-0", "ask g-2"]


# -- after a restart ---------------------------------------------------------------


def test_a_gang_found_running_is_one_gang_again() -> None:
    """CONSERVATION, GANG: what ran whole before a restart is evicted whole after it."""
    at = owner_and_borrower(node("n1"), node("n2"))
    for index, member in enumerate(team("g", "a", 2, 8, least=2), start=1):
        at.pods[member.uid] = member
        assert at.bind(member.uid, f"n{index}", GPUS) == []
    at.now = LATE
    assert at.submit(pod("owner", "b", 8)) == ["ask g-0", "ask g-1"]


def test_a_gang_found_bound_in_part_is_finished() -> None:
    """Any member that has started means: finish the gang."""
    at = desk(tenant("a"))
    first, second = team("g", "a", 2, 4, least=2)
    at.pods["g-0"] = first
    at.bind("g-0", "n1", GPUS)
    assert at.start(second) == ["admit g-1 n1"]
    assert at.gang("g-0") is at.gang("g-1")


def test_a_gang_bound_behind_our_back_is_finished_or_rolled_back() -> None:
    """GANG: the other member finds no room, so the first cannot stay for ever."""
    at = desk(tenant("a"))
    at.start(pod("x", "a", 4))
    at.submit(*team("g", "a", 2, 4, least=2))
    assert at.bind("g-0", "n1") == []
    assert at.reasons("g-0", "g-1") == ["STARTING", "NO_ROOM"]
    assert at.wait(START) == ["evict g-0"]
    assert at.reasons("g-1") == ["GANG_INCOMPLETE"]


def test_late_bindings_of_a_gang_that_was_given_up_make_it_whole() -> None:
    at = desk(tenant("a"), policy=Policy(inline=True))
    at.submit(*team("g", "a", 2, 4, least=2))
    at.wait(START)
    at.bind("g-0", "n1")
    at.bind("g-1", "n1")
    assert at.gang("g-0") is at.gang("g-1")
    assert at.gang("g-0").phase is Phase.RUNNING


def test_a_bound_pod_that_contradicts_its_gang_counts_alone() -> None:
    """Its devices are in use whatever its labels say."""
    at = desk(tenant("a"))
    at.start(*team("g", "a", 2, 2, least=2))
    odd = pod("odd", "a", 1, kind="inference", gang="g", min_member=2)
    at.pods["odd"] = odd
    assert at.bind("odd", "n1") == []
    assert at.reasons("odd") == ["RUNNING"]
    assert at.gang("odd") is not at.gang("g-0")


def test_a_bound_pod_of_no_tenant_counts_as_burst() -> None:
    """It holds devices; who owns them may take them back."""
    at = owner_and_borrower()
    at.pods["stray"] = pod("stray", "nobody", 8)
    at.bind("stray", "n1")
    assert at.explain("stray").covered is False
    at.now = LATE
    assert at.submit(pod("owner", "b", 8)) == ["ask stray"]


def test_a_pod_bound_onto_others_gives_no_promise_away() -> None:
    """Who was planned there is planned anew, and runs elsewhere."""
    at = desk(tenant("a"), nodes=[node("n1"), node("n2")])
    at.start(pod("x", "a", 4))
    assert at.submit(pod("p", "a", 4)) == ["admit p n1"]
    at.pods["stray"] = pod("stray", "a", 4)
    assert at.bind("stray", "n1") == ["withdraw p", "admit p n2"]


def test_a_pod_bound_where_its_class_is_not_offered_takes_what_is_there() -> None:
    at = desk(tenant("a"), nodes=[node("n1"), node("n2", f"8x{OTHER}")])
    at.submit(pod("p", "a", 8, classes=(GPUS, OTHER)))
    at.bind("p", "n2")
    uses = {row.form: row.used for row in at.engine.tenants(0.0)}
    assert list(uses) == [OTHER]


# -- room that is on its way ---------------------------------------------------------


def test_covered_demand_takes_over_room_that_burst_only_waits_for() -> None:
    """GUARANTEE: it must not wait for the burst to start, to be evicted then."""
    at = desk(
        tenant("a"), tenant("b", f"4x{GPUS}"), tenant("owner", f"4x{GPUS}", order=2)
    )
    at.start(pod("a1", "a", 8))
    at.now = LATE
    assert at.submit(pod("burst", "b", 8, kind="inference")) == ["ask a1"]
    at.now = LATE + 50
    assert at.submit(pod("o1", "owner", 4)) == []
    assert at.reasons("burst", "o1") == ["NO_ROOM", "RECLAIMING"]
    assert at.wait(LATE + NOTICE) == ["evict a1"]  # its notice is not prolonged
    assert at.gone("a1") == ["admit o1 n1"]


def test_more_urgent_work_of_a_tenant_takes_over_the_room_it_waits_for() -> None:
    at = owner_and_borrower()
    at.start(pod("a1", "a", 8))
    at.now = LATE
    at.submit(pod("train", "b", 8))
    assert at.submit(pod("serve", "b", 8, kind="inference")) == []
    assert at.reasons("train", "serve") == ["NO_ROOM", "RECLAIMING"]


def test_burst_does_not_take_over_what_other_burst_waits_for() -> None:
    at = desk(tenant("a"), tenant("b", f"4x{GPUS}"), tenant("c", f"4x{GPUS}"))
    at.start(pod("a1", "a", 8))
    at.now = LATE
    at.submit(pod("first", "b", 8, kind="inference"))
    at.submit(pod("second", "c", 8, kind="inference"))
    assert at.reasons("first", "second") == ["RECLAIMING", "NO_ROOM"]


def test_room_that_is_free_once_a_plan_is_void_is_taken_at_once() -> None:
    """Nobody has to leave: half of what the burst waited for was idle."""
    at = desk(
        tenant("a"), tenant("b", f"4x{GPUS}"), tenant("owner", f"4x{GPUS}", order=2)
    )
    at.start(pod("a1", "a", 4))
    at.now = LATE
    assert at.submit(pod("burst", "b", 8, kind="inference")) == ["ask a1"]
    assert at.submit(pod("o1", "owner", 4)) == ["admit o1 n1"]
    assert at.reasons("a1", "burst") == ["RUNNING", "NO_ROOM"]


def test_who_lost_its_plan_to_another_is_decided_anew_at_once() -> None:
    at = desk(
        tenant("a"),
        tenant("b", f"4x{GPUS}"),
        tenant("owner", f"8x{GPUS}", order=2),
        nodes=[node("n1"), node("n2")],
    )
    at.start(pod("a1", "a", 8, restart=0.0))
    at.start(pod("a2", "a", 8, restart=9999.0))
    at.now = LATE
    assert at.submit(pod("burst", "b", 8, kind="inference")) == ["ask a1"]
    assert at.submit(pod("o1", "owner", 8)) == ["ask a2"]
    assert at.explain("o1").blockers == ("a1",)
    assert at.explain("burst").blockers == ("a2",)


def test_two_holds_share_a_victim_and_it_stays_while_one_of_them_needs_it() -> None:
    at = owner_and_borrower()
    at.start(pod("a1", "a", 8))
    at.now = LATE
    assert at.submit(pod("b1", "b", 4)) == ["ask a1"]
    at.now = LATE + 30
    assert at.submit(pod("b2", "b", 4)) == []
    assert at.gone("b1") == []
    told = at.explain("a1").detail
    assert told == "makes room for b/b2; has 30 s left to save its work"
    assert at.gone("b2") == []
    assert at.reasons("a1") == ["RUNNING"]


def test_a_victim_that_was_evicted_is_not_spared() -> None:
    at = owner_and_borrower()
    at.start(pod("a1", "a", 8))
    at.now = LATE
    at.submit(pod("b1", "b", 8))
    at.wait(LATE + NOTICE)
    assert at.gone("b1") == []
    assert at.reasons("a1") == ["TERMINATING"]
    assert at.explain("a1").detail == "is being stopped"


def test_a_spared_victim_whose_tenant_used_its_room_meanwhile_is_evicted() -> None:
    """LIMIT: both cannot stay."""
    at = desk(
        tenant("a", limit=f"8x{GPUS}"),
        tenant("b", f"8x{GPUS}"),
        nodes=[node("n1"), node("n2", f"4x{GPUS}")],
    )
    at.start(pod("a1", "a", 8), pod("a2", "a", 4))
    at.now = LATE
    assert at.submit(pod("b1", "b", 8)) == ["ask a1", "admit a2 n2"]
    assert at.gone("b1") == ["evict a1"]


def test_a_gang_is_evicted_once_all_its_members_have_saved_their_work() -> None:
    at = owner_and_borrower()
    at.start(*team("g", "a", 2, 4, least=2))
    at.now = LATE
    assert at.submit(pod("b1", "b", 8)) == ["ask g-0", "ask g-1"]
    assert at.saved("g-1") == []
    assert at.saved("g-0") == ["evict g-0", "evict g-1"]


def test_a_victim_that_leaves_in_part_is_waited_for() -> None:
    at = owner_and_borrower()
    at.start(*team("g", "a", 2, 4, least=2))
    at.now = LATE
    at.submit(pod("b1", "b", 8))
    at.saved("g-0", "g-1")
    assert at.gone("g-0") == []
    assert at.explain("b1").blockers == ("a/g",)
    assert at.gone("g-1") == ["admit b1 n1"]


# -- a victim that does not leave ------------------------------------------------------


def test_other_room_is_chosen_when_a_victim_does_not_leave() -> None:
    """A dead kubelet must not keep the owner waiting."""
    at = owner_and_borrower(node("n1"), node("n2"))
    at.start(pod("stuck", "a", 8, restart=0.0))
    at.start(pod("other", "a", 8, restart=9999.0))
    at.now = LATE
    assert at.submit(pod("owner", "b", 8)) == ["ask stuck"]
    gone_by = LATE + NOTICE + GRACE + 5
    wishes = at.wait(gone_by)
    assert wishes == ["evict stuck", "evict stuck", "ask other"]
    assert at.explain("stuck").detail.startswith("should have left")
    at.saved("other")
    assert at.gone("other") == ["admit owner n2"]


def test_who_does_not_leave_is_evicted_again_and_again() -> None:
    """The wish may have been lost; performing it twice is harmless."""
    at = owner_and_borrower()
    at.start(pod("stuck", "a", 8))
    at.now = LATE
    at.submit(pod("owner", "b", 8))
    assert at.wait(LATE + NOTICE + 3 * (GRACE + 5)) == ["evict stuck"] * 4
    assert at.gone("stuck") == ["admit owner n1"]
    assert at.engine.next_deadline() == at.now + START


def test_a_wish_that_was_said_is_no_change() -> None:
    """Nothing is computed anew while victims take their time to leave."""
    at = owner_and_borrower()
    at.start(pod("a1", "a", 8, on_request=False))
    at.now = LATE
    assert at.submit(pod("owner", "b", 8)) == ["evict a1"]
    before = at.engine.version
    assert at.cycle() == []
    assert at.engine.version == before


# -- nodes ----------------------------------------------------------------------------


def test_a_node_that_shrinks_under_a_hold_ends_the_hold() -> None:
    """CONSERVATION: nobody is started into room that is not there any more."""
    at = owner_and_borrower(node("n1"), node("n2", f"4x{GPUS}"))
    at.start(pod("a1", "a", 8))
    at.now = LATE
    at.submit(pod("owner", "b", 8))
    at.tell(NodeChanged(node("n1", f"4x{GPUS}")))
    assert at.reasons("owner", "a1") == ["TOO_LARGE", "RUNNING"]


def test_a_node_that_shrinks_and_still_has_room_changes_no_plan() -> None:
    at = owner_and_borrower()
    at.start(pod("a1", "a", 4))
    at.submit(pod("p", "b", 2))
    assert at.tell(NodeChanged(node("n1", f"6x{GPUS}"))) == []
    assert at.reasons("p") == ["STARTING"]


def test_a_hold_whose_victims_still_fill_a_smaller_node_stays() -> None:
    at = owner_and_borrower()
    at.start(pod("a1", "a", 8))
    at.now = LATE
    at.submit(pod("owner", "b", 4))
    assert at.tell(NodeChanged(node("n1", f"4x{GPUS}"))) == []
    assert at.reasons("owner") == ["RECLAIMING"]
    assert at.gone("a1") == ["admit owner n1"]


@pytest.mark.parametrize("end", ["down", "cordoned"])
def test_a_plan_on_a_node_that_is_lost_is_made_anew(end: str) -> None:
    at = desk(tenant("a"), nodes=[node("n1"), node("n2")])
    assert at.submit(pod("p", "a", 8)) == ["admit p n1"]
    lost = NodeDown(NodeName("n1"))
    event = lost if end == "down" else NodeChanged(node("n1", ready=False))
    assert at.tell(event) == ["withdraw p", "admit p n2"]


def test_a_hold_on_a_node_that_is_lost_spares_its_victims() -> None:
    at = owner_and_borrower(node("n1"), node("n2"))
    at.start(pod("a1", "a", 8, restart=0.0))
    at.start(pod("a2", "a", 8, restart=9999.0))
    at.now = LATE
    assert at.submit(pod("owner", "b", 8)) == ["ask a1"]
    assert at.tell(NodeDown(NodeName("n1"))) == ["ask a2"]
    assert at.reasons("a1", "a2") == ["RUNNING", "TERMINATING"]
    assert at.gone("a1") == []


# -- tenants --------------------------------------------------------------------------


def test_a_tenant_deleted_while_its_last_pod_leaves_is_still_accounted_for() -> None:
    at = owner_and_borrower()
    at.start(pod("a1", "a", 8))
    at.now = LATE
    at.submit(pod("owner", "b", 8))
    assert at.tenants(tenant("b", f"8x{GPUS}")) == []
    leaving = {row.name: row.leaving for row in at.engine.tenants(at.now)}
    assert leaving == {"a": 8 * 126_000, "b": 0}
    assert at.submit(pod("owner-2", "b", 1)) == []
    assert at.gone("owner") == ["ask a1"]  # spared first, then asked for the other


def test_nobody_is_evicted_for_a_tenant_that_was_deleted() -> None:
    at = owner_and_borrower()
    at.start(pod("a1", "a", 8))
    at.now = LATE
    at.submit(pod("owner", "b", 8))
    assert at.tenants(tenant("a")) == []
    assert at.reasons("a1", "owner") == ["RUNNING", "UNKNOWN_TENANT"]
    assert at.wait(LATE + NOTICE) == []


def test_a_tenant_deleted_while_its_pods_run_keeps_them_as_burst() -> None:
    at = owner_and_borrower()
    at.start(pod("owner", "b", 8))
    at.tenants(tenant("a", f"8x{GPUS}"))
    assert at.reasons("owner") == ["RUNNING"]
    assert at.explain("owner").covered is False
    at.now = LATE
    assert at.submit(pod("a1", "a", 8)) == ["ask owner"]


def test_what_is_planned_above_a_limit_that_was_lowered_is_given_up() -> None:
    """LIMIT: the latest plan first, and only as many as need be."""
    at = desk(tenant("a"))
    at.submit(pod("p1", "a", 2))
    at.now = 1.0
    at.submit(pod("p2", "a", 2))
    assert at.tenants(tenant("a", limit=f"3x{GPUS}")) == ["withdraw p2"]
    assert at.reasons("p1", "p2") == ["STARTING", "LIMIT"]


def test_what_runs_above_a_limit_that_was_lowered_stays() -> None:
    at = desk(tenant("a"))
    at.start(pod("p1", "a", 4))
    assert at.tenants(tenant("a", limit=f"3x{GPUS}")) == []
    assert at.reasons("p1") == ["RUNNING"]


def test_a_tenant_that_becomes_a_department_keeps_what_runs_and_starts_no_more() -> (
    None
):
    at = desk(tenant("a", f"8x{GPUS}"))
    at.start(pod("p1", "a", 4))
    at.submit(pod("p2", "a", 8))
    at.tenants(tenant("a", f"8x{GPUS}"), tenant("team", f"8x{GPUS}", parent="a"))
    assert at.reasons("p1", "p2") == ["RUNNING", "UNKNOWN_TENANT"]
    assert at.submit(pod("t1", "team", 4)) == ["admit t1 n1"]


def test_a_tenant_moved_below_another_parent_is_charged_there() -> None:
    below = [tenant(n, f"8x{GPUS}") for n in ("left", "right")]
    at = desk(*below, tenant("a", parent="left"))
    at.start(pod("p1", "a", 4))
    at.tenants(*below, tenant("a", parent="right"))
    tree = at.engine._state.tree
    gpus = Form(GPUS)
    uses = [tree.used(queue.name, gpus) // 126_000 for queue in below]
    assert uses == [0, 4]


def test_actions_say_why() -> None:
    at = desk(tenant("a"))
    at.submit(*team("g", "a", 2, 1, least=2))
    at.bind("g-0")
    at.now = START
    at.cycle()
    said = {a.reason for a in at.actions if isinstance(a, Evict | Withdraw)}
    assert said == {"its gang did not start whole in time"}


# -- time -----------------------------------------------------------------------------


def test_burst_is_taken_on_the_second_that_it_has_run_long_enough() -> None:
    at = desk(tenant("a"), tenant("b", f"4x{GPUS}"))
    at.start(pod("a1", "a", 8))
    assert at.submit(pod("b1", "b", 8, kind="inference")) == []
    assert at.engine.next_deadline() == 300.0
    assert at.wait(300.0) == ["ask a1"]


def test_burst_of_a_department_matures_though_its_tenant_is_covered() -> None:
    """Against an outsider cover is judged at the department, which is spent already."""
    at = desk(
        tenant("dept", f"4x{GPUS}"),
        tenant("a", f"2x{GPUS}", parent="dept"),
        tenant("b", f"2x{GPUS}", parent="dept"),
        tenant("c", f"2x{GPUS}", order=9),
    )
    for name, owner in (("a1", "a"), ("a2", "a"), ("c1", "c")):
        at.start(pod(name, owner, 2, kind="inference"))
    at.now = 100.0
    at.start(pod("b1", "b", 2))
    at.submit(pod("c2", "c", 2, kind="inference"))
    assert at.explain("b1").covered
    assert at.wait(399.0) == []
    assert at.wait(400.0) == ["ask b1"]


def test_nothing_is_due_when_nothing_can_happen_by_itself() -> None:
    at = owner_and_borrower()
    assert at.engine.next_deadline() is None
    at.start(pod("a1", "a", 8))
    at.submit(pod("a2", "a", 1))
    assert at.wait(LATE) == []
    assert at.engine.next_deadline() is None


def test_a_burst_bound_that_is_lowered_takes_back_plans_and_leaves_what_runs() -> None:
    """LIMIT over several forms: nobody has bound the plan yet, so nothing is lost."""
    at = desk(tenant("a", f"2x{GPUS}", burst=1.0))
    at.submit(pod("runs", "a", 2), pod("planned", "a", 2))
    assert at.bind("runs") == []
    assert at.tenants(tenant("a", f"2x{GPUS}", burst=0.0)) == ["withdraw planned"]
    assert at.reasons("runs", "planned") == ["RUNNING", "LIMIT"]
