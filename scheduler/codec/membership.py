"""Which pods start together, whoever made them.

Hidden here: where each kind of workload says so. `SOURCES` has them all, in order of
precedence; what a source cannot know from the pod and its Job is said there.
"""

from collections.abc import Callable
from dataclasses import dataclass

from scheduler.codec.facts import job_of
from scheduler.codec.notes import ANNOTATION, MAX_GANG, Notes, gang_name, member_count
from scheduler.codec.objects import JobObject, PodObject


@dataclass(frozen=True, slots=True)
class Membership:
    """The gang a pod belongs to.

    Parameters
    ----------
    gang
        ``namespace/name``, empty for a pod on its own. Gangs that were not named by
        our annotation have a slash more (``team-a/job/train/...``), so that no two
        kinds of workload can mean the same gang.
    min_member
        How many start together, counting pods that ask for GPUs.
    """

    gang: str = ""
    min_member: int = 1


ALONE = Membership()


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of workload.

    Parameters
    ----------
    kind
        What it is called in the names of gangs.
    name
        Reads the name of the workload the pod belongs to; empty if it is of another
        kind.
    size
        Reads how many pods start together: 1 if each is on its own, 0 where that is
        not known, and the next source is asked.
    """

    kind: str
    name: Callable[[PodObject], str]
    size: Callable[[PodObject, JobObject | None], int]


def membership(pod: PodObject, job: JobObject | None) -> Membership:
    """Return the gang a pod belongs to.

    Our annotations come first: ``gang`` with ``gang-min-member`` names a gang; without
    ``gang``, ``gang-min-member`` corrects the size of the workload the pod belongs to,
    and 1 makes its pods independent. A workload whose size is not known is no gang.

    All members get the same answer while the workload does not change. A Job shrinks as
    its pods succeed, so ask when a gang is founded, and not again for those who join.

    Parameters
    ----------
    pod
        The pod.
    job
        The Job that made it (`job_of`). A Job's pod is on its own while it is None.

    Raises
    ------
    CodecError
        When one of our annotations means nothing. Labels of others that mean nothing
        are ignored.
    """
    notes, namespace = Notes(pod), pod.metadata.namespace
    named = notes.read("gang", gang_name, "")
    told = notes.read("gang-min-member", member_count, 0)
    if named:
        return Membership(f"{namespace}/{named}", told or 1)
    if told == 1:
        return ALONE
    for source in SOURCES:
        name = source.name(pod)
        size = (told or source.size(pod, job)) if name else 0
        if size == 1:
            return ALONE
        if size:
            return Membership(f"{namespace}/{source.kind}/{name}", min(size, MAX_GANG))
    if told:
        raise notes.error("gang-min-member", told, f"needs {_NEEDED}")
    return ALONE


_NEEDED = f"the annotation {ANNOTATION}gang, or a workload that has a name"


# -- reading labels -------------------------------------------------------------


def _label(pod: PodObject, key: str) -> str:
    return (pod.metadata.labels or {}).get(key, "")


def _note(pod: PodObject, key: str) -> str:
    return (pod.metadata.annotations or {}).get(key, "")


def _count(text: str) -> int:
    """Read what another project wrote; 0 if it is no count."""
    try:
        return member_count(text)
    except ValueError:
        return 0


def _joined(*parts: str) -> str:
    """Join what makes up a name; empty when the first part is."""
    return "/".join(part for part in parts if part) if parts[0] else ""


def _unknown(_pod: PodObject, _job: JobObject | None) -> int:
    return 0


# -- batch Job ------------------------------------------------------------------
# kubernetes.io/docs/concepts/workloads/controllers/job: as many pods run at once as
# `parallelism` says, fewer when fewer completions are left. An evicted Job's pods must
# not wait for members that have succeeded already.


def _job_name(pod: PodObject) -> str:
    owner = job_of(pod)
    return _joined(owner.name, owner.uid[:8]) if owner else ""


def _job_size(_pod: PodObject, job: JobObject | None) -> int:
    return 0 if job is None else pods_at_once(job)


def pods_at_once(job: JobObject) -> int:
    """Return how many pods of a Job run at once from now on."""
    wanted, done = job.spec.completions, job.status.succeeded
    at_once = 1 if job.spec.parallelism is None else job.spec.parallelism
    if wanted is None:  # a work queue: once one has succeeded, no more are made
        return max(0, at_once - done)
    return max(0, min(at_once, wanted - done - _failed_indexes(job)))


def _failed_indexes(job: JobObject) -> int:
    """Count the indexes that were given up, written as ``1,3-5``."""
    spans = [part.split("-") for part in (job.status.failed_indexes or "").split(",")]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans if span[0])


# -- JobSet ---------------------------------------------------------------------
# kubernetes-sigs/jobset, api/jobset/v1alpha2/jobset_types.go: the controller labels
# Jobs and pods. Kubeflow Trainer v2 makes JobSets (kubeflow.org/docs/components/
# trainer/operator-guides/job-template).
#
# A gang is one replicated job: its pods are alike, how many there are is on the label,
# and replicated jobs may start one after the other (`dependsOn`), so a gang over all of
# them might wait for itself. Not known: Jobs of the set that have completed already.
# With exclusive placement a Job's later pods are made when its first one has a node.

_JOBSET = "jobset.sigs.k8s.io/"


def _jobset_name(pod: PodObject) -> str:
    return _joined(
        _label(pod, f"{_JOBSET}jobset-name"),
        _label(pod, f"{_JOBSET}replicatedjob-name"),
        _label(pod, f"{_JOBSET}jobset-uid")[:8],
    )


def _jobset_size(pod: PodObject, job: JobObject | None) -> int:
    if _note(pod, "alpha.jobset.sigs.k8s.io/exclusive-topology"):
        return 1
    replicas = _count(_label(pod, f"{_JOBSET}replicatedjob-replicas"))
    return replicas * _job_size(pod, job)


# -- LeaderWorkerSet ------------------------------------------------------------
# kubernetes-sigs/lws, api/leaderworkerset/v1/leaderworkerset_types.go: a gang is one
# group, a leader and its workers. Not known: `startupPolicy: LeaderReady`, which makes
# no worker before the leader runs, and a leader without GPUs, who does not count; both
# need gang-min-member. With exclusive placement workers are made when the leader has a
# node (pkg/controllers/pod_controller.go).

_LWS = "leaderworkerset.sigs.k8s.io/"


def _lws_name(pod: PodObject) -> str:
    name, index = _label(pod, f"{_LWS}name"), _label(pod, f"{_LWS}group-index")
    return _joined(name, index) if index else ""


def _lws_size(pod: PodObject, _job: JobObject | None) -> int:
    if _note(pod, f"{_LWS}exclusive-topology"):
        return 1
    return _count(_note(pod, f"{_LWS}size"))


# -- those that have a name only ------------------------------------------------
# Kubeflow training operator v1, pkg/apis/kubeflow.org/v1/common_types.go, and its
# mpi-operator: replicas are in the PyTorchJob (TFJob, MPIJob ...).
# KubeRay, ray-operator/controllers/ray/utils/constant.go: replicas are in the
# RayCluster; the pods of one multi-host replica have a name of their own.
# scheduler-plugins, apis/scheduling/v1alpha1/types.go: minMember is in the PodGroup.


def _kubeflow_name(pod: PodObject) -> str:
    key = "training.kubeflow.org/"
    kind = _label(pod, f"{key}operator-name")
    return _joined(_label(pod, f"{key}job-name"), kind)


def _ray_name(pod: PodObject) -> str:
    replica = _label(pod, "ray.io/worker-group-replica-name")
    return _joined(_label(pod, "ray.io/cluster"), replica)


def _pod_group_name(pod: PodObject) -> str:
    return _label(pod, "scheduling.x-k8s.io/pod-group")


# -- groups of plain pods -------------------------------------------------------
# Kueue, kueue.sigs.k8s.io/docs/tasks/run/plain_pods: label and annotation on each pod.
# Volcano, staging/src/volcano.sh/apis/pkg/apis/scheduling/v1beta1/labels.go: the size
# is usually in the PodGroup, and on the pod where its controller's template has it.
# Lightweight coscheduling, the label form before PodGroups, in scheduler-plugins.


def _kueue_name(pod: PodObject) -> str:
    return _label(pod, "kueue.x-k8s.io/pod-group-name")


def _kueue_size(pod: PodObject, _job: JobObject | None) -> int:
    return _count(_note(pod, "kueue.x-k8s.io/pod-group-total-count"))


_VOLCANO = "scheduling.volcano.sh/"


def _volcano_name(pod: PodObject) -> str:
    ours, old = f"{_VOLCANO}group-name", "scheduling.k8s.io/group-name"
    return _note(pod, ours) or _note(pod, old)


def _volcano_size(pod: PodObject, _job: JobObject | None) -> int:
    return _count(_note(pod, f"{_VOLCANO}group-min-member"))


_LIGHTWEIGHT = "pod-group.scheduling.sigs.k8s.io/"


def _lightweight_name(pod: PodObject) -> str:
    return _label(pod, f"{_LIGHTWEIGHT}name")


def _lightweight_size(pod: PodObject, _job: JobObject | None) -> int:
    return _count(_label(pod, f"{_LIGHTWEIGHT}min-available"))


SOURCES = (
    Source("jobset", _jobset_name, _jobset_size),
    Source("lws", _lws_name, _lws_size),
    Source("kubeflow", _kubeflow_name, _unknown),
    Source("ray", _ray_name, _unknown),
    Source("kueue", _kueue_name, _kueue_size),
    Source("volcano", _volcano_name, _volcano_size),
    Source("pod-group", _lightweight_name, _lightweight_size),
    Source("pod-group", _pod_group_name, _unknown),
    Source("job", _job_name, _job_size),
)
