"""Settings: what is taken, and that every refusal names key, value and numbers."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.config import (
    Config,
    ConfigError,
    load_config,
    node_of,
    nodes_of,
    parse_address,
    parse_config,
    policy_of,
    queues_of,
    tenancy_of,
)
from scheduler.core import (
    Node,
    NodeName,
    Policy,
    Queue,
    TenantName,
    WorkloadClass,
)
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
    assert "guaranteed to a (b)" in found[4]


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


@pytest.mark.parametrize(
    "text", ["", ":1", "h:", "h:x", "h:1:2", "::1:80", "[::1]", "h :1"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_address(text)
