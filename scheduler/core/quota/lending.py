"""What a queue borrows, and how much of it by value.

Use of a form is paid by the guarantee of the form first, then by those of the groups
around it, the smallest first. What nobody pays is borrowed. It counts as use of the
*last payer*: the largest group around the form that the queue has a guarantee of, else
the form itself.
"""

from scheduler.core.gpu import Form
from scheduler.core.quota.pools import Pools
from scheduler.core.quota.queue import Amounts


def borrowed(pools: Pools, used: Amounts, owned: Amounts) -> dict[Form, int]:
    """Return quanta held above the guarantee, by last payer; nothing that is 0."""
    costs = _costs(pools, used, owned)
    return {
        pool: cost - owned.get(pool, 0)
        for pool, cost in costs.items()
        if cost > owned.get(pool, 0) and _next_payer(pools, owned, pool) is None
    }


def _costs(pools: Pools, used: Amounts, owned: Amounts) -> dict[Form, int]:
    """Return what each payer would have to pay: what those inside it could not."""
    costs = {form: n for form, n in used.items() if form not in pools.members}
    for pool in pools.ascending(costs):
        around = _next_payer(pools, owned, pool)
        over = costs.get(pool, 0) - owned.get(pool, 0)
        if over > 0 and around is not None:
            costs[around] = costs.get(around, 0) + over
    return costs


def _next_payer(pools: Pools, owned: Amounts, pool: Form) -> Form | None:
    around = pools.chain(pool)[1:]
    return next((group for group in around if owned.get(group)), None)


def loan(pools: Pools, used: Amounts, owned: Amounts, pool: Form) -> int:
    """Return how much of the use of one pool no guarantee pays for, in quanta.

    A group around the pool pays for others inside it first: what it has left then pays
    for this one.
    """
    inside = pools.inside(pool)
    mine = {form: n for form, n in used.items() if form in inside}
    own = {p: n for p, n in owned.items() if pool in pools.chain(p)}
    rest = sum(borrowed(pools, mine, own).values())
    around = pools.chain(pool)[1:]
    if rest and any(owned.get(group) for group in around):
        others = {form: n for form, n in used.items() if form not in inside}
        costs = _costs(pools, others, owned)
        for group in around:
            rest = max(0, rest - max(0, owned.get(group, 0) - costs.get(group, 0)))
    return rest


def idle(pools: Pools, used: Amounts, owned: Amounts, form: Form) -> int:
    """Return the guarantee that more use of a form would be paid from, in quanta."""
    costs = _costs(pools, used, owned)
    payers = [form, *(g for g in pools.chain(form)[1:] if owned.get(g))]
    return sum(max(0, owned.get(p, 0) - costs.get(p, 0)) for p in payers)


def burst_left(
    pools: Pools,
    used: Amounts,
    promised: Amounts,
    own_limits: Amounts,
    burst_milli: int,
) -> int:
    """Return what the burst bound leaves, in quanta x worth; negative if overdrawn.

    Use of forms with a borrowing limit of their own does not count.
    """
    bound = {
        form: n
        for form, n in used.items()
        if not any(pool in own_limits for pool in pools.chain(form))
    }
    total = sum(amount * pools.value(pool) for pool, amount in promised.items())
    loans = borrowed(pools, bound, promised)
    spent = sum(n * pools.value(pool) for pool, n in loans.items())
    return burst_milli * total // 1000 - spent


def worth(pools: Pools, promised: Amounts, form: Form) -> int:
    """Return the worth of a quantum borrowed of a form: that of its last payer."""
    payers = [form, *(g for g in pools.chain(form)[1:] if promised.get(g))]
    return pools.value(payers[-1])
