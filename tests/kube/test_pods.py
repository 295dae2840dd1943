"""Pods that are seen become events for the engine, each told once."""

import pytest

from scheduler.core import (
    CheckpointDone,
    NodeChanged,
    PodBound,
    PodGone,
    PodStopping,
    PodSubmitted,
    TenantName,
    WorkloadClass,
    parse_form,
)
from tests.kube.seen import H100, Seen, job, mark, node, pod, pod_json, read, stamp

A, B = TenantName("a"), TenantName("b")


def events(seen: Seen, kind: type) -> list:
    return [event for event in seen.hear() if isinstance(event, kind)]


# -- whose a pod is ---------------------------------------------------------------


def test_a_gated_pod_of_a_tenant_is_submitted_once() -> None:
    """Informers repeat themselves; the queue must not."""
    seen = Seen().see(node("n1"), pod("p", 2, born=5))
    (told,) = events(seen, PodSubmitted)
    assert (told.pod.name, told.pod.tenant, told.since) == ("team-a/p", "a", 5.0)
    assert seen.see(pod("p", 2, born=5)).hear() == []


@pytest.mark.parametrize(
    "strange",
    [
        pod("p", space="elsewhere"),
        pod("p", 0),
        pod("p", scheduler="other"),
        pod("p", phase="Succeeded", node="n1"),
        pod("p", deleting=True),
        pod("p", space="elsewhere", node="n1", mark="no mark"),
    ],
    ids=["no tenant", "no GPU", "other scheduler", "ended", "deleted", "forged mark"],
)
def test_others_are_no_business_of_the_engine(strange: object) -> None:
    """Least of all a pod of the system that carries an annotation we cannot read."""
    seen = Seen().see(node("n1"))
    seen.hear()
    seen.mirror.pods.changed(strange)
    assert not seen.mirror.pods.records
    assert all(isinstance(event, NodeChanged) for event in seen.hear())


def test_a_gated_pod_of_nobody_is_seen_while_it_keeps_room() -> None:
    """Its tenant is gone: the nomination must be found to be cleared."""
    seen = Seen().see(pod("p", space="elsewhere", nominated="n1"))
    assert events(seen, PodSubmitted) == []
    assert list(seen.mirror.pods.adorned) == ["uid-p"]
    seen.see(pod("p", space="elsewhere"))
    assert not seen.mirror.pods.records
    assert not seen.mirror.pods.adorned


def test_a_bound_pod_that_no_kubelet_has_started_starts_now() -> None:
    """It is not older than its fellows that wait, whichever was made first."""
    message = pod("p", node="n1", born=5)
    message.status.start_time = None
    (told,) = events(Seen().see(node("n1"), message), PodBound)
    assert told.since is None


def test_a_bound_pod_that_is_deleted_is_said_to_stop_once() -> None:
    """Also one that was deleted before we started; its room is about to be free."""
    seen = Seen().see(node("n1"), pod("p", node="n1", deleting=True, born=5))
    (told,) = events(seen, PodStopping)
    assert (told.uid, told.by) == ("uid-p", 65.0)
    assert seen.see(pod("p", node="n1", deleting=True, born=5)).hear() == []
    (told,) = events(seen.see(pod("p", node="n1", deleting=True, born=0)), PodStopping)
    assert told.by == 60.0


def test_a_marked_pod_stays_with_whom_it_was_charged_to() -> None:
    """Its namespace may change hands, and a new process knows only the mark."""
    bound = pod("p", space="elsewhere", node="n1", mark=mark("b"))
    seen = Seen().see(node("n1"), bound)
    (told,) = events(seen, PodBound)
    assert (told.pod.tenant, told.form, told.since) == ("b", parse_form(H100), 1.0)


def test_marks_of_gated_pods_are_not_believed() -> None:
    """Anybody could write one; ours counts once we have opened the gate."""
    seen = Seen().see(pod("p", mark=mark("b")))
    (told,) = events(seen, PodSubmitted)
    assert told.pod.tenant == "a"
    seen = Seen().see(pod("p", mark=mark("b", kind=WorkloadClass.BATCH), gated=False))
    (told,) = events(seen, PodSubmitted)
    assert (told.pod.tenant, told.pod.workload_class.label) == ("b", "batch")


