"""What an owner may not ask for, each refusal with its numbers.

A change that does not worsen a shortage is never refused: what is already short (nodes
were lost, a parent was cut) may be mended step by step.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from scheduler.core.gpu import Form, charge, known_classes
from scheduler.core.quota.queue import Fleet, Queue
from scheduler.core.quota.scaling import Shortage
from scheduler.core.quota.tree import QuotaTree


def refusals(
    queues: Sequence[Queue],
    fleet: Fleet,
    capacity: Mapping[Form, int] | None,
    before: QuotaTree | None = None,
) -> list[str]:
    """Return what is wrong with a tree of queues; empty when it may be had.

    Parameters
    ----------
    capacity
        Quanta of the fleet by form; None while nobody knows.
    before
        The tree it replaces, None for a first one.
    """
    try:
        tree = QuotaTree(queues, fleet)
    except ValueError as error:
        return [str(error)]
    if capacity is not None:
        tree.capacity = capacity
    known = before.queues if before is not None else {}
    changed = [queue for queue in queues if known.get(queue.name) != queue]
    found = list(_group_faults(fleet, capacity or {}))
    found.extend(fault for queue in changed for fault in _own_faults(queue, tree))
    if not changed or not all(_gives_way(q, known.get(q.name), tree) for q in changed):
        worse = (_as_written(s, tree) for s in _worsened(tree.shortages, before))
        found.extend(str(shortage) for shortage in worse if shortage.missing > 0)
    return found


def _group_faults(fleet: Fleet, capacity: Mapping[Form, int]) -> Iterator[str]:
    taken = {*capacity, *known_classes()}
    for group in fleet.groups:
        if group.name in taken:
            yield f"group {group.name!r} is named like a GPU class"


def _own_faults(queue: Queue, tree: QuotaTree) -> Iterator[str]:
    chain = tree.pools.chain
    for form, limit in queue.limit:
        inside = [n for pool, n in queue.guarantee if n and form in chain(pool)]
        if sum(inside) > limit:
            told = " + ".join(map(str, inside))
            yield (
                f"guarantee of {form}: {told} is above its own limit of {limit} "
                f"({queue.name})"
            )
    if not queue.weight and not any(count for _, count in queue.guarantee):
        yield f"weight 0 without a guarantee: {queue.name} could never hold anything"


def _as_written(shortage: Shortage, tree: QuotaTree) -> Shortage:
    """Judge children by what their parent wrote; its limit is a fault of its own."""
    if shortage.queue is None:
        return shortage
    written = dict(tree.queues[shortage.queue].guarantee).get(shortage.form, 0)
    lost = written * charge(shortage.form) - tree.promised(shortage.queue).get(
        shortage.form, 0
    )
    return replace(shortage, available=shortage.available + lost)


def _worsened(
    shortages: Iterable[Shortage], before: QuotaTree | None
) -> Iterator[Shortage]:
    old = {(s.queue, s.form): s.missing for s in before.shortages} if before else {}
    for shortage in shortages:
        if shortage.missing > old.get((shortage.queue, shortage.form), 0):
            yield shortage


def _gives_way(queue: Queue, known: Queue | None, tree: QuotaTree) -> bool:
    """Whether a tenant only asks for less: a shortage may show elsewhere then.

    Where children share a parent's group, one that gives way lets another's need of a
    class come up to where it is missing.
    """
    if known is None or not tree.is_leaf(queue.name) or queue.parent != known.parent:
        return False
    before = dict(known.guarantee)
    return all(count <= before.get(form, 0) for form, count in queue.guarantee)
