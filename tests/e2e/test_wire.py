"""What kube-scheduler makes of the answers it gets: why ours are as they are.

The extender here does as it is told. That our own never answers in these ways is said
by the tests of traps.
"""

import re
from dataclasses import replace

import pytest

from tests.controlplane import objects
from tests.controlplane.client import Object
from tests.e2e import devices
from tests.e2e.extenders import (
    Call,
    Reply,
    Script,
    accepted,
    agreeable,
    only,
    rejecting,
    resource_of,
    said,
)
from tests.e2e.running import until
from tests.e2e.wiring import DEVICES, HIGH, LOW, PURE, Wire, needs

# What can go wrong with an answer that would be right otherwise.

FAULTS: dict[str, dict[str, object]] = {
    "unavailable": {"status": 503},
    "created": {"status": 201},
    "no-content": {"status": 204, "body": b""},
    "reset": {"reset": True},
    "truncated": {"cut": True},
    "no-json": {"body": b"<html>"},
    "empty": {"body": b""},
    "slow": {"delay_s": 1.0},
}


def faulty(verb: str) -> Script:
    """Goes wrong for one verb, in the way that the pod's name says."""

    def script(call: Call) -> Reply:
        reply = agreeable(call)
        fault = call.pod.rpartition("/")[2]
        return replace(reply, **FAULTS[fault]) if call.verb == verb else reply

    return script


def extender_for(fault: str, name: str) -> str:
    """Only the hurried ones take a slow answer for none."""
    if fault != "slow":
        return name
    return {"strict": "hurried", "ignorable": "hurried-ignorable"}[name]


def on(node: str) -> dict[str, Object]:
    """Pins a pod to a node, so that nothing else is about placement."""
    return {"nodeSelector": {"kubernetes.io/hostname": node}}


# Requests


def test_a_filter_call_is_pascal_case_with_nulls_and_a_bare_pod(wire: Wire) -> None:
    """The bytes that our codec reads, as kube-scheduler writes them."""
    pod = wire.pod("p", "strict")
    wire.bound("p")
    (call,) = wire.calls("filter", "p")[:1]
    assert call.headers["Content-Type"] == "application/json"
    assert set(call.headers) == {
        "Host",
        "User-Agent",
        "Content-Length",
        "Content-Type",
        "Accept-Encoding",
    }
    text = call.body.decode()
    assert text.startswith('{"Pod":{"metadata":{"name":"p","namespace":"')
    tail = re.fullmatch(r'.*,"Nodes":null,"NodeNames":\[("[a-z0-9-]+",?)+\]}', text)
    assert tail
    sent = call.args["Pod"]
    assert sent["metadata"]["uid"] == pod["metadata"]["uid"]
    assert not {"kind", "apiVersion"} & set(sent)
    assert sorted(call.names) == [f"strict-{i}" for i in range(8)]


def test_a_preempt_call_names_victims_by_uid(wire: Wire) -> None:
    """Meta victims, and null for the form that we refuse."""
    low = wire.pod("low", "strict", DEVICES, priority_class=LOW, **on("strict-0"))
    wire.bound("low")
    wire.pod("high", "strict", DEVICES, priority_class=HIGH, **on("strict-0"))
    wire.bound("high")
    (call,) = wire.calls("preempt", "high")
    uid = low["metadata"]["uid"]
    victims = f'{{"Pods":[{{"UID":"{uid}"}}],"NumPDBViolations":0}}'
    end = (
        f',"NodeNameToVictims":null,"NodeNameToMetaVictims":{{"strict-0":{victims}}}}}'
    )
    assert call.body.decode().endswith(end)


def test_without_the_cache_whole_nodes_are_sent(wire: Wire) -> None:
    """What our service refuses: 7 KB and more for each node."""
    wire.server.scripts["whole"] = lambda call: said(
        {**accepted([]), "NodeNames": None, "Nodes": call.args["Nodes"]}
        if call.verb == "filter"
        else []
    )
    wire.pod("p", "whole")
    wire.bound("p")
    (call,) = wire.calls("filter", "p")[:1]
    assert call.args["NodeNames"] is None
    names = [item["metadata"]["name"] for item in call.args["Nodes"]["items"]]
    assert sorted(names) == ["whole-0", "whole-1"]


