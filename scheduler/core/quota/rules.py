"""What an owner may not ask for, each refusal with its numbers.

A change that does not worsen a shortage is never refused: what is already short (nodes
were lost, a parent was cut) may be mended step by step.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from scheduler.core.gpu import Form
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
    found = [fault for queue in changed for fault in _own_faults(queue, tree)]
    found.extend(map(str, _worsened(tree.shortages, before)))
    return found


def _own_faults(queue: Queue, tree: QuotaTree) -> Iterator[str]:
    limits = dict(queue.limit)
    for form, count in queue.guarantee:
        if count > limits.get(form, count):
            yield (
                f"guarantee of {form}: {count} is above its own limit of "
                f"{limits[form]} ({queue.name})"
            )
    if not queue.weight and not any(count for _, count in queue.guarantee):
        yield f"weight 0 without a guarantee: {queue.name} could never hold anything"
    for kind in ("guarantee", "borrowing_limit", "lending_limit", "limit"):
        for form, _ in getattr(queue, kind):
            if form in tree.pools.members and "/" in form:
                yield f"{kind} of {form}: not a group ({queue.name})"


def _worsened(
    shortages: Iterable[Shortage], before: QuotaTree | None
) -> Iterator[Shortage]:
    old = {(s.queue, s.form): s.missing for s in before.shortages} if before else {}
    for shortage in shortages:
        if shortage.missing > old.get((shortage.queue, shortage.form), 0):
            yield shortage
