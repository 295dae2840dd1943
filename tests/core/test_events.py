"""The vocabulary of what is heard and said."""

from dataclasses import FrozenInstanceError, fields
from typing import get_args

import pytest

from scheduler.core.events import (
    Action,
    CheckpointDone,
    Event,
    Evict,
    PodBound,
    PodGone,
    Reason,
)
from scheduler.core.gpu import Form
from scheduler.core.workload import GangId, NodeName, PodUid
from tests import builders


def test_only_a_lack_of_room_is_resolvable() -> None:
    """kube-scheduler calls preempt for those alone: evicting must be able to help."""
    assert {reason for reason in Reason if reason.resolvable} == {
        Reason.NO_ROOM,
        Reason.RECLAIMING,
    }


def test_reasons_are_constant_sentences_of_their_own() -> None:
    """A text that changes wakes the pod again; two alike could not be told apart."""
    texts = [reason.value for reason in Reason]
    assert len(set(texts)) == len(texts)
    assert all(text and "{" not in text and "%" not in text for text in texts)


@pytest.mark.parametrize("kind", get_args(Action))
def test_every_action_names_its_pod(kind: type) -> None:
    """Performing an action twice is harmless only because it names the UID."""
    assert {"uid", "gang", "node"} <= {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    "kind",
    [*get_args(Event), *get_args(Action)],
)
def test_records_are_frozen(kind: type) -> None:
    """What was recorded cannot be changed by who reads it."""
    record: object = object.__new__(kind)
    with pytest.raises(FrozenInstanceError):
        setattr(record, fields(kind)[0].name, "other")


def test_records_compare_and_hash_by_value() -> None:
    """So that replay can compare decisions, and drivers can drop repeats."""
    one = Evict(PodUid("p"), GangId("g"), NodeName("n"), 1.0, "late")
    two = Evict(PodUid("p"), GangId("g"), NodeName("n"), 1.0, "late")
    assert len({one, two}) == 1
    gone: object = PodGone(PodUid("p"))
    assert gone != CheckpointDone(PodUid("p"))


def test_binding_of_another_pod_is_refused() -> None:
    """The record and the pod it carries must be one: else the books name neither."""
    with pytest.raises(ValueError, match="PodBound: pod 'q' is not 'p'"):
        PodBound(PodUid("p"), NodeName("n"), builders.pod("q", "a"))


def test_binding_to_no_form_is_refused() -> None:
    """A mark that was tampered with is refused before anything is booked."""
    with pytest.raises(ValueError, match="'H100' is no GPU class"):
        PodBound(PodUid("p"), NodeName("n"), builders.pod("p", "a"), Form("H100"))
