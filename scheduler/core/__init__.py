"""The core: a library that decides. Events go in, decisions come out as data.

It knows no Kubernetes, HTTP, logging, thread or clock; `now` is an argument. The live
service and the simulator are two drivers of the same ``Engine``. Bottom up:
``gpu`` (classes, profiles), ``workload`` (what is asked), ``quota`` (who may
hold what) and ``cluster`` (what is where), ``events`` (what is heard and said),
``fairness`` (what is fair), ``placement`` (which node), ``allocator`` (a batch at
once), ``reclaim`` (who must give back), ``journal`` (as bytes), ``engine`` (the door).
"""

from scheduler.core.allocator import Budget, Plan, Problem, Status, allocate, verify
from scheduler.core.cluster import Cluster, Node
from scheduler.core.engine import (
    Engine,
    Explanation,
    Filtered,
    Policy,
    Preemption,
    QueueEntry,
    TenantUse,
)
from scheduler.core.events import (
    Action,
    Admit,
    CheckpointDone,
    CheckpointRequest,
    Event,
    Evict,
    NodeChanged,
    NodeDown,
    NodeUp,
    PodBound,
    PodGone,
    PodSubmitted,
    Reason,
    TenantsChanged,
    Withdraw,
)
from scheduler.core.fairness import Claim, Standing, covered, divide
from scheduler.core.gpu import (
    QUANTA_PER_GPU,
    Form,
    GpuClass,
    charge,
    class_of,
    class_of_product,
    is_legal,
    known_classes,
    parse_form,
    profile_of,
    profile_of_resource,
    profiles,
    replicas_of,
    resource_of,
    value_weight,
)
from scheduler.core.journal import decode_event, encode
from scheduler.core.placement import place_gang
from scheduler.core.quota import Queue, QuotaTree
from scheduler.core.workload import (
    Demand,
    GangId,
    NodeName,
    Pod,
    PodUid,
    TenantName,
    WorkloadClass,
    workload_class,
)

__all__ = [
    "QUANTA_PER_GPU",
    "Action",
    "Admit",
    "Budget",
    "CheckpointDone",
    "CheckpointRequest",
    "Claim",
    "Cluster",
    "Demand",
    "Engine",
    "Event",
    "Evict",
    "Explanation",
    "Filtered",
    "Form",
    "GangId",
    "GpuClass",
    "Node",
    "NodeChanged",
    "NodeDown",
    "NodeName",
    "NodeUp",
    "Plan",
    "Pod",
    "PodBound",
    "PodGone",
    "PodSubmitted",
    "PodUid",
    "Policy",
    "Preemption",
    "Problem",
    "Queue",
    "QueueEntry",
    "QuotaTree",
    "Reason",
    "Standing",
    "Status",
    "TenantName",
    "TenantUse",
    "TenantsChanged",
    "Withdraw",
    "WorkloadClass",
    "allocate",
    "charge",
    "class_of",
    "class_of_product",
    "covered",
    "decode_event",
    "divide",
    "encode",
    "is_legal",
    "known_classes",
    "parse_form",
    "place_gang",
    "profile_of",
    "profile_of_resource",
    "profiles",
    "replicas_of",
    "resource_of",
    "value_weight",
    "verify",
    "workload_class",
]
