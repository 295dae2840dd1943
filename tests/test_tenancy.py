"""The tenant tree as owners write it: groups, bursts, grants, and how it may change."""

from typing import Any

import pytest
import yaml

from scheduler.config import (
    ConfigError,
    fleet_of,
    parse_config,
    queues_of,
    read_tenancy,
)
from scheduler.core import Fleet, Form, Group, PreemptWithin, QuotaTree, class_of
from scheduler.tenancy import faults
from tests.builders import counts
from tests.test_config import MINIMAL, config, refusal

# -- what is taken --------------------------------------------------------------


def test_bursts_caps_and_grants_of_a_tenant() -> None:
    tenants = (
        "{name: a, guarantee: {h100-80gb: 4}, burst: 2.0, weight: 0, "
        "inferenceBurst: {h100-80gb: 2}, inferenceCritical: {h100-80gb: 1}, "
        "preemptWithin: never}\n{name: b, burst: 0.125}\n{name: c}"
    )
    a, b, c = queues_of(parse_config(config(tenants=tenants)))
    assert (a.burst_milli, b.burst_milli, c.burst_milli) == (2000, 125, None)
    assert (a.weight, a.preempt_within) == (0, PreemptWithin.NEVER)
    assert a.inference_burst == counts("2xh100-80gb")
    assert a.critical == counts("1xh100-80gb")
    assert c.preempt_within is PreemptWithin.LOWER_PRIORITY


FLEET = """
fleet:
  groups: {any-a100: [a100-40gb, a100-80gb], any: [any-a100, h100-80gb]}
  burstCeiling: {any: 8, h100-80gb: 4}
  values: {h100-80gb: 1.75, a100-40gb: 1}
  usageMemory: {halfLife: 168h, strength: 0.5}
"""


def test_what_holds_for_the_whole_fleet() -> None:
    tenants = "{name: a, guarantee: {any: 8}, limit: {any-a100: 4}}"
    settings = parse_config(config(tenants=tenants, rest=FLEET))
    assert fleet_of(settings) == Fleet(
        groups=(
            Group(name=Form("any-a100"), members=forms("a100-40gb a100-80gb")),
            Group(name=Form("any"), members=forms("any-a100 h100-80gb")),
        ),
        burst_ceiling=(("any", 8), ("h100-80gb", 4)),  # type: ignore[arg-type]
        values=(("a100-40gb", 1000), ("h100-80gb", 1750)),
        half_life_s=168 * 3600.0,
        memory_strength_milli=500,
    )
    assert queues_of(settings)[0].guarantee == ((Form("any"), 8),)
    assert fleet_of(parse_config(MINIMAL)) == Fleet()


def forms(text: str) -> tuple[Form, ...]:
    return tuple(map(Form, text.split()))


# -- what is refused -------------------------------------------------------------

