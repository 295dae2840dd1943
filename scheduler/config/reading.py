"""From the file's text to settings, or to one error that lists everything wrong.

Hidden here: YAML and pydantic. Duplicate keys, which YAML readers let pass, are
refused. A file is taken whole or not at all.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from scheduler.config.rules import faults, node_faults, node_names, offers
from scheduler.config.schema import (
    Config,
    FleetConfig,
    NodeConfig,
    Section,
    TenancyConfig,
    TenantTerms,
)
from scheduler.core import (
    Fleet,
    Form,
    GpuClass,
    Group,
    Node,
    NodeName,
    Policy,
    Queue,
    TenantName,
)
from scheduler.tenancy import Tenancy

_SHOWN = 60
_S = TypeVar("_S", bound=Section)


class ConfigError(ValueError):
    """Settings that cannot be used: one line per fault, with key, value and numbers."""


class _Loader(yaml.SafeLoader):
    """Reads plain YAML, and refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                line = key.start_mark.line + 1
                raise ConfigError(f"line {line}: key {name!r} is given twice")
            seen.add(name)
        return super().construct_mapping(node, deep)


def load_config(path: Path) -> Config:
    """Read a settings file.

    Raises
    ------
    ConfigError
        When it cannot be read or used; the message lists every fault.
    """
    try:
        return parse_config(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_config(text: str) -> Config:
    """Read settings from YAML text.

    Raises
    ------
    ConfigError
        When they cannot be used; the message lists every fault.
    """
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader, stricter)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"the file must hold keys and values, not {raw!r}")
    config = validated(Config, raw, "")
    found = _misplaced(config, raw) or _faults(config)
    if found:
        raise ConfigError("\n".join(found))
    return config


def _misplaced(config: Config, raw: Mapping[str, object]) -> list[str]:
    """Name what standalone mode lacks, or what has no meaning on Kubernetes."""
    if config.kubernetes is None:
        return [f"{key}: is missing" for key in ("nodes", "tenants") if key not in raw]
    told = "comes from the API server: leave it out beside kubernetes"
    return [f"{key}: {told}" for key in ("nodes", "tenants", "fleet") if key in raw]


def _faults(config: Config) -> list[str]:
    if config.kubernetes is not None:
        return []
    return faults(config.nodes, tenancy_of(config))


def validated(model: type[_S], raw: object, prefix: str) -> _S:
    """Read one section; keys are named after `prefix`.

    Raises
    ------
    ConfigError
        When it means nothing; the message lists every fault.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [_line(raw, prefix, dict(fault)) for fault in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def _line(raw: object, prefix: str, fault: Mapping[str, Any]) -> str:
    path, value = prefix, raw
    for step in fault["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
        value = _inside(value, step)
    path = path.lstrip(".")
    if fault["type"] == "missing":
        return f"{path}: is missing"
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."
    if fault["type"] == "extra_forbidden":
        return f"{path}: unknown key (value {shown})"
    return f"{path}: {shown}: {fault['msg'].removeprefix('Value error, ')}"


def _inside(value: Any, step: int | str) -> object:
    """Return what the file says there, as it is written."""
    try:
        return value[step]
    except (KeyError, IndexError, TypeError):
        return value


# -- settings as the core takes them ------------------------------------------


def nodes_of(config: Config) -> tuple[Node, ...]:
    """Return the fleet, every node by itself."""
    return tuple(
        _node(entry, name) for entry in config.nodes for name in node_names(entry)
    )


def node_of(raw: object, where: str = "node") -> Node:
    """Read one node in the file's form, as events carry it.

    Raises
    ------
    ConfigError
        When it cannot be used; `where` is what its keys are named after.
    """
    entry = validated(NodeConfig, raw, where)
    found = list(node_faults(where, entry))
    if entry.count != 1:
        found.append(f"{where}.count: {entry.count}: an event is about one node")
    if found:
        raise ConfigError("; ".join(found))
    return _node(entry, entry.name)


def _node(entry: NodeConfig, name: str) -> Node:
    return Node(
        name=NodeName(name),
        offers=offers(entry),
        gpus=entry.gpus,
        cpu_milli=entry.cpu,
        memory_mib=entry.memory,
        ready=entry.ready,
    )


def read_tenancy(raw: Mapping[str, object]) -> Tenancy:
    """Read ``tenants``, and ``fleet`` if it is there, as events carry them.

    What must hold across keys is not judged here.

    Raises
    ------
    ConfigError
        When a key or value means nothing; the message lists every fault.
    """
    tenancy = tenancy_of(validated(TenancyConfig, raw, ""))
    return tenancy if "fleet" in raw else replace(tenancy, fleet=None)


def tenancy_of(config: TenancyConfig) -> Tenancy:
    """Return the tenant tree with its namespaces and what holds for all of it."""
    return Tenancy(
        queues=queues_of(config),
        namespaces=tuple(tenant.namespaces for tenant in config.tenants),
        fleet=fleet_of(config),
    )


def queues_of(config: TenancyConfig) -> tuple[Queue, ...]:
    """Return the tenant tree; the order of the file is the order of creation."""
    return tuple(
        queue_from(tenant, tenant.name, order)
        for order, tenant in enumerate(config.tenants)
    )


def queue_from(tenant: TenantTerms, name: str, order: int) -> Queue:
    """Return a queue of these terms; the smaller `order`, the older it is."""
    return Queue(
        name=TenantName(name),
        parent=TenantName(tenant.parent) if tenant.parent else None,
        guarantee=_counts(tenant.guarantee),
        borrowing_limit=_counts(tenant.borrowing_limit),
        lending_limit=_counts(tenant.lending_limit),
        limit=_counts(tenant.limit),
        weight=tenant.weight,
        priority=tenant.priority,
        order=order,
        burst_milli=tenant.burst,
        inference_burst=_counts(tenant.inference_burst),
        critical=_counts(tenant.inference_critical),
        preempt_within=tenant.preempt_within,
    )


def _counts(counts: Mapping[str, int]) -> tuple[tuple[Form, int], ...]:
    return tuple(sorted((Form(form), count) for form, count in counts.items()))


def fleet_of(config: TenancyConfig) -> Fleet:
    """Return what holds for the whole tree."""
    return fleet_from(config.fleet)


def fleet_from(fleet: FleetConfig) -> Fleet:
    """Return what holds for the whole tree, as the core takes it."""
    groups = (
        Group(name=Form(name), members=tuple(Form(member) for member in members))
        for name, members in fleet.groups.items()
    )
    memory = fleet.usage_memory
    return Fleet(
        groups=tuple(groups),
        burst_ceiling=_counts(fleet.burst_ceiling),
        values=tuple(sorted((GpuClass(n), v) for n, v in fleet.values.items())),
        half_life_s=memory.half_life if memory else 0.0,
        memory_strength_milli=memory.strength if memory else 1000,
    )


def policy_of(config: Config) -> Policy:
    """Return the engine's settings.

    Standalone mode decides in Filter itself; on Kubernetes pods wait at their gates.
    """
    policy = config.policy
    return Policy(
        inline=config.kubernetes is None,
        checkpoint_notice_s=policy.checkpoint_notice,
        eviction_grace_s=policy.eviction_grace,
        gang_start_timeout_s=policy.gang_start_timeout,
        min_runtime_s=policy.min_runtime,
        cycle_s=policy.cycle,
        margin_s=policy.margin,
        admission_window=policy.admission_window if config.kubernetes else None,
    )