# Answers that are wrong in some way


def test_whatever_is_not_a_200_with_json_in_time_fails_the_attempt(wire: Wire) -> None:
    """Never a rejection, so no preemption either; tried again until it is right."""
    attempts = wire.metric("scheduler_preemption_attempts_total")
    for name in ("strict", "hurried"):
        wire.server.scripts[name] = faulty("filter")
    for fault in FAULTS:
        wire.pod(fault, extender_for(fault, "strict"))
    said_of = {fault: wire.outcome(fault) for fault in FAULTS}
    assert said_of == dict.fromkeys(FAULTS, "SchedulerError")
    assert wire.metric("scheduler_preemption_attempts_total") == attempts
    wire.server.scripts.clear()
    assert all(wire.bound(fault) for fault in FAULTS)


def test_an_ignorable_extender_that_fails_is_passed_over(wire: Wire) -> None:
    """Why we are not ignorable: every quota would be open while we are away."""
    for name in ("ignorable", "hurried-ignorable"):
        wire.server.scripts[name] = faulty("filter")
    for fault in FAULTS:
        wire.pod(fault, extender_for(fault, "ignorable"))
    assert {fault: wire.outcome(fault) for fault in FAULTS} == dict.fromkeys(
        FAULTS, "bound"
    )


@pytest.mark.parametrize("name", ["strict", "ignorable"])
def test_a_prioritize_that_fails_matters_to_nobody(wire: Wire, name: str) -> None:
    """So nothing may depend on it."""
    faults = [fault for fault in FAULTS if fault != "slow"]  # one node: not asked
    wire.server.scripts[name] = faulty("prioritize")
    for fault in faults:
        wire.pod(fault, name)
    assert all(wire.bound(fault) for fault in faults)
    assert all(wire.asked("prioritize", fault) for fault in faults)


def preempted(wire: Wire, name: str) -> dict[str, str]:
    """What becomes of a victim on each node when preempt fails in each way."""
    wire.server.scripts[name] = faulty("preempt")
    faults = [fault for fault in FAULTS if fault != "slow"]
    low, high = {"priority_class": LOW}, {"priority_class": HIGH}
    for index in range(len(faults)):
        place = on(f"{name}-{index}")
        wire.pod(f"low-{index}", name, DEVICES, **low, **place)
    for index in range(len(faults)):
        wire.bound(f"low-{index}")
    for index, fault in enumerate(faults):
        place = on(f"{name}-{index}")
        wire.pod(fault, name, DEVICES, **high, **place)
    for fault in faults:
        until("preempt is called", lambda f=fault: wire.asked("preempt", f))
        wire.outcome(fault)
    return {
        fault: "gone" if wire.is_gone(f"low-{index}") else "runs"
        for index, fault in enumerate(faults)
    }


def test_a_preempt_that_fails_evicts_nobody(wire: Wire) -> None:
    """With our service away no victim is taken that it has not agreed to."""
    victims = preempted(wire, "strict")
    assert victims == dict.fromkeys(victims, "runs")


def test_an_ignorable_preempt_that_fails_takes_the_native_victims(wire: Wire) -> None:
    """The other half of failing open."""
    victims = preempted(wire, "ignorable")
    assert victims == dict.fromkeys(victims, "gone")
    assert all(wire.bound(fault) for fault in victims)


@pytest.mark.parametrize(
    "answer",
    [{}, {"NodeNames": None}, {"NodeNames": []}, accepted([])],
    ids=["empty object", "null", "empty list", "no reasons"],
)
def test_an_answer_that_names_no_node_rejects_all_in_silence(
    wire: Wire, answer: object
) -> None:
    """So a service that is not ready must not answer at all."""
    wire.server.scripts["strict"] = only("filter", lambda _: said(answer))
    wire.pod("p", "strict")
    assert wire.outcome("p") == "Unschedulable"
    assert "extender" not in wire.message("p")


def test_error_in_the_answer_is_an_error_whatever_else_it_says(wire: Wire) -> None:
    wire.server.scripts["strict"] = only(
        "filter", lambda call: said({**accepted(call.names), "Error": "not today"})
    )
    wire.pod("p", "strict")
    assert wire.outcome("p") == "SchedulerError"
    assert "not today" in wire.message("p")


