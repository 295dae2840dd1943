"""What division grants, against an exact oracle."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.fairness import (
    TIERS,
    Claim,
    Division,
    divide,
    divide_tiers,
    fill,
)
from scheduler.core.gpu import charge
from scheduler.core.quota import Queue, QuotaTree
from scheduler.core.workload import TenantName
from tests import builders
from tests.strategies import MANY, WHOLE, claims, trees

TOTALS = st.integers(0, 80)


def water(
    total: Fraction, wants: Sequence[int], weights: Sequence[int]
) -> list[Fraction]:
    """Weighted max-min in exact fractions: serve by want per weight, least first."""
    given = [Fraction(0)] * len(wants)
    live = sorted(
        (i for i, weight in enumerate(weights) if weight),
        key=lambda i: Fraction(wants[i], weights[i]),
    )
    for place, i in enumerate(live):
        weight = sum(weights[j] for j in live[place:])
        given[i] = min(Fraction(wants[i]), total * weights[i] / weight)
        total -= given[i]
    return given


def wants_of(claim: Claim) -> list[int]:
    """Demand per tier below the ceiling, most urgent first."""
    left = 10**9 if claim.ceiling is None else claim.ceiling
    found = []
    for demand in claim.demands:
        found.append(min(demand, left))
        left -= found[-1]
    return found


def exact_division(total: int, siblings: Sequence[Claim]) -> list[list[Fraction]]:
    """The design's section 6 word for word, in fractions."""
    wants = [wants_of(claim) for claim in siblings]
    shares = [[Fraction(0)] * len(want) for want in wants]
    for claim, want, share in zip(siblings, wants, shares, strict=True):
        owned = claim.guarantee
        for tier, amount in enumerate(want):
            share[tier] = Fraction(min(amount, owned))
            owned -= min(amount, owned)
    idle = sum(
        max(0, claim.kept - sum(want))
        for claim, want in zip(siblings, wants, strict=True)
    )
    rest = Fraction(max(0, total - idle - sum(map(sum, shares))))
    for tier in range(max(len(claim.demands) for claim in siblings)):
        for priority in sorted({c.priority for c in siblings}, reverse=True):
            group = [i for i, c in enumerate(siblings) if c.priority == priority]
            asked = [int(wants[i][tier] - shares[i][tier]) for i in group]
            paid = water(Fraction(rest), asked, [siblings[i].weight for i in group])
            for i, one in zip(group, paid, strict=True):
                shares[i][tier] += one
                rest -= one
    return shares


# -- fill ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "wants", "weights", "expected"),
    [
        (10, [3, 9, 9], [1, 1, 1], [3, 4, 3]),  # the small one is sated, then halves
        (12, [20, 20], [1, 2], [4, 8]),  # by weight
        (12, [2, 20], [1, 2], [2, 10]),  # what the sated leave goes on
        (7, [5, 5], [1, 1], [4, 3]),  # an odd unit goes to the older
        (8, [9, 9, 9], [1, 2, 4], [1, 2, 5]),  # remainders 1/7, 2/7, 4/7: the largest
        (20, [3, 4], [1, 1], [3, 4]),  # nobody gets more than it asks for
        (0, [3, 4], [1, 1], [0, 0]),
        (5, [], [], []),
    ],
)
def test_fill_raises_one_level_for_all(
    total: int, wants: list[int], weights: list[int], expected: list[int]
) -> None:
    """Each rule of the water-filling has its smallest example here."""
    assert fill(total, wants, weights, list(range(len(wants)))) == expected


def test_spare_units_go_to_the_older_of_equals() -> None:
    """Age, not position, breaks ties: the answer must not depend on the order."""
    assert fill(5, [9, 9, 9], [1, 1, 1], [2, 0, 1]) == [1, 2, 2]
    assert fill(4, [9, 9, 9], [1, 1, 1], [2, 0, 1]) == [1, 2, 1]


@MANY
@given(TOTALS, st.data())
def test_fill_is_max_min_fair_within_one_unit(total: int, data: st.DataObject) -> None:
    """An exact water-filling is the definition; integers may miss it by less than 1."""
    size = data.draw(st.integers(1, 7))
    several = st.lists(st.integers(0, 20), min_size=size, max_size=size)
    wants = data.draw(several)
    weights = [1 + weight for weight in data.draw(several)]
    given_ = fill(total, wants, weights, list(range(size)))
    assert sum(given_) == min(total, sum(wants))
    for mine, exact in zip(given_, water(Fraction(total), wants, weights), strict=True):
        assert abs(mine - exact) < 1


