"""The check that every recorded answer passes would see what is wrong with one."""

import json
from typing import Any

import pytest

from tests.e2e.extenders import Call, accepted
from tests.e2e.tapped import breaches

ROOM, LIMIT = (
    "no node has room for it",
    "its tenant, or a queue above it, is at its limit",
)
VICTIMS = {"Pods": [{"UID": "u"}], "NumPDBViolations": 1}

RIGHT: dict[str, tuple[str, Any]] = {
    "some pass": ("filter", accepted(["a"])),
    "none passes": ("filter", accepted([], {"a": ROOM}, {"b": LIMIT})),
    "scores": ("prioritize", [{"Host": "a", "Score": 0}, {"Host": "b", "Score": 10}]),
    "no victims": ("preempt", {"NodeNameToMetaVictims": {}}),
    "victims": ("preempt", {"NodeNameToMetaVictims": {"a": VICTIMS}}),
}

WRONG: dict[str, tuple[str, Any]] = {
    "null": ("filter", {**accepted([]), "NodeNames": None}),
    "empty object": ("filter", {}),
    "a node without a reason": ("filter", accepted([], {"a": ROOM})),
    "a node not offered": ("filter", accepted(["c"])),
    "a node twice": ("filter", accepted(["a", "a"])),
    "both maps": ("filter", accepted([], {"a": ROOM, "b": ROOM}, {"a": LIMIT})),
    "passes and fails": ("filter", accepted(["a"], {"a": ROOM})),
    "a number in the words": ("filter", accepted([], {"a": "3 of 4", "b": ROOM})),
    "error and result": ("filter", {**accepted(["a"]), "Error": "no"}),
    "lower case": ("filter", {key.lower(): v for key, v in accepted(["a"]).items()}),
    "no array": ("prioritize", {"HostPriorityList": []}),
    "a node not scored": ("prioritize", [{"Host": "a", "Score": 0}]),
    "a float": ("prioritize", [{"Host": n, "Score": 1.0} for n in "ab"]),
    "eleven": ("prioritize", [{"Host": n, "Score": 11} for n in "ab"]),
    "other victims": ("preempt", {"NodeNameToMetaVictims": {"c": VICTIMS}}),
    "nobody": ("preempt", {"NodeNameToMetaVictims": {"a": {**VICTIMS, "Pods": []}}}),
    "other budgets": (
        "preempt",
        {"NodeNameToMetaVictims": {"a": {**VICTIMS, "NumPDBViolations": 0}}},
    ),
}


def call(verb: str, answer: object, **changes: Any) -> Call:
    asked = {
        "Pod": {"metadata": {"namespace": "s", "name": "p", "uid": "p"}},
        "NodeNames": ["a", "b"],
        "NodeNameToMetaVictims": {"a": VICTIMS, "b": VICTIMS},
    }
    made = Call(f"/{verb}", {}, json.dumps(asked).encode(), 1)
    made.status, made.answer = 200, json.dumps(answer).encode()
    made.answer_headers = {"Content-Length": str(len(made.answer))}
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("case", RIGHT)
def test_right_answers_pass(case: str) -> None:
    assert breaches([call(*RIGHT[case])]) == []


@pytest.mark.parametrize("case", WRONG)
def test_wrong_answers_are_found(case: str) -> None:
    assert len(breaches([call(*WRONG[case])])) == 1


def test_chunks_and_unexpected_failures_are_found() -> None:
    chunked = call(*RIGHT["some pass"], answer_headers={"Transfer-Encoding": "chunked"})
    failed = call("filter", {"Error": "not ready"}, status=503)
    silent = call("filter", {}, status=0)
    assert len(breaches([chunked, failed, silent])) == 3
    assert breaches([failed, silent], failures=[0, 503]) == []
