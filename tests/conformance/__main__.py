"""The command line: ``python -m tests.conformance FILE [--json OUT] [--only ID]``.

Exit codes: 0, all is well; 1, a case failed or a kind misses its thresholds; 2, the
input is wrong, with one line that says where.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tests.conformance.runner import (
    BadFile,
    Result,
    Tally,
    id_of,
    load,
    run,
    tally,
)

OUTCOMES = ("passed", "failed", "differs", "skipped")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
WIDTH = 100  # what the table of totals needs
out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
err = Console(stderr=True, soft_wrap=True)


@app.command()
def main(
    file: Annotated[Path, typer.Argument(help="A file of cases.")],
    json_out: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write outcomes here.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="ID", help="Run this case alone.")
    ] = None,
) -> None:
    """Compare our answers with a peer's own test tables."""
    try:
        results = _run(_chosen(load(file), only, file))
        if json_out is not None:
            _write(json_out, results)
    except BadFile as error:
        err.print(f"error: {escape(str(error))}", highlight=False)
        raise typer.Exit(2) from error
    tallies = tally(results)
    _print_results(results, verbose=only is not None)
    out.print(_table(tallies))
    # one case is no sample: the parts of a kind say nothing about it
    short = [] if only else [line for found in tallies for line in found.shortfalls()]
    for line in short:
        out.print(f"[red]{escape(line)}[/]")
    if short or any(result.outcome == "failed" for result in results):
        raise typer.Exit(1)


def _chosen(cases: list[Any], only: str | None, file: Path) -> list[Any]:
    if only is None:
        return cases
    found = [case for i, case in enumerate(cases, 1) if id_of(case, i) == only]
    if not found:
        raise BadFile(f"{file}: no case {only!r}")
    return found


def _run(cases: Sequence[Any]) -> list[Result]:
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("cases", total=len(cases))
        return run(cases, lambda: bar.advance(task))


def _write(path: Path, results: Sequence[Result]) -> None:
    try:
        path.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}") from error


def _print_results(results: Sequence[Result], *, verbose: bool) -> None:
    shown = OUTCOMES if verbose else ("failed", "differs")
    for result in results:
        if result.outcome in shown:
            line = f"{result.outcome:8}{result.kind} {result.id}  {result.reason}"
            out.print(escape(line.rstrip()), highlight=False)


def _table(tallies: Sequence[Tally]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "subject", *OUTCOMES, "agree", "differ"):
        table.add_column(heading, no_wrap=True)
    for found in tallies:
        counts = [str(found.counts[outcome]) for outcome in OUTCOMES]
        agreeing = "" if found.agreeing is None else f"{found.agreeing:.1%}"
        differing = "" if found.agreeing is None else f"{found.differing:.1%}"
        table.add_row(found.kind, found.subject, *counts, agreeing, differing)
    totals = [str(sum(t.counts[outcome] for t in tallies)) for outcome in OUTCOMES]
    table.add_section()
    table.add_row("total", "", *totals, "", "")
    return table


if __name__ == "__main__":
    sys.exit(app())
