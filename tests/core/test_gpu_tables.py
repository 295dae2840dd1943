"""The committed table is what the collected facts say, byte for byte."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / "deploy" / "tools" / "generate_gpu_tables.py"
FACTS = ROOT.parent / "shared" / "facts" / "mig_profiles.yaml"


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(GENERATOR), "--check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(
    not FACTS.exists(), reason="the collected facts are not beside this checkout"
)
def test_the_table_is_current() -> None:
    assert check().returncode == 0


@pytest.mark.skipif(
    not FACTS.exists(), reason="the collected facts are not beside this checkout"
)
def test_a_changed_fact_is_noticed(tmp_path: Path) -> None:
    """The comparison would be worth nothing if it passed whatever it was given."""
    changed = tmp_path / "facts.yaml"
    text = FACTS.read_text(encoding="utf-8")
    changed.write_text(text.replace("T4: 0.15", "T4: 0.16"), encoding="utf-8")

    result = check("--facts", str(changed))

    assert result.returncode == 1
    assert "stale" in result.stdout


def test_without_the_facts_the_check_says_that_it_is_skipped(tmp_path: Path) -> None:
    result = check("--facts", str(tmp_path / "none.yaml"))
    assert result.returncode == 0
    assert "skipped" in result.stdout
