"""What is missing, found by comparison alone: pure, and nothing once it is done."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.codec import CodecError, decode_mark
from scheduler.core import Planned, WorkloadClass
from scheduler.kube import gaps
from scheduler.kube.gaps import Adorn, Ask, Discard
from scheduler.kube.records import Record, record_of
from tests.kube.decided import leaving, plan
from tests.kube.seen import mark, pod
from tests.strategies import MANY

LEADER = "one 0"


def records(*pods: object) -> dict[str, Record]:
    found = [record_of(each) for each in pods]
    return {record.uid: record for record in found}


def done(step: Adorn) -> None:
    """What a write of ours makes of a pod."""
    record = step.record
    record.nominated = step.node or ""
    record.mark, record.hold = step.mark or "", step.hold or ""


# -- admissions ----------------------------------------------------------------------


def test_a_plan_is_a_mark_a_nomination_and_an_open_gate() -> None:
    known = records(pod("p"))
    (found,) = gaps.admissions([plan("p", decision=7)], known, epoch=3)
    (adorn,) = found.adorn
    text = decode_mark(adorn.mark or "")
    assert (adorn.node, adorn.hold) == ("n1", None)
    assert (text.tenant, text.quanta, text.decision, text.epoch) == (
        "a",
        126_000,
        "3-7",
        3,
    )
    assert found.gates == (known["uid-p"],)
    assert (found.gang, found.decision) == ("uid-p", 7)


def test_a_gang_is_one_step_that_lacks_nobody() -> None:
    """A member that its Job has still to make would come too late."""
    plans = [plan("p", gang="g"), plan("q", gang="g")]
    assert gaps.admissions(plans, records(pod("p")), 0) == []
    (found,) = gaps.admissions(plans, records(pod("p"), pod("q")), 0)
    assert [adorn.record.uid for adorn in found.adorn] == ["uid-p", "uid-q"]
    assert len(found.gates) == 2


def test_bound_members_are_done_with() -> None:
    bound = pod("p", node="n1", mark=mark())
    plans = [plan("p", gang="g"), plan("q", gang="g")]
    (found,) = gaps.admissions(plans, records(bound, pod("q")), 0)
    assert [record.uid for record in found.gates] == ["uid-q"]
    assert gaps.admissions(plans[:1], records(bound), 0) == []


def test_another_decision_for_the_same_room_writes_nothing() -> None:
    """After a restart all is decided again, and mostly the same."""
    ready = pod("p", mark=mark(), nominated="n1", gated=False)
    assert gaps.admissions([plan("p", decision=99)], records(ready), 5) == []


def test_whatever_differs_from_the_plan_is_written_anew() -> None:
    ready = {"mark": mark(), "nominated": "n1", "gated": False}
    for change in (
        {"mark": mark("b")},
        {"mark": mark(quanta=1)},
        {"mark": mark(form="a100-80gb")},
        {"mark": mark(kind=WorkloadClass.BATCH)},
        {"mark": "garbage"},
        {"nominated": "n2"},
        {"mark": mark(node="n2"), "nominated": "n2"},
        {"nominated": ""},
        {"hold": "{}"},
    ):
        (found,) = gaps.admissions([plan("p")], records(pod("p", **ready | change)), 0)
        assert len(found.adorn) == 1, change
        assert found.gates == ()


# -- holds ---------------------------------------------------------------------------


def test_a_hold_is_a_nomination_without_a_mark() -> None:
    known = records(pod("p"))
    held = [plan("p", held=True)]
    (step,) = gaps.holds(held, known, LEADER)
    assert (step.node, step.mark) == ("n1", None)
    done(step)
    assert gaps.holds(held, known, LEADER) == []
    assert gaps.admissions(held, known, 0) == []


def test_a_new_leader_of_kube_scheduler_is_told_of_every_hold() -> None:
    known = records(pod("p"))
    held = [plan("p", held=True)]
    done(*gaps.holds(held, known, LEADER))
    (again,) = gaps.holds(held, known, "two 1")
    assert "two 1" in (again.hold or "")


def test_a_hold_that_becomes_an_admission_is_written_over() -> None:
    known = records(pod("p"))
    done(*gaps.holds([plan("p", held=True)], known, LEADER))
    (found,) = gaps.admissions([plan("p")], known, 0)
    (adorn,) = found.adorn
    assert (adorn.hold, adorn.mark is None) == (None, False)


# -- leftovers -----------------------------------------------------------------------


def test_what_nobody_planned_is_taken_back() -> None:
    """Cleared at the gate; behind it made anew where somebody does so."""
    gated = pod("a", mark=mark(), nominated="n1")
    made = pod("b", mark=mark(), nominated="n1", gated=False, keeper="r")
    alone = pod("c", mark=mark(), nominated="n1", gated=False)
    known = records(gated, made, alone)
    steps = gaps.leftovers(list(known), known, {})
    assert [type(step) for step in steps] == [Adorn, Discard, Adorn]
    assert [s.node for s in steps if isinstance(s, Adorn)] == [None, None]
    planned = {uid: plan(uid[-1]) for uid in known}
    assert gaps.leftovers(list(known), known, planned) == []


def test_pods_that_go_anyway_are_left_alone() -> None:
    going = pod("p", mark=mark(), node="n1", deleting=True)
    assert gaps.leftovers(["uid-p"], records(going), {}) == []


# -- requests ------------------------------------------------------------------------


def test_who_may_save_its_work_is_told_until_when() -> None:
    known = records(pod("p", node="n1", mark=mark()))
    going = {"uid-p": leaving("p", 60.0)}
    (ask,) = gaps.requests(going, known, [], 1_000_000_000.0)
    assert ask == Ask(known["uid-p"], "2001-09-09T01:47:40Z")
    known["uid-p"].save_by = ask.save_by or ""
    assert gaps.requests(going, known, ["uid-p"], 1_000_000_000.0) == []


def test_who_has_to_stop_is_asked_no_more() -> None:
    known = records(pod("p", node="n1", mark=mark()))
    assert gaps.requests({"uid-p": leaving("p")}, known, [], 0.0) == []


def test_who_may_stay_is_told_so() -> None:
    asked = pod("p", node="n1", mark=mark(), save_by="2026-11-21T00:00:00Z")
    known = records(asked, pod("q", save_by="x", deleting=True))
    assert gaps.requests({}, known, list(known), 0.0) == [Ask(known["uid-p"], None)]


# -- all together ----------------------------------------------------------------------

NAMES = ("a", "b", "c", "d", "e")
NODES = st.sampled_from(["n1", "n2"])
MARKS = st.sampled_from(["", mark(), mark("b"), "garbage"])

seen = st.builds(
    pod,
    st.sampled_from(NAMES),
    gated=st.booleans(),
    node=st.sampled_from(["", "", "n1"]),
    nominated=st.sampled_from(["", "n1", "n2"]),
    mark=MARKS,
    hold=st.sampled_from(["", "{}"]),
    save_by=st.sampled_from(["", "2026-11-21T00:00:00Z"]),
    deleting=st.booleans(),
    keeper=st.sampled_from(["", "r"]),
)
decided = st.builds(
    plan,
    st.sampled_from(NAMES),
    NODES,
    gang=st.sampled_from(["g", "h"]),
    held=st.booleans(),
)


@MANY
@given(
    st.lists(seen, unique_by=lambda one: one.metadata.uid),
    st.lists(decided, unique_by=lambda one: one.uid),
    st.lists(st.sampled_from(NAMES), unique=True),
)
def test_doing_every_step_once_leaves_nothing_to_do(
    pods: list, plans: list[Planned], going: list[str]
) -> None:
    """Nothing has to be remembered; and no step is about a pod that is bound."""
    gangs: dict[str, bool] = {}
    plans = [replace(p, held=gangs.setdefault(p.gang, p.held)) for p in plans]
    known = records(*pods)
    wishes = {f"uid-{name}": leaving(name, 60.0) for name in going}
    for _ in range(2):
        for step in steps(plans, known, wishes):
            perform(step, known)
    assert steps(plans, known, wishes) == []


def steps(plans: list[Planned], known: dict, wishes: dict) -> list:
    planned = {p.uid: p for p in plans}
    adorned = [uid for uid, record in known.items() if record.is_adorned]
    asked = [uid for uid, record in known.items() if record.save_by]
    admissions = gaps.admissions(plans, known, 0)
    for each in admissions:
        members = {p.uid for p in plans if p.gang == each.gang}
        assert members <= known.keys()
        touched = [*(a.record for a in each.adorn), *each.gates]
        assert {record.uid for record in touched} <= members
        assert not any(record.node for record in touched)
        bare = {a.record.uid for a in each.adorn}
        open_ = [r for r in touched if r.uid not in bare]
        assert all(gaps.is_admitted(planned[r.uid], r) for r in open_)
    return [
        *admissions,
        *gaps.holds(plans, known, LEADER),
        *gaps.leftovers(adorned, known, planned),
        *gaps.requests(wishes, known, asked, 0.0),
    ]


def perform(step: object, known: dict) -> None:
    match step:
        case Adorn():
            done(step)
        case Discard(record):
            del known[record.uid]
        case Ask(record, save_by):
            record.save_by = save_by or ""
        case gaps.Admission():
            for adorn in step.adorn:
                done(adorn)
            for record in step.gates:
                record.gated = False


def test_a_mark_of_a_later_version_is_read_as_none() -> None:
    """A service that was set back writes its own again."""
    text = '{"version": 2, "tenant": "a"}'
    assert record_of(pod("p", mark=text)).admission() is None
    with pytest.raises(CodecError, match="version"):
        decode_mark(text)
