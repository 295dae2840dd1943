"""What a settings file must fulfil across its keys.

Each rule returns one line per fault: the key, the value, and the numbers that clash.
Nothing here stops at the first fault; the file is judged whole.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from scheduler.config.schema import MAX_NODES, Config, NodeConfig, TenantConfig
from scheduler.core import Form, class_of, is_legal, known_classes, parse_form, profiles

_KINDS = ("guarantee", "borrowing_limit", "lending_limit", "limit")
_KEYS = ("guarantee", "borrowingLimit", "lendingLimit", "limit")


def faults(config: Config) -> list[str]:
    """Return what is wrong with a file whose every key is well written by itself."""
    of_nodes = list(_node_faults(config.nodes))
    found = [*of_nodes, *_tenant_faults(config.tenants), *_form_faults(config)]
    found.extend(_inner_sum_faults(config.tenants))
    if not of_nodes:
        found.extend(_root_sum_faults(config))
    return found


# -- nodes --------------------------------------------------------------------


def node_faults(key: str, node: NodeConfig) -> Iterator[str]:
    """Yield what is wrong with one node (or row of nodes) by itself."""
    numbered = "{i}" in node.name
    if (node.count > 1) != numbered:
        yield (
            f"{key}.name: {node.name!r} with count {node.count}: {{i}} belongs in the "
            "name exactly when there are several nodes"
        )
    try:
        if class_of(parse_form(node.gpu_class)) != node.gpu_class:
            yield f"{key}.gpuClass: {node.gpu_class!r} is a form, not a GPU class"
    except ValueError as error:
        yield f"{key}.gpuClass: {error}"
        return
    yield from _cut_faults(key, node)
    if node.shared_replicas > 1:
        yield from _sharing_faults(key, node)


def _cut_faults(key: str, node: NodeConfig) -> Iterator[str]:
    cut = sum(part.gpus for part in node.mig)
    if cut > node.gpus:
        yield f"{key}.mig: {cut} GPUs are cut, but the node has gpus: {node.gpus}"
    for index, part in enumerate(node.mig):
        where = f"{key}.mig[{index}].slices"
        told = ", ".join(f"{n} x {name}" for name, n in sorted(part.slices.items()))
        unknown = [p for p in sorted(part.slices) if not _has_profile(node, p)]
        if unknown:
            names = ", ".join(profiles(class_of(Form(node.gpu_class)))) or "none"
            yield (
                f"{where}: {', '.join(unknown)}: no MIG profile of {node.gpu_class}, "
                f"which has {names}"
            )
        elif not is_legal(class_of(Form(node.gpu_class)), part.slices):
            yield f"{where}: one {node.gpu_class} cannot be cut into {told}"


def _has_profile(node: NodeConfig, profile: str) -> bool:
    try:
        parse_form(f"{node.gpu_class}/{profile}")
    except ValueError:
        return False
    return not profile.startswith("shared-")


def _sharing_faults(key: str, node: NodeConfig) -> Iterator[str]:
    replicas = node.shared_replicas
    if node.mig:
        yield f"{key}.sharedReplicas: {replicas}: a node with MIG slices shares no GPUs"
    try:
        parse_form(f"{node.gpu_class}/shared-{replicas}")
    except ValueError as error:
        yield f"{key}.sharedReplicas: {error}"


def _node_faults(nodes: Iterable[NodeConfig]) -> Iterator[str]:
    names: Counter[str] = Counter()
    for index, node in enumerate(nodes):
        yield from node_faults(f"nodes[{index}]", node)
        names.update(node_names(node))
    if not 0 < names.total() <= MAX_NODES:
        yield f"nodes: there must be 1 to {MAX_NODES} nodes, not {names.total()}"
    for name, count in names.items():
        if count > 1:
            yield f"nodes: {name!r} is named {count} times"


def node_names(node: NodeConfig) -> list[str]:
    """Return the names of the nodes that one entry stands for."""
    numbered = (node.name.replace("{i}", str(i)) for i in range(node.count))
    return list(dict.fromkeys(numbered))


# -- tenants ------------------------------------------------------------------


def _tenant_faults(tenants: tuple[TenantConfig, ...]) -> Iterator[str]:
    names = Counter(tenant.name for tenant in tenants)
    if not names:
        yield "tenants: there must be at least one"
    for name, count in names.items():
        if count > 1:
            yield f"tenants: {name!r} is defined {count} times"
    parents = {tenant.name: tenant.parent for tenant in tenants}
    for index, tenant in enumerate(tenants):
        if tenant.parent is not None and tenant.parent not in names:
            yield f"tenants[{index}].parent: {tenant.parent!r} is no tenant"
        cycle = _cycle_from(tenant.name, parents)
        if cycle and tenant.name == min(cycle):
            told = " -> ".join([*cycle, tenant.name])
            yield f"tenants[{index}].parent: {tenant.parent!r}: a cycle, {told}"
    yield from _namespace_faults(tenants)


def _cycle_from(name: str, parents: Mapping[str, str | None]) -> list[str]:
    """Return the queue and its ancestors if they lead back to it, else nothing."""
    path = [name]
    at = parents.get(name)
    while at is not None and at not in path:
        path.append(at)
        at = parents.get(at)
    return path if at == name else []


def _namespace_faults(tenants: tuple[TenantConfig, ...]) -> Iterator[str]:
    inner = {tenant.parent for tenant in tenants}
    owners: dict[str, str] = {}
    for index, tenant in enumerate(tenants):
        key = f"tenants[{index}].namespaces"
        if tenant.namespaces and tenant.name in inner:
            yield f"{key}: {tenant.name!r} has children; pods belong to its leaves"
        for namespace in tenant.namespaces:
            if namespace in owners:
                yield f"{key}: {namespace!r} belongs to {owners[namespace]!r} already"
            owners.setdefault(namespace, tenant.name)


# -- forms and sums -----------------------------------------------------------


def _form_faults(config: Config) -> Iterator[str]:
    classes = {*known_classes(), *(node.gpu_class for node in config.nodes)}
    for index, tenant in enumerate(config.tenants):
        for kind, key in zip(_KINDS, _KEYS, strict=True):
            for form in getattr(tenant, kind):
                problem = _form_problem(form, classes)
                if problem:
                    yield f"tenants[{index}].{key}.{form}: {problem}"
        yield from _own_faults(f"tenants[{index}]", tenant)


def _form_problem(text: str, classes: set[str]) -> str:
    try:
        gpu_class = class_of(parse_form(text))
    except ValueError as error:
        return str(error)
    return "" if gpu_class in classes else f"{gpu_class!r} is no known GPU class"


def _own_faults(key: str, tenant: TenantConfig) -> Iterator[str]:
    for form, count in tenant.guarantee.items():
        limit = tenant.limit.get(form)
        if limit is not None and count > limit:
            yield (
                f"{key}.guarantee.{form}: {count} is above its own limit of {limit} "
                f"({tenant.name})"
            )


def _inner_sum_faults(tenants: tuple[TenantConfig, ...]) -> Iterator[str]:
    own = {tenant.name: tenant.guarantee for tenant in tenants}
    for parent, guarantee in own.items():
        group = [tenant for tenant in tenants if tenant.parent == parent]
        yield from _sum_faults(group, guarantee, f"guaranteed to {parent}")


def _root_sum_faults(config: Config) -> Iterator[str]:
    roots = [tenant for tenant in config.tenants if tenant.parent is None]
    yield from _sum_faults(roots, capacity(config.nodes), "available")


def _sum_faults(
    group: Iterable[TenantConfig], have: Mapping[str, int], whose: str
) -> Iterator[str]:
    parts: dict[str, dict[str, int]] = {}
    for tenant in group:
        for form, count in tenant.guarantee.items():
            parts.setdefault(form, {})[tenant.name] = count
    for form, counts in sorted(parts.items()):
        if sum(counts.values()) > have.get(form, 0):
            told = " + ".join(str(count) for count in counts.values())
            yield (
                f"tenants: guarantees of {form}: {told} > {have.get(form, 0)} {whose} "
                f"({', '.join(counts)})"
            )


def capacity(nodes: Iterable[NodeConfig]) -> dict[str, int]:
    """Return devices per form over all nodes."""
    total: Counter[str] = Counter()
    for node in nodes:
        for form, count in offers(node):
            total[form] += count * node.count
    return dict(total)


def offers(node: NodeConfig) -> tuple[tuple[Form, int], ...]:
    """Return devices per form of one node."""
    devices: Counter[Form] = Counter()
    whole = node.gpus - sum(part.gpus for part in node.mig)
    if node.shared_replicas > 1:
        shared = Form(f"{node.gpu_class}/shared-{node.shared_replicas}")
        devices[shared] = whole * node.shared_replicas
    else:
        devices[Form(node.gpu_class)] = whole
    for part in node.mig:
        for profile, count in part.slices.items():
            devices[Form(f"{node.gpu_class}/{profile}")] += part.gpus * count
    return tuple(sorted((form, count) for form, count in devices.items() if count))
