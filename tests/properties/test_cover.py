"""Who is covered, and who may be evicted for whom, against a plain second opinion.

The plain walk tries every way of spending a guarantee (``oracle.unpaid``), knows no
order of payment, and finds the lowest common ancestor by its own means.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.fairness import (
    Spending,
    Standing,
    covered,
    covered_forms,
    demoted,
    entitlements,
    granted,
)
from scheduler.core.gpu import Form, charge
from scheduler.core.quota import Fleet, Pools
from scheduler.core.reclaim import Court, Holding, Taker, may_take
from scheduler.core.workload import GangId, TenantName, WorkloadClass
from tests import courtroom
from tests.properties import oracle
from tests.properties.oracle import Rules
from tests.properties.worlds import (
    A40,
    A80,
    FLEETS,
    H100,
    TREES,
    World,
    gangs,
    worlds,
)

pytestmark = pytest.mark.long
KINDS = (H100, A80, A40)
FLEET = st.sampled_from(FLEETS)
CRITICAL = WorkloadClass.INFERENCE_CRITICAL
Owned = dict[Form, int]


@st.composite
def purses(draw: st.DrawFn, fleet: Fleet, most: int = 5) -> Owned:
    """A guarantee of forms and groups."""
    pools = [*KINDS, *(group.name for group in fleet.groups)]
    counts = draw(st.dictionaries(st.sampled_from(pools), st.integers(0, most)))
    return {pool: n * charge(pool) for pool, n in sorted(counts.items())}


def rules(fleet: Fleet) -> Rules:
    return Rules((), fleet, {})


# -- one guarantee ------------------------------------------------------------


@TREES
@given(FLEET, gangs(KINDS, most=8), st.data())
def test_cover_is_the_plain_walk(
    fleet: Fleet, found: list[Standing], data: st.DataObject
) -> None:
    """PROTECTED: whole gangs by rank, extras one by one, groups spent at their best."""
    owned = data.draw(purses(fleet))
    plain = oracle.cover(rules(fleet), found, owned)
    assert covered_forms(found, owned, Pools(fleet)) == plain
    assert Spending(found, owned, Pools(fleet)).taken == plain
    assert covered(found, owned, Pools(fleet)) == set(plain)


@TREES
@given(FLEET, gangs(KINDS), st.randoms(use_true_random=False), st.data())
def test_order_independence_of_the_cover(
    fleet: Fleet, found: list[Standing], chance: random.Random, data: st.DataObject
) -> None:
    """DETERMINISTIC: the order in which gangs are named is nothing."""
    owned, pools = data.draw(purses(fleet)), Pools(fleet)
    mixed = list(found)
    chance.shuffle(mixed)
    assert covered_forms(mixed, owned, pools) == covered_forms(found, owned, pools)
    assert entitlements(mixed, owned, pools) == entitlements(found, owned, pools)
    assert demoted(mixed, owned, pools) == demoted(found, owned, pools)


@TREES
@given(FLEET, gangs(KINDS), st.data())
def test_cover_is_stable_when_covered_work_starts(
    fleet: Fleet, found: list[Standing], data: st.DataObject
) -> None:
    """STABLE: the act of placing covered work unprotects no other work."""
    owned, pools = data.draw(purses(fleet)), Pools(fleet)
    before = covered_forms(found, owned, pools)
    waiting = [s for s in found if not s.running and s.gang in before and not s.core]
    if not waiting:
        return
    chosen = data.draw(st.sampled_from(waiting))
    form = before[chosen.gang]
    size = dict(((chosen.form, chosen.quanta), *chosen.also))[form]
    rest = [s for s in found if s is not chosen and s.core != chosen.gang]
    started = replace(chosen, running=True, since=9.0, form=form, quanta=size, also=())
    alone = covered_forms([*rest, chosen], owned, pools)
    after = covered_forms([*rest, started], owned, pools)
    running = [s.gang for s in rest if s.running]
    assert {g: after.get(g) for g in running} == {g: alone.get(g) for g in running}
    assert after[chosen.gang] == form


@TREES
@given(FLEET, gangs(KINDS), st.data())
def test_cover_is_blind_to_what_ranks_lower(
    fleet: Fleet, found: list[Standing], data: st.DataObject
) -> None:
    """PROTECTED: submitting batch strips nobody."""
    owned, pools = data.draw(purses(fleet)), Pools(fleet)
    later = [
        replace(s, workload_class=WorkloadClass.BATCH, priority=-1, since=9.0)
        for s in data.draw(gangs(KINDS, prefix="z", most=3))
    ]
    before = covered_forms(found, owned, pools)
    after = covered_forms([*found, *later], owned, pools)
    assert {s.gang: after.get(s.gang) for s in found} == {
        s.gang: before.get(s.gang) for s in found
    }


@TREES
@given(FLEET, gangs(KINDS), gangs(KINDS, prefix="n", most=1), st.data())
def test_a_leaving_gang_is_told_whether_it_would_be_covered(
    fleet: Fleet, found: list[Standing], one: list[Standing], data: st.DataObject
) -> None:
    """PROTECTED: an eviction is called off where its victim is covered again by now."""
    owned, pools = data.draw(purses(fleet)), Pools(fleet)
    for newcomer in one:
        seated = replace(newcomer, also=())
        asked = Spending(found, owned, pools).would_pay(seated)
        assert asked == (seated.gang in covered([*found, seated], owned, pools))


@TREES
@given(FLEET, gangs(KINDS), st.data())
def test_division_and_cover_spend_the_same_guarantee(
    fleet: Fleet, found: list[Standing], data: st.DataObject
) -> None:
    """Group guarantees are never counted twice, and pay for all that is covered.

    What is claimed on the forms can be paid all at once; a form claims its own
    guarantee at least, and of the groups no more than is asked for there.
    """
    owned, pools = data.draw(purses(fleet)), Pools(fleet)
    claimed = entitlements(found, owned, pools)
    assert not set(claimed) & set(pools.members)
    assert not oracle.unpaid(rules(fleet), claimed, owned)
    spent = dict.fromkeys(KINDS, 0)
    asked = dict.fromkeys(KINDS, 0)
    cover = covered_forms(found, owned, pools)
    for gang in found:
        ways = dict(((gang.form, gang.quanta), *gang.also))
        form = cover.get(gang.gang, gang.form)
        asked[form] += ways[form]
        spent[form] += ways[form] if gang.gang in cover else 0
    for form in KINDS:
        own, there = owned.get(form, 0), claimed.get(form, 0)
        assert max(own, spent[form]) <= there <= max(own, asked[form])


# -- tiers --------------------------------------------------------------------


@TREES
@given(FLEET, gangs(KINDS), st.data())
def test_critical_is_what_is_granted(
    fleet: Fleet, found: list[Standing], data: st.DataObject
) -> None:
    """CLASS ORDER: who calls itself critical without a grant is plain inference."""
    grant, pools = data.draw(purses(fleet)), Pools(fleet)
    kept = _fitting(fleet, [s for s in found if s.workload_class is CRITICAL], grant)
    after = granted(found, grant, pools)
    for before, now in zip(found, after, strict=True):
        downgraded = before.workload_class is CRITICAL and before.gang not in kept
        kind = WorkloadClass.INFERENCE if downgraded else before.workload_class
        assert now == replace(before, workload_class=kind)


@TREES
@given(FLEET, gangs(KINDS), st.data())
def test_inference_beyond_its_cap_is_training(
    fleet: Fleet, found: list[Standing], data: st.DataObject
) -> None:
    """CLASS ORDER: calling training "inference" must not pay."""
    caps, pools = data.draw(purses(fleet)), Pools(fleet)
    urgent = [s for s in found if s.workload_class.is_inference]
    kept = _fitting(fleet, urgent, caps)
    assert demoted(found, caps, pools) == {s.gang for s in urgent} - kept


def _fitting(fleet: Fleet, found: Sequence[Standing], owned: Owned) -> set[GangId]:
    """Gangs that fit on the form they hold or like best, by rank."""
    kept: set[GangId] = set()
    used: dict[Form, int] = {}
    for gang in sorted(found, key=oracle.rank):
        more = {**used, gang.form: used.get(gang.form, 0) + gang.quanta}
        if not oracle.unpaid(rules(fleet), more, owned):
            kept.add(gang.gang)
            used = more
    return kept


# -- in a tree ----------------------------------------------------------------


def court_of(world: World, below: Mapping[TenantName, Sequence[Standing]]) -> Court:
    """A court that computes every cover, and grants nobody any share of burst."""
    tree = world.tree()
    bare = courtroom.court(world.queues)
    covers = {
        name: covered_forms(below[name], tree.guarantees(name), tree.pools)
        for name in tree.queues
    }
    return replace(bare, tree=tree, covers=lambda queue: covers[queue])


def as_taker(gang: Standing, tenant: TenantName, court: Court) -> Taker:
    base = courtroom.taker(owner=tenant, kind=gang.workload_class, form=gang.form)
    uses = dict.fromkeys(court.tree.path(tenant), 0)
    mine = court.covers(tenant).get(gang.gang) == gang.form
    return replace(
        base,
        gang=gang.gang,
        priority=gang.priority,
        quanta=gang.quanta,
        covered=mine,
        uses=uses,
    )


def as_victim(gang: Standing, tenant: TenantName) -> Holding:
    base = courtroom.holding(gang.gang, owner=tenant, kind=gang.workload_class)
    return replace(base, priority=gang.priority, quanta=gang.quanta, form=gang.form)


@TREES
@given(worlds(forms=KINDS[:2], fleets=FLEETS[:3], size=6), st.data())
def test_protected_at_the_siblings_below_the_common_ancestor(
    world: World, data: st.DataObject
) -> None:
    """PROTECTED: of another tenant, only burst is taken, and only for what is covered.

    Both are judged where the paths of the two part, whatever their tenants' own cover
    says. Inside one tenant, by class and priority, and never covered for burst.
    """
    below: dict[TenantName, list[Standing]] = {queue.name: [] for queue in world.queues}
    tree, plain = world.tree(), world.rules()
    seats: list[tuple[Standing, TenantName]] = []
    for tenant in world.leaves():
        found = data.draw(gangs(KINDS[:2], prefix=f"{tenant}-", most=3))
        seats.extend((gang, tenant) for gang in found)
        for queue in tree.path(tenant):
            below[queue].extend(found)
    court = court_of(world, below)
    covers = {n: oracle.cover(plain, below[n], plain.owned[n]) for n in below}
    for mine, owner in seats:
        for other, holder in seats:
            if mine.running or not other.running or mine.form != other.form:
                continue
            ours, theirs = oracle.below_the_ancestor(plain, owner, holder)
            ask = covers[ours].get(mine.gang) == mine.form
            safe = other.gang in covers[theirs]
            if owner == holder:
                first = oracle.rank(mine)[:2] < oracle.rank(other)[:2]
                legal = first and (ask or not safe)
            else:
                legal = ask and not safe
            taker, victim = as_taker(mine, owner, court), as_victim(other, holder)
            assert may_take(taker, victim, court) == legal