def test_a_node_that_was_not_offered_is_an_error(wire: Wire) -> None:
    """A planned node that kube-scheduler does not offer must not be answered."""
    wire.server.scripts["strict"] = only(
        "filter", lambda call: said(accepted([*call.names, "nowhere"]))
    )
    wire.pod("p", "strict")
    assert wire.outcome("p") == "SchedulerError"
    assert 'claims a filtered node "nowhere"' in wire.message("p")


def test_case_does_not_matter_nor_do_keys_it_does_not_know(wire: Wire) -> None:
    """Nobody need rely on it: ours are in Go's own spelling."""
    wire.server.scripts["strict"] = only(
        "filter",
        lambda call: said({"nodenames": call.names[:1], "error": "", "more": [1]}),
    )
    wire.pod("p", "strict")
    assert wire.bound("p") == wire.calls("filter", "p")[0].names[0]


# Connections


def attempts(wire: Wire, count: int) -> list[Call]:
    """Filter calls for some pods, one after the other."""
    for index in range(count):
        wire.pod(f"p{index}", "strict")
        wire.bound(f"p{index}")
    return [wire.calls("filter", f"p{index}")[0] for index in range(count)]


def test_one_connection_serves_all_calls(wire: Wire) -> None:
    """As long as an answer says how long it is, or ends in time."""
    calls = attempts(wire, 5)
    assert len({call.connection for call in calls}) == 1


def test_chunked_answers_are_understood(wire: Wire) -> None:
    wire.server.scripts["strict"] = lambda call: replace(agreeable(call), chunked=True)
    assert len(attempts(wire, 3)) == 3


def test_a_connection_that_closes_under_a_call_costs_an_attempt(wire: Wire) -> None:
    """kube-scheduler does not repeat it: our connections must outlive its own."""
    attempts(wire, 1)
    wire.server.scripts["strict"] = only(
        "filter", lambda call: replace(agreeable(call), reset=call.pod.endswith("/q"))
    )
    wire.pod("q", "strict")
    assert wire.outcome("q") == "SchedulerError"
    assert re.search("EOF|reset", wire.message("q"))


def test_a_connection_closed_while_idle_costs_nothing(wire: Wire) -> None:
    """A service that restarts between two calls does no harm by that."""
    first = attempts(wire, 1)[0]
    wire.server.hang_up()
    wire.pod("q", "strict")
    wire.bound("q")
    assert wire.calls("filter", "q")[0].connection != first.connection


def test_a_redirect_is_followed_at_the_price_of_a_second_call(wire: Wire) -> None:
    """So our paths are the ones of the shipped configuration, to the slash."""

    def script(call: Call) -> Reply:
        to = call.path.replace("/strict/", "/elsewhere/")
        return Reply(b"", 307, (f"Location: {to}",))

    wire.server.scripts["strict"] = script
    wire.pod("p", "strict")
    wire.bound("p")
    paths = [call.path for call in wire.calls("filter", "p")]
    assert paths[:2] == ["/strict/filter", "/elsewhere/filter"]


def test_https_without_an_authority_verifies_nothing(wire: Wire) -> None:
    """Silently: any certificate will do, and a wrong authority is an error."""
    wire.pod("any", "secret")
    wire.pod("wrong", "distrustful")
    wire.bound("any")
    assert wire.secret.asked("filter", f"{wire.space}/any")
    assert wire.outcome("wrong") == "SchedulerError"
    assert "x509" in wire.message("wrong")


# Who is asked


def test_extenders_are_asked_in_order_with_what_the_earlier_left(wire: Wire) -> None:
    """The ignorable ones last, wherever they are listed."""
    wire.server.scripts["strict"] = only(
        "filter", lambda call: said(accepted(sorted(call.names)[:2]))
    )
    wire.pod("p", "strict")
    wire.bound("p")
    first, second = wire.calls("filter", "p")
    assert first.path == "/strict/filter"
    assert len(first.names) == 8
    assert second.path == "/everything/filter"
    assert sorted(second.names) == ["strict-0", "strict-1"]


