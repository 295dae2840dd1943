"""The wire over real HTTP: what kube-scheduler sends, gets and relies on."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving import NODES, Live, args, exchange, occupy, pod_json, serving


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    """One service for the tests that change nothing."""
    with serving() as live:
        yield live


@pytest.fixture
def live() -> Iterator[Live]:
    """A service of the test's own."""
    with serving() as fresh:
        yield fresh


# -- answers ------------------------------------------------------------------


def test_filter_steers_to_one_node_and_answers_byte_for_byte(live: Live) -> None:
    reply = live.post("/filter", args(pod_json("u1", gpus=8), NODES))
    assert reply.body == (
        b'{"Nodes":null,"NodeNames":["n0"],"FailedNodes":{},'
        b'"FailedAndUnresolvableNodes":{},"Error":""}'
    )


def test_filter_is_idempotent(live: Live) -> None:
    """A pod may be asked about twice per attempt; its reservation is keyed by UID."""
    pod = pod_json("u1", gpus=8)
    first = live.filter(pod)
    before = live.state()
    assert live.filter(pod) == first
    assert live.filter(pod, ["n1"])["NodeNames"] == []  # nominated node tried alone
    assert live.state() == before


def test_quota_is_unresolvable_so_that_nobody_preempts_for_it(live: Live) -> None:
    result = live.filter(pod_json("u1", "team-b", 8))
    assert result["NodeNames"]
    result = live.filter(pod_json("u2", "team-b", 8))  # limit: 12
    assert result["NodeNames"] == []
    assert result["FailedNodes"] == {}
    text = "its tenant, or a queue above it, is at its limit"
    assert result["FailedAndUnresolvableNodes"] == dict.fromkeys(NODES, text)


def test_no_room_is_resolvable_and_the_text_is_constant(live: Live) -> None:
    """A message that changes would wake the pod again and again."""
    for uid in ("u1", "u2"):
        live.filter(pod_json(uid, gpus=8))
    first, second = (live.filter(pod_json(uid, gpus=8)) for uid in ("u3", "u4"))
    assert first == second
    assert first["FailedNodes"]["n0"] == "no node has room for it"
    wrong = first["FailedAndUnresolvableNodes"]
    assert wrong == {"m0": "no node offers the GPU class or profile it asks for"}


def test_unknown_namespace_is_unresolvable(live: Live) -> None:
    result = live.filter(pod_json("u1", "nobody"))
    text = "its namespace belongs to no tenant"
    assert result["FailedAndUnresolvableNodes"] == dict.fromkeys(NODES, text)


def test_pod_without_gpu_passes_everywhere_and_is_forgotten(shared: Live) -> None:
    before = shared.state()
    assert shared.filter(pod_json("cpu", gpus=0))["NodeNames"] == NODES
    assert shared.filter(pod_json("cpu", gpus="0"))["NodeNames"] == NODES
    scores = shared.post("/prioritize", args(pod_json("cpu", gpus=0), NODES)).json
    assert [entry["Score"] for entry in scores] == [0, 0, 0]
    assert shared.state() == before


def test_prioritize_is_a_bare_array_of_integer_scores(shared: Live) -> None:
    reply = shared.post("/prioritize", args(pod_json("u9", gpus=1), NODES))
    scores = json.loads(reply.body, parse_float=pytest.fail)
    assert [list(entry) for entry in scores] == [["Host", "Score"]] * 3
    assert [entry["Host"] for entry in scores] == NODES
    assert all(0 <= entry["Score"] <= 10 for entry in scores)
    assert scores[2]["Score"] == 0  # m0 has no whole GPU


def test_empty_list_of_names_is_answered_with_none(shared: Live) -> None:
    assert shared.filter(pod_json("u9", gpus=0), [])["NodeNames"] == []


def preemption(pod: Any, **victims: str) -> dict[str, Any]:
    offers = {
        node: {"Pods": [{"UID": uid}], "NumPDBViolations": 1}
        for node, uid in victims.items()
    }
    return {"Pod": pod, "NodeNameToVictims": None, "NodeNameToMetaVictims": offers}


def test_preempt_takes_note_of_a_pod_that_filter_was_never_asked_about(
    live: Live,
) -> None:
    """kube-scheduler asks preempt alone where it sees no room itself; who has to go is
    then told by a wish, and by nothing else: one victim, and not the covered one."""
    occupy(live)
    live.hold_still()
    pod = pod_json("u1", "team-b", 8)
    body = preemption(pod, n0="v1", n1="v2")
    for _ in range(2):
        assert live.post("/preempt", body).body == b'{"NodeNameToMetaVictims":{}}'
    assert live.get("/v1/explain?pod=u1").json["reason"] == "RECLAIMING"
    (wish,) = live.get("/v1/actions").json["actions"]
    assert (wish["type"], wish["uid"]) == ("CheckpointRequest", "v2")


