"""Which pods start together, whoever made them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.codec import (
    CodecError,
    JobObject,
    Membership,
    PodObject,
    membership,
    pods_at_once,
)
from scheduler.codec.membership import ALONE, SOURCES
from scheduler.codec.notes import MAX_GANG
from tests.codec.api import Json, job, owner, pod

BATCH = owner("Job", "train", "batch/v1")


def ours(gang: str | None = None, least: str | None = None) -> Json:
    notes = {"fairshare.dev/gang": gang, "fairshare.dev/gang-min-member": least}
    return {key: text for key, text in notes.items() if text is not None}


# -- what each kind of workload writes on its pods --------------------------------


def job_pod(index: int, notes: Json) -> PodObject:
    labels = {
        "batch.kubernetes.io/job-name": "train",
        "batch.kubernetes.io/job-completion-index": str(index),
    }
    return pod(f"train-{index}", labels=labels, notes=notes, owners=[BATCH])


def jobset_pod(index: int, notes: Json) -> PodObject:
    """Job ``index % 3`` of the replicated job `workers` of three."""
    keys = {
        "jobset-name": "llm",
        "jobset-uid": "fedcba9876543210",
        "replicatedjob-name": "workers",
        "replicatedjob-replicas": "3",
        "job-index": str(index % 3),
    }
    labels = {f"jobset.sigs.k8s.io/{key}": text for key, text in keys.items()}
    mine = owner("Job", f"llm-workers-{index % 3}", "batch/v1", f"uid-{index % 3}")
    return pod(f"llm-{index}", labels=labels, notes={**labels, **notes}, owners=[mine])


def lws_pod(index: int, notes: Json) -> PodObject:
    """The leader, a StatefulSet's pod, and workers, another one's."""
    prefix = "leaderworkerset.sigs.k8s.io"
    labels = {
        f"{prefix}/name": "serve",
        f"{prefix}/group-index": "1",
        f"{prefix}/worker-index": str(index),
        f"{prefix}/group-key": "689ce1b5",
    }
    more = {f"{prefix}/size": "4"}
    if index:
        more[f"{prefix}/leader-name"] = "serve-1"
    mine = owner("StatefulSet", "serve-1" if index else "serve", "apps/v1")
    return pod(f"s-{index}", labels=labels, notes={**more, **notes}, owners=[mine])


def kubeflow_pod(index: int, notes: Json) -> PodObject:
    labels = {
        "training.kubeflow.org/job-name": "bert",
        "training.kubeflow.org/operator-name": "pytorchjob-controller",
        "training.kubeflow.org/replica-type": "worker" if index else "master",
        "training.kubeflow.org/replica-index": str(max(0, index - 1)),
    }
    mine = owner("PyTorchJob", "bert", "kubeflow.org/v1")
    return pod(f"bert-{index}", labels=labels, notes=notes, owners=[mine])


def ray_pod(index: int, notes: Json) -> PodObject:
    labels = {
        "ray.io/cluster": "tune-raycluster-x",
        "ray.io/node-type": "worker" if index else "head",
        "ray.io/group": "gpu" if index else "headgroup",
        "ray.io/is-ray-node": "yes",
    }
    mine = owner("RayCluster", "tune-raycluster-x", "ray.io/v1")
    return pod(f"ray-{index}", labels=labels, notes=notes, owners=[mine])


def kueue_pod(index: int, notes: Json) -> PodObject:
    labels = {"kueue.x-k8s.io/pod-group-name": "group"}
    more = {"kueue.x-k8s.io/pod-group-total-count": "4", **notes}
    return pod(f"g-{index}", labels=labels, notes=more)


def volcano_pod(index: int, notes: Json) -> PodObject:
    more = {
        "scheduling.volcano.sh/group-name": "group",
        "scheduling.volcano.sh/group-min-member": "3",
    }
    return pod(f"v-{index}", notes={**more, **notes})


def lightweight_pod(index: int, notes: Json) -> PodObject:
    labels = {
        "pod-group.scheduling.sigs.k8s.io/name": "nginx",
        "pod-group.scheduling.sigs.k8s.io/min-available": "3",
    }
    return pod(f"l-{index}", labels=labels, notes=notes)


def coscheduled_pod(index: int, notes: Json) -> PodObject:
    labels = {"scheduling.x-k8s.io/pod-group": "nginx"}
    return pod(f"c-{index}", labels=labels, notes=notes)


@dataclass(frozen=True)
class Workload:
    """One kind: its pods, its Job, and the gang they are (size 0: not known)."""

    make: Callable[[int, Json], PodObject]
    gang: str
    size: int
    job: JobObject | None = None


WORKLOADS = [
    Workload(job_pod, "team-a/job/train/01234567", 4, job(parallelism=4)),
    Workload(jobset_pod, "team-a/jobset/llm/workers/fedcba98", 6, job(parallelism=2)),
    Workload(lws_pod, "team-a/lws/serve/1", 4),
    Workload(kubeflow_pod, "team-a/kubeflow/bert/pytorchjob-controller", 0),
    Workload(ray_pod, "team-a/ray/tune-raycluster-x", 0),
    Workload(kueue_pod, "team-a/kueue/group", 4),
    Workload(volcano_pod, "team-a/volcano/group", 3),
    Workload(lightweight_pod, "team-a/pod-group/nginx", 3),
    Workload(coscheduled_pod, "team-a/pod-group/nginx", 0),
]
each_workload = pytest.mark.parametrize(
    "kind", WORKLOADS, ids=lambda w: w.make.__name__
)


def test_every_source_has_a_workload_here() -> None:
    kinds = {workload.gang.split("/")[1] for workload in WORKLOADS}
    assert kinds == {source.kind for source in SOURCES}
    assert len(WORKLOADS) == len(SOURCES)


@each_workload
def test_a_workload_is_a_gang_where_its_size_is_known(kind: Workload) -> None:
    found = membership(kind.make(0, {}), kind.job)
    assert found == (Membership(kind.gang, kind.size) if kind.size else ALONE)


@each_workload
@given(st.data())
def test_all_members_get_the_same_answer(kind: Workload, data: st.DataObject) -> None:
    """Whichever pod is asked, with whatever annotations its template has."""
    gang = data.draw(st.none() | st.sampled_from(["mine", "x y"]))
    least = data.draw(st.none() | st.sampled_from(["1", "2", "7"]))
    notes = ours(gang, least)
    pods = [kind.make(index, notes) for index in range(6)]
    found = {membership(member, kind.job) for member in pods}
    assert len(found) == 1
    (answer,) = found
    assert (answer.min_member > 1) <= bool(answer.gang)
    assert answer.gang.startswith("team-a/") or not answer.gang


# -- ours --------------------------------------------------------------------------


@each_workload
def test_our_annotations_go_first(kind: Workload) -> None:
    named = kind.make(0, ours("mine", "5"))
    assert membership(named, kind.job) == Membership("team-a/mine", 5)
    assert membership(kind.make(0, ours("mine")), kind.job).min_member == 1


@each_workload
def test_the_size_of_a_workload_may_be_corrected(kind: Workload) -> None:
    """For what only its owner knows; 1 makes its pods independent."""
    assert membership(kind.make(0, ours(least="2")), kind.job) == Membership(
        kind.gang, 2
    )
    assert membership(kind.make(0, ours(least="1")), kind.job) == ALONE


def test_a_size_needs_something_to_be_the_size_of() -> None:
    with pytest.raises(
        CodecError, match=r"gang-min-member\]: '3' needs the annotation"
    ):
        membership(pod(notes=ours(least="3")), None)
    assert membership(pod(notes=ours(least="1")), None) == ALONE


def test_a_name_of_ours_never_means_a_workload() -> None:
    with pytest.raises(CodecError, match="without a slash"):
        membership(pod(notes=ours("job/train/01234567", "2")), None)


# -- Jobs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "status", "size"),
    [
        ({}, {}, 1),
        ({"parallelism": 4}, {}, 4),
        ({"parallelism": 4, "completions": 10}, {}, 4),
        ({"parallelism": 4, "completions": 2}, {}, 2),
        ({"parallelism": 4, "completions": 10}, {"succeeded": 5}, 4),
        ({"parallelism": 4, "completions": 10}, {"succeeded": 8}, 2),
        ({"parallelism": 4, "completions": 10}, {"succeeded": 9}, 1),
        ({"parallelism": 4, "completions": 10}, {"succeeded": 10}, 1),
        ({"parallelism": 4}, {"succeeded": 1}, 3),
        ({"parallelism": 0}, {}, 1),
        ({"parallelism": 8, "completions": 8}, {"failedIndexes": "0"}, 7),
        ({"parallelism": 8, "completions": 8}, {"failedIndexes": "0,2-4"}, 4),
        ({"parallelism": 8, "completions": 8}, {"failedIndexes": ""}, 8),
        ({"parallelism": 100_000}, {}, MAX_GANG),
    ],
)
def test_a_job_is_as_large_as_what_still_runs_at_once(
    spec: dict[str, Any], status: dict[str, Any], size: int
) -> None:
    """Pods that were evicted must not wait for members that have succeeded."""
    assert max(1, min(MAX_GANG, pods_at_once(job(status, **spec)))) == size
    found = membership(job_pod(0, {}), job(status, **spec))
    assert found.min_member == size
    assert bool(found.gang) == (size > 1)


def test_a_job_that_was_made_anew_is_another_gang() -> None:
    """The pods of the one before may still be there."""
    again = pod(owners=[owner("Job", "train", "batch/v1", "ffffffffffff")])
    four = job(parallelism=4)
    assert membership(again, four).gang != membership(job_pod(0, {}), four).gang


def test_without_its_job_a_pod_is_on_its_own() -> None:
    assert membership(job_pod(0, {}), None) == ALONE
    assert membership(jobset_pod(0, {}), None) == ALONE


# -- the others --------------------------------------------------------------------


def test_replicated_jobs_of_a_set_are_gangs_of_their_own() -> None:
    """They may start one after the other, and not know of each other's size."""
    workers = jobset_pod(0, {})
    driver = jobset_pod(0, {})
    assert driver.metadata.labels is not None
    driver.metadata.labels["jobset.sigs.k8s.io/replicatedjob-name"] = "driver"
    two = job(parallelism=2)
    assert membership(workers, two).gang != membership(driver, two).gang


