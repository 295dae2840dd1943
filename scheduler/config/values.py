"""How the values of settings and tenant objects are written, and read.

Hidden here: units and grammars (``60s``, ``512Gi``, ``127.0.0.1:8080``, ``1.75``).
Where pydantic knows only what a value is read into, its JSON schema, which is that of
Tenant and Fleet objects, is stated beside it.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictInt,
    WithJsonSchema,
)

from scheduler.core import WorkloadClass, workload_class
from scheduler.quantity import (
    DURATION,
    MAX_TEXT,
    cpu_milli,
    memory_mib,
    quantity,
    round_down,
    seconds,
)

MAX_FORMS = 64
"""Entries of one map by form: more than a fleet has GPU classes."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_ADDRESS = re.compile(r"(?:([^\s:\[\]]+)|\[([0-9a-fA-F:.]+)\]):(\d{1,5})", re.ASCII)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("needs a unit")
    return value


def _duration(value: object) -> float:
    return seconds(_text(value))


def _cpu(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be cores (64) or millicores (500m)")
    return round_down(cpu_milli(str(value)))


def _memory(value: object) -> int:
    amount = round_down(memory_mib(_text(value)))
    if amount < 1:
        raise ValueError("is less than 1Mi: give a unit, as 512Gi")
    return amount


def _bytes(value: object) -> int:
    amount = round_down(quantity(_text(value)))
    if amount < 65_536:
        raise ValueError("is less than 64Ki, too little for the names of a fleet")
    return amount


def _milli(value: object) -> int:
    """Read a number as thousandths: 1.75 is 1750."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    milli = Decimal(repr(value)) * 1000 if number else Decimal("NaN")
    if not milli.is_finite() or milli != milli.to_integral_value():
        raise ValueError("must be a number with at most three decimals, as 2.0")
    return int(milli)


def _class(value: object) -> WorkloadClass:
    return workload_class(str(value))


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port`` (``[::1]:8080`` for IPv6); port 0 means any free one.

    Raises
    ------
    ValueError
        When the text is no such address.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match.group(3)) > 65_535:
        raise ValueError("is not host:port, as 127.0.0.1:8080")
    return match.group(1) or match.group(2), int(match.group(3))


def _address(value: object) -> tuple[str, int]:
    return parse_address(_text(value))


def _named(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"is no {what}: lower-case letters, digits, '-' and '.'")
        return text

    return check


def _node_name(text: str) -> str:
    if not _NAME.fullmatch(text.replace("{i}", "0", 1)):
        raise ValueError("is no node name: lower-case letters, digits, '-', '.', {i}")
    return text


def _lease_name(text: str) -> str:
    namespace, _, name = text.partition("/")
    if not (_NAME.fullmatch(namespace) and _NAME.fullmatch(name)):
        raise ValueError("is not namespace/name, as kube-system/kube-scheduler")
    return text


LeaseName = Annotated[str, AfterValidator(_lease_name)]
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    Field(ge=0, le=86_400 * 366),
    WithJsonSchema(
        {"type": "string", "maxLength": MAX_TEXT, "pattern": f"^{DURATION.pattern}$"}
    ),
]
Cpu = Annotated[int, BeforeValidator(_cpu), Field(ge=0)]
Memory = Annotated[int, BeforeValidator(_memory)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(le=1 << 30)]
Address = Annotated[tuple[str, int], BeforeValidator(_address)]
Name = Annotated[
    str,
    AfterValidator(_named(_NAME, "name")),
    WithJsonSchema(
        {"type": "string", "maxLength": 253, "pattern": f"^{_NAME.pattern}$"}
    ),
]
NodeNames = Annotated[str, AfterValidator(_node_name)]
Class = Annotated[WorkloadClass, BeforeValidator(_class)]
Count = Annotated[StrictInt, Field(ge=0, le=1_000_000)]
Milli = Annotated[
    int,
    BeforeValidator(_milli),
    Field(ge=0, le=1_000_000_000),
    WithJsonSchema(
        {"type": "number", "minimum": 0, "maximum": 1_000_000, "multipleOf": 0.001}
    ),
]
PositiveMilli = Annotated[
    Milli,
    Field(gt=0),
    WithJsonSchema(
        {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1_000_000,
            "multipleOf": 0.001,
        }
    ),
]

# What a form, class or group may be called is judged with the whole tree at hand
# (``scheduler.tenancy``); the schemas say what can be said of the text alone.

FormName = Annotated[
    str,
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 63,
            "pattern": "^[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.+-]*)?$",
            "description": "a GPU class (h100-80gb), a form of one "
            "(h100-80gb/1g.10gb, a10-24gb/shared-4) or a class group, in lower case",
        }
    ),
]
ClassName = Annotated[
    str,
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 63,
            "pattern": "^[a-z0-9][a-z0-9.-]*$",
            "description": "a GPU class (h100-80gb) or class group, in lower case",
        }
    ),
]
Counts = Annotated[dict[FormName, Count], Field(max_length=MAX_FORMS)]
Amounts = Annotated[dict[ClassName, PositiveMilli], Field(max_length=MAX_FORMS)]
Members = Annotated[tuple[ClassName, ...], Field(max_length=MAX_FORMS)]
