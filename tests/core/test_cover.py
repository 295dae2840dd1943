"""What a guarantee covers, gang by gang, and in which tier the rest is divided."""

import random
from dataclasses import replace
from itertools import pairwise

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
from scheduler.core.gpu import Form, parse_form
from scheduler.core.quota import Fleet, Group, Pools
from scheduler.core.workload import GangId, WorkloadClass
from tests.strategies import MANY, OTHER, SLICE, SOME, WHOLE, standings

CRITICAL, INFERENCE, TRAINING, BATCH = WorkloadClass


def gang(
    name: str,
    quanta: int,
    *,
    kind: WorkloadClass = TRAINING,
    priority: int = 0,
    running: bool = True,
    since: float = 0.0,
    also: tuple[tuple[str, int], ...] = (),
) -> Standing:
    return Standing(
        GangId(name),
        kind,
        priority,
        running,
        since,
        WHOLE,
        quanta,
        tuple((parse_form(form), n) for form, n in also),
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            gang("z", 1, kind=INFERENCE, since=9.0, running=False),
            gang("a", 1, priority=5),
        ),  # class before everything
        (gang("z", 1, priority=1, since=9.0, running=False), gang("a", 1)),  # priority
        (
            gang("z", 1, since=9.0),
            gang("a", 1, running=False),
        ),  # running before waiting
        (gang("z", 1, since=1.0), gang("a", 1, since=2.0)),  # the older
        (gang("a", 1), gang("z", 1)),  # the name, when nothing else tells
    ],
)
def test_guarantee_is_spent_in_order(first: Standing, second: Standing) -> None:
    """The walk of section 6, one step of its order per case."""
    assert covered([second, first], {WHOLE: 1}) == {first.gang}


def test_gang_across_the_edge_is_burst_and_does_not_end_the_walk() -> None:
    """Whole gangs only; what it leaves may still cover a smaller, younger one."""
    gangs = [gang("a", 3), gang("b", 3, since=1.0), gang("c", 1, since=2.0)]
    assert covered(gangs, {WHOLE: 4}) == {"a", "c"}


def test_member_above_the_minimum_is_covered_with_its_gang_only() -> None:
    """Else evicting the uncovered gang would stop a covered pod (PROTECTED)."""
    core, extra = gang("g", 4), replace(gang("g#5", 1, since=1.0), core=GangId("g"))
    assert covered([core, extra], {WHOLE: 5}) == {"g", "g#5"}
    assert covered([core, extra], {WHOLE: 4}) == {"g"}
    assert covered([core, extra], {WHOLE: 3}) == set()
    assert covered([extra], {WHOLE: 3}) == {"g#5"}  # its gang has finished


def test_member_above_the_minimum_comes_after_its_gang() -> None:
    """It may have been bound first; the gang still goes first in the walk."""
    core, extra = gang("g", 4, since=9.0), replace(gang("g#5", 1), core=GangId("g"))
    assert covered([extra, core], {WHOLE: 4}) == {"g"}
    between = gang("h", 1, since=5.0)
    assert covered([extra, core, between], {WHOLE: 5}) == {"g", "h"}


@MANY
@given(standings(), st.integers(0, 12))
def test_nothing_is_covered_whose_gang_is_not(
    gangs: list[Standing], guarantee: int
) -> None:
    """PROTECTED again, for any mix of gangs and their extra members."""
    found = covered(gangs, {WHOLE: guarantee, OTHER: 3})
    for standing in gangs:
        if standing.core is not None and standing.gang in found:
            assert standing.core in found


def test_waiting_gang_is_covered_in_the_first_form_that_pays() -> None:
    """A guarantee names a form: cover in one form is no claim on another."""
    waiting = gang("w", 8, running=False, also=((OTHER, 8), (SLICE, 8)))
    assert covered_forms([waiting], {OTHER: 8, SLICE: 9}) == {"w": OTHER}
    assert covered_forms([waiting], {SLICE: 7}) == {}


@MANY
@given(
    standings(),
    st.fixed_dictionaries(
        {},
        optional={
            WHOLE: st.integers(0, 12),
            SLICE: st.integers(0, 12),
            OTHER: st.integers(0, 12),
        },
    ),
)
def test_cover_never_exceeds_the_guarantee(
    gangs: list[Standing], guarantee: dict[Form, int]
) -> None:
    """PROTECTED would otherwise promise devices that nobody guaranteed."""
    spent: dict[Form, int] = {}
    by_name = {standing.gang: standing for standing in gangs}
    for name, form in covered_forms(gangs, guarantee).items():
        standing = by_name[name]
        options = dict(((standing.form, standing.quanta), *standing.also))
        spent[form] = spent.get(form, 0) + options[form]
    for form, quanta in spent.items():
        assert quanta <= guarantee.get(form, 0)


