"""Settings: what is taken, and that every refusal names key, value and numbers."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scheduler.config import (
    Config,
    ConfigError,
    fleet_of,
    load_config,
    node_of,
    nodes_of,
    parse_address,
    parse_config,
    policy_of,
    queues_of,
    read_tenancy,
    tenancy_of,
)
from scheduler.core import (
    Fleet,
    Form,
    Group,
    Node,
    NodeName,
    Policy,
    PreemptWithin,
    Queue,
    QuotaTree,
    TenantName,
    WorkloadClass,
    class_of,
)
from scheduler.tenancy import faults
from tests.builders import counts

MINIMAL = """
nodes: [{name: n0, gpuClass: h100-80gb, gpus: 8}]
tenants: [{name: a}]
"""


def config(nodes: str = "", tenants: str = "", rest: str = "") -> str:
    """A file; `nodes` and `tenants` are entries in flow style, one per line."""
    nodes = nodes or "{name: n0, gpuClass: h100-80gb, gpus: 8}"
    tenants = tenants or "{name: a}"
    listed = ["nodes:", *(f"- {line}" for line in nodes.splitlines() if line.strip())]
    listed += ["tenants:", *(f"- {line}" for line in tenants.splitlines())]
    return "\n".join([*listed, rest])


def refusal(text: str) -> list[str]:
    """The lines of the error that the file is refused with."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return str(caught.value).splitlines()


# -- what is taken --------------------------------------------------------------


def test_minimal_file_has_the_documented_defaults() -> None:
    settings = parse_config(MINIMAL)
    assert settings.server.listen == ("127.0.0.1", 8080)
    assert settings.server.grpc_listen == ("127.0.0.1", 9090)
    assert settings.server.max_body == 8 << 20
    assert settings.server.keep_alive == 120
    assert settings.defaults.workload_class is WorkloadClass.TRAINING
    assert policy_of(settings) == Policy(inline=True)


def test_units_are_read() -> None:
    text = """
server: {listen: "[::1]:0", maxBody: 1Mi, keepAlive: 2m30s}
policy: {checkpointNotice: 1m, evictionGrace: 90s, minRuntime: 1h30m, cycle: 500ms}
defaults: {workloadClass: batch}
"""
    settings = parse_config(MINIMAL + text)
    assert settings.server.listen == ("::1", 0)
    assert settings.server.max_body == 1 << 20
    assert settings.server.keep_alive == 150
    assert settings.defaults.workload_class is WorkloadClass.BATCH
    assert policy_of(settings) == Policy(
        checkpoint_notice_s=60, eviction_grace_s=90, min_runtime_s=5400, cycle_s=0.5
    )


def test_rows_of_nodes_are_spelled_out() -> None:
    nodes = """
{name: "h{i}", count: 2, gpuClass: h100-80gb, gpus: 8, cpu: 64, memory: 512Gi}
{name: m0, gpuClass: a100-80gb, gpus: 4, mig: [{gpus: 2, slices: {1g.10gb: 7}}]}
{name: s0, gpuClass: a10-24gb, gpus: 2, sharedReplicas: 4, cpu: 1500m, ready: false}
{name: none, gpuClass: a10-24gb, gpus: 0}
"""
    assert nodes_of(parse_config(config(nodes))) == (
        node("h0", "8xh100-80gb", 8, cpu_milli=64_000, memory_mib=512 << 10),
        node("h1", "8xh100-80gb", 8, cpu_milli=64_000, memory_mib=512 << 10),
        node("m0", "2xa100-80gb 14xa100-80gb/1g.10gb", 4),
        node("s0", "8xa10-24gb/shared-4", 2, cpu_milli=1500, ready=False),
        node("none", "", 0),
    )


def node(name: str, offers: str, gpus: int, **rest: Any) -> Node:
    return Node(name=NodeName(name), offers=counts(offers), gpus=gpus, **rest)


