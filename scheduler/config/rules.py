"""What a settings file must fulfil across its keys.

Each rule returns one line per fault: the key, the value, and the numbers that clash.
Nothing here stops at the first fault; the file is judged whole.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from scheduler.config.schema import MAX_NODES, NodeConfig
from scheduler.core import Form, charge, class_of, is_legal, parse_form, profiles
from scheduler.tenancy import Tenancy
from scheduler.tenancy import faults as tenancy_faults


def faults(nodes: tuple[NodeConfig, ...], tenancy: Tenancy) -> list[str]:
    """Return what is wrong with a file whose every key is well written by itself."""
    found = list(_node_faults(nodes))
    classes = {node.gpu_class for node in nodes}
    there = None if found else capacity(nodes)
    return [*found, *tenancy_faults(tenancy, classes, there)]


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


# -- devices ----------------------------------------------------------------


def capacity(nodes: Iterable[NodeConfig]) -> dict[Form, int]:
    """Return quanta per form over all nodes."""
    total: Counter[Form] = Counter()
    for node in nodes:
        for form, count in offers(node):
            total[form] += count * node.count * charge(form)
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