def test_preempt_for_a_pod_without_gpus_spares_those_that_hold_some(live: Live) -> None:
    occupy(live)
    body = preemption(pod_json("cpu", gpus=0), n0="v1", m0="foreign")
    assert list(live.post("/preempt", body).json["NodeNameToMetaVictims"]) == ["m0"]


# -- bodies that are refused ----------------------------------------------------

GOOD = json.dumps(args(pod_json("u1"), NODES))


def broken(**changes: Any) -> dict[str, Any]:
    """A good body with some keys of the pod's metadata or spec replaced."""
    pod = pod_json("u1")
    for section in ("metadata", "spec"):
        pod[section] |= {k: v for k, v in changes.items() if k in pod[section]}
    return args(pod, changes.get("names", NODES))


BAD_BODIES: list[tuple[str, Any, str]] = [
    ("empty", b"", "is no JSON"),
    ("cut off", GOOD[:-20].encode(), "is no JSON"),
    ("more than one", (GOOD + GOOD).encode(), "trailing characters"),
    ("not UTF-8", b'{"Pod":"\xff"}', "Pod: '{"),
    ("an array", b"[]", "Expected `object`, got `array`"),
    ("no pod", {"NodeNames": NODES}, "missing required field `Pod`"),
    ("lower case", {"pod": {}, "nodeNames": []}, "missing required field `Pod`"),
    ("pod a number", {"Pod": 7, "NodeNames": NODES}, "Pod: '7'"),
    ("no metadata", {"Pod": {"spec": {}}, "NodeNames": NODES}, "`metadata`"),
    ("uid a number", broken(uid=7), "Pod.metadata.uid: '7'"),
    ("uid empty", broken(uid=""), "metadata.uid: '' must not be empty"),
    ("names null", broken(names=None), "nodeCacheCapable: true"),
    ("names a string", broken(names="n0"), "NodeNames: 'n0'"),
    ("a name a number", broken(names=["n0", 3]), "NodeNames[1]: '3'"),
    ("unknown node", broken(names=["n0", "zz"]), "unknown node 'zz'"),
    ("duplicate", broken(names=["n0", "n1", "n0"]), "NodeNames: 'n0' is given twice"),
    ("deep", b'{"x":' + b"[" * 100_000, "is no JSON: maximum recursion"),
    (
        "whole nodes",
        {"Pod": pod_json("u1"), "Nodes": {"items": [{}]}, "NodeNames": None},
        "whole objects came instead: set nodeCacheCapable: true",
    ),
    (
        "amount a list",
        broken(containers=[{"resources": {"limits": {"nvidia.com/gpu": []}}}]),
        "Expected `int | float | str`",
    ),
    (
        "amount no number",
        broken(containers=[{"resources": {"limits": {"nvidia.com/gpu": "two"}}}]),
        "pod team-a/pod-u1: spec.containers[0].resources.limits[nvidia.com/gpu]: 'two'",
    ),
    (
        "two kinds",
        broken(
            containers=[
                {
                    "resources": {
                        "limits": {"nvidia.com/gpu": 1, "nvidia.com/mig-1g.10gb": 1}
                    }
                }
            ]
        ),
        "'nvidia.com/gpu and nvidia.com/mig-1g.10gb' are two kinds",
    ),
]


@pytest.mark.parametrize("verb", ["filter", "prioritize"])
@pytest.mark.parametrize(
    ("body", "message"),
    [case[1:] for case in BAD_BODIES],
    ids=[c[0] for c in BAD_BODIES],
)
def test_bad_body_is_refused_with_its_reason_and_changes_nothing(
    shared: Live, verb: str, body: Any, message: str
) -> None:
    before = shared.state()
    reply = shared.post(f"/{verb}", body)
    assert reply.status == 400
    assert message in reply.error
    assert shared.state() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"NodeNameToMetaVictims": None}, "nodeCacheCapable: true"),
        (
            {"NodeNameToMetaVictims": {"zz": {"Pods": [{"UID": "v"}]}}},
            "unknown node 'zz'",
        ),
        (
            {"NodeNameToMetaVictims": {"n0": {"Pods": [{}]}}},
            "missing required field `UID`",
        ),
        ({"NodeNameToMetaVictims": {"n0": {"NumPDBViolations": 0.5}}}, "Expected `int"),
        ({"Pod": None}, "Pod"),
    ],
)
def test_bad_preempt_body_changes_nothing(
    shared: Live, change: dict[str, Any], message: str
) -> None:
    before = shared.state()
    reply = shared.post("/preempt", preemption(pod_json("u1"), n0="v1") | change)
    assert reply.status == 400
    assert message in reply.error
    assert shared.state() == before