def asks(requests: Object | None = None, limits: Object | None = None) -> Object:
    resources = {"requests": requests or {}, "limits": limits or {}}
    return {"name": "c", "image": "hollow", "resources": resources}


def test_a_pod_is_sent_if_any_container_names_the_resource(wire: Wire) -> None:
    """In requests or limits, of init containers too, even an amount of none."""
    one, none = ({resource_of("strict"): number} for number in ("1", "0"))
    plain = {**asks(), "name": "plain"}
    pods = {
        "by-limit": {"containers": [asks(limits=one)]},
        "by-init": {"containers": [plain], "initContainers": [asks(limits=one)]},
        "by-none": {"containers": [asks(limits=none)]},
        "not-at-all": {"containers": [plain]},
    }
    for name, spec in pods.items():
        metadata = {"name": name, "namespace": wire.space}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        wire.create(body)
        wire.bound(name)
    asked = {name: wire.calls("filter", name)[0].path for name in pods}
    assert asked == {
        "by-limit": "/strict/filter",
        "by-init": "/strict/filter",
        "by-none": "/strict/filter",
        "not-at-all": "/everything/filter",
    }


def test_a_pod_that_fits_nowhere_is_not_asked_about(wire: Wire) -> None:
    """Demand cannot be counted from calls."""
    wire.pod("p", "strict", DEVICES + 1)
    assert wire.outcome("p") == "Unschedulable"
    assert wire.asked("", "p") == 0


def test_the_nominated_node_is_tried_first_and_alone(wire: Wire) -> None:
    """Two calls in one attempt if it does not do: no call may be counted twice."""
    taken = []

    def script(call: Call) -> Reply:
        taken.append(call.names)
        return said(accepted([name for name in call.names if name != "strict-5"]))

    wire.server.scripts["strict"] = only("filter", script)
    pod = wire.pod("p", "strict", schedulingGates=[{"name": "example.com/wait"}])
    nominate(wire, pod, "strict-5")
    ungate = {"spec": {"schedulingGates": [{"$patch": "replace"}]}}
    wire.client.patch("pods", "p", ungate, wire.space)
    assert wire.bound("p") != "strict-5"
    assert taken[0] == ["strict-5"]
    assert sorted(taken[1]) == [f"strict-{i}" for i in range(8)]
    assert len(taken) == 2


def nominate(wire: Wire, pod: Object, node: str) -> None:
    body = {"status": {"nominatedNodeName": node}}
    name = pod["metadata"]["name"]
    wire.client.patch("pods", name, body, wire.space, subresource="status")


# Reasons


def test_failed_nodes_invite_preemption_and_unresolvable_ones_do_not(
    wire: Wire,
) -> None:
    """Why every quota goes to the second map: nobody is evicted for it."""
    counted = "scheduler_preemption_attempts_total"
    place = on("strict-0")
    wire.pod("low", "strict", DEVICES - 1, priority_class=LOW, **place)
    wire.bound("low")
    before = wire.metric(counted)
    wire.server.scripts["strict"] = rejecting("over its quota", resolvable=False)
    wire.pod("final", "strict", priority_class=HIGH, **place)
    assert wire.outcome("final") == "Unschedulable"
    assert "over its quota" in wire.message("final")
    final = "Preemption is not helpful for scheduling"
    assert final in wire.message("final")
    wire.server.scripts["strict"] = rejecting("no room", resolvable=True)
    wire.pod("mild", "strict", priority_class=HIGH, **place)
    assert wire.outcome("mild") == "Unschedulable"
    assert "no room" in wire.message("mild")
    assert final not in wire.message("mild")
    assert wire.metric(counted) > before
    assert not wire.is_gone("low")


def test_a_node_left_out_counts_as_unresolvable_and_says_nothing(wire: Wire) -> None:
    """So an answer that accepts one node need not explain the others."""
    wire.server.scripts["strict"] = only("filter", lambda _: said(accepted([])))
    wire.pod("low", "ignorable", DEVICES, priority_class=LOW, **on("ignorable-0"))
    wire.pod("p", "strict", priority_class=HIGH)
    assert wire.outcome("p") == "Unschedulable"
    assert wire.asked("preempt", "p") == 0


# Scores