def test_a_bound_pod_stays_charged_whatever_is_written_on_it() -> None:
    """Else its owner would get rid of the charge with one annotation."""
    bound = {"node": "n1", "mark": mark()}
    seen = Seen().see(node("n1"), pod("p", **bound))
    seen.hear()
    before = seen.known()
    seen.see(pod("p", **bound, notes={"fairshare.dev/restart-cost": "garbage"}))
    assert seen.hear() == []
    seen.see(pod("p", node="n1", space="team-a"))
    seen.rename({})
    seen.see(pod("p", node="n1", space="team-a"))
    assert seen.hear() == []
    assert seen.known() == before


def test_a_waiting_pod_follows_its_namespace_to_another_tenant() -> None:
    """It has used nothing yet."""
    seen = Seen().see(node("n1"), pod("p"), pod("q", node="n1", mark=mark()))
    seen.hear()
    seen.rename({"team-a": B})
    gone, come = seen.hear()
    assert (gone, come.pod.tenant) == (PodGone("uid-p"), "b")
    seen.rename({})
    assert events(seen, PodGone) == [PodGone("uid-p")]
    assert set(seen.known()) == {"uid-q"}


def test_a_namespace_that_gets_a_tenant_brings_its_pods_waiting_and_bound() -> None:
    """All are seen before anybody knows whose they are, at every start."""
    seen = Seen({}).see(node("n1"), pod("p"), pod("q", 2, node="n1"))
    (up,) = seen.hear()
    assert dict(up.node.offers)[parse_form(H100)] == 6
    seen.rename({"team-a": A})
    seen.hear()
    assert {uid: at for uid, (_, at, _) in seen.known().items()} == {
        "uid-p": None,
        "uid-q": "n1",
    }
    assert dict(seen.offered()["n1"].offers)[parse_form(H100)] == 8


# -- what changes ------------------------------------------------------------------


def test_a_gated_pod_that_asks_for_something_else_is_another_one() -> None:
    """It is decided again, in its old place of the queue."""
    seen = Seen().see(pod("p", born=7))
    seen.hear()
    seen.see(pod("p", born=7, notes={"fairshare.dev/gpu-classes": "a100-80gb"}))
    gone, come = seen.hear()
    assert isinstance(gone, PodGone)
    assert isinstance(come, PodSubmitted)
    assert (come.since, come.pod.demand.classes) == (7.0, ("a100-80gb",))


def test_a_pod_that_comes_back_in_sight_is_read_whole() -> None:
    """Its namespace has lost its tenant, and our mark arrives on it all the same."""
    seen = Seen().see(node("n1"), pod("p", generation=1))
    seen.hear()
    seen.rename({})
    seen.see(pod("p", generation=1, mark=mark()))
    seen.rename({"team-a": B})
    seen.hear()
    assert seen.known()["uid-p"][0].tenant == "b"


def test_a_pod_that_becomes_unreadable_is_taken_back_with_its_reason() -> None:
    """And told again when it is put right."""
    seen = Seen().see(pod("p"))
    seen.hear()
    seen.see(pod("p", notes={"fairshare.dev/gpu-classes": "?"}))
    assert events(seen, PodGone)
    record = seen.mirror.pods.records["uid-p"]
    assert "gpu-classes" in record.problem
    assert list(seen.mirror.pods.troubled) == ["uid-p"]
    assert events(seen.see(pod("p")), PodSubmitted)
    assert not seen.mirror.pods.troubled


def test_checkpoints_are_told_when_their_stamp_changes() -> None:
    """The first one that is seen may be of any age."""
    saved = {"fairshare.dev/last-checkpoint": "1"}
    bound = {"node": "n1", "mark": mark()}
    seen = Seen().see(node("n1"), pod("p", **bound, notes=saved))
    assert not events(seen, CheckpointDone)
    seen.see(pod("p", **bound, notes=saved | {"fairshare.dev/checkpoint-done": "x"}))
    assert seen.hear() == [CheckpointDone("uid-p")]


def test_who_waits_longest_is_told_first() -> None:
    """Whatever order the list came in; UIDs break ties."""
    seen = Seen().see(*(pod(n, born=b) for n, b in (("c", 3), ("b", 1), ("a", 3))))
    told = [event.pod.uid for event in events(seen, PodSubmitted)]
    assert told == ["uid-b", "uid-a", "uid-c"]


def test_a_pod_made_anew_under_its_name_is_another_pod() -> None:
    seen = Seen().see(node("n1"), pod("p", uid="1", node="n1", mark=mark()))
    seen.hear()
    seen.lose("1").see(pod("p", uid="2"))
    gone, come = seen.hear()
    assert (gone.uid, come.pod.uid) == ("1", "2")


# -- where it is --------------------------------------------------------------------


