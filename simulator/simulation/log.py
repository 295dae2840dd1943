"""What happened, record by record: the one output of a simulation.

Hidden here: the form of the records, and their bytes. Everything that is reported
(`metrics`, `audit`, `report`) is computed from this log and the trace, so policies are
judged alike, from outside.

The log is append-only and in the order of time. As a file it holds one JSON array a
line: the name of the record and its fields, in the order below. Times and durations
are seconds, amounts quanta, `member` is the index of a pod in its gang.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple, TextIO

from scheduler.core import Form, GangId, NodeName


class Submitted(NamedTuple):
    """A job asks for its devices; `attempt` counts from 0, a return from 1."""

    at: float
    job: str
    attempt: int
    gang: GangId


class Admitted(NamedTuple):
    """The scheduler lets a pod start on a node."""

    at: float
    job: str
    member: int
    node: NodeName
    form: Form
    quanta: int


class Withdrawn(NamedTuple):
    """The scheduler took an admission back before the pod was bound."""

    at: float
    job: str
    member: int


class Bound(NamedTuple):
    """A pod holds its devices."""

    at: float
    job: str
    member: int


class Started(NamedTuple):
    """All members are bound and up: work goes on."""

    at: float
    job: str


class CheckpointAsked(NamedTuple):
    """The job is to save its work by `deadline`."""

    at: float
    job: str
    deadline: float


class CheckpointWritten(NamedTuple):
    """The checkpoint that was asked for is complete."""

    at: float
    job: str


class Evicted(NamedTuple):
    """The scheduler stops a pod; `beneficiary` is the gang that gets the room."""

    at: float
    job: str
    member: int
    reason: str
    beneficiary: GangId


class Stopped(NamedTuple):
    """An eviction ended an attempt, which may not have got as far as to work.

    `kept_s` is the work of this attempt that survives, `lost_s` what has to be done
    again and what the restart before it cost.
    """

    at: float
    job: str
    kept_s: float
    lost_s: float


class Gone(NamedTuple):
    """The devices of a pod are free."""

    at: float
    job: str
    member: int


class Finished(NamedTuple):
    """The job is complete; amounts as in `Stopped`."""

    at: float
    job: str
    kept_s: float
    lost_s: float


Record = (
    Submitted
    | Admitted
    | Withdrawn
    | Bound
    | Started
    | CheckpointAsked
    | CheckpointWritten
    | Evicted
    | Stopped
    | Gone
    | Finished
)


def write_log(records: Iterable[Record], stream: TextIO) -> None:
    """Write the log as JSON lines; the same log gives the same bytes."""
    encode = json.JSONEncoder(separators=(",", ":")).encode
    for record in records:
        stream.write(encode([type(record).__name__, *map(_plain, record)]) + "\n")


def _plain(value: object) -> object:
    """Write times to the microsecond, whole seconds without a fraction."""
    if not isinstance(value, float):
        return value
    rounded = round(value, 6)
    return int(rounded) if rounded.is_integer() else rounded
