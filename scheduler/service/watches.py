"""Which collections of the API server are watched, and who hears of each."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from scheduler.codec import (
    JobObject,
    LeaseObject,
    NamespaceObject,
    NodeObject,
    PdbObject,
    PodObject,
    PriorityClassObject,
)
from scheduler.kube.api import Api
from scheduler.kube.informer import Informer
from scheduler.kube.mirror import Mirror
from scheduler.kube.owned import FleetObject, TenantObject
from scheduler.kube.tenants import FLEETS_PATH, TENANTS_PATH, Tenants

T = TypeVar("T")
Note = Callable[[], None]


class Heard(Generic[T]):
    """A sink that also says that there is something to look at."""

    def __init__(
        self, changed: Callable[[T], None], gone: Callable[[str], None], note: Note
    ) -> None:
        self._changed, self._gone, self._note = changed, gone, note

    def changed(self, obj: T) -> None:
        """Pass an object on."""
        self._changed(obj)
        self._note()

    def gone(self, uid: str) -> None:
        """Pass a loss on."""
        self._gone(uid)
        self._note()


def of_tenants(api: Api, tenants: Tenants, note: Note) -> list[Informer[Any]]:
    """Watch what says who there is."""
    changed, gone = tenants.changed_namespace, tenants.gone_namespace
    spaces = Heard(changed, gone, note)
    owners = Heard(tenants.changed_tenant, tenants.gone_tenant, note)
    fleet = Heard(tenants.changed_fleet, tenants.gone_fleet, note)
    return [
        Informer(api, "/api/v1/namespaces", NamespaceObject, spaces),
        Informer(api, TENANTS_PATH, TenantObject, owners),
        Informer(api, FLEETS_PATH, FleetObject, fleet),
    ]


def of_cluster(api: Api, mirror: Mirror, lease: str, note: Note) -> list[Informer[Any]]:
    """Watch what pods are read by: nodes, Jobs, and what else is known of them.

    Parameters
    ----------
    lease
        ``namespace/name`` of the Lease of the kube-scheduler that asks us.
    """

    def heard(sink: Any) -> Heard[Any]:
        return Heard(sink.changed, sink.gone, note)

    namespace, name = lease.split("/")
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    only = {"fieldSelector": f"metadata.name={name}"}
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    budgets = "/apis/policy/v1/poddisruptionbudgets"
    return [
        Informer(api, "/api/v1/nodes", NodeObject, heard(mirror.nodes)),
        Informer(api, classes, PriorityClassObject, heard(mirror.priorities)),
        Informer(api, "/apis/batch/v1/jobs", JobObject, heard(mirror.jobs)),
        Informer(api, budgets, PdbObject, heard(mirror.budgets)),
        Informer(api, leases, LeaseObject, heard(mirror.leases), query=only),
    ]


def of_pods(api: Api, mirror: Mirror, note: Note) -> Informer[Any]:
    """Watch pods; to be begun when all others are known, so that each is read once."""
    sink = Heard(mirror.pods.changed, mirror.pods.gone, note)
    return Informer(api, "/api/v1/pods", PodObject, sink)
