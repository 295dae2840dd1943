"""Events and actions as bytes, for recording, comparing and replaying.

One record is one line of JSON: ``{"at": seconds, "kind": "PodBound", ...fields}``.
Fields keep their declared order, floats their shortest exact form, so that equal
histories are equal bytes. Pure encoding: no files, no clock.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import msgspec

from scheduler.core.events import (
    Action,
    CheckpointDone,
    Event,
    NodeChanged,
    NodeDown,
    NodeUp,
    PodBound,
    PodGone,
    PodReplaced,
    PodStopping,
    PodSubmitted,
    TenantsChanged,
)

EVENTS: Mapping[str, type] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            NodeUp,
            NodeChanged,
            NodeDown,
            PodSubmitted,
            PodBound,
            PodReplaced,
            PodGone,
            PodStopping,
            CheckpointDone,
            TenantsChanged,
        )
    }
)


def encode(at: float, record: Event | Action) -> bytes:
    """Return one line, newline included, for what happened or was wished at `at`."""
    head: dict[str, object] = {"at": float(at), "kind": type(record).__name__}
    for field in fields(record):
        head[field.name] = _plain(getattr(record, field.name))
    return msgspec.json.encode(head) + b"\n"


def decode_event(line: bytes) -> tuple[float, Event]:
    """Return the time and the event of one line.

    Raises
    ------
    ValueError
        When the line is no event; the text names what is wrong with it.
    """
    raw = msgspec.json.decode(line, type=dict[str, Any])
    kind, at = raw.pop("kind", None), raw.pop("at", None)
    known = EVENTS.get(kind) if isinstance(kind, str) else None
    if known is None or isinstance(at, bool) or not isinstance(at, int | float):
        raise ValueError(f"not an event: kind {kind!r} at {at!r}")
    event: Event = msgspec.convert(raw, known)
    return float(at), event


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
