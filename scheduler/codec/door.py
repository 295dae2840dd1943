"""Standalone mode's own messages: events in, wishes and views out.

Hidden here: their JSON (camelCase, one event a line). A batch of events is read whole
before anything is made of it, and the first bad line refuses all of it.

Deadlines of the core are monotonic seconds; outside they are UTC, for people and for
other machines, next to the seconds that are left.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from scheduler.codec.errors import CodecError, RefusedError
from scheduler.codec.objects import PodObject
from scheduler.codec.pod import Naming, pod_of
from scheduler.codec.verbs import decode
from scheduler.core import (
    QUANTA_PER_GPU,
    CheckpointDone,
    CheckpointRequest,
    Event,
    Evict,
    Explanation,
    Form,
    Node,
    NodeChanged,
    NodeName,
    PodBound,
    PodGone,
    PodUid,
    QueueEntry,
    TenantUse,
    charge,
)
from scheduler.tenancy import Tenancy

MAX_ACKNOWLEDGED = 10_000
MAX_LINES = 100_000


# -- events -------------------------------------------------------------------


class _Line(Struct, tag_field="type", forbid_unknown_fields=True):
    """What all lines have in common."""


class BoundLine(_Line, tag="PodBound"):
    """A pod sits on a node; with `pod` it need not have been seen before."""

    uid: str
    node: str
    pod: PodObject | None = None


class GoneLine(_Line, tag="PodGone"):
    """A pod released its devices."""

    uid: str


class NodeLine(_Line, tag="NodeChanged"):
    """A node joined, or offers something else; in the form of the settings file."""

    node: Raw


class CheckpointLine(_Line, tag="CheckpointDone"):
    """A pod wrote a checkpoint."""

    uid: str


class TenantsLine(_Line, tag="TenantsChanged"):
    """The tenant tree is replaced; in the form of the settings file.

    Without `fleet`, what holds for the whole tree stays.
    """

    tenants: Raw
    fleet: Raw = Raw()


Line = BoundLine | GoneLine | NodeLine | CheckpointLine | TenantsLine

_line = msgspec.json.Decoder(Line)


@dataclass(frozen=True, slots=True)
class Reported:
    """An event, or a tenant tree, and the line that said so (1 first)."""

    line: int
    event: Event | Tenancy


@dataclass(frozen=True, slots=True)
class Readers:
    """How parts in the form of the settings file are read; they raise ValueError.

    Parameters
    ----------
    node
        Reads a node; the text is what its keys are named after.
    tenancy
        Reads ``tenants`` and ``fleet``, whichever are there.
    """

    node: Callable[[object, str], Node]
    tenancy: Callable[[Mapping[str, object]], Tenancy]


def decode_events(body: bytes, naming: Naming, read: Readers) -> tuple[Reported, ...]:
    """Read a batch of events, one JSON object a line.

    Pods in later lines belong to tenants as earlier lines say.

    Raises
    ------
    CodecError
        For the first line that cannot be read: names line, field and value.
    """
    if body.count(b"\n") > MAX_LINES:
        problem = f"lines are more than {MAX_LINES}"
        raise CodecError("events", "body", body.count(b"\n"), problem)
    found: list[Reported] = []
    for number, text in enumerate(body.split(b"\n"), start=1):
        if text.strip():
            where = f"line {number}"
            event = _event(decode(_line, text, where), where, naming, read)
            found.append(Reported(number, event))
            if isinstance(event, Tenancy):
                naming = replace(naming, tenants=event.owners)
    return tuple(found)


def _event(line: Line, where: str, naming: Naming, read: Readers) -> Event | Tenancy:
    if isinstance(line, NodeLine):
        return NodeChanged(_node(line, where, read.node))
    if isinstance(line, TenantsLine):
        return _tenancy(line, where, read.tenancy)
    if not line.uid:
        raise CodecError(where, "uid", line.uid, "must not be empty")
    uid = PodUid(line.uid)
    if isinstance(line, GoneLine):
        return PodGone(uid)
    if isinstance(line, CheckpointLine):
        return CheckpointDone(uid)
    return _bound(line, where, naming)


def _tenancy(
    line: TenantsLine, where: str, read: Callable[[Mapping[str, object]], Tenancy]
) -> Tenancy:
    parts = {"tenants": line.tenants, "fleet": line.fleet}
    raw = {key: msgspec.json.decode(part) for key, part in parts.items() if bytes(part)}
    try:
        return read(raw)
    except ValueError as error:
        raise RefusedError(where, str(error).splitlines()) from error


def _node(line: NodeLine, where: str, read_node: Callable[[object, str], Node]) -> Node:
    try:
        return read_node(msgspec.json.decode(line.node), "node")
    except ValueError as error:
        problem = "; ".join(str(error).splitlines())
        raise CodecError(where, "node", bytes(line.node).decode(), problem) from error


def _bound(line: BoundLine, where: str, naming: Naming) -> PodBound:
    uid, node = PodUid(line.uid), NodeName(line.node)
    if line.pod is None:
        return PodBound(uid, node)
    pod = pod_of(line.pod, naming)
    if pod is None:
        raise CodecError(where, "pod", line.pod.title, "asks for no GPU")
    if pod.uid != uid:
        raise CodecError(where, "pod.metadata.uid", pod.uid, f"is not uid {uid!r}")
    return PodBound(uid, node, pod)


def encode_applied(count: int) -> bytes:
    """Write the answer to a batch of `count` events."""
    return msgspec.json.encode({"applied": count})


# -- wishes -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """An action that waits to be performed: its number, and the pod's name."""

    id: int
    action: CheckpointRequest | Evict
    pod: str


