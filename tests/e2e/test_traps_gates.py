"""Traps of the extender contract that gates and planned placement keep us out of.

After each test every answer that the service gave is held against the contract
(`tapped.breaches`): lists are never null, scores whole, nodes offered, words constant.
"""

import time

import pytest

from tests.controlplane import hollow, objects
from tests.controlplane.client import Object
from tests.e2e import devices
from tests.e2e.extenders import condition
from tests.e2e.running import H100, gated, node_of, nominated, tenant, until
from tests.e2e.tapped import Ours
from tests.e2e.wiring import counts_still, needs

MARK = "fairshare.dev/admission"
BOSS = "traps-boss"
"""A PriorityClass of somebody's own: above ours, and it preempts."""


def bound(ours: Ours, pod: Object) -> str:
    name, space = pod["metadata"]["name"], pod["metadata"]["namespace"]
    return str(until(f"{name} is bound", lambda: node_of(ours.client, name, space)))


def seen(ours: Ours, pod: Object) -> Object:
    metadata = pod["metadata"]
    return ours.client.get("pods", metadata["name"], metadata["namespace"])


def ungate(ours: Ours, pod: Object, **notes: str) -> None:
    """Remove the gate, as anybody who may edit the pod can."""
    body = {
        "metadata": {"annotations": notes},
        "spec": {"schedulingGates": [{"$patch": "replace"}]},
    }
    metadata = pod["metadata"]
    ours.client.patch("pods", metadata["name"], body, metadata["namespace"])


def is_gone(ours: Ours, pod: Object) -> bool:
    metadata = pod["metadata"]
    found = ours.client.find("pods", metadata["name"], metadata["namespace"])
    return found is None or "deletionTimestamp" in found["metadata"]


def boss(ours: Ours) -> str:
    made = objects.priority_class(BOSS, 2_000_000, "PreemptLowerPriority")
    ours.client.ensure(made)
    return BOSS


# Asked once, about one node


def test_a_planned_pod_costs_one_call_about_one_node_and_no_score(ours: Ours) -> None:
    """Traps 9, 11, 12: nothing is counted in calls, nor depends on which nodes are
    shown; forty nodes are as quick as one."""
    space = ours.plane.new_namespace()
    ours.client.create_all(objects.nodes(40))
    ours.client.create(tenant("alpha", space, guarantee={H100: 8}))
    pod = ours.client.create(gated("one", space, 8))
    node = bound(ours, pod)
    (call,) = ours.asked("filter", pod)
    assert call.names == call.result["NodeNames"] == [node]
    assert not ours.asked("prioritize", pod)
    until("it is charged", lambda: ours.used("alpha") == 8)


def test_a_nominated_node_that_is_lost_costs_a_second_call_and_no_second_charge(
    ours: Ours,
) -> None:
    """Trap 9: the same attempt asks again about all nodes."""
    space = ours.plane.new_namespace()
    ours.client.create_all(objects.nodes(3))
    ours.client.create(tenant("alpha", space, guarantee={H100: 8}))
    ours.plane.stop_scheduler()
    pod = ours.client.create(gated("one", space, 8))
    until(
        "it is let through", lambda: not seen(ours, pod)["spec"].get("schedulingGates")
    )
    planned = nominated(ours.client, "one", space)
    ours.client.patch("nodes", planned, {"spec": {"unschedulable": True}})
    ours.plane.restart_scheduler()
    assert bound(ours, pod) != planned
    until("it is charged once", lambda: ours.used("alpha") == 8)


