"""The command line, from files to figures and exit codes."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from simulator.__main__ import app
from simulator.report import SCHEMA
from simulator.trace import RowErrors, read_normal

HEAD = """\
[nodes]
name,offers
n0,gpu:8

[tenants]
name,guarantee
a,gpu:4
b,gpu:4

[jobs]
id,tenant,class,submit_s,duration_s,gpus
"""
# b borrows a's half; a comes back at 3600 and must have it.
JOBS = "b1,b,training,0,7200,4\nb2,b,training,0,7200,4\na1,a,inference,3600,600,4\n"
PROMISED = {
    "jobs",
    "jct_sum_s",
    "mean_jct_s",
    "mean_queue_s",
    "makespan_s",
    "utilisation",
    "guarantee_wait_s",
    "guarantee_violation_s",
    "reclaim_latency_s",
    "evictions",
    "lost_gpu_s",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(HEAD + JOBS)
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def figures(source: Path, policy: str) -> dict[str, Any]:
    out = source.with_name(f"{policy}.json")
    result = invoke(
        "run", "--trace", f"normal:{source}", "--policy", policy, "--json", out
    )
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(out.read_text())
    assert (found["schema"], found["policy"]) == (SCHEMA, policy)
    return found


def test_a_run_tells_every_promised_figure_in_all_and_by_tenant(source: Path) -> None:
    found = figures(source, "fairshare")["summary"]
    for group in (found, *found["tenants"].values(), *found["classes"].values()):
        assert group.keys() >= PROMISED
    assert found["tenants"].keys() == {"a", "b"}
    assert found["classes"].keys() == {"inference", "training"}
    assert found["jobs"] == 3
    assert sum(tenant["jobs"] for tenant in found["tenants"].values()) == 3


def test_the_engine_gives_the_guarantee_back_and_fifo_does_not(source: Path) -> None:
    ours = figures(source, "fairshare")["summary"]
    assert ours["guarantee_violation_s"] == 0
    assert ours["evictions"] == 1
    assert 0 < ours["reclaim_latency_s"] <= 186
    assert ours["tenants"]["a"]["guarantee_wait_s"] == ours["guarantee_wait_s"]
    theirs = figures(source, "fifo")["summary"]
    assert theirs["guarantee_wait_s"] == 3600
    assert theirs["guarantee_violation_s"] == 3600 - 186
    assert theirs["evictions"] == 0
    walls = figures(source, "static")["summary"]
    assert walls["guarantee_wait_s"] == 0
    assert walls["makespan_s"] == 14_400
    assert ours["makespan_s"] < walls["makespan_s"]


def test_a_broken_promise_has_an_exit_code(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("run", "--trace", f"normal:{source}", "--check")
    assert invoke(*arguments).exit_code == 0
    monkeypatch.setattr("simulator.__main__.promises_kept", lambda _found: False)
    broken = invoke(*arguments)
    assert broken.exit_code == 1
    assert "a promise broke" in broken.stderr
    # The baselines promise nothing.
    assert invoke(*arguments, "--policy", "fifo").exit_code == 0


def test_a_comparison_has_all_policies_in_one_document(source: Path) -> None:
    out, page = source.with_name("all.json"), source.with_name("all.html")
    spec = f"normal:{source}"
    result = invoke(
        "compare", "--trace", spec, "--json", out, "--html", page, "--check"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert list(found["policies"]) == ["static", "fifo", "fairshare"]
    assert found["policies"]["fifo"] == figures(source, "fifo")["summary"]
    for word in ("utilisation", "P95 queueing", "guarantee violated", "lost work"):
        assert word in result.output
    text = page.read_text()
    assert "<script src" not in text
    assert "<link" not in text
    assert text.count("Plotly.newPlot(") >= 3
    assert all(f'id="{name}"' in text for name in ("headlines", "usage", "queueing"))


def test_names_cannot_break_out_of_the_page(source: Path) -> None:
    evil = "</script><b>x"
    source.write_text(
        (HEAD + JOBS).replace("b,gpu", f"{evil},gpu").replace(",b,", f",{evil},")
    )
    page = source.with_name("page.html")
    result = invoke("run", "--trace", f"normal:{source}", "--html", page)
    assert result.exit_code == 0, result.output
    assert evil not in page.read_text()


def test_the_same_input_gives_the_same_bytes(source: Path) -> None:
    first = figures(source, "fairshare")
    assert figures(source, "fairshare") == first
    page = source.with_name("page.html")
    pages: list[bytes] = []
    for _ in range(2):
        invoke("run", "--trace", f"normal:{source}", "--html", page)
        pages.append(page.read_bytes())
    assert pages[0] == pages[1]


def test_bad_rows_stop_the_run_in_one_line_or_are_counted(source: Path) -> None:
    source.write_text(HEAD + JOBS + "x,a,training,0,-5,1\n")
    result = invoke("run", "--trace", f"normal:{source}")
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert line == (
        "error: trace.csv:15: duration_s: seconds must be finite and not negative,"
        " got '-5'"
    )
    out = source.with_name("out.json")
    skipped = invoke(
        "run", "--trace", f"normal:{source}", "--skip-bad-rows", "--json", out
    )
    assert skipped.exit_code == 0
    assert "skipped 1 bad rows" in skipped.stderr
    found = json.loads(out.read_text())
    assert found["input"]["bad_rows"] == 1
    assert found["summary"]["jobs"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nodes", "8"], "--nodes: value: NODESxGPUS"),
        (["--guarantee", "a"], "--guarantee: value: TENANT=FORM:COUNT"),
        (["--guarantee", "a=gpu:9"], "guarantees of gpu: 9 + 4 > 8 available (a, b)"),
        (["--trace", "swf:x"], "known formats are normal:..., itp:..., openb:..."),
        (["--cluster", "/nowhere.yaml"], "No such file"),
        (["--json", "/dev/null/out.json"], "File exists"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(
    source: Path, options: list[str], message: str
) -> None:
    result = invoke("run", "--trace", f"normal:{source}", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_outputs_make_their_folders(source: Path) -> None:
    folder = source.parent / "new" / "folder"
    spec = f"normal:{source}"
    names = ("out.json", "out.html", "out.jsonl")
    options = zip(("--json", "--html", "--log"), names, strict=True)
    given = [f"{option}={folder / name}" for option, name in options]
    assert invoke("run", "--trace", spec, *given).exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_options_replace_what_the_trace_says(source: Path) -> None:
    out = source.with_name("out.json")
    invoke(
        *("run", "--trace", f"normal:{source}", "--nodes", "2x4"),
        *("--guarantee", "a=gpu:1", "--guarantee", "c=gpu:2", "--json", out),
    )
    found = json.loads(out.read_text())["input"]
    assert (found["nodes"], found["gpus"]) == (2, 8)
    assert found["guarantees"] == {"a": {"gpu": 1}, "b": {"gpu": 4}, "c": {"gpu": 2}}


def test_traces_are_merged_and_clusters_come_from_files(tmp_path: Path) -> None:
    itp = tmp_path / "east.csv"
    itp.write_text("job_id,submission_time,duration,num_gpu\none,0,50,20\n")
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(
        "nodes:\n- {name: 'n{i}', count: 4, gpuClass: h100-80gb, gpus: 8}\n"
        "tenants:\n- {name: east, guarantee: {h100-80gb: 24}}\n"
        "- {name: serving, guarantee: {h100-80gb: 8}}\n"
    )
    out = tmp_path / "normal.csv"
    result = invoke(
        *("convert", "--trace", f"itp:{itp}", "--trace", "burst:tenant=serving,gpus=8"),
        *("--cluster", cluster, "--seed", "3", "--out", out),
    )
    assert result.exit_code == 0, result.output
    found = read_normal(out, RowErrors())
    assert {"east", "serving"} == set(found.tenant_names())
    assert [d.count for d in found.jobs[0].members] == [8, 8, 4]
    assert len(found.nodes) == 4
    assert [queue.name for queue in found.tenants] == ["east", "serving"]
    again = invoke("run", "--trace", f"normal:{out}", "--policy", "static")
    assert again.exit_code == 0, again.output


def test_a_fluid_replay_reports_what_sharing_serves(tmp_path: Path) -> None:
    header = "time,total_gpu_num,running_gpu_num,pending_gpu_num\n"
    for name, rows in (("va", "m,4,4,4\n"), ("vb", "m,4,1,0\n")):
        (tmp_path / f"{name}.csv").write_text(header + rows)
    archive = tmp_path / "curves.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        for name in ("va", "vb"):
            tar.add(tmp_path / f"{name}.csv", f"{name}.csv")
    out = tmp_path / "fluid.json"
    result = invoke("fluid", "--trace", f"helios:{archive}", "--json", out)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())["fluid"]
    assert found["total"]["static"] == 5
    assert found["total"]["shared"] == 8
    assert found["guarantee_violation_s"] == 0
