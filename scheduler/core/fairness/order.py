"""Whose turn it is, and who gives back first.

Use of different GPU classes is compared by *value*: what a queue borrows, times the
worth of its class, over what those around it could lend. That is Kueue's dominant
resource share (KEP-1714) with weights on the classes.
"""

from collections.abc import Callable
from fractions import Fraction
from math import inf

from scheduler.core.gpu import Form
from scheduler.core.quota import QuotaTree
from scheduler.core.workload import TenantName

SCALE = 1 << 20
BEYOND = 1 << 90

Share = Fraction | float
"""A fraction, or infinite."""


def borrowed_share(tree: QuotaTree, name: TenantName) -> Share:
    """Return the part of the lendable value that a queue borrows, over its weight.

    A root borrows from the fleet. 0 for who borrows nothing; infinite for a queue of
    weight 0 that borrows all the same.
    """
    queue = tree.queues[name]
    over = sum(tree.value(pool) * n for pool, n in _over(tree, name).items())
    if not over:
        return Fraction(0)
    forms = [f for f in tree.forms() if f not in tree.pools.members]
    lendable = sum(tree.value(f) * _lendable(tree, queue.parent, f) for f in forms)
    if not lendable:
        return Fraction(0)
    if not queue.weight:
        return inf
    return Fraction(over, lendable * queue.weight)


def _lendable(tree: QuotaTree, parent: TenantName | None, form: Form) -> int:
    if parent is None:
        return tree.capacity.get(form, 0)
    return tree.potential(parent, form)


def _over(tree: QuotaTree, name: TenantName) -> dict[Form, int]:
    """Quanta held above the guarantee; what children keep idle counts as held."""
    if tree.pools.members:
        return tree.borrowed(name)
    held = {f: tree.inside(name, f) - tree.guarantee(name, f) for f in tree.forms()}
    return {form: amount for form, amount in held.items() if amount > 0}


def give_back_key(
    tree: QuotaTree,
    holder: TenantName,
    taker: TenantName,
    share: Callable[[TenantName], Share] | None = None,
) -> tuple[Share, ...] | None:
    """Sort key of tenants that could give back to `taker`: the smallest does so first.

    From the root down to the holder, the queue with the largest share of borrowed value
    goes first, of equals the one that has queues below it (Kueue, KEP-1714). None where
    some queue on that way, below the point where it parts from the taker's,
    borrows nothing: nothing is due from there. `share` may answer `borrowed_share`
    from memory.
    """
    theirs = tree.path(taker)
    key: list[Share] = []
    for queue in reversed(tree.path(holder)):
        part = share(queue) if share else borrowed_share(tree, queue)
        if not part and queue not in theirs and not _over(tree, queue):
            return None
        key.append(-part)
    return (*key, inf)


def turn(
    *,
    covered: bool,
    used: int,
    quanta: int,
    share: int,
    priority: int = 0,
    borrowed: Share = 0,
    order: int = 0,
) -> tuple[object, ...]:
    """Sort key of two tenants that want the same form next: the smaller goes first.

    Covered demand, then who is not above its share, then priority, then who would be
    further below its share, then who borrows less, then the smaller share, then age.

    Parameters
    ----------
    covered
        Whether the guarantee pays for the next gang.
    used, quanta, share
        What the tenant uses, what its next gang needs, what division grants it.
    borrowed
        Its `borrowed_share`.
    """
    return (
        not covered,
        used > share,
        -priority,
        reach(used + quanta, share),
        reach(used, share),
        borrowed,
        share,
        order,
    )


def reach(used: int, share: int) -> int:
    """Return use relative to the share, times `SCALE`; huge where nothing is granted.

    An integer, rounded down: these are compared for every waiting gang in every cycle.
    """
    if share:
        return used * SCALE // share
    return BEYOND + used if used else 0