def test_demand_is_known_without_a_single_call(ours: Ours) -> None:
    """Trap 10: also of a pod that fits no node, and of one whose turn is not yet."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    ours.client.create(tenant("alpha", space, limit={H100: 4}))
    pods = ours.client.create_all([gated("huge", space, 9), gated("more", space, 6)])
    for pod in pods:
        ours.settled(pod)
    until("it is counted", lambda: len(ours.service.get("/v1/queue")["queue"]) == 2)
    assert not ours.tap.asked()
    assert {ours.reason(pod) for pod in pods} == {"TOO_LARGE", "LIMIT"}


# Waiting costs nothing


def test_who_waits_at_the_gate_is_never_asked_about_whatever_we_write(
    ours: Ours,
) -> None:
    """Traps 7, 8: holds are written on gated pods, and those do not wake; a waiting
    pod looks gated to an autoscaler, not unschedulable (29)."""
    mine, theirs = ours.plane.new_namespace(), ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    ours.client.create(tenant("owner", mine, guarantee={H100: 8}))
    ours.client.create(tenant("guest", theirs))
    slow = {hollow.SHUTS_DOWN_IN: "2"}
    burst = ours.client.create(gated("burst", theirs, 8, annotations=slow))
    bound(ours, burst)
    own = ours.client.create(gated("own", mine, 8))
    until("room is held", lambda: nominated(ours.client, "own", mine) == "n0")
    assert condition(seen(ours, own))["reason"] == "SchedulingGated"
    until("the guest leaves", lambda: is_gone(ours, burst))
    assert not ours.asked("", own)
    assert bound(ours, own) == "n0"
    assert len(ours.asked("filter", own)) == 1


def test_a_pod_without_a_gate_is_told_no_twice_and_left_alone(ours: Ours) -> None:
    """Trap 7: constant words, and we write nothing on it; nobody is preempted (5)."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    alpha = tenant("alpha", space, limit={H100: 4}, preemptWithin="never")
    ours.client.create(alpha)
    rank = boss(ours)
    first = ours.client.create(gated("first", space, 4))
    bound(ours, first)
    pod = objects.pod("rash", space, 4, priority_class=rank)
    rash = ours.client.create(pod)
    name = rash["metadata"]["uid"]
    until("it is asked about", lambda: ours.asked("filter", rash))
    assert counts_still(ours.tap, "filter", name) <= 3
    told = condition(seen(ours, rash))
    assert told["reason"] == "Unschedulable"
    assert "waits at its scheduling gate" in told["message"]
    notes = seen(ours, rash)["metadata"].get("annotations", {})
    assert not [note for note in notes if note.startswith("fairshare.dev/")]
    assert not ours.asked("preempt", rash)
    assert not is_gone(ours, first)


# Who opens a gate by hand


def test_a_gate_removed_by_hand_opens_no_quota(ours: Ours) -> None:
    """Trap 22: it is told no until it would have been let through anyway."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    ours.client.create(tenant("alpha", space, limit={H100: 4}))
    first = ours.client.create(gated("first", space, 4))
    bound(ours, first)
    second = ours.client.create(gated("second", space, 4))
    ours.settled(second)
    ungate(ours, second)
    until("it is asked about", lambda: ours.asked("filter", second))
    counts_still(ours.tap, "filter", second["metadata"]["uid"])
    assert not node_of(ours.client, "second", space)
    ours.client.delete("pods", "first", space)
    bound(ours, second)


def test_a_forged_mark_opens_no_quota_even_after_a_restart(ours: Ours) -> None:
    """Trap 22: a mark is believed where a decision stands behind it."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    ours.client.create(tenant("alpha", space, limit={H100: 4}))
    first = ours.client.create(gated("first", space, 4))
    bound(ours, first)
    mark = seen(ours, first)["metadata"]["annotations"][MARK]
    second = ours.client.create(gated("second", space, 4))
    ours.settled(second)
    ungate(ours, second, **{MARK: mark})
    until("it is asked about", lambda: ours.asked("filter", second))
    ours.failures.extend([0, 503])
    ours.service.kill()
    ours.service.start()
    until("it was told of both", lambda: ours.used("alpha") == 4)
    before = len(ours.asked("filter", second))
    ours.client.annotate("nodes", "n0", {"example.com/note": "wake"})
    until("it is asked again", lambda: len(ours.asked("filter", second)) > before)
    counts_still(ours.tap, "filter", second["metadata"]["uid"])
    assert not node_of(ours.client, "second", space)
    assert ours.used("alpha") == 4


