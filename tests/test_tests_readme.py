"""The tables of tests/README.md name tests that are there, and all traps."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent
TEXT = (FOLDER / "README.md").read_text()


def named() -> list[tuple[str, str]]:
    """File and test of every reference; one without a file is in the last named."""
    found, last = [], ""
    for file, test in re.findall(r"`(test_\w+\.py)?(?:::(test_\w+))?`", TEXT):
        last = file or last
        if test:
            found.append((last, test))
    return found


def test_every_test_that_is_named_is_there() -> None:
    references = named()
    assert len(references) > 80
    missing = [
        f"{file}::{test}"
        for file, test in references
        if f"def {test}(" not in (FOLDER / "e2e" / file).read_text()
    ]
    assert missing == []


def test_every_trap_has_a_row_that_says_more_than_its_name() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.*?) ?\| (.*?) ?\|$", TEXT, re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(range(1, 35))
    assert all(fact or ours for *_, fact, ours in rows)


def test_every_test_of_the_contract_is_in_a_table() -> None:
    files = ["test_wire.py", "test_requeue.py", "test_preempt.py"]
    files += sorted(path.name for path in (FOLDER / "e2e").glob("test_traps_*.py"))
    there = {
        (name, test)
        for name in files
        for test in re.findall(
            r"^def (test_\w+)\(", (FOLDER / "e2e" / name).read_text(), re.MULTILINE
        )
    }
    assert sorted(there - set(named())) == []
