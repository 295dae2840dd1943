"""Kubernetes' JSON and standalone mode's own, as core types and back.

``objects`` has the API's objects; ``pod``, ``node`` and ``membership`` read them, with
``notes`` for our annotations and ``facts`` for small questions. ``mark`` is what an
admission leaves on a pod, ``writes`` what is sent to the API server. ``verbs`` speaks
the extender's messages, ``door`` the events, actions and views of standalone mode.
"""

from scheduler.codec.door import (
    Readers,
    Reported,
    Wish,
    decode_acknowledgement,
    decode_events,
    encode_acknowledged,
    encode_applied,
    encode_explanation,
    encode_queue,
    encode_tenants,
    encode_wishes,
)
from scheduler.codec.errors import CodecError, RefusedError
from scheduler.codec.facts import (
    checkpoint_stamp,
    controller,
    gates,
    has_foreign_gates,
    is_gated,
    is_terminal,
    is_terminating,
    job_of,
)
from scheduler.codec.mark import GATE, Mark, decode_mark, encode_mark
from scheduler.codec.membership import Membership, membership, pods_at_once
from scheduler.codec.node import NodeReading, node_of
from scheduler.codec.objects import (
    JobObject,
    LeaseObject,
    NamespaceObject,
    NodeObject,
    Owner,
    PdbObject,
    PodObject,
    PriorityClassObject,
)
from scheduler.codec.pod import Naming, Use, has_only_claims, pod_of, use_of
from scheduler.codec.verbs import (
    NodesCall,
    PreemptCall,
    decode_nodes_call,
    decode_preempt_call,
    encode_all_pass,
    encode_failure,
    encode_filtered,
    encode_preemption,
    encode_scores,
)

__all__ = [
    "GATE",
    "CodecError",
    "JobObject",
    "LeaseObject",
    "Mark",
    "Membership",
    "NamespaceObject",
    "Naming",
    "NodeObject",
    "NodeReading",
    "NodesCall",
    "Owner",
    "PdbObject",
    "PodObject",
    "PreemptCall",
    "PriorityClassObject",
    "Readers",
    "RefusedError",
    "Reported",
    "Use",
    "Wish",
    "checkpoint_stamp",
    "controller",
    "decode_acknowledgement",
    "decode_events",
    "decode_mark",
    "decode_nodes_call",
    "decode_preempt_call",
    "encode_acknowledged",
    "encode_all_pass",
    "encode_applied",
    "encode_explanation",
    "encode_failure",
    "encode_filtered",
    "encode_mark",
    "encode_preemption",
    "encode_queue",
    "encode_scores",
    "encode_tenants",
    "encode_wishes",
    "gates",
    "has_foreign_gates",
    "has_only_claims",
    "is_gated",
    "is_terminal",
    "is_terminating",
    "job_of",
    "membership",
    "node_of",
    "pod_of",
    "pods_at_once",
    "use_of",
]