def favours(name: str, scores: dict[str, object]) -> dict[str, object]:
    """A pod that likes node 0 of an extender by 100 points, and has three to go to."""
    value = [f"{name}-{index}" for index in range(3)]
    key = "kubernetes.io/hostname"
    term = {"matchExpressions": [{"key": key, "operator": "In", "values": value}]}
    liked = {"matchExpressions": [{"key": key, "operator": "In", "values": value[:1]}]}
    affinity = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": liked}
        ],
    }
    return {"schedulerName": PURE, "affinity": {"nodeAffinity": affinity}}


def scoring(scores: object) -> Script:
    return only("prioritize", lambda _: said(scores))


def hosts(name: str, *scores: object) -> list[dict[str, object]]:
    return [
        {"Host": f"{name}-{index}", "Score": score}
        for index, score in enumerate(scores)
    ]


SCORES = {
    "nothing to say": ("strict", [], 0),
    "below the taste": ("strict", hosts("strict", 0, 9), 0),
    "above the maximum": ("strict", hosts("strict", 0, 11), 1),
    "negative, a little": ("strict", hosts("strict", -9), 0),
    "negative, more": ("strict", hosts("strict", -11, 0, -1), 1),
    "one point times twelve": ("heavy", hosts("heavy", 0, 1), 1),
    "a float": ("strict", hosts("strict", 0, 100.5), 0),
    "a float without a fraction": ("strict", b"100.0", 0),
    "text": ("strict", hosts("strict", 0, "100"), 0),
    "no array": ("strict", {"HostPriorityList": hosts("strict", 0, 100)}, 0),
    "a node nobody offered": ("strict", [{"Host": "elsewhere", "Score": 100}], 0),
}


@pytest.mark.parametrize("case", SCORES)
def test_scores_count_ten_times_their_weight_and_only_as_whole_numbers(
    wire: Wire, case: str
) -> None:
    """An in-tree taste of 100 points is what they are measured by."""
    name, scores, chosen = SCORES[case]
    if scores == b"100.0":
        text = b'[{"Host":"strict-1","Score":100.0}]'
        wire.server.scripts[name] = only("prioritize", lambda _: Reply(text))
    else:
        wire.server.scripts[name] = scoring(scores)
    wire.pod("p", name, **favours(name, {}))
    assert wire.bound("p") == f"{name}-{chosen}"
    assert wire.asked("prioritize", "p") == 1


def test_a_single_feasible_node_is_not_scored(wire: Wire) -> None:
    """Steering to one node saves this call."""
    wire.server.scripts["strict"] = only(
        "filter", lambda call: said(accepted(call.names[:1]))
    )
    wire.pod("p", "strict")
    wire.bound("p")
    assert wire.asked("prioritize", "p") == 0


@needs("1.35", "nominated node names for binding")
def test_a_pod_whose_binding_has_work_to_do_is_nominated_first(wire: Wire) -> None:
    """So a nomination need not be ours, nor come from preemption."""
    devices.claim(wire.client, wire.space)
    devices.offer(wire.client, "strict-0")
    pod = objects.pod("p", wire.space, 1, cpu="1m", resource=resource_of("strict"))
    try:
        with wire.client.watch("pods", wire.space) as changes:
            wire.create(devices.claiming(pod))
            seen = next(
                (found["spec"].get("nodeName"), found["status"]["nominatedNodeName"])
                for _, found in changes
                if found["status"].get("nominatedNodeName")
            )
        assert seen == (None, "strict-0")
        assert wire.bound("p") == "strict-0"
    finally:
        devices.withdraw(wire.client)


# How the resource itself is counted


def test_what_the_scheduler_ignores_it_over_commits(wire: Wire) -> None:
    """Why ours stay counted: even a wrong answer never puts nine on eight GPUs."""
    for name in ("most", "too-much"):
        wire.pod(name, "blind", DEVICES, **on("blind-0"))
        wire.bound(name)
    wire.pod("a", "strict", DEVICES, **on("strict-0"))
    wire.bound("a")
    wire.pod("b", "strict", DEVICES, **on("strict-0"))
    assert wire.outcome("b") == "Unschedulable"
    assert wire.asked("filter", "b") == 0