@MANY
@given(standings(), st.integers(0, 12), st.randoms(use_true_random=False))
def test_cover_depends_on_rank_alone(
    gangs: list[Standing], guarantee: int, chance: random.Random
) -> None:
    """DETERMINISTIC: the order in which gangs are named is nothing."""
    owned = {WHOLE: guarantee, SLICE: guarantee // 2}
    mixed = list(gangs)
    chance.shuffle(mixed)
    assert covered_forms(mixed, owned) == covered_forms(gangs, owned)


@MANY
@given(standings(), standings(most=1), st.integers(0, 12))
def test_a_lower_ranked_gang_changes_nobodys_cover(
    gangs: list[Standing], late: list[Standing], guarantee: int
) -> None:
    """Else submitting batch could strip running work of its protection."""
    owned = {WHOLE: guarantee, OTHER: guarantee}
    before = covered_forms(gangs, owned)
    for standing in late:
        newcomer = Standing(
            GangId("zz"),
            BATCH,
            -1,
            False,
            standing.since,
            standing.form,
            standing.quanta,
            standing.also,
        )
        after = covered_forms([*gangs, newcomer], owned)
        assert {name: after.get(name) for name in before} == before
        assert set(after) - set(before) <= {"zz"}


@MANY
@given(standings(), st.integers(0, 12), st.data())
def test_starting_a_gang_changes_nobody_elses_cover(
    gangs: list[Standing], guarantee: int, data: st.DataObject
) -> None:
    """STABLE: the act of placing covered work must not unprotect other work.

    Members above its least number, which were behind it, move up with it: they may.
    """
    owned = {WHOLE: guarantee}
    before = covered(gangs, owned)
    cores = {s.core for s in gangs if not s.running}
    waiting = [s for s in gangs if not s.running and s.gang in before]
    waiting = [s for s in waiting if s.gang not in cores]
    if not waiting:
        return
    chosen = data.draw(st.sampled_from(waiting))
    rest = [s for s in gangs if s is not chosen]
    options = dict(((chosen.form, chosen.quanta), *chosen.also))
    started = replace(
        chosen, running=True, since=99.0, form=WHOLE, quanta=options[WHOLE], also=()
    )
    running = {s.gang for s in rest if s.running}
    after = covered([*rest, started], owned)
    assert after & running == before & running
    assert chosen.gang in after


# -- spending ---------------------------------------------------------------


def test_a_gang_that_leaves_asks_whether_it_would_be_covered() -> None:
    """What ranks before it is paid first; what ranks behind it does not count."""
    rest = [gang("old", 2), gang("young", 2, since=2.0)]
    spending = Spending(rest, {WHOLE: 4})
    assert spending.taken == {"old": WHOLE, "young": WHOLE}
    assert spending.would_pay(gang("between", 2, since=1.0))
    assert not spending.would_pay(gang("between", 3, since=1.0))
    assert not spending.would_pay(gang("last", 1, since=3.0))
    assert spending.would_pay(gang("first", 4, kind=INFERENCE))


def test_entitlements_claim_what_is_owned_even_unasked() -> None:
    """Division lends idle guarantees itself: it must know all of them."""
    assert entitlements([], {WHOLE: 4, SLICE: 2}, Pools(Fleet())) == {
        WHOLE: 4,
        SLICE: 2,
    }


def test_an_idle_group_claims_nothing() -> None:
    """Nobody knows on which class it would be asked for."""
    fleet = Fleet(groups=(Group(name=Form("any"), members=(WHOLE, OTHER)),))
    assert entitlements([], {Form("any"): 4}, Pools(fleet)) == {}


def test_a_group_is_claimed_in_part_for_what_it_does_not_cover() -> None:
    """Step 1 grants min(guarantee, demand): a straddling gang asks for its part."""
    fleet = Fleet(groups=(Group(name=Form("any"), members=(WHOLE, OTHER)),))
    large = gang("large", 6)
    owned = {Form("any"): 4, WHOLE: 1}
    assert entitlements([large], owned, Pools(fleet)) == {WHOLE: 5}


# -- tiers --------------------------------------------------------------------


def test_inference_beyond_its_cap_queues_as_training() -> None:
    """Calling training "inference" must not pay (design, section 6)."""
    gangs = [gang(f"i{n}", 2, kind=INFERENCE, since=float(n)) for n in range(3)]
    assert demoted(gangs, {WHOLE: 4}) == {"i2"}


def test_tenant_without_guarantee_has_no_inference_tier() -> None:
    """The default cap is the guarantee: none means all of it is training burst."""
    assert demoted([gang("i", 1, kind=CRITICAL)], {}) == {"i"}


def test_lower_classes_keep_their_tier_and_spend_no_cap() -> None:
    """The cap moves no training or batch, nor do they use it up."""
    gangs = [gang("b", 9, kind=BATCH), gang("t", 9), gang("i", 4, kind=INFERENCE)]
    assert demoted(gangs, {WHOLE: 4}) == set()


@SOME
@given(standings(), st.integers(0, 12))
def test_only_inference_is_demoted_and_only_beyond_the_cap(
    gangs: list[Standing], cap: int
) -> None:
    """What stays never exceeds the cap, and nobody goes who would still fit it."""
    found = demoted(gangs, {WHOLE: cap})
    urgent = [g for g in gangs if g.workload_class.is_inference]
    stay = [g for g in urgent if g.gang not in found]
    assert found <= {g.gang for g in urgent}
    assert all(g.form == WHOLE for g in stay)
    spent = sum(g.quanta for g in stay)
    assert spent <= cap
    assert all(
        g.form != WHOLE or spent + g.quanta > cap for g in urgent if g.gang in found
    )


def test_ranks_are_strictly_ordered() -> None:
    """The walk has one order: two gangs never share a rank."""
    gangs = [gang(f"g{n}", 1, since=float(n % 2)) for n in range(4)]
    ranks = sorted(standing.rank for standing in gangs)
    assert all(a < b for a, b in pairwise(ranks))


def test_critical_beyond_the_grant_is_inference() -> None:
    """CLASS ORDER: the highest class is given by the owner, never taken."""
    gangs = [
        gang("new", 2, kind=CRITICAL, since=2.0),
        gang("old", 2, kind=CRITICAL, since=1.0),
        gang("plain", 2, kind=INFERENCE),
        gang("train", 2),
    ]
    kinds = {s.gang: s.workload_class for s in granted(gangs, {WHOLE: 3})}
    assert kinds == {
        "new": INFERENCE,
        "old": CRITICAL,
        "plain": INFERENCE,
        "train": TRAINING,
    }


def test_without_a_grant_nothing_is_critical() -> None:
    """No grant is the default; and who asks for none is left as it was."""
    urgent, plain = gang("i", 1, kind=CRITICAL), gang("t", 1)
    assert granted([urgent, plain], {}) == [
        replace(urgent, workload_class=INFERENCE),
        plain,
    ]
    assert granted([plain], {}) == [plain]


def test_a_grant_names_a_form() -> None:
    """Critical on one class is not critical on another."""
    urgent = replace(gang("i", 1, kind=CRITICAL), form=OTHER)
    (kept,) = granted([urgent], {OTHER: 1})
    (lost,) = granted([urgent], {WHOLE: 9})
    assert (kept.workload_class, lost.workload_class) == (CRITICAL, INFERENCE)


def test_a_grant_of_a_group_is_spent_on_any_member() -> None:
    """Two of any: the older two, on whichever class they are."""
    fleet = Fleet(groups=(Group(name=Form("any"), members=(WHOLE, OTHER)),))
    gangs = [
        gang("a", 1, kind=CRITICAL),
        replace(gang("b", 1, kind=CRITICAL, since=1.0), form=OTHER),
        gang("c", 1, kind=CRITICAL, since=2.0),
    ]
    found = granted(gangs, {Form("any"): 2}, Pools(fleet))
    assert [s.workload_class for s in found] == [CRITICAL, CRITICAL, INFERENCE]


def test_what_is_not_critical_is_covered_as_inference() -> None:
    """A lie about the class must not reorder the cover either."""
    liar = gang("liar", 2, kind=CRITICAL, since=1.0)
    honest = gang("honest", 2, kind=INFERENCE)
    assert covered([liar, honest], {WHOLE: 2}) == {"liar"}
    assert covered(granted([liar, honest], {}), {WHOLE: 2}) == {"honest"}


def test_a_cap_of_a_group_holds_over_its_members() -> None:
    """Inference on either class spends the one cap; a class of its own adds to it."""
    fleet = Fleet(groups=(Group(name=Form("any"), members=(WHOLE, OTHER)),))
    gangs = [
        gang("a", 2, kind=INFERENCE),
        replace(gang("b", 2, kind=INFERENCE, since=1.0), form=OTHER),
        gang("c", 2, kind=INFERENCE, since=2.0),
    ]
    caps = {Form("any"): 3}
    assert demoted(gangs, caps, Pools(fleet)) == {"b", "c"}
    assert demoted(gangs, caps | {OTHER: 1}, Pools(fleet)) == {"c"}
    assert demoted(gangs, caps | {OTHER: 2, WHOLE: 1}, Pools(fleet)) == set()


def test_critical_work_spends_the_cap_on_inference_first() -> None:
    """Both inference classes are one tier: the more urgent stays in it."""
    gangs = [gang("plain", 2, kind=INFERENCE), gang("urgent", 2, kind=CRITICAL)]
    assert demoted(gangs, {WHOLE: 2}) == {"plain"}
