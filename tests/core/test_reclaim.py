"""Who may take from whom: every rule on both sides of its edges, and what it costs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.gpu import class_of, value_weight
from scheduler.core.quota import Queue, QuotaTree
from scheduler.core.reclaim import (
    FIXED_COST_S,
    FRESH_S,
    covered_takes_burst,
    inference_takes_lower,
    lost_work,
    may_take,
    may_take_burst,
    preempts_within,
    toward_shares,
)
from scheduler.core.workload import WorkloadClass
from tests import builders
from tests.courtroom import (
    BATCH,
    CRITICAL,
    GPU,
    INFERENCE,
    NOW,
    TRAINING,
    B,
    court,
    holding,
    taker,
)
from tests.strategies import MANY, OTHER, WHOLE, trees

# -- rule: preempt within a tenant --------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "allowed"),
    [
        ((INFERENCE, 0), (TRAINING, 0), True),  # the more urgent class
        ((TRAINING, 0), (INFERENCE, 0), False),
        ((TRAINING, 1), (TRAINING, 0), True),  # the higher priority
        ((TRAINING, 0), (TRAINING, 0), False),  # equals do not displace each other
        ((TRAINING, 0), (TRAINING, 1), False),
        ((TRAINING, 0), (BATCH, 9), True),  # class before priority
        ((BATCH, 9), (TRAINING, 0), False),
        ((CRITICAL, 0), (INFERENCE, 0), True),
    ],
)
def test_tenant_orders_its_own_work_by_class_and_priority(
    ours: tuple[WorkloadClass, int],
    theirs: tuple[WorkloadClass, int],
    allowed: bool,
) -> None:
    """Inside a tenant the order is strict, so that nobody takes back what was taken."""
    mine = taker(kind=ours[0], priority=ours[1], covered=True)
    other = holding(owner="a", kind=theirs[0], priority=theirs[1])
    assert preempts_within(mine, other, court()) == allowed
    assert may_take(mine, other, court()) == allowed
    assert not preempts_within(mine, replace(other, tenant=B), court())


def test_burst_does_not_displace_covered_work_of_its_own_tenant() -> None:
    """That would raise the covered demand that is not served."""
    covered = court(covers={"a": ["victim"]})
    mine = taker(kind=INFERENCE)
    assert not may_take(mine, holding(owner="a"), covered)
    assert may_take(replace(mine, covered=True), holding(owner="a"), covered)
    assert may_take(mine, holding(owner="a"), court())


# -- exchange a ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("covers", "allowed"),
    [
        ({"a": ["taker"]}, True),
        ({}, False),  # burst has no claim
        ({"a": ["taker"], "b": ["victim"]}, False),  # PROTECTED
        ({"b": ["victim"]}, False),
    ],
)
def test_covered_demand_takes_only_burst(
    covers: dict[str, list[str]], allowed: bool
) -> None:
    """Exchange a, and the one thing it never does."""
    judge = court(covers=covers)
    assert covered_takes_burst(taker(kind=BATCH), holding(kind=CRITICAL), judge) == (
        allowed
    )
    assert may_take(taker(kind=BATCH), holding(kind=CRITICAL), judge) == allowed


def test_cover_in_one_form_is_no_claim_on_another() -> None:
    """A guarantee names a form: forms do not replace one another."""
    judge = court(covers={"a": ["taker"]}, covered_on=OTHER)
    assert not may_take(taker(), holding(), judge)
    assert may_take(taker(form=OTHER), holding(form=OTHER), judge)


def test_exchange_never_crosses_forms() -> None:
    """Evicting from A100s frees no H100."""
    judge = court(covers={"a": ["taker"]})
    assert not may_take(taker(), holding(form=OTHER), judge)


DEPARTMENTS = (
    builders.tenant("x", "8xh100-80gb"),
    builders.tenant("y", "8xh100-80gb", order=1),
    builders.tenant("x1", parent="x", order=2),
    builders.tenant("x2", "8xh100-80gb", parent="x", order=3),
    builders.tenant("y1", parent="y", order=4),
)


@pytest.mark.parametrize(
    ("owner", "victim", "covers", "allowed"),
    [
        ("x1", "y1", {"x": ["taker"]}, True),  # covered for its department
        ("x1", "y1", {"x1": ["taker"]}, False),  # the tenant's own cover is not asked
        ("x1", "y1", {"x": ["taker"], "y": ["victim"]}, False),
        ("x1", "y1", {"x": ["taker"], "y1": ["victim"]}, True),
        ("x2", "x1", {"x2": ["taker"]}, True),  # inside: the tenants themselves
        ("x2", "x1", {"x": ["taker"]}, False),
        ("x2", "x1", {"x2": ["taker"], "x": ["victim"]}, True),
        ("x2", "x1", {"x2": ["taker"], "x1": ["victim"]}, False),
    ],
)
def test_cover_is_judged_where_the_paths_part(
    owner: str, victim: str, covers: dict[str, list[str]], allowed: bool
) -> None:
    """One level higher or lower and a department protects, or exposes, the wrong."""
    judge = court(DEPARTMENTS, covers=covers)
    mine, other = taker(owner=owner), holding(owner=victim)
    assert covered_takes_burst(mine, other, judge) == allowed


# -- exchange b ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "use", "gpus", "allowed"),
    [
        ((0, 4, 9, 9), (0, 3, 0, 0), 1, True),  # ends at its share
        ((0, 4, 9, 9), (0, 3, 0, 0), 2, False),  # one beyond
        ((2, 2, 9, 9), (1, 2, 0, 0), 1, True),  # both inference classes are one tier
        ((0, 4, 9, 9), (0, 0, 9, 9), 4, True),  # lower tiers do not count
        ((0, 0, 9, 9), (0, 0, 0, 0), 1, False),
    ],
)
def test_inference_takes_training_up_to_its_share(
    share: tuple[int, ...], use: tuple[int, ...], gpus: int, allowed: bool
) -> None:
    """Exchange b ends where the tier's share does."""
    judge = court(shares={"a": share}, tier_use=use)
    mine = taker(gpus, kind=INFERENCE)
    assert inference_takes_lower(mine, holding(), judge) == allowed


