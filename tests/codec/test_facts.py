"""Small questions about a pod."""

import pytest

from scheduler.codec import (
    checkpoint_stamp,
    controller,
    gates,
    has_foreign_gates,
    is_gated,
    is_terminal,
    is_terminating,
    job_of,
)
from tests.codec.api import owner, pod

OURS, THEIRS = {"name": "fairshare.dev/admission"}, {"name": "example.com/wait"}


@pytest.mark.parametrize(
    ("given", "gated", "foreign"),
    [
        (None, False, False),
        ([], False, False),
        ([OURS], True, False),
        ([THEIRS], False, True),
        ([THEIRS, OURS], True, True),
    ],
)
def test_gates(given: list[dict[str, str]] | None, gated: bool, foreign: bool) -> None:
    found = pod(spec={"schedulingGates": given})
    assert gates(found) == tuple(gate["name"] for gate in given or [])
    assert is_gated(found) is gated
    assert has_foreign_gates(found) is foreign


@pytest.mark.parametrize(
    ("phase", "terminal"),
    [("Pending", False), ("Running", False), ("Succeeded", True), ("Failed", True)],
)
def test_terminal_phases(phase: str, terminal: bool) -> None:
    assert is_terminal(pod(status={"phase": phase})) is terminal


def test_terminating_pods_are_told_to_stop_and_still_there() -> None:
    assert not is_terminating(pod())
    found = pod(deletionTimestamp="2026-01-02T03:04:05Z", status={"phase": "Running"})
    assert is_terminating(found)
    assert not is_terminal(found)


def test_the_controller_is_one_of_the_owners() -> None:
    config = owner("ConfigMap", "c", "v1") | {"controller": None}
    replicas = owner("ReplicaSet", "web-1", "apps/v1")
    found = controller(pod(owners=[config, replicas]))
    assert found is not None
    assert (found.kind, found.name, found.api_version) == (
        "ReplicaSet",
        "web-1",
        "apps/v1",
    )
    assert controller(pod(owners=[config])) is None
    assert controller(pod()) is None


def test_only_a_batch_job_is_the_job_of_a_pod() -> None:
    ours = job_of(pod(owners=[owner("Job", "train", "batch/v1", "j")]))
    assert ours is not None
    assert ours.uid == "j"
    volcano = owner("Job", "train", "batch.volcano.sh/v1alpha1")
    assert job_of(pod(owners=[volcano])) is None
    assert job_of(pod(owners=[owner("ReplicaSet", "w", "apps/v1")])) is None
    assert job_of(pod()) is None


def test_checkpoints_show_as_a_changed_stamp() -> None:
    assert checkpoint_stamp(pod()) == ("", "")
    notes = {
        "fairshare.dev/last-checkpoint": "2026-01-02T03:04:05Z",
        "fairshare.dev/checkpoint-done": "7",
    }
    assert checkpoint_stamp(pod(notes=notes)) == ("2026-01-02T03:04:05Z", "7")
