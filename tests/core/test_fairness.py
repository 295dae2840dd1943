"""What division grants: every rule by its smallest example.

The laws on random trees are in ``tests/properties``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.fairness import TIERS, Claim, Division, divide, divide_tiers
from scheduler.core.gpu import charge
from scheduler.core.quota import Fleet, Queue, QuotaTree
from scheduler.core.workload import TenantName
from tests import builders
from tests.strategies import MANY, OTHER, SLICE, WHOLE, claims, trees

TOTALS = st.integers(0, 80)
GPU = charge(WHOLE)


# -- among siblings -----------------------------------------------------------


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


# -- what holds for all -------------------------------------------------------


def wants_of(claim: Claim) -> list[int]:
    """Demand per tier below the ceiling, most urgent first."""
    left = 10**9 if claim.ceiling is None else claim.ceiling
    found = []
    for demand in claim.demands:
        found.append(min(demand, left))
        left -= found[-1]
    return found


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
@given(TOTALS, claims(least_weight=1, keeping=False))
def test_division_is_work_conserving(total: int, siblings: list[Claim]) -> None:
    """Nothing is left while somebody wants more (all weights > 0, nothing kept)."""
    wanted = sum(sum(wants_of(claim)) for claim in siblings)
    owed = sum(min(c.guarantee, sum(wants_of(c))) for c in siblings)
    assert sum(divide(total, siblings)) == max(owed, min(total, wanted))


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


def promised(queues: Sequence[Queue]) -> int:
    """Devices guaranteed to the roots together."""
    return sum(
        dict(queue.guarantee).get(WHOLE, 0) for queue in queues if queue.parent is None
    )


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


# -- what a division remembers ------------------------------------------------


def test_one_fraction_turns_a_form_into_quanta() -> None:
    """Whole devices are divided whole, until somebody asks for a part of one."""
    tree = QuotaTree([builders.tenant("a"), builders.tenant("b", order=1)])
    tree.capacity = {WHOLE: GPU, OTHER: GPU}
    division = Division(tree)
    for name in ("a", "b"):
        for form in (WHOLE, OTHER):
            division.ask(TenantName(name), form, (0, 0, GPU, 0))
    assert division.share(TenantName("a"), WHOLE) == [0, 0, GPU, 0]
    assert division.share(TenantName("b"), WHOLE) == [0, 0, 0, 0]
    division.ask(TenantName("b"), WHOLE, (0, 0, GPU // 2, 0))
    assert division.share(TenantName("a"), WHOLE) == [0, 0, GPU // 2, 0]
    assert division.share(TenantName("b"), WHOLE) == [0, 0, GPU // 2, 0]
    assert division.share(TenantName("a"), OTHER) == [0, 0, GPU, 0]


def test_forms_do_not_replace_one_another() -> None:
    """Plenty of slices is no reason to grant a whole GPU less, or more."""
    tree = QuotaTree([builders.tenant("a", "1xh100-80gb/1g.10gb")])
    tree.capacity = {WHOLE: 2 * GPU, SLICE: 7 * charge(SLICE)}
    division = Division(tree)
    division.ask(TenantName("a"), WHOLE, (0, 0, 9 * GPU, 0))
    assert sum(division.share(TenantName("a"), WHOLE)) == 2 * GPU
    assert sum(division.share(TenantName("a"), SLICE)) == 0


def test_division_knows_what_was_asked_for() -> None:
    """The engine must take back what a tenant asked for and wants no more."""
    tree = QuotaTree([builders.tenant("a")])
    division, name = Division(tree), TenantName("a")
    assert division.asked_for(name) == set()
    assert division.share(name, OTHER) == [0] * TIERS  # a form nobody ever named
    division.ask(name, OTHER, (0, 0, GPU, 0))
    assert division.asked_for(name) == {OTHER}
    assert division.share(name, OTHER) == [0] * TIERS  # there is none of it
    division.ask(name, OTHER, (0, 0, 0, 0))
    assert division.asked_for(name) == {OTHER}


def test_a_group_is_claimed_on_the_form_it_is_spent_on() -> None:
    """`entitle` puts what is owned of a group before everybody's burst."""
    tree = QuotaTree([builders.tenant("a", weight=9), builders.tenant("b", order=1)])
    tree.capacity = {WHOLE: 4 * GPU}
    division, b = Division(tree), TenantName("b")
    for name in tree.queues:
        division.ask(name, WHOLE, (0, 0, 4 * GPU, 0))
    assert sum(division.share(b, WHOLE)) == 0
    division.entitle(b, WHOLE, 3 * GPU)
    assert sum(division.share(b, WHOLE)) == 3 * GPU
    division.entitle(b, WHOLE, 0)
    assert sum(division.share(b, WHOLE)) == 0


# -- departments --------------------------------------------------------------