@pytest.mark.parametrize(
    ("ours", "theirs", "allowed"),
    [
        (INFERENCE, TRAINING, True),
        (INFERENCE, BATCH, True),
        (CRITICAL, TRAINING, True),
        (INFERENCE, INFERENCE, False),
        (CRITICAL, INFERENCE, False),
        (TRAINING, BATCH, False),
    ],
)
def test_only_inference_takes_across_tiers(
    ours: WorkloadClass, theirs: WorkloadClass, allowed: bool
) -> None:
    """Training never displaces another tenant's batch by class alone."""
    judge = court(shares={"a": (9, 9, 9, 9)})
    found = inference_takes_lower(taker(kind=ours), holding(kind=theirs), judge)
    assert found == allowed


def test_inference_beyond_its_cap_takes_nothing() -> None:
    """It queues in the training tier: calling training "inference" must not pay."""
    judge = court(shares={"a": (9, 9, 9, 9)})
    assert not inference_takes_lower(
        taker(kind=INFERENCE, tier=TRAINING), holding(), judge
    )
    assert inference_takes_lower(
        taker(kind=INFERENCE), holding(kind=INFERENCE, tier=TRAINING), judge
    )


def test_covered_training_is_safe_from_inference_burst() -> None:
    """PROTECTED knows no class."""
    judge = court(shares={"a": (9, 9, 9, 9)}, covers={"b": ["victim"]})
    assert not inference_takes_lower(taker(kind=INFERENCE), holding(), judge)


