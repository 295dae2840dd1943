"""What is wrong with a trace, and what became of the rows that were wrong.

Hidden here: the policy for bad rows. A reader hands every broken row to `RowErrors`,
which either raises at once or keeps the error so that the report can count it.
"""

from collections import Counter
from dataclasses import dataclass, field


class TraceError(ValueError):
    """A trace or cluster file says something that means nothing.

    Parameters
    ----------
    source
        File the value came from.
    line
        Line in that file, from 1; 0 when the fault is not in one line.
    field
        Name of the column or key.
    value
        What was found there; None when the reason says it.
    reason
        What was expected.
    """

    def __init__(
        self, source: str, line: int, field: str, value: object, reason: str
    ) -> None:
        place = f"{source}:{line}" if line else source
        got = "" if value is None else f", got {value!r}"
        super().__init__(f"{place}: {field}: {reason}{got}")
        self.source = source
        self.line = line
        self.field = field
        self.value = value


@dataclass(slots=True)
class RowErrors:
    """The bad rows of one run, and the good rows that a rule leaves out.

    Parameters
    ----------
    skip
        Whether a bad row is counted and skipped; otherwise it is raised.
    """

    skip: bool = False
    bad: list[TraceError] = field(default_factory=list[TraceError])
    excluded: Counter[str] = field(default_factory=Counter[str])

    def report(self, error: TraceError) -> None:
        """Keep a bad row, or raise it.

        Raises
        ------
        TraceError
            When bad rows are not to be skipped.
        """
        if not self.skip:
            raise error
        self.bad.append(error)

    def exclude(self, rule: str) -> None:
        """Count a row that is fine but that a rule of the importer leaves out."""
        self.excluded[rule] += 1
