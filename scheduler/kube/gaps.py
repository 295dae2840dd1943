"""What is missing between what is decided and what the API server shows.

Pure: plans and records in, steps out. A step is found again at every look until it is
no longer needed, so nothing has to be remembered about what was written.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from scheduler.codec import Mark, encode_mark
from scheduler.core import GangId, Leaving, Planned, PodUid
from scheduler.kube.records import Record


@dataclass(frozen=True, slots=True)
class Adorn:
    """Write mark, nomination and hold of a pod, all three in one call; None clears."""

    record: Record
    node: str | None = None
    mark: str | None = None
    hold: str | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """Let a gang start: adorn all of `adorn`, and when that is done open all gates.

    `decision` is the one by which it starts.
    """

    gang: GangId
    decision: int
    adorn: tuple[Adorn, ...]
    gates: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete a pod that can not go back to its gate; its controller makes another."""

    record: Record


@dataclass(frozen=True, slots=True)
class Ask:
    """Tell a pod until when it may save its work; None: it need not any more."""

    record: Record
    save_by: str | None


def admissions(
    plans: Iterable[Planned], records: Mapping[PodUid, Record], epoch: int
) -> list[Admission]:
    """Return what is missing of plans that are not holds, gang by gang.

    A gang of which a member is not there yet (a Job has to make it) does not begin.
    """
    gangs: dict[GangId, list[Planned]] = {}
    for plan in plans:
        if not plan.held:
            gangs.setdefault(plan.gang, []).append(plan)
    found = []
    for gang, members in gangs.items():
        if all(plan.uid in records for plan in members):
            admission = _admission(gang, members, records, epoch)
            if admission.adorn or admission.gates:
                found.append(admission)
    return found


def _admission(
    gang: GangId,
    plans: Sequence[Planned],
    records: Mapping[PodUid, Record],
    epoch: int,
) -> Admission:
    loose = [(plan, records[plan.uid]) for plan in plans]
    loose = [(plan, record) for plan, record in loose if record.node is None]
    adorn = (
        Adorn(record, plan.node, encode_mark(mark_of(plan, epoch)))
        for plan, record in loose
        if not is_admitted(plan, record)
    )
    gates = (record for _, record in loose if record.gated)
    return Admission(gang, plans[0].decision, tuple(adorn), tuple(gates))


def mark_of(plan: Planned, epoch: int) -> Mark:
    """Return the mark of an admission."""
    return Mark(
        tenant=plan.tenant,
        workload_class=plan.workload_class,
        form=plan.form,
        quanta=plan.quanta,
        gang=plan.gang,
        decision=f"{epoch}-{plan.decision}",
        epoch=epoch,
        node=plan.node,
    )


def is_admitted(plan: Planned, record: Record | None) -> bool:
    """Whether a pod carries its plan, or is bound; which decision does not matter."""
    if record is None or record.node is not None:
        return record is not None
    mark = record.admission()
    return (
        mark is not None
        and mark.tenant == plan.tenant
        and (mark.form, mark.quanta) == (plan.form, plan.quanta)
        and mark.workload_class is plan.workload_class
        and mark.node == record.nominated == plan.node
        and not record.hold
    )


def holds(
    plans: Iterable[Planned], records: Mapping[PodUid, Record], leader: str
) -> list[Adorn]:
    """Return what is missing of holds.

    A kube-scheduler that has just started ignores nominations of gated pods until the
    pods change: who leads is part of what is written.
    """
    found = []
    for plan in plans:
        record = records.get(plan.uid)
        if record is None or not plan.held or record.node is not None:
            continue
        hold = msgspec.json.encode({"node": plan.node, "scheduler": leader}).decode()
        if (record.nominated, record.mark, record.hold) != (plan.node, "", hold):
            found.append(Adorn(record, plan.node, None, hold))
    return found


def leftovers(
    adorned: Iterable[PodUid],
    records: Mapping[PodUid, Record],
    planned: Mapping[PodUid, Planned],
) -> list[Adorn | Discard]:
    """Return what is to be taken back from pods that nothing is planned for.

    A gate cannot be put back: a pod without one is deleted if somebody makes another,
    which comes gated, and else kept waiting.
    """
    found: list[Adorn | Discard] = []
    for uid in adorned:
        record = records[uid]
        if uid in planned or record.terminating:
            continue
        if record.gated or record.controller is None:
            found.append(Adorn(record))
        else:
            found.append(Discard(record))
    return found


def requests(
    leaving: Mapping[PodUid, Leaving],
    records: Mapping[PodUid, Record],
    asked: Iterable[PodUid],
    to_epoch: float,
) -> list[Ask]:
    """Return whom to ask to save its work, and whom not to any more.

    Parameters
    ----------
    to_epoch
        What to add to the engine's time to get seconds since the epoch.
    """
    found = []
    for uid, wish in leaving.items():
        record = records.get(uid)
        if record and wish.save_by is not None and not record.save_by:
            found.append(Ask(record, timestamp(wish.save_by + to_epoch)))
    for uid in asked:
        record = records[uid]
        if uid not in leaving and not record.terminating:
            found.append(Ask(record, None))
    return found


def timestamp(seconds: float) -> str:
    """Write seconds since the epoch as the API does."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
