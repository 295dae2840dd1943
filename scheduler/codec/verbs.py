"""The extender verbs' messages, byte for byte as kube-scheduler speaks them.

Hidden here: Go's JSON (PascalCase keys, null for nil, a bare array of scores, integer
numbers) and which answer means what: a rejection that evictions could mend goes to
``FailedNodes``, every other one to ``FailedAndUnresolvableNodes``, and each text is
constant, because a text that changes wakes the rejected pod again.

Nothing here makes one Python object per node where a bulk operation will do: a call
may name every node of the fleet.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from scheduler.codec.errors import CodecError
from scheduler.codec.objects import PodObject
from scheduler.core import Filtered, NodeName, PodUid

_M = TypeVar("_M", bound=Struct)
_NULL = Raw(b"null")


class ExtenderArgs(Struct, gc=False, rename="pascal"):
    """The body of filter and prioritize."""

    pod: PodObject
    nodes: Raw = _NULL
    node_names: list[NodeName] | None = None


class FilterResult(Struct, gc=False, rename="pascal"):
    """The answer of filter."""

    nodes: None
    node_names: Sequence[str]
    failed_nodes: Mapping[str, str]
    failed_and_unresolvable_nodes: Mapping[str, str]
    error: str = ""


class HostPriority(Struct, gc=False, rename="pascal"):
    """One element of the answer of prioritize; scores are 0..10."""

    host: str
    score: int


class MetaPod(Struct, gc=False):
    """A victim."""

    uid: PodUid = field(name="UID")


class MetaVictims(Struct, gc=False):
    """Victims on one node, and how many disruption budgets their eviction breaks."""

    pods: list[MetaPod] | None = field(default=None, name="Pods")
    breaches: int = field(default=0, name="NumPDBViolations")


class PreemptionArgs(Struct, gc=False, rename="pascal"):
    """The body of preempt."""

    pod: PodObject
    node_name_to_victims: Raw = _NULL
    node_name_to_meta_victims: dict[NodeName, MetaVictims] | None = None


class PreemptionResult(Struct, gc=False, rename="pascal"):
    """The answer of preempt."""

    node_name_to_meta_victims: Mapping[NodeName, MetaVictims]


class Failure(Struct, gc=False, rename="pascal"):
    """The body of every answer that is not 200."""

    error: str


@dataclass(frozen=True, slots=True)
class NodesCall:
    """A decoded filter or prioritize call.

    `table` holds every name once, in the order of the call: what duplicates are found
    by, and what the answer is cut from.
    """

    pod: PodObject
    table: dict[NodeName, None]


@dataclass(frozen=True, slots=True)
class PreemptCall:
    """A decoded preempt call: the victims kube-scheduler offers, per node."""

    pod: PodObject
    offers: Mapping[NodeName, tuple[PodUid, ...]]
    breaches: Mapping[NodeName, int]


_args = msgspec.json.Decoder(ExtenderArgs)
_preemption_args = msgspec.json.Decoder(PreemptionArgs)
_encoder = msgspec.json.Encoder()


def decode_nodes_call(body: bytes) -> NodesCall:
    """Read the body of filter or prioritize.

    Raises
    ------
    CodecError
        When it is no ExtenderArgs, carries whole nodes in place of names, or names
        none, or one twice.
    """
    args = decode(_args, body, "ExtenderArgs")
    names = args.node_names
    if names is None:
        raise _not_names("ExtenderArgs", "NodeNames", args.nodes)
    table = dict.fromkeys(names)
    if len(table) != len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise CodecError("ExtenderArgs", "NodeNames", twice, "is given twice")
    return NodesCall(args.pod, table)


def decode_preempt_call(body: bytes) -> PreemptCall:
    """Read the body of preempt.

    Raises
    ------
    CodecError
        When it is no ExtenderPreemptionArgs, or offers whole pods in place of UIDs.
    """
    args = decode(_preemption_args, body, "ExtenderPreemptionArgs")
    offers = args.node_name_to_meta_victims
    if offers is None:
        where, missing = "ExtenderPreemptionArgs", "NodeNameToMetaVictims"
        raise _not_names(where, missing, args.node_name_to_victims)
    return PreemptCall(
        args.pod,
        {
            node: tuple(pod.uid for pod in victims.pods or ())
            for node, victims in offers.items()
        },
        {node: victims.breaches for node, victims in offers.items()},
    )


def _not_names(where: str, missing: str, other: Raw) -> CodecError:
    whole = bytes(other) != b"null"
    sent = "is missing, whole objects came instead" if whole else "is missing"
    hint = "set nodeCacheCapable: true in the extender stanza"
    return CodecError(where, missing, "null", f"{sent}: {hint}")


# -- answers ------------------------------------------------------------------


def encode_filtered(table: Mapping[NodeName, None], filtered: Filtered) -> bytes:
    """Write the answer of filter.

    Where a node is accepted the others are left out: kube-scheduler takes an absent
    node for unresolvable and shows reasons only of pods that fit nowhere. Else every
    offered node has its reason.
    """
    if filtered.accepted:
        return _encoder.encode(FilterResult(None, filtered.accepted, {}, {}))
    default = filtered.default
    bulk: dict[str, str] = dict.fromkeys(table, default.value)
    failed = {default.resolvable: bulk, not default.resolvable: {}}
    for node, reason in filtered.rejected.items():
        del bulk[node]
        failed[reason.resolvable][node] = reason.value
    return _encoder.encode(FilterResult(None, (), failed[True], failed[False]))


def encode_all_pass(table: Mapping[NodeName, None]) -> bytes:
    """Write the answer of filter that leaves every offered node in."""
    return _encoder.encode(FilterResult(None, tuple(table), {}, {}))


def encode_scores(table: Mapping[NodeName, None], scores: Iterable[int]) -> bytes:
    """Write the answer of prioritize: one score per offered node, in order."""
    return _encoder.encode(list(map(HostPriority, table, scores)))


def encode_preemption(
    victims: Mapping[NodeName, tuple[PodUid, ...]], breaches: Mapping[NodeName, int]
) -> bytes:
    """Write the answer of preempt; a node without victims is no candidate."""
    answer = {
        node: MetaVictims([MetaPod(uid) for uid in uids], breaches[node])
        for node, uids in victims.items()
        if uids
    }
    return _encoder.encode(PreemptionResult(answer))


def encode_failure(message: str) -> bytes:
    """Write the body of an answer that is not 200: one line."""
    return _encoder.encode(Failure(" ".join(message.split())))


# -- broken bodies ------------------------------------------------------------

_AT = re.compile(r" - at `(?:key in )?\$(.*)`$")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


def decode(decoder: msgspec.json.Decoder[_M], body: bytes, where: str) -> _M:
    """Decode a body whole.

    Raises
    ------
    CodecError
        When it is no JSON, or a field has the wrong type: names field and value.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explain(str(error), body, where) from error
    except _UNREADABLE as error:
        raise CodecError(where, "body", _head(body), f"is no JSON: {error}") from error


def _explain(message: str, body: bytes, where: str) -> CodecError:
    """Name field and value of what msgspec found wrong."""
    match = _AT.search(message)
    path = match.group(1) if match else ""
    problem = message[: match.start()] if match else message
    value: Any = _head(body)
    with contextlib.suppress(*_UNREADABLE, KeyError, IndexError, TypeError):
        value = msgspec.json.decode(body)
        for key, index in _STEP.findall(path):
            value = value[key] if key else value[int(index)]
    return CodecError(where, path.lstrip(".") or "body", value, f"({problem})")


def _head(body: bytes) -> str:
    return body[:40].decode("utf-8", "replace")