# How much a pod asks for


def test_init_containers_and_sidecars_count_as_kube_scheduler_counts_them(
    ours: Ours,
) -> None:
    """Trap 14: a sidecar of 2 beside an init container of 5 or the main one of 2."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    ours.client.create(tenant("alpha", space, guarantee={H100: 8}))
    pod = gated("mixed", space, 2)
    pod["spec"]["initContainers"] = [
        {**asking("side", 2), "restartPolicy": "Always"},
        asking("prepare", 5),
    ]
    mixed = ours.client.create(pod)
    one = ours.client.create(gated("one", space, 1))
    bound(ours, mixed)
    bound(ours, one)
    until("eight are charged", lambda: ours.used("alpha") == 8)
    late = ours.client.create(gated("late", space, 1))
    ours.settled(late)
    assert ours.reason(late) == "NO_ROOM"
    ungated = objects.pod("probe", ours.plane.new_namespace(), 1)
    probe = ours.client.create(ungated)
    until("kube-scheduler says so too", lambda: condition(seen(ours, probe)))
    assert "Insufficient nvidia.com/gpu" in condition(seen(ours, probe))["message"]
    assert not ours.asked("", probe)


def asking(name: str, gpus: int) -> Object:
    limits = {objects.GPU: str(gpus)}
    return {"name": name, "image": "hollow", "resources": {"limits": limits}}


def test_an_amount_of_none_passes_everywhere_and_is_not_charged(ours: Ours) -> None:
    """kube-scheduler sends it all the same."""
    space = ours.plane.new_namespace()
    ours.client.create_all(objects.nodes(3))
    ours.client.create(tenant("alpha", space, limit={H100: 0}))
    pod = objects.pod("none", space, 0, tolerations=[{"operator": "Exists"}])
    limits = {objects.GPU: "0"}
    pod["spec"]["containers"][0]["resources"] = {"requests": limits, "limits": limits}
    none = ours.client.create(pod)
    bound(ours, none)
    (call,) = ours.asked("filter", none)
    assert sorted(call.result["NodeNames"]) == ["n0", "n1", "n2"]
    (scores,) = ours.asked("prioritize", none)
    assert {row["Score"] for row in scores.result} == {0}
    assert ours.used("alpha") == 0


@needs("1.34", "resource.k8s.io/v1")
def test_a_pod_with_claims_alone_is_never_sent(ours: Ours) -> None:
    """Trap 15: nobody counts it; a policy must keep such pods out of the fleet."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    ours.client.create(tenant("alpha", space, limit={H100: 0}))
    devices.claim(ours.client, space)
    devices.offer(ours.client, "n0")
    try:
        pod = devices.claiming(objects.pod("claims", space, 0))
        claims = ours.client.create(pod)
        assert bound(ours, claims) == "n0"
        assert not ours.asked("", claims)
        assert ours.used("alpha") == 0
    finally:
        devices.withdraw(ours.client)


@needs("1.36", "extended resources that claims provide")
def test_gpus_that_are_claims_behind_a_resource_are_not_given_away(ours: Ours) -> None:
    """The node has none in its allocatable: we do not know it, and say no."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("d0", 0))
    ours.client.create(tenant("alpha", space))
    devices.offer(ours.client, "d0", objects.GPU)
    try:
        rash = ours.client.create(objects.pod("rash", space, 1))
        waits = ours.client.create(gated("waits", space, 1))
        until("it is asked about", lambda: ours.asked("filter", rash))
        (call, *_) = ours.asked("filter", rash)
        assert call.names == ["d0"]
        assert call.result["NodeNames"] == []
        ours.settled(waits)
        assert ours.reason(waits) == "UNKNOWN_CLASS"
        assert ours.used("alpha") == 0
    finally:
        devices.withdraw(ours.client)


@needs("1.35", "nominated node names for binding")
def test_work_at_binding_changes_no_plan(ours: Ours) -> None:
    """kube-scheduler nominates a pod itself while its claim is being seen to."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    ours.client.create(tenant("alpha", space, guarantee={H100: 8}))
    devices.claim(ours.client, space)
    devices.offer(ours.client, "n0")
    try:
        pod = ours.client.create(devices.claiming(gated("both", space, 8)))
        assert bound(ours, pod) == "n0"
        assert len(ours.asked("filter", pod)) == 1
        until("it is charged once", lambda: ours.used("alpha") == 8)
    finally:
        devices.withdraw(ours.client)


