"""How often kube-scheduler asks again about a pod that it was told no about.

Why quota waits at a gate: a rejected pod is asked about again after almost every event
in the cluster, a gated one never.
"""

import itertools
import time

from tests.controlplane import objects
from tests.e2e.extenders import rejecting
from tests.e2e.running import until
from tests.e2e.wiring import Wire, counts_still, needs

QUIET_S = 2.0
"""Longer than this nothing happens by itself: the backoff of two attempts is over."""


def rejected(wire: Wire, name: str = "p") -> int:
    """A pod that is told no in constant words; how often until it is left alone."""
    wire.server.scripts["strict"] = rejecting("over its quota")
    wire.pod(name, "strict")
    return counts_still(wire.server, "filter", f"{wire.space}/{name}", QUIET_S)


def asked_again(wire: Wire, name: str, before: int) -> int:
    """Wait for another attempt; how many more there are until it is left alone."""
    until("it is asked about again", lambda: wire.asked("filter", name) > before)
    pod = f"{wire.space}/{name}"
    return counts_still(wire.server, "filter", pod, QUIET_S) - before


def test_constant_words_wake_a_pod_at_most_once(wire: Wire) -> None:
    """The first condition is an update that wakes it; the second says the same."""
    assert 1 <= rejected(wire) <= 2
    assert wire.metric("scheduler_pending_pods", queue="unschedulable") == 1


@needs("1.32", "an update of its own status wakes a pod")
def test_changing_words_wake_a_pod_for_ever(wire: Wire) -> None:
    """Why our reasons are a closed vocabulary without a number in it."""
    numbers = itertools.count()
    wire.server.scripts["strict"] = rejecting(lambda: f"{next(numbers)} of 16 used")
    wire.pod("p", "strict")
    started = time.monotonic()
    until("there are many attempts", lambda: wire.asked("filter", "p") >= 5)
    calls = [call.at for call in wire.calls("filter", "p")]
    assert calls[4] - started < 20


def test_a_pod_that_starts_elsewhere_wakes_the_rejected(wire: Wire) -> None:
    """With a thousand of them every start asks a thousand times."""
    before = rejected(wire)
    wire.pod("other", "ignorable")
    wire.bound("other")
    assert asked_again(wire, "p", before) >= 1


def test_a_note_on_a_node_wakes_the_rejected(wire: Wire) -> None:
    before = rejected(wire)
    wire.client.annotate("nodes", "ignorable-0", {"example.com/note": wire.space})
    assert asked_again(wire, "p", before) >= 1


def test_a_note_on_the_pod_wakes_it(wire: Wire) -> None:
    """Also one of ours: a pod that waits without a gate is left alone by us."""
    before = rejected(wire)
    wire.client.annotate("pods", "p", {"example.com/note": "1"}, wire.space)
    assert asked_again(wire, "p", before) >= 1


def test_a_gated_pod_is_never_asked_about(wire: Wire) -> None:
    """Whatever happens to it or around it."""
    gate = [{"name": objects.GATE}]
    wire.pod("p", "strict", schedulingGates=gate)
    assert wire.outcome("p") == "SchedulingGated"
    wire.client.annotate("pods", "p", {"example.com/note": "1"}, wire.space)
    wire.client.annotate("nodes", "strict-0", {"example.com/note": wire.space})
    wire.pod("other", "strict")
    wire.bound("other")
    assert wire.asked("", "p") == 0
    assert wire.metric("scheduler_pending_pods", queue="gated") == 1


def test_a_gate_that_opens_leads_to_the_first_call_at_once(wire: Wire) -> None:
    """No backoff: it was never tried."""
    wire.pod("p", "strict", schedulingGates=[{"name": objects.GATE}])
    assert wire.outcome("p") == "SchedulingGated"
    opened = time.monotonic()
    ungate = {"spec": {"schedulingGates": [{"$patch": "replace"}]}}
    wire.client.patch("pods", "p", ungate, wire.space)
    wire.bound("p")
    (call,) = wire.calls("filter", "p")[:1]
    assert call.at - opened < 2
