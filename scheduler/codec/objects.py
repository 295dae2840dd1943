"""Objects of the Kubernetes API, cut down to the fields that matter here.

Hidden here: their JSON. Whatever the API server may leave out, or write as null, has a
default; lists and maps that are not there are None, which costs no memory, and a fleet
has many pods. Times stay the text they are. Nothing keeps the buffer it was read from.

The structs take no part in garbage collection: they hold trees, never cycles.
"""

from msgspec import Struct, field

Amounts = dict[str, str | int | float]
"""Quantities by resource name."""

# -- what all objects have ------------------------------------------------------


class Owner(Struct, gc=False, rename="camel", frozen=True):
    """An owner reference; at most one of an object's is its controller."""

    kind: str
    name: str
    uid: str
    controller: bool | None = None
    api_version: str = ""


class ObjectMeta(Struct, gc=False, rename="camel"):
    """Who the object is, and what people and controllers say about it."""

    uid: str = ""
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None


class Condition(Struct, gc=False, rename="camel"):
    """A condition of a status; `status` is True, False or Unknown."""

    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None


class Requirement(Struct, gc=False, omit_defaults=True):
    """What a label, or a field, must be."""

    key: str
    operator: str
    values: list[str] | None = None


class LabelSelector(Struct, gc=False, rename="camel"):
    """Which objects are meant, by their labels; all of it must hold."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None


# -- pods -----------------------------------------------------------------------


class Resources(Struct, gc=False):
    """What a container asks for, by resource name."""

    requests: Amounts | None = None
    limits: Amounts | None = None


class Container(Struct, gc=False, rename="camel"):
    """A container; an init container that restarts always is a sidecar."""

    resources: Resources | None = None
    restart_policy: str | None = None


class Gate(Struct, gc=False):
    """A scheduling gate: the pod is not scheduled while it has one."""

    name: str


class ResourceClaim(Struct, gc=False, rename="camel"):
    """Devices asked for by dynamic resource allocation."""

    name: str
    resource_claim_name: str | None = None
    resource_claim_template_name: str | None = None


class Toleration(Struct, gc=False, rename="camel"):
    """Which taints the pod bears."""

    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None
    toleration_seconds: int | None = None


class NodeSelectorTerm(Struct, gc=False, rename="camel", omit_defaults=True):
    """Requirements on a node, all of which must hold; an empty term fits no node."""

    match_expressions: list[Requirement] | None = None
    match_fields: list[Requirement] | None = None


class NodeSelector(Struct, gc=False, rename="camel"):
    """Terms, one of which must hold."""

    node_selector_terms: list[NodeSelectorTerm] | None = None


class NodeAffinity(Struct, gc=False):
    """Which nodes the pod may run on."""

    required: NodeSelector | None = field(
        default=None, name="requiredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(Struct, gc=False, rename="camel"):
    """Where the pod wants to be."""

    node_affinity: NodeAffinity | None = None


class PodSpec(Struct, gc=False, rename="camel"):
    """What the pod needs, and where it may run."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    overhead: Amounts | None = None
    resources: Resources | None = None
    resource_claims: list[ResourceClaim] | None = None
    priority_class_name: str | None = None
    priority: int | None = None
    preemption_policy: str | None = None
    scheduling_gates: list[Gate] | None = None
    scheduler_name: str | None = None
    node_name: str | None = None
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: list[Toleration] | None = None
    termination_grace_period_seconds: int | None = None


class PodStatus(Struct, gc=False, rename="camel"):
    """How far the pod is."""

    phase: str = ""
    nominated_node_name: str | None = None
    start_time: str | None = None
    conditions: list[Condition] | None = None


class PodObject(Struct, gc=False):
    """A pod."""

    metadata: ObjectMeta
    spec: PodSpec
    status: PodStatus = field(default_factory=PodStatus)

    @property
    def title(self) -> str:
        """What the pod is called in messages."""
        return f"pod {self.metadata.namespace}/{self.metadata.name}"


# -- workloads ------------------------------------------------------------------


class PodTemplate(Struct, gc=False):
    """What a controller's pods look like."""

    metadata: ObjectMeta = field(default_factory=ObjectMeta)
    spec: PodSpec = field(default_factory=PodSpec)


class JobSpec(Struct, gc=False, rename="camel"):
    """How many pods the Job runs at once, and how many must succeed."""

    suspend: bool | None = None
    parallelism: int | None = None
    completions: int | None = None
    completion_mode: str | None = None
    template: PodTemplate = field(default_factory=PodTemplate)


class JobStatus(Struct, gc=False, rename="camel"):
    """How far the Job is, in pods."""

    active: int = 0
    ready: int | None = None
    succeeded: int = 0
    failed: int = 0
    failed_indexes: str | None = None
    start_time: str | None = None
    conditions: list[Condition] | None = None


class JobObject(Struct, gc=False):
    """A batch/v1 Job."""

    metadata: ObjectMeta
    spec: JobSpec = field(default_factory=JobSpec)
    status: JobStatus = field(default_factory=JobStatus)


# -- nodes ----------------------------------------------------------------------


class Taint(Struct, gc=False):
    """What keeps pods off a node that do not tolerate it."""

    key: str
    effect: str
    value: str | None = None


class NodeSpec(Struct, gc=False):
    """Whether new pods may come."""

    unschedulable: bool = False
    taints: list[Taint] | None = None


class NodeStatus(Struct, gc=False):
    """What the node has, and how it is."""

    allocatable: Amounts | None = None
    capacity: Amounts | None = None
    conditions: list[Condition] | None = None


class NodeObject(Struct, gc=False):
    """A node."""

    metadata: ObjectMeta
    spec: NodeSpec = field(default_factory=NodeSpec)
    status: NodeStatus = field(default_factory=NodeStatus)


# -- the rest -------------------------------------------------------------------


class NamespaceStatus(Struct, gc=False):
    """Active, or Terminating."""

    phase: str = ""


class NamespaceObject(Struct, gc=False):
    """A namespace."""

    metadata: ObjectMeta
    status: NamespaceStatus = field(default_factory=NamespaceStatus)


class LeaseSpec(Struct, gc=False, rename="camel"):
    """Who holds the lease, since when and for how long."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class LeaseObject(Struct, gc=False):
    """A coordination.k8s.io/v1 Lease."""

    metadata: ObjectMeta
    spec: LeaseSpec = field(default_factory=LeaseSpec)


class PdbSpec(Struct, gc=False, rename="camel"):
    """Which pods, and how many of them must stay, as a number or in per cent."""

    selector: LabelSelector | None = None
    min_available: int | str | None = None
    max_unavailable: int | str | None = None


class PdbStatus(Struct, gc=False, rename="camel"):
    """How many pods may be evicted now."""

    disruptions_allowed: int = 0


class PdbObject(Struct, gc=False):
    """A policy/v1 PodDisruptionBudget."""

    metadata: ObjectMeta
    spec: PdbSpec = field(default_factory=PdbSpec)
    status: PdbStatus = field(default_factory=PdbStatus)


class PriorityClassObject(Struct, gc=False, rename="camel"):
    """A scheduling.k8s.io/v1 PriorityClass."""

    metadata: ObjectMeta
    value: int = 0
    preemption_policy: str | None = None
    global_default: bool = False
