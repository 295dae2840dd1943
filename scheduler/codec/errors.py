"""What is raised when something from outside cannot be read, or may not be had.

CodecError        a message that cannot be read: names field and value
RefusedError    something readable that may not be had: names every fault
"""

from collections.abc import Iterable

_SHOWN = 80


class CodecError(ValueError):
    """A message from outside that cannot be read; says which field and which value."""

    def __init__(self, where: str, field: str, value: object, problem: str) -> None:
        shown = value if isinstance(value, str) else repr(value)
        shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."
        super().__init__(f"{where}: {field}: {shown!r} {problem}")


class RefusedError(CodecError):
    """Something readable that may not be had; each fault names key, value, numbers."""

    def __init__(self, where: str, faults: Iterable[str]) -> None:
        ValueError.__init__(self, f"{where}: {'; '.join(faults)}")
