"""Kubernetes pods as core pods: resource names and the demand formula.

Hidden here: where in a pod's JSON it says what it needs. The demand is the one
kube-scheduler computes (the larger of what runs together and what any init container
needs with the sidecars before it; what is asked for the pod as a whole goes before the
sum of its containers), so both count alike.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from scheduler.codec.errors import CodecError
from scheduler.codec.membership import Membership, membership
from scheduler.codec.notes import Notes, boolean, class_list, period
from scheduler.codec.objects import Amounts, Container, ObjectMeta, PodObject, Resources
from scheduler.codec.products import selected_classes
from scheduler.core import (
    Demand,
    Form,
    Pod,
    PodUid,
    TenantName,
    WorkloadClass,
    profile_of_resource,
    replicas_of,
    workload_class,
)
from scheduler.quantity import MEBI, cpu_milli, quantity, round_up, seconds

PRIORITY_CLASS = "fairshare-"
WHOLE_GPU = "nvidia.com/gpu"
SHARED_GPU = "nvidia.com/gpu.shared"
MIG_PREFIX = "nvidia.com/mig-"
RESOURCES = "spec.containers.resources"
MAX_DEVICES = 1024
MAX_AMOUNT = 2**40
"""Of thousandths of a core, or MiB; sums of such amounts stay far from 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How namespaces, priority classes and product labels are understood.

    Parameters
    ----------
    tenants
        Tenant per namespace.
    default_class
        Class of pods whose PriorityClass is none of ours.
    products
        GPU class per product label; goes before the built-in table.
    """

    tenants: Mapping[str, TenantName]
    default_class: WorkloadClass = WorkloadClass.TRAINING
    products: Mapping[str, str] = field(default_factory=dict)

    def tenant(self, namespace: str) -> TenantName:
        """Tenant of a namespace; where there is none, a name that no queue can have."""
        return self.tenants.get(namespace) or TenantName(f"namespace:{namespace}")


def pod_of(
    message: PodObject, naming: Naming, member: Membership | None = None
) -> Pod | None:
    """Return the core pod, None when the pod asks for no GPU.

    Parameters
    ----------
    message
        The pod.
    naming
        How its namespace and priority class are understood.
    member
        Its gang; when None, what the pod alone says of it.

    Raises
    ------
    CodecError
        When a field has no meaning: names pod, field and value.
    """
    _check_identity(message.metadata)
    notes = Notes(message)
    demand = _demand(message, notes, naming.products)
    if demand is None:
        return None
    metadata = message.metadata
    member = member or membership(message, None)
    return Pod(
        uid=PodUid(metadata.uid),
        name=f"{metadata.namespace}/{metadata.name}",
        tenant=naming.tenant(metadata.namespace),
        workload_class=_class_of(message, naming.default_class),
        demand=demand,
        gang=member.gang,
        min_member=member.min_member,
        priority=message.spec.priority or 0,
        preemptible=notes.read("preemptible", boolean, True),
        restart_cost_s=notes.read("restart-cost", seconds, 0.0),
        checkpoint_interval_s=notes.read("checkpoint-interval", period, None),
    )


def _check_identity(metadata: ObjectMeta) -> None:
    for key in ("uid", "name", "namespace"):
        if not getattr(metadata, key):
            where = f"pod {metadata.namespace}/{metadata.name}"
            raise CodecError(where, f"metadata.{key}", "", "must not be empty")


def _class_of(message: PodObject, default: WorkloadClass) -> WorkloadClass:
    name = message.spec.priority_class_name or ""
    if not name.startswith(PRIORITY_CLASS):
        return default
    try:
        return workload_class(name.removeprefix(PRIORITY_CLASS))
    except ValueError as error:
        known = ", ".join(PRIORITY_CLASS + member.label for member in WorkloadClass)
        raise CodecError(
            message.title, "spec.priorityClassName", name, f"is none of {known}"
        ) from error


# -- what others use ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Use:
    """What a pod takes from its node, whoever placed it there.

    Parameters
    ----------
    cpu_milli, memory_mib
        Thousandths of a core, and MiB.
    devices
        Counts by resource name; of all kinds of GPU resources.
    """

    cpu_milli: int = 0
    memory_mib: int = 0
    devices: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Use") -> "Use":
        return Use(
            self.cpu_milli + other.cpu_milli,
            self.memory_mib + other.memory_mib,
            _sum(self.devices, other.devices),
        )


def use_of(message: PodObject) -> Use:
    """Return what a pod takes from its node.

    It never fails, for it reads pods that nobody promised to understand: one with an
    amount that means nothing to us is taken to use more than any node has.
    """
    try:
        amounts = _pod_amounts(message)
    except CodecError:
        devices = {name: MAX_AMOUNT for name in _gpus_named(message)}
        return Use(MAX_AMOUNT, MAX_AMOUNT, devices)
    return Use(
        amounts.pop("cpu", 0),
        -(-amounts.pop("memory", 0) // MEBI),
        {resource: count for resource, count in amounts.items() if count},
    )


def _gpus_named(message: PodObject) -> Iterator[str]:
    spec = message.spec
    for container in (*(spec.init_containers or ()), *(spec.containers or ())):
        resources = container.resources or Resources()
        for names in (resources.limits, resources.requests):
            yield from filter(is_gpu_resource, names or ())


def has_only_claims(message: PodObject) -> bool:
    """Whether a pod asks for devices by resource claims, and for no GPU resource.

    Nobody counts those: kube-scheduler does not send them, and what a claim was given
    is not on the pod.
    """
    return bool(message.spec.resource_claims) and not use_of(message).devices


# -- demand -------------------------------------------------------------------


def _demand(
    message: PodObject, notes: Notes, products: Mapping[str, str]
) -> Demand | None:
    amounts = _pod_amounts(message)
    gpus = sorted(r for r, n in amounts.items() if n and is_gpu_resource(r))
    if not gpus:
        return None
    resource, where = gpus[0], message.title
    if len(gpus) > 1:
        problem = "are two kinds of GPU resource; a pod may ask for one"
        raise CodecError(where, RESOURCES, " and ".join(gpus), problem)
    if amounts[resource] > MAX_DEVICES:
        problem = f"of {resource} are more than {MAX_DEVICES}"
        raise CodecError(where, RESOURCES, amounts[resource], problem)
    classes: tuple[str, ...] = notes.read("gpu-classes", class_list, ())
    classes = classes or selected_classes(message, products)
    if resource == SHARED_GPU:
        _check_sharing(classes, notes)
    return Demand(
        count=amounts[resource],
        classes=classes,
        profile=_profile(where, resource),
        cpu_milli=amounts.get("cpu", 0),
        memory_mib=-(-amounts.get("memory", 0) // MEBI),
    )


def is_gpu_resource(name: str) -> bool:
    """Whether a resource name is one that this scheduler accounts for."""
    return name in (WHOLE_GPU, SHARED_GPU) or name.startswith(MIG_PREFIX)


def _check_sharing(classes: tuple[str, ...], notes: Notes) -> None:
    """Refuse a pod that asks for shared GPUs and does not list which it accepts."""
    shared = [name for name in classes if replicas_of(Form(name)) is not None]
    if not shared or len(shared) < len(classes):
        problem = f"must name shared classes, and only such, for {SHARED_GPU}"
        raise notes.error("gpu-classes", ",".join(classes), problem)


def _profile(where: str, resource: str) -> str:
    """MIG profile the resource counts; empty for whole and shared GPUs."""
    profile = profile_of_resource(resource)
    if profile is None and resource.startswith(MIG_PREFIX):
        raise CodecError(where, RESOURCES, resource, "is no MIG profile of its own")
    return profile or ""


def _pod_amounts(message: PodObject) -> dict[str, int]:
    """Amounts of the whole pod, as kube-scheduler counts them.

    CPU in thousandths of a core, memory in bytes, devices in counts.
    """
    where, spec = message.title, message.spec
    together: dict[str, int] = {}
    peak: dict[str, int] = {}
    for index, container in enumerate(spec.init_containers or ()):
        asked = _container_amounts(where, f"spec.initContainers[{index}]", container)
        _raise_to(peak, _sum(together, asked))
        if container.restart_policy == "Always":
            together = _sum(together, asked)
    for index, container in enumerate(spec.containers or ()):
        asked = _container_amounts(where, f"spec.containers[{index}]", container)
        together = _sum(together, asked)
    _raise_to(together, peak)
    if spec.resources is not None:
        whole = "spec.resources.requests"
        together |= _amounts(where, whole, spec.resources.requests)
    return _sum(together, _amounts(where, "spec.overhead", spec.overhead))


def _container_amounts(where: str, field: str, container: Container) -> dict[str, int]:
    resources = container.resources
    if resources is None:
        return {}
    limits = _amounts(where, f"{field}.resources.limits", resources.limits)
    asked = _amounts(where, f"{field}.resources.requests", resources.requests)
    return {**limits, **asked}


def _amounts(where: str, field: str, texts: Amounts | None) -> dict[str, int]:
    amounts: dict[str, int] = {}
    for name, text in (texts or {}).items():
        if name in _COUNTED or is_gpu_resource(name):
            try:
                amounts[name] = _COUNTED.get(name, _devices)(str(text))
            except ValueError as error:
                raise CodecError(where, f"{field}[{name}]", text, str(error)) from error
    return amounts


def _bounded(amount: int, most: int) -> int:
    if amount > most:
        raise ValueError("is more than any node has")
    return amount


@lru_cache(maxsize=1024)
def _cpu(text: str) -> int:
    return _bounded(round_up(cpu_milli(text)), MAX_AMOUNT)


@lru_cache(maxsize=1024)
def _memory(text: str) -> int:
    return _bounded(round_up(quantity(text)), MAX_AMOUNT * MEBI)


@lru_cache(maxsize=1024)
def _devices(text: str) -> int:
    count = quantity(text)
    if count.denominator != 1:
        raise ValueError("is not a whole number")
    return int(count)


_COUNTED: dict[str, Callable[[str], int]] = {"cpu": _cpu, "memory": _memory}


def _sum(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    total = dict(a)
    for name, amount in b.items():
        total[name] = total.get(name, 0) + amount
    return total


def _raise_to(amounts: dict[str, int], floor: Mapping[str, int]) -> None:
    for name, amount in floor.items():
        amounts[name] = max(amounts.get(name, 0), amount)
