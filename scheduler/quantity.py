"""Amounts as people write them: Kubernetes quantities and Go durations.

Hidden here: the two grammars (``500m``, ``2Gi``, ``1e3``; ``90s``, ``1h30m``) and the
bounds that keep a hostile exponent from costing memory. The results are exact; each
caller rounds in the direction that is safe for it: requests up, capacities down.
"""

import math
import re
from fractions import Fraction

MAX_TEXT = 64
MAX_VALUE = 2**63 - 1
MEBI = 2**20

_QUANTITY = re.compile(
    r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,3})|(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]))?",
    re.ASCII,
)
_SCALES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{unit: Fraction(1000 ** (i + 1)) for i, unit in enumerate("kMGTPE")},
    **{f"{unit}i": Fraction(1024 ** (i + 1)) for i, unit in enumerate("KMGTPE")},
}
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|h|m|s))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)", re.ASCII)
_SECONDS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}


def quantity(text: str) -> Fraction:
    """Return the exact value of a Kubernetes quantity, in its base unit.

    Raises
    ------
    ValueError
        When the text is no quantity, is negative, or exceeds 2**63 - 1.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_TEXT else None
    if match is None:
        raise ValueError("is not a quantity (as 500m, 64, 2Gi or 1e3)")
    number, exponent, suffix = match.groups()
    value = Fraction(number) * _SCALES.get(suffix or "", Fraction(1))
    value *= Fraction(10) ** int(exponent or 0)
    if value < 0:
        raise ValueError("must not be negative")
    if value > MAX_VALUE:
        raise ValueError("is larger than a quantity can be")
    return value


def cpu_milli(text: str) -> Fraction:
    """Return CPU in thousandths of a core; ``64`` is 64 cores.

    Raises
    ------
    ValueError
        When the text is no quantity or carries a unit of memory.
    """
    if text.endswith("i"):
        raise ValueError("is in units of memory; CPU is in cores (64) or millicores")
    return quantity(text) * 1000


def memory_mib(text: str) -> Fraction:
    """Return memory in MiB; ``2Gi`` is 2048.

    Raises
    ------
    ValueError
        When the text is no quantity.
    """
    return quantity(text) / MEBI


def seconds(text: str) -> float:
    """Return a duration in seconds; ``1h30m`` is 5400.

    Raises
    ------
    ValueError
        When the text is no duration with a unit.
    """
    if len(text) > MAX_TEXT or not DURATION.fullmatch(text):
        raise ValueError("is not a duration with a unit (as 60s, 2m or 1h30m)")
    total = sum(Fraction(n) * _SECONDS[unit] for n, unit in _PART.findall(text))
    return float(total)


def round_up(value: Fraction) -> int:
    """Round a request so that it is never served too little."""
    return math.ceil(value)


def round_down(value: Fraction) -> int:
    """Round a capacity so that it is never promised too much."""
    return math.floor(value)
