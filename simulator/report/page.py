"""One HTML file that needs no network.

Hidden here: what stands around the charts. Script and style are part of the file; the
template beside this module holds the layout.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulator.report.charts import headline_chart, queueing_chart, usage_chart
from simulator.report.look import render
from simulator.report.summary import Replay
from simulator.report.table import GROUP, HEADLINES, duration

_LESS_IS_BETTER = {
    "makespan": "makespan_s",
    "mean completion time": "mean_jct_s",
    "mean queueing": "mean_queue_s",
    "P95 queueing": "p95_queue_s",
    "covered demand waited": "guarantee_wait_s",
    "guarantee violated": "guarantee_violation_s",
    "jobs that never ran": "unfinished",
}
_GLOSSARY = (
    ("guarantee", "GPUs that are the tenant's whenever it asks."),
    ("burst", "Use above the guarantee, out of what others leave idle."),
    ("covered", "Work, running or waiting, that its tenant's guarantee pays for."),
    (
        "covered demand waited",
        "Waiting of covered gangs, all together; a bounded wait is the price of burst.",
    ),
    (
        "guarantee violated",
        "The part of it beyond {bound} in which the gang would have fitted if burst had"
        " given way. The promise is zero.",
    ),
    (
        "reclaim latency",
        "From the first moment a covered gang waits while others burst, to its start.",
    ),
    ("lost work", "Work since the last checkpoint of an evicted job, and its restart."),
    ("utilisation", "GPUs held, over all GPUs, from first submission to last end."),
    (
        "static",
        "Each tenant has its guarantee and no more; first in, first out, so a large job"
        " at the head of its line keeps those behind it waiting.",
    ),
    ("fifo", "No quotas: first in, first out over the whole cluster."),
    ("fairshare", "The engine of the service: guarantees, burst, graceful reclaim."),
)


def write_page(
    path: Path,
    document: Mapping[str, Any],
    replays: Sequence[Replay],
    *,
    title: str,
) -> None:
    """Write the page for the runs of a document (`summary.document`)."""
    policies: dict[str, Any] = document.get("policies") or {
        document["policy"]: document["summary"]
    }
    several = len(policies) > 1
    bound = duration(document["reclaim_bound_s"])
    text = render(
        Path(__file__).parent / "page.html.j2",
        title=title,
        subtitle=_subtitle(document),
        policies=list(policies),
        headlines=_headlines(policies),
        tables=[
            _table("Tenants", "tenants", policies),
            _table("Classes", "classes", policies),
        ],
        glossary=[(word, text.format(bound=bound)) for word, text in _GLOSSARY],
        charts={
            "headlines": headline_chart(policies) if several else "",
            "usage": usage_chart(replays),
            "queueing": queueing_chart(policies),
        },
    )
    path.write_text(text, encoding="utf-8")


def _subtitle(document: Mapping[str, Any]) -> str:
    told = document["input"]
    parts = [
        f"{told['jobs']:,} jobs on {told['gpus']:,} GPUs in {told['nodes']:,} nodes",
        f"seed {document['seed']}",
    ]
    if told["bad_rows"]:
        parts.append(f"{told['bad_rows']:,} bad rows skipped")
    parts += [f"{n:,} left out: {rule}" for rule, n in told["excluded_rows"].items()]
    return " · ".join(parts)


def _headlines(policies: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, write in HEADLINES:
        best = _best(name, policies)
        cells = [
            {"text": write(found), "mark": "best" if policy in best else ""}
            for policy, found in policies.items()
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def _best(name: str, policies: Mapping[str, Any]) -> set[str]:
    """Return the policies that do best by a figure, none where all are equal."""
    if name == "utilisation":
        values = {policy: -found["utilisation"] for policy, found in policies.items()}
    elif name in _LESS_IS_BETTER:
        key = _LESS_IS_BETTER[name]
        values = {policy: found[key] for policy, found in policies.items()}
    else:
        return set()
    least = min(values.values())
    best = {policy for policy, value in values.items() if value == least}
    return best if len(best) < len(values) else set()


def _table(title: str, kind: str, policies: Mapping[str, Any]) -> dict[str, Any]:
    names = sorted({name for found in policies.values() for name in found[kind]})
    several = len(policies) > 1
    header = ["", *(["policy"] if several else []), *(name for name, _ in GROUP)]
    rows = [
        {
            "first": policy == next(iter(policies)),
            "cells": [
                name if policy == next(iter(policies)) else "",
                *([policy] if several else []),
                *(write(found[kind][name]) for _, write in GROUP),
            ],
        }
        for name in names
        for policy, found in policies.items()
    ]
    return {"title": title, "header": header, "rows": rows}
