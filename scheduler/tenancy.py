"""The tenant tree as it is written down, and what it must fulfil.

The settings file and the event door say the same things, so both are judged here. What
may be promised is decided by the core (``refusals``); hidden here is how a tree that is
broken in one place is still judged in all others, so that every fault is named at once.
A fault is one line: the key, the value, and the numbers that clash.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scheduler.core import (
    Fleet,
    Form,
    Group,
    Queue,
    QuotaTree,
    TenantName,
    class_of,
    known_classes,
    parse_form,
    refusals,
)

_KEYS = {
    "guarantee": "guarantee",
    "borrowing_limit": "borrowingLimit",
    "lending_limit": "lendingLimit",
    "limit": "limit",
    "inference_burst": "inferenceBurst",
    "critical": "inferenceCritical",
}
"""Fields of a queue that hold counts, and their keys in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenancy:
    """Who there is, what is theirs, and whose pods are charged to whom.

    Parameters
    ----------
    queues
        The tree, in the order it was written.
    namespaces
        Of each queue, in the same order.
    fleet
        What holds for the whole tree; None: what held before.
    """

    queues: tuple[Queue, ...]
    namespaces: tuple[tuple[str, ...], ...]
    fleet: Fleet | None = None

    @property
    def owners(self) -> dict[str, TenantName]:
        """Tenant of each namespace."""
        pairs = zip(self.queues, self.namespaces, strict=True)
        return {name: queue.name for queue, names in pairs for name in names}


def faults(
    tenancy: Tenancy,
    classes: Collection[str],
    capacity: Mapping[Form, int] | None,
    before: QuotaTree | None = None,
) -> list[str]:
    """Return everything that is wrong with a tree; empty when it may be had.

    Parameters
    ----------
    classes
        GPU classes of the nodes; those of the built-in tables are known anyway.
    capacity
        Quanta of the fleet by form; None while nobody knows.
    before
        The tree it replaces, None for a first one. What is short already may stay so.
    """
    fleet = tenancy.fleet or (before.fleet if before else Fleet())
    known = {*known_classes(), *classes, *_named_in(before)}
    groups = {str(group.name) for group in fleet.groups}
    found = list(_tree_faults(tenancy))
    sound, problems = _sound_groups(fleet.groups, known, known | groups)
    found += [*problems, *_fleet_faults(fleet, known | groups, groups)]
    usable = known | {group.name for group in sound}
    queues: list[Queue] = []
    for index, queue in enumerate(tenancy.queues):
        found += _form_faults(queue, f"tenants[{index}]", known | groups, groups)
        queues.append(_restrict(queue, usable, groups))
    fleet = replace(fleet, groups=tuple(sound), burst_ceiling=())
    told = _refused(queues, fleet, capacity, before)
    return [*found, *(f"tenants: {fault}" for fault in told)]


# -- the tree -----------------------------------------------------------------


def _tree_faults(tenancy: Tenancy) -> Iterator[str]:
    queues = tenancy.queues
    names = Counter(queue.name for queue in queues)
    if not names:
        yield "tenants: there must be at least one"
    for name, count in names.items():
        if count > 1:
            yield f"tenants: {name!r} is defined {count} times"
    parents = {queue.name: queue.parent for queue in queues}
    for index, queue in enumerate(queues):
        if queue.parent is not None and queue.parent not in names:
            yield f"tenants[{index}].parent: {queue.parent!r} is no tenant"
        cycle = _cycle_from(queue.name, parents)
        if cycle and queue.name == min(cycle):
            told = " -> ".join([*cycle, queue.name])
            yield f"tenants[{index}].parent: {queue.parent!r}: a cycle, {told}"
    yield from _namespace_faults(tenancy)


def _cycle_from(
    name: TenantName, parents: Mapping[TenantName, TenantName | None]
) -> list[TenantName]:
    """Return the queue and its ancestors if they lead back to it, else nothing."""
    path = [name]
    at = parents.get(name)
    while at is not None and at not in path:
        path.append(at)
        at = parents.get(at)
    return path if at == name else []


def _namespace_faults(tenancy: Tenancy) -> Iterator[str]:
    inner = {queue.parent for queue in tenancy.queues}
    owners: dict[str, TenantName] = {}
    pairs = zip(tenancy.queues, tenancy.namespaces, strict=True)
    for index, (queue, namespaces) in enumerate(pairs):
        key = f"tenants[{index}].namespaces"
        if namespaces and queue.name in inner:
            yield f"{key}: {queue.name!r} has children; pods belong to its leaves"
        for namespace in namespaces:
            if namespace in owners:
                yield f"{key}: {namespace!r} belongs to {owners[namespace]!r} already"
            owners.setdefault(namespace, queue.name)


