"""API objects as the API server shows them, and an engine that hears of them.

`Seen` drives mirror and engine as the service does, and believes neither: it checks the
order of what is told, that nothing is told twice, and what the engine promises.
"""

import itertools
import json
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from scheduler.codec import (
    JobObject,
    LeaseObject,
    Mark,
    Naming,
    NodeObject,
    PodObject,
    PriorityClassObject,
    encode_mark,
)
from scheduler.codec.mark import ADMISSION, CHECKPOINT_DEADLINE, GATE, HOLD
from scheduler.core import (
    Engine,
    Event,
    NodeChanged,
    NodeDown,
    NodeName,
    NodeUp,
    Pod,
    PodBound,
    PodGone,
    PodReplaced,
    PodStopping,
    PodSubmitted,
    PodUid,
    Policy,
    TenantName,
    TenantsChanged,
    WorkloadClass,
    parse_form,
)
from scheduler.kube.mirror import Mirror
from tests.builders import tenant

Json = dict[str, Any]

H100 = "h100-80gb"
PRODUCT = "NVIDIA-H100-80GB-HBM3"
SPACES = {"team-a": TenantName("a"), "team-b": TenantName("b")}
TREE = TenantsChanged((tenant("a", f"8x{H100}"), tenant("b", f"8x{H100}")))

_versions = itertools.count(1000)


def stamp(second: int) -> str:
    """A time of the API; tests count seconds from one midnight."""
    return f"2026-11-21T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"


def pod_json(
    name: str,
    gpus: int = 1,
    *,
    space: str = "team-a",
    uid: str = "",
    version: int = 0,
    generation: int = 0,
    gated: bool = True,
    node: str = "",
    nominated: str = "",
    mark: str = "",
    hold: str = "",
    save_by: str = "",
    gang: str = "",
    size: int = 0,
    job: str = "",
    keeper: str = "",
    born: int = 0,
    phase: str = "Pending",
    deleting: bool = False,
    scheduler: str = "",
    notes: Mapping[str, str] | None = None,
    **spec: Any,
) -> Json:
    """A pod; `job` or `keeper` is the UID of the Job, or ReplicaSet, that made it."""
    ours = {
        ADMISSION: mark,
        HOLD: hold,
        CHECKPOINT_DEADLINE: save_by,
        "fairshare.dev/gang": gang,
        "fairshare.dev/gang-min-member": str(size) if size else "",
    }
    annotations = {key: text for key, text in ours.items() if text} | {**(notes or {})}
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    container = {"name": "main", "resources": {"requests": {"cpu": "1", **limits}}}
    metadata: Json = {
        "uid": uid or f"uid-{name}",
        "name": name,
        "namespace": space,
        "resourceVersion": str(version or next(_versions)),
        "generation": generation,
        "annotations": annotations,
        "creationTimestamp": stamp(born),
    }
    if job or keeper:
        kind = "Job" if job else "ReplicaSet"
        api = "batch/v1" if job else "apps/v1"
        owner = {"kind": kind, "apiVersion": api, "name": "train", "uid": job or keeper}
        metadata["ownerReferences"] = [{**owner, "controller": True}]
    if deleting:
        metadata["deletionTimestamp"] = stamp(born + 60)
    status: Json = {"phase": phase}
    if nominated:
        status["nominatedNodeName"] = nominated
    body: Json = {"containers": [container], **spec}
    if gated and not node:
        body["schedulingGates"] = [{"name": GATE}]
    if node:
        body["nodeName"] = node
        status["startTime"] = stamp(born + 1)
    if scheduler:
        body["schedulerName"] = scheduler
    return {"metadata": metadata, "spec": body, "status": status}


def pod(name: str, gpus: int = 1, **more: Any) -> PodObject:
    return read(pod_json(name, gpus, **more), PodObject)


