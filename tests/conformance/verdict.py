"""What an adapter says about one case."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Case = Mapping[str, Any]
"""One row of a case file, as it was read."""

Subject = Literal["product", "oracle"]
"""Whose answer was compared: only the product's own proves anything about it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both answers, in the terms of the case."""

    agrees: bool
    got: object
    expected: object
    subject: Subject = "product"


Adapter = Callable[[Case], Verdict]