@pytest.mark.parametrize(
    ("make", "note"),
    [
        (jobset_pod, "alpha.jobset.sigs.k8s.io/exclusive-topology"),
        (lws_pod, "leaderworkerset.sigs.k8s.io/exclusive-topology"),
    ],
)
def test_exclusive_placement_is_no_gang(
    make: Callable[[int, Json], PodObject], note: str
) -> None:
    """The first pod must have a node before the others are even made."""
    found = membership(make(0, {note: "rack"}), job(parallelism=2))
    assert found == ALONE


def test_a_source_that_knows_the_size_goes_before_one_that_does_not() -> None:
    notes = {
        "scheduling.k8s.io/group-name": "bert-pg",
        "scheduling.volcano.sh/group-min-member": "9",
    }
    found = membership(kubeflow_pod(0, notes), None)
    assert found == Membership("team-a/volcano/bert-pg", 9)


def test_multi_host_replicas_of_ray_have_names_of_their_own() -> None:
    names = set()
    for replica in ("gpu-a", "gpu-b"):
        worker = ray_pod(1, ours(least="2"))
        assert worker.metadata.labels is not None
        worker.metadata.labels["ray.io/worker-group-replica-name"] = replica
        names.add(membership(worker, None).gang)
    assert names == {
        "team-a/ray/tune-raycluster-x/gpu-a",
        "team-a/ray/tune-raycluster-x/gpu-b",
    }


def test_plain_and_deployed_pods_are_on_their_own() -> None:
    assert membership(pod(), None) == ALONE
    web = owner("ReplicaSet", "web-5d4f", "apps/v1")
    assert membership(pod(owners=[web], labels={"app": "web"}), None) == ALONE


@each_workload
@given(st.data())
def test_what_others_wrote_never_refuses_a_pod(
    kind: Workload, data: st.DataObject
) -> None:
    """Labels that mean nothing are not ours to complain about."""
    found = kind.make(0, {})
    texts = st.sampled_from(["", "0", "-1", "x", "1e3", "9" * 30, "a/b"])
    for known in (found.metadata.labels, found.metadata.annotations):
        for key in sorted(known or {}):
            if known is not None and data.draw(st.booleans()):
                known[key] = data.draw(texts)
    answer = membership(found, kind.job)
    assert 1 <= answer.min_member <= MAX_GANG
    assert (answer.min_member > 1) <= bool(answer.gang)
