"""The look that all pages share: one frame, one palette, one dress for figures.

Hidden here: jinja, how plotly's script gets into a page, and what is safe in one.
"""

from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, select_autoescape
from plotly.offline import get_plotlyjs

# Okabe and Ito's colours, which people with colour blindness can tell apart.
COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#d55e00", "#666666")
INK = "#1f2933"
_GRID = "#e4e7eb"


def pale(colour: str) -> str:
    """Return a colour for what is borrowed."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.38)"


def dress(figure: go.Figure, *, height: int, **layout: object) -> str:
    """Dress a figure alike with the others and return its JSON."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 10, "r": 10, "t": 46, "b": 10},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        bargap=0.3,
        legend={"orientation": "h", "y": -0.12, "x": 0},
    )
    figure.update_layout(**layout)
    figure.update_xaxes(gridcolor=_GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, automargin=True)
    # A name may hold "</script>": no "<" leaves this function.
    return str(figure.to_json()).replace("<", "\\u003c")


def render(template: Path, **values: object) -> str:
    """Return a page: a template that extends ``base.html.j2``, filled in."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=select_autoescape(default=True),
        keep_trailing_newline=True,
    )
    page = environment.get_template(template.name)
    return page.render(plotly=get_plotlyjs(), **values)
