"""Suspended Jobs wait in the queue as what they would be when they run."""

import pytest

from scheduler.core import (
    Event,
    PodGone,
    PodReplaced,
    PodSubmitted,
    TenantName,
)
from scheduler.kube.jobs import MOST
from tests.kube.seen import Seen, job, mark, node, pod, priority


def words(told: list[Event]) -> list[str]:
    """Events of pods, in words."""
    found = []
    for event in told:
        match event:
            case PodSubmitted(pod_):
                found.append(f"come {pod_.uid}")
            case PodGone(uid):
                found.append(f"gone {uid}")
            case PodReplaced(uid, pod_):
                found.append(f"{pod_.uid} for {uid}")
    return found


def waiting(count: int = 2, **more: object) -> Seen:
    """A suspended Job whose stand-ins are told."""
    seen = Seen().see(node("n1"), job("j", count, suspended=True, **more))
    assert len(words(seen.hear())) == count
    return seen


def test_a_suspended_job_stands_in_for_its_pods() -> None:
    """As many as would run at once, in one gang, since the Job was made."""
    seen = Seen().see(job("j", 3, suspended=True, gpus=2, born=9))
    told = seen.hear()
    assert words(told) == ["come job:j/0", "come job:j/1", "come job:j/2"]
    assert isinstance(told[0], PodSubmitted)
    first = told[0].pod
    assert (first.min_member, first.demand.count, told[0].since) == (3, 2, 9.0)
    assert first.name == "team-a/train[0]"
    assert seen.see(job("j", 3, suspended=True, gpus=2, born=9)).hear() == []


@pytest.mark.parametrize(
    "strange",
    [
        job("j", managed=False, suspended=True),
        job("j"),
        job("j", suspended=True, gpus=0),
        job("j", suspended=True, space="elsewhere"),
        job("j", suspended=True, schedulerName="other"),
        job("j", suspended=True, over=True),
        job("j", suspended=True, deleting=True),
        job("j", suspended=True, notes={"fairshare.dev/restart-cost": "?"}),
    ],
    ids=("unasked", "running", "cpu", "foreign", "other", "over", "gone", "unclear"),
)
def test_other_jobs_have_no_stand_ins(strange: object) -> None:
    """Nobody resumes a Job that we do not place, or may not touch."""
    seen = Seen()
    seen.mirror.jobs.changed(strange)
    assert seen.hear() == []


def test_only_so_many_stand_in() -> None:
    """A Job of a million must not cost us memory."""
    seen = Seen().see(job("j", 1_000_000, suspended=True))
    assert len(seen.mirror.events(lambda s: s)) == MOST


def test_pods_take_the_places_of_their_stand_ins() -> None:
    """What was planned for the Job is theirs."""
    seen = waiting()
    seen.cycle()
    planned = {plan.uid: plan.node for plan in seen.engine.plans()}
    assert planned == {"job:j/0": "n1", "job:j/1": "n1"}
    seen.see(job("j", 2), pod("p", job="j"), pod("q", job="j"))
    assert words(seen.hear()) == ["uid-p for job:j/0", "uid-q for job:j/1"]
    assert {plan.uid for plan in seen.engine.plans()} == {"uid-p", "uid-q"}
    assert seen.mirror.jobs.stand_ins == {}


def test_stand_ins_stay_until_their_pods_come() -> None:
    """The Job's news and its pods' come by different ways."""
    seen = waiting()
    seen.see(job("j", 2))
    assert words(seen.hear()) == []
    seen.see(pod("p", job="j"))
    assert words(seen.hear()) == ["uid-p for job:j/0"]
    assert words(seen.hear()) == []
    seen.see(pod("q", job="j"))
    assert words(seen.hear()) == ["uid-q for job:j/1"]


def test_pods_that_come_before_the_news_of_the_job_find_their_places() -> None:
    seen = waiting()
    seen.see(pod("p", job="j"))
    assert words(seen.hear()) == ["uid-p for job:j/0"]
    seen.see(job("j", 2), pod("q", job="j"))
    assert words(seen.hear()) == ["uid-q for job:j/1"]


def test_stand_ins_that_nobody_will_replace_go() -> None:
    """Of a Job that was made smaller as it was resumed."""
    seen = waiting(3, notes={"fairshare.dev/gang-min-member": "1"})
    alone = {"fairshare.dev/gang-min-member": "1"}
    seen.see(job("j", 2, notes=alone), pod("p", job="j", notes=alone))
    seen.see(pod("q", job="j", notes=alone))
    assert words(seen.hear()) == ["uid-p for job:j/0", "uid-q for job:j/1"]
    assert words(seen.hear()) == ["gone job:j/2"]


def test_stand_ins_do_not_wait_for_pods_that_cannot_be_read() -> None:
    """They would keep room that nobody can take."""
    seen = waiting(1)
    seen.see(job("j")).hear()
    seen.see(pod("p", job="j", notes={"fairshare.dev/gpu-classes": "?"}))
    assert words(seen.hear()) == ["gone job:j/0"]