def test_departments_share_by_weight_then_their_tenants_do() -> None:
    """Two levels of weights: 2 to 1 between departments, 3 to 1 inside the first."""
    queues = (
        builders.tenant("x", weight=2),
        builders.tenant("y", order=1),
        builders.tenant("x1", parent="x", weight=3, order=2),
        builders.tenant("x2", parent="x", order=3),
        builders.tenant("y1", parent="y", order=4),
    )
    wanted = {TenantName(n): (0, 0, 99, 0) for n in ("x1", "x2", "y1")}
    _, shares = shares_of(queues, 12, wanted)
    assert shares == {"x": 8, "y": 4, "x1": 6, "x2": 2, "y1": 4}


def test_inference_of_one_department_goes_before_training_of_another() -> None:
    """CLASS ORDER across departments: tiers are those of the demand, not of a queue."""
    queues = (
        builders.tenant("x", priority=9),
        builders.tenant("y", order=1),
        builders.tenant("x1", parent="x", order=2),
        builders.tenant("y1", parent="y", order=3),
    )
    wanted = {TenantName("x1"): (0, 0, 9, 0), TenantName("y1"): (0, 5, 9, 0)}
    _, shares = shares_of(queues, 8, wanted)
    assert shares == {"x": 3, "y": 5, "x1": 3, "y1": 5}


def test_unused_guarantee_of_a_sibling_stays_in_the_department_first() -> None:
    """What is promised to the department is not lent while its own tenants want it."""
    queues = (
        builders.tenant("x", "8xh100-80gb"),
        builders.tenant("y", weight=9, order=1),
        builders.tenant("x1", "6xh100-80gb", parent="x", order=2),
        builders.tenant("x2", parent="x", order=3),
    )
    wanted = {TenantName("x2"): (0, 0, 8, 0), TenantName("y"): (0, 0, 8, 0)}
    _, shares = shares_of(queues, 8, wanted)
    assert (shares[TenantName("x2")], shares[TenantName("y")]) == (8, 0)


def test_weight_zero_of_a_department_binds_all_below_it() -> None:
    """No part in the burst pool: for the department, or any tenant of it."""
    queues = (
        builders.tenant("x", "2xh100-80gb", weight=0),
        builders.tenant("x1", parent="x", weight=5, order=1),
        builders.tenant("y", order=2),
    )
    wanted = {TenantName("x1"): (0, 9, 0, 0), TenantName("y"): (0, 0, 0, 1)}
    _, shares = shares_of(queues, 8, wanted)
    assert shares == {"x": 2, "x1": 2, "y": 1}


def test_shares_fit_what_is_left_of_a_fleet() -> None:
    """While guarantees are scaled, nobody is granted what is not there."""
    queues = (
        builders.tenant("a", "6xh100-80gb"),
        builders.tenant("b", "2xh100-80gb", order=1),
    )
    wanted = {TenantName(n): (0, 0, 9, 0) for n in "ab"}
    assert shares_of(queues, 4, wanted)[1] == {"a": 3, "b": 1}


# -- what a tenant cannot gain by ---------------------------------------------


def test_a_second_name_is_worth_nothing_without_a_weight_of_its_own() -> None:
    """Weights are the owner's to give: with twice the weight, twice the burst.

    That is why splitting is only harmless while the parts divide the old weight.
    """
    rival = Claim(0, (12,), weight=2, order=9)
    one = [Claim(0, (12,), weight=2), rival]
    halves = [Claim(0, (6,), order=0), Claim(0, (6,), order=1), rival]
    greedy = [Claim(0, (6,), 2, order=0), Claim(0, (6,), 2, order=1), rival]
    assert divide(12, one) == (6, 6)
    assert divide(12, halves) == (3, 3, 6)
    assert divide(12, greedy) == (4, 4, 4)


def test_overstating_a_tier_cannot_even_hurt_the_tiers_above() -> None:
    """Batch that is not there is granted after everybody's training, and idle."""
    true = [Claim(2, (0, 0, 6, 0)), Claim(2, (0, 0, 6, 2), order=1)]
    lying = [Claim(2, (0, 0, 6, 99)), true[1]]
    assert divide_tiers(10, lying) == divide_tiers(10, true)


def test_pretending_to_be_inference_is_not_overstating() -> None:
    """Division believes the class: it is the cap on inference that makes a lie useless.

    (``cover.demoted``; design, section 6.)
    """
    honest = [Claim(0, (0, 0, 8, 0)), Claim(0, (0, 0, 8, 0), order=1)]
    lying = [Claim(0, (0, 8, 0, 0)), honest[1]]
    assert divide(8, honest) == (4, 4)
    assert divide(8, lying) == (8, 0)


def test_the_fleets_ceiling_bounds_what_is_granted_above_guarantees() -> None:
    """Four of eight may be burst in all, and what is guaranteed is not burst."""
    queues = [builders.tenant("a", f"2x{WHOLE}"), builders.tenant("b", order=1)]
    unit = charge(WHOLE)
    tree = QuotaTree(queues, Fleet(burst_ceiling=((WHOLE, 4),)))
    tree.capacity = {WHOLE: 8 * unit}
    division = Division(tree)
    for name in tree.queues:
        division.ask(name, WHOLE, (0, 0, 8 * unit, 0))
    shares = [sum(division.share(name, WHOLE)) // unit for name in tree.queues]
    assert shares == [4, 2]
