"""Runs cases, and adds up what came of them.

An outcome depends on a case's inputs and on what it expects, never on its id. `passed`:
the product (or an oracle) gives the peer's answer. `differs`: it does not, and a named
difference says why. `failed`: it does not, and nothing says why; that includes a case
that cannot be read. `skipped`: a kind that is later work.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tests.conformance.differences import difference
from tests.conformance.kinds import ADAPTERS, LATER, kind_of
from tests.conformance.verdict import Case, Subject, Verdict

Outcome = Literal["passed", "failed", "differs", "skipped"]

AGREEING: Final = 0.97
"""Least part of the applicable (passed or failed) that must pass, per kind."""

DIFFERING: Final = 0.10
"""Largest part of a kind that may differ on purpose."""


class BadFile(ValueError):  # noqa: N818 - says what is wrong with the input
    """A file that holds no cases, with one line that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one case."""

    id: str
    kind: str
    outcome: Outcome
    subject: Subject = "product"
    reason: str = ""


def load(path: Path) -> list[Any]:
    """Read the cases of a file.

    Raises
    ------
    BadFile
        When it cannot be read, is no JSON, or has no list ``cases``.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise BadFile(f"{path}: no JSON: {error}") from error
    cases = data.get("cases") if isinstance(data, dict) else None
    if not isinstance(cases, list):
        raise BadFile(f"{path}: no list `cases`")
    return cases


def id_of(case: Any, place: int) -> str:
    """Return the id of a case, or its place in the file where it has none."""
    if isinstance(case, dict) and case.get("id") is not None:
        return str(case["id"])
    return f"#{place}"


def run(
    cases: Sequence[Any], progress: Callable[[], None] = lambda: None
) -> list[Result]:
    """Judge all cases; `progress` is called after each."""
    results = []
    for place, case in enumerate(cases, start=1):
        results.append(judge(case, id_of(case, place)))
        progress()
    return results


def judge(case: Any, name: str) -> Result:
    """Judge one case. Whatever it raises is its own failure."""
    if not isinstance(case, dict):
        return Result(id=name, kind="unknown", outcome="failed", reason="no object")
    kind = kind_of(case)
    if kind in LATER:
        return Result(id=name, kind=kind, outcome="skipped", reason=LATER[kind])
    if kind not in ADAPTERS:
        told = f"unknown kind {case.get('kind')!r}"
        return Result(id=name, kind=kind, outcome="failed", reason=told)
    try:
        return _judge(case, kind, name)
    except Exception as error:  # a broken case must not end the run
        told = f"{type(error).__name__}: {error}"
        return Result(id=name, kind=kind, outcome="failed", reason=told)


def _judge(case: Case, kind: str, name: str) -> Result:
    verdict = ADAPTERS[kind](case)
    outcome: Outcome = "passed"
    reason = ""
    if not verdict.agrees:
        found = difference(kind, case, verdict.got)
        outcome = "failed" if found is None else "differs"
        why = "" if found is None else f"{found.name}: {found.reason}; "
        reason = f"{why}{_answers(verdict)}"
    return Result(
        id=name, kind=kind, outcome=outcome, subject=verdict.subject, reason=reason
    )


def _answers(verdict: Verdict) -> str:
    return f"theirs {verdict.expected}, ours {verdict.got}"


# -- totals -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tally:
    """Outcomes of one kind."""

    kind: str
    subject: Subject
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def agreeing(self) -> float | None:
        """Part of the applicable that agrees; None where nothing is applicable."""
        applicable = self.counts["passed"] + self.counts["failed"]
        return self.counts["passed"] / applicable if applicable else None

    @property
    def differing(self) -> float:
        """Part of all answers that differs on purpose."""
        answers = sum(self.counts.values()) - self.counts["skipped"]
        return self.counts["differs"] / answers if answers else 0.0

    def shortfalls(self) -> list[str]:
        """Which thresholds the kind misses; only the product's own answers count."""
        found: list[str] = []
        if self.subject != "product":
            return found
        if self.agreeing is not None and self.agreeing < AGREEING:
            found.append(f"{self.kind}: {self.agreeing:.1%} agree, {AGREEING:.0%} must")
        if self.differing > DIFFERING:
            found.append(
                f"{self.kind}: {self.differing:.1%} differ, {DIFFERING:.0%} may"
            )
        return found


def tally(results: Iterable[Result]) -> list[Tally]:
    """Add up by kind, in the order of their names."""
    found: dict[tuple[str, Subject], Tally] = {}
    for result in results:
        key = (result.kind, result.subject)
        found.setdefault(key, Tally(*key)).counts[result.outcome] += 1
    return [found[key] for key in sorted(found)]
