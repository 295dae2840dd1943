"""What Tenant and Fleet objects' statuses say, and what is taken from them again."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.config.objects import FleetStatus, TenantStatus
from scheduler.core import (
    QUANTA_PER_GPU,
    Engine,
    Form,
    TenantsChanged,
    TenantUse,
)
from scheduler.kube.owned import TenantObject
from scheduler.kube.statuses import decimals
from scheduler.kube.tenants import Tenants
from tests.tenant_objects import (
    H100,
    LATER,
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

# -- after a restart -------------------------------------------------------------


def restarted(*objects: TenantObject, statuses: Json) -> Tenants:
    """Tenants that know the objects with the statuses that were written."""
    for obj in objects:
        obj.status = statuses[obj.metadata.name]
    return known(*objects)


def test_the_last_accepted_terms_outlive_a_restart() -> None:
    tenants = known(
        tenant("a", 0, guarantee=h100(8)), tenant("b", 1, guarantee=h100(8))
    )
    resolve(tenants)
    written = tenants.statuses([], NOON)
    changed = tenant("a", 0, generation=2, guarantee=h100(9))
    again = restarted(
        changed, tenant("b", 1, guarantee=h100(8)), statuses=dict(written)
    )
    assert guarantees(resolve(again)) == {"a": 8, "b": 8}
    status = again.statuses([], LATER)
    assert list(status) == ["a"], "b's status says all there is to say"
    assert status["a"]["accepted"] == {"generation": 1, "spec": {"guarantee": h100(8)}}


def test_an_orphan_is_one_after_a_restart_too() -> None:
    tenants = known(tenant("top", 0), tenant("a", 1, parent="top"))
    resolve(tenants)
    written = tenants.statuses([], NOON)
    again = restarted(tenant("a", 1, parent="top"), statuses=dict(written))
    assert parents(resolve(again)) == {"a": None}


BROKEN_STATUSES: dict[str, Json] = {
    "nothing": {},
    "not ours": {"accepted": "yes"},
    "unknown key": {"accepted": {"generation": 1, "spec": {"quota": 1}}},
    "profile without table": {
        "accepted": {"generation": 1, "spec": {"guarantee": {f"{H100}/9g.1gb": 1}}}
    },
    "own parent": {"accepted": {"generation": 1, "spec": {"parent": "a"}}},
}


@pytest.mark.parametrize("case", BROKEN_STATUSES)
def test_a_status_that_cannot_be_used_is_one_of_a_new_object(case: str) -> None:
    tenants = known(tenant("a", status=BROKEN_STATUSES[case], guarantee=h100(20)))
    resolved = resolve(tenants)
    assert guarantees(resolved) == {}
    assert list(resolved.refused) == ["a"]


def test_statuses_of_different_times_make_no_cycle() -> None:
    was = {"accepted": {"generation": 1, "spec": {"parent": "b"}}}
    tenants = known(tenant("a", status=was, generation=2))
    was = {"accepted": {"generation": 1, "spec": {"parent": "a"}}}
    tell(tenants, tenant("b", status=was, parent="a"))
    resolved = resolve(tenants)
    assert parents(resolved) == {"a": None, "b": "a"}
    assert resolved.refused == {}


# -- what owners are told --------------------------------------------------------


def use(name: str, form: str = H100, conditions: tuple[str, ...] = (), **gpus: float):
    amounts = dict.fromkeys(
        ("guarantee", "promised", "used", "covered", "pending", "share", "leaving"), 0
    )
    amounts |= {key: round(count * QUANTA_PER_GPU) for key, count in gpus.items()}
    limit = amounts.pop("limit", None)
    return TenantUse(
        name=name,
        parent=None,
        form=Form(form),
        conditions=conditions,
        limit=limit,
        **amounts,
    )


def test_a_status_says_who_holds_what_as_people_read_it() -> None:
    tenants = known(tenant("a", guarantee=h100(8)), fleet(groups={"any": [H100]}))
    resolve(tenants)
    rows = [
        use("a", guarantee=8, promised=8, used=10, covered=8, share=9, limit=12),
        use("a", f"{H100}/1g.10gb", used=0.375, pending=0.125),
        use("a", "any", guarantee=2, promised=4, used=10.375, share=9),
        use("gone", used=1),
    ]
    status = tenants.statuses(rows, NOON)["a"]
    assert status["totals"] == {
        "guaranteed": "10",
        "used": "10.375",
        "burst": "2.375",
        "pending": "0.125",
        "fair": "9",
    }
    slices = status["classes"][2]
    assert (slices["form"], slices["used"], slices["pending"]) == (
        f"{H100}/1g.10gb",
        "3",
        "1",
    )
    assert status["classes"][1]["limit"] == "12"
    assert "limit" not in slices
    assert conditions(status) == {
        "Ready": ("True", "InForce"),
        "Accepted": ("True", "InForce"),
    }
    TenantStatus.model_validate(status)


def test_a_status_is_handed_out_once_and_keeps_its_times() -> None:
    tenants = known(tenant("a", guarantee=h100(8)))
    resolve(tenants)
    first = tenants.statuses([use("a", used=1)], NOON)["a"]
    assert tenants.statuses([use("a", used=1)], LATER) == {}
    busier = tenants.statuses([use("a", used=2)], LATER)["a"]
    assert busier["conditions"] == first["conditions"], "nothing turned"
    short = use("a", used=2, conditions=("Unreachable: 8 > 4 available (a)",))
    worse = tenants.statuses([short], LATER)["a"]
    times = {c["type"]: c["lastTransitionTime"] for c in worse["conditions"]}
    assert times == {"Ready": LATER, "Accepted": NOON, "Unreachable": LATER}
    assert conditions(worse)["Ready"] == ("False", "Unreachable")
    assert worse["conditions"][0]["message"] == "8 > 4 available (a)"
    tenants.untold("a")  # type: ignore[arg-type]
    assert list(tenants.statuses([short], LATER)) == ["a"], "it was not written"
    TenantStatus.model_validate(worse)


def test_a_status_that_somebody_changed_is_put_right() -> None:
    tenants = known(tenant("a"))
    resolve(tenants)
    status = tenants.statuses([], NOON)["a"]
    tell(tenants, tenant("a", status={**status, "totals": {"used": "99"}}))
    resolve(tenants)
    assert tenants.statuses([], LATER) == {"a": status}


def test_a_written_status_comes_back_and_changes_nothing() -> None:
    tenants = known(tenant("a", guarantee=h100(20)), tenant("b", 1))
    resolve(tenants)
    for name, status in tenants.statuses([], NOON).items():
        spec = {"guarantee": h100(20)} if name == "a" else {}
        tell(tenants, tenant(name, name == "b", status=status, **spec))
    assert tenants.statuses([], LATER) == {}
    tell(tenants, tenant("b", 1, generation=2, weight=2))
    assert tenants.statuses([], LATER) == {}, "nobody knows yet what becomes of it"
    resolve(tenants)
    assert list(tenants.statuses([], LATER)) == ["b"]


def test_a_refusal_says_what_stays_in_force() -> None:
    tenants = known(tenant("a", guarantee=h100(20)))
    resolve(tenants)
    status = tenants.statuses([], NOON)["a"]
    assert status["conditions"][1]["message"] == (
        "generation 1 is refused: guarantees of h100-80gb: 20 > 16 available (a); "
        "nothing of it is in force"
    )
    assert "accepted" not in status
    TenantStatus.model_validate(status)


def test_a_fleets_status_is_written_like_a_tenants() -> None:
    tenants = known(fleet(generation=3, groups={"any": [H100]}))
    resolve(tenants)
    status = tenants.fleet_status(NOON)
    FleetStatus.model_validate(status)
    assert tenants.fleet_status(LATER) is None
    update = tenants.update_of(None)
    assert update is not None
    path, body = update
    assert path == "/apis/fairshare.dev/v1alpha1/fleets/default/status"
    assert msgspec.json.decode(body) == {
        "apiVersion": "fairshare.dev/v1alpha1",
        "kind": "Fleet",
        "metadata": {
            "name": "default",
            "uid": "uid-default",
            "resourceVersion": "1003",
        },
        "status": status,
    }


def test_amounts_are_written_without_noise() -> None:
    unit = QUANTA_PER_GPU
    told = [
        decimals(n, unit) for n in (0, 8 * unit, unit // 2, unit // 3, 10**6 * unit)
    ]
    assert told == ["0", "8", "0.5", "0.333", "1000000"]


# -- any objects -----------------------------------------------------------------

NAMES = st.sampled_from("abcde")
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "parent": NAMES,
        "guarantee": st.integers(0, 6).map(h100),
        "limit": st.integers(0, 9).map(h100),
        "weight": st.integers(0, 2),
        "namespaces": st.sampled_from([selecting(team="x"), selecting(team="y")]),
    },
)
STEPS = st.lists(
    st.one_of(
        st.tuples(NAMES, SPECS),
        st.tuples(NAMES, st.none()),
        st.tuples(st.just("nodes"), st.integers(0, 16)),
    ),
    max_size=14,
)


@given(STEPS)
def test_whatever_is_written_the_tree_can_be_had(steps: list[Any]) -> None:
    """The engine takes every tree, and an unchanged object is judged once and for all.

    A service that starts anew, from the objects and their statuses, goes on from there.
    """
    tenants, engine, gpus = known(namespace("n", team="x")), Engine(), 16
    objects: dict[str, TenantObject] = {}
    for number, (name, what) in enumerate(steps):
        if name == "nodes":
            gpus = what
        elif what is None:
            tenants.gone_tenant(f"uid-{name}")
            objects.pop(name, None)
        else:
            objects[name] = tenant(name, ord(name) % 10, number, **what)
            tell(tenants, objects[name])
        resolved = resolve(tenants, gpus)
        engine.observe(
            TenantsChanged(resolved.tenancy.queues, resolved.tenancy.fleet), 0.0
        )
        for key, status in tenants.statuses([], NOON).items():
            objects[key].status = status
            TenantStatus.model_validate(status)
        assert resolve(tenants, gpus) == resolved
        assert tenants.statuses([], LATER) == {}
        again = known(namespace("n", team="x"), *objects.values())
        assert resolve(again, gpus) == resolved
