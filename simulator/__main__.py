"""The command line: ``fairshare-sim run | compare | fluid | convert``.

Hidden here: options, the progress bar, and exit codes. 0: done; 1: a promise broke
(``--check``); 2: the input is wrong, with one line that says where.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from scheduler.core import Engine, Policy, TenantName
from simulator.audit import audit
from simulator.baselines import fifo, static
from simulator.fluid import replay as replay_fluid
from simulator.importers import load, load_curves
from simulator.report import (
    SCHEMA,
    Replay,
    document,
    print_fluid,
    print_policies,
    promises_kept,
    write_page,
)
from simulator.simulation import Scheduler, simulate, write_log
from simulator.synthetic import generate, parse_bursts
from simulator.trace import (
    RowErrors,
    Trace,
    TraceError,
    merge,
    parse_counts,
    parse_nodes,
    read_cluster,
    settle,
    write_normal,
)
from simulator.trace.amounts import Counts

_NODE_GPUS = 8  # where no cluster tells
_PATIENCE_S = 2.0  # before a progress bar is worth it
_EVERY = 256  # instants between two looks at the clock


T = TypeVar("T")


class PolicyName(StrEnum):
    """Who decides."""

    FAIRSHARE = "fairshare"
    STATIC = "static"
    FIFO = "fifo"


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Replay traces through the scheduler's own decisions, and see who waits.",
)
out = Console(soft_wrap=True)
err = Console(stderr=True)

Traces = Annotated[
    list[str],
    typer.Option(
        "--trace",
        metavar="SPEC",
        help="normal:FILE, itp:FILE.csv, itp:FILE.tar.gz[#member],"
        " openb:PODS.csv,NODES.csv or burst:KEY=VALUE,...; several are merged.",
    ),
]
Cluster = Annotated[
    Path | None,
    typer.Option(help="YAML with nodes and tenants: the service's settings file."),
]
Nodes = Annotated[
    str | None,
    typer.Option(help="64x8: 64 nodes of 8 GPUs; 64x8:h100-80gb,16x4:a100-40gb."),
]
Guarantees = Annotated[
    list[str] | None,
    typer.Option(
        "--guarantee",
        metavar="TENANT=FORM:COUNT,...",
        help="Replaces what trace or cluster say. Where nothing is said at all, the"
        " tenants share the cluster equally.",
    ),
]
Seed = Annotated[int, typer.Option(help="Of whatever is drawn: bursts, checkpoints.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Count bad rows instead of stopping.")
]
Json = Annotated[
    Path | None, typer.Option("--json", help=f"Write the figures ({SCHEMA}).")
]
Html = Annotated[Path | None, typer.Option("--html", help="Write a page with plots.")]
Check = Annotated[
    bool,
    typer.Option(
        "--check", help="Exit with 1 if the fairshare policy breaks a promise."
    ),
]


# -- commands -----------------------------------------------------------------


@app.command()
def run(
    trace: Traces,
    policy: Annotated[PolicyName, typer.Option(help="Who decides.")] = (
        PolicyName.FAIRSHARE
    ),
    cluster: Cluster = None,
    nodes: Nodes = None,
    guarantee: Guarantees = None,
    seed: Seed = 0,
    skip_bad_rows: SkipBad = False,
    json_out: Json = None,
    html_out: Html = None,
    log: Annotated[
        Path | None, typer.Option(help="Write the event log, a JSON array a line.")
    ] = None,
    check: Check = False,
) -> None:
    """Replay a trace under one policy."""
    with _one_line_errors():
        given = Source(tuple(trace), cluster, nodes, tuple(guarantee or ()), seed)
        replays = [_replay(policy, given.read(RowErrors(skip_bad_rows)), seed)]
        found = _document(replays, given, comparison=False)
        _write(found, replays, json_out, html_out, f"fairshare-sim: {policy.value}")
        if log is not None:
            with _made(log).open("w", encoding="utf-8") as stream:
                write_log(replays[0].log, stream)
        print_policies(out, {policy.value: found["summary"]})
    _finish(found["summary"], check=check and policy is PolicyName.FAIRSHARE)


@app.command()
def compare(
    trace: Traces,
    policy: Annotated[
        list[PolicyName] | None, typer.Option(help="Default: static, fifo, fairshare.")
    ] = None,
    cluster: Cluster = None,
    nodes: Nodes = None,
    guarantee: Guarantees = None,
    seed: Seed = 0,
    skip_bad_rows: SkipBad = False,
    json_out: Json = None,
    html_out: Html = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Policies compared",
    check: Check = False,
) -> None:
    """Replay a trace under several policies, and put them side by side."""
    chosen = policy or [PolicyName.STATIC, PolicyName.FIFO, PolicyName.FAIRSHARE]
    with _one_line_errors():
        given = Source(tuple(trace), cluster, nodes, tuple(guarantee or ()), seed)
        read = given.read(RowErrors(skip_bad_rows))
        replays = [_replay(one, read, seed) for one in dict.fromkeys(chosen)]
        found = _document(replays, given, comparison=True)
        _write(found, replays, json_out, html_out, title)
        print_policies(out, found["policies"])
    fair = found["policies"].get(PolicyName.FAIRSHARE.value)
    _finish(fair, check=check and fair is not None)


@app.command()
def fluid(
    trace: Annotated[
        str, typer.Option(metavar="SPEC", help="helios:FILE.tar.xz: demand by minute.")
    ],
    skip_bad_rows: SkipBad = False,
    json_out: Json = None,
) -> None:
    """Divide measured demand minute by minute, without single jobs."""
    with _one_line_errors():
        result = replay_fluid(load_curves(trace, RowErrors(skip_bad_rows)))
        print_fluid(out, result)
        if json_out is not None:
            kept = {"guarantee_violation_s": result.guarantee_violation_s}
            _write_json(json_out, {"schema": SCHEMA, "fluid": asdict(result) | kept})


@app.command()
def convert(
    trace: Traces,
    to: Annotated[Path, typer.Option("--out", help="File in normal form to write.")],
    cluster: Cluster = None,
    nodes: Nodes = None,
    guarantee: Guarantees = None,
    seed: Seed = 0,
    skip_bad_rows: SkipBad = False,
) -> None:
    """Write traces, cluster and tenants as one file in normal form."""
    with _one_line_errors():
        given = Source(tuple(trace), cluster, nodes, tuple(guarantee or ()), seed)
        read = given.read(RowErrors(skip_bad_rows))
        write_normal(read, _made(to))
        _tell_rows(read)
        out.print(f"{len(read.jobs):,} jobs written to {to}", highlight=False)


# -- input --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """What the options say about the input."""

    traces: tuple[str, ...]
    cluster: Path | None
    nodes: str | None
    guarantees: tuple[str, ...]
    seed: int

    def read(self, errors: RowErrors) -> Trace:
        """Read and join everything; see `settle` for what overrides what."""
        described = read_cluster(self.cluster) if self.cluster else Trace(jobs=())
        nodes = _option("--nodes", self.nodes, parse_nodes) if self.nodes else ()
        node_gpus = max((n.gpus for n in nodes or described.nodes), default=_NODE_GPUS)
        traces = [self._load(spec, node_gpus, errors) for spec in self.traces]
        whole = merge([described, *traces], errors)
        return settle(whole, nodes, dict(map(_guarantee, self.guarantees)))

    def _load(self, spec: str, node_gpus: int, errors: RowErrors) -> Trace:
        if spec.startswith("burst:"):
            return generate(parse_bursts(spec), self.seed, errors)
        return load(spec, node_gpus, errors)


def _option(name: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as problem:
        raise TraceError(name, 0, "value", text, str(problem)) from None


def _guarantee(text: str) -> tuple[TenantName, Counts]:
    tenant, equals, counts = text.partition("=")
    if not equals or not tenant:
        raise TraceError("--guarantee", 0, "value", text, "TENANT=FORM:COUNT is needed")
    return TenantName(tenant), _option("--guarantee", counts, parse_counts)


# -- the run ------------------------------------------------------------------

_ENGINE = Policy(inline=False)  # pods wait at their gates; the cycle decides


def _scheduler(policy: PolicyName, trace: Trace) -> Scheduler:
    if policy is PolicyName.FAIRSHARE:
        return Engine(_ENGINE)
    return static(trace) if policy is PolicyName.STATIC else fifo(trace)


def _replay(policy: PolicyName, trace: Trace, seed: int) -> Replay:
    scheduler = _scheduler(policy, trace)
    with _progress(policy.value, len(trace.jobs)) as advance:
        log = simulate(trace, scheduler, seed=seed, progress=advance)
        found = audit(trace, log, _ENGINE.reclaim_bound_s)
    return Replay(policy.value, trace, log, found)


@contextmanager
def _progress(label: str, jobs: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr once the run has taken a while."""
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=err, transient=True)
    task = bar.add_task(label, total=jobs)
    began, calls = time.monotonic(), 0

    def advance(finished: int) -> None:
        nonlocal calls
        calls += 1
        if calls % _EVERY == 0 and time.monotonic() - began > _PATIENCE_S:
            bar.start()
            bar.update(task, completed=finished)

    try:
        yield advance
    finally:
        bar.stop()


