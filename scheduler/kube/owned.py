"""A Tenant or Fleet object: what its owner wrote last, and what of it is in force.

The spec in force outlives a restart in the object's own status (``status.accepted``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from scheduler.codec.objects import ObjectMeta
from scheduler.config import ConfigError, FleetSpec, TenantSpec, read_spec
from scheduler.config.objects import GROUP, VERSION
from scheduler.kube.statuses import Report

S = TypeVar("S", TenantSpec, FleetSpec)


class TenantObject(Struct, gc=False):
    """A Tenant, as the API server shows it."""

    metadata: ObjectMeta
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


class FleetObject(TenantObject, gc=False):
    """A Fleet, as the API server shows it."""


@dataclass(frozen=True, slots=True)
class Accepted(Generic[S]):
    """A spec in force: as it is read, as it was written, and in which generation."""

    spec: S
    written: Mapping[str, Any]
    generation: int


@dataclass(slots=True, kw_only=True)
class Owned(Generic[S]):
    """One object.

    Parameters
    ----------
    newest
        What its owner wrote last; None when it cannot be read.
    reason, problem
        Why the newest is not in force, in one word and as a sentence; empty if it is.
    told
        The status that was read last, or handed out since.
    """

    meta: ObjectMeta
    written: Mapping[str, Any]
    newest: S | None = None
    accepted: Accepted[S] | None = None
    reason: str = ""
    problem: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def in_force(self) -> S | None:
        """The spec that counts."""
        return None if self.accepted is None else self.accepted.spec

    @property
    def waits(self) -> bool:
        """Whether the newest spec can be read and is not in force."""
        return self.newest is not None and self.newest != self.in_force

    @property
    def is_judged(self) -> bool:
        """Whether it is known what becomes of the newest spec."""
        return bool(self.problem) or not self.waits

    def says_the_same(self, other: "Owned[S] | None") -> bool:
        """Whether this is the same object, with the same spec: a status was written."""
        return (
            other is not None
            and self.meta.uid == other.meta.uid
            and self.newest is not None
            and self.newest == other.newest
        )

    @property
    def order(self) -> int:
        """Age, in seconds of the epoch; the API server's clock has no finer ones."""
        created = self.meta.creation_timestamp
        return int(datetime.fromisoformat(created).timestamp()) if created else 0

    def accept(self) -> None:
        """Put the newest spec into force, if it can be read."""
        if self.newest is not None:
            self.accepted = Accepted(self.newest, self.written, self.meta.generation)
            self.reason = self.problem = ""

    def refuse(self, reason: str, problem: str) -> None:
        """Leave what is in force as it is."""
        self.reason, self.problem = reason, problem

    def report(self) -> Report:
        """Return what there is to say about any such object."""
        accepted = self.accepted
        return Report(
            generation=self.meta.generation,
            accepted=(accepted.generation, accepted.written) if accepted else None,
            reason=self.reason,
            problem=self.problem,
        )

    def status_update(self, kind: str) -> bytes:
        """Return the body of the PUT that writes what was handed out last.

        A PUT, as a merge patch would merge the spec in force with the one before. It
        carries the resource version: 409 means that the object has changed since.
        """
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": kind,
            "metadata": {
                "name": self.meta.name,
                "uid": self.meta.uid,
                "resourceVersion": self.meta.resource_version,
            },
            "status": self.told,
        }
        return msgspec.json.encode(body)


def owned(model: type[S], obj: TenantObject, known: Owned[S] | None) -> Owned[S]:
    """Read an object; what is in force is known of it, or is said by its status."""
    found: Owned[S] = Owned(meta=obj.metadata, written=obj.spec, told=obj.status)
    try:
        found.newest = read_spec(model, obj.spec)
    except ConfigError as error:
        found.refuse("Invalid", "; ".join(str(error).splitlines()))
    if known is not None and known.meta.uid == obj.metadata.uid:
        found.accepted = known.accepted
        if found.says_the_same(known):
            found.refuse(known.reason, known.problem)
    else:
        found.accepted = _remembered(model, obj.status)
    if found.newest == found.in_force:
        found.accept()
    return found


def _remembered(model: type[S], status: Mapping[str, Any]) -> Accepted[S] | None:
    """Return the spec that a status says was in force, if it can be read."""
    try:
        accepted = status["accepted"]
        written, generation = accepted["spec"], int(accepted["generation"])
        return Accepted(read_spec(model, written), written, generation)
    except (KeyError, TypeError, ValueError):
        return None
