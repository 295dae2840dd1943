"""Tenant and Fleet objects at a real API server: what it refuses, keeps and shows."""

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from scheduler.config import FleetSpec, TenantSpec, read_spec
from scheduler.core import QUANTA_PER_GPU, Form, TenantName, TenantUse
from scheduler.kube.owned import TenantObject
from scheduler.kube.tenants import Tenants
from tests.controlplane.client import MERGE, ApiError, Client, Object, eventually
from tests.controlplane.plane import ControlPlane

CRDS = Path(__file__).parents[2] / "deploy" / "crds"
H100 = "h100-80gb"


@pytest.fixture
def api(client: Client) -> Client:
    """A client of an API server that knows the two kinds."""
    for path in sorted(CRDS.glob("*.yaml")):
        manifest = yaml.safe_load(path.read_text())
        name = manifest["metadata"]["name"]
        if client.find("customresourcedefinitions", name) is None:
            client.create(manifest)
    for resource in ("tenants", "fleets"):
        eventually(partial(is_served, client, resource), 15)
    return client


def is_served(client: Client, resource: str) -> bool:
    try:
        client.items(resource)
    except ApiError:
        return False
    return True


def an_object(kind: str, name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "fairshare.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def selecting(**expression: Any) -> dict[str, Any]:
    return {"namespaces": {"matchExpressions": [expression]}}


GOOD_TENANTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "all": {
        "guarantee": {H100: 8, f"{H100}/1g.10gb": 7, f"{H100}/1g.10gb+me": 1, "any": 2},
        "parent": "top",
        "burst": 2.125,
        "limit": {H100: 8},
        "borrowingLimit": {H100: 0},
        "lendingLimit": {H100: 4},
        "weight": 3,
        "priority": -5,
        "inferenceBurst": {"a10-24gb/shared-4": 2},
        "inferenceCritical": {H100: 1},
        "preemptWithin": "never",
        "namespaces": {
            "matchLabels": {
                "example.com/team": "a",
                "kubernetes.io/metadata.name": "n",
            },
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["x", ""]},
                {"key": "tier", "operator": "Exists"},
            ],
        },
    },
    "weight 0 with a guarantee": {"weight": 0, "guarantee": {H100: 1}},
    "whole number for burst": {"burst": 2},
    "decimals that floats cannot hold": {"burst": 2.3},
    "smallest burst": {"burst": 0.001},
    "largest burst": {"burst": 999_999.999},
    "every namespace": selecting(key="kubernetes.io/metadata.name", operator="Exists"),
    "as many forms as there may be": {"guarantee": {f"c{i}-1gb": 1 for i in range(64)}},
}


@pytest.mark.parametrize("case", GOOD_TENANTS)
def test_what_the_service_understands_is_stored_as_it_was_written(
    api: Client, case: str
) -> None:
    spec = GOOD_TENANTS[case]
    stored = api.create(an_object("Tenant", "good", **spec))
    assert stored["spec"] == spec
    assert read_spec(TenantSpec, stored["spec"]) == read_spec(TenantSpec, spec)