# -- output -------------------------------------------------------------------


def _document(
    replays: Sequence[Replay], given: Source, *, comparison: bool
) -> dict[str, Any]:
    _tell_rows(replays[0].trace)
    return document(
        replays,
        sources=given.traces,
        seed=given.seed,
        bound_s=_ENGINE.reclaim_bound_s,
        comparison=comparison,
    )


def _tell_rows(trace: Trace) -> None:
    """Say on stderr which rows take no part."""
    errors = trace.errors
    if errors.bad:
        err.print(f"skipped {len(errors.bad):,} bad rows, the first: {errors.bad[0]}")
    for rule, count in sorted(errors.excluded.items()):
        err.print(f"left out {count:,} rows: {rule}")


def _write(
    found: dict[str, Any],
    replays: Sequence[Replay],
    json_out: Path | None,
    html_out: Path | None,
    title: str,
) -> None:
    if json_out is not None:
        _write_json(json_out, found)
    if html_out is not None:
        write_page(_made(html_out), found, replays, title=title)


def _write_json(path: Path, found: dict[str, Any]) -> None:
    _made(path).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _made(path: Path) -> Path:
    """Make the folder a file goes to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _finish(found: dict[str, Any] | None, *, check: bool) -> None:
    if check and found is not None and not promises_kept(found):
        err.print(
            "a promise broke: guarantee violated for"
            f" {found['guarantee_violation_s']} s,"
            f" {found['covered_evictions']} covered jobs evicted"
        )
        raise typer.Exit(1)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn broken input into one line and exit code 2."""
    try:
        yield
    except (TraceError, OSError) as problem:
        err.print(f"error: {problem}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
