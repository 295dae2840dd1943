"""Small questions about a pod, answered from what the API server says."""

from scheduler.codec.mark import GATE
from scheduler.codec.notes import ANNOTATION
from scheduler.codec.objects import Owner, PodObject


def gates(pod: PodObject) -> tuple[str, ...]:
    """Names of the gates that keep the pod from being scheduled."""
    return tuple(gate.name for gate in pod.spec.scheduling_gates or ())


def is_gated(pod: PodObject) -> bool:
    """Whether it has our gate: it has not been admitted."""
    return GATE in gates(pod)


def has_foreign_gates(pod: PodObject) -> bool:
    """Whether somebody else keeps it from being scheduled."""
    return any(name != GATE for name in gates(pod))


def is_terminal(pod: PodObject) -> bool:
    """Whether it has run for the last time and holds nothing."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_terminating(pod: PodObject) -> bool:
    """Whether it was told to stop; it holds its devices until it is gone."""
    return pod.metadata.deletion_timestamp is not None


def controller(pod: PodObject) -> Owner | None:
    """Return the object that made the pod and replaces it, None if nobody does."""
    owners = pod.metadata.owner_references or ()
    return next((owner for owner in owners if owner.controller), None)


def job_of(pod: PodObject) -> Owner | None:
    """Return the batch Job that made the pod; its size is part of the membership."""
    owner = controller(pod)
    if owner is None or owner.kind != "Job":
        return None
    return owner if owner.api_version.startswith("batch/") else None


def checkpoint_stamp(pod: PodObject) -> tuple[str, str]:
    """Return what the pod last said about its checkpoints; empty where it never did.

    When either changes, it has written one: ``last-checkpoint`` is for those it writes
    by itself, ``checkpoint-done`` answers a request.
    """
    notes = pod.metadata.annotations or {}
    return (
        notes.get(f"{ANNOTATION}last-checkpoint", ""),
        notes.get(f"{ANNOTATION}checkpoint-done", ""),
    )