def node(
    name: str,
    gpus: int = 8,
    *,
    uid: str = "",
    ready: bool = True,
    product: str = PRODUCT,
    cpu: int = 96,
) -> NodeObject:
    amounts = {"cpu": str(cpu)} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    labels = {"nvidia.com/gpu.product": product} if product else {}
    raw = {
        "metadata": {"uid": uid or f"uid-{name}", "name": name, "labels": labels},
        "spec": {},
        "status": {
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }
    return read(raw, NodeObject)


def job(
    uid: str,
    pods: int = 1,
    *,
    gpus: int = 1,
    space: str = "team-a",
    suspended: bool = False,
    managed: bool = True,
    succeeded: int = 0,
    completions: int | None = None,
    over: bool = False,
    deleting: bool = False,
    born: int = 0,
    notes: Mapping[str, str] | None = None,
    **spec: Any,
) -> JobObject:
    """A Job called train, of so many pods at once."""
    template = pod_json("t", gpus, notes=notes)
    raw: Json = {
        "metadata": {
            "uid": uid,
            "name": "train",
            "namespace": space,
            "creationTimestamp": stamp(born),
            "annotations": {"fairshare.dev/suspend": "true"} if managed else {},
        },
        "spec": {
            "suspend": suspended,
            "parallelism": pods,
            "completions": pods if completions is None else completions,
            "template": {
                "metadata": {"annotations": template["metadata"]["annotations"]},
                "spec": {**template["spec"], **spec},
            },
        },
        "status": {"succeeded": succeeded},
    }
    if deleting:
        raw["metadata"]["deletionTimestamp"] = stamp(born + 60)
    if over:
        raw["status"]["conditions"] = [{"type": "Complete", "status": "True"}]
    return read(raw, JobObject)


def priority(name: str, value: int, default: bool = False) -> PriorityClassObject:
    raw = {"metadata": {"uid": f"uid-{name}", "name": name}, "value": value}
    return read({**raw, "globalDefault": default}, PriorityClassObject)


def lease(holder: str, transitions: int = 0) -> LeaseObject:
    spec = {"holderIdentity": holder, "leaseTransitions": transitions}
    return read({"metadata": {"uid": "lease", "name": "l"}, "spec": spec}, LeaseObject)


def mark(
    owner: str = "a",
    quanta: int = 126_000,
    form: str = H100,
    kind: WorkloadClass = WorkloadClass.TRAINING,
    gang: str = "",
    node: str = "n1",
) -> str:
    """The text of an admission mark."""
    who, what = TenantName(owner), parse_form(form)
    return encode_mark(Mark(who, kind, what, quanta, gang, "1-1", node=NodeName(node)))


def read(raw: Json, kind: type[Any]) -> Any:
    return msgspec.json.decode(json.dumps(raw), type=kind)


class Seen:
    """A mirror, and an engine that hears what it says."""

    def __init__(
        self,
        spaces: Mapping[str, TenantName] | None = None,
        schedulers: Collection[str] = ("default-scheduler",),
    ) -> None:
        self.naming = Naming(tenants=SPACES if spaces is None else spaces)
        self.mirror = Mirror(self.naming, schedulers)
        self.engine = Engine(Policy(inline=False))
        self.engine.observe(TREE, 0.0)
        self.now = 100_000.0
        self.nodes: set[NodeName] = set()
        self.refused: dict[PodUid, str] = {}

    def see(self, *objects: PodObject | NodeObject | JobObject) -> "Seen":
        """Let the informers tell."""
        for each in objects:
            match each:
                case PodObject():
                    self.mirror.pods.changed(each)
                case NodeObject():
                    self.mirror.nodes.changed(each)
                case JobObject():
                    self.mirror.jobs.changed(each)
        return self

    def lose(self, *uids: str) -> "Seen":
        """Let the informers tell that objects are gone, of whatever kind."""
        for uid in uids:
            self.mirror.pods.gone(uid)
            self.mirror.nodes.gone(uid)
            self.mirror.jobs.gone(uid)
        return self

    def rename(self, spaces: Mapping[str, TenantName]) -> None:
        self.naming = Naming(tenants=spaces)
        self.mirror.rename(self.naming)

    def hear(self) -> list[Event]:
        """Let the engine hear what is new, as the service does."""
        first, rest = (
            self.mirror.node_events(),
            self.mirror.events(lambda s: s % 86_400),
        )
        self._check_order(rest)
        for event in [*first, *rest]:
            self._tell(event)
        return [*first, *rest]

    def _tell(self, event: Event) -> None:
        match event:
            case NodeUp(node_):
                assert node_.name not in self.nodes, "a node comes once"
                self.nodes.add(node_.name)
            case NodeChanged(node_):
                assert node_.name in self.nodes, "a node changes that is there"
            case NodeDown(name):
                self.nodes.remove(name)
            case PodBound(node=name):
                assert name in self.nodes, "a pod is on a node that is known"
            case PodGone(uid):
                assert self.engine.gang(uid) is not None, "who goes was there"
            case PodSubmitted(pod_):
                assert self.engine.gang(pod_.uid) is None, "who comes was not"
        try:
            self.engine.observe(event, self.now)
        except ValueError as error:
            self._refuse(event, str(error))
        self.engine.check_invariants()

    def _refuse(self, event: Event, problem: str) -> None:
        assert isinstance(event, PodSubmitted), problem
        self.refused[event.pod.uid] = problem
        self.mirror.refuse(event.pod.uid, problem)

    def _check_order(self, events: list[Event]) -> None:
        """Departures precede arrivals; but stand-ins make way where pods come."""
        own = [e for e in events if not _is_of_stand_in(e)]
        ranks = [_RANKS[type(event)] for event in own if type(event) in _RANKS]
        assert ranks == sorted(ranks), [type(event).__name__ for event in own]

    def cycle(self) -> None:
        """Let the engine decide."""
        self.engine.cycle(self.now)
        self.engine.check_invariants()

    def known(self) -> dict[PodUid, tuple[Pod, NodeName | None, str | None]]:
        """What the engine knows of pods: where they are bound, and as what."""
        found = {}
        for uid, gang in self.engine._state.gangs.by_pod.items():
            member = gang.pods[uid]
            at = self.engine._state.node_of(uid) if member.bound else None
            form = self.engine._state.cluster.placed[uid].form if member.bound else None
            found[uid] = (member.pod, at, form)
        return found

    def offered(self) -> dict[NodeName, Any]:
        """Nodes as the engine knows them."""
        return {n.name: n for n in self.engine._state.cluster.nodes if n is not None}

    def kept(self) -> dict[str, Any]:
        """Whatever the mirror remembers of objects."""
        parts = {
            "pods": self.mirror.pods,
            "nodes": self.mirror.nodes,
            "jobs": self.mirror.jobs,
            "sizes": self.mirror.pods._sizes,
            "leases": self.mirror.leases,
        }
        return {
            f"{part}.{name}": value
            for part, keeper in parts.items()
            for name, value in vars(keeper).items()
            if isinstance(value, dict | list | set) and value
        }


_RANKS: dict[type[Any], int] = {
    NodeUp: 0,
    NodeChanged: 0,
    PodGone: 1,
    PodSubmitted: 2,
    PodReplaced: 2,
    PodBound: 2,
    PodStopping: 2,
    NodeDown: 3,
}


def _is_of_stand_in(event: Event) -> bool:
    if isinstance(event, PodSubmitted):
        return event.pod.uid.startswith("job:")
    return isinstance(event, PodGone) and event.uid.startswith("job:")