class WishMessage(Struct, rename="camel", omit_defaults=True):
    """A wish as it is sent."""

    id: int
    type: str
    uid: str
    pod: str
    gang: str
    node: str
    reason: str | UnsetType = UNSET
    grace_seconds: float | UnsetType = UNSET
    deadline: str | UnsetType = UNSET
    seconds_left: float | UnsetType = UNSET
    beneficiary: str | UnsetType | None = UNSET


class Wishes(Struct):
    """The answer to a poll; `last` is what to poll `after` next."""

    actions: list[WishMessage]
    last: int


class Acknowledgement(Struct, forbid_unknown_fields=True):
    """Numbers of actions that have been taken care of."""

    ids: list[int] = field(default_factory=list)


_acknowledgement = msgspec.json.Decoder(Acknowledgement)


def encode_wishes(wishes: Sequence[Wish], last: int, now: float) -> bytes:
    """Write the answer to a poll; `now` is what the deadlines count in, seconds."""
    today = datetime.now(UTC)
    messages = [_wish_message(wish, now, today) for wish in wishes]
    return msgspec.json.encode(Wishes(messages, last))


def _wish_message(wish: Wish, now: float, today: datetime) -> WishMessage:
    action = wish.action
    message = WishMessage(
        id=wish.id,
        type=type(action).__name__,
        uid=action.uid,
        pod=wish.pod,
        gang=action.gang,
        node=action.node,
        beneficiary=action.beneficiary,
    )
    if isinstance(action, Evict):
        message.reason = action.reason
        message.grace_seconds = action.grace_s
    else:
        left = action.deadline - now
        message.deadline = (today + timedelta(seconds=left)).isoformat("T", "seconds")
        message.seconds_left = round(max(0.0, left), 3)
    return message


def decode_acknowledgement(body: bytes) -> tuple[int, ...]:
    """Read which actions have been taken care of.

    Raises
    ------
    CodecError
        When the body is no such list.
    """
    ids = decode(_acknowledgement, body, "acknowledgement").ids
    if len(ids) > MAX_ACKNOWLEDGED:
        problem = f"are more than {MAX_ACKNOWLEDGED}"
        raise CodecError("acknowledgement", "ids", len(ids), problem)
    return tuple(ids)


def encode_acknowledged(count: int) -> bytes:
    """Write the answer to an acknowledgement; `count` wishes were still there."""
    return msgspec.json.encode({"acknowledged": count})


# -- views --------------------------------------------------------------------


class AmountView(Struct):
    """An amount of one form: in its own devices, and in whole GPUs."""

    devices: float
    gpus: float


class TenantView(Struct):
    """One queue and form, or class group; `guarantee` is what is kept of `promised`."""

    tenant: str
    parent: str | None
    form: str
    guarantee: AmountView
    promised: AmountView
    used: AmountView
    burst: AmountView
    pending: AmountView
    share: AmountView
    leaving: AmountView
    limit: AmountView | None
    conditions: Sequence[str]


class QueueView(Struct, rename="camel"):
    """One waiting gang."""

    position: int
    gang: str
    tenant: str
    workload_class: str
    pods: int
    gpus: float
    forms: Sequence[str]
    waiting_seconds: float
    covered: bool
    reason: str
    message: str


class ExplanationView(Struct, rename="camel"):
    """Why one pod is where it is."""

    uid: str
    name: str
    tenant: str
    gang: str
    workload_class: str
    reason: str
    message: str
    detail: str
    node: str | None
    covered: bool | None
    position: int | None
    blockers: Sequence[str]


def _amount(quanta: int, form: Form) -> AmountView:
    return AmountView(quanta / charge(form), quanta / QUANTA_PER_GPU)


def _tenant_view(row: TenantUse) -> TenantView:
    return TenantView(
        tenant=row.name,
        parent=row.parent,
        form=row.form,
        guarantee=_amount(row.guarantee, row.form),
        promised=_amount(row.promised, row.form),
        used=_amount(row.used, row.form),
        burst=_amount(row.burst, row.form),
        pending=_amount(row.pending, row.form),
        share=_amount(row.share, row.form),
        leaving=_amount(row.leaving, row.form),
        limit=None if row.limit is None else _amount(row.limit, row.form),
        conditions=row.conditions,
    )


def _queue_view(entry: QueueEntry, now: float) -> QueueView:
    return QueueView(
        position=entry.position,
        gang=entry.gang,
        tenant=entry.tenant,
        workload_class=entry.workload_class.label,
        pods=entry.pods,
        gpus=entry.quanta / QUANTA_PER_GPU,
        forms=entry.forms,
        waiting_seconds=round(now - entry.submitted, 3),
        covered=entry.covered,
        reason=entry.reason.name,
        message=entry.reason.value,
    )


def encode_tenants(rows: Iterable[TenantUse]) -> bytes:
    """Write who holds what."""
    return msgspec.json.encode({"tenants": [_tenant_view(row) for row in rows]})


def encode_queue(entries: Iterable[QueueEntry], now: float) -> bytes:
    """Write the waiting gangs in the order of decision."""
    return msgspec.json.encode({"queue": [_queue_view(e, now) for e in entries]})


def encode_explanation(found: Explanation) -> bytes:
    """Write why a pod is where it is."""
    view = ExplanationView(
        uid=found.uid,
        name=found.name,
        tenant=found.tenant,
        gang=found.gang,
        workload_class=found.workload_class.label,
        reason=found.reason.name,
        message=found.reason.value,
        detail=found.detail,
        node=found.node,
        covered=found.covered,
        position=found.position,
        blockers=found.blockers,
    )
    return msgspec.json.encode(view)
