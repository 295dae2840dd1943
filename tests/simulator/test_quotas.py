"""What owners may say in a trace and in a cluster file, and what is refused where."""

from pathlib import Path

import pytest

from scheduler.core import Fleet, Form, Group, PreemptWithin
from simulator.trace import RowErrors, Trace, TraceError, merge, read_cluster, settle
from tests.simulator.test_trace import read

OWNED = """\
[groups]
name,members
any-a100,a100-40gb a100-80gb

[fleet]
burst_ceiling,values,half_life_s,memory_strength
any-a100:4,h100-80gb:1.75,604800,0.5

[tenants]
name,guarantee,burst,inference_burst,inference_critical,preempt_within
a,any-a100:2,2.0,any-a100:1,any-a100:1,never
b,,0.125,,,
"""


def test_all_that_an_owner_may_say_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, OWNED)
    a, b = found.tenants
    group = Form("any-a100")
    assert (a.guarantee, a.burst_milli) == (((group, 2),), 2000)
    assert (a.inference_burst, a.critical) == (((group, 1),), ((group, 1),))
    assert a.preempt_within is PreemptWithin.NEVER
    assert (b.burst_milli, b.preempt_within) == (125, PreemptWithin.LOWER_PRIORITY)
    assert found.fleet == OWNED_FLEET


OWNED_FLEET = Fleet(
    groups=(
        Group(name=Form("any-a100"), members=(Form("a100-40gb"), Form("a100-80gb"))),
    ),
    burst_ceiling=((Form("any-a100"), 4),),
    values=(("h100-80gb", 1750),),
    half_life_s=604800.0,
    memory_strength_milli=500,
)


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("any-a100,a100-40gb a100-80gb", "any-a100,", 3, "members"),
        ("h100-80gb:1.75", "h100-80gb:much", 7, "values"),
        ("h100-80gb:1.75", "h100-80gb:0", 7, "values"),
        ("h100-80gb:1.75", "h100-80gb:1.7555", 7, "values"),
        ("604800", "-1", 7, "half_life_s"),
        ("604800,0.5", "604800,0.5\n,,,", 8, "row"),
        ("2.0,any", "twice,any", 11, "burst"),
        ("2.0,any", "-2,any", 11, "burst"),
        (",never", ",sometimes", 11, "preempt_within"),
    ],
)
def test_what_an_owner_may_not_say_is_found_by_its_line(
    tmp_path: Path, old: str, new: str, line: int, field: str
) -> None:
    with pytest.raises(TraceError) as caught:
        read(tmp_path, OWNED.replace(old, new, 1))
    assert (caught.value.line, caught.value.field) == (line, field)


OWNERS = """\
nodes: [{name: n0, gpuClass: a100-40gb, gpus: 4}]
fleet:
  groups: {any-a100: [a100-40gb, a100-80gb]}
  burstCeiling: {any-a100: 4}
  values: {h100-80gb: 1.75}
  usageMemory: {halfLife: 168h, strength: 0.5}
tenants:
  - name: a
    guarantee: {any-a100: 2}
    burst: 2.0
    inferenceBurst: {any-a100: 1}
    inferenceCritical: {any-a100: 1}
    preemptWithin: never
  - {name: b, burst: 0.125}
"""


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "fairshare.yaml"
    path.write_text(OWNERS)
    found, other = read_cluster(path), read(tmp_path, OWNED)
    assert found.fleet == other.fleet == OWNED_FLEET
    assert found.tenants == other.tenants
    assert merge([found, Trace(jobs=())], RowErrors()).fleet == OWNED_FLEET
    settle(found, (), {})


def test_the_fleet_is_described_once(tmp_path: Path) -> None:
    one = Trace(jobs=(), fleet=OWNED_FLEET)
    assert merge([one, one], RowErrors()).fleet == OWNED_FLEET
    with pytest.raises(TraceError, match=r"traces: fleet: it is described twice$"):
        merge([one, Trace(jobs=(), fleet=Fleet(half_life_s=1.0))], RowErrors())


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("2.0", "2.0005", 10, "tenants.0.burst"),
        ("2.0", "yes", 10, "tenants.0.burst"),
        ("never", "sometimes", 13, "tenants.0.preemptWithin"),
        ("168h", "a week", 6, "fleet.usageMemory.halfLife"),
        ("168h", "0s", 6, "fleet.usageMemory.halfLife"),
        ("1.75", "0", 5, "fleet.values.h100-80gb"),
        ("[a100-40gb,", "[a100-40gb/1g.5gb,", 3, "fleet.groups.any-a100.0"),
        ("burstCeiling", "ceiling", 4, "fleet.ceiling"),
    ],
)
def test_a_fault_in_what_owners_say_is_found_by_its_line(
    tmp_path: Path, old: str, new: str, line: int, field: str
) -> None:
    path = tmp_path / "fairshare.yaml"
    path.write_text(OWNERS.replace(old, new, 1))
    with pytest.raises(TraceError) as caught:
        read_cluster(path)
    assert (caught.value.line, caught.value.field) == (line, field)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{any-a100: 2}", "{any-a100: 5}", "guarantees of any-a100: 5 > 4 available"),
        ("any-a100: [", "a100-40gb: [", "group: nodes offer a class of that name"),
        ("values:", "#", ""),
        (
            "{any-a100: [a100-40gb, a100-80gb]}",
            "{any-a100: [a100-40gb, a100-80gb], x: [a100-80gb, h100-80gb]}",
            "overlap in a100-80gb: groups must be nested or disjoint",
        ),
    ],
)
def test_quotas_are_judged_by_the_core(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "fairshare.yaml"
    path.write_text(OWNERS.replace(old, new, 1))
    given = read_cluster(path)
    if message:
        with pytest.raises(TraceError, match=message):
            settle(given, (), {})
    else:
        settle(given, (), {})
