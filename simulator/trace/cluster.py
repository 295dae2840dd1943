"""Nodes and tenants from a YAML file: the settings of the service, or a part of them.

Hidden here: the keys that a replay needs, and how a fault finds its line. The shape of
``nodes``, ``fleet`` and ``tenants`` is that of ``fairshare serve --config`` (see
``deploy/example-config.yaml``), so what runs can be replayed as it is; the sections
``server``, ``policy`` and ``defaults`` of such a file are left alone here::

    nodes:
      - name: h100-{i}        # {i}: number of the node, from 0
        count: 4              # default 1
        gpuClass: h100-80gb
        gpus: 8               # physical GPUs of one node
        mig: [{gpus: 2, slices: {1g.10gb: 7}}]
        sharedReplicas: 1     # pods that share each GPU
        cpu: 128              # cores, or 500m; default: not tracked
        memory: 2Ti           # default: not tracked
    fleet:
        groups: {any-a100: [a100-40gb, a100-80gb]}
        burstCeiling: {any-a100: 8}
        values: {h100-80gb: 1.75}
        usageMemory: {halfLife: 168h, strength: 1.0}
    tenants:
      - name: research
        parent: ai            # default: none
        guarantee: {h100-80gb: 24}
        borrowingLimit: {h100-80gb: 8}
        lendingLimit: {}
        limit: {}
        weight: 1
        priority: 0
        burst: 2.0            # default: not bound
        inferenceBurst: {h100-80gb: 8}
        inferenceCritical: {h100-80gb: 4}
        preemptWithin: lower-priority

Each of the three may be missing.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from scheduler.core import (
    Fleet,
    Form,
    GpuClass,
    Group,
    Node,
    NodeName,
    PreemptWithin,
    Queue,
    TenantName,
    class_of,
    parse_form,
)
from scheduler.core.gpu import is_legal
from simulator.trace.amounts import Counts, parse_milli
from simulator.trace.errors import TraceError
from simulator.trace.job import Trace

_SUFFIXES = {"": Fraction(1), "m": Fraction(1, 1000)} | {
    f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTP", start=1)
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(|m|[KMGTP]i)")
_SECONDS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")


def _quantity(value: object) -> Fraction:
    match = _QUANTITY.fullmatch(str(value))
    if isinstance(value, bool) or match is None:
        raise ValueError("a quantity is needed, as 64, 500m or 512Gi")
    return Fraction(match[1]) * _SUFFIXES[match[2]]


def _milli(value: object) -> int:
    return int(_quantity(value) * 1000)


def _mebi(value: object) -> int:
    return int(_quantity(value) / 2**20)


def _duration(value: object) -> float:
    parts = _DURATION.findall(str(value))
    if not parts or "".join(number + unit for number, unit in parts) != str(value):
        raise ValueError("a duration is needed, as 168h or 1h30m")
    return float(sum(Fraction(number) * _SECONDS[unit] for number, unit in parts))


def _thousandths(value: object) -> int:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return parse_milli(repr(value) if number else "")


_Amount = Annotated[int, Field(ge=0, le=1_000_000)]
_Milli = Annotated[int, BeforeValidator(_thousandths)]
_Form = Annotated[str, AfterValidator(parse_form)]
_Amounts = dict[_Form, _Amount]
_Name = Annotated[str, Field(pattern=r"^\S+$")]


def _class(value: object) -> str:
    if "/" in str(value):
        raise ValueError("a GPU class is needed, as h100-80gb")
    return class_of(parse_form(str(value)))


_Class = Annotated[str, AfterValidator(_class)]


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel
    )


class _Cut(_Model):
    gpus: Annotated[int, Field(ge=1, le=64)]
    slices: dict[str, _Amount]


class _Nodes(_Model):
    name: _Name
    count: Annotated[int, Field(ge=1, le=20_000)] = 1
    gpu_class: Annotated[GpuClass, BeforeValidator(_class)]
    gpus: Annotated[int, Field(ge=0, le=64)]
    mig: list[_Cut] = Field(default_factory=list[_Cut])
    shared_replicas: Annotated[int, Field(ge=1, le=100)] = 1
    cpu: Annotated[int, BeforeValidator(_milli)] = 0
    memory: Annotated[int, BeforeValidator(_mebi)] = 0
    ready: bool = True

    @model_validator(mode="after")
    def _possible(self) -> "_Nodes":
        if self.count > 1 and "{i}" not in self.name:
            raise ValueError("several nodes need {i} in their name")
        if sum(cut.gpus for cut in self.mig) > self.gpus:
            raise ValueError(f"more GPUs are cut than the {self.gpus} there are")
        if self.mig and self.shared_replicas > 1:
            raise ValueError("a node with MIG slices shares no GPUs")
        for cut in self.mig:
            if not is_legal(self.gpu_class, cut.slices):
                raise ValueError(f"no layout of {self.gpu_class}: {cut.slices}")
        return self

    def offers(self) -> Counts:
        """Return the devices of one node by form."""
        whole = self.gpus - sum(cut.gpus for cut in self.mig)
        form = Form(self.gpu_class)
        if self.shared_replicas > 1:
            form = parse_form(f"{self.gpu_class}/shared-{self.shared_replicas}")
        devices = {form: whole * self.shared_replicas}
        for cut in self.mig:
            for profile, count in cut.slices.items():
                slice_form = Form(f"{self.gpu_class}/{profile}")
                devices[slice_form] = devices.get(slice_form, 0) + cut.gpus * count
        return tuple(sorted((form, n) for form, n in devices.items() if n))


class _Tenant(_Model):
    name: _Name
    parent: _Name | None = None
    namespaces: list[str] = Field(default_factory=list[str])
    guarantee: _Amounts = Field(default_factory=dict)
    borrowing_limit: _Amounts = Field(default_factory=dict)
    lending_limit: _Amounts = Field(default_factory=dict)
    limit: _Amounts = Field(default_factory=dict)
    weight: _Amount = 1
    priority: Annotated[int, Field(ge=-(10**9), le=10**9)] = 0
    burst: _Milli | None = None
    inference_burst: _Amounts = Field(default_factory=dict)
    inference_critical: _Amounts = Field(default_factory=dict)
    preempt_within: Annotated[PreemptWithin, Field(strict=False)] = (
        PreemptWithin.LOWER_PRIORITY
    )


class _Memory(_Model):
    half_life: Annotated[float, BeforeValidator(_duration), Field(gt=0)]
    strength: _Milli = 1000


class _Fleet(_Model):
    groups: dict[_Class, list[_Class]] = Field(default_factory=dict)
    burst_ceiling: _Amounts = Field(default_factory=dict)
    values: dict[_Class, Annotated[_Milli, Field(gt=0)]] = Field(default_factory=dict)
    usage_memory: _Memory | None = None


class _ClusterFile(_Model):
    nodes: list[_Nodes] = Field(default_factory=list[_Nodes])
    fleet: _Fleet | None = None
    tenants: list[_Tenant] = Field(default_factory=list[_Tenant])
    server: object = None
    policy: object = None
    defaults: object = None


def read_cluster(path: Path) -> Trace:
    """Read nodes, tenants and fleet; the trace returned has no jobs.

    Raises
    ------
    TraceError
        When the file cannot be read, is no YAML, a key is unknown, or a value is not
        what it must be.
    """
    try:
        text = path.read_text(encoding="utf-8")
        model = _ClusterFile.model_validate(yaml.safe_load(text) or {})
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "not UTF-8"
        raise TraceError("--cluster", 0, "file", str(path), reason) from None
    except yaml.YAMLError as problem:
        line = getattr(getattr(problem, "problem_mark", None), "line", -1) + 1
        reason = f"not YAML ({getattr(problem, 'problem', None) or problem})"
        raise TraceError(path.name, line, "file", "", reason) from None
    except ValidationError as problem:
        faults = problem.errors(include_url=False)
        # A key that is unknown explains one that is missing.
        fault = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
        place = fault["loc"], fault["input"], fault["msg"]
        raise _blame(path.name, text, *place) from None
    nodes = [node for group in model.nodes for node in _expand(group)]
    queues = [_queue(order, tenant) for order, tenant in enumerate(model.tenants)]
    fleet = _fleet(model.fleet) if model.fleet else Fleet()
    return Trace(jobs=(), tenants=tuple(queues), nodes=tuple(nodes), fleet=fleet)


def _blame(
    source: str, text: str, location: Sequence[int | str], value: object, reason: str
) -> TraceError:
    at: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    line = 1
    for step in location:
        at, place = _child(at, step)
        if place is None:
            break
        line = place.start_mark.line + 1
    field = ".".join(str(step) for step in location) or "file"
    if not isinstance(value, str | int | float):
        value = f"a {type(value).__name__}"
    reason = reason.removeprefix("Value error, ")
    return TraceError(source, line, field, value, reason[:1].lower() + reason[1:])


def _child(at: Any, step: int | str) -> tuple[Any, Any]:
    """Return the YAML node one step down, and the node whose line names it."""
    if isinstance(at, yaml.SequenceNode) and isinstance(step, int):
        return at.value[step], at.value[step]
    if isinstance(at, yaml.MappingNode):
        pairs = {key.value: (value, key) for key, value in at.value}
        return pairs.get(str(step), (None, None))
    return None, None


def _expand(group: _Nodes) -> list[Node]:
    return [
        Node(
            name=NodeName(group.name.replace("{i}", str(number))),
            offers=group.offers(),
            gpus=group.gpus,
            cpu_milli=group.cpu,
            memory_mib=group.memory,
            ready=group.ready,
        )
        for number in range(group.count)
    ]


def _queue(order: int, tenant: _Tenant) -> Queue:
    return Queue(
        name=TenantName(tenant.name),
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


def _fleet(fleet: _Fleet) -> Fleet:
    memory = fleet.usage_memory
    return Fleet(
        groups=tuple(
            Group(name=Form(name), members=tuple(map(Form, members)))
            for name, members in fleet.groups.items()
        ),
        burst_ceiling=_counts(fleet.burst_ceiling),
        values=tuple(sorted(fleet.values.items())),
        half_life_s=memory.half_life if memory else 0.0,
        memory_strength_milli=memory.strength if memory else 1000,
    )


def _counts(amounts: _Amounts) -> Counts:
    return tuple(sorted((parse_form(form), count) for form, count in amounts.items()))
