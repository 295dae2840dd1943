"""The runner: what it says of the peers' tables, and of broken and tampered rows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conformance.__main__ import app
from tests.conformance.differences import TABLE
from tests.conformance.kinds import ADAPTERS, LATER
from tests.conformance.runner import judge, load, run, tally

CASES = Path(__file__).parents[2].parent / "shared" / "cases"
FILES = sorted(CASES.glob("*.json"))
needs_cases = pytest.mark.skipif(not FILES, reason="the peers' cases are not here")

GOOD = {
    "id": "mine-1",
    "kind": "fair_share",
    "total": 3,
    "queues": [{"name": "a", "request": 5, "over_quota_weight": 1}],
    "expected": {"fair_share": {"a": 3}, "remaining": 0},
}


def write(path: Path, *cases: Any) -> Path:
    path.write_text(json.dumps({"meta": {}, "cases": cases}))
    return path


def invoke(*args: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.output


def all_cases() -> list[dict[str, Any]]:
    return [case for path in FILES for case in load(path)]


# -- the peers' tables --------------------------------------------------------


@needs_cases
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_peers_own_tables_agree_with_the_product(path: Path) -> None:
    results = run(load(path))
    assert [r for r in results if r.outcome == "failed"] == []
    assert [line for found in tally(results) for line in found.shortfalls()] == []


@needs_cases
def test_every_kind_is_seen() -> None:
    """An adapter without a row of its kind would be untested."""
    kinds = {r.kind for r in run(all_cases())}
    assert set(ADAPTERS) <= kinds <= set(ADAPTERS) | set(LATER)


@needs_cases
def test_no_outcome_depends_on_the_id() -> None:
    cases = all_cases()
    told = [r.outcome for r in run(cases)]
    assert [r.outcome for r in run([{**c, "id": "x"} for c in cases])] == told


@needs_cases
def test_a_tampered_expectation_never_passes() -> None:
    """Each expected value is changed in turn: no adapter may overlook one."""
    for case in all_cases():
        if case.get("kind") in ADAPTERS:
            for changed in tampered(case):
                assert judge(changed, "x").outcome != "passed", changed


@needs_cases
def test_ids_in_the_table_of_differences_do_differ() -> None:
    outcomes = {r.id: r.outcome for r in run(all_cases())}
    seen = [name for found in TABLE for name in found.seen]
    assert {outcomes.get(name, "differs") for name in seen} <= {"differs"}


def tampered(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the case once for every expected value, with that value changed."""
    text = json.dumps(case)
    found = []
    for key in case:
        # a flag that is false asserts nothing, nor does the sign of what is finite
        silent = isinstance(case[key], bool) or key == "expectedInfSign"
        if key.startswith("expected") and not silent:
            for place in places(case[key]):
                copy = json.loads(text)
                change(copy, [key, *place])
                found.append(copy)
    return found


def places(value: Any) -> list[list[Any]]:
    """Where a change of what is expected must be noticed."""
    if isinstance(value, dict):
        return [
            [k, *rest]
            for k in value
            if k not in ("tolerance", "node", "nodeType", "flavor")
            and (k != "resource" or value.get("blocked"))
            for rest in places(value[k])
        ]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [[i, *rest] for i, row in enumerate(value) for rest in places(row)]
    return [[]]


def change(case: dict[str, Any], place: list[Any]) -> None:
    *way, last = place
    at: Any = case
    for step in way:
        at = at[step]
    old = at[last]
    if isinstance(old, bool):
        at[last] = not old
    elif isinstance(old, int | float):
        at[last] = old + 1
    elif isinstance(old, list):
        at[last] = [*old, "nobody"]
    elif old == "inf":
        at[last] = 0
    else:
        at[last] = {"left": "right", "right": "left"}.get(old, "nothing known")


# -- rows of other kinds, and broken ones -------------------------------------


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (7, "no object"),
        ({}, "unknown kind"),
        ({"kind": "fair_shares"}, "unknown kind 'fair_shares'"),
        ({"kind": "fair_share"}, "KeyError"),
        ({"kind": "fair_share", "total": "many", "queues": []}, "ValueError"),
        ({"kind": "usage-decay", "input": {}, "expected": {"x": 1}}, "nothing known"),
        ({**GOOD, "expected": {"fair_share": {"a": 2}}}, "theirs"),
    ],
)
def test_a_broken_row_fails_alone(case: Any, told: str) -> None:
    bad, good = run([case, GOOD])
    assert bad.outcome == "failed"
    assert told in bad.reason
    assert good.outcome == "passed"


@pytest.mark.parametrize("kind", sorted(set(LATER) - {"volcano", "issue"}))
def test_later_kinds_are_skipped_with_a_reason(kind: str) -> None:
    result = judge({"kind": kind}, "x")
    assert (result.outcome, result.reason) == ("skipped", LATER[kind])


def test_rows_without_a_kind_are_known_by_their_fields() -> None:
    rows = [
        {"actions": [], "podgroups": [], "nodes": []},
        {"setup": {}, "target": {}},
    ]
    assert [judge(row, "x").kind for row in rows] == ["volcano", "issue"]


# -- the command --------------------------------------------------------------


def test_an_unseen_file_runs_and_is_written_as_json(tmp_path: Path) -> None:
    path, out = write(tmp_path / "new.json", GOOD, {"kind": "scenario"}), tmp_path / "o"
    code, text = invoke(path, "--json", out)
    assert code == 0
    assert "fair_share" in text
    assert json.loads(out.read_text()) == [
        {
            "id": "mine-1",
            "kind": "fair_share",
            "outcome": "passed",
            "subject": "product",
            "reason": "",
        },
        {
            "id": "#2",
            "kind": "scenario",
            "outcome": "skipped",
            "subject": "product",
            "reason": LATER["scenario"],
        },
    ]


def test_a_failure_is_an_exit_code_and_a_line(tmp_path: Path) -> None:
    bad = {**GOOD, "id": "bad", "expected": {"fair_share": {"a": 2}}}
    path = write(tmp_path / "bad.json", GOOD, bad)
    code, text = invoke(path)
    assert code == 1
    assert "failed  fair_share bad" in text
    assert "50.0% agree, 97% must" in text
    assert invoke(path, "--only", "mine-1")[0] == 0
    assert invoke(path, "--only", "bad")[0] == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"cases": 3}', "\\xff"])
def test_a_bad_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    code, told = invoke(path)
    assert code == 2
    assert told.count("\n") == 1
    assert told.startswith(f"error: {path}: no ")


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    code, told = invoke(tmp_path / "none.json")
    assert (code, told.count("\n")) == (2, 1)
    path = write(tmp_path / "new.json", GOOD)
    code, told = invoke(path, "--only", "none")
    assert (code, told) == (2, f"error: {path}: no case 'none'\n")
    code, told = invoke(path, "--json", tmp_path)
    assert (code, told.count("\n")) == (2, 1)


def test_too_many_differences_are_an_exit_code(tmp_path: Path) -> None:
    """Differing on purpose is for the exception, not a way to pass."""
    leak = {
        "kind": "fair_share",
        "total": 1,
        "queues": [
            {"name": name, "over_quota_weight": 1, "request": 0.6} for name in "ab"
        ],
        "expected": {"fair_share": {"a": 1, "b": 0}},
    }
    code, text = invoke(write(tmp_path / "new.json", leak, GOOD))
    assert code == 1
    assert "50.0% differ, 10% may" in text
    few = write(tmp_path / "new.json", leak, *[GOOD] * 9)
    assert invoke(few)[0] == 0