# -- exchange c ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "victim", "used", "shares", "allowed"),
    [
        (2, 2, (2, 6), (4, 4), True),  # both end at their shares
        (3, 2, (2, 6), (4, 4), False),  # the taker would pass its share
        (2, 3, (2, 6), (4, 4), False),  # the victim would fall below the taker
        (1, 3, (0, 6), (4, 4), True),  # it falls below its share, not below the taker
        (2, 2, (0, 4), (4, 4), False),  # the victim holds no more than its share
        (2, 2, (0, 5), (4, 4), True),
        (1, 8, (0, 8), (4, 0), True),  # without a share nothing is its own
        (1, 1, (0, 8), (0, 4), False),  # who has no share takes nothing
        (2, 3, (0, 9), (4, 8), True),  # relative to share: 6/8 is more than 2/4
        (2, 6, (0, 9), (4, 8), False),  # and 3/8 is less
    ],
)
def test_same_tier_trades_toward_the_shares(
    gpus: int,
    victim: int,
    used: tuple[int, int],
    shares: tuple[int, int],
    allowed: bool,
) -> None:
    """Exchange c on both sides of each of its edges."""
    judge = court(
        shares={"a": (0, 0, shares[0], 0), "b": (0, 0, shares[1], 0)},
        used={"a": used[0], "b": used[1]},
    )
    mine = taker(gpus, uses={"a": used[0]})
    assert toward_shares(mine, holding(gpus=victim), judge) == allowed


def test_trade_stays_in_one_tier() -> None:
    """Across tiers only inference has a right (exchange b)."""
    judge = court(shares={"a": (0, 0, 4, 4)}, used={"b": 8})
    assert toward_shares(taker(), holding(), judge)
    assert not toward_shares(taker(), holding(kind=BATCH), judge)
    assert not toward_shares(taker(kind=BATCH), holding(), judge)


def test_trade_between_departments_is_judged_between_departments() -> None:
    """A tenant below its share in a department above it has no claim outside."""
    shares = {"x": (0, 0, 4, 0), "y": (0, 0, 4, 0), "x1": (0, 0, 4, 0)}
    judge = court(DEPARTMENTS, shares=shares, used={"x2": 4, "y1": 6})
    rich = taker(owner="x1", uses={"x1": 0, "x": 4})
    poor = taker(owner="x1", uses={"x1": 0, "x": 2})
    assert not toward_shares(rich, holding(owner="y1"), judge)
    assert toward_shares(poor, holding(owner="y1"), judge)
    at_share = taker(owner="x1", uses={"x1": 4, "x": 2})
    assert not toward_shares(at_share, holding(owner="y1"), judge)


@pytest.mark.parametrize("rule", [inference_takes_lower, toward_shares])
def test_young_burst_is_spared_when_burst_is_traded(rule: object) -> None:
    """Minimum runtime binds b and c; for covered demand it is a preference."""
    shares = {"a": (9, 9, 9, 9)}
    judge = court(shares=shares, used={"b": 8}, min_runtime_s=300.0)
    kind = INFERENCE if rule is inference_takes_lower else TRAINING
    old, young = holding(started=NOW - 300), holding(started=NOW - 299)
    assert rule(taker(kind=kind), old, judge)  # type: ignore[operator]
    assert not rule(taker(kind=kind), young, judge)  # type: ignore[operator]
    covered = court(covers={"a": ["taker"]}, min_runtime_s=300.0)
    assert may_take(taker(kind=kind), young, covered)


# -- what holds for all rules -------------------------------------------------


def test_non_preemptible_work_stays_while_it_is_covered() -> None:
    """Not even its own tenant displaces it; as burst it is taken like any other."""
    judge = court(covers={"a": ["taker", "victim"]})
    mine = taker(kind=INFERENCE, covered=True)
    assert may_take(mine, holding(owner="a"), judge)
    assert not may_take(mine, holding(owner="a", preemptible=False), judge)
    assert may_take(mine, holding(preemptible=False), judge)


