"""Kubernetes pods as core pods: resource names, annotations, the demand formula.

Hidden here: where in a pod's JSON it says what it needs. The GPU demand is the one
kube-scheduler computes (the larger of what runs together and what any init container
needs with the sidecars before it), so both count alike. Names of design section 11.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from scheduler.codec.errors import CodecError
from scheduler.codec.objects import Container, ObjectMeta, PodObject
from scheduler.core import (
    Demand,
    Form,
    Pod,
    PodUid,
    TenantName,
    WorkloadClass,
    parse_form,
    profile_of_resource,
    replicas_of,
    workload_class,
)
from scheduler.quantity import MEBI, cpu_milli, quantity, round_up, seconds

ANNOTATION = "fairshare.dev/"
PRIORITY_CLASS = "fairshare-"
WHOLE_GPU = "nvidia.com/gpu"
SHARED_GPU = "nvidia.com/gpu.shared"
MIG_PREFIX = "nvidia.com/mig-"
RESOURCES = "spec.containers.resources"
MAX_DEVICES = 1024
MAX_GANG = 65_536
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How namespaces and priority classes are understood.

    Parameters
    ----------
    tenants
        Tenant per namespace.
    default_class
        Class of pods whose PriorityClass is none of ours.
    """

    tenants: Mapping[str, TenantName]
    default_class: WorkloadClass = WorkloadClass.TRAINING

    def tenant(self, namespace: str) -> TenantName:
        """Tenant of a namespace; where there is none, a name that no queue can have."""
        return self.tenants.get(namespace) or TenantName(f"namespace:{namespace}")


def pod_of(message: PodObject, naming: Naming) -> Pod | None:
    """Return the core pod, None when the pod asks for no GPU.

    Raises
    ------
    CodecError
        When a field has no meaning: names pod, field and value.
    """
    _check_identity(message.metadata)
    notes = _Annotations(message)
    demand = _demand(message, notes)
    if demand is None:
        return None
    metadata, gang = message.metadata, notes.gang()
    return Pod(
        uid=PodUid(metadata.uid),
        name=f"{metadata.namespace}/{metadata.name}",
        tenant=naming.tenant(metadata.namespace),
        workload_class=_class_of(message, naming.default_class),
        demand=demand,
        gang=gang,
        min_member=notes.min_member(gang),
        priority=message.spec.priority or 0,
        preemptible=notes.read("preemptible", _boolean, True),
        restart_cost_s=notes.read("restart-cost", seconds, 0.0),
        checkpoint_interval_s=notes.read("checkpoint-interval", _period, None),
    )


def _check_identity(metadata: ObjectMeta) -> None:
    for field in ("uid", "name", "namespace"):
        if not getattr(metadata, field):
            where = f"pod {metadata.namespace}/{metadata.name}"
            raise CodecError(where, f"metadata.{field}", "", "must not be empty")


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


# -- annotations --------------------------------------------------------------


class _Annotations:
    """The pod's ``fairshare.dev/`` annotations, read one by one."""

    def __init__(self, message: PodObject) -> None:
        self._where = message.title
        self._namespace = message.metadata.namespace
        self._texts = message.metadata.annotations or {}

    def read(self, name: str, parse: Callable[[str], _T], default: _T) -> _T:
        """Return the parsed annotation, `default` when it is absent."""
        text = self._texts.get(ANNOTATION + name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise self.error(name, text, str(error)) from error

    def error(self, name: str, value: object, problem: str) -> CodecError:
        """Return the error that names the annotation."""
        field = f"metadata.annotations[{ANNOTATION}{name}]"
        return CodecError(self._where, field, value, problem)

    def gang(self) -> str:
        """Return the gang's name, unique in the tenant; empty for a pod on its own."""
        name = self.read("gang", _gang_name, "")
        return f"{self._namespace}/{name}" if name else ""

    def min_member(self, gang: str) -> int:
        """Return how many members start together."""
        count = self.read("gang-min-member", _member_count, 1)
        if count > 1 and not gang:
            problem = f"needs the annotation {ANNOTATION}gang"
            raise self.error("gang-min-member", count, problem)
        return count

    def classes(self) -> tuple[str, ...]:
        """Return the acceptable GPU classes, preferred first."""
        return self.read("gpu-classes", _class_list, ())


def _gang_name(text: str) -> str:
    if not text or len(text) > 253 or not text.isprintable() or "/" in text:
        raise ValueError("is no name: 1 to 253 printable characters without a slash")
    return text


def _member_count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_GANG):
        raise ValueError(f"is not a whole number from 1 to {MAX_GANG}")
    return int(text[:9])


def _class_list(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if len(set(names)) != len(names):
        raise ValueError("names a GPU class twice")
    return tuple(parse_form(name) for name in names)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _period(text: str) -> float | None:
    value = seconds(text)
    if value <= 0:
        raise ValueError("must be longer than 0s")
    return value


# -- demand -------------------------------------------------------------------


def _demand(message: PodObject, notes: _Annotations) -> Demand | None:
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
    classes = notes.classes()
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


def _check_sharing(classes: tuple[str, ...], notes: _Annotations) -> None:
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
    return _sum(together, _amounts(where, "spec.overhead", spec.overhead))


def _container_amounts(where: str, field: str, container: Container) -> dict[str, int]:
    resources = container.resources
    if resources is None:
        return {}
    limits = _amounts(where, f"{field}.resources.limits", resources.limits)
    asked = _amounts(where, f"{field}.resources.requests", resources.requests)
    return {**limits, **asked}


def _amounts(
    where: str, field: str, texts: Mapping[str, str | int | float] | None
) -> dict[str, int]:
    amounts: dict[str, int] = {}
    for name, text in (texts or {}).items():
        if name in _COUNTED or is_gpu_resource(name):
            try:
                amounts[name] = _COUNTED.get(name, _devices)(str(text))
            except ValueError as error:
                raise CodecError(where, f"{field}[{name}]", text, str(error)) from error
    return amounts


@lru_cache(maxsize=1024)
def _cpu(text: str) -> int:
    return round_up(cpu_milli(text))


@lru_cache(maxsize=1024)
def _memory(text: str) -> int:
    return round_up(quantity(text))


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