BAD_TENANTS: dict[str, tuple[dict[str, Any], str]] = {
    "own parent": (
        {"parent": "bad"},
        "a tenant cannot be its own parent: leave parent away for a root",
    ),
    "upper case form": (
        {"guarantee": {"H100-80GB": 1}},
        "each key must be a GPU class (h100-80gb), a form of one",
    ),
    "two slashes": (
        {"limit": {f"{H100}/1g.10gb/x": 1}},
        "each key must be a GPU class (h100-80gb), a form of one",
    ),
    "long form": ({"lendingLimit": {"x" * 64: 1}}, "each key must be a GPU class"),
    "half a GPU": (
        {"guarantee": {H100: 0.5}},
        'spec.guarantee.h100-80gb: Invalid value: "number"',
    ),
    "less than none": (
        {"borrowingLimit": {H100: -1}},
        "spec.borrowingLimit.h100-80gb: Invalid value: -1",
    ),
    "guarantee above limit": (
        {"guarantee": {H100: 4}, "limit": {H100: 2}},
        "a guarantee is above the limit of the same form: raise limit or lower",
    ),
    "weight 0 for nothing": (
        {"weight": 0, "guarantee": {H100: 0}},
        "weight 0 without a guarantee could never hold anything: give a guarantee or",
    ),
    "too fine a burst": (
        {"burst": 1.0005},
        "spec.burst: Invalid value: 1.0005: must be a multiple of 0.001",
    ),
    "unknown policy": ({"preemptWithin": "always"}, 'supported values: "never"'),
    "unreadable parent": ({"parent": "Top"}, "spec.parent: Invalid value"),
    "empty selector": (
        {"namespaces": {}},
        "an empty selector is refused, as it could mean all or none: leave namespaces",
    ),
    "empty labels": ({"namespaces": {"matchLabels": {}}}, "an empty selector is"),
    "no label value": (
        {"namespaces": {"matchLabels": {"team": "a b"}}},
        "spec.namespaces.matchLabels.team: Invalid value",
    ),
    "no label key": (
        {"namespaces": {"matchLabels": {"a/b/c": "x"}}},
        "each key must be a label key, as kubernetes.io/metadata.name",
    ),
    "In without values": (
        selecting(key="a", operator="In"),
        "In and NotIn need values, Exists and DoesNotExist take none",
    ),
    "Exists with values": (
        selecting(key="a", operator="Exists", values=["x"]),
        "In and NotIn need values, Exists and DoesNotExist take none",
    ),
    "unknown operator": (selecting(key="a", operator="Gt"), 'supported values: "In"'),
    "too many forms": (
        {"guarantee": {f"c{i}-1gb": 1 for i in range(65)}},
        "must have at most 64 items",
    ),
}


@pytest.mark.parametrize("case", BAD_TENANTS)
def test_what_cannot_be_meant_is_refused_when_it_is_written(
    api: Client, case: str
) -> None:
    spec, told = BAD_TENANTS[case]
    with pytest.raises(ApiError) as refused:
        api.create(an_object("Tenant", "bad", **spec))
    assert refused.value.status == 422
    assert told in refused.value.message


def test_a_tenants_name_fits_into_a_label(api: Client) -> None:
    with pytest.raises(ApiError, match="at most 63 characters: choose a shorter one"):
        api.create(an_object("Tenant", "x" * 64))
    assert api.create(an_object("Tenant", "x" * 63))["metadata"]["name"] == "x" * 63


GOOD_FLEET: dict[str, Any] = {
    "groups": {"any-a100": ["a100-40gb", "a100-80gb"], "any": ["any-a100", H100]},
    "burstCeiling": {"any": 8},
    "values": {H100: 1.75},
    "prices": {H100: 2.495},
    "usageMemory": {"halfLife": "1h30m", "strength": 0.5},
    "classes": {"NVIDIA-H100-80GB-HBM3-Special": H100},
}

BAD_FLEETS: dict[str, tuple[str, dict[str, Any], str]] = {
    "other name": ("mine", {}, "there is one fleet: name it default"),
    "group in itself": (
        "default",
        {"groups": {"a": ["a"]}},
        "a group cannot be a member of itself: name GPU classes or other groups",
    ),
    "product of a group": (
        "default",
        {"groups": {"any": [H100]}, "classes": {"X": "any"}},
        "a product belongs to a GPU class, not to a group: name the class",
    ),
    "no duration": (
        "default",
        {"usageMemory": {"halfLife": "a week"}},
        "spec.usageMemory.halfLife: Invalid value",
    ),
    "free": ("default", {"prices": {H100: 0}}, "spec.prices.h100-80gb: Invalid value"),
    "group with a slash": (
        "default",
        {"groups": {"a/b": [H100]}},
        "each key must be a GPU class (h100-80gb) or class group, in lower case",
    ),
}


def test_a_fleet_is_stored_as_it_was_written(api: Client) -> None:
    stored = api.create(an_object("Fleet", "default", **GOOD_FLEET))
    assert stored["spec"] == GOOD_FLEET
    assert read_spec(FleetSpec, stored["spec"]).prices == {H100: 2495}


@pytest.mark.parametrize("case", BAD_FLEETS)
def test_a_fleet_that_cannot_be_meant_is_refused(api: Client, case: str) -> None:
    name, spec, told = BAD_FLEETS[case]
    with pytest.raises(ApiError) as refused:
        api.create(an_object("Fleet", name, **spec))
    assert refused.value.status == 422
    assert told in refused.value.message


# -- status -----------------------------------------------------------------------


def read_tenant(api: Client, name: str) -> TenantObject:
    text = msgspec.json.encode(api.get("tenants", name))
    return msgspec.json.decode(text, type=TenantObject)


