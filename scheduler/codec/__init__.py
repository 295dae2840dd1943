"""Kubernetes' JSON and standalone mode's own, as core types and back.

``pod`` reads pods, ``verbs`` speaks the extender's messages, ``door`` the events,
actions and views of standalone mode.
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
from scheduler.codec.objects import PodObject
from scheduler.codec.pod import Naming, pod_of
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
    "CodecError",
    "Naming",
    "NodesCall",
    "PodObject",
    "PreemptCall",
    "Readers",
    "RefusedError",
    "Reported",
    "Wish",
    "decode_acknowledgement",
    "decode_events",
    "decode_nodes_call",
    "decode_preempt_call",
    "encode_acknowledged",
    "encode_all_pass",
    "encode_applied",
    "encode_explanation",
    "encode_failure",
    "encode_filtered",
    "encode_preemption",
    "encode_queue",
    "encode_scores",
    "encode_tenants",
    "encode_wishes",
    "pod_of",
]