@MANY
@given(TOTALS, st.integers(2, 9), st.data())
def test_fill_in_units_is_fill_of_units(
    total: int, unit: int, data: st.DataObject
) -> None:
    """Granularity changes the currency, not the rule."""
    size = data.draw(st.integers(1, 6))
    several = st.lists(st.integers(0, 20), min_size=size, max_size=size)
    wants = data.draw(several)
    weights = [1 + weight for weight in data.draw(several)]
    ages = list(range(size))
    small = fill(total, wants, weights, ages)
    large = fill(total * unit, [w * unit for w in wants], weights, ages, unit)
    assert large == [amount * unit for amount in small]


@MANY
@given(st.integers(0, 200), st.integers(1, 9), st.data())
def test_fill_leaves_only_what_would_complete_nobody(
    total: int, unit: int, data: st.DataObject
) -> None:
    """Wants that are no whole units must not strand what could still serve someone."""
    size = data.draw(st.integers(1, 6))
    several = st.lists(st.integers(0, 40), min_size=size, max_size=size)
    wants = data.draw(several)
    given_ = fill(total, wants, [1] * size, list(range(size)), unit)
    spare = total - sum(given_)
    assert spare >= 0
    for want, mine in zip(wants, given_, strict=True):
        assert 0 <= mine <= want
        assert mine == want or spare < min(unit, want - mine)


# -- divide: examples ---------------------------------------------------------


def test_guarantees_come_first() -> None:
    """Step 1: a guarantee is not diluted by anybody's burst."""
    owner = Claim(guarantee=6, demands=(0, 0, 0, 6), order=1)
    rival = Claim(guarantee=0, demands=(9, 9, 0, 0), weight=9, priority=5, order=0)
    assert divide(8, [owner, rival]) == (6, 2)


def test_nothing_leaks_to_a_lower_tier() -> None:
    """KAI gives 2, 2, 1 here: rounding leftovers of a tier must stay in it."""
    high = [Claim(guarantee=0, demands=(5,), priority=200, order=i) for i in (0, 1)]
    low = Claim(guarantee=0, demands=(1,), priority=100, order=2)
    assert divide(5, [*high, low]) == (3, 2, 0)


def test_workload_class_beats_tenant_priority() -> None:
    """Tiers are ordered by class first, then by priority (design, section 6)."""
    trainer = Claim(guarantee=0, demands=(0, 0, 4, 0), priority=9, order=0)
    server = Claim(guarantee=0, demands=(0, 4, 0, 0), priority=0, order=1)
    assert divide(5, [trainer, server]) == (1, 4)


def test_weight_zero_takes_no_part_in_the_burst_pool() -> None:
    """A share of 0 is a real setting (KAI's over-quota weight): the guarantee only."""
    paying = Claim(guarantee=0, demands=(4,), weight=3, order=0)
    modest = Claim(guarantee=2, demands=(9,), weight=0, order=1)
    assert divide(9, [paying, modest]) == (4, 2)


def test_kept_guarantee_is_not_lent() -> None:
    """What an idle owner does not lend is nobody's share."""
    owner = Claim(guarantee=4, demands=(0,), kept=3, order=0)
    taker = Claim(guarantee=0, demands=(9,), order=1)
    assert divide(8, [owner, taker]) == (0, 5)


def test_kept_guarantee_counts_once_when_it_is_used() -> None:
    """An owner who works keeps nothing idle beside what it uses."""
    owner = Claim(guarantee=4, demands=(2,), kept=3, order=0)
    taker = Claim(guarantee=0, demands=(9,), order=1)
    assert divide(8, [owner, taker]) == (2, 5)


def test_ceiling_cuts_the_least_urgent_demand() -> None:
    """Who may hold five and asks for inference and batch gets the inference."""
    claim = Claim(guarantee=2, demands=(0, 4, 0, 4), ceiling=5)
    assert divide_tiers(20, [claim]) == [[0, 4, 0, 1]]


def test_guarantee_is_spent_on_the_most_urgent_demand() -> None:
    """Else batch would hide behind the guarantee while inference queues as burst."""
    claim = Claim(guarantee=3, demands=(0, 2, 0, 9))
    assert divide_tiers(3, [claim]) == [[0, 2, 0, 1]]


