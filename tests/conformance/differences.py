"""Where we differ from a peer on purpose: the one table.

A difference is a predicate over a case's inputs. Where it holds, an answer other than
the peer's counts as `differs`; where it does not hold, the same answer is a failure.
Where our own rule can be restated (`strict`) the answer must also be the one it gives.
The predicates are as narrow as the peer's published formula lets them be: they hold
where the rule we do not share shows in this very case. Ids say where that was seen;
nothing is looked up by them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, NamedTuple

from tests.conformance.amounts import exact, scale_of, table
from tests.conformance.kinds import kai_shares, koordinator
from tests.conformance.oracles import (
    Shares,
    Sibling,
    kai_division,
    strict_division,
    tiers,
    tilted_once,
)
from tests.conformance.strict import agrees, answer
from tests.conformance.verdict import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One rule that we do not share."""

    name: str
    kinds: tuple[str, ...]
    holds: Callable[[Case], bool]
    reason: str
    seen: tuple[str, ...] = ()
    ours: Callable[[Case], Mapping[str, Any]] | None = None


def difference(kind: str, case: Case, got: object) -> Difference | None:
    """Find why what we got for a case may be another answer than the peer's.

    None where no rule says so, or the answer is not the one of our rule either.
    """
    found = next((d for d in TABLE if kind in d.kinds and d.holds(case)), None)
    if found is None or found.ours is None or agrees(got, found.ours(case)):
        return found
    return None


# -- KAI: one division --------------------------------------------------------


class Level(NamedTuple):
    """One division that KAI makes: a total among siblings, below `parent`."""

    total: Fraction
    siblings: list[Sibling]
    parent: str | None = None


def kai_levels(case: Case) -> list[Level]:
    """Return every division that KAI makes in a row."""
    if case["kind"] == "fair_share":
        return [Level(exact(case["total"]), kai_shares.siblings_of(case))]
    if case["kind"] == "fair_share_multi":
        return [
            Level(exact(total), kai_shares.siblings_for(case, resource))
            for resource, total in table(case["total"]).items()
        ]
    return _tree_levels(case)


def _tree_levels(case: Case) -> list[Level]:
    """Divide as KAI does: a parent's fair share is the total of its children."""
    parents = kai_shares.parents_of(case)
    siblings = kai_shares.siblings_of(case)
    found: list[Level] = []
    todo: list[tuple[Fraction, str | None]] = [(exact(case["total"]), None)]
    while todo:
        total, parent = todo.pop()
        level = [s for s in siblings if parents.get(s.name) == parent]
        if level:
            found.append(Level(total, level, parent))
            shares = kai_division(total, level, _k(case))
            todo += [(share, name) for name, share in shares.items()]
    return found


def _k(case: Case) -> Fraction:
    return exact(case.get("k_value"))


def _by_kai(case: Case) -> list[tuple[Level, Shares]]:
    k = _k(case)
    return [
        (level, kai_division(level.total, level.siblings, k))
        for level in kai_levels(case)
    ]


def lower_tier_is_served_first(case: Case) -> bool:
    """KAI hands out leftovers of rounding after it served the lower tiers."""
    return any(_leaks(level, shares) for level, shares in _by_kai(case))


def _leaks(level: Level, shares: Shares) -> bool:
    hungry = False
    for tier in tiers(level.siblings):
        served = any(shares[s.name] > s.granted(level.total) for s in tier)
        if hungry and served:
            return True
        hungry = hungry or any(s.weight and shares[s.name] < s.request for s in tier)
    return False


def more_is_given_than_asked(case: Case) -> bool:
    """KAI gives a leftover unit whole, also to a queue that asks for less."""
    return any(
        shares[s.name] > max(s.request, s.granted(level.total))
        for level, shares in _by_kai(case)
        for s in level.siblings
    )


def past_use_tilts_without_bound(case: Case) -> bool:
    """KAI's past use may take a weight away wholly, and counts anew in every round."""
    k = _k(case)
    return bool(k) and any(
        shares != kai_division(level.total, tilted_once(level.total, level.siblings, k))
        for level, shares in _by_kai(case)
    )


def fractions_are_rounded(case: Case) -> bool:
    """KAI limits a share to whole units, also where fractions are asked for."""
    return any(_step(level) != 1 for level in kai_levels(case)) and _rounds(case)


def every_round_is_rounded(case: Case) -> bool:
    """KAI rounds down whenever it gives, and again what others hand back."""
    return all(_step(level) == 1 for level in kai_levels(case)) and _rounds(case)


def _step(level: Level) -> Fraction:
    amounts = kai_shares.amounts_of(level.total, level.siblings)
    return Fraction(1, scale_of(amounts))


def _rounds(case: Case) -> bool:
    """Whether one exact level, rounded once, is another answer than KAI's."""
    return any(
        shares
        != strict_division(
            level.total,
            tilted_once(level.total, level.siblings, _k(case)),
            _step(level),
        )
        for level, shares in _by_kai(case)
    )


# -- KAI: a tree --------------------------------------------------------------


