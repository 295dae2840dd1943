"""How people write amounts: ``h100-80gb:8 a10-24gb/shared-4:2``, ``1.75``, ``64x8``.

Hidden here: the little notations, and the names that generated nodes get.
"""

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation

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
    for form, count in _terms(text):
        if not count.isdecimal():
            raise ValueError(f"form:count is needed ({form}:{count} is not)")
        counts[form] = int(count)
    return tuple(sorted(counts.items()))


def format_counts(counts: Counts) -> str:
    """Write what `parse_counts` reads."""
    return " ".join(f"{form}:{count}" for form, count in counts)


def parse_values(text: str) -> Counts:
    """Return thousandths per GPU class from ``class:1.75`` terms.

    Raises
    ------
    ValueError
        When a term is not ``class:number``, or a class comes twice.
    """
    return tuple(sorted((name, parse_milli(number)) for name, number in _terms(text)))


def format_values(values: Counts) -> str:
    """Write what `parse_values` reads."""
    return " ".join(f"{name}:{format_milli(milli)}" for name, milli in values)


def _terms(text: str) -> Iterator[tuple[Form, str]]:
    seen: set[Form] = set()
    for term in text.replace(",", " ").split():
        name, colon, amount = term.rpartition(":")
        if not colon or not name:
            raise ValueError(f"form:count is needed ({term!r} is not)")
        form = parse_form(name)
        if form in seen:
            raise ValueError(f"{form} comes twice")
        seen.add(form)
        yield form, amount


def parse_milli(text: str) -> int:
    """Return a number in thousandths: ``1.75`` is 1750.

    Raises
    ------
    ValueError
        When the text is no number, is negative, or has more than three decimals.
    """
    try:
        milli = Decimal(text) * 1000
    except InvalidOperation:
        milli = Decimal("NaN")
    if not milli.is_finite() or milli < 0 or milli != milli.to_integral_value():
        raise ValueError("a number with at most three decimals is needed, as 2.0")
    return int(milli)


def format_milli(milli: int) -> str:
    """Write what `parse_milli` reads."""
    return f"{milli // 1000}.{milli % 1000:03d}".rstrip("0").rstrip(".")


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