# Native preemption


def test_whoever_is_above_ours_evicts_no_covered_pod_for_gpus(ours: Ours) -> None:
    """Traps 5, 23: neither of the tenant, nor of another, nor of none."""
    space, other = ours.plane.new_namespace(), ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    terms = {"guarantee": {H100: 8}, "preemptWithin": "never"}
    ours.client.create(tenant("alpha", space, **terms))
    ours.client.create(tenant("beta", other))
    covered = ours.client.create(gated("covered", space, 8))
    bound(ours, covered)
    rank = boss(ours)
    takers = [
        objects.pod("taker", where, 8, priority_class=rank)
        for where in (space, other, ours.plane.new_namespace())
    ]
    takers.append(gated("gated-taker", other, 8, priority_class=rank))
    made = ours.client.create_all(takers)
    for pod in made:
        until("something is said", lambda p=pod: condition(seen(ours, p)))
    answers = [ours.asked("preempt", pod) for pod in made]
    victims = [c.result["NodeNameToMetaVictims"] for calls in answers for c in calls]
    assert not any(victims)
    time.sleep(1)  # nothing happens
    assert not is_gone(ours, covered)
    assert not any(
        node_of(ours.client, p["metadata"]["name"], p["metadata"]["namespace"])
        for p in made
    )


def test_a_pod_of_ours_evicts_nobody_natively(ours: Ours) -> None:
    """Trap 23: our PriorityClasses never preempt, though they are above others'."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0", cpu="8"))
    ours.client.create(tenant("alpha", space, guarantee={H100: 8}))
    small = ours.client.create(objects.pod("small", space, 0, cpu="8"))
    bound(ours, small)
    ours.client.create(gated("own", space, 8, cpu="8"))
    time.sleep(1)  # nothing happens
    assert not is_gone(ours, small)


def test_an_ordinary_pod_does_not_push_ours_off_its_node(ours: Ours) -> None:
    """Trap 23: without GPUs it never asks us, but ours are above it."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0", cpu="8"))
    ours.client.create(tenant("alpha", space, guarantee={H100: 8}))
    batch = gated("own", space, 8, cpu="8", priority_class="fairshare-batch")
    own = ours.client.create(batch)
    bound(ours, own)
    pod = ours.client.create(objects.pod("small", space, 0, cpu="8"))
    until("something is said", lambda: condition(seen(ours, pod)))
    assert condition(seen(ours, pod))["reason"] == "Unschedulable"
    assert not is_gone(ours, own)


def test_one_victim_is_enough_however_slowly_it_leaves(ours: Ours) -> None:
    """Traps 6, 25, 34: the taker preempts natively by its class, and waits gated."""
    mine, theirs = ours.plane.new_namespace(), ours.plane.new_namespace()
    ours.client.create_all(objects.nodes(3))
    ours.client.create(tenant("owner", mine, guarantee={H100: 8}))
    ours.client.create(tenant("guest", theirs))
    slow = {hollow.SHUTS_DOWN_IN: "3"}
    guests = ours.client.create_all(
        gated(f"burst-{i}", theirs, 8, annotations=slow) for i in range(3)
    )
    for pod in guests:
        bound(ours, pod)
    own = ours.client.create(gated("own", mine, 8, priority_class=boss(ours)))
    until("a victim leaves", lambda: any(is_gone(ours, pod) for pod in guests))
    assert not ours.asked("", own)
    node = bound(ours, own)
    gone = [pod["metadata"]["name"] for pod in guests if is_gone(ours, pod)]
    assert len(gone) == 1
    assert not ours.asked("preempt", own)
    assert node in ("n0", "n1", "n2")


