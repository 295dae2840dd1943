"""Tenant and Fleet objects: what they may say, and what of it is in force."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scheduler.config import ConfigError, FleetSpec, TenantSpec, queue_from, read_spec
from scheduler.config.schema import FleetConfig, TenantConfig
from tests.tenant_objects import (
    H100,
    NOON,
    Json,
    conditions,
    fleet,
    guarantees,
    h100,
    known,
    namespace,
    parents,
    resolve,
    selecting,
    tell,
    tenant,
)

ROOT = Path(__file__).parent.parent


# -- terms -----------------------------------------------------------------------


def test_an_object_says_the_same_as_the_file() -> None:
    terms = {
        "guarantee": {H100: 4, f"{H100}/1g.10gb": 8},
        "burst": 2.5,
        "weight": 3,
        "priority": -1,
        "limit": h100(8),
        "preemptWithin": "never",
        "inferenceBurst": h100(2),
        "inferenceCritical": h100(1),
    }
    of_file = TenantConfig.model_validate({"name": "a", **terms})
    of_object = read_spec(TenantSpec, terms)
    assert queue_from(of_object, "a", 0) == queue_from(of_file, "a", 0)
    assert queue_from(of_object, "a", 0).burst_milli == 2500
    only_file, only_object = {"name", "namespaces"}, {"namespaces"}
    shared = TenantConfig.model_fields.keys() - only_file
    assert TenantSpec.model_fields.keys() - only_object == shared
    assert FleetConfig.model_fields.keys() < FleetSpec.model_fields.keys()


REFUSED_SPECS = {
    "unknown key": (TenantSpec, {"quota": 1}, "spec.quota: unknown key (value 1)"),
    "negative": (
        TenantSpec,
        {"guarantee": h100(-1)},
        "spec.guarantee.h100-80gb: -1: Input should be greater than or equal to 0",
    ),
    "no number": (
        TenantSpec,
        {"burst": "much"},
        "spec.burst: 'much': must be a number with at most three decimals",
    ),
    "empty selector": (
        TenantSpec,
        {"namespaces": {"matchLabels": {}}},
        "spec.namespaces: {'matchLabels': {}}: is empty: leave it away for no",
    ),
    "values without operator for them": (
        TenantSpec,
        {"namespaces": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        "spec.namespaces.matchExpressions[0]: {'key': 'a', 'operator': 'In'}: In and",
    ),
    "no label": (
        TenantSpec,
        {"namespaces": {"matchLabels": {"team": "not a label"}}},
        "spec.namespaces.matchLabels.team: 'not a label': String should match pattern",
    ),
    "free": (FleetSpec, {"prices": h100(0)}, "spec.prices.h100-80gb: 0: Input should"),
}


@pytest.mark.parametrize("case", REFUSED_SPECS)
def test_specs_without_meaning_name_key_and_value(case: str) -> None:
    model, spec, told = REFUSED_SPECS[case]
    with pytest.raises(ConfigError) as caught:
        read_spec(model, spec)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("asked", "matching"),
    [
        ({"matchLabels": {"team": "a"}}, "ab"),
        ({"matchLabels": {"team": "a", "tier": "x"}}, "a"),
        ({"matchExpressions": [("team", "In", ["a", "b"])]}, "abc"),
        ({"matchExpressions": [("tier", "NotIn", ["x"])]}, "bcd"),
        ({"matchExpressions": [("tier", "Exists", [])]}, "ac"),
        ({"matchExpressions": [("team", "DoesNotExist", [])]}, "d"),
        (
            {
                "matchLabels": {"team": "a"},
                "matchExpressions": [("tier", "DoesNotExist", [])],
            },
            "b",
        ),
    ],
)
def test_selectors_match_as_those_of_kubernetes(asked: Json, matching: str) -> None:
    there = {
        "a": {"team": "a", "tier": "x"},
        "b": {"team": "a"},
        "c": {"team": "b", "tier": "y"},
        "d": {},
    }
    names = ("key", "operator", "values")
    expressions = asked.pop("matchExpressions", ())
    asked["matchExpressions"] = [dict(zip(names, e, strict=True)) for e in expressions]
    found = known(
        tenant("t", namespaces=asked),
        *(namespace(name, **labels) for name, labels in there.items()),
    )
    assert "".join(resolve(found).tenancy.owners) == matching


# -- what is in force ------------------------------------------------------------


def test_a_child_may_be_written_before_its_parent() -> None:
    child = tenant("child", born=1, parent="parent", guarantee=h100(4))
    tenants = known(child)
    resolved = resolve(tenants)
    assert guarantees(resolved) == {}
    assert resolved.refused == {"child": "spec.parent: 'parent' is no tenant"}
    tell(tenants, tenant("parent", born=2, guarantee=h100(8)))
    resolved = resolve(tenants)
    assert parents(resolved) == {"child": "parent", "parent": None}
    assert resolved.refused == {}


def test_what_is_refused_keeps_its_last_accepted_terms_and_hurts_nobody() -> None:
    tenants = known(
        tenant("a", 0, guarantee=h100(8)), tenant("b", 1, guarantee=h100(8))
    )
    assert guarantees(resolve(tenants)) == {"a": 8, "b": 8}
    tell(tenants, tenant("a", 0, generation=2, guarantee=h100(9)))
    tell(tenants, tenant("b", 1, generation=2, guarantee=h100(8), weight=2))
    resolved = resolve(tenants)
    assert guarantees(resolved) == {"a": 8, "b": 8}
    assert [queue.weight for queue in resolved.tenancy.queues] == [1, 2]
    assert resolved.refused == {
        "a": "guarantees of h100-80gb: 9 + 8 > 16 available (a, b)"
    }
    assert guarantees(resolve(tenants, gpus=17)) == {"a": 9, "b": 8}, "nodes came"


def test_terms_that_mean_nothing_leave_the_last_ones_in_force() -> None:
    tenants = known(tenant("a", guarantee=h100(8)))
    resolve(tenants)
    tell(tenants, tenant("a", generation=2, guarantee=h100(8), color="red"))
    resolved = resolve(tenants)
    assert guarantees(resolved) == {"a": 8}
    assert resolved.refused == {"a": "spec.color: unknown key (value 'red')"}
    tell(tenants, tenant("a", generation=3, guarantee=h100(8)))
    assert resolve(tenants).refused == {}


def test_guarantees_above_the_capacity_are_accepted_by_age() -> None:
    tenants = known(
        tenant("young", 3, guarantee=h100(8)),
        tenant("old", 1, guarantee=h100(8)),
        tenant("middle", 2, guarantee=h100(4)),
        tenant("twin", 3, guarantee=h100(4)),
    )
    resolved = resolve(tenants)
    assert guarantees(resolved) == {"old": 8, "middle": 4, "twin": 4}
    assert "young" in resolved.refused, "of the same second: after twin, by its name"


def test_two_that_swap_are_accepted_together() -> None:
    tenants = known(
        tenant("a", 0, guarantee=h100(12)), tenant("b", 1, guarantee=h100(4))
    )
    resolve(tenants)
    tell(tenants, tenant("a", 0, generation=2, guarantee=h100(4)))
    tell(tenants, tenant("b", 1, generation=2, guarantee=h100(12)))
    assert guarantees(resolve(tenants)) == {"a": 4, "b": 12}


def test_a_cycle_is_refused_where_it_is_closed() -> None:
    tenants = known(tenant("a", 0), tenant("b", 1, parent="a"))
    resolve(tenants)
    tell(tenants, tenant("a", 0, generation=2, parent="b"))
    resolved = resolve(tenants)
    assert parents(resolved) == {"a": None, "b": "a"}
    assert resolved.refused == {"a": "spec.parent: 'b': a cycle, a -> b -> a"}


def test_a_new_cycle_has_no_one_in_force() -> None:
    resolved = resolve(known(tenant("a", 0, parent="b"), tenant("b", 1, parent="a")))
    assert parents(resolved) == {}
    assert resolved.refused == {
        "a": "spec.parent: 'b' is not in force itself, see its status",
        "b": "spec.parent: 'a' is not in force itself, see its status",
    }


def test_children_of_a_deleted_parent_stand_as_roots_until_it_is_back() -> None:
    tenants = known(
        tenant("top", 0, guarantee=h100(8)),
        tenant("a", 1, parent="top", guarantee=h100(4)),
    )
    resolve(tenants)
    tenants.gone_tenant("uid-top")
    resolved = resolve(tenants)
    assert parents(resolved) == {"a": None}
    assert guarantees(resolved) == {"a": 4}
    assert resolved.refused == {}
    found = conditions(tenants.statuses([], NOON)["a"])
    assert found["Ready"] == ("False", "Orphan")
    tell(tenants, tenant("top", 9, uid="other", guarantee=h100(2)))
    resolved = resolve(tenants)
    assert resolved.refused == {
        "top": "guarantees of h100-80gb: 4 > 2 guaranteed to top (a)"
    }
    tell(tenants, tenant("top", 9, generation=2, uid="other", guarantee=h100(4)))
    assert parents(resolve(tenants)) == {"a": "top", "top": None}
    assert "Orphan" not in conditions(tenants.statuses([], NOON)["a"])


def test_the_old_object_of_a_name_may_go_after_the_new_one_came() -> None:
    """So it is told when both happened while nobody watched."""
    tenants = known(tenant("a", guarantee=h100(8)))
    resolve(tenants)
    tell(tenants, tenant("a", uid="new", guarantee=h100(20)))
    tenants.gone_tenant("uid-a")
    resolved = resolve(tenants)
    assert guarantees(resolved) == {}, "what the old one was promised is not the new's"
    assert "a" in resolved.refused


def test_lost_nodes_refuse_nothing_that_is_in_force() -> None:
    tenants = known(tenant("a", guarantee=h100(16)))
    resolve(tenants)
    assert guarantees(resolve(tenants, gpus=8)) == {"a": 16}
    tell(tenants, tenant("a", generation=2, guarantee=h100(12)))
    resolved = resolve(tenants, gpus=8)
    assert guarantees(resolved) == {"a": 12}, "less than before, though still too much"


def test_order_of_arrival_does_not_matter() -> None:
    objects = [
        tenant("top", 5, guarantee=h100(8)),
        tenant("a", 1, parent="top", guarantee=h100(4)),
        tenant("b", 2, parent="top", guarantee=h100(6)),
        tenant("c", 3, guarantee=h100(8), namespaces=selecting(team="c")),
        fleet(groups={"any": [H100]}),
    ]
    one, other = known(*objects), known(*reversed(objects))
    assert resolve(one) == resolve(other)
    assert list(resolve(one).refused) == ["b"]


# -- the fleet -------------------------------------------------------------------


def test_the_fleet_is_accepted_with_the_tenants_that_need_it() -> None:
    tenants = known(
        tenant("a", guarantee={"any": 4}),
        fleet(
            groups={"any": [H100]},
            prices={H100: 2.5},
            classes={"NVIDIA-H100-Special": H100},
            usageMemory={"halfLife": "24h"},
        ),
    )
    resolved = resolve(tenants)
    assert resolved.refused == {}
    assert resolved.prices == {H100: 2500}
    assert resolved.products == {"NVIDIA-H100-Special": H100}
    assert resolved.tenancy.fleet is not None
    assert resolved.tenancy.fleet.half_life_s == 86_400


def test_a_group_that_tenants_name_cannot_be_taken_away() -> None:
    tenants = known(tenant("a", guarantee={"any": 4}), fleet(groups={"any": [H100]}))
    resolve(tenants)
    tell(tenants, fleet(generation=2))
    resolved = resolve(tenants)
    assert resolved.tenancy.fleet is not None
    assert [group.name for group in resolved.tenancy.fleet.groups] == ["any"]
    status = tenants.fleet_status(NOON)
    assert status is not None
    assert conditions(status)["Ready"] == ("False", "Refused")
    told = status["conditions"][1]["message"]
    assert told.startswith("generation 2 is refused: tenant a: spec.guarantee.any: ")
    assert told.endswith("; generation 1 stays in force")


def test_only_the_fleet_named_default_counts_and_it_may_go() -> None:
    tenants = known(fleet(name="other", groups={"any": [H100]}))
    assert resolve(tenants).tenancy.fleet == resolve(known()).tenancy.fleet
    assert tenants.fleet_status(NOON) is None
    tell(tenants, fleet(groups={"any": [H100]}))
    assert resolve(tenants).tenancy.fleet != resolve(known()).tenancy.fleet
    tenants.gone_fleet("uid-default")
    assert resolve(tenants).tenancy.fleet == resolve(known()).tenancy.fleet


def test_a_product_is_of_a_class_and_not_of_a_group() -> None:
    tenants = known(fleet(groups={"any": [H100]}, classes={"X": "any"}))
    resolve(tenants)
    status = tenants.fleet_status(NOON)
    assert status is not None
    assert "spec.classes.X: 'any' is a group" in status["conditions"][0]["message"]


# -- namespaces ------------------------------------------------------------------


def test_a_namespace_that_two_select_belongs_to_the_older() -> None:
    tenants = known(
        tenant("young", 2, namespaces=selecting(team="x")),
        tenant("old", 1, namespaces=selecting(gpu="yes")),
        namespace("both", team="x", gpu="yes"),
        namespace("mine", team="x"),
    )
    assert resolve(tenants).tenancy.owners == {"both": "old", "mine": "young"}
    status = tenants.statuses([], NOON)
    assert status["young"]["namespaces"] == ["mine"]
    assert status["old"]["namespaces"] == ["both"]
    assert conditions(status["young"])["Ready"] == ("False", "Contested")
    assert "both (to old)" in status["young"]["conditions"][0]["message"]
    tell(tenants, namespace("both", team="x"))
    assert resolve(tenants).tenancy.owners == {"both": "young", "mine": "young"}
    tenants.gone_namespace("uid-mine")
    assert resolve(tenants).tenancy.owners == {"both": "young"}


def test_pods_belong_to_leaves() -> None:
    tenants = known(
        tenant("top", 0, namespaces=selecting(team="x")),
        tenant("child", 1, parent="top"),
        namespace("n", team="x"),
    )
    resolved = resolve(tenants)
    assert resolved.refused == {
        "child": "tenant top: spec.namespaces: 'top' has children, as 'child'; pods "
        "belong to its leaves: leave namespaces away"
    }
    tell(tenants, tenant("top", 0, generation=2))
    resolved = resolve(tenants)
    assert resolved.refused == {}
    assert resolved.tenancy.owners == {}


def test_a_namespace_may_come_again_before_the_old_one_is_told_gone() -> None:
    tenants = known(tenant("a", namespaces=selecting(team="x")))
    tell(tenants, namespace("n", uid="first", team="x"))
    tell(tenants, namespace("n", uid="second", team="x"))
    tenants.gone_namespace("first")
    assert resolve(tenants).tenancy.owners == {"n": "a"}


def test_queues_are_as_old_as_their_objects() -> None:
    queues = resolve(known(tenant("b", 1), tenant("a", 2))).tenancy.queues
    assert [queue.name for queue in queues] == ["b", "a"]
    assert queues[1].order - queues[0].order == 60


# -- manifests -------------------------------------------------------------------


def test_the_manifests_are_current() -> None:
    script = ROOT / "deploy" / "tools" / "generate_crds.py"
    done = subprocess.run([sys.executable, script, "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("path", sorted((ROOT / "deploy" / "crds").glob("*.yaml")))
def test_every_part_of_a_schema_is_bounded(path: Path) -> None:
    """The API server reckons what rules may cost at worst, and refuses dear ones."""
    manifest = yaml.safe_load(path.read_text())
    (version,) = manifest["spec"]["versions"]
    root = version["schema"]["openAPIV3Schema"]
    unbounded = set(unbounded_parts(root["properties"]["spec"], "spec"))
    assert unbounded == set()
    assert manifest["spec"]["scope"] == "Cluster"
    assert version["subresources"] == {"status": {}}


def unbounded_parts(node: Json, where: str) -> list[str]:
    needed = {"array": "maxItems", "string": "maxLength", "integer": "maximum"}
    bound = needed.get(node["type"])
    if node["type"] == "object" and "additionalProperties" in node:
        bound = "maxProperties"
    found = [where] if bound and bound not in node and "enum" not in node else []
    for name, inside in node.get("properties", {}).items():
        found += unbounded_parts(inside, f"{where}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            found += unbounded_parts(node[key], f"{where}.{key}")
    return found
