"""The report's pictures: what ran where, who waited, and who held how much."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from deploy.demo.chronicle import Life, Pause
from deploy.demo.segments import (
    GATE,
    HELD,
    PAUSED,
    RUNS,
    SAVES,
    STATES,
    STOPS,
    Segment,
    lanes,
    seats,
    segments,
    use,
)
from simulator.report.look import COLOURS, INK, dress, pale

_AMBER, _RED, _GREY = COLOURS[3], COLOURS[5], "#cbd2d9"
_LEGEND = {"orientation": "h", "yref": "container", "y": 1, "yanchor": "top", "x": 0}
_LABEL_S = 1.5  # a shorter bar has no room for its name


@dataclass(frozen=True)
class Day:
    """All that the pictures show.

    Parameters
    ----------
    guarantees
        Of the tenants, in GPUs.
    chapters
        When they began, and their names.
    seconds
        When the story ended.
    """

    lives: Sequence[Life]
    pauses: Sequence[Pause]
    chapters: Sequence[tuple[float, str]]
    guarantees: Mapping[str, int]
    node_gpus: int
    seconds: float

    def colour(self, tenant: str) -> str:
        """Return the tenant's colour."""
        return COLOURS[list(self.guarantees).index(tenant)]


def fleet_chart(day: Day) -> str:
    """Nodes as bands of GPUs, and the pods on them over time."""
    nodes = sorted({life.node for life in day.lives if life.node})
    seat = seats(day.lives, day.node_gpus)
    pitch = day.node_gpus + 1

    def middle(life: Life) -> float:
        return nodes.index(life.node) * pitch + seat[life.name] + life.gpus / 2

    figure = go.Figure()
    placed = [life for life in day.lives if life.node]
    parts = [s for life in placed for s in segments(life, day.seconds)]
    for tenant in day.guarantees:
        mine = [s for s in parts if (s.life.tenant, s.state) == (tenant, RUNS)]
        figure.add_trace(_bars(day, mine, middle, tenant, label=True))
    for state in (SAVES, STOPS, HELD):
        mine = [s for s in parts if s.state == state]
        name = "held for a pod at the gate" if state == HELD else state
        figure.add_trace(_bars(day, mine, middle, name))
    ticks = [index * pitch + day.node_gpus / 2 for index in range(len(nodes))]
    figure.update_yaxes(tickvals=ticks, ticktext=nodes, autorange="reversed")
    figure.update_yaxes(showgrid=False)
    return _on_time(day, figure, height=110 + 58 * len(nodes))


def waits_chart(day: Day) -> str:
    """Each workload's pods in rows, and what each was about."""
    rows: dict[str, list[Life]] = {}
    for work in dict.fromkeys(life.work for life in day.lives):
        found = lanes([life for life in day.lives if life.work == work])
        for number, row in enumerate(found, start=1):
            rows[f"{work} {number}" if len(found) > 1 else work] = row
    place = {life.name: y for y, row in enumerate(rows.values()) for life in row}
    parts = [s for life in day.lives for s in segments(life, day.seconds)]
    parts += _pauses(day)
    figure = go.Figure()
    for state in STATES:
        mine = [s for s in parts if s.state == state]
        bars = _bars(day, mine, lambda life: place[life.name], state, height=0.72)
        figure.add_trace(bars)
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=list(rows), autorange="reversed"
    )
    return _on_time(day, figure, height=110 + 30 * len(rows))


