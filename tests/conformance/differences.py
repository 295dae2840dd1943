"""Where we differ from a peer on purpose: the one table.

A difference is a predicate over a case's inputs. Where it holds, an answer other than
the peer's counts as `differs`; where it does not hold, the same answer is a failure.
The predicates are as narrow as the peer's published formula lets them be: they hold
where the rule we do not share shows in this very case. Ids say where that was seen;
nothing is looked up by them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from tests.conformance.amounts import bound, exact, table
from tests.conformance.kinds import kai_shares, koordinator
from tests.conformance.oracles import (
    Shares,
    Sibling,
    kai_division,
    strict_division,
    tiers,
)
from tests.conformance.verdict import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One rule that we do not share."""

    name: str
    kinds: tuple[str, ...]
    holds: Callable[[Case], bool]
    reason: str
    seen: tuple[str, ...] = ()


def difference(kind: str, case: Case) -> Difference | None:
    """Find why our answer to a case may be another one."""
    return next((d for d in TABLE if kind in d.kinds and d.holds(case)), None)


# -- KAI: one division --------------------------------------------------------

Level = tuple[Fraction, list[Sibling]]
"""A total, and the siblings it is divided among."""


def _levels(case: Case) -> list[Level]:
    """Return every division that KAI makes in a row."""
    if case["kind"] == "fair_share":
        return [(exact(case["total"]), kai_shares.siblings_of(case))]
    if case["kind"] == "fair_share_multi":
        return [
            (exact(total), kai_shares.siblings_for(case, resource))
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
            found.append((total, level))
            shares = kai_division(total, level, _k(case))
            todo += [(share, name) for name, share in shares.items()]
    return found


def _k(case: Case) -> Fraction:
    return exact(case.get("k_value"))


def _by_kai(case: Case) -> list[tuple[Level, Shares]]:
    return [(level, kai_division(*level, _k(case))) for level in _levels(case)]


def lower_tier_is_served_first(case: Case) -> bool:
    """KAI hands out leftovers of rounding after it served the lower tiers."""
    return any(_leaks(level, shares) for level, shares in _by_kai(case))


def _leaks(level: Level, shares: Shares) -> bool:
    total, siblings = level
    hungry = False
    for tier in tiers(siblings):
        served = any(shares[s.name] > s.granted(total) for s in tier)
        if hungry and served:
            return True
        hungry = hungry or any(s.weight and shares[s.name] < s.request for s in tier)
    return False


def more_is_given_than_asked(case: Case) -> bool:
    """KAI gives a leftover unit whole, also to a queue that asks for less."""
    return any(
        shares[s.name] > max(s.request, s.granted(level[0]))
        for level, shares in _by_kai(case)
        for s in level[1]
    )


def fractions_are_rounded(case: Case) -> bool:
    """KAI limits a share to whole units, also where fractions are asked for."""
    for level, shares in _by_kai(case):
        total, siblings = level
        amounts = kai_shares.amounts_of(total, siblings)
        step = Fraction(1, kai_shares.scale_of(amounts))
        if step != 1 and shares != strict_division(total, siblings, step):
            return True
    return False


def use_within_the_guarantee_counts(case: Case) -> bool:
    """KAI tilts weights by all past use, whoever owned what was used."""
    levels = _levels(case)
    return bool(_k(case)) and any(
        kai_division(*level, _k(case)) != kai_division(*level) for level in levels
    )


# -- KAI: a tree --------------------------------------------------------------


def parent_asks_more_than_its_children_may_hold(case: Case) -> bool:
    """KAI does not cap a parent's request by its children's limits."""
    siblings = kai_shares.siblings_of(case)
    below = kai_shares.requests_below(siblings, kai_shares.parents_of(case))
    return any(s.request > below[s.name] for s in siblings if s.name in below)


def children_own_more_than_their_parent(case: Case) -> bool:
    """KAI's children may be guaranteed more, together, than their parent is.

    Only where several of them want it: a single child just gets what the parent has.
    """
    siblings = {s.name: s for s in kai_shares.siblings_of(case)}
    parents = kai_shares.parents_of(case)
    total = exact(case["total"])
    for parent in {None, *parents.values()}:
        whole = total if parent is None else siblings[parent].granted(total)
        owned = [
            s.granted(total) for s in siblings.values() if parents.get(s.name) == parent
        ]
        if sum(1 for part in owned if part) > 1 and sum(owned) > whole:
            return True
    return False


def quotas_add_up_to_more_than_the_parents(case: Case) -> bool:
    """Same, in a check of quotas: siblings are promised what their parent lacks."""
    promised: dict[tuple[str, str], list[Fraction | None]] = {}
    owned: dict[tuple[str, str], Fraction | None] = {}
    for queue in case["queues"]:
        for resource, entry in table(queue.get("resources")).items():
            deserved = bound(entry.get("deserved"))
            owned[str(queue["name"]), resource] = deserved
            above = (str(queue.get("parent")), resource)
            promised.setdefault(above, []).append(deserved)
    return case["check"] == "nonpreemptible_over_quota" and any(
        len(parts) > 1
        and (whole := owned.get(above)) is not None
        and sum((part or Fraction(0) for part in parts), Fraction(0)) > whole
        for above, parts in promised.items()
    )


# -- Koordinator --------------------------------------------------------------


def remainders_are_given_every_round(case: Case) -> bool:
    """Koordinator rounds again whenever somebody hands something back."""
    try:
        theirs, once = koordinator.published(case), koordinator.rounded_once(case)
    except ValueError:
        return False  # it knows whole amounts only
    return theirs != once


_FLAT = ("fair_share", "fair_share_multi", "fair_share_hierarchical")

TABLE: Final = (
    Difference(
        name="lower tier is served first",
        kinds=_FLAT,
        holds=lower_tier_is_served_first,
        reason="KAI lets leftovers of rounding leak to a lower priority; we serve it"
        " once the higher one has all it asks for (peers.md 2.2 A)",
    ),
    Difference(
        name="more is given than asked",
        kinds=_FLAT,
        holds=more_is_given_than_asked,
        reason="KAI gives a leftover unit whole to a queue that wants less; nobody gets"
        " more than it asks for (peers.md 2.2 B)",
    ),
    Difference(
        name="fractions are rounded",
        kinds=_FLAT,
        holds=fractions_are_rounded,
        reason="KAI rounds to whole units what is limited; where fractions of a GPU are"
        " asked for, we divide exactly (peers.md 2.2 B)",
    ),
    Difference(
        name="use within the guarantee counts",
        kinds=_FLAT,
        holds=use_within_the_guarantee_counts,
        reason="KAI charges past use of the owner's guarantee against its burst; we"
        " remember borrowed use only (peers.md 2.2 C)",
    ),
    Difference(
        name="parent asks more than its children may hold",
        kinds=("fair_share_hierarchical",),
        holds=parent_asks_more_than_its_children_may_hold,
        reason="KAI holds share for a parent that its children cannot use; a parent"
        " asks for what its children may hold (peers.md 2.2 E)",
    ),
    Difference(
        name="children own more than their parent",
        kinds=("fair_share_hierarchical",),
        holds=children_own_more_than_their_parent,
        reason="KAI leaves guarantees above the parent's to first come, first served;"
        " we scale them to it by a written rule (peers.md 2.2 F)",
    ),
    Difference(
        name="quotas add up to more than the parent's",
        kinds=("capacity_check_tree",),
        holds=quotas_add_up_to_more_than_the_parents,
        reason="KAI checks every queue against its own quota; we scale siblings'"
        " guarantees to what their parent owns (peers.md 2.2 F)",
    ),
    Difference(
        name="remainders are given every round",
        kinds=("koordinator_runtime_quota",),
        holds=remainders_are_given_every_round,
        reason="Koordinator hands out remainders in each round of its redistribution;"
        " we find the level exactly and round once",
    ),
)
