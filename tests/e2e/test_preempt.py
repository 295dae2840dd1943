"""Native preemption, and what the preempt verb may do to it.

Nothing checks what the verb answers: these are the reasons why ours only narrows, and
why eviction is not left to it.
"""

from collections.abc import Sequence

import pytest

from tests.controlplane import hollow, objects
from tests.controlplane.client import Object
from tests.e2e.extenders import Call, Reply, Script, only, said
from tests.e2e.running import until
from tests.e2e.wiring import (
    DEVICES,
    HIGH,
    HIGHER,
    LOW,
    Wire,
    needs,
    until_version,
)

Victims = dict[str, Sequence[str]]


def answering(choose: Victims | None = None, breaches: int = 0) -> Script:
    """Answers preempt with victims of its own choice, by node."""

    def script(_: Call) -> Reply:
        chosen = {
            node: {
                "Pods": [{"UID": uid} for uid in uids],
                "NumPDBViolations": breaches,
            }
            for node, uids in (choose or {}).items()
        }
        return said({"NodeNameToMetaVictims": chosen})

    return only("preempt", script)


def among(*nodes: str) -> Object:
    """Node affinity to some nodes of the extender."""
    key = "kubernetes.io/hostname"
    term = {"matchExpressions": [{"key": key, "operator": "In", "values": [*nodes]}]}
    required = {"nodeSelectorTerms": [term]}
    return {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
    }


def runs(wire: Wire, name: str, node: str, devices: int, rank: str) -> str:
    """A pod on a node; returns its UID."""
    place = {"kubernetes.io/hostname": node}
    pod = wire.pod(name, "strict", devices, priority_class=rank, nodeSelector=place)
    wire.bound(name)
    return str(pod["metadata"]["uid"])


def preemptor(wire: Wire, *nodes: str, name: str = "taker", **more: object) -> None:
    more = {"priority_class": HIGH, "affinity": among(*nodes), **more}
    wire.pod(name, "strict", DEVICES, **more)


def fails(wire: Wire, name: str = "taker") -> str:
    """Wait until preempt has been called and the attempt is over; what is said."""
    until("preempt is called", lambda: wire.asked("preempt", name))
    until("a reason is given", lambda: wire.message(name))
    return wire.message(name)


# When it is called


@until_version("1.37", "a candidate needs a victim")
def test_without_a_lower_priority_the_verb_is_not_called(wire: Wire) -> None:
    """So it cannot take back burst from equals: eviction is ours."""
    runs(wire, "peer", "strict-0", DEVICES, HIGH)
    preemptor(wire, "strict-0")
    assert wire.outcome("taker") == "Unschedulable"
    assert wire.asked("preempt", "taker") == 0


def test_with_preemption_policy_never_nobody_is_asked(wire: Wire) -> None:
    """Our PriorityClasses say so: native preemption knows no guarantee."""
    runs(wire, "low", "strict-0", DEVICES, LOW)
    preemptor(wire, "strict-0", priority_class="fairshare-training")
    assert wire.outcome("taker") == "Unschedulable"
    assert wire.asked("preempt", "taker") == 0
    assert not wire.is_gone("low")


# What it may answer


def test_a_node_left_out_is_spared(wire: Wire) -> None:
    uids = [runs(wire, f"low-{i}", f"strict-{i}", DEVICES, LOW) for i in range(2)]
    wire.server.scripts["strict"] = answering({"strict-1": uids[1:]})
    preemptor(wire, "strict-0", "strict-1")
    assert wire.bound("taker") == "strict-1"
    assert not wire.is_gone("low-0")


def test_an_empty_answer_evicts_nobody(wire: Wire) -> None:
    """How ours protects: no candidate comes back."""
    runs(wire, "low", "strict-0", DEVICES, LOW)
    wire.server.scripts["strict"] = answering({})
    preemptor(wire, "strict-0")
    fails(wire)
    assert not wire.is_gone("low")