# Eviction


def burst_and_owner(ours: Ours, guest: Object) -> Object:
    """Let a guest fill the only node, and then the owner ask for it."""
    mine, theirs = ours.plane.new_namespace(), guest["metadata"]["namespace"]
    ours.client.create(objects.node("n0"))
    ours.client.create(tenant("owner", mine, guarantee={H100: 8}))
    ours.client.create(tenant("guest", theirs))
    ours.client.create(guest)
    until("the guest runs", lambda: running(ours, theirs))
    return ours.client.create(gated("own", mine, 8))


def running(ours: Ours, space: str) -> list[Object]:
    pods = ours.client.items("pods", space)
    return [pod for pod in pods if pod["status"].get("phase") == "Running"]


def test_a_budget_for_all_pods_is_respected(ours: Ours) -> None:
    """Trap 24: native preemption overlooks an empty selector, the Eviction API and so
    we do not."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.budget("all", space, {}, 1))
    own = burst_and_owner(ours, gated("burst", space, 8))
    until("it is refused", lambda: written(ours, space, "EvictionBlocked"))
    assert len(running(ours, space)) == 1
    assert not node_of(ours.client, "own", own["metadata"]["namespace"])
    ours.client.delete("poddisruptionbudgets", "all", space)
    bound(ours, own)


def written(ours: Ours, space: str, reason: str) -> list[Object]:
    return [e for e in ours.client.items("events", space) if e["reason"] == reason]


@pytest.mark.parametrize("code", ["0", "143"])
def test_a_trainer_that_ends_well_when_it_is_stopped_counts_as_done(
    ours: Ours, code: str
) -> None:
    """Trap 26: nobody can tell that from success. One that says 143 comes again, at
    its gate, and its Job has lost no attempt."""
    space = ours.plane.new_namespace()
    notes = {hollow.RUNS_FOR: "forever", hollow.TERMINATED_CODE: code}
    stopped = [{"type": "DisruptionTarget", "status": "True"}]
    rules = [{"action": "Ignore", "onPodConditions": stopped}]
    job = objects.job(
        "train",
        space,
        8,
        gated=True,
        annotations=notes,
        priority_class="fairshare-training",
        job={"podFailurePolicy": {"rules": rules}},
    )
    own = burst_and_owner(ours, job)
    bound(ours, own)

    def outcome() -> str:
        status = ours.client.get("jobs", "train", space)["status"]
        if status.get("succeeded"):
            return "done"
        pods = ours.client.items("pods", space)
        new = [pod for pod in pods if pod["spec"].get("schedulingGates")]
        return "again" if new and not status.get("failed") else ""

    assert until("its Job goes on", outcome) == ("done" if code == "0" else "again")


# What is read once, and what is not


@needs("1.35", "batching")
def test_batching_is_off_for_the_whole_scheduler(ours: Ours) -> None:
    """Trap 30: GPUs get a kube-scheduler of their own where that matters."""
    assert "Disabling signatures for profile" in ours.plane.logs("kube-scheduler")


def test_what_holds_is_read_from_objects_at_any_time(ours: Ours) -> None:
    """Trap 32: only kube-scheduler's file is read once; limits are not in it."""
    space = ours.plane.new_namespace()
    ours.client.create(objects.node("n0"))
    ours.client.create(tenant("alpha", space, limit={H100: 4}))
    pods = ours.client.create_all(gated(f"p{i}", space, 4) for i in range(2))
    until("one runs", lambda: ours.used("alpha") == 4)
    raised = {"spec": {"limit": {H100: 8}}}
    form = "application/merge-patch+json"
    ours.client.patch("tenants", "alpha", raised, form=form)
    for pod in pods:
        bound(ours, pod)