def test_pods_of_a_job_that_is_gone_wait_for_nothing_any_more() -> None:
    """They are about to be collected; nobody knows how large their gang would be."""
    seen = Seen().see(job("j", 2), pod("p", job="j"), pod("q", job="j"))
    seen.hear()
    seen.lose("j")
    assert words(seen.hear()) == ["gone uid-p", "gone uid-q"]


def test_all_stand_ins_make_way_for_a_pod_that_is_something_else() -> None:
    """They would contradict the gang that their Job's pods make."""
    seen = waiting()
    batch = {"priorityClassName": "fairshare-batch"}
    seen.see(job("j", 2), pod("p", job="j", born=5, **batch))
    assert words(seen.hear()) == ["gone job:j/0", "gone job:j/1", "come uid-p"]
    seen.see(pod("q", job="j", **batch))
    assert words(seen.hear()) == ["come uid-q"]
    assert seen.refused == {}


def test_a_job_waits_again_when_its_pods_are_gone() -> None:
    """Whichever news come last."""
    seen = Seen().see(node("n1"), job("j"), pod("p", job="j", node="n1", mark=mark()))
    seen.hear()
    seen.see(job("j", suspended=True))
    assert words(seen.hear()) == []
    seen.lose("uid-p")
    assert words(seen.hear()) == ["gone uid-p", "come job:j/0"]


def test_a_job_waits_again_whose_pods_came_and_went_between_two_news() -> None:
    """It was resumed and suspended so fast that we have not seen it."""
    seen = waiting(1)
    seen.see(pod("p", job="j"))
    assert words(seen.hear()) == ["uid-p for job:j/0"]
    seen.hear()
    seen.lose("uid-p")
    assert words(seen.hear()) == ["gone uid-p", "come job:j/0"]


@pytest.mark.parametrize(
    "changed",
    [
        job("j", 3, suspended=True),
        job("j", 2, suspended=True, gpus=4),
        job("j", 2, completions=9, succeeded=8, suspended=True),
    ],
    ids=["wider", "larger", "nearly done"],
)
def test_stand_ins_follow_their_job(changed: object) -> None:
    """What waits is what would run."""
    seen = waiting()
    seen.mirror.jobs.changed(changed)
    told = words(seen.hear())
    assert told[:2] == ["gone job:j/0", "gone job:j/1"]
    fresh = Seen()
    fresh.mirror.jobs.changed(changed)
    fresh.hear()
    assert seen.known() == fresh.known()


@pytest.mark.parametrize("gone", ["over", "deleting", "lost", "unmanaged"])
def test_stand_ins_end_with_their_job(gone: str) -> None:
    seen = waiting()
    if gone == "lost":
        seen.lose("j")
    elif gone == "unmanaged":
        seen.see(job("j", 2, suspended=True, managed=False))
    else:
        seen.see(job("j", 2, suspended=True, **{gone: True}))
    assert words(seen.hear()) == ["gone job:j/0", "gone job:j/1"]


def test_stand_ins_follow_their_namespace_to_another_tenant() -> None:
    seen = waiting()
    seen.rename({"team-a": TenantName("b")})
    assert words(seen.hear())[:2] == ["gone job:j/0", "gone job:j/1"]
    assert {found.tenant for found, _, _ in seen.known().values()} == {"b"}
    seen.rename({})
    seen.hear()
    assert seen.known() == {}


def test_stand_ins_have_the_priority_that_their_pods_will_get() -> None:
    """Else these could not inherit; of several defaults the lowest counts."""
    seen = Seen().see(job("j", suspended=True), job("k", suspended=True))
    urgent = job("l", suspended=True, priorityClassName="urgent")
    seen.see(urgent).hear()
    for each in (
        priority("x", 9, True),
        priority("y", 7, True),
        priority("urgent", 50),
    ):
        seen.mirror.priorities.changed(each)
    seen.hear()
    found = {uid: known.priority for uid, (known, _, _) in seen.known().items()}
    assert found == {"job:j/0": 7, "job:k/0": 7, "job:l/0": 50}
    for name in ("x", "y", "urgent"):
        seen.mirror.priorities.gone(f"uid-{name}")
    seen.hear()
    assert {known.priority for known, _, _ in seen.known().values()} == {0}


def test_a_thousand_jobs_are_looked_at_in_no_time() -> None:
    """Pods and stand-ins are found by their Job, not by search."""
    seen = Seen()
    for i in range(1000):
        seen.see(job(f"j{i}", 4, suspended=True))
        seen.see(*(pod(f"p{i}-{k}", job=f"k{i}") for k in range(4)))
        seen.see(job(f"k{i}", 4))
    assert len(seen.mirror.events(lambda s: s)) == 8000
    for i in range(1000):
        seen.see(job(f"j{i}", 4), *(pod(f"q{i}-{k}", job=f"j{i}") for k in range(4)))
    assert len(words(seen.mirror.events(lambda s: s))) == 4000
    assert seen.mirror.jobs.stand_ins == {}