def test_whole_gpus_are_divided_whole() -> None:
    """Half a GPU is of no use to two tenants that ask for whole ones."""
    pair = [Claim(guarantee=0, demands=(300,), order=i) for i in (0, 1)]
    assert divide(300, pair, unit=100) == (200, 100)
    assert divide(300, pair) == (150, 150)


def test_nobody_asks_and_nobody_gets() -> None:
    """Empty input is input."""
    assert divide(5, []) == ()
    assert divide(5, [Claim(guarantee=3, demands=())]) == (0,)


# -- divide: properties -------------------------------------------------------


@MANY
@given(TOTALS, claims())
def test_division_is_the_exact_one_within_a_unit(
    total: int, siblings: list[Claim]
) -> None:
    """Tier strictness, guarantees, weights, ceilings and kept room in one oracle."""
    exact = exact_division(total, siblings)
    for mine, right in zip(divide_tiers(total, siblings), exact, strict=True):
        for a, b in zip(mine, right, strict=True):
            assert abs(a - b) < 1


@MANY
@given(TOTALS, claims())
def test_share_lies_between_guarantee_and_demand(
    total: int, siblings: list[Claim]
) -> None:
    """min(guarantee, demand) <= share <= demand, whatever the capacity."""
    for claim, share in zip(siblings, divide(total, siblings), strict=True):
        demand = sum(wants_of(claim))
        assert min(claim.guarantee, demand) <= share <= demand


@MANY
@given(st.integers(0, 40), claims())
def test_no_more_is_granted_than_there_is(extra: int, siblings: list[Claim]) -> None:
    """Where the guarantees fit, the shares do."""
    total = sum(claim.guarantee for claim in siblings) + extra
    assert sum(divide(total, siblings)) <= total


@MANY
@given(TOTALS, claims(least_weight=1, keeping=False))
def test_division_is_work_conserving(total: int, siblings: list[Claim]) -> None:
    """Nothing is left while somebody wants more (all weights > 0, nothing kept)."""
    wanted = sum(sum(wants_of(claim)) for claim in siblings)
    owed = sum(min(c.guarantee, sum(wants_of(c))) for c in siblings)
    assert sum(divide(total, siblings)) == max(owed, min(total, wanted))


@MANY
@given(TOTALS, claims())
def test_nothing_reaches_a_lower_tier_while_a_higher_one_wants(
    total: int, siblings: list[Claim]
) -> None:
    """Burst of one tier starts only when every tier above is served whole."""
    shares = divide_tiers(total, siblings)
    wants = [wants_of(claim) for claim in siblings]
    for (i, a), (j, b) in pairwise_products(siblings):
        for tier, want in enumerate(wants[i]):
            if shares[i][tier] == want or not a.weight:
                continue
            for other in range(len(wants[j])):
                above = (other, -b.priority) > (tier, -a.priority)
                if above:
                    owned = guaranteed(b, wants[j])[other]
                    assert shares[j][other] == owned


def pairwise_products(
    siblings: Sequence[Claim],
) -> list[tuple[tuple[int, Claim], tuple[int, Claim]]]:
    """Every ordered pair of siblings, each with itself too."""
    numbered = list(enumerate(siblings))
    return [(a, b) for a in numbered for b in numbered]


def guaranteed(claim: Claim, want: Sequence[int]) -> list[int]:
    """What the guarantee alone grants per tier."""
    left = claim.guarantee
    found = []
    for amount in want:
        found.append(min(amount, left))
        left -= found[-1]
    return found


@MANY
@given(TOTALS, claims(), st.randoms(use_true_random=False))
def test_division_does_not_depend_on_the_order_of_claims(
    total: int, siblings: list[Claim], chance: random.Random
) -> None:
    """DETERMINISTIC: only age may break a tie."""
    mixed = list(siblings)
    chance.shuffle(mixed)
    before = dict(
        zip([c.order for c in siblings], divide(total, siblings), strict=True)
    )
    after = dict(zip([c.order for c in mixed], divide(total, mixed), strict=True))
    assert before == after


