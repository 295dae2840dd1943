"""Amounts as case files write them, made exact.

JSON has decimals, the product has integers. Every amount is read as the fraction its
text says, and the amounts of a case are scaled together until all are whole.
"""

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from scheduler.core.gpu import QUANTA_PER_GPU, Form, parse_form

FINE = QUANTA_PER_GPU
"""Parts of a unit where an amount is no whole number: a GPU's quanta."""

CLOSE = 1e-9

INF_INT64 = (1 << 63) - 1
"""How Kueue writes an infinite share."""


def exact(value: Any) -> Fraction:
    """Read an amount; what is absent is nothing."""
    return Fraction(0) if value is None else Fraction(str(value))


def bound(value: Any) -> Fraction | None:
    """Read a limit: absent or negative is unlimited."""
    amount = None if value is None else exact(value)
    return None if amount is None or amount < 0 else amount


def table(value: Any) -> Mapping[str, Any]:
    """Read a map; Go writes an empty one as null, ``{}`` or ``[]``."""
    return dict(value) if value else {}


def scale_of(amounts: Iterable[Fraction | None], fine: int = FINE) -> int:
    """By what all amounts become whole: 1 where they are whole already."""
    parts = math.lcm(1, *(a.denominator for a in amounts if a is not None))
    return 1 if parts == 1 else math.lcm(parts, fine)


def whole(amount: Fraction) -> int:
    """Turn a scaled amount into the integer it is."""
    if amount.denominator != 1:
        raise ValueError(f"{amount} is no whole amount")
    return amount.numerator


def sliver(name: str) -> Form:
    """Name a form of one quantum a device, so that a case's amounts are quanta.

    Its class is in no table, hence all forms made here are worth the same.
    """
    return parse_form(f"{name}/shared-{QUANTA_PER_GPU}")


def number(value: Any) -> float:
    """Read a number that may be infinite."""
    if value in ("inf", "+Inf", "Infinity", INF_INT64):
        return math.inf
    if value in ("-inf", "-Inf", "-Infinity"):
        return -math.inf
    return float(value)


def close(a: Any, b: Any, tolerance: float = CLOSE) -> bool:
    """Whether two numbers are the same but for the last digits of a float."""
    one, two = number(a), number(b)
    return one == two or math.isclose(one, two, rel_tol=CLOSE, abs_tol=tolerance)


def plain(amount: Fraction) -> int | float:
    """Write an amount as the case files do."""
    return amount.numerator if amount.denominator == 1 else float(amount)
