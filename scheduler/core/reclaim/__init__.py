"""Who must give back: ``rules`` says who may be asked, ``search`` who is cheapest."""

from scheduler.core.reclaim.rules import (
    Court,
    Holding,
    Taker,
    Urgency,
    covered_takes_burst,
    inference_takes_lower,
    may_take,
    may_take_burst,
    outranks,
    preempts_within,
    toward_shares,
)
from scheduler.core.reclaim.search import (
    FIXED_COST_S,
    FRESH_S,
    Exchange,
    faults,
    find_exchange,
    lost_work,
)

__all__ = [
    "FIXED_COST_S",
    "FRESH_S",
    "Court",
    "Exchange",
    "Holding",
    "Taker",
    "Urgency",
    "covered_takes_burst",
    "faults",
    "find_exchange",
    "inference_takes_lower",
    "lost_work",
    "may_take",
    "may_take_burst",
    "outranks",
    "preempts_within",
    "toward_shares",
]