@MANY
@given(TOTALS, claims(), st.integers(2, 5))
def test_doubling_everything_doubles_the_shares(
    total: int, siblings: list[Claim], factor: int
) -> None:
    """Fairness has no natural size: shares scale up to the rounding of one unit."""
    grown = [
        Claim(
            guarantee=c.guarantee * factor,
            demands=tuple(d * factor for d in c.demands),
            weight=c.weight,
            priority=c.priority,
            order=c.order,
            ceiling=None if c.ceiling is None else c.ceiling * factor,
            kept=c.kept * factor,
        )
        for c in siblings
    ]
    small, large = divide(total, siblings), divide(total * factor, grown)
    assert divide(total * factor, grown, unit=factor) == tuple(
        share * factor for share in small
    )
    for a, b in zip(small, large, strict=True):
        assert abs(a * factor - b) <= factor


@MANY
@given(TOTALS, claims(), st.data())
def test_more_demand_elsewhere_takes_no_guarantee(
    total: int, siblings: list[Claim], data: st.DataObject
) -> None:
    """Nobody's appetite can push another below what is theirs."""
    greedy = data.draw(st.integers(0, len(siblings) - 1))
    hungry = [
        Claim(c.guarantee, (99,) * 4, c.weight + 9, 9, c.order, None, c.kept)
        if i == greedy
        else c
        for i, c in enumerate(siblings)
    ]
    for i, (claim, share) in enumerate(zip(hungry, divide(total, hungry), strict=True)):
        if i != greedy:
            assert share >= min(claim.guarantee, sum(wants_of(claim)))


# -- division down a tree -----------------------------------------------------


