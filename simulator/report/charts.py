"""The figures as plots.

Hidden here: plotly, and how a run becomes a picture. A chart is returned as the JSON
that plotly's script in the page draws; nothing here knows HTML.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scheduler.core import QUANTA_PER_GPU, charge
from simulator.metrics import makespan, usage
from simulator.report.look import COLOURS, INK, dress, pale
from simulator.report.summary import Replay
from simulator.report.table import duration, percent

Summary = Mapping[str, Any]

POLICY_COLOURS = {"static": "#9aa5b1", "fifo": "#e69f00", "fairshare": "#0072b2"}
_BINS = 600
_MOST_TENANTS = 8  # with panels of their own
_ROW_PX = 170


def usage_chart(replays: Sequence[Replay]) -> str:
    """GPUs in use over time: a row for each tenant, a column for each policy."""
    tenants = _largest(replays[0])
    figure = make_subplots(
        rows=len(tenants),
        cols=len(replays),
        shared_xaxes=True,
        shared_yaxes="rows",
        column_titles=[replay.policy for replay in replays],
        vertical_spacing=0.07 / max(1, len(tenants) - 1),
        horizontal_spacing=0.02,
    )
    start = min(job.submit_s for job in replays[0].trace.jobs)
    span = max(makespan(replay.outcomes) for replay in replays) or 1.0
    for column, replay in enumerate(replays, start=1):
        steps = usage(replay.trace, replay.log)
        for row, tenant in enumerate(tenants, start=1):
            levels = binned(steps[tenant], start, start + span, _BINS)
            guarantee = _guarantee(replay, tenant)
            colour = COLOURS[(row - 1) % len(COLOURS)]
            for trace in _areas(levels, guarantee, span, colour):
                figure.add_trace(trace, row=row, col=column)
            figure.add_hline(
                y=guarantee,
                line={"dash": "dot", "width": 1.5, "color": INK},
                row=row,
                col=column,
            )
    for row, tenant in enumerate(tenants, start=1):
        figure.update_yaxes(title_text=tenant, row=row, col=1)
    for column in range(1, len(replays) + 1):
        figure.update_xaxes(title_text="hours", row=len(tenants), col=column)
    return dress(figure, height=90 + _ROW_PX * len(tenants))


def _areas(
    levels: Sequence[float], guarantee: float, span: float, colour: str
) -> list[go.Scatter]:
    """Use within the guarantee, and burst on top of it, as stacked areas."""
    hours = [span * (place + 0.5) / len(levels) / 3600 for place in range(len(levels))]
    within = [min(level, guarantee) for level in levels]
    burst = [max(0.0, level - guarantee) for level in levels]
    return [
        go.Scatter(
            x=[round(hour, 3) for hour in hours],
            y=[round(value, 2) for value in values],
            name=name,
            mode="lines",
            line={"width": 0, "shape": "hvh"},
            fillcolor=fill,
            stackgroup="use",
            showlegend=False,
            hovertemplate=f"%{{y:.1f}} GPUs {name}, hour %{{x:.1f}}<extra></extra>",
        )
        for name, values, fill in (
            ("within the guarantee", within, colour),
            ("burst", burst, pale(colour)),
        )
    ]


def _largest(replay: Replay) -> list[str]:
    """Return the tenants that ask for most, by name."""
    asked: dict[str, float] = {}
    for job in replay.trace.jobs:
        asked[job.tenant] = asked.get(job.tenant, 0.0) + job.gpus * job.duration_s
    return sorted(sorted(asked, key=lambda name: (-asked[name], name))[:_MOST_TENANTS])


def _guarantee(replay: Replay, tenant: str) -> float:
    for queue in replay.trace.tenants:
        if queue.name == tenant:
            quanta = sum(count * charge(form) for form, count in queue.guarantee)
            return quanta / QUANTA_PER_GPU
    return 0.0


def binned(
    steps: Sequence[tuple[float, float]], start: float, end: float, bins: int
) -> list[float]:
    """Return the mean of a step function in equal bins of time; 0 before its begin."""
    times = [at for at, _ in steps]
    area = [0.0]  # under the steps up to each of `times`
    for (at, value), following in zip(steps, times[1:], strict=False):
        area.append(area[-1] + value * (following - at))

    def below(at: float) -> float:
        place = bisect_right(times, at) - 1
        return area[place] + steps[place][1] * (at - times[place]) if place >= 0 else 0

    width = (end - start) / bins
    edges = [below(start + width * place) for place in range(bins + 1)]
    return [(edges[i + 1] - edges[i]) / width for i in range(bins)]


def queueing_chart(policies: Mapping[str, Summary]) -> str:
    """Mean and P95 queueing of each tenant and class, policies side by side."""
    figure = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        column_titles=["mean queueing", "P95 queueing"],
        horizontal_spacing=0.03,
    )
    some = next(iter(policies.values()))
    groups = [("tenants", name) for name in sorted(some["tenants"])]
    groups += [("classes", name) for name in sorted(some["classes"])]
    for policy, found in policies.items():
        for column, key in enumerate(("mean_queue_s", "p95_queue_s"), start=1):
            values = [found[kind][name][key] for kind, name in groups]
            bar = go.Bar(
                y=[
                    name if kind == "tenants" else f"all {name}"
                    for kind, name in groups
                ],
                x=[max(1.0, value) for value in values],
                text=[duration(value) for value in values],
                textposition="auto",
                orientation="h",
                name=policy,
                legendgroup=policy,
                showlegend=column == 1 and len(policies) > 1,
                marker_color=POLICY_COLOURS.get(policy, COLOURS[0]),
                hovertemplate=f"{policy}: %{{text}}<extra></extra>",
            )
            figure.add_trace(bar, row=1, col=column)
    ticks = [1, 10, 60, 600, 3600, 36_000, 360_000]
    figure.update_xaxes(
        type="log", tickvals=ticks, ticktext=[duration(t) for t in ticks]
    )
    height = 110 + 26 * len(groups) * max(2, len(policies))
    figure.update_yaxes(autorange="reversed")
    return dress(figure, height=height, barmode="group")


def headline_chart(policies: Mapping[str, Summary]) -> str:
    """Four figures that tell the policies apart."""
    panels = (
        ("utilisation", "utilisation", percent),
        ("mean queueing", "mean_queue_s", duration),
        ("covered demand waited", "guarantee_wait_s", duration),
        ("guarantee violated", "guarantee_violation_s", duration),
    )
    figure = make_subplots(
        rows=1, cols=len(panels), subplot_titles=[p[0] for p in panels]
    )
    for column, (_, key, write) in enumerate(panels, start=1):
        values = [found[key] for found in policies.values()]
        bar = go.Bar(
            x=list(policies),
            y=values,
            text=[write(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            marker_color=[POLICY_COLOURS.get(name, COLOURS[0]) for name in policies],
            showlegend=False,
            hovertemplate="%{x}: %{text}<extra></extra>",
        )
        figure.add_trace(bar, row=1, col=column)
        top = max(values) or 1
        figure.update_yaxes(range=[0, 1.2 * top], visible=False, row=1, col=column)
    return dress(figure, height=260)
