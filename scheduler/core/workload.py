"""What is asked: pods, gangs, workload classes and their demand.

Hidden here: how a request that names several GPU classes, or none, becomes the
ordered list of forms it accepts, and what a gang is. Everything is frozen; what
has happened to a pod so far (waiting, placed, evicted) is the engine's knowledge.

Units: devices are counts, charges are quanta (``gpu.QUANTA_PER_GPU`` a GPU),
CPU is in thousandths of a core, memory in MiB, times in seconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NewType

from scheduler.core.gpu import (
    QUANTA_PER_GPU,
    Form,
    charge,
    class_of,
    profile_of,
    replicas_of,
    value_weight,
)

TenantName = NewType("TenantName", str)
PodUid = NewType("PodUid", str)
GangId = NewType("GangId", str)
NodeName = NewType("NodeName", str)


class WorkloadClass(IntEnum):
    """The four classes of work, most urgent first (smaller sorts first)."""

    INFERENCE_CRITICAL = 0
    INFERENCE = 1
    TRAINING = 2
    BATCH = 3

    @property
    def label(self) -> str:
        """The name users write: ``inference-critical``."""
        return self.name.lower().replace("_", "-")

    @property
    def is_inference(self) -> bool:
        """Whether the class is latency-sensitive."""
        return self <= WorkloadClass.INFERENCE


def workload_class(text: str) -> WorkloadClass:
    """Return the class a user names (``training``).

    Raises
    ------
    ValueError
        When the name is none of the four.
    """
    found = _BY_LABEL.get(text)
    if found is None:
        known = ", ".join(_BY_LABEL)
        raise ValueError(f"unknown workload class {text!r}: one of {known}")
    return found


_BY_LABEL = {member.label: member for member in WorkloadClass}


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one pod needs from one node.

    Parameters
    ----------
    classes
        Acceptable GPU classes in order of preference, ``h100-80gb`` or the shared
        class ``a10-24gb/shared-4``. Empty means any class that serves whole GPUs
        (or the profile); shared classes serve only pods that list them.
    profile
        MIG profile (``1g.10gb``) or empty for whole GPUs.
    count
        Devices (GPUs, slices or replicas), at least 1.
    fraction
        Quanta of each device; less than a whole GPU only for a single device, which
        the pod then shares with others.
    cpu_milli, memory_mib
        What else the node must have free.
    """

    count: int
    classes: tuple[str, ...] = ()
    profile: str = ""
    fraction: int = QUANTA_PER_GPU
    cpu_milli: int = 0
    memory_mib: int = 0

    def __post_init__(self) -> None:
        """Refuse amounts that mean nothing."""
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")
        if not 1 <= self.fraction <= QUANTA_PER_GPU:
            raise ValueError(
                f"fraction must lie in 1..{QUANTA_PER_GPU}, got {self.fraction}"
            )
        cut = self.profile or any("/" in gpu_class for gpu_class in self.classes)
        if self.is_fraction and (self.count > 1 or cut):
            raise ValueError("a fraction of a GPU is asked for one whole GPU only")
        if self.cpu_milli < 0 or self.memory_mib < 0:
            raise ValueError("cpu_milli and memory_mib must not be negative")

    @property
    def is_fraction(self) -> bool:
        """Whether the pod shares one GPU with others."""
        return self.fraction < QUANTA_PER_GPU

    def charge(self, form: Form) -> int:
        """Quanta the pod is charged when it runs on `form`."""
        if self.is_fraction:
            return self.fraction
        return self.count * charge(form)

    def forms(self, offered: Iterable[Form]) -> tuple[Form, ...]:
        """Return the acceptable forms among those `offered`, preferred first.

        A pod that names no class takes the least valuable class first, so that it
        leaves the scarce models to those who need them.
        """
        present = set(offered)
        if self.classes:
            named = [self._form_in(gpu_class) for gpu_class in self.classes]
            return tuple(form for form in named if form in present)
        fitting = (
            form
            for form in present
            if replicas_of(form) is None and (profile_of(form) or "") == self.profile
        )
        return tuple(
            sorted(fitting, key=lambda form: (value_weight(class_of(form)), form))
        )

    def _form_in(self, gpu_class: str) -> Form:
        if self.profile and "/" not in gpu_class:
            return Form(f"{gpu_class}/{self.profile}")
        return Form(gpu_class)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod as its owner submitted it.

    Parameters
    ----------
    uid
        Identity; a re-created pod of the same name is another pod.
    name
        ``namespace/name``, for people.
    gang
        Name of the gang inside the tenant; empty for a pod on its own.
    min_member
        Members that are admitted, placed and evicted all or nothing.
    priority
        Inside the workload class, larger first.
    preemptible
        False: while the guarantee covers it, not even its own tenant's more urgent work
        displaces it. Burst is given back in any case, and what is covered is never
        evicted for another tenant.
    restart_cost_s
        Time a restart loses before work goes on, seconds.
    checkpoint_interval_s
        Period of the checkpoints it writes by itself, seconds; None when an eviction
        loses everything since the start.
    on_request
        Whether it writes a checkpoint when asked to.
    """

    uid: PodUid
    name: str
    tenant: TenantName
    workload_class: WorkloadClass
    demand: Demand
    gang: str = ""
    min_member: int = 1
    priority: int = 0
    preemptible: bool = True
    restart_cost_s: float = 0.0
    checkpoint_interval_s: float | None = None
    on_request: bool = True

    def __post_init__(self) -> None:
        """Refuse a gang that cannot be."""
        if self.min_member < 1:
            raise ValueError(f"min_member must be at least 1, got {self.min_member}")
        if self.min_member > 1 and not self.gang:
            raise ValueError("min_member above 1 needs the name of a gang")

    def is_like(self, other: "Pod") -> bool:
        """Whether another pod asks for the same in the same gang, as the same owner."""
        return replace(other, uid=self.uid, name=self.name) == self

    @property
    def gang_id(self) -> GangId:
        """Identity of the gang; a pod on its own is a gang of one."""
        return GangId(f"{self.tenant}/{self.gang}" if self.gang else self.uid)
