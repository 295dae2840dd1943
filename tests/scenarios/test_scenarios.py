"""Every story in this folder comes out exactly as it is told."""

from pathlib import Path

import pytest

from tests.scenarios.harness import Scenario

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


def transcript(text: str) -> str:
    """Play a script and return it with the transcript it really produces."""
    scenario = Scenario()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(">"):
            lines.append(line)
            lines.extend(f"  {told}" for told in scenario.play(line[1:].strip()))
        elif not line.startswith("  "):
            lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_story(script: Path, request: pytest.FixtureRequest) -> None:
    told = script.read_text(encoding="utf-8")
    played = transcript(told)
    if request.config.getoption("--rewrite"):
        script.write_text(played, encoding="utf-8")
    else:
        assert played == told


def test_there_are_stories_for_every_promise() -> None:
    names = {path.stem for path in SCRIPTS}
    assert names >= {
        "borrow",
        "reclaim",
        "protected_guarantee",
        "limit",
        "gang_waits_whole",
        "inference_over_training",
        "mig_slices",
    }
