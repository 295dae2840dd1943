"""`make demo-kubernetes` is the first thing a stranger runs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.controlplane.build import Binaries
from tests.e2e.running import ROOT

DEMO = [sys.executable, "-m", "deploy.demo.kubernetes"]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """All that the demo starts runs in, or is told of, this directory."""
    return {**os.environ, "TMPDIR": str(tmp_path), **more}


def left_behind(tmp_path: Path) -> list[str]:
    """Command lines of processes that have to do with a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            place = str((process / "cwd").readlink())
        except OSError:  # it has ended
            continue
        if str(tmp_path) in command + place:
            found.append(command.replace("\0", " "))
    return found


def moments(pods: list[dict[str, Any]], work: str, name: str) -> list[float]:
    return [pod[name] for pod in pods if pod["work"] == work and pod[name] is not None]


def test_the_demo_tells_its_story_and_leaves_nothing_behind(
    binaries: Binaries, tmp_path: Path
) -> None:
    """Who tries us out sees every promise kept, and finds the machine as it was."""
    report = tmp_path / "report.html"
    done = subprocess.run(
        [*DEMO, "--json", "--report", str(report)],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kubernetes"] == binaries.version
    figures, pods = told["figures"], told["pods"]
    assert figures["guarantee_wait_s"] <= figures["reclaim_bound_s"]
    assert len(moments(pods, "assistant", "held")) == 6
    assert [len(moments(pods, f"sweep-{x}", "bound")) for x in "ab"] == [2, 2]
    assert [pause["work"] for pause in told["suspended"]] == ["notebook"]
    assert moments(pods, "pretrain", "asked") == []
    assert "chat       32           24     0" in told["kubectl"]["noon"]
    page = report.read_text()
    assert "What was claimed, and found to be so" in page
    assert all(f'Plotly.newPlot("{name}"' in page for name in ("fleet", "waits"))
    assert left_behind(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_ctrl_c_ends_all_that_the_demo_started(
    binaries: Binaries, tmp_path: Path
) -> None:
    """Nobody has to hunt for an etcd that was left running."""
    with subprocess.Popen(
        DEMO,
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        said = next(line for line in demo.stdout if "1. Night" in line)
        assert said
        assert len(left_behind(tmp_path)) >= 6
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
        rest = demo.stdout.read()
        assert demo.wait(30) == 130, rest
    assert rest.splitlines()[-1] == "interrupted; everything has ended"
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_without_go_the_demo_says_so_in_one_sentence(tmp_path: Path) -> None:
    """A missing tool is not a stack trace."""
    done = subprocess.run(
        DEMO,
        cwd=ROOT,
        env=environment(tmp_path, PATH=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "go is missing" in line
    assert "make demo" in line
