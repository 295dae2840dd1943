"""The settings file's keys, types and units.

Keys are camelCase in the file; how values are written is hidden in ``values``. Every
model is frozen and refuses unknown keys; what spans several keys is judged by
``rules``.
"""

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    model_validator,
)
from pydantic.alias_generators import to_camel

from scheduler.config.values import (
    MAX_FORMS,
    Address,
    Amounts,
    Bytes,
    Class,
    ClassName,
    Count,
    Counts,
    Cpu,
    Duration,
    LeaseName,
    Members,
    Memory,
    Milli,
    Name,
    NodeNames,
)
from scheduler.core import PreemptWithin, WorkloadClass

MIN_KEEP_ALIVE_S = 120.0
"""kube-scheduler keeps idle connections for 90 s and does not retry a POST."""

MAX_NODES = 20_000


class Section(BaseModel):
    """What all parts of the file have in common."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: object) -> object:
        """Take a section whose every key is commented out as one of defaults."""
        return {} if value is None else value


class ServerConfig(Section):
    """Where the service listens."""

    listen: Address = Field(
        default=("127.0.0.1", 8080),
        description="HTTP for kube-scheduler, health, metrics and standalone's door.",
    )
    grpc_listen: Address = Field(
        default=("127.0.0.1", 9090),
        description="gRPC for the `fairshare` command and other tools.",
    )
    max_body: Bytes = Field(
        default=8 << 20,
        description="Largest request body that is read; a larger one gets a 413.",
    )
    keep_alive: Duration = Field(
        default=MIN_KEEP_ALIVE_S,
        ge=MIN_KEEP_ALIVE_S,
        description="How long an idle connection stays open, at least 120s.",
    )
    stop_timeout: Duration = Field(
        default=3.0,
        le=60,
        description="How long calls in flight may take to end after SIGTERM.",
    )


class SolverConfig(Section):
    """Lane 2: the second look at what the quick pass left waiting."""

    enabled: StrictBool = Field(
        default=True, description="Whether the solver's process is started at all."
    )
    budget: Duration = Field(
        default=2.0, gt=0, le=600, description="Wall-clock time of one solve."
    )


class PolicyConfig(Section):
    """How capacity changes hands."""

    checkpoint_notice: Duration = Field(
        default=60.0,
        le=3600,
        description="Time a victim has to save its work before it is evicted.",
    )
    eviction_grace: Duration = Field(
        default=120.0, le=3600, description="Most time a victim may take to shut down."
    )
    gang_start_timeout: Duration = Field(
        default=60.0,
        gt=0,
        description="Lifetime of a decision whose pods have not been bound.",
    )
    forget_after: Duration = Field(
        default=900.0,
        ge=360,
        description="A waiting pod that kube-scheduler has not asked about for so long "
        "is taken for deleted.",
    )
    min_runtime: Duration = Field(
        default=300.0,
        description="Burst younger than this is spared when burst replaces burst.",
    )
    cycle: Duration = Field(
        default=1.0,
        ge=0.05,
        le=10,
        description="Longest time between two looks at the queue.",
    )
    margin: Duration = Field(
        default=5.0, description="Allowance for the rest, part of the reclaim bound."
    )
    admission_window: StrictInt = Field(
        default=500,
        ge=1,
        le=100_000,
        description="Kubernetes: most pods that are let through and not bound yet.",
    )
    solver: SolverConfig = Field(
        default=SolverConfig(), description="The second, slower lane."
    )


class DefaultsConfig(Section):
    """What holds for pods that do not say."""

    workload_class: Class = Field(
        default=WorkloadClass.TRAINING,
        description="Class of pods whose PriorityClass is none of fairshare's.",
    )


class MigConfig(Section):
    """GPUs of a node that are cut alike."""

    gpus: StrictInt = Field(ge=1, le=64, description="How many GPUs are cut so.")
    slices: dict[str, Count] = Field(
        description="Slices of each of them, per MIG profile."
    )


class NodeConfig(Section):
    """A node, or a row of equal nodes."""

    name: NodeNames = Field(
        description="Node name; `{i}` is replaced by the number of the node, from 0."
    )
    count: StrictInt = Field(
        default=1, ge=1, le=MAX_NODES, description="How many such nodes there are."
    )
    gpu_class: str = Field(description="GPU model and memory, as h100-80gb.")
    gpus: StrictInt = Field(ge=0, le=64, description="Physical GPUs of one node.")
    mig: tuple[MigConfig, ...] = Field(
        default=(), description="GPUs of one node that are cut by MIG; default none."
    )
    shared_replicas: StrictInt = Field(
        default=1,
        ge=1,
        le=100,
        description="Pods that share each GPU (time-slicing or MPS); 1: not shared.",
    )
    cpu: Cpu = Field(
        default=0, description="Allocatable cores (64, 500m); left out: not tracked."
    )
    memory: Memory = Field(
        default=0, description="Allocatable memory (512Gi); left out: not tracked."
    )
    ready: StrictBool = Field(
        default=True, description="False: what runs stays, nothing new is placed."
    )


class TenantTerms(Section):
    """What a queue is promised and may do, wherever that is written."""

    parent: Name | None = Field(
        default=None, description="Queue above it; left out: a root."
    )
    guarantee: Counts = Field(
        default={}, description="Devices per form that are theirs whenever they ask."
    )
    borrowing_limit: Counts = Field(
        default={},
        description="Most devices above the guarantee; a form not listed: no limit.",
    )
    lending_limit: Counts = Field(
        default={},
        description="Most idle guaranteed devices others may use; not listed: all.",
    )
    limit: Counts = Field(
        default={}, description="Most devices in total; a form not listed: no limit."
    )
    weight: StrictInt = Field(
        default=1,
        ge=0,
        le=1_000_000,
        description="Share of the burst pool relative to its siblings; 0: none of it.",
    )
    priority: StrictInt = Field(
        default=0,
        ge=-1_000_000,
        le=1_000_000,
        description="Tenant priority when burst is divided, larger first.",
    )
    burst: Milli | None = Field(
        default=None,
        description="Most it may borrow over all forms without a borrowingLimit of "
        "their own, as a multiple of its total guarantee by value; left out: any.",
    )
    inference_burst: Counts = Field(
        default={},
        description="Most devices above the guarantee that count as inference; a form "
        "not listed: as many as are guaranteed.",
    )
    inference_critical: Counts = Field(
        default={},
        description="Most devices that count as inference-critical; not listed: none.",
    )
    preempt_within: PreemptWithin = Field(
        default=PreemptWithin.LOWER_PRIORITY,
        description="Whose burst its own waiting work may stop inside the tenant.",
    )


class TenantConfig(TenantTerms):
    """A queue of the tenant tree; one without children is a tenant."""

    name: Name = Field(description="Name of the queue.")
    namespaces: tuple[Name, ...] = Field(
        default=(), description="Namespaces whose pods are charged to it."
    )


class UsageMemoryConfig(Section):
    """How long borrowing is remembered when burst is divided."""

    half_life: Duration = Field(
        gt=0, description="Time after which past borrowing counts half."
    )
    strength: Milli = Field(
        default=1000, description="How much it tilts the weights; 0: not at all."
    )


class FleetConfig(Section):
    """What holds for the whole tree."""

    groups: Annotated[dict[ClassName, Members], Field(max_length=MAX_FORMS)] = Field(
        default={},
        description="Class groups: GPU classes, or other groups, of which any will do.",
    )
    burst_ceiling: Counts = Field(
        default={},
        description="Most devices that all roots together hold above their guarantees.",
    )
    values: Amounts = Field(
        default={}, description="Worth of GPU classes; an a100-80gb is 1."
    )
    usage_memory: UsageMemoryConfig | None = Field(
        default=None, description="Past borrowing; left out: it is forgotten."
    )


class TenancyConfig(Section):
    """Tenants and what holds for all of them: part of the file, or one event."""

    fleet: FleetConfig = Field(
        default=FleetConfig(), description="What holds for the whole tree."
    )
    tenants: tuple[TenantConfig, ...] = Field(description="The tenant tree.")


class KubernetesConfig(Section):
    """Where the cluster is, and who places its pods."""

    kubeconfig: str | None = Field(
        default=None,
        description="Credentials; left out: the pod's own, else what kubectl reads.",
    )
    context: str | None = Field(
        default=None, description="Context of the kubeconfig; left out: its current."
    )
    scheduler_names: tuple[Name, ...] = Field(
        default=("default-scheduler", "fairshare"),
        min_length=1,
        description="Profiles of kube-scheduler that ask this extender.",
    )
    scheduler_lease: LeaseName = Field(
        default="kube-system/kube-scheduler",
        description="Lease of that kube-scheduler, as namespace/name.",
    )
    workers: StrictInt = Field(
        default=16, ge=1, le=256, description="Most writes to the API under way."
    )


class Config(TenancyConfig):
    """The whole file."""

    tenants: tuple[TenantConfig, ...] = Field(
        default=(), description="Standalone mode: the tenant tree."
    )

    server: ServerConfig = Field(default=ServerConfig(), description="Listening.")
    policy: PolicyConfig = Field(default=PolicyConfig(), description="Behaviour.")
    defaults: DefaultsConfig = Field(
        default=DefaultsConfig(), description="For pods that do not say."
    )
    nodes: tuple[NodeConfig, ...] = Field(
        default=(), description="Standalone mode: the nodes."
    )
    kubernetes: KubernetesConfig | None = Field(
        default=None,
        description="Run on Kubernetes: tenants, nodes and pods are objects there.",
    )