def parent_asks_more_than_its_children_may_hold(case: Case) -> bool:
    """KAI caps a parent's request by its children's limits and weights nowhere."""
    total = exact(case["total"])
    parents = kai_shares.parents_of(case)
    below: dict[str, list[Sibling]] = {name: [] for name in parents.values()}
    queues = kai_shares.siblings_of(case)
    for queue in queues:
        if queue.name in parents:
            below[parents[queue.name]].append(queue)

    def may_hold(queue: Sibling) -> Fraction:
        most = queue.request if queue.weight else queue.granted(total)
        if queue.name not in below:
            return most
        return min(most, sum(map(may_hold, below[queue.name]), Fraction(0)))

    return any(
        queue.request > sum(map(may_hold, below[queue.name]), Fraction(0))
        for queue in queues
        if queue.name in below
    )


def children_own_more_than_their_parent(case: Case) -> bool:
    """KAI's children may be guaranteed more, together, than their parent is.

    It shows where they own more than there is, or where several of them share what
    their parent got on top of its guarantee.
    """
    queues = {s.name: s for s in kai_shares.siblings_of(case)}
    return any(
        _oversold(level, None if level.parent is None else queues[level.parent])
        for level in kai_levels(case)
    )


def _oversold(level: Level, parent: Sibling | None) -> bool:
    owned = [
        level.total if s.guarantee is None else s.guarantee for s in level.siblings
    ]
    if sum(owned) > level.total:
        return True
    if parent is None or parent.guarantee is None:
        return False
    alone = len(owned) == 1 and level.siblings[0].weight > 0  # gets it as burst
    return not alone and sum(owned) > parent.guarantee


# -- Koordinator --------------------------------------------------------------


def remainders_are_given_every_round(case: Case) -> bool:
    """Koordinator rounds again whenever somebody hands something back."""
    try:
        theirs, once = koordinator.published(case), koordinator.rounded_once(case)
    except ValueError:
        return False  # it knows whole amounts only
    return theirs != once


# -- Kueue --------------------------------------------------------------------


def weight_0_borrows(case: Case) -> bool:
    """Kueue's weight 0 makes a share infinite, but does not keep from borrowing."""
    cohorts = [row for row in case.get("cohorts") or () if row.get("parent")]
    queues = [row for row in case.get("clusterQueues") or () if row.get("cohort")]
    if case["kind"] == "dominant-share":
        queues = []  # a queue's own share does not ask what it could still borrow
    return any(row.get("weight") == 0 for row in (*cohorts, *queues))


def half_life_is_0(case: Case) -> bool:
    """Kueue without a half-life never learns; ours forgets at once."""
    given = table(case["input"])
    return "samples" in given and not given.get("halfLifeSeconds")


_FLAT = ("fair_share", "fair_share_multi", "fair_share_hierarchical")

TABLE: Final = (
    Difference(
        name="lower tier is served first",
        kinds=_FLAT,
        holds=lower_tier_is_served_first,
        ours=answer,
        reason="KAI lets leftovers of rounding leak to a lower priority; we serve it"
        " once the higher one has all it asks for (peers.md 2.2 A)",
    ),
    Difference(
        name="more is given than asked",
        kinds=_FLAT,
        holds=more_is_given_than_asked,
        ours=answer,
        reason="KAI gives a leftover unit whole to a queue that wants less; nobody gets"
        " more than it asks for (peers.md 2.2 B)",
    ),
    Difference(
        name="past use tilts without bound",
        kinds=_FLAT,
        holds=past_use_tilts_without_bound,
        ours=answer,
        reason="KAI lets past use, of the owner's own guarantee too, take a weight away"
        " wholly; what was borrowed tilts ours within bounds (peers.md 2.2 C)",
    ),
    Difference(
        name="fractions are rounded",
        kinds=_FLAT,
        holds=fractions_are_rounded,
        ours=answer,
        reason="KAI rounds to whole units what is limited; where fractions of a GPU are"
        " asked for, we divide exactly (peers.md 2.2 B)",
    ),
    Difference(
        name="every round is rounded",
        kinds=_FLAT,
        holds=every_round_is_rounded,
        ours=answer,
        reason="KAI rounds down in every round, also what others hand back; we find the"
        " level exactly and round once",
    ),
    Difference(
        name="parent asks more than its children may hold",
        kinds=("fair_share_hierarchical",),
        holds=parent_asks_more_than_its_children_may_hold,
        ours=answer,
        reason="KAI holds share for a parent that its children cannot use; a parent"
        " asks for what its children may hold (peers.md 2.2 E)",
    ),
    Difference(
        name="children own more than their parent",
        kinds=("fair_share_hierarchical",),
        holds=children_own_more_than_their_parent,
        ours=answer,
        reason="KAI leaves guarantees above the parent's to first come, first served;"
        " we scale them to it by a written rule (peers.md 2.2 F)",
    ),
    Difference(
        name="remainders are given every round",
        kinds=("koordinator_runtime_quota",),
        holds=remainders_are_given_every_round,
        ours=answer,
        reason="Koordinator hands out remainders in each round of its redistribution;"
        " we find the level exactly and round once",
    ),
    Difference(
        name="weight 0 borrows",
        kinds=("available-quota", "dominant-share"),
        holds=weight_0_borrows,
        reason="Kueue lets a node of weight 0 borrow, at an infinite share; with us it"
        " takes no part in the burst pool",
    ),
    Difference(
        name="half-life is 0",
        kinds=("usage-decay",),
        holds=half_life_is_0,
        reason="Kueue's memory then stays what it was for ever; ours knows only what is"
        " used now (kueue.md 2.3)",
    ),
)
