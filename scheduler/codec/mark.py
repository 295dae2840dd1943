"""The admission mark: what a pod was admitted to, written on the pod itself.

Who uses what can be rebuilt from the marks alone after any restart. Whether the use is
covered or burst is not in them: it changes with the demand of others.

Hidden here: the mark's form, JSON in an annotation. `VERSION` rises when an older
reader would misunderstand a newer mark; keys that are merely added do not raise it, so
unknown ones are ignored.
"""

import msgspec
from msgspec import Struct

from scheduler.codec.errors import CodecError
from scheduler.core import Form, TenantName, WorkloadClass, parse_form, workload_class

GATE = "fairshare.dev/admission"
"""The scheduling gate; a pod that has it has not been admitted."""

ADMISSION = "fairshare.dev/admission"
"""The annotation that holds the mark."""

CHECKPOINT_DEADLINE = "fairshare.dev/checkpoint-deadline"
"""The annotation that asks for a checkpoint: the pod is evicted at that time (UTC)."""

HOLD = "fairshare.dev/hold"
"""The annotation of a gated pod whose nomination keeps room free: whom it waits for."""

VERSION = 1
MAX_MARK = 4096
"""Characters; what is longer was not written by us."""

MAX_QUANTA = 2**53 - 1
"""The largest number that every reader of JSON keeps exactly."""


class Mark(Struct, frozen=True, gc=False):
    """What a pod was admitted to.

    Parameters
    ----------
    tenant, workload_class
        Who is charged, and as what.
    form
        What its devices are.
    quanta
        What it is charged.
    gang
        ``namespace/name``, empty for a pod on its own.
    decision
        Names the decision in events and logs.
    node
        Where it is planned to run. It is nominated there too, but kube-scheduler wipes
        nominations, above all while nobody answers it.
    epoch
        Counts changes of the leading service; a mark of an earlier one was inherited.
    version
        Of the mark's form.
    """

    tenant: TenantName
    workload_class: WorkloadClass
    form: Form
    quanta: int
    gang: str
    decision: str
    epoch: int = 0
    version: int = VERSION
    node: str = ""


class _Version(Struct):
    """What is read first: whether the rest means what we think."""

    version: int


class _Written(Struct, omit_defaults=True, rename={"workload_class": "class"}):
    """The mark as it is written."""

    version: int
    tenant: str
    workload_class: str
    form: str
    quanta: int
    decision: str
    gang: str = ""
    epoch: int = 0
    node: str = ""


_version = msgspec.json.Decoder(_Version)
_written = msgspec.json.Decoder(_Written)
_WHERE = f"annotation {ADMISSION}"


def encode_mark(mark: Mark) -> str:
    """Write a mark as the text of the annotation."""
    written = _Written(
        version=mark.version,
        tenant=mark.tenant,
        workload_class=mark.workload_class.label,
        form=mark.form,
        quanta=mark.quanta,
        gang=mark.gang,
        decision=mark.decision,
        epoch=mark.epoch,
        node=mark.node,
    )
    return msgspec.json.encode(written).decode()


def decode_mark(text: str) -> Mark:
    """Read the annotation.

    Raises
    ------
    CodecError
        When it is no mark, or one of a version that is not known: names field and
        value.
    """
    if len(text) > MAX_MARK:
        raise CodecError(_WHERE, "text", text, f"is longer than {MAX_MARK}")
    try:
        version = _version.decode(text).version
        if version != VERSION:
            raise CodecError(_WHERE, "version", version, f"is not {VERSION}")
        return _mark(_written.decode(text))
    except msgspec.DecodeError as error:
        raise CodecError(_WHERE, "text", text, f"is no mark: {error}") from error


def _mark(written: _Written) -> Mark:
    if not written.tenant:
        raise CodecError(_WHERE, "tenant", written.tenant, "must not be empty")
    for field in ("quanta", "epoch"):
        value = getattr(written, field)
        if not 0 <= value <= MAX_QUANTA:
            raise CodecError(_WHERE, field, value, "is out of range")
    try:
        member = workload_class(written.workload_class)
    except ValueError as error:
        known = "is no workload class"
        raise CodecError(_WHERE, "class", written.workload_class, known) from error
    try:
        form = parse_form(written.form)
    except ValueError as error:
        raise CodecError(_WHERE, "form", written.form, f"is none: {error}") from error
    return Mark(
        tenant=TenantName(written.tenant),
        workload_class=member,
        form=form,
        quanta=written.quanta,
        gang=written.gang,
        decision=written.decision,
        epoch=written.epoch,
        version=written.version,
        node=written.node,
    )
