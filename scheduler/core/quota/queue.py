"""What an owner writes down: queues, class groups, and what holds for the fleet."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from scheduler.core.gpu import QUANTA_PER_GPU, Form, charge
from scheduler.core.workload import TenantName

UNLIMITED = 1 << 62
"""More quanta than any amount may be: sums of two still fit into 64 bits."""

MOST_WEIGHT = 10**9
MOST_PRIORITY = (1 << 31) - 1

Counts = tuple[tuple[Form, int], ...]


class PreemptWithin(Enum):
    """Whose running burst a tenant's waiting gang may stop inside the tenant."""

    NEVER = "never"
    LOWER_PRIORITY = "lower-priority"
    LOWER_OR_NEWER = "lower-or-newer-equal-priority"


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One node of the tenant tree; a leaf is a tenant. Amounts are device counts.

    Each amount names a form, or a class group (`Group`) of which any member counts.

    Parameters
    ----------
    guarantee
        Devices that are theirs on demand. A parent's contains its children's; a
        group's comes on top of those of its members.
    borrowing_limit
        Most devices above the guarantee; a form not listed has no such limit.
    lending_limit
        Most idle guaranteed devices others may use; a form not listed lends all.
    limit
        Most devices in total; a form not listed has none.
    weight
        Share of the burst pool relative to its siblings; 0: no burst at all.
    priority
        Tenant priority in the division, larger first.
    order
        Age: the older (smaller) of two equals wins.
    burst_milli
        Most it may borrow over all forms without a borrowing limit of their own, in
        thousandths of its total guarantee by value. None, and for a queue without
        guarantee: no such bound.
    inference_burst
        Most devices above the guarantee that count as inference; a form not listed: as
        many as are guaranteed. What is beyond counts as training.
    critical
        Most devices that count as inference-critical; a form not listed: none. What is
        beyond counts as inference.
    preempt_within
        Whom its own waiting work may stop.
    """

    name: TenantName
    parent: TenantName | None = None
    guarantee: Counts = ()
    borrowing_limit: Counts = ()
    lending_limit: Counts = ()
    limit: Counts = ()
    weight: int = 1
    priority: int = 0
    order: int = 0
    burst_milli: int | None = None
    inference_burst: Counts = ()
    critical: Counts = ()
    preempt_within: PreemptWithin = PreemptWithin.LOWER_PRIORITY

    def __post_init__(self) -> None:
        """Refuse amounts that mean nothing, or that no arithmetic is made for."""
        me = f"queue {self.name!r}"
        if self.weight < 0:
            raise ValueError(f"{me}: weight {self.weight} is negative")
        if self.weight > MOST_WEIGHT:
            raise ValueError(f"{me}: weight {self.weight} is above {MOST_WEIGHT}")
        if abs(self.priority) > MOST_PRIORITY:
            told = f"priority {self.priority} is beyond {MOST_PRIORITY}"
            raise ValueError(f"{me}: {told}")
        if self.burst_milli is not None and self.burst_milli < 0:
            raise ValueError(f"{me}: burst is negative")
        for field in (
            "guarantee",
            "borrowing_limit",
            "lending_limit",
            "limit",
            "inference_burst",
            "critical",
        ):
            check_counts(f"{me}: {field}", getattr(self, field))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """GPU classes of which any will do: ``any-a100``.

    `members` are classes or other groups. A group's name stands where a form does.
    """

    name: Form
    members: tuple[Form, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What holds for the whole tree.

    Parameters
    ----------
    groups
        Class groups; any two are nested or disjoint.
    burst_ceiling
        Most devices that all tenants together hold above the guarantees of the roots;
        a form not listed has no such ceiling.
    values
        Worth of GPU classes in thousandths of an A100-80GB, where the built-in worth
        (``gpu.value_weight``) is overruled.
    half_life_s
        Usage memory: after so many seconds past borrowing counts half; 0: no memory.
    memory_strength_milli
        How much the memory tilts the weights, in thousandths.
    """

    groups: tuple[Group, ...] = ()
    burst_ceiling: Counts = ()
    values: tuple[tuple[str, int], ...] = ()
    half_life_s: float = 0.0
    memory_strength_milli: int = 1000

    def __post_init__(self) -> None:
        """Refuse amounts that mean nothing."""
        check_counts("fleet: burst_ceiling", self.burst_ceiling)
        for name, value in self.values:
            if value <= 0:
                raise ValueError(f"fleet: value of {name} is not positive: {value}")
        if self.half_life_s < 0 or self.memory_strength_milli < 0:
            raise ValueError("fleet: half_life_s and memory_strength_milli below 0")


def check_counts(what: str, counts: Counts) -> None:
    """Raise ValueError, naming form and amount, when a count is out of range.

    It is negative, or all of them are `UNLIMITED` quanta or more.
    """
    for form, count in counts:
        if count < 0:
            raise ValueError(f"{what} of {form} is negative: {count}")
    if sum(count for _, count in counts) * QUANTA_PER_GPU < UNLIMITED:
        return  # as a device costs no more: what its form means may be asked elsewhere
    total = 0
    for form, count in counts:
        total += count * charge(form)
        if total >= UNLIMITED:
            raise ValueError(f"{what} of {form} is too large: {count}")


def quanta(counts: Counts) -> dict[Form, int]:
    """Return device counts as quanta by form."""
    return {form: count * charge(form) for form, count in counts}


def devices(amount: int, form: Form) -> str:
    """Write quanta as a count of devices, for messages."""
    unit = charge(form)
    return f"{amount // unit}" if amount % unit == 0 else f"{amount / unit:.3g}"


Amounts = Mapping[Form, int]
"""Quanta by form or group."""
