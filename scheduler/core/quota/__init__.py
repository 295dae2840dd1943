"""Who may hold how much: the tenant tree in integers.

``queue`` is what owners write down, ``tree`` what follows for each charge; start there.
``pools`` knows the class groups, ``scaling`` what happens when guarantees no longer
fit, ``keeping`` what is not lent, ``lending`` what is borrowed, ``rules`` what is
refused.
"""

from scheduler.core.quota.pools import Pools
from scheduler.core.quota.queue import (
    UNLIMITED,
    Amounts,
    Counts,
    Fleet,
    Group,
    PreemptWithin,
    Queue,
    quanta,
)
from scheduler.core.quota.rules import refusals
from scheduler.core.quota.scaling import Shortage
from scheduler.core.quota.tree import QuotaTree

__all__ = [
    "UNLIMITED",
    "Amounts",
    "Counts",
    "Fleet",
    "Group",
    "Pools",
    "PreemptWithin",
    "Queue",
    "QuotaTree",
    "Shortage",
    "quanta",
    "refusals",
]
