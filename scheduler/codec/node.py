"""Kubernetes nodes as core nodes: what GPU feature discovery and device plugin say.

Hidden here: which labels and resource names say what the devices of a node are.

======================  ==============================================================
what                    said by
======================  ==============================================================
GPU class               label ``nvidia.com/gpu.product``; a table, which the fleet's
                        settings may add to, has the class
whole GPUs              resource ``nvidia.com/gpu``
time-slicing, MPS       label ``nvidia.com/gpu.replicas`` above 1; the same resource,
                        or ``nvidia.com/gpu.shared`` where it was renamed
MIG, strategy mixed     resources ``nvidia.com/mig-<profile>``
MIG, strategy single    resource ``nvidia.com/gpu``, and the product ends in
                        ``-MIG-<profile>``
======================  ==============================================================

Allocatable counts, never capacity: it shrinks when a device fails. Feature discovery
names one product per node, so a node with GPUs of several models is read as if all were
of the one it names; keep such nodes out of the fleet, or taint them.

What cannot be read is offered to nobody and said in `NodeReading.problems`; a broken
node never stops the service.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from scheduler.codec.objects import NodeObject
from scheduler.codec.pod import (
    MAX_AMOUNT,
    MIG_PREFIX,
    SHARED_GPU,
    WHOLE_GPU,
    Use,
    is_gpu_resource,
)
from scheduler.codec.products import PRODUCT, SHARED_SUFFIX, known_class, sliced_as
from scheduler.core import (
    QUANTA_PER_GPU,
    Form,
    Node,
    NodeName,
    charge,
    class_of,
    is_legal,
    parse_form,
    profile_of,
    profile_of_resource,
)
from scheduler.quantity import cpu_milli, memory_mib, quantity, round_down

COUNT = "nvidia.com/gpu.count"
REPLICAS = "nvidia.com/gpu.replicas"
SHARING = "nvidia.com/gpu.sharing-strategy"
GPU_INSTANCE = "nvidia.com/gpu.slices.gi"
MIG_STATE = "nvidia.com/mig.config.state"

TOLERATED = frozenset({"nvidia.com/gpu"})
"""Keys of taints that the pods of a GPU fleet tolerate."""

_OUR_TAINTS = "fairshare.dev/"
_KEEPS_OFF = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class NodeReading:
    """A node as it was understood.

    Parameters
    ----------
    node
        What it offers.
    product
        The label ``nvidia.com/gpu.product`` to the letter, empty if there is none.
    forms
        What each of its resources counts, by resource name.
    problems
        What could not be read, one sentence each.
    """

    node: Node
    product: str = ""
    forms: Mapping[str, Form] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def without(self, use: Use) -> Node:
        """Return the node less what others use on it."""
        taken: dict[Form, int] = {}
        for resource, count in use.devices.items():
            form = self.forms.get(resource)
            if form is not None:
                taken[form] = taken.get(form, 0) + count
        return replace(
            self.node,
            offers=tuple(
                (form, max(0, count - taken.get(form, 0)))
                for form, count in self.node.offers
            ),
            cpu_milli=_less(self.node.cpu_milli, use.cpu_milli),
            memory_mib=_less(self.node.memory_mib, use.memory_mib),
        )


def _less(amount: int, used: int) -> int:
    """Subtract, but never to 0, which stands for what nobody tracks."""
    return max(1, amount - used) if amount else 0


def node_of(
    obj: NodeObject,
    classes: Mapping[str, str] | None = None,
    tolerated: Iterable[str] = TOLERATED,
) -> NodeReading:
    """Read a node; one without GPUs offers nothing.

    Parameters
    ----------
    obj
        The node.
    classes
        GPU class per product label; goes before the built-in table.
    tolerated
        Keys of taints that do not keep our pods off; taints of ours never do.
    """
    labels = obj.metadata.labels or {}
    counts, problems = _amounts(obj)
    gpus = {r: n for r, n in counts.items() if n and is_gpu_resource(r)}
    forms: dict[str, Form] = {}
    for resource in sorted(gpus):
        try:
            forms[resource] = _form(resource, gpus[resource], labels, classes or {})
        except ValueError as error:
            problems.append(f"{resource}: {error}")
    if _is_cutting(labels):
        problems.append(f"label {MIG_STATE} is {labels[MIG_STATE]!r}, not success")
    offers: dict[Form, int] = {}
    for resource, form in forms.items():
        offers[form] = offers.get(form, 0) + gpus[resource]
    node = Node(
        name=NodeName(obj.metadata.name),
        offers=tuple(sorted(offers.items())),
        gpus=_physical(labels, offers),
        cpu_milli=counts.get("cpu", 0),
        memory_mib=counts.get("memory", 0),
        ready=_is_ready(obj, frozenset(tolerated)) and not _is_cutting(labels),
    )
    where = f"node {obj.metadata.name}: "
    told = tuple(where + problem for problem in problems)
    return NodeReading(node, labels.get(PRODUCT, ""), forms, told)


def _amounts(obj: NodeObject) -> tuple[dict[str, int], list[str]]:
    """Read what is allocatable; what means nothing is left out and told."""
    counts: dict[str, int] = {}
    problems: list[str] = []
    for name, text in (obj.status.allocatable or {}).items():
        if name in _COUNTED or is_gpu_resource(name):
            try:
                counts[name] = _amount(name, str(text))
            except ValueError as error:
                problems.append(f"status.allocatable[{name}]: {str(text)!r} {error}")
    return counts, problems


def _amount(name: str, text: str) -> int:
    amount = round_down(_COUNTED.get(name, quantity)(text))
    if amount > MAX_AMOUNT:
        raise ValueError("is more than a node can have")
    return amount


_COUNTED = {"cpu": cpu_milli, "memory": memory_mib}


# -- what a device is -----------------------------------------------------------


def _form(
    resource: str, count: int, labels: Mapping[str, str], classes: Mapping[str, str]
) -> Form:
    """Say what a resource of this node counts; ValueError says why that is unknown."""
    gpu_class = _class(labels, classes)
    if resource.startswith(MIG_PREFIX):
        return _slice(gpu_class, resource, _number(labels, f"{resource}.replicas"))
    replicas = _number(labels, REPLICAS)
    named = sliced_as(labels[PRODUCT])
    if named:
        return _slice(gpu_class, named, replicas)
    if replicas > 1:
        return parse_form(f"{gpu_class}/shared-{replicas}")
    _check_whole(resource, count, labels)
    return parse_form(gpu_class)


def _class(labels: Mapping[str, str], classes: Mapping[str, str]) -> str:
    product = labels.get(PRODUCT)
    if not product:
        raise ValueError(f"label {PRODUCT} is missing, so its GPU class is not known")
    if product.endswith("-MIG-INVALID"):
        raise ValueError(
            f"label {PRODUCT}: {product!r} says that its GPUs are not cut alike, which "
            "MIG strategy single needs"
        )
    known = known_class(product, classes)
    if known is None:
        raise ValueError(f"label {PRODUCT}: {product!r} is in no table of GPU classes")
    return known


def _slice(gpu_class: str, resource: str, replicas: int) -> Form:
    profile = profile_of_resource(resource)
    if profile is None:
        raise ValueError("is no MIG profile of its own")
    if replicas > 1:
        raise ValueError(f"a MIG slice that {replicas} pods share has no class")
    return parse_form(f"{gpu_class}/{profile}")


def _check_whole(resource: str, count: int, labels: Mapping[str, str]) -> None:
    """Refuse what only looks like whole GPUs."""
    product, gpus = labels[PRODUCT], _number(labels, COUNT)
    shared = labels.get(SHARING, "none") not in ("", "none")
    if resource == SHARED_GPU or shared or product.endswith(SHARED_SUFFIX):
        raise ValueError(f"are shared, and label {REPLICAS} does not say by how many")
    if GPU_INSTANCE in labels:
        raise ValueError(
            f"are MIG slices, and label {PRODUCT} does not name their profile"
        )
    if resource == WHOLE_GPU and 0 < gpus < count:
        raise ValueError(f"are {count}, and label {COUNT} counts {gpus}")


def _number(labels: Mapping[str, str], key: str) -> int:
    text = labels.get(key, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


# -- the node -------------------------------------------------------------------


def _physical(labels: Mapping[str, str], offers: Mapping[Form, int]) -> int:
    """Count the GPUs: as labelled, else derived from what they offer.

    Under MIG strategy single the label counts slices; all GPUs are then cut alike, each
    into as many as fit.
    """
    if sliced_as(labels.get(PRODUCT, "")):
        return sum(-(-count // _most(form)) for form, count in offers.items())
    quanta = sum(count * charge(form) for form, count in offers.items())
    return _number(labels, COUNT) or -(-quanta // QUANTA_PER_GPU)


def _most(form: Form) -> int:
    """How many slices of one profile fit a GPU."""
    gpu_class, profile = class_of(form), profile_of(form) or ""
    sizes = range(1, QUANTA_PER_GPU // charge(form) + 1)
    return max(n for n in sizes if is_legal(gpu_class, {profile: n}))


def _is_cutting(labels: Mapping[str, str]) -> bool:
    """Whether its GPUs are being cut anew, or could not be: nothing may start there."""
    return labels.get(MIG_STATE, "success") != "success"


def _is_ready(obj: NodeObject, tolerated: frozenset[str]) -> bool:
    if obj.spec.unschedulable or obj.metadata.deletion_timestamp is not None:
        return False
    if any(_keeps_off(t.key, t.effect, tolerated) for t in obj.spec.taints or ()):
        return False
    conditions = obj.status.conditions or ()
    return any(c.type == "Ready" and c.status == "True" for c in conditions)


def _keeps_off(key: str, effect: str, tolerated: frozenset[str]) -> bool:
    ours = key in tolerated or key.startswith(_OUR_TAINTS)
    return effect in _KEEPS_OFF and not ours
