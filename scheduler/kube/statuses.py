"""What a Tenant or Fleet object's status says; the keys are those of `config.objects`.

Amounts are written as people read them: ``8``, ``12.5``. A status that says the same
is the same, to the letter: a condition keeps its time until it turns.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.config.objects import MAX_CLASSES, MAX_MESSAGE, MAX_NAMESPACES
from scheduler.core import QUANTA_PER_GPU, TenantUse, charge

_NAMED = 5
"""So many contested namespaces are named, the others counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What there is to say about an object.

    Parameters
    ----------
    generation
        The newest that was looked at.
    accepted
        Generation and spec of what is in force; None: nothing.
    reason, problem
        Why the newest is not in force; empty if it is.
    rows
        Who holds what; None for a Fleet.
    groups
        Forms that are class groups: what they use is in the rows of their members.
    lost_parent
        Parent that is gone; None if there is none or it is there.
    """

    generation: int
    accepted: tuple[int, Mapping[str, Any]] | None
    reason: str
    problem: str
    rows: Sequence[TenantUse] | None = None
    groups: Collection[str] = ()
    namespaces: Sequence[str] = ()
    contested: Mapping[str, str] = field(default_factory=dict)
    lost_parent: str | None = None


def status_of(report: Report, told: Mapping[str, Any], now_iso: str) -> dict[str, Any]:
    """Return the status; conditions that have not turned keep their time in `told`."""
    since = {c.get("type"): c for c in told.get("conditions") or ()}
    status: dict[str, Any] = {
        "observedGeneration": report.generation,
        "conditions": [
            _condition(report, kind, says, since.get(kind), now_iso)
            for kind, says in _all_conditions(report).items()
        ],
    }
    if report.accepted is not None:
        generation, spec = report.accepted
        status["accepted"] = {"generation": generation, "spec": spec}
    if report.rows is not None:
        rows = sorted(report.rows, key=lambda row: row.form)
        status["namespaces"] = list(report.namespaces[:MAX_NAMESPACES])
        status["classes"] = [_class(row) for row in rows[:MAX_CLASSES]]
        status["totals"] = _totals(rows, report.groups)
    return status


# -- conditions ------------------------------------------------------------------

Says = tuple[bool, str, str]
"""Whether it is so, why in one word, and why with the numbers."""


def _all_conditions(report: Report) -> dict[str, Says]:
    accepted = _accepted(report)
    wrong = dict(_wrong(report))
    first = accepted if not accepted[0] else next(iter(wrong.values()), None)
    ready = (False, *first[1:]) if first else (True, "InForce", "")
    return {"Ready": ready, "Accepted": accepted, **wrong}


def _accepted(report: Report) -> Says:
    generation = report.generation
    if not report.problem:
        return True, "InForce", f"generation {generation} is in force"
    rest = "nothing of it is in force"
    if report.accepted is not None:
        rest = f"generation {report.accepted[0]} stays in force"
    room = MAX_MESSAGE - 200
    problem = report.problem
    problem = problem if len(problem) <= room else f"{problem[:room]}..."
    told = f"generation {generation} is refused: {problem}; {rest}"
    return False, report.reason, told


def _wrong(report: Report) -> Iterator[tuple[str, Says]]:
    """Yield what is not as the owner wrote it, the gravest first."""
    told: dict[str, list[str]] = {}
    for row in report.rows or ():
        for text in row.conditions:
            kind, _, says = text.partition(": ")
            if says not in told.setdefault(kind, []):
                told[kind].append(says)
    if report.lost_parent is not None:
        told["Orphan"] = [
            f"its parent {report.lost_parent!r} is gone; it stands as a root until "
            "that is back"
        ]
    if report.contested:
        told["Contested"] = [_contested(report.contested)]
    order = ("Unreachable", "Orphan", "Inner", "Contested")
    for kind in sorted(told, key=lambda k: (k not in order, (*order, k).index(k), k)):
        yield kind, (True, kind, "; ".join(told[kind])[:MAX_MESSAGE])


def _contested(contested: Mapping[str, str]) -> str:
    pairs = sorted(contested.items())
    named = ", ".join(f"{name} (to {owner})" for name, owner in pairs[:_NAMED])
    more = len(pairs) - _NAMED
    rest = f" and {more} more" if more > 0 else ""
    return f"namespaces that it selects belong to older tenants: {named}{rest}"


def _condition(
    report: Report,
    kind: str,
    says: Says,
    before: Mapping[str, Any] | None,
    now_iso: str,
) -> dict[str, Any]:
    is_so, reason, message = says
    status = "True" if is_so else "False"
    kept = before is not None and before.get("status") == status
    since = before.get("lastTransitionTime") if before is not None and kept else None
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since or now_iso,
        "observedGeneration": report.generation,
    }


# -- amounts ---------------------------------------------------------------------


def _class(row: TenantUse) -> dict[str, Any]:
    amounts = {
        "guaranteed": row.guarantee,
        "promised": row.promised,
        "used": row.used,
        "covered": row.covered,
        "burst": row.burst,
        "pending": row.pending,
        "share": row.share,
        "leaving": row.leaving,
    }
    if row.limit is not None:
        amounts["limit"] = row.limit
    unit = charge(row.form)
    told = {key: decimals(amount, unit) for key, amount in amounts.items()}
    return {"form": row.form, **told}


def _totals(rows: Sequence[TenantUse], groups: Collection[str]) -> dict[str, str]:
    """Add up the rows; a group's guarantee adds to its members', its use is theirs."""
    forms = [row for row in rows if row.form not in groups]
    totals = {
        "guaranteed": sum(row.guarantee for row in rows),
        "used": sum(row.used for row in forms),
        "burst": sum(row.burst for row in forms),
        "pending": sum(row.pending for row in forms),
        "fair": sum(row.share for row in forms),
    }
    return {key: decimals(amount, QUANTA_PER_GPU) for key, amount in totals.items()}


def decimals(quanta: int, unit: int) -> str:
    """Write quanta in units, with at most three decimals: ``8``, ``12.5``."""
    whole, milli = divmod(round(quanta * 1000 / unit), 1000)
    return f"{whole}.{milli:03}".rstrip("0").rstrip(".")
