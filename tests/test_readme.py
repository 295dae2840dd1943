"""Every command in the README that ends by itself does what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    \.venv/bin/(fairshare.*)$", README, re.MULTILINE)
MODULES = {"fairshare": "scheduler", "fairshare-sim": "simulator"}
SERVES_ON = {"serve", "tenants", "queue", "explain"}  # tests of the service run these


def finite() -> list[str]:
    return [
        command
        for command in COMMANDS
        if command.split()[1] not in SERVES_ON or "--check" in command
    ]


@pytest.mark.parametrize("command", finite())
def test_command_runs(command: str, tmp_path: Path) -> None:
    name, *words = command.split()
    words = [word.replace("build/", f"{tmp_path}/") for word in words]
    done = subprocess.run(
        [sys.executable, "-m", MODULES[name], *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs = [Path(word) for word in words if word.startswith(str(tmp_path))]
    assert all(path.stat().st_size for path in outputs)


def test_the_readme_names_commands_of_both_programs() -> None:
    assert {command.split()[0] for command in COMMANDS} == set(MODULES)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()
