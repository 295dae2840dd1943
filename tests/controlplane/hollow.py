"""What hollow nodes do with their pods, as KWOK stages.

A pod says by annotations how it behaves, in whole seconds, because the API's
timestamps are. Each moment counts from a timestamp of the pod itself, so a pod that is
touched in between does not start over.
"""

from typing import Any

import yaml

PREFIX = "hollow.fairshare.dev/"
RUNS_FOR = PREFIX + "runs-for"
"""Seconds from start to exit. Pods of Jobs run for one second unless they say more
("forever" is a word for it); other pods run until they are deleted."""
EXIT_CODE = PREFIX + "exit-code"
"""What it exits with at the end of its run; default 0."""
READY_AFTER = PREFIX + "ready-after"
"""Seconds from start to readiness; default at once."""
SHUTS_DOWN_IN = PREFIX + "shuts-down-in"
"""Seconds it takes to end once deleted, at most its grace period; default at once."""
TERMINATED_CODE = PREFIX + "terminated-code"
"""What it exits with when deleted; default 143, as a process ended by SIGTERM."""
HANGS = PREFIX + "hangs"
"""On a pod: its kubelet is dead, so it neither starts, ends nor goes. On a node: it is
not Ready."""

_PHASE = ".status.phase"
_DELETED = ".metadata.deletionTimestamp"
_READY = '.status.conditions.[] | select(.type == "Ready") | .status'


def configuration(parallelism: int = 16) -> str:
    """KWOK's configuration file."""
    options = {
        "kind": "KwokConfiguration",
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "options": {
            "podPlayStageParallelism": parallelism,
            "nodePlayStageParallelism": parallelism,
            # No heartbeats: 5,000 nodes would keep the machine busy with them. The
            # controller manager is told to be patient.
            "nodeLeaseDurationSeconds": 0,
        },
    }
    return yaml.safe_dump_all([options, *_stages()])


def _stages() -> list[dict[str, Any]]:
    return [
        _node(
            "node-ready", [_not_in(_READY, "True"), _absent(_annotation(HANGS))], "True"
        ),
        _node(
            "node-hangs", [_in(_READY, "True"), _exists(_annotation(HANGS))], "False"
        ),
        _pod("start", [_in(_PHASE, "Pending"), _absent(_DELETED)], _STARTED),
        _pod(
            "ready",
            [_in(_PHASE, "Running"), _absent(_DELETED), _not_in(_READY, "True")],
            _BECAME_READY,
            _moment(".status.startTime | fromdate", READY_AFTER),
        ),
        _pod(
            "exit",
            [
                _in(_PHASE, "Running"),
                _in(_READY, "True"),
                _absent(_DELETED),
                _exists(_LIFETIME),
            ],
            _ended(EXIT_CODE, 0, "Completed"),
            f"(.status.startTime | fromdate) + ({_LIFETIME}) | todate",
        ),
        _pod(
            "terminate",
            [_not_in(_PHASE, "Succeeded", "Failed"), _exists(_DELETED)],
            _ended(TERMINATED_CODE, 143, "Terminated"),
            _SHUT_DOWN,
        ),
        _gone(),
    ]


def _node(name: str, when: list[dict[str, Any]], ready: str) -> dict[str, Any]:
    condition = (
        f'conditions: [{{type: Ready, status: "{ready}", reason: Hollow, '
        "lastHeartbeatTime: {{ Now | Quote }}, lastTransitionTime: {{ Now | Quote }}}]"
    )
    return _stage(name, "Node", when, {"patches": [_status(condition)]})


def _pod(
    name: str, when: list[dict[str, Any]], status: str, moment: str | None = None
) -> dict[str, Any]:
    """A stage of pods on living kubelets, played at a moment (jq) or at once."""
    when = [*when, _absent(_annotation(HANGS))]
    stage = _stage("pod-" + name, "Pod", when, {"patches": [_status(status)]})
    if moment:
        stage["spec"]["delay"] = {
            "durationMilliseconds": 0,
            "durationFrom": {"jq": {"expression": moment}},
        }
    return stage


def _gone() -> dict[str, Any]:
    # A kubelet reports the end and then lets go; the finalizer by which a Job counts
    # its pods is left to the Job controller. Grace 0: it already has let go.
    when = [
        _exists(_DELETED),
        _in(_PHASE, "Succeeded", "Failed"),
        _not_in(".metadata.deletionGracePeriodSeconds | tostring", "0"),
        _absent(_annotation(HANGS)),
    ]
    return _stage("pod-gone", "Pod", when, {"delete": True})


def _stage(
    name: str, kind: str, when: list[dict[str, Any]], then: dict[str, Any]
) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": when},
            "next": then,
        },
    }


def _status(template: str) -> dict[str, Any]:
    return {"subresource": "status", "root": "status", "template": template}


def _annotation(name: str) -> str:
    return f'.metadata.annotations["{name}"]'


def _in(key: str, *values: str) -> dict[str, Any]:
    return {"jq": {"key": key, "operator": "In", "values": list(values)}}


def _not_in(key: str, *values: str) -> dict[str, Any]:
    return {"jq": {"key": key, "operator": "NotIn", "values": list(values)}}


def _exists(key: str) -> dict[str, Any]:
    return {"jq": {"key": key, "operator": "Exists"}}


def _absent(key: str) -> dict[str, Any]:
    return {"jq": {"key": key, "operator": "DoesNotExist"}}


def _moment(start: str, seconds: str) -> str:
    return f"({start}) + ({_annotation(seconds)} // 0 | tonumber) | todate"


# Seconds a pod lives from its start; nothing where it has no end. Pods of Jobs have.
_LIFETIME = (
    f'if {_annotation(RUNS_FOR)} == "forever" then empty'
    f" elif {_annotation(RUNS_FOR)} then {_annotation(RUNS_FOR)} | tonumber"
    ' elif any(.metadata.ownerReferences[]?; .kind == "Job") then 1 else empty end'
)

# The deletion timestamp lies one grace period after the deletion.
_SHUT_DOWN = (
    ".metadata.deletionGracePeriodSeconds as $grace"
    " | (.metadata.deletionTimestamp | fromdate) - $grace"
    f" + ([({_annotation(SHUTS_DOWN_IN)} // 0 | tonumber), $grace] | min) | todate"
)

_STARTED = (
    """
{{ $now := Now }}
{{ $late := get (or .metadata.annotations dict) "READY_AFTER" }}
phase: Running
startTime: {{ $now | Quote }}
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ range list "Ready" "ContainersReady" }}
- type: {{ . }}
  status: {{ if $late }}"False"{{ else }}"True"{{ end }}
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: {{ not $late }}
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
"""
).replace("READY_AFTER", READY_AFTER)

_BECAME_READY = """
{{ $now := Now }}
conditions:
- {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .status.containerStatuses }}
- {name: {{ .name | Quote }}, ready: true}
{{ end }}
"""


def _ended(code: str, default: int, reason: str) -> str:
    """All containers exit; the phase follows from the exit code."""
    return (
        _ENDED.replace("CODE", f'"{code}"', 1)
        .replace("REASON", reason)
        .replace("DEFAULT", str(default))
    )


_ENDED = """
{{ $now := Now }}
{{ $code := get (or .metadata.annotations dict) CODE | default "DEFAULT" }}
phase: {{ if eq $code "0" }}Succeeded{{ else }}Failed{{ end }}
conditions:
- {type: Ready, status: "False", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "False", lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: false
  started: false
  restartCount: 0
  state:
    running: null
    terminated:
      exitCode: {{ $code }}
      reason: REASON
      finishedAt: {{ $now | Quote }}
{{ end }}
"""
