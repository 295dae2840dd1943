"""What is fair: division of capacity, what a guarantee covers, whose turn it is.

``division`` says who may hold how much now (``filling`` is its arithmetic), ``cover``
whom a guarantee protects, ``order`` who goes first and who gives back first,
``memory`` how past borrowing counts.
"""

from scheduler.core.fairness.cover import (
    Guarantee,
    Purse,
    Rank,
    Spending,
    Standing,
    covered,
    covered_forms,
    demoted,
    entitlements,
    granted,
)
from scheduler.core.fairness.division import (
    TIERS,
    Claim,
    Division,
    divide,
    divide_tiers,
    fill,
)
from scheduler.core.fairness.memory import (
    TILT_SCALE,
    UsageMemory,
    tilted,
    usage_score,
)
from scheduler.core.fairness.order import (
    Share,
    borrowed_share,
    give_back_key,
    reach,
    turn,
)

__all__ = [
    "TIERS",
    "TILT_SCALE",
    "Claim",
    "Division",
    "Guarantee",
    "Purse",
    "Rank",
    "Share",
    "Spending",
    "Standing",
    "UsageMemory",
    "borrowed_share",
    "covered",
    "covered_forms",
    "demoted",
    "divide",
    "divide_tiers",
    "entitlements",
    "fill",
    "give_back_key",
    "granted",
    "reach",
    "tilted",
    "turn",
    "usage_score",
]
