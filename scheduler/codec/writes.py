"""What is sent to the API server: bodies of patches, evictions, deletions and events.

Hidden here: the rules of strategic merge patches (null clears, ``$patch: delete``
removes an element, a list without a merge key is replaced whole), and what may still be
changed about a gated pod. Every body names the object by UID, so that it never reaches
another one of the same name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from scheduler.codec.mark import ADMISSION, GATE, HOLD
from scheduler.codec.objects import Affinity, NodeSelectorTerm, Requirement

PRODUCT = "nvidia.com/gpu.product"
"""The node label that says which GPU model a node has."""

COMPONENT = "gpu-fairshare"
MAX_EVENT_MESSAGE = 1024

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_encode = msgspec.json.Encoder().encode


class Subject(Struct, gc=False, rename="camel", frozen=True):
    """The object an event is about."""

    api_version: str
    kind: str
    name: str
    uid: str
    namespace: str = ""


def nomination(uid: str, node: str | None, mark: str | None, hold: str | None) -> bytes:
    """Plan a pod: a patch of its status, mark and node in one write.

    Parameters
    ----------
    uid
        The pod.
    node, mark, hold
        The nominated node and our two annotations; None clears each.
    """
    metadata = {"uid": uid, "annotations": {ADMISSION: mark, HOLD: hold}}
    return _encode({"metadata": metadata, "status": {"nominatedNodeName": node}})


def open_gate(
    uid: str,
    affinity: Affinity | None,
    products: Sequence[str],
    version: str | None = None,
) -> bytes:
    """Let a pod through: remove our gate and tighten where it may run, in one write.

    Parameters
    ----------
    uid
        The pod.
    affinity
        What the pod asks for so far.
    products
        Product labels, one of which its node must have; empty for any.
    version
        Resource version of the pod as it was decided on; None opens any.
    """
    metadata = {"uid": uid} | ({"resourceVersion": version} if version else {})
    spec: dict[str, Any] = {"schedulingGates": [{"$patch": "delete", "name": GATE}]}
    if products:
        terms = _tightened(affinity, products)
        node_affinity = {_REQUIRED: {"nodeSelectorTerms": terms}}
        spec["affinity"] = {"nodeAffinity": node_affinity}
    return _encode({"metadata": metadata, "spec": spec})


def _tightened(
    affinity: Affinity | None, products: Sequence[str]
) -> list[NodeSelectorTerm]:
    """Add the requirement to every term there is, or make the first one.

    A gated pod may get requirements, at the end of a term, but no further terms. An
    empty term fits no node and stays as it is: it must not begin to fit some.
    """
    added = Requirement(PRODUCT, "In", sorted(set(products)))
    terms = _terms(affinity)
    if not terms:
        return [NodeSelectorTerm([added])]
    return [_with(term, added) for term in terms]


def _terms(affinity: Affinity | None) -> list[NodeSelectorTerm]:
    if affinity is None or affinity.node_affinity is None:
        return []
    required = affinity.node_affinity.required
    return required.node_selector_terms or [] if required else []


def _with(term: NodeSelectorTerm, added: Requirement) -> NodeSelectorTerm:
    there = term.match_expressions or []
    if added in there or not (there or term.match_fields):
        return term
    return NodeSelectorTerm([*there, added], term.match_fields)


def annotate(uid: str, annotations: Mapping[str, str | None]) -> bytes:
    """Set annotations, by their full names; None clears one."""
    return _encode({"metadata": {"uid": uid, "annotations": annotations}})


def suspend_job(uid: str, suspend: bool) -> bytes:
    """Suspend a Job, which deletes its pods, or resume it."""
    return _encode({"metadata": {"uid": uid}, "spec": {"suspend": suspend}})


def disruption(uid: str, reason: str, message: str, at: str) -> bytes:
    """Say why a pod is about to be deleted: a patch of its status.

    Job policies go by this condition; the Eviction API sets it by itself, deletion does
    not. `at` is the time in UTC.
    """
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": at,
    }
    return _encode({"metadata": {"uid": uid}, "status": {"conditions": [condition]}})


def eviction(name: str, namespace: str, uid: str, grace_s: int | None) -> bytes:
    """Ask for a pod's eviction; without `grace_s` the pod's own grace holds."""
    return _encode(
        {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": _options({"uid": uid}, grace_s),
        }
    )


def delete_options(
    uid: str, resource_version: str | None, grace_s: int | None
) -> bytes:
    """Delete this object only, and only as it was read if a version is given."""
    preconditions = {"uid": uid}
    if resource_version is not None:
        preconditions["resourceVersion"] = resource_version
    head = {"apiVersion": "v1", "kind": "DeleteOptions"}
    return _encode(head | _options(preconditions, grace_s))


def _options(preconditions: dict[str, str], grace_s: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"preconditions": preconditions}
    if grace_s is not None:
        options["gracePeriodSeconds"] = grace_s
    return options


def event(
    name: str,
    subject: Subject,
    reason: str,
    message: str,
    at: str,
    *,
    warning: bool = False,
) -> bytes:
    """Write a core/v1 Event, which people see in ``kubectl describe``.

    Parameters
    ----------
    name
        Unique in the namespace.
    subject
        What it is about; events about what has no namespace go to ``default``.
    reason
        One word in CamelCase.
    message
        For people; what is too long for the API is cut.
    at
        When, in UTC.
    warning
        Whether somebody should look.
    """
    namespace = subject.namespace or "default"
    return _encode(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": subject,
            "reason": reason,
            "message": message[:MAX_EVENT_MESSAGE],
            "type": "Warning" if warning else "Normal",
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
    )
