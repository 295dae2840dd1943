"""What a queue borrows, and how much of it by value.

Use of a form is paid by the guarantee of the form first, then by those of the groups
around it, the smallest first. What nobody pays is borrowed. It counts as use of the
*last payer*: the largest group around the form that the queue has a guarantee of, else
the form itself.
"""

from scheduler.core.gpu import Form
from scheduler.core.quota.pools import Pools
from scheduler.core.quota.queue import UNLIMITED, Amounts


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


def burst_room(
    pools: Pools,
    used: Amounts,
    promised: Amounts,
    own_limits: Amounts,
    burst_milli: int,
    form: Form,
) -> int:
    """Return how much more of a form the burst bound allows, in quanta.

    Pools with a borrowing limit of their own neither count nor are bound.
    """

    def is_bound(pool: Form) -> bool:
        return not any(around in own_limits for around in pools.chain(pool))

    if not is_bound(form):
        return UNLIMITED
    total = sum(amount * pools.value(pool) for pool, amount in promised.items())
    loans = borrowed(pools, used, promised)
    spent = sum(n * pools.value(pool) for pool, n in loans.items() if is_bound(pool))
    left = max(0, burst_milli * total // 1000 - spent)
    costs = _costs(pools, used, promised)
    payers = [form, *(g for g in pools.chain(form)[1:] if promised.get(g))]
    idle = (max(0, promised.get(p, 0) - costs.get(p, 0)) for p in payers)
    return sum(idle) + left // pools.value(payers[-1])
