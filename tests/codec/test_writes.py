"""Bodies of writes, byte for byte, and the rules that gated pods are held to."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from scheduler.codec import writes
from scheduler.codec.objects import (
    Affinity,
    NodeAffinity,
    NodeSelector,
    NodeSelectorTerm,
    Requirement,
)

GATE = b'"schedulingGates":[{"$patch":"delete","name":"fairshare.dev/admission"}]'


def affinity(*terms: NodeSelectorTerm) -> Affinity:
    return Affinity(NodeAffinity(NodeSelector(list(terms))))


def terms_of(body: bytes) -> list[NodeSelectorTerm]:
    found = json.loads(body)["spec"]["affinity"]["nodeAffinity"]
    assert list(found) == ["requiredDuringSchedulingIgnoredDuringExecution"]
    (terms,) = found["requiredDuringSchedulingIgnoredDuringExecution"].values()
    return msgspec.convert(terms, list[NodeSelectorTerm])


# -- pods -------------------------------------------------------------------------


def test_nomination_writes_plan_and_mark_at_once() -> None:
    assert writes.nomination("u", "n1", "{}", None) == (
        b'{"metadata":{"uid":"u","annotations":{"fairshare.dev/admission":"{}",'
        b'"fairshare.dev/hold":null}},"status":{"nominatedNodeName":"n1"}}'
    )


def test_nomination_clears_what_is_none() -> None:
    assert writes.nomination("u", None, None, "gang b") == (
        b'{"metadata":{"uid":"u","annotations":{"fairshare.dev/admission":null,'
        b'"fairshare.dev/hold":"gang b"}},"status":{"nominatedNodeName":null}}'
    )


def test_open_gate_takes_away_ours_only() -> None:
    body = writes.open_gate("u", None, ())
    assert body == b'{"metadata":{"uid":"u"},"spec":{' + GATE + b"}}"


def test_open_gate_makes_the_first_term() -> None:
    golden = (
        b'{"metadata":{"uid":"u"},"spec":{' + GATE + b',"affinity":{"nodeAffinity":{'
        b'"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":['
        b'{"matchExpressions":[{"key":"nvidia.com/gpu.product","operator":"In",'
        b'"values":["A","B"]}]}]}}}}}'
    )
    assert writes.open_gate("u", None, ["B", "A", "B"]) == golden
    without = (Affinity(), Affinity(NodeAffinity()), affinity())
    for there in without:
        assert writes.open_gate("u", there, ["B", "A"]) == golden


def test_open_gate_adds_to_each_term_there_is() -> None:
    zone = Requirement("zone", "In", ["a"])
    gpu = Requirement("gpu", "Exists")
    name = Requirement("metadata.name", "In", ["n1"])
    ours = Requirement("nvidia.com/gpu.product", "In", ["A"])
    there = affinity(
        NodeSelectorTerm([zone, gpu]),
        NodeSelectorTerm(None, [name]),
        NodeSelectorTerm(),
        NodeSelectorTerm([], []),
        NodeSelectorTerm([ours]),
    )
    body = writes.open_gate("u", there, ["A"])
    assert terms_of(body) == [
        NodeSelectorTerm([zone, gpu, ours]),
        NodeSelectorTerm([ours], [name]),
        NodeSelectorTerm(),  # fits no node, and must not begin to fit some
        NodeSelectorTerm([], []),
        NodeSelectorTerm([ours]),
    ]
    assert b"null" not in body


def test_open_gate_adds_beside_a_requirement_of_the_same_key() -> None:
    theirs = Requirement("nvidia.com/gpu.product", "In", ["A", "C"])
    body = writes.open_gate("u", affinity(NodeSelectorTerm([theirs])), ["A", "B"])
    (term,) = terms_of(body)
    ours = Requirement("nvidia.com/gpu.product", "In", ["A", "B"])
    assert term.match_expressions == [theirs, ours]


requirements = st.builds(
    Requirement,
    st.sampled_from(["zone", "nvidia.com/gpu.product"]),
    st.sampled_from(["In", "NotIn", "Exists"]),
    st.none() | st.lists(st.sampled_from("ABC"), max_size=3),
)
listed = st.none() | st.lists(requirements, max_size=3)
terms = st.lists(st.builds(NodeSelectorTerm, listed, listed), max_size=4)


def matches(term: NodeSelectorTerm) -> bool:
    """Whether a term could fit any node at all."""
    return bool(term.match_expressions or term.match_fields)


@given(terms, st.sets(st.sampled_from("ABC"), min_size=1))
def test_open_gate_keeps_the_rules_of_gated_pods(
    old: list[NodeSelectorTerm], products: set[str]
) -> None:
    """KEP-3838: no further terms, and each one may only grow at its end."""
    new = terms_of(writes.open_gate("u", affinity(*old), sorted(products)))
    assert len(new) == max(1, len(old))
    for before, after in zip(old, new, strict=bool(old)):
        kept = before.match_expressions or []
        assert (after.match_expressions or [])[: len(kept)] == kept
        assert after.match_fields == before.match_fields
        assert matches(after) == matches(before)
    again = writes.open_gate("u", affinity(*new), sorted(products))
    assert terms_of(again) == new, "opening twice adds once"


def test_annotate_sets_and_clears() -> None:
    assert writes.annotate("u", {"a/b": "1", "c/d": None}) == (
        b'{"metadata":{"uid":"u","annotations":{"a/b":"1","c/d":null}}}'
    )


def test_disruption_is_told_before_deletion() -> None:
    at = "2026-01-02T03:04:05Z"
    assert writes.disruption("u", "Reclaimed", "for gang b", at) == (
        b'{"metadata":{"uid":"u"},"status":{"conditions":[{"type":"DisruptionTarget",'
        b'"status":"True","reason":"Reclaimed","message":"for gang b",'
        b'"lastTransitionTime":"2026-01-02T03:04:05Z"}]}}'
    )


def test_eviction_names_the_pod_by_uid() -> None:
    assert writes.eviction("p", "ns", "u", None) == (
        b'{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p",'
        b'"namespace":"ns"},"deleteOptions":{"preconditions":{"uid":"u"}}}'
    )
    assert writes.eviction("p", "ns", "u", 30) == (
        b'{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p",'
        b'"namespace":"ns"},"deleteOptions":{"preconditions":{"uid":"u"},'
        b'"gracePeriodSeconds":30}}'
    )


def test_deletion_names_the_object_and_its_version() -> None:
    assert writes.delete_options("u", None, None) == (
        b'{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"u"}}'
    )
    assert writes.delete_options("u", "7", 0) == (
        b'{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"u",'
        b'"resourceVersion":"7"},"gracePeriodSeconds":0}'
    )


# -- other objects ----------------------------------------------------------------


def test_jobs_are_suspended_and_resumed() -> None:
    assert writes.suspend_job("u", True) == (
        b'{"metadata":{"uid":"u"},"spec":{"suspend":true}}'
    )
    assert writes.suspend_job("u", False) == (
        b'{"metadata":{"uid":"u"},"spec":{"suspend":false}}'
    )


def test_event_golden() -> None:
    pod = writes.Subject("v1", "Pod", "p", "u", "ns")
    at = "2026-01-02T03:04:05Z"
    assert writes.event("p.1", pod, "Admitted", "on n1", at) == (
        b'{"apiVersion":"v1","kind":"Event","metadata":{"name":"p.1",'
        b'"namespace":"ns"},"involvedObject":{"apiVersion":"v1","kind":"Pod",'
        b'"name":"p","uid":"u","namespace":"ns"},"reason":"Admitted",'
        b'"message":"on n1","type":"Normal","source":{"component":"gpu-fairshare"},'
        b'"reportingComponent":"gpu-fairshare",'
        b'"firstTimestamp":"2026-01-02T03:04:05Z",'
        b'"lastTimestamp":"2026-01-02T03:04:05Z","count":1}'
    )


def test_events_about_what_has_no_namespace() -> None:
    tenant = writes.Subject("fairshare.dev/v1alpha1", "Tenant", "a", "u")
    body = writes.event("a.1", tenant, "Refused", "x" * 2000, "now", warning=True)
    found: dict[str, Any] = json.loads(body)
    assert found["metadata"]["namespace"] == "default"
    assert found["type"] == "Warning"
    assert len(found["message"]) == writes.MAX_EVENT_MESSAGE
