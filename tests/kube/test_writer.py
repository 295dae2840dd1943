"""What is decided becomes so, on an API server that has good days and bad ones."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from scheduler.core import Leaving
from scheduler.kube import calls
from tests.kube.decided import leaving, plan
from tests.kube.seen import job, mark, pod_json
from tests.kube.stage import Gate, Stage, is_open, marks, only, plans, play, team
from tests.kube.store import Handler, job_path, refusing


@pytest.fixture(autouse=True)
def _hurry() -> Iterator[None]:
    """Let rests be short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "FIRST_REST_S", 0.01)
        patch.setattr(calls, "LONGEST_REST_S", 0.05)
        yield


# -- admit --------------------------------------------------------------------


def test_a_gang_is_adorned_whole_and_then_opened(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        stage.nodes()
        paths = team(stage)
        await stage.obeyed(plans())
        pods = [stage.pod(path) for path in paths]
        assert all(is_open(each) for each in pods)
        assert {each["status"]["nominatedNodeName"] for each in pods} == {"n1"}
        assert {text["gang"] for text in marks(pods)} == {"g"}
        terms = pods[0]["spec"]["affinity"]["nodeAffinity"]
        assert "NVIDIA-H100-80GB-HBM3" in json.dumps(terms)
        asked = [f"{m} {p.rsplit('/', 1)[1]}" for m, p, _ in stage.store.asked]
        assert asked[:3] == ["PATCH status"] * 3
        assert stage.events() == [("a", "Admitted", "a to n1 as h100-80gb")]
        await stage.obeyed(plans())
        assert stage.store.counts()["PATCH pods"] == 3
        assert stage.store.counts()["PATCH status"] == 3

    play(tmp_path, scene)


def test_our_own_writes_count_before_the_watch_tells_of_them(tmp_path: Path) -> None:
    """Else each look would write them again while the watch is slow."""

    async def scene(stage: Stage) -> None:
        stage.nodes()
        team(stage)
        stage.look()
        for _ in range(5):
            stage.obey(plans())
            await stage.idle()
        stage.look(2)  # stale: from before any write
        stage.obey(plans())
        await stage.idle()
        assert stage.store.counts()["PATCH status"] == 3
        assert stage.store.counts()["PATCH pods"] == 3

    play(tmp_path, scene)


def test_no_gate_opens_while_a_member_cannot_be_adorned(tmp_path: Path) -> None:
    """Whatever the reason: it is tried again until all have their marks."""

    async def scene(stage: Stage) -> None:
        stage.nodes()
        paths = team(stage)
        for bad in (
            refusing(500),
            refusing(404, "NotFound"),
            refusing(409, "Conflict"),
        ):
            stage.store.weather = only("/pods/b/status", bad)
            await stage.obeyed(plans())
            assert not any(is_open(stage.pod(path)) for path in paths)
            await asyncio.sleep(0.06)
        stage.store.weather = only("/nothing", refusing(500))
        await stage.obeyed(plans())
        assert all(is_open(stage.pod(path)) for path in paths)

    play(tmp_path, scene)


def test_no_gate_opens_when_somebody_wipes_a_mark_meanwhile(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        stage.nodes()
        paths = team(stage)

        async def wiping(request: web.Request, handle: Handler) -> web.StreamResponse:
            answer = handle()
            if request.path == f"{paths[2]}/status":
                stage.store.weather = fair
                stage.look()
                stage.store.change(
                    paths[0], lambda p: p["metadata"].update(annotations={})
                )
                stage.look()
            return answer

        fair, stage.store.weather = stage.store.weather, wiping
        await stage.obeyed(plans())
        assert not any(is_open(stage.pod(path)) for path in paths)

    play(tmp_path, scene, workers=1)


def test_a_member_made_anew_is_no_member(tmp_path: Path) -> None:
    """The write names the pod that was decided on, not whoever has its name now."""

    async def scene(stage: Stage) -> None:
        stage.nodes()
        paths = team(stage)
        stage.look()
        stage.store.remove(paths[1])
        stage.store.put_pod(pod_json("b", uid="another", gang="g", size=3))
        stage.obey(plans())
        await stage.idle()
        assert marks([stage.pod(paths[1])]) == [None]
        assert not any(is_open(stage.pod(path)) for path in paths)

    play(tmp_path, scene)


def test_a_gate_stays_shut_on_an_edit_that_nobody_decided_on(tmp_path: Path) -> None:
    """Neither one that our patch meets, nor one that comes between two of them."""

    async def scene(stage: Stage) -> None:
        stage.nodes()
        (path,) = team(stage, 1)
        stage.look()
        stage.seen.hear()
        stage.store.change(path, _wants("a100-80gb"))
        stage.obey(plans(1))
        await stage.idle()
        assert not is_open(stage.pod(path))
        stage.look()
        stage.seen.hear()

        async def edited(request: web.Request, handle: Handler) -> web.StreamResponse:
            if request.path == path:
                stage.store.weather = fair
                stage.store.change(path, _wants("h100-80gb"))
            return handle()

        fair, stage.store.weather = stage.store.weather, edited
        await asyncio.sleep(0.06)
        stage.obey(plans(1))
        await stage.idle()
        assert not is_open(stage.pod(path))
        await asyncio.sleep(0.06)
        await stage.obeyed(plans(1))
        assert is_open(stage.pod(path))

    play(tmp_path, scene)


def test_what_is_decided_anew_meanwhile_is_not_written(tmp_path: Path) -> None:
    """A write whose turn comes late would undo what came after it."""

    async def scene(stage: Stage) -> None:
        stage.nodes()
        paths = team(stage)
        stage.look()
        slow = Gate()
        stage.store.weather = slow.weather
        stage.obey(plans())
        await slow.reached(1)
        stage.obey([])  # taken back while all but one wait for their turn
        slow.open()
        await stage.idle()
        await stage.obeyed([])
        assert not any(is_open(stage.pod(path)) for path in paths)
        assert marks(stage.pod(path) for path in paths) == [None] * 3
        assert stage.store.counts()["PATCH pods"] == 0
        assert stage.store.counts()["PATCH status"] == 2  # one mark, and its clearance

    play(tmp_path, scene, workers=1)


def test_a_gang_that_is_decided_anew_does_not_open_by_the_old_decision(
    tmp_path: Path,
) -> None:
    """It may have a member more, who has no mark yet."""

    async def scene(stage: Stage) -> None:
        stage.nodes()
        paths = team(stage, 2)
        stage.look()
        slow = Gate()
        stage.store.weather = slow.weather
        stage.obey(plans(2))
        await slow.reached(2)
        paths.append(stage.store.put_pod(pod_json("c", gang="g", size=2)))
        stage.look()
        stage.obey(plans(3, decision=2))
        slow.open()
        await stage.idle()
        assert not any(is_open(stage.pod(path)) for path in paths)
        await stage.obeyed(plans(3, decision=2))
        assert all(is_open(stage.pod(path)) for path in paths)

    play(tmp_path, scene)


def test_a_nomination_that_was_wiped_is_written_again_but_not_at_once(
    tmp_path: Path,
) -> None:
    """Each write wakes the pod, and its next attempt may end the same way."""

    async def scene(stage: Stage) -> None:
        stage.nodes()
        (path,) = team(stage, 1)
        await stage.obeyed(plans(1))
        for _ in range(3):
            stage.store.change(path, lambda p: p["status"].pop("nominatedNodeName"))
            await stage.obeyed(plans(1))
            assert stage.pod(path)["status"]["nominatedNodeName"] == "n1"
            stage.store.change(path, lambda p: p["status"].pop("nominatedNodeName"))
            await stage.obeyed(plans(1))
            assert "nominatedNodeName" not in stage.pod(path)["status"]
            await asyncio.sleep(0.06)
            await stage.obeyed(plans(1))
            await asyncio.sleep(0.06)

    play(tmp_path, scene)


# -- take back ----------------------------------------------------------------


def test_what_is_planned_no_more_is_cleared_or_made_anew(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        ready = {"mark": mark(), "nominated": "n1"}
        put = stage.store.put_pod
        gated = put(pod_json("a", **ready))
        made = put(pod_json("b", **ready, gated=False, keeper="r"))
        alone = put(pod_json("c", **ready, gated=False))
        foreign = put(pod_json("d", nominated="n1", gated=False))
        await stage.obeyed([])
        assert made not in stage.store.objects
        assert marks([stage.pod(gated), stage.pod(alone)]) == [None, None]
        assert "nominatedNodeName" not in stage.pod(gated)["status"]
        assert stage.pod(foreign)["status"]["nominatedNodeName"] == "n1"
        waits = "its gang could not start: it waits, and is charged for nothing"
        assert sorted(stage.events()) == [
            ("b", "RolledBack", "its gang could not start: made anew"),
            ("c", "Replanning", waits),
        ]

    play(tmp_path, scene)


def test_a_pod_is_discarded_only_as_it_was_seen(tmp_path: Path) -> None:
    """It may have been bound meanwhile."""

    async def scene(stage: Stage) -> None:
        path = stage.store.put_pod(
            pod_json("b", mark=mark(), nominated="n1", gated=False, keeper="r")
        )
        stage.look()
        stage.store.change(path, lambda p: p["spec"].update(nodeName="n1"))
        stage.obey([])
        await stage.idle()
        assert path in stage.store.objects
        assert stage.events() == []

    play(tmp_path, scene)


# -- evict --------------------------------------------------------------------


def running(stage: Stage, name: str, **more: Any) -> str:
    stage.nodes()
    return stage.store.put_pod(pod_json(name, node="n1", mark=mark(), **more))


def test_a_victim_is_asked_to_save_and_then_evicted_once(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        path = running(stage, "p")
        await stage.obeyed([], [leaving("p", 60.0)])
        notes = stage.pod(path)["metadata"]["annotations"]
        assert notes["fairshare.dev/checkpoint-deadline"] == "2001-09-09T01:47:40Z"
        for _ in range(3):  # its news are late
            stage.obey([], [leaving("p")])
            await stage.idle()
        await stage.obeyed([], [leaving("p")])
        assert stage.pod(path)["metadata"]["deletionTimestamp"]
        assert stage.store.counts()["POST eviction"] == 1
        reasons = [reason for _, reason, _ in stage.events()]
        assert reasons == ["CheckpointRequested", "Evicted"]

    play(tmp_path, scene)


def test_a_victim_that_may_stay_is_told_so(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        path = running(stage, "p")
        await stage.obeyed([], [leaving("p", 60.0)])
        await stage.obeyed([])
        notes = stage.pod(path)["metadata"]["annotations"]
        assert "fairshare.dev/checkpoint-deadline" not in notes

    play(tmp_path, scene)


def test_a_disruption_budget_is_told_and_respected_without_holding_up_others(
    tmp_path: Path,
) -> None:
    async def scene(stage: Stage) -> None:
        kept, other = running(stage, "p"), running(stage, "q")
        stage.store.budgeted.add(kept)
        going = [leaving("p"), leaving("q")]
        for _ in range(3):
            await stage.obeyed([], going)
        assert stage.store.counts()["POST eviction"] == 2
        assert "deletionTimestamp" not in stage.pod(kept)["metadata"]
        assert stage.pod(other)["metadata"]["deletionTimestamp"]
        assert list(stage.writer.blocked) == ["uid-p"]
        assert ("p", "EvictionBlocked") in [row[:2] for row in stage.events()]
        await stage.obeyed([], [])
        assert stage.writer.blocked == {}

    play(tmp_path, scene)


def test_an_eviction_of_who_is_gone_already_is_not_repeated_at_every_look(
    tmp_path: Path,
) -> None:
    """The watch may be minutes late."""

    async def scene(stage: Stage) -> None:
        path = running(stage, "p")
        stage.look()
        stage.store.remove(path)
        for _ in range(5):
            stage.obey([], [leaving("p")])
            await stage.idle()
        assert stage.store.counts()["POST eviction"] == 1

    play(tmp_path, scene)


def test_evictions_of_a_large_job_are_counted_once(tmp_path: Path) -> None:
    """Not all of its pods for each of its pods."""

    async def scene(stage: Stage) -> None:
        stage.nodes()
        wishes = []
        for i in range(3000):
            raw = pod_json(f"p{i}", node="n1", mark=mark(), keeper="r")
            stage.store.put_pod(raw)
            wishes.append(leaving(f"p{i}", 60.0))
        stage.look()
        owners: list[str] = []
        managed = stage.seen.mirror.jobs.managed
        stage.seen.mirror.jobs.managed = lambda uid: owners.append(uid) or managed(uid)
        stage.writer._evict({wish.uid: _now(wish) for wish in wishes})
        assert owners == ["r"]

    play(tmp_path, scene)


# -- Jobs ---------------------------------------------------------------------


def put_job(stage: Stage, **more: Any) -> str:
    made = job("j", **more)
    meta = made.metadata
    raw = {
        "metadata": {
            "uid": meta.uid,
            "name": meta.name,
            "namespace": meta.namespace,
            "annotations": meta.annotations,
        },
        "spec": {
            "suspend": made.spec.suspend,
            "parallelism": made.spec.parallelism,
            "template": {"spec": pod_json("t")["spec"]},
        },
        "status": {},
    }
    stage.store.put(job_path(), raw)
    return job_path()


def test_a_job_is_resumed_when_there_is_room_for_it(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        stage.nodes()
        path = put_job(stage, pods=2, suspended=True)
        stage.look()
        stage.decide()
        await stage.idle()
        assert stage.pod(path)["spec"]["suspend"] is False
        for _ in range(3):  # its news are late
            stage.decide()
            await stage.idle()
        assert stage.store.counts()["PATCH jobs"] == 1
        assert ("train", "Resumed") in [row[:2] for row in stage.events()]
        stage.look()
        one = stage.store.put_pod(pod_json("a", job="j"))
        stage.look()
        stage.decide()
        await stage.idle()
        assert not is_open(stage.pod(one))  # the other is still to come
        two = stage.store.put_pod(pod_json("b", job="j"))
        stage.look()
        stage.decide()
        await stage.idle()
        assert is_open(stage.pod(one))
        assert is_open(stage.pod(two))
        assert stage.store.counts()["PATCH jobs"] == 1

    play(tmp_path, scene)


def test_a_job_of_independent_pods_is_not_suspended_for_want_of_some(
    tmp_path: Path,
) -> None:
    """It would be resumed and suspended for ever."""

    async def scene(stage: Stage) -> None:
        path = put_job(stage, pods=3, suspended=True)
        stage.look()
        stage.seen.hear()
        some = [plan("x", uid="job:j/0", gang="job:j/0")]
        stage.obey(some)
        await stage.idle()
        stage.look()
        for _ in range(2):
            await asyncio.sleep(0.06)
            await stage.obeyed(some)
        assert stage.pod(path)["spec"]["suspend"] is False
        await asyncio.sleep(0.06)
        await stage.obeyed([])
        assert stage.pod(path)["spec"]["suspend"] is True
        assert stage.store.counts()["PATCH jobs"] == 2

    play(tmp_path, scene)


def test_a_job_all_of_whose_pods_must_go_is_suspended(tmp_path: Path) -> None:
    """Its controller would make the others anew."""

    async def scene(stage: Stage) -> None:
        path = put_job(stage, pods=2)
        for name in "pq":
            running(stage, name, job="j")
        await stage.obeyed([], [leaving("p")])
        assert stage.store.counts()["POST eviction"] == 1
        assert stage.pod(path)["spec"]["suspend"] is False
        await stage.obeyed([], [leaving("p"), leaving("q")])
        assert stage.pod(path)["spec"]["suspend"] is True

    play(tmp_path, scene)


def test_a_job_that_cannot_be_switched_rests(tmp_path: Path) -> None:
    """Not one call for each look at it."""

    async def scene(stage: Stage) -> None:
        stage.nodes()
        put_job(stage, pods=2, suspended=True)
        stage.store.weather = only("/jobs/", refusing(500))
        stage.look()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(calls, "FIRST_REST_S", 60.0)
            for _ in range(4):
                stage.decide()
                await stage.idle()
        assert stage.store.counts()["PATCH jobs"] == 1

    play(tmp_path, scene)


# -- news ---------------------------------------------------------------------


def test_owners_are_told_once_what_is_wrong_with_their_pod(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        wrong = {"fairshare.dev/gpu-classes": "?"}
        path = stage.store.put_pod(pod_json("p", notes=wrong))
        for _ in range(3):
            await stage.obeyed([])
        ((name, reason, text),) = stage.events()
        assert (name, reason) == ("p", "Refused")
        assert "gpu-classes" in text
        stage.store.change(path, lambda p: p["metadata"]["annotations"].clear())
        await stage.obeyed([])
        stage.store.change(path, lambda p: p["metadata"]["annotations"].update(wrong))
        await stage.obeyed([])
        assert len(stage.events()) == 2

    play(tmp_path, scene)


def test_news_that_nobody_can_write_down_in_time_are_dropped(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        wrong = {"fairshare.dev/gpu-classes": "?"}
        for i in range(300):
            stage.store.put_pod(pod_json(f"p{i}", notes=wrong))
        await stage.obeyed([])
        assert len(stage.events()) == 200
        assert stage.writer.news.dropped == 100
        stage.store.weather = refusing(403, "Forbidden")
        stage.store.put_pod(pod_json("q", notes=wrong))
        await stage.obeyed([])
        assert stage.writer.news.dropped == 101

    play(tmp_path, scene)


# -- helpers ------------------------------------------------------------------


def _wants(gpu_class: str) -> Any:
    notes = {"fairshare.dev/gpu-classes": gpu_class}
    return lambda pod: pod["metadata"]["annotations"].update(notes)


def _now(wish: Leaving) -> Leaving:
    return leaving(wish.uid.removeprefix("uid-"))
