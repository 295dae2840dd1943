"""Typed access to the cells of one row of text.

Hidden here: how text becomes numbers and names, and how a failure finds its way back
to file, line and field. Every reader of the simulator goes through `Row`.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from simulator.trace.errors import RowErrors, TraceError

T = TypeVar("T")


class Row:
    """The cells of one line by field name; an absent field reads as empty."""

    __slots__ = ("_cells", "line", "source")

    def __init__(self, source: str, line: int, cells: dict[str, str]) -> None:
        self.source = source
        self.line = line
        self._cells = cells

    def error(self, field: str, reason: str) -> TraceError:
        """Return the error that blames `field` of this row."""
        value = self._cells.get(field, "")
        return TraceError(self.source, self.line, field, value, reason)

    def text(self, field: str, default: str = "") -> str:
        """Return the cell, stripped, or `default` when it is empty."""
        return self._cells.get(field, "").strip() or default

    def name(self, field: str) -> str:
        """Return a name: not empty, no blanks inside."""
        value = self.text(field)
        if not value or len(value.split()) > 1 or not value.isprintable():
            raise self.error(field, "a name without blanks is needed")
        return value

    def whole(self, field: str, default: int | None = None, least: int = 0) -> int:
        """Return an integer of at least `least`."""
        text = self.text(field)
        if not text and default is not None:
            return default
        try:
            value = int(text)
        except ValueError:
            raise self.error(field, "a whole number is needed") from None
        if value < least:
            raise self.error(field, f"at least {least} is needed")
        return value

    def seconds(self, field: str, default: float | None = None) -> float:
        """Return a time or duration, not negative, in seconds."""
        text = self.text(field)
        if not text and default is not None:
            return default
        try:
            value = float(text)
        except ValueError:
            raise self.error(field, "a number of seconds is needed") from None
        if not math.isfinite(value) or value < 0:
            raise self.error(field, "seconds must be finite and not negative")
        return value

    def flag(self, field: str, *, default: bool) -> bool:
        """Return a yes or no."""
        text = self.text(field).lower()
        if not text:
            return default
        if text not in ("yes", "no"):
            raise self.error(field, "yes or no is needed")
        return text == "yes"

    def parsed(self, field: str, parse: Callable[[str], T], default: T) -> T:
        """Return what `parse` makes of the cell; its ValueError blames the field."""
        text = self.text(field)
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as problem:
            raise self.error(field, str(problem)) from None


def read_rows(
    source: str, lines: Iterable[str], needed: Sequence[str], errors: RowErrors
) -> Iterator[Row]:
    """Yield the rows of a CSV with a header line.

    Raises
    ------
    TraceError
        When a needed column is missing; rows of the wrong length go to `errors`.
    """
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader, [])]
    for name in needed:
        if name not in header:
            raise TraceError(source, 1, name, ",".join(header), "column is missing")
    for cells in reader:
        if not cells:
            continue
        row = Row(source, reader.line_num, dict(zip(header, cells, strict=False)))
        if len(cells) == len(header):
            yield row
        else:
            reason = f"{len(header)} cells are needed, found {len(cells)}"
            errors.report(TraceError(source, row.line, "row", ",".join(cells), reason))