def test_tenants_keep_the_order_of_the_file() -> None:
    tenants = """
{name: org, guarantee: {h100-80gb: 6}, weight: 3, priority: -1}
{name: z, parent: org, guarantee: {h100-80gb: 4}, namespaces: [z, z-dev]}
{name: a, parent: org, borrowingLimit: {h100-80gb: 1}, lendingLimit: {h100-80gb: 0}}
"""
    settings = parse_config(config(tenants=tenants.strip()))
    form = counts("6xh100-80gb")[0][0]
    assert queues_of(settings) == (
        Queue(
            name=TenantName("org"),
            guarantee=((form, 6),),
            weight=3,
            priority=-1,
            order=0,
        ),
        Queue(
            name=TenantName("z"),
            parent=TenantName("org"),
            guarantee=((form, 4),),
            order=1,
        ),
        Queue(
            name=TenantName("a"),
            parent=TenantName("org"),
            borrowing_limit=((form, 1),),
            lending_limit=((form, 0),),
            order=2,
        ),
    )
    assert tenancy_of(settings).owners == {"z": "z", "z-dev": "z"}


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


def test_settings_cannot_be_changed() -> None:
    settings = parse_config(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        setattr(settings, "nodes", ())  # noqa: B010 (mypy knows it cannot)


# -- what is refused -------------------------------------------------------------

TREE = "{name: p, guarantee: {h100-80gb: 8}}\n"

REFUSED = {
    "unknown key": (
        MINIMAL + "sever: {listen: 1}",
        "sever: unknown key (value {'listen': 1})",
    ),
    "unknown inner key": (
        config(tenants="{name: a, guarantees: {h100-80gb: 1}}"),
        "tenants[0].guarantees: unknown key (value {'h100-80gb': 1})",
    ),
    "snake case": (
        MINIMAL + "server: {keep_alive: 120s}",
        "server.keep_alive: unknown key (value '120s')",
    ),
    "missing key": (config("{name: n0, gpus: 8}"), "nodes[0].gpuClass: is missing"),
    "no nodes": ("nodes: []\ntenants: [{name: a}]", "nodes: there must be 1 to"),
    "no tenants": (config(tenants="{}"), "tenants[0].name: is missing"),
    "duration without unit": (
        MINIMAL + "policy: {cycle: 5}",
        "policy.cycle: 5: needs a unit",
    ),
    "wrong unit of time": (
        MINIMAL + "policy: {cycle: 5sec}",
        "policy.cycle: '5sec': is not a duration with a unit",
    ),
    "keep-alive below kube-scheduler's": (
        MINIMAL + "server: {keepAlive: 60s}",
        "server.keepAlive: '60s': Input should be greater than or equal to 120",
    ),
    "address": (
        MINIMAL + "server: {listen: localhost}",
        "server.listen: 'localhost': is not host:port",
    ),
    "port": (
        MINIMAL + "server: {listen: 'localhost:70000'}",
        "server.listen: 'localhost:70000': is not host:port",
    ),
    "memory without unit": (
        config("{name: n, gpuClass: h100-80gb, gpus: 8, memory: 512}"),
        "nodes[0].memory: 512: needs a unit",
    ),
    "memory that rounds to nothing": (
        config("{name: n, gpuClass: h100-80gb, gpus: 8, memory: '512'}"),
        "nodes[0].memory: '512': is less than 1Mi",
    ),
    "wrong unit of memory": (
        config("{name: n, gpuClass: h100-80gb, gpus: 8, memory: 512GB}"),
        "nodes[0].memory: '512GB': is not a quantity",
    ),
    "memory for cores": (
        config("{name: n, gpuClass: h100-80gb, gpus: 8, cpu: 64Gi}"),
        "nodes[0].cpu: '64Gi': is in units of memory",
    ),
    "yes for a number": (
        config("{name: n, gpuClass: h100-80gb, gpus: yes}"),
        "nodes[0].gpus: True: Input should be a valid integer",
    ),
    "half a GPU": (
        config(tenants="{name: a, guarantee: {h100-80gb: 0.5}}"),
        "tenants[0].guarantee.h100-80gb: 0.5: Input should be a valid integer",
    ),
    "negative": (
        config(tenants="{name: a, limit: {h100-80gb: -1}}"),
        "tenants[0].limit.h100-80gb: -1: Input should be greater than or equal to 0",
    ),
    "workload class": (
        MINIMAL + "defaults: {workloadClass: fast}",
        "unknown workload class 'fast'",
    ),
    "node named twice": (
        config(
            "{name: n1, gpuClass: h100-80gb, gpus: 8}\n"
            "{name: 'n{i}', count: 2, gpuClass: h100-80gb, gpus: 8}"
        ),
        "nodes: 'n1' is named 2 times",
    ),
    "count without pattern": (
        config("{name: n, count: 2, gpuClass: h100-80gb, gpus: 8}"),
        "nodes[0].name: 'n' with count 2: {i} belongs in the name exactly when",
    ),
    "pattern without count": (
        config("{name: 'n{i}', gpuClass: h100-80gb, gpus: 8}"),
        "nodes[0].name: 'n{i}' with count 1",
    ),
    "node name": (
        config("{name: Node_1, gpuClass: h100-80gb, gpus: 8}"),
        "nodes[0].name: 'Node_1': is no node name",
    ),
    "GPU class": (
        config("{name: n, gpuClass: H100, gpus: 8}"),
        "nodes[0].gpuClass: 'H100'",
    ),
    "form for a class": (
        config("{name: n, gpuClass: h100-80gb/1g.10gb, gpus: 8}"),
        "nodes[0].gpuClass: 'h100-80gb/1g.10gb' is a form, not a GPU class",
    ),
    "too many slices": (
        config(
            "{name: n, gpuClass: h100-80gb, gpus: 8, "
            "mig: [{gpus: 2, slices: {1g.10gb: 8}}]}"
        ),
        "nodes[0].mig[0].slices: one h100-80gb cannot be cut into 8 x 1g.10gb",
    ),
    "profile of another class": (
        config(
            "{name: n, gpuClass: h100-80gb, gpus: 8, "
            "mig: [{gpus: 2, slices: {1g.5gb: 1}}]}"
        ),
        "nodes[0].mig[0].slices: 1g.5gb: no MIG profile of h100-80gb, which has",
    ),
    "class without MIG": (
        config(
            "{name: n, gpuClass: a10-24gb, gpus: 8, "
            "mig: [{gpus: 1, slices: {1g.6gb: 1}}]}"
        ),
        "no MIG profile of a10-24gb, which has none",
    ),
    "more cut than there are": (
        config(
            "{name: n, gpuClass: h100-80gb, gpus: 2, "
            "mig: [{gpus: 3, slices: {1g.10gb: 7}}]}"
        ),
        "nodes[0].mig: 3 GPUs are cut, but the node has gpus: 2",
    ),
    "replicas": (
        config("{name: n, gpuClass: a10-24gb, gpus: 2, sharedReplicas: 11}"),
        "nodes[0].sharedReplicas: 'a10-24gb/shared-11': 11 replicas do not divide",
    ),
    "sharing beside slices": (
        config(
            "{name: n, gpuClass: h100-80gb, gpus: 2, sharedReplicas: 2, "
            "mig: [{gpus: 1, slices: {1g.10gb: 7}}]}"
        ),
        "nodes[0].sharedReplicas: 2: a node with MIG slices shares no GPUs",
    ),
    "tenant defined twice": (
        config(tenants="{name: a}\n{name: a}"),
        "tenants: 'a' is defined 2 times",
    ),
    "unknown parent": (
        config(tenants="{name: a, parent: zz}"),
        "tenants[0].parent: 'zz' is no tenant",
    ),
    "own parent": (
        config(tenants="{name: a, parent: a}"),
        "tenants[0].parent: 'a': a cycle, a -> a",
    ),
    "cycle": (
        config(
            tenants="{name: a, parent: b}\n{name: b, parent: c}\n{name: c, parent: a}"
        ),
        "tenants[0].parent: 'b': a cycle, a -> b -> c -> a",
    ),
    "namespace twice": (
        config(tenants="{name: a, namespaces: [x]}\n{name: b, namespaces: [x]}"),
        "tenants[1].namespaces: 'x' belongs to 'a' already",
    ),
    "namespace of an inner queue": (
        config(tenants="{name: p, namespaces: [x]}\n{name: a, parent: p}"),
        "tenants[0].namespaces: 'p' has children",
    ),
    "unknown class in a form": (
        config(tenants="{name: a, limit: {h100-80bg: 1}}"),
        "tenants[0].limit.h100-80bg: 'h100-80bg' is no known GPU class",
    ),
    "unknown profile in a form": (
        config(tenants="{name: a, limit: {h100-80gb/1g.5gb: 1}}"),
        "tenants[0].limit.h100-80gb/1g.5gb: 'h100-80gb/1g.5gb': h100-80gb has no",
    ),
    "guarantee above own limit": (
        config(tenants="{name: a, guarantee: {h100-80gb: 4}, limit: {h100-80gb: 3}}"),
        "tenants: guarantee of h100-80gb: 4 is above its own limit of 3 (a)",
    ),
    "roots above capacity": (
        config(
            "{name: 'n{i}', count: 11, gpuClass: h100-80gb, gpus: 4}",
            "{name: a, guarantee: {h100-80gb: 40}}\n"
            "{name: b, guarantee: {h100-80gb: 8}}",
        ),
        "tenants: guarantees of h100-80gb: 40 + 8 > 44 available (a, b)",
    ),
    "children above parent": (
        config(
            tenants=TREE
            + "{name: a, parent: p, guarantee: {h100-80gb: 5}}\n"
            + "{name: b, parent: p, guarantee: {h100-80gb: 4}}"
        ),
        "tenants: guarantees of h100-80gb: 5 + 4 > 8 guaranteed to p (a, b)",
    ),
    "slices nobody has": (
        config(tenants="{name: a, guarantee: {h100-80gb/1g.10gb: 1}}"),
        "tenants: guarantees of h100-80gb/1g.10gb: 1 > 0 available (a)",
    ),
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
    "key given twice": (
        config(tenants="{name: a, limit: {h100-80gb: 1, h100-80gb: 8}}"),
        "key 'h100-80gb' is given twice",
    ),
    "not YAML": ("nodes: [", "not YAML"),
    "a list": ("- a", "the file must hold keys and values, not ['a']"),
    "empty": ("", "the file must hold keys and values, not None"),
    "deep": ("[" * 10_000, "not YAML"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_with_key_value_and_numbers(text: str, message: str) -> None:
    found = refusal(text)
    assert len(found) == 1, found
    assert message in found[0]


def test_all_faults_are_listed_together() -> None:
    found = refusal(
        config(
            "{name: n, count: 2, gpuClass: h100-80gb, gpus: 1}",
            "{name: a, parent: x, guarantee: {h100-80gb: 4}, limit: {h100-80gb: 1}}\n"
            "{name: b, parent: a, guarantee: {h100-80gb: 5}}\n{name: b}",
        )
    )
    assert [line.split(":")[0] for line in found] == [
        "nodes[0].name",
        "tenants",
        "tenants[0].parent",
        "tenants",
        "tenants",
    ]
    assert "4 is above its own limit of 1 (a)" in found[3]
    assert "5 > 4 guaranteed to a (b)" in found[4]


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


def test_one_above_capacity_is_refused_and_capacity_itself_is_not() -> None:
    nodes = "{name: n, gpuClass: h100-80gb, gpus: 8}"
    parse_config(config(nodes, "{name: a, guarantee: {h100-80gb: 8}}"))
    assert refusal(config(nodes, "{name: a, guarantee: {h100-80gb: 9}}"))


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load_config(tmp_path / "missing.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        load_config(binary)


@given(st.text(max_size=200))
def test_any_text_is_taken_or_refused_by_name(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_config(text), Config)


def test_node_of_an_event() -> None:
    raw = {"name": "n9", "gpuClass": "h100-80gb", "gpus": 8, "memory": "1Ti"}
    assert node_of(raw) == node("n9", "8xh100-80gb", 8, memory_mib=1 << 20)
    with pytest.raises(ConfigError, match=r"line 3\.count: 2"):
        node_of(raw | {"count": 2, "name": "n{i}"}, "line 3")


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


@pytest.mark.parametrize(
    "text", ["", ":1", "h:", "h:x", "h:1:2", "::1:80", "[::1]", "h :1"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_address(text)
