"""How people write amounts: ``h100-80gb:8 a10-24gb/shared-4:2`` and ``64x8``.

Hidden here: the two little notations, and the names that generated nodes get.
"""

import re
from collections.abc import Iterator

from scheduler.core import Form, Node, NodeName, parse_form

Counts = tuple[tuple[Form, int], ...]
DEFAULT_CLASS = "gpu"

_NODES = re.compile(r"(?P<nodes>\d+)x(?P<gpus>\d+)(?::(?P<form>[^\s:]+))?")
_MOST_NODES = 100_000


def parse_counts(text: str) -> Counts:
    """Return devices per form from ``form:count`` terms split by blanks or commas.

    Raises
    ------
    ValueError
        When a term is not ``form:count``, or a form comes twice.
    """
    counts: dict[Form, int] = {}
    for term in text.replace(",", " ").split():
        name, colon, count = term.rpartition(":")
        if not colon or not name or not count.isdecimal():
            raise ValueError(f"form:count is needed ({term!r} is not)")
        form = parse_form(name)
        if form in counts:
            raise ValueError(f"{form} comes twice")
        counts[form] = int(count)
    return tuple(sorted(counts.items()))


def format_counts(counts: Counts) -> str:
    """Write what `parse_counts` reads."""
    return " ".join(f"{form}:{count}" for form, count in counts)


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Return the nodes of ``64x8`` or ``64x8:h100-80gb,16x4:a100-40gb``.

    Each term is nodes x GPUs per node, with the GPU class after a colon (default:
    ``gpu``). Nodes are named ``node-0000`` and so on, in the order of the terms.

    Raises
    ------
    ValueError
        When a term does not have this shape or means no nodes.
    """
    offers = [offer for term in text.split(",") for offer in _offers(term.strip())]
    return tuple(
        Node(name=NodeName(f"node-{number:04d}"), offers=((form, gpus),), gpus=gpus)
        for number, (form, gpus) in enumerate(offers)
    )


def _offers(term: str) -> Iterator[tuple[Form, int]]:
    match = _NODES.fullmatch(term)
    if match is None:
        raise ValueError(f"NODESxGPUS or NODESxGPUS:CLASS is needed ({term!r} is not)")
    nodes, gpus = int(match["nodes"]), int(match["gpus"])
    if not 1 <= nodes <= _MOST_NODES or gpus < 1:
        raise ValueError(f"1..{_MOST_NODES} nodes of at least 1 GPU ({term!r})")
    form = parse_form(match["form"] or DEFAULT_CLASS)
    for _ in range(nodes):
        yield form, gpus