# -- names of forms and groups ------------------------------------------------


def _named_in(before: QuotaTree | None) -> set[str]:
    """GPU classes that the present tree speaks of, though their nodes may be gone."""
    if before is None:
        return set()
    named = {
        form
        for queue in before.queues.values()
        for field in _KEYS
        for form, _ in getattr(queue, field)
    }
    named.update(before.pools.forms())
    return {class_of(form) for form in named - before.pools.members.keys()}


def _sound_groups(
    groups: Iterable[Group], known: Collection[str], names: Collection[str]
) -> tuple[list[Group], list[str]]:
    """Return the groups that can be had, and what is wrong with the others."""
    sound: list[Group] = []
    found: list[str] = []
    for group in groups:
        problems = list(_group_faults(group, known, names))
        if not problems:
            try:
                QuotaTree((), Fleet(groups=(*sound, group)))
                sound.append(group)
            except ValueError as error:
                problems = [f"fleet.groups.{group.name}: {error}"]
        found += problems
    return sound, found


def _group_faults(
    group: Group, known: Collection[str], names: Collection[str]
) -> Iterator[str]:
    key = f"fleet.groups.{group.name}"
    if group.name in known:
        yield f"{key}: {group.name!r} is a GPU class already"
    elif problem := _form_problem(group.name, names, ()):
        yield f"{key}: {problem}"
    elif "/" in group.name:
        yield f"{key}: {group.name!r} is no name of a group: it has a slash"
    for index, member in enumerate(group.members):
        problem = _form_problem(member, names, ())
        if problem or "/" in member:
            problem = problem or f"{member!r} is a form, not a GPU class"
            yield f"{key}[{index}]: {problem}"


def _fleet_faults(
    fleet: Fleet, names: Collection[str], groups: Collection[str]
) -> Iterator[str]:
    for form, _ in fleet.burst_ceiling:
        if problem := _form_problem(form, names, groups):
            yield f"fleet.burstCeiling.{form}: {problem}"
    for name, _ in fleet.values:
        problem = _form_problem(name, names, groups)
        if not problem and ("/" in name or name in groups):
            problem = f"{name!r} is not a GPU class"
        if problem:
            yield f"fleet.values.{name}: {problem}"


def _form_faults(
    queue: Queue, key: str, names: Collection[str], groups: Collection[str]
) -> Iterator[str]:
    for field, name in _KEYS.items():
        for form, _ in getattr(queue, field):
            if problem := _form_problem(form, names, groups):
                yield f"{key}.{name}.{form}: {problem}"


def _restrict(queue: Queue, usable: Collection[str], groups: Collection[str]) -> Queue:
    """Return the queue without amounts of what is no form or no sound group."""
    changes: dict[str, Any] = {}
    for field in _KEYS:
        counts = getattr(queue, field)
        kept = [c for c in counts if not _form_problem(c[0], usable, groups)]
        if len(kept) < len(counts):
            changes[field] = tuple(kept)
    return replace(queue, **changes) if changes else queue


def _form_problem(text: str, names: Collection[str], groups: Collection[str]) -> str:
    try:
        name = class_of(parse_form(text))
    except ValueError as error:
        return str(error)
    if name not in names:
        return f"{name!r} is no known GPU class or group"
    if name in groups and name != text:
        return f"{text!r}: the group {name!r} has neither profiles nor replicas"
    return ""


# -- what may be promised -----------------------------------------------------


def _refused(
    queues: Sequence[Queue],
    fleet: Fleet,
    capacity: Mapping[Form, int] | None,
    before: QuotaTree | None,
) -> list[str]:
    """Let the core judge; what is below a queue also where the roots are short.

    A name that is taken twice counts once, a queue without a place stands by itself.
    """
    named = {queue.name: queue for queue in reversed(queues)}
    unique = [queue for queue in queues if named[queue.name] is queue]
    parents = {queue.name: queue.parent for queue in unique}
    placed = [
        replace(queue, parent=None)
        if queue.parent not in named or _cycle_from(queue.name, parents)
        else queue
        for queue in unique
    ]
    found = refusals(placed, fleet, None, before)
    if capacity is not None:
        roots = [queue for queue in unique if queue.parent is None]
        above = refusals(roots, fleet, capacity, before)
        found += [fault for fault in above if fault not in found]
    return found