def usage_chart(day: Day) -> str:
    """GPUs of each tenant over time, what is beyond the guarantee in pale."""
    figure = make_subplots(
        rows=len(day.guarantees), cols=1, shared_xaxes=True, vertical_spacing=0.06
    )
    for row, (tenant, guarantee) in enumerate(day.guarantees.items(), start=1):
        mine = [life for life in day.lives if life.tenant == tenant]
        steps, colour = use(mine, day.seconds), day.colour(tenant)
        for name, fill, amounts in (
            ("guaranteed", colour, [min(n, guarantee) for _, n in steps]),
            ("burst", pale(colour), [max(0, n - guarantee) for _, n in steps]),
        ):
            area = go.Scatter(
                x=[at for at, _ in steps],
                y=amounts,
                name=name,
                mode="lines",
                line={"width": 0, "shape": "hv"},
                fillcolor=fill,
                stackgroup="use",
                showlegend=False,
                hovertemplate=f"%{{y}} GPUs {name}<extra>{tenant}</extra>",
            )
            figure.add_trace(area, row=row, col=1)
        line = {"dash": "dot", "width": 1.5, "color": INK}
        figure.add_hline(y=guarantee, line=line, row=row, col=1)
        figure.update_yaxes(title_text=tenant, rangemode="tozero", row=row, col=1)
    rows = len(day.guarantees)
    return _on_time(day, figure, height=90 + 130 * rows, rows=rows)


def _pauses(day: Day) -> list[Segment]:
    """Return the times for which Jobs were suspended, on the rows of their pods."""
    found = []
    for pause in day.pauses:
        life = next(life for life in day.lives if life.work == pause.work)
        end = day.seconds if pause.end is None else pause.end
        begin = end if life.gone is None else life.gone  # its pods leave first
        found.append(Segment(life, PAUSED, begin, end))
    return found


def _bars(
    day: Day,
    parts: Sequence[Segment],
    middle: Callable[[Life], float],
    name: str,
    *,
    height: float | None = None,
    label: bool = False,
) -> go.Bar:
    """Return bars of one state; their height is their GPUs unless it is given."""
    return go.Bar(
        name=name,
        orientation="h",
        base=[s.begin for s in parts],
        x=[s.seconds for s in parts],
        y=[middle(s.life) for s in parts],
        width=[height or s.life.gpus - 0.3 for s in parts],
        text=[s.life.work if label and s.seconds > _LABEL_S else "" for s in parts],
        textposition="inside",
        insidetextanchor="start",
        textfont={"color": "white"},
        customdata=[[s.life.name, s.state, s.life.node, s.end] for s in parts],
        hovertemplate="%{customdata[0]} %{customdata[1]}, %{base:.1f} to "
        "%{customdata[3]:.1f} s<extra>%{customdata[2]}</extra>",
        marker=_marker(day, parts),
        showlegend=bool(parts),
    )


def _marker(day: Day, parts: Sequence[Segment]) -> dict[str, object]:
    """Return how the bars of one state look; those that run have their tenant's."""
    if not parts:
        return {}
    own = [day.colour(s.life.tenant) for s in parts]
    state = parts[0].state
    if state == RUNS:
        return {"color": own, "line": {"width": 0}}
    if state == HELD:
        return {
            "color": "rgba(230,159,0,0.12)",
            "line": {"color": _AMBER, "width": 2},
        }
    if state == GATE:
        return {"color": _GREY, "line": {"width": 0}}
    shape, ink = {SAVES: ("/", own), STOPS: ("x", _RED), PAUSED: (".", INK)}[state]
    return {
        "color": "white" if state == PAUSED else [pale(c) for c in own],
        "line": {"width": 0},
        "pattern": {"shape": shape, "fgcolor": ink, "size": 6, "solidity": 0.25},
    }


def _on_time(day: Day, figure: go.Figure, *, height: int, rows: int = 1) -> str:
    """Finish a figure whose horizontal axis is the story's time."""
    for at, name in day.chapters:
        figure.add_vline(x=at, line={"width": 1, "color": INK, "dash": "dash"})
        figure.add_annotation(
            x=at, y=1, yref="paper", yanchor="bottom", text=name, showarrow=False
        )
    figure.update_xaxes(range=[day.chapters[0][0] - 1, day.seconds])
    figure.layout[f"xaxis{rows if rows > 1 else ''}"].title.text = "seconds"
    top = 62 if any(bars.showlegend for bars in figure.data) else 30
    margin = {"l": 10, "r": 10, "t": top, "b": 10}
    return dress(
        figure, height=height, margin=margin, legend=_LEGEND, barmode="overlay"
    )