REFUSED = {
    "group nobody has all of": (
        config(tenants="{name: a, guarantee: {any-a100: 4, h100-80gb: 8}}", rest=FLEET),
        "tenants: guarantees of any-a100: 4 > 0 available (a)",
    ),
    "group larger than what its members leave": (
        config(tenants="{name: a, guarantee: {any: 4, h100-80gb: 5}}", rest=FLEET),
        "tenants: guarantees of any: 4 > 3 available (a)",
    ),
    "group that is a class": (
        MINIMAL + "fleet: {groups: {h100-80gb: [a100-80gb]}}",
        "fleet.groups.h100-80gb: 'h100-80gb' is a GPU class already",
    ),
    "unknown member of a group": (
        MINIMAL + "fleet: {groups: {any: [a100-80gb, a100-80bg]}}",
        "fleet.groups.any[1]: 'a100-80bg' is no known GPU class or group",
    ),
    "form in a group": (
        MINIMAL + "fleet: {groups: {any: [a100-80gb/1g.10gb]}}",
        "fleet.groups.any[0]: 'a100-80gb/1g.10gb' is a form, not a GPU class",
    ),
    "groups that overlap": (
        MINIMAL
        + "fleet: {groups: {x: [a100-40gb, a100-80gb], y: [a100-80gb, h100-80gb]}}",
        "fleet.groups.y: groups 'x' and 'y' overlap in a100-80gb: groups must be",
    ),
    "group in itself": (
        MINIMAL + "fleet: {groups: {x: [y], y: [x]}}",
        "fleet.groups.y: group 'x' contains itself",
    ),
    "empty group": (
        MINIMAL + "fleet: {groups: {x: []}}",
        "fleet.groups.x: group 'x' has no members",
    ),
    "name of a group": (
        MINIMAL + "fleet: {groups: {Any_A100: [a100-80gb]}}",
        "fleet.groups.Any_A100: 'Any_A100': 'Any_A100' is no GPU class (lower case",
    ),
    "profile of a group": (
        config(tenants="{name: a, limit: {any/shared-2: 1}}", rest=FLEET),
        "tenants[0].limit.any/shared-2: 'any/shared-2': the group 'any' has neither",
    ),
    "unknown form of a grant": (
        config(tenants="{name: a, inferenceCritical: {any-h100: 1}}"),
        "tenants[0].inferenceCritical.any-h100: 'any-h100' is no known GPU class or",
    ),
    "unknown class in the burst ceiling": (
        MINIMAL + "fleet: {burstCeiling: {any-h100: 1}}",
        "fleet.burstCeiling.any-h100: 'any-h100' is no known GPU class or group",
    ),
    "worth of a group": (
        MINIMAL + "fleet: {groups: {x: [a100-80gb]}, values: {x: 2}}",
        "fleet.values.x: 'x' is not a GPU class",
    ),
    "worth nothing": (
        MINIMAL + "fleet: {values: {h100-80gb: 0.0}}",
        "fleet.values.h100-80gb: 0.0: Input should be greater than 0",
    ),
    "burst with a unit": (
        config(tenants="{name: a, burst: 2x}"),
        "tenants[0].burst: '2x': must be a number with at most three decimals",
    ),
    "burst too fine": (
        config(tenants="{name: a, burst: 1.0005}"),
        "tenants[0].burst: 1.0005: must be a number with at most three decimals",
    ),
    "endless burst": (
        config(tenants="{name: a, burst: .inf}"),
        "tenants[0].burst: inf: must be a number with at most three decimals",
    ),
    "burst below nothing": (
        config(tenants="{name: a, burst: -1.0}"),
        "tenants[0].burst: -1.0: Input should be greater than or equal to 0",
    ),
    "yes for a burst": (
        config(tenants="{name: a, burst: yes}"),
        "tenants[0].burst: True: must be a number with at most three decimals",
    ),
    "whom to stop": (
        config(tenants="{name: a, preemptWithin: always}"),
        "tenants[0].preemptWithin: 'always': Input should be 'never', 'lower-pri",
    ),
    "memory without half-life": (
        MINIMAL + "fleet: {usageMemory: {strength: 1.0}}",
        "fleet.usageMemory.halfLife: is missing",
    ),
    "weight 0 without guarantee": (
        config(tenants="{name: a, weight: 0}"),
        "tenants: weight 0 without a guarantee: a could never hold anything",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_with_key_value_and_numbers(text: str, message: str) -> None:
    found = refusal(text)
    assert len(found) == 1, found
    assert message in found[0]


def test_faults_of_groups_hide_nothing_and_cause_no_others() -> None:
    found = refusal(
        config(
            "{name: n, gpuClass: h100-80gb, gpus: 8}",
            "{name: p, guarantee: {h100-80gb: 9, any: 4}}\n"
            "{name: a, parent: p, guarantee: {h100-80gb: 10, any: 9, h100: 1}}",
            "fleet: {groups: {any: [h100-80gb, zz], x: [a100-80gb], y: [x, x]}}",
        )
    )
    assert found == [
        "fleet.groups.any[1]: 'zz' is no known GPU class or group",
        "fleet.groups.y: groups 'x' and 'y' overlap in a100-80gb: groups must be "
        "nested or disjoint",
        "tenants[1].guarantee.h100: 'h100' is no known GPU class or group",
        "tenants: guarantees of h100-80gb: 10 > 9 guaranteed to p (a)",
        "tenants: guarantees of h100-80gb: 9 > 8 available (p)",
    ]


# -- changes ---------------------------------------------------------------------

GPU = 126_000


def change(before: str, after: str, gpus: int) -> list[str]:
    """What keeps tenants from replacing others on a fleet that has so many GPUs."""
    old, new = (read_tenancy({"tenants": parsed(text)}) for text in (before, after))
    tree = QuotaTree(old.queues, Fleet())
    tree.capacity = there = {Form("h100-80gb"): gpus * GPU}
    return faults(new, {class_of(form) for form in there}, there, tree)


def parsed(text: str) -> Any:
    return yaml.safe_load(f"[{text}]")


BOTH = (
    "{{name: a, guarantee: {{h100-80gb: {}}}}}, "
    "{{name: b, guarantee: {{h100-80gb: {}}}}}"
)


def test_change_that_worsens_a_shortage_is_refused_and_no_other() -> None:
    lost = 12
    now = BOTH.format(8, 8)
    assert change(now, now, lost) == []
    assert change(now, BOTH.format(7, 8), lost) == []
    assert change(now, BOTH.format(4, 12), lost) == []  # as short as it was
    assert change(now, BOTH.format(9, 8), lost) == [
        "tenants: guarantees of h100-80gb: 9 + 8 > 12 available (a, b)"
    ]


def test_children_may_not_outgrow_a_parent_that_is_scaled() -> None:
    """What a parent was promised counts, though less of it is there."""
    tree = (
        "{{name: p, guarantee: {{h100-80gb: 8}}}}, "
        "{{name: a, parent: p, guarantee: {{h100-80gb: {}}}}}"
    )
    assert change(tree.format(8), tree.format(6), 4) == []
    assert change(tree.format(8), tree.format(9), 4) == [
        "tenants: guarantees of h100-80gb: 9 > 8 guaranteed to p (a)"
    ]


def test_classes_whose_nodes_are_gone_are_still_known() -> None:
    mine = "{name: a, limit: {my-gpu: 4}}"
    assert change(mine, mine.replace("4", "3"), 8) == []
    assert change("{name: a}", mine, 8) == [
        "tenants[0].limit.my-gpu: 'my-gpu' is no known GPU class or group"
    ]


def test_event_without_fleet_keeps_what_held_before() -> None:
    assert read_tenancy({"tenants": [{"name": "a"}]}).fleet is None
    assert read_tenancy({"tenants": [{"name": "a"}], "fleet": {}}).fleet == Fleet()
    with pytest.raises(ConfigError, match="tenants: is missing"):
        read_tenancy({})