def shares_of(
    queues: Sequence[Queue],
    capacity: int,
    wanted: Mapping[TenantName, tuple[int, ...]],
) -> tuple[QuotaTree, dict[TenantName, int]]:
    tree = QuotaTree(queues)
    tree.capacity = {WHOLE: capacity * charge(WHOLE)}
    unit = charge(WHOLE)
    asked = {name: tuple(n * unit for n in amounts) for name, amounts in wanted.items()}
    division = Division(tree)
    for name, amounts in asked.items():
        division.ask(name, WHOLE, amounts)
    return tree, {n: sum(division.share(n, WHOLE)) // unit for n in tree.queues}


def leaves(queues: Sequence[Queue]) -> list[TenantName]:
    parents = {queue.parent for queue in queues}
    return [queue.name for queue in queues if queue.name not in parents]


def wishes(
    data: st.DataObject, queues: Sequence[Queue], most: int = 8
) -> dict[TenantName, tuple[int, ...]]:
    amounts = st.just((0,) * TIERS) | st.tuples(*[st.integers(0, most)] * TIERS)
    return {name: data.draw(amounts, label=name) for name in leaves(queues)}


def roots(queues: Sequence[Queue]) -> list[TenantName]:
    return [queue.name for queue in queues if queue.parent is None]


def promised(queues: Sequence[Queue]) -> int:
    """Devices guaranteed to the roots together."""
    return sum(
        dict(queue.guarantee).get(WHOLE, 0) for queue in queues if queue.parent is None
    )


@MANY
@given(trees(), st.integers(0, 12), st.data())
def test_shares_of_children_fit_their_parent(
    queues: tuple[Queue, ...], extra: int, data: st.DataObject
) -> None:
    """A department cannot hand out more than it got, nor anybody pass a ceiling."""
    wanted = wishes(data, queues)
    capacity = promised(queues) + extra
    tree, shares = shares_of(queues, capacity, wanted)
    assert sum(shares[root] for root in roots(queues)) <= capacity
    for name in shares:
        assert shares[name] * charge(WHOLE) <= tree.ceiling(name, WHOLE)
        children = tree.children.get(name, [])
        if children:
            assert sum(shares[child] for child in children) <= shares[name]
        else:
            assert shares[name] <= sum(wanted[name])


@MANY
@given(trees(ceilings=False), st.data())
def test_without_scarcity_everybody_gets_what_they_ask(
    queues: tuple[Queue, ...], data: st.DataObject
) -> None:
    """WORK CONSERVING down the tree, whatever idle owners keep for themselves."""
    queues = tuple(replace(queue, weight=queue.weight + 1) for queue in queues)
    wanted = wishes(data, queues)
    capacity = promised(queues) + sum(map(sum, wanted.values()))
    _, shares = shares_of(queues, capacity, wanted)
    for name in leaves(queues):
        assert shares[name] == sum(wanted[name])


@MANY
@given(trees(), st.integers(0, 12), st.data())
def test_taking_ones_share_takes_nothing_that_others_keep(
    queues: tuple[Queue, ...], extra: int, data: st.DataObject
) -> None:
    """Division and quota tell the same story: shares can be charged, all together."""
    wanted = wishes(data, queues)
    tree, shares = shares_of(queues, promised(queues) + extra, wanted)
    for name in leaves(queues):
        tree.charge(name, WHOLE, shares[name] * charge(WHOLE))
    for name in leaves(queues):
        assert tree.available(name, WHOLE) >= 0
    held = sum(tree.held(root, WHOLE) for root in tree.children[None])
    assert held <= tree.capacity[WHOLE]


@MANY
@given(trees(ceilings=False, lending=False), st.integers(0, 12), st.data())
def test_a_tenant_gets_its_guarantee_wherever_it_sits(
    queues: tuple[Queue, ...], extra: int, data: st.DataObject
) -> None:
    """GUARANTEE does not thin out on the way down the tree."""
    wanted = wishes(data, queues)
    tree, shares = shares_of(queues, promised(queues) + extra, wanted)
    for name in leaves(queues):
        owned = tree.guarantee(name, WHOLE) // charge(WHOLE)
        assert shares[name] >= min(owned, sum(wanted[name]))


def test_a_parent_counts_only_what_its_children_may_hold() -> None:
    """A child's limit must cap the parent's demand: KAI lets the parent hoard."""
    queues = (
        builders.tenant("dept", weight=1, order=0),
        builders.tenant("small", parent="dept", limit="2xh100-80gb", order=1),
        builders.tenant("rival", weight=1, order=2),
    )
    wanted = {
        TenantName("small"): (0, 0, 9, 0),
        TenantName("rival"): (0, 0, 9, 0),
    }
    _, shares = shares_of(queues, 8, wanted)
    assert shares == {"dept": 2, "small": 2, "rival": 6}


def test_idle_room_that_one_child_keeps_does_not_starve_its_sibling() -> None:
    """What `idle` keeps is idle inside its parent's guarantee, not instead of it."""
    queues = (
        builders.tenant("dept", "8xh100-80gb"),
        builders.tenant(
            "idle", "4xh100-80gb", parent="dept", lending="0xh100-80gb", order=1
        ),
        builders.tenant("busy", "4xh100-80gb", parent="dept", order=2),
    )
    _, shares = shares_of(queues, 16, {TenantName("busy"): (0, 0, 6, 0)})
    assert shares[TenantName("busy")] == 6


def test_what_one_child_keeps_is_paid_by_the_guarantee_above() -> None:
    """`dept` owns four: two kept idle, two used; the rest of its wish is burst."""
    queues = (
        builders.tenant("dept", "4xh100-80gb"),
        builders.tenant("idle", "2xh100-80gb", parent="dept", lending="0xh100-80gb"),
        builders.tenant("busy", "2xh100-80gb", parent="dept", order=1),
        builders.tenant("stranger", weight=3, order=2),
    )
    wanted = {
        TenantName("busy"): (0, 0, 4, 0),
        TenantName("stranger"): (0, 0, 8, 0),
    }
    _, shares = shares_of(queues, 8, wanted)
    assert shares == {"dept": 3, "idle": 0, "busy": 3, "stranger": 3}


def test_what_one_child_keeps_counts_against_the_limit_above() -> None:
    """Shares end where the quota tree would stop the charge."""
    queues = (
        builders.tenant("dept", "4xh100-80gb", limit="4xh100-80gb"),
        builders.tenant("idle", "2xh100-80gb", parent="dept", lending="0xh100-80gb"),
        builders.tenant("busy", "2xh100-80gb", parent="dept", order=1),
    )
    _, shares = shares_of(queues, 8, {TenantName("busy"): (0, 0, 4, 0)})
    assert shares[TenantName("busy")] == 2


def test_what_a_grandchild_keeps_is_not_lent_to_strangers() -> None:
    """The lending limit of a tenant binds at every level above it."""
    queues = (
        builders.tenant("dept", "4xh100-80gb"),
        builders.tenant("idle", "4xh100-80gb", parent="dept", lending="0xh100-80gb"),
        builders.tenant("stranger", order=1),
    )
    _, shares = shares_of(queues, 8, {TenantName("stranger"): (0, 0, 8, 0)})
    assert shares[TenantName("stranger")] == 4