@pytest.mark.parametrize("path", ["/filter", "/v1/events"])
def test_huge_body_is_refused_with_413(shared: Live, path: str) -> None:
    before = shared.state()
    body = b'{"Pod":"' + b"x" * (1 << 20) + b'"}'
    reply = shared.post(path, body)
    assert reply.status == 413
    assert "body: 1048586 bytes are more than the limit of 262144" in reply.error
    assert shared.state() == before


def test_huge_body_that_does_not_say_so_is_refused_too(shared: Live) -> None:
    """Chunked: there is no Content-Length to judge it by."""
    connection = http.client.HTTPConnection(*shared.address, timeout=10)
    with contextlib.closing(connection):
        parts = iter([b"x" * 100_000] * 4)
        connection.request("POST", "/filter", parts, encode_chunked=True)
        response = connection.getresponse()
        assert response.status == 413
        assert list(json.loads(response.read())) == ["Error"]


def test_body_that_never_comes_whole_changes_nothing(shared: Live) -> None:
    """The client gives up in the middle: Content-Length promises more than it sends."""
    before = shared.state()
    with socket.create_connection(shared.address) as connection:
        head = (
            f"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: {len(GOOD)}\r\n\r\n"
        )
        connection.sendall(head.encode() + GOOD[:50].encode())
    assert shared.get("/healthz").status == 200
    assert shared.state() == before


def test_gang_that_contradicts_itself_is_refused(live: Live) -> None:
    live.filter(pod_json("u1", gang="g", gang_min_member="2"))
    before = live.state()
    other = pod_json("u2", gang="g", gang_min_member="3")
    reply = live.post("/filter", args(other, NODES))
    assert reply.status == 400
    assert "min_member" in reply.error
    assert live.state() == before


# -- being ready ----------------------------------------------------------------


def test_not_ready_answers_503_and_never_an_empty_result() -> None:
    with serving(start=False) as live:
        for verb in ("filter", "prioritize", "preempt"):
            reply = live.post(f"/{verb}", json.loads(GOOD))
            assert reply.status == 503
            assert "not ready" in reply.error
        assert live.get("/readyz").status == 503
        assert live.report({"type": "PodGone", "uid": "x"}).status == 503
        assert live.get("/v1/actions").status == 503
        assert live.get("/healthz").status == 200


def test_draining_says_so_and_still_answers(live: Live) -> None:
    live.on_loop(live.service.drain)
    assert live.get("/readyz").status == 503
    assert live.filter(pod_json("u1"))["NodeNames"]


def test_a_cycle_that_stopped_is_not_healthy(live: Live) -> None:
    live.hold_still()
    live.clock.now += 31
    assert "cycle" in live.get("/healthz").error


# -- transport --------------------------------------------------------------------


def test_connection_is_kept_and_answers_carry_their_length(shared: Live) -> None:
    """Go sends the next POST on the connection it has, and does not repeat one."""
    connection = http.client.HTTPConnection(*shared.address, timeout=10)
    with contextlib.closing(connection):
        for _ in range(3):
            reply = exchange(connection, "POST", "/filter", json.loads(GOOD))
            assert "Transfer-Encoding" not in reply.headers
            assert int(reply.headers["Content-Length"]) == len(reply.body)
            assert reply.headers.get("Connection", "keep-alive") == "keep-alive"
            assert connection.sock is not None


def test_idle_connections_outlive_those_of_kube_scheduler(shared: Live) -> None:
    extender_keep_alive = shared.service._config.server.keep_alive
    assert extender_keep_alive >= 120
    with socket.create_connection(shared.address, timeout=1.5) as connection:
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.sendall(request)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        with pytest.raises(TimeoutError):  # an early close would read as b""
            connection.recv(4096)
        connection.sendall(request)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_unknown_path_and_wrong_method_are_json_errors(shared: Live) -> None:
    assert shared.get("/nowhere").status == 404
    assert "Method Not Allowed" in shared.get("/filter").error
    assert shared.post("/bind", {}).status == 404