def test_who_has_no_claim_at_all_is_told_at_once() -> None:
    """The search is spared for burst that is at its share: most of what waits."""
    shares = {"a": (0, 2, 4, 0)}
    assert not may_take_burst(taker(5), court(shares=shares, used={"a": 2}))
    assert may_take_burst(taker(4), court(shares=shares, used={"a": 2}))
    assert may_take_burst(taker(9, covered=True), court())
    urgent = taker(2, kind=INFERENCE)
    full = court(shares=shares, used={"a": 6}, tier_use=(0, 0, 6, 0))
    assert may_take_burst(urgent, full)
    assert not may_take_burst(replace(urgent, tier=TRAINING), full)


def test_room_of_who_is_leaving_is_anybodys() -> None:
    """Waiting for it evicts nobody."""
    judge = court(covers={"b": ["victim"]})
    assert may_take(taker(), holding(leaving=True), judge)
    assert not may_take(taker(), holding(leaving=True, form=OTHER), judge)
    assert lost_work(holding(leaving=True, started=NOW), court()) == 0


@MANY
@given(trees(), st.data())
def test_covered_work_is_never_a_victim_of_another_tenant(
    queues: tuple[Queue, ...], data: st.DataObject
) -> None:
    """PROTECTED, whatever the shares, classes, priorities and covers of others.

    And who may take somebody's burst is never told before that it may take nobody's.
    """
    parents = {queue.parent for queue in queues}
    names = [queue.name for queue in queues if queue.name not in parents]
    tree = QuotaTree(queues)
    owner, other = (data.draw(st.sampled_from(names)) for _ in "ab")
    gangs = st.lists(st.sampled_from(["taker", "victim"]), unique=True)
    covers: dict[str, list[str]] = {q.name: data.draw(gangs) for q in queues}
    amounts = st.lists(st.integers(0, 9), min_size=4, max_size=4)
    kinds, few = st.sampled_from(WorkloadClass), st.integers(0, 2)
    judge = court(
        queues,
        covers=covers,
        shares={queue.name: data.draw(amounts) for queue in queues},
        tier_use=data.draw(amounts),
        used={name: data.draw(st.integers(0, 9)) for name in names},
    )
    mine = taker(
        data.draw(st.integers(1, 3)),
        owner=owner,
        kind=data.draw(kinds),
        tier=data.draw(kinds),
        priority=data.draw(few),
        covered="taker" in covers[owner],
        uses={name: judge.tree.used(name, WHOLE) // GPU for name in tree.path(owner)},
    )
    victim = holding(
        gpus=data.draw(st.integers(1, 3)),
        owner=other,
        kind=data.draw(kinds),
        tier=data.draw(kinds),
        priority=data.draw(few),
        preemptible=data.draw(st.booleans()),
    )
    if owner != other and may_take(mine, victim, judge):
        at, _ = tree.parting(other, owner)
        assert "victim" not in covers[at]
        assert may_take_burst(mine, judge)


# -- cost ---------------------------------------------------------------------


def test_lost_work_is_what_must_be_done_again() -> None:
    """GPUs x (time since the checkpoint + restart) x worth + a fixed part."""
    fixed = FIXED_COST_S * 1000 * GPU
    one = GPU * 100 * value_weight(class_of(WHOLE))
    assert lost_work(holding(), court()) == fixed
    assert lost_work(holding(saved=NOW - 100), court()) == fixed + one
    assert lost_work(holding(gpus=4, saved=NOW - 100), court()) == fixed + 4 * one
    assert lost_work(holding(saved=NOW - 60, restart=40.0), court()) == fixed + one
    ahead = holding(saved=NOW + 100)  # a clock that is ahead
    assert lost_work(ahead, court()) == fixed
    cheap = lost_work(replace(holding(saved=NOW - 100), form=OTHER), court())
    assert cheap == fixed + GPU * 100 * value_weight(class_of(OTHER)) < fixed + one


def test_freshly_started_gang_costs_more() -> None:
    """Else the youngest, who has lost least, would be evicted again and again."""
    old = lost_work(holding(started=NOW - FRESH_S), court())
    half = lost_work(holding(started=NOW - FRESH_S / 2), court())
    new = lost_work(holding(started=NOW), court())
    assert old < half < new
    assert new - old == round(FRESH_S * 1000) * GPU