def test_a_bound_pod_waits_for_its_node_to_be_known() -> None:
    """There is no order between informers."""
    seen = Seen().see(pod("p", node="n1", mark=mark()))
    assert seen.hear() == []
    seen.see(node("n1"))
    assert [type(event).__name__ for event in seen.hear()] == ["NodeUp", "PodBound"]
    assert not seen.mirror.pods._homeless


def test_whole_pods_are_kept_only_while_they_may_be_read_anew() -> None:
    """Most pods run: what was told of them is enough, and a tenth of it."""
    seen = Seen().see(node("n1"), pod("p"), pod("q", node="n1", mark=mark()))
    seen.hear()
    assert list(seen.mirror.pods._messages) == ["uid-p"]


def test_a_homeless_pod_that_goes_is_forgotten() -> None:
    seen = Seen().see(pod("p", node="n1", mark=mark()))
    seen.hear()
    seen.lose("uid-p").hear()
    assert seen.kept() == {}


def test_an_unmarked_pod_is_charged_only_for_what_its_node_offers() -> None:
    """Else it is taken off the node, until the node says which GPUs it has."""
    seen = Seen().see(node("n1", product=""), pod("p", 3, node="n1"))
    assert seen.hear() == []
    seen.see(node("n1"))
    up, bound = seen.hear()
    assert dict(up.node.offers)[parse_form(H100)] == 8
    assert isinstance(bound, PodBound)


def test_what_strangers_hold_is_taken_off_at_once() -> None:
    """In the same round: the decisions that follow must not count on it."""
    other = {"fairshare.dev/gpu-classes": "a100-80gb"}
    seen = Seen().see(node("n1"))
    seen.hear()
    (changed,) = seen.see(pod("p", 3, node="n1", notes=other)).hear()
    assert dict(changed.node.offers)[parse_form(H100)] == 5
    assert seen.see(pod("p", 3, node="n1", notes=other)).hear() == []
    (changed,) = seen.lose("uid-p").hear()
    assert dict(changed.node.offers)[parse_form(H100)] == 8


# -- gangs and Jobs ------------------------------------------------------------------


def test_a_pod_is_not_told_before_its_job_is_known() -> None:
    """Its gang would be of the wrong size."""
    seen = Seen().see(pod("p", job="j"))
    assert seen.hear() == []
    assert "Job" in seen.mirror.pods.records["uid-p"].problem
    (told,) = events(seen.see(job("j", 4)), PodSubmitted)
    assert told.pod.min_member == 4


def test_a_job_that_shrinks_lets_those_who_wait_start_with_fewer() -> None:
    seen = Seen().see(job("j", 3), pod("p", job="j"), pod("q", job="j"))
    seen.hear()
    seen.see(job("j", 3, succeeded=1)).hear()
    sizes = {found.min_member for found, _, _ in seen.known().values()}
    assert sizes == {2}


def test_running_members_keep_the_size_they_started_with() -> None:
    """Members that contradict each other could not be of one gang."""
    bound = {"job": "j", "node": "n1", "mark": mark(gang="g")}
    seen = Seen().see(node("n1"), job("j", 3), *(pod(n, **bound) for n in "pqr"))
    seen.hear()
    seen.lose("uid-p").see(job("j", 3, succeeded=1)).hear()
    seen.see(pod("s", job="j")).hear()
    assert {found.min_member for found, _, _ in seen.known().values()} == {3}
    assert seen.refused == {}


def test_a_gang_made_anew_does_not_wait_for_those_who_have_succeeded() -> None:
    """Its pods come while the old ones are still on their way out."""
    bound = {"job": "j", "node": "n1", "mark": mark(gang="g")}
    seen = Seen().see(node("n1"), job("j", 3), *(pod(n, **bound) for n in "pqr"))
    seen.hear()
    seen.lose("uid-p").see(job("j", 3, succeeded=1))
    seen.see(*(pod(n, **bound, deleting=True) for n in "qr"))
    seen.see(pod("s", job="j"), pod("t", job="j")).hear()
    seen.lose("uid-q", "uid-r").hear()
    assert {found.min_member for found, _, _ in seen.known().values()} == {2}
    assert set(seen.known()) == {"uid-s", "uid-t"}


def test_members_behind_the_gate_keep_the_size_of_their_gang() -> None:
    """They cannot be told anew; nobody who comes after them is refused for it."""
    opened = {"mark": mark(gang="g"), "gated": False}
    seen = Seen().see(node("n1"), job("j", 2), pod("p", job="j", **opened))
    seen.hear()
    seen.see(job("j", 3), pod("q", job="j")).hear()
    assert {found.min_member for found, _, _ in seen.known().values()} == {2}
    assert seen.refused == {}