def test_victims_may_be_replaced_even_by_pods_of_higher_priority(wire: Wire) -> None:
    """Nothing checks it: the arithmetic of the answer is the only guard."""
    runs(wire, "low", "strict-0", 1, LOW)
    dear = runs(wire, "dear", "strict-0", DEVICES - 1, HIGHER)
    wire.server.scripts["strict"] = answering({"strict-0": [dear]})
    preemptor(wire, "strict-0", name="small")
    assert wire.outcome("small") == "Unschedulable"
    assert not wire.is_gone("dear")  # in-tree knows it would not help: not asked
    place = {"kubernetes.io/hostname": "strict-0"}
    wire.pod("taker", "strict", 1, priority_class=HIGH, nodeSelector=place)
    until("the dear one is gone", lambda: wire.is_gone("dear"))
    assert not wire.is_gone("low")


def test_even_a_node_that_was_not_offered_is_taken(wire: Wire) -> None:
    """Known is enough; so ours answers offered nodes only."""
    runs(wire, "low-0", "strict-0", DEVICES, LOW)
    other = runs(wire, "low-1", "strict-1", DEVICES, LOW)
    wire.server.scripts["strict"] = answering({"strict-1": [other]})
    preemptor(wire, "strict-0")
    until("the other one is gone", lambda: wire.is_gone("low-1"))
    assert not wire.is_gone("low-0")


def test_a_victim_that_is_not_on_the_node_is_an_error(wire: Wire) -> None:
    """Of the whole call: nobody is evicted."""
    runs(wire, "low-0", "strict-0", DEVICES, LOW)
    elsewhere = runs(wire, "low-1", "strict-1", DEVICES, LOW)
    wire.server.scripts["strict"] = answering({"strict-0": [elsewhere]})
    preemptor(wire, "strict-0")
    fails(wire)
    assert not wire.is_gone("low-0")
    assert not wire.is_gone("low-1")


@until_version("1.37", "an empty list of victims is an error")
def test_a_node_without_victims_is_an_error(wire: Wire) -> None:
    """Ours leaves such a node out."""
    runs(wire, "low", "strict-0", DEVICES, LOW)
    wire.server.scripts["strict"] = answering({"strict-0": []})
    preemptor(wire, "strict-0")
    fails(wire)
    assert not wire.is_gone("low")


# How the node is chosen


def two_nodes(wire: Wire) -> dict[str, list[str]]:
    """On node 0 a higher and a lower victim, on node 1 two in the middle.

    Victims by node, the dearest first.
    """
    dear = runs(wire, "dear", "strict-0", 2, HIGH)
    cheap = runs(wire, "cheap", "strict-0", 2, LOW)
    middle = [runs(wire, f"middle-{i}", "strict-1", 2, "wire-middle") for i in range(2)]
    return {"strict-0": [dear, cheap], "strict-1": middle}


def test_the_first_victim_counts_as_the_dearest(wire: Wire) -> None:
    """Sorted by priority, or the wrong node is chosen."""
    wire.client.ensure(objects.priority_class("wire-middle", 500))
    victims = two_nodes(wire)
    wire.server.scripts["strict"] = answering(victims)
    preemptor(wire, "strict-0", "strict-1", priority_class=HIGHER)
    assert wire.bound("taker") == "strict-1"


def test_victims_out_of_order_change_the_choice(wire: Wire) -> None:
    wire.client.ensure(objects.priority_class("wire-middle", 500))
    victims = two_nodes(wire)
    victims["strict-0"].reverse()
    wire.server.scripts["strict"] = answering(victims)
    preemptor(wire, "strict-0", "strict-1", priority_class=HIGHER)
    assert wire.bound("taker") == "strict-0"
    assert wire.is_gone("dear")


