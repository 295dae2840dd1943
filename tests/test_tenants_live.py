"""Tenants that change while pods run, over real HTTP: what holds, and what is said.

One tree replaces another whole. What runs goes on running; what the new tree does not
pay for is burst.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from scheduler import rpc
from tests.serving import Live, occupy, pod_json, serving
from tests.test_main import fairshare
from tests.test_metrics import Page

H100 = "h100-80gb"
NOTHING = {"name": "n1", "gpuClass": H100, "gpus": 0}
WHOLE = {"name": "n1", "gpuClass": H100, "gpus": 8}


@pytest.fixture
def live() -> Iterator[Live]:
    with serving() as fresh:
        yield fresh


def tenant(name: str, guarantee: int = 0, **more: Any) -> dict[str, Any]:
    """A tenant with a namespace of its own, ``team-`` and its name."""
    mine = {"name": name, "namespaces": [f"team-{name}"]}
    return mine | ({"guarantee": {H100: guarantee}} if guarantee else {}) | more


def changed(*tenants: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "TenantsChanged", "tenants": list(tenants), **more}


def node(**raw: Any) -> dict[str, Any]:
    return {"type": "NodeChanged", "node": raw}


def row(live: Live, name: str, form: str = H100) -> dict[str, Any]:
    rows = live.get("/v1/tenants").json["tenants"]
    (found,) = (r for r in rows if (r["tenant"], r["form"]) == (name, form))
    return dict(found)


def devices(row: dict[str, Any], *names: str) -> list[float]:
    return [row[name]["devices"] for name in names]


def refused(live: Live, *events: dict[str, Any]) -> str:
    """The error of a batch, which must have changed nothing."""
    before, naming = live.state(), live.service.naming
    reply = live.report(*events)
    assert reply.status == 400
    assert live.state() == before
    assert live.service.naming is naming
    return reply.error


# -- what becomes of what runs -------------------------------------------------------


def test_guarantee_below_use_leaves_the_pods_running_as_burst(live: Live) -> None:
    live.report(
        {"type": "PodBound", "uid": "v", "node": "n0", "pod": pod_json("v", gpus=8)}
    )
    assert devices(row(live, "a"), "guarantee", "used", "burst") == [8, 8, 0]
    assert live.report(changed(tenant("a", 4), tenant("b", 8))).json == {"applied": 1}
    live.cycle()
    assert devices(row(live, "a"), "guarantee", "used", "burst") == [4, 8, 8]
    assert row(live, "a")["conditions"] == []
    found = live.get("/v1/explain?pod=v").json
    assert (found["reason"], found["covered"]) == ("RUNNING", False)
    assert live.get("/v1/actions").json["actions"] == []
    live.report(
        {"type": "PodBound", "uid": "w", "node": "n1", "pod": pod_json("w", gpus=8)}
    )
    live.clock.now += 3600
    live.filter(pod_json("u", "team-b", 8))  # now it can be taken back
    live.cycle()
    assert len(live.get("/v1/actions").json["actions"]) == 1


def test_guarantee_that_is_given_back_covers_again(live: Live) -> None:
    occupy(live)
    live.report(changed(tenant("a"), tenant("b", 8)))
    assert devices(row(live, "a"), "guarantee", "used", "burst") == [0, 16, 16]
    live.report(changed(tenant("a", 8), tenant("b", 8)))
    assert devices(row(live, "a"), "guarantee", "used", "burst") == [8, 16, 8]


def test_tenant_that_is_deleted_keeps_its_pods_and_says_so(live: Live) -> None:
    occupy(live)
    live.report(changed(tenant("b", 8)))
    mine = row(live, "a")
    assert devices(mine, "promised", "used", "burst") == [0, 16, 16]
    assert mine["conditions"] == ["Deleted: its pods run on, all of them as burst"]
    assert live.get("/v1/explain?pod=v1").json["reason"] == "RUNNING"
    for uid in ("v1", "v2"):
        live.report({"type": "PodGone", "uid": uid})
    live.report(changed(tenant("b", 8)))
    assert "a" not in {r["tenant"] for r in live.get("/v1/tenants").json["tenants"]}


def test_pods_that_wait_follow_their_namespace(live: Live) -> None:
    occupy(live)
    live.filter(pod_json("w", "team-c", 8))
    assert live.get("/v1/explain?pod=w").json["reason"] == "UNKNOWN_TENANT"
    live.report(changed(tenant("a"), tenant("b"), tenant("c", 8)))
    assert live.get("/v1/explain?pod=w").json["tenant"] == "c"
    live.cycle()
    assert live.filter(pod_json("w", "team-c", 8))["NodeNames"] in ([], None)
    assert live.get("/v1/explain?pod=w").json["reason"] == "RECLAIMING"
    live.report(changed(tenant("a", 8)))
    assert live.get("/v1/explain?pod=w").json["reason"] == "UNKNOWN_TENANT"
    assert live.get("/v1/explain?pod=v1").json["tenant"] == "a"


def test_pod_whose_tenant_went_between_decision_and_bind_is_where_it_is(
    live: Live,
) -> None:
    live.filter(pod_json("u", "team-a", 8), ["n0"])
    bound = {"type": "PodBound", "uid": "u", "node": "n0"}
    assert live.report(changed(tenant("b", 8)), bound).json == {"applied": 2}
    assert live.get("/v1/explain?pod=u").json["reason"] == "RUNNING"
    live.on_loop(live.service._engine.check_invariants)


def test_later_lines_see_the_new_tenants(live: Live) -> None:
    bound = {
        "type": "PodBound",
        "uid": "x",
        "node": "n2",
        "pod": pod_json("x", "team-x"),
    }
    assert "is no tenant" in refused(live, bound | {"node": "n0"})
    joins = node(name="n2", gpuClass=H100, gpus=8)
    more = changed(tenant("a", 8), tenant("x", 16))  # more than there was
    assert "guarantees of h100-80gb: 8 + 16 > 16 available (a, x)" in refused(
        live, more
    )
    assert live.report(joins, more, bound).json == {"applied": 3}
    assert live.get("/v1/explain?pod=x").json["tenant"] == "x"


# -- what is refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (
            changed(tenant("a", 12), tenant("b", 8)),
            "line 2: tenants: guarantees of h100-80gb: 12 + 8 > 16 available (a, b)",
        ),
        (
            changed(tenant("a", 8), tenant("b", 8, limit={H100: 4})),
            "line 2: tenants: guarantee of h100-80gb: 8 is above its own limit of 4",
        ),
        (changed(), "line 2: tenants: there must be at least one"),
        (changed(tenant("a", -1)), "line 2: tenants[0].guarantee.h100-80gb: -1: Input"),
        (
            changed(tenant("a", quota=1)),
            "line 2: tenants[0].quota: unknown key (value 1)",
        ),
        (
            changed(tenant("a", limit={"h100": 1})),
            "line 2: tenants[0].limit.h100: 'h100' is no known GPU class or group",
        ),
        (
            changed(tenant("a"), tenant("b", namespaces=["team-a"])),
            "line 2: tenants[1].namespaces: 'team-a' belongs to 'a' already",
        ),
        (
            changed(tenant("a", parent="z")),
            "line 2: tenants[0].parent: 'z' is no tenant",
        ),
        (
            changed(tenant("a"), fleet={"groups": {"x": ["h100"]}}),
            "line 2: fleet.groups.x[0]: 'h100' is no known GPU class or group",
        ),
        (
            changed(tenant("a", burst=-1), fleet={"burst": 1}),
            "tenants[0].burst: -1: Input should be greater than or equal to 0",
        ),
        ({"type": "TenantsChanged"}, "missing required field `tenants`"),
        (changed() | {"queues": []}, "unknown field `queues`"),
        (
            {"type": "TenantsChanged", "tenants": 7},
            "line 2: tenants: 7: Input should be",
        ),
    ],
)
def test_worse_is_refused_with_key_and_numbers_and_changes_nothing(
    live: Live, event: dict[str, Any], message: str
) -> None:
    occupy(live)
    assert message in refused(live, node(**NOTHING | {"name": "new"}), event)


def test_all_faults_of_an_event_are_listed() -> None:
    with serving() as live:
        bad = changed(tenant("a", 99, parent="z"), tenant("a"), tenant("b", weight="1"))
        assert "tenants[2].weight" in refused(live, bad)
        bad["tenants"].pop()
        told = refused(live, bad)
        assert told == (
            "line 1: tenants: 'a' is defined 2 times; "
            "tenants[0].parent: 'z' is no tenant; "
            "tenants[1].namespaces: 'team-a' belongs to 'a' already"
        )


def test_node_may_not_be_of_a_class_that_is_a_group(live: Live) -> None:
    groups = {"groups": {"any": [H100, "a100-80gb"]}}
    assert live.report(changed(tenant("a"), fleet=groups)).status == 200
    told = refused(live, node(name="new", gpuClass="any", gpus=8))
    assert told == (
        "line 1: node.gpuClass: 'any' is the name of a class group (fleet.groups)"
    )


def test_fleet_that_is_left_out_stays(live: Live) -> None:
    groups = {"groups": {"any": [H100, "a100-80gb"]}}
    anyone = tenant("a") | {"guarantee": {"any": 8}}
    assert live.report(changed(anyone, fleet=groups)).status == 200
    assert live.report(changed(anyone, tenant("b"))).status == 200
    assert devices(row(live, "a", "any"), "guarantee", "promised") == [8, 8]
    told = refused(live, changed(anyone, fleet={}))
    assert told == (
        "line 1: tenants[0].guarantee.any: 'any' is no known GPU class or group"
    )
    occupy(live)
    page = Page(live)
    assert page.value("fairshare_promised_gpus", tenant="a", form="any") == 8
    assert page.value("fairshare_used_gpus", tenant="a") == 16  # once, not twice


# -- nodes are lost and come back ----------------------------------------------------


def test_lost_node_scales_guarantees_and_its_return_restores_them(live: Live) -> None:
    live.report(
        {"type": "PodBound", "uid": "v", "node": "n0", "pod": pod_json("v", gpus=8)}
    )
    unreachable = "Unreachable: guarantees of h100-80gb: 8 + 8 > 8 available (a, b)"
    assert live.report(node(**NOTHING)).status == 200
    for name in ("a", "b"):
        assert devices(row(live, name), "guarantee", "promised") == [4, 8]
        assert row(live, name)["conditions"] == [unreachable]
    live.filter(pod_json("w", "team-b", 4))
    told = live.get("/v1/explain?pod=w").json["detail"]
    assert "guaranteed 4 GPU (promised 8 GPU, which is not there)" in told
    page = Page(live)
    form = {"tenant": "a", "form": H100}
    assert page.value("fairshare_guarantee_gpus", **form) == 4
    assert page.value("fairshare_promised_gpus", **form) == 8
    assert page.value("fairshare_condition", condition="Unreachable", **form) == 1

    assert (
        live.report(changed(tenant("a", 8), tenant("b", 8))).status == 200
    )  # no worse
    assert live.report(changed(tenant("a", 7), tenant("b", 8))).status == 200
    worse = refused(live, changed(tenant("a", 9), tenant("b", 8)))
    assert "guarantees of h100-80gb: 9 + 8 > 8 available (a, b)" in worse
    worse = refused(live, changed(tenant("a", 8), tenant("b", 8)))  # 7 by now
    assert "guarantees of h100-80gb: 8 + 8 > 8 available (a, b)" in worse

    assert live.report(node(**WHOLE), changed(tenant("a", 8), tenant("b", 8))).json == {
        "applied": 2
    }
    for name in ("a", "b"):
        assert devices(row(live, name), "guarantee", "promised") == [8, 8]
        assert row(live, name)["conditions"] == []
    assert "promised" not in live.get("/v1/explain?pod=w").json["detail"]
    assert Page(live).value("fairshare_condition", **form) == 0
    assert live.get("/v1/explain?pod=v").json["reason"] == "RUNNING"


def test_what_is_promised_is_told_by_grpc_and_in_the_table(live: Live) -> None:
    live.report(node(**NOTHING))
    a, b = rpc.fetch_tenants(live.grpc, 5.0).rows
    assert (a.guarantee.devices, a.promised.devices) == (4, 8)
    (told,) = b.conditions
    done = fairshare("tenants", "--server", live.grpc)
    assert done.returncode == 0, done.stderr
    _, first, _, last = done.stdout.splitlines()
    assert first.split()[:6] == ["a", H100, "4", "of", "8", "0"]
    assert last == f"a, b: {told}"
    done = fairshare("tenants", "--json", "--server", live.grpc)
    assert json.loads(done.stdout)["rows"][0]["conditions"] == [told]