def test_who_contradicts_its_gang_is_heard_again_when_the_others_are_gone() -> None:
    """After a restart it would be; nobody should have to restart us."""
    batch = {"priorityClassName": "fairshare-batch"}
    seen = Seen().see(pod("p", gang="g", size=2), pod("q", gang="g", size=2, **batch))
    seen.hear()
    assert list(seen.refused) == ["uid-q"]
    record = seen.mirror.pods.records["uid-q"]
    assert "workload_class" in record.problem
    seen.lose("uid-p").hear()
    assert set(seen.known()) == {"uid-q"}
    assert record.problem == ""
    assert not seen.mirror.pods.troubled


def test_a_large_gang_joins_in_no_time() -> None:
    """Each of its members must not look at all the others."""
    sizes = Seen().mirror.pods._sizes
    for i in range(65_536):
        assert sizes.join(f"uid-{i}", "g", 65_536) == 65_536


def test_a_pod_that_is_adopted_by_another_controller_is_listed_there_alone() -> None:
    seen = Seen().see(job("j"), job("k"), pod("p", job="j"))
    seen.see(pod("p", job="k"))
    assert list(seen.mirror.pods.of_controller("j")) == []
    assert list(seen.mirror.pods.of_controller("k")) == ["uid-p"]


# -- what we write ourselves -----------------------------------------------------------


def test_news_older_than_our_own_write_are_ignored() -> None:
    """The watch lags behind; what we wrote must not be written again."""
    seen = Seen().see(pod("p", version=5))
    pods = seen.mirror.pods
    pods.answered(pod("p", version=8, nominated="n1", mark=mark()))
    seen.see(pod("p", version=7))
    assert pods.records["uid-p"].nominated == "n1"
    seen.see(pod("p", version=8, nominated="n1", mark=mark()), pod("p", version=9))
    assert pods.records["uid-p"].nominated == ""


def test_an_answer_that_comes_after_newer_news_is_ignored() -> None:
    seen = Seen().see(pod("p", version=9))
    seen.mirror.pods.answered(pod("p", version=8, nominated="n1"))
    assert seen.mirror.pods.records["uid-p"].nominated == ""


def test_the_answer_about_a_pod_that_is_gone_does_not_bring_it_back() -> None:
    seen = Seen().see(pod("p", version=5)).lose("uid-p")
    seen.mirror.pods.answered(pod("p", version=8))
    seen.hear()
    assert seen.kept() == {}


def test_an_answer_tells_what_others_wrote_before_us() -> None:
    """A patch meets a pod as it is by then, not as we have seen it."""
    seen = Seen().see(pod("p", version=5))
    seen.hear()
    pods = seen.mirror.pods
    assert pods.is_as_told("uid-p")
    edited = {"fairshare.dev/gpu-classes": "a100-80gb"}
    pods.answered(pod("p", version=7, nominated="n1", mark=mark(), notes=edited))
    assert not pods.is_as_told("uid-p")
    assert [type(event) for event in seen.hear()] == [PodGone, PodSubmitted]


def test_an_api_server_that_went_back_in_time_is_believed() -> None:
    """Restored from a backup its versions are small again."""
    seen = Seen().see(pod("p", version=900), pod("p", version=3, nominated="n1"))
    assert seen.mirror.pods.records["uid-p"].nominated == "n1"


def test_what_we_wrote_outlasts_reading_a_pod_anew() -> None:
    """Namespaces change hands, Jobs change size while a write is on its way."""
    seen = Seen().see(pod("p", version=5))
    opened = pod("p", version=8, nominated="n1", mark=mark("b"), gated=False)
    seen.mirror.pods.answered(opened)
    seen.rename({"team-a": B})
    record = seen.mirror.pods.records["uid-p"]
    assert (record.version, record.nominated, record.gated) == (8, "n1", False)
    seen.see(pod("p", version=7))
    assert seen.mirror.pods.records["uid-p"] is record


def test_a_time_that_is_none_is_refused_before_anything_changes() -> None:
    """The informer leaves such a state out."""
    raw = pod_json("p")
    raw["metadata"]["creationTimestamp"] = "yesterday"
    seen = Seen()
    with pytest.raises(ValueError, match="yesterday"):
        seen.mirror.pods.changed(read(raw, type(pod("p"))))
    assert seen.kept() == {}
    assert stamp(61) == "2026-11-21T00:01:01Z"
