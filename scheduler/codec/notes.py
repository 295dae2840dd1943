"""What people write on pods: our annotations, read one by one.

Hidden here: how each is spelled. Names of design section 11.
"""

from collections.abc import Callable
from typing import TypeVar

from scheduler.codec.errors import CodecError
from scheduler.codec.objects import PodObject
from scheduler.core import parse_form
from scheduler.quantity import seconds

ANNOTATION = "fairshare.dev/"
MAX_GANG = 65_536
_T = TypeVar("_T")


class Notes:
    """The pod's ``fairshare.dev/`` annotations."""

    def __init__(self, pod: PodObject) -> None:
        self._pod = pod
        self._texts = pod.metadata.annotations or {}

    def read(self, name: str, parse: Callable[[str], _T], default: _T) -> _T:
        """Return the parsed annotation, `default` when it is absent.

        Raises
        ------
        CodecError
            When `parse` does not understand it.
        """
        text = self._texts.get(ANNOTATION + name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise self.error(name, text, str(error)) from error

    def error(self, name: str, value: object, problem: str) -> CodecError:
        """Return the error that names the annotation."""
        field = f"metadata.annotations[{ANNOTATION}{name}]"
        return CodecError(self._pod.title, field, value, problem)


def gang_name(text: str) -> str:
    """Read the name of a gang."""
    if not text or len(text) > 253 or not text.isprintable() or "/" in text:
        raise ValueError("is no name: 1 to 253 printable characters without a slash")
    return text


def member_count(text: str) -> int:
    """Read how many members start together."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_GANG):
        raise ValueError(f"is not a whole number from 1 to {MAX_GANG}")
    return int(text[:9])


def class_list(text: str) -> tuple[str, ...]:
    """Read GPU classes, preferred first."""
    names = tuple(name.strip() for name in text.split(","))
    if len(set(names)) != len(names):
        raise ValueError("names a GPU class twice")
    return tuple(parse_form(name) for name in names)


def boolean(text: str) -> bool:
    """Read a yes or no."""
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def period(text: str) -> float | None:
    """Read a time that passes again and again, seconds."""
    value = seconds(text)
    if value <= 0:
        raise ValueError("must be longer than 0s")
    return value
