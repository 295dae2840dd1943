"""Standalone mode's door over real HTTP: events in, wishes and views out."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving import Live, occupy, pod_json, serving


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


def test_events_answer_how_many_were_applied(live: Live) -> None:
    live.filter(pod_json("u1"))
    bound = {"type": "PodBound", "uid": "u1", "node": "n0"}
    reply = live.report(bound, {"type": "CheckpointDone", "uid": "u1"})
    assert reply.json == {"applied": 2}
    assert live.get("/v1/explain?pod=team-a/pod-u1").json["reason"] == "RUNNING"
    assert live.report({"type": "PodGone", "uid": "u1"}).json == {"applied": 1}
    assert live.get("/v1/explain?pod=u1").status == 404
    assert live.post("/v1/events", b"\n\n").json == {"applied": 0}


NODE = {"name": "new", "gpuClass": "h100-80gb", "gpus": 8}
BOUND: dict[str, Any] = {"type": "PodBound", "uid": "u1", "node": "n0"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"type": "PodVanished", "uid": "u"}, "line 3: type: 'PodVanished'"),
        ({"uid": "u"}, "missing required field `type`"),
        ({"type": "PodGone", "uid": ""}, "line 3: uid: '' must not be empty"),
        ({"type": "PodGone", "uid": 7}, "line 3: uid: '7'"),
        ({"type": "PodGone", "uid": "u", "node": "n0"}, "unknown field `node`"),
        ({**BOUND, "node": "zz"}, "line 3: node: 'zz' is no node"),
        ({**BOUND, "uid": "u9"}, "line 3: uid: 'u9' is no known pod"),
        ({**BOUND, "uid": "u9", "pod": pod_json("u8")}, "pod.metadata.uid: 'u8'"),
        ({**BOUND, "uid": "u9", "pod": pod_json("u9", gpus=0)}, "asks for no GPU"),
        ({**BOUND, "uid": "u9", "pod": pod_json("u9", "nobody")}, "is no tenant"),
        (
            {**BOUND, "uid": "u9", "node": "m0", "pod": pod_json("u9")},
            "line 3: node: 'm0' offers nothing that pod team-a/pod-u9 accepts",
        ),
        ({**BOUND, "node": "n1"}, "line 3: node: 'n1' is not where pod 'u1' is bound"),
        ({"type": "NodeChanged", "node": NODE | {"gpus": -1}}, "node.gpus: -1"),
        ({"type": "NodeChanged", "node": NODE | {"cpus": 4}}, "node.cpus: unknown key"),
        ({"type": "NodeChanged", "node": NODE | {"count": 2}}, "count"),
        ({"type": "NodeChanged", "node": "new"}, "line 3: node:"),
    ],
)
def test_one_bad_line_refuses_the_whole_batch(
    live: Live, bad: dict[str, Any], message: str
) -> None:
    live.filter(pod_json("u1"), ["n0"])
    before = live.state()
    good: list[dict[str, Any]] = [{"type": "NodeChanged", "node": NODE}, BOUND]
    reply = live.report(*good, bad, {"type": "PodGone", "uid": "u1"})
    assert reply.status == 400
    assert message in reply.error
    assert live.state() == before
    assert live.report(*good).json == {"applied": 2}


def test_batch_is_judged_event_by_event(live: Live) -> None:
    """A later line may need an earlier one."""
    bound = {"type": "PodBound", "uid": "u1", "node": "new", "pod": pod_json("u1")}
    gone = {"type": "PodGone", "uid": "u1"}
    join = {"type": "NodeChanged", "node": NODE}
    assert live.report(join, bound, gone).json == {"applied": 3}
    again = {"type": "PodBound", "uid": "u1", "node": "new"}
    assert live.report(again).status == 400  # it is gone
    assert live.report(bound, gone, again).status == 400  # already in the same batch
    assert live.report(bound, gone, bound).json == {"applied": 3}


def test_node_that_changed_under_a_plan_still_takes_its_pod(live: Live) -> None:
    """The device plugin restarts between decision and bind: no contradiction."""
    live.filter(pod_json("u1"), ["n0"])
    nothing = {"type": "NodeChanged", "node": NODE | {"name": "n0", "gpus": 0}}
    assert live.report(nothing, BOUND).json == {"applied": 2}
    assert live.get("/v1/explain?pod=u1").json["reason"] == "RUNNING"


def evicting(live: Live) -> None:
    """Bring about that pod v2 is asked to save its work."""
    occupy(live)
    live.filter(pod_json("u1", "team-b", 8))
    live.cycle()


def test_actions_are_sent_until_acknowledged(live: Live) -> None:
    evicting(live)
    first = live.get("/v1/actions").json
    (action,) = first["actions"]
    assert action["type"] == "CheckpointRequest"
    assert (action["uid"], action["pod"], action["node"]) == (
        "v2",
        "team-a/pod-v2",
        "n1",
    )
    assert action["secondsLeft"] == pytest.approx(60, abs=1)
    assert action["deadline"].endswith("+00:00")
    assert live.get("/v1/actions").json["actions"] == [action | {}]
    later = live.get(f"/v1/actions?after={first['last']}").json
    assert later == {"actions": [], "last": first["last"]}
    ack = {"ids": [action["id"]]}
    assert live.post("/v1/actions/ack", ack).json == {"acknowledged": 1}
    assert live.post("/v1/actions/ack", ack).json == {"acknowledged": 0}
    assert live.get("/v1/actions").json["actions"] == []


def test_eviction_overtakes_the_request_and_the_end_overtakes_both(live: Live) -> None:
    evicting(live)
    live.clock.now += 61
    live.cycle()
    (action,) = live.get("/v1/actions").json["actions"]
    assert (action["type"], action["uid"], action["graceSeconds"]) == (
        "Evict",
        "v2",
        120,
    )
    assert live.report({"type": "PodGone", "uid": "v2"}).status == 200
    assert live.get("/v1/actions").json["actions"] == []
    live.cycle()
    assert live.filter(pod_json("u1", "team-b", 8))["NodeNames"] == ["n1"]


def test_poll_waits_for_news_and_no_longer(live: Live) -> None:
    assert live.get("/v1/actions?wait=50ms").json == {"actions": [], "last": 0}
    with contextlib.closing(
        http.client.HTTPConnection(*live.address, timeout=10)
    ) as poll:
        poll.request("GET", "/v1/actions?wait=30s")
        evicting(live)
        assert len(json.loads(poll.getresponse().read())["actions"]) == 1


def test_stopping_ends_polls_at_once() -> None:
    with (
        serving() as live,
        contextlib.closing(
            http.client.HTTPConnection(*live.address, timeout=5)
        ) as poll,
    ):
        poll.request("GET", "/v1/actions?wait=60s")
        live.get("/healthz")
        live.on_loop(live.service.drain)
        assert json.loads(poll.getresponse().read()) == {"actions": [], "last": 0}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("wait=5", "query: wait: '5' is not a duration with a unit"),
        ("wait=2h", "is longer than 60s"),
        ("after=-1", "query: after: '-1' is not a whole number"),
    ],
)
def test_bad_poll_is_refused(shared: Live, query: str, message: str) -> None:
    assert message in shared.get(f"/v1/actions?{query}").error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"ids": [0]}, "'0' was never given out"),
        ({"ids": [99]}, "'99' was never given out (the last is 0)"),
        ({"ids": ["1"]}, "ids[0]: '1'"),
        ({"id": 1}, "unknown field `id`"),
        (b"", "is no JSON"),
    ],
)
def test_bad_acknowledgement_is_refused(shared: Live, body: Any, message: str) -> None:
    reply = shared.post("/v1/actions/ack", body)
    assert reply.status == 400
    assert message in reply.error


def test_views(live: Live) -> None:
    live.filter(pod_json("u1", gpus=4))
    row = next(r for r in live.get("/v1/tenants").json["tenants"] if r["tenant"] == "a")
    assert row["used"] == {"devices": 4.0, "gpus": 4.0}
    live.filter(pod_json("u2", "team-b", 16))
    (entry,) = live.get("/v1/queue").json["queue"]
    assert (entry["tenant"], entry["gpus"], entry["position"]) == ("b", 16.0, 1)
    explained = live.get("/v1/explain?pod=team-b/pod-u2").json
    assert explained["reason"] == entry["reason"]