def write_status(api: Client, tenants: Tenants, name: str) -> Object:
    update = tenants.update_of(TenantName(name))
    assert update is not None
    path, body = update
    return api.request("PUT", path, msgspec.json.decode(body))


def use(name: str) -> TenantUse:
    """Ten GPUs used of eight guaranteed, two and a half more asked for."""
    gpus = {"guarantee": 8, "promised": 8, "used": 10, "covered": 8, "pending": 2.5}
    amounts = {key: round(count * QUANTA_PER_GPU) for key, count in gpus.items()}
    return TenantUse(
        name=TenantName(name),
        parent=None,
        form=Form(H100),
        share=9 * QUANTA_PER_GPU,
        leaving=0,
        limit=None,
        **amounts,
    )


def test_statuses_are_written_shown_and_outlive_a_restart(
    plane: ControlPlane, api: Client
) -> None:
    api.create(an_object("Tenant", "research", guarantee={H100: 8}))
    api.create(an_object("Tenant", "greedy", parent="research", guarantee={H100: 9}))
    api.create(an_object("Tenant", "silent"))
    tenants = Tenants()
    for name in ("research", "greedy", "silent"):
        tenants.changed_tenant(read_tenant(api, name))
    tenants.resolve({H100}, {Form(H100): 16 * QUANTA_PER_GPU})
    written = tenants.statuses([use("research")], "2026-11-21T12:00:00Z")
    assert len(written) == 3
    for name, status in written.items():
        assert write_status(api, tenants, name)["status"] == status
        tenants.changed_tenant(read_tenant(api, name))
    assert tenants.statuses([use("research")], "2026-11-21T12:00:09Z") == {}

    table = plane.kubectl("get", "tenants").splitlines()
    columns = "NAME GUARANTEED USED BURST PENDING FAIR READY REASON AGE"
    assert " ".join(table[0].split()) == columns
    rows = {row.split()[0]: row.split()[1:-1] for row in table[1:]}
    assert rows["research"] == ["8", "10", "2", "2.5", "9", "True", "InForce"]
    assert rows["greedy"] == ["0", "0", "0", "0", "0", "False", "Refused"]
    assert " PARENT " in plane.kubectl("get", "ten", "-o", "wide")
    told = plane.kubectl("describe", "tenant", "greedy")
    assert "guarantees of h100-80gb: 9 > 8 guaranteed to research (greedy)" in told
    plane.kubectl("wait", "--for=condition=Ready", "tenant/research", "--timeout=5s")

    spec = {"spec": {"guarantee": {H100: 99}}}
    api.patch("tenants", "research", spec, form=MERGE)
    again = Tenants()
    again.changed_tenant(read_tenant(api, "research"))
    resolved = again.resolve({H100}, {Form(H100): 16 * QUANTA_PER_GPU})
    (queue,) = resolved.tenancy.queues
    assert dict(queue.guarantee) == {H100: 8}
    assert list(resolved.refused) == ["research"]


def test_an_owner_writes_the_spec_and_the_service_the_status(api: Client) -> None:
    created = an_object("Tenant", "a", guarantee={H100: 1})
    status = {"observedGeneration": 7, "conditions": []}
    api.create(created | {"status": status})
    assert "status" not in api.get("tenants", "a")
    both = {"spec": {"weight": 2}, "status": status}
    stored = api.patch("tenants", "a", both, form=MERGE)
    assert "status" not in stored
    assert stored["metadata"]["generation"] == 2
    stored = api.patch(
        "tenants",
        "a",
        {"spec": {"weight": 3}, "status": status},
        form=MERGE,
        subresource="status",
    )
    assert stored["status"] == status
    assert stored["spec"]["weight"] == 2
    assert stored["metadata"]["generation"] == 2


def test_a_status_of_an_object_that_changed_since_is_not_written(api: Client) -> None:
    api.create(an_object("Tenant", "a"))
    tenants = Tenants()
    tenants.changed_tenant(read_tenant(api, "a"))
    tenants.resolve(set(), None)
    assert list(tenants.statuses([], "2026-11-21T12:00:00Z")) == ["a"]
    api.patch("tenants", "a", {"spec": {"weight": 2}}, form=MERGE)
    with pytest.raises(ApiError) as refused:
        write_status(api, tenants, "a")
    assert refused.value.status == 409