def test_the_number_of_broken_budgets_is_believed(wire: Wire) -> None:
    """Ours passes on the number that it was given."""
    for index in range(2):
        runs(wire, f"low-{index}", f"strict-{index}", DEVICES, LOW)

    def script(call: Call) -> Reply:
        offered = call.args["NodeNameToMetaVictims"]
        offered["strict-0"]["NumPDBViolations"] = 7
        return said({"NodeNameToMetaVictims": offered})

    wire.server.scripts["strict"] = only("preempt", script)
    preemptor(wire, "strict-0", "strict-1")
    assert wire.bound("taker") == "strict-1"
    assert not wire.is_gone("low-0")


# What happens to the victims


@pytest.mark.parametrize(
    ("selector", "breaches"),
    [
        pytest.param({"app": "guarded"}, 1, id="by label"),
        pytest.param(
            {}, 0, id="all", marks=until_version("1.37", "an empty selector is ignored")
        ),
    ],
)
def test_native_preemption_breaks_a_budget(
    wire: Wire, selector: dict[str, str], breaches: int
) -> None:
    """Best effort only, and it overlooks a budget for all pods: ours evicts through
    the Eviction API, which keeps to both."""
    place = {"kubernetes.io/hostname": "strict-0"}
    spec = {"priority_class": LOW, "nodeSelector": place, "labels": {"app": "guarded"}}
    wire.pod("low", "strict", DEVICES, **spec)
    wire.bound("low")
    wire.client.create(objects.budget("guard", wire.space, selector, 1))
    until("the budget is in force", lambda: is_guarded(wire))
    preemptor(wire, "strict-0")
    assert wire.bound("taker") == "strict-0"
    assert wire.is_gone("low")
    (call,) = wire.calls("preempt", "taker")
    (offered,) = call.args["NodeNameToMetaVictims"].values()
    assert offered["NumPDBViolations"] == breaches


def is_guarded(wire: Wire) -> bool:
    budget = wire.client.get("poddisruptionbudgets", "guard", wire.space)
    return bool(budget.get("status", {}).get("currentHealthy") == 1)


def test_a_victim_is_told_and_its_room_is_kept_until_it_is_gone(wire: Wire) -> None:
    """The condition comes before the end; the taker waits nominated, and is filtered
    again; a second taker finds another victim only where there is one."""
    slow = {hollow.SHUTS_DOWN_IN: "2"}
    place = {"kubernetes.io/hostname": "strict-0"}
    wire.pod(
        "low",
        "strict",
        DEVICES,
        priority_class=LOW,
        grace_s=60,
        annotations=slow,
        nodeSelector=place,
    )
    wire.bound("low")
    until(
        "it runs",
        lambda: wire.get("low")["status"]["phase"] == "Running",
    )
    preemptor(wire, "strict-0")
    until("the victim leaves", lambda: wire.is_gone("low"))
    leaving = wire.get("low")
    (why,) = [
        c for c in leaving["status"]["conditions"] if c["type"] == "DisruptionTarget"
    ]
    assert (why["status"], why["reason"]) == ("True", "PreemptionByScheduler")
    until(
        "the taker is nominated",
        lambda: wire.get("taker")["status"].get("nominatedNodeName") == "strict-0",
    )
    preemptor(wire, "strict-0", name="second")
    assert wire.outcome("second") == "Unschedulable"
    before = wire.asked("filter", "taker")
    assert wire.bound("taker") == "strict-0"
    assert wire.asked("filter", "taker") > before
    assert wire.calls("filter", "taker")[-1].names == ["strict-0"]
    assert wire.node_of("second") == ""


@needs("1.33", "preemption is asynchronous")
def test_the_taker_is_not_tried_before_its_victims_are_told(wire: Wire) -> None:
    """No second round of victims for one taker."""
    uids = [runs(wire, f"low-{i}", "strict-0", 1, LOW) for i in range(DEVICES)]
    preemptor(wire, "strict-0")
    assert wire.bound("taker") == "strict-0"
    assert wire.asked("preempt", "taker") == 1
    (call,) = wire.calls("preempt", "taker")
    (victims,) = call.args["NodeNameToMetaVictims"].values()
    assert {victim["UID"] for victim in victims["Pods"]} == set(uids)
