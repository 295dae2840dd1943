"""A thin synchronous client of the API server, for tests: plain JSON, no model."""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

T = TypeVar("T")
Object = dict[str, Any]

GROUPS = {
    "batch/v1": ("jobs", "cronjobs"),
    "apps/v1": ("deployments", "replicasets", "statefulsets", "daemonsets"),
    "policy/v1": ("poddisruptionbudgets",),
    "scheduling.k8s.io/v1": ("priorityclasses",),
    "coordination.k8s.io/v1": ("leases",),
    "rbac.authorization.k8s.io/v1": (
        "clusterroles",
        "clusterrolebindings",
        "roles",
        "rolebindings",
    ),
    "apiextensions.k8s.io/v1": ("customresourcedefinitions",),
    "admissionregistration.k8s.io/v1": (
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    ),
    "resource.k8s.io/v1": ("resourceclaims", "resourceslices", "deviceclasses"),
    "fairshare.dev/v1alpha1": ("tenants", "fleets"),
}
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


class ApiError(Exception):
    """The API server said no: `status`, `reason`, `message` and the whole answer."""

    def __init__(self, status: int, answer: Object) -> None:
        self.status = status
        self.reason = str(answer.get("reason", ""))
        self.message = str(answer.get("message", ""))
        self.answer = answer
        super().__init__(f"{status} {self.reason}: {self.message}")


class Client:
    """Speaks with one API server as one user; threads may share it.

    A resource is named by its plural ("pods", "jobs", "tenants"); no namespace means
    cluster-scoped, or all namespaces where a list is asked for.
    """

    def __init__(self, server: str, authority: Path, token: str) -> None:
        self.token = token
        parts = urlsplit(server)
        self._address = (parts.hostname or "", parts.port)
        self._tls = ssl.create_default_context(cafile=str(authority))
        self._idle: list[http.client.HTTPSConnection] = []

    def get(self, resource: str, name: str, namespace: str | None = None) -> Object:
        return self.request("GET", path(resource, namespace, name))

    def find(
        self, resource: str, name: str, namespace: str | None = None
    ) -> Object | None:
        """As `get`; None if there is no such object."""
        try:
            return self.get(resource, name, namespace)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def items(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> list[Object]:
        query = {"labelSelector": labels, "fieldSelector": fields}
        answer = self.request("GET", path(resource, namespace), query=query)
        return list(answer["items"] or ())

    def create(self, thing: Object) -> Object:
        return self.request("POST", path_of(thing), thing)

    def ensure(self, thing: Object) -> None:
        """Create it unless it is there."""
        try:
            self.create(thing)
        except ApiError as error:
            if error.status != 409:
                raise

    def replace(self, thing: Object) -> Object:
        return self.request(
            "PUT", f"{path_of(thing)}/{thing['metadata']['name']}", thing
        )

    def patch(
        self,
        resource: str,
        name: str,
        body: object,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        form: str = STRATEGIC,
    ) -> Object:
        target = path(resource, namespace, name, subresource)
        return self.request("PATCH", target, body, form=form)

    def delete(
        self,
        resource: str,
        name: str,
        namespace: str | None = None,
        *,
        grace: int | None = None,
        uid: str | None = None,
    ) -> Object:
        return self.request(
            "DELETE", path(resource, namespace, name), _delete_options(grace, uid)
        )

    def delete_all(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        labels: str = "",
        grace: int | None = None,
    ) -> None:
        """Ask for the end of all objects of one namespace, or of a cluster's."""
        query = {"labelSelector": labels}
        options = _delete_options(grace, None)
        self.request("DELETE", path(resource, namespace), options, query=query)

    def evict(
        self,
        name: str,
        namespace: str,
        *,
        grace: int | None = None,
        uid: str | None = None,
    ) -> Object:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": _delete_options(grace, uid),
        }
        return self.request("POST", path("pods", namespace, name, "eviction"), body)

    def annotate(
        self,
        resource: str,
        name: str,
        annotations: Mapping[str, str | None],
        namespace: str | None = None,
    ) -> Object:
        body = {"metadata": {"annotations": dict(annotations)}}
        return self.patch(resource, name, body, namespace, form=MERGE)

    def create_all(self, things: Iterable[Object], workers: int = 16) -> list[Object]:
        return self.in_parallel(self.create, things, workers)

    def in_parallel(
        self, call: Callable[[Object], T], things: Iterable[Object], workers: int = 16
    ) -> list[T]:
        """Make a call for each of the objects, the results in their order."""
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(call, things))

    @contextmanager
    def watch(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        since: str | None = None,
        timeout_s: float = 60,
    ) -> Iterator[Iterator[tuple[str, Object]]]:
        """Follow changes: pairs of type and object, until nothing comes any more.

        Without `since` it begins with all that is there, as ADDED.
        """
        query = {"watch": "1", "resourceVersion": since or ""}
        connection = self._connect(timeout_s)
        try:
            answer = self._send(
                connection, "GET", path(resource, namespace), query=query
            )
            if answer.status != 200:
                raise ApiError(answer.status, _decoded(answer.read()))
            lines = (json.loads(line) for line in answer)
            yield ((line["type"], line["object"]) for line in lines)
        finally:
            connection.close()

    def request(
        self,
        method: str,
        target: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        form: str = "application/json",
    ) -> Object:
        """Any call; raises ApiError for an answer that is not 2xx."""
        status, data = self.raw(method, target, body, query=query, form=form)
        answer = _decoded(data)
        if status >= 300:
            raise ApiError(status, answer)
        return answer

    def raw(
        self,
        method: str,
        target: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        form: str = "application/json",
    ) -> tuple[int, bytes]:
        """Any call; the status and the answer as they come."""
        kept = self._idle_connection()
        if kept is not None:
            # The server has closed it meanwhile: it restarted, or waited long enough.
            with suppress(ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
                return self._exchange(kept, method, target, body, query, form)
        fresh = self._connect(60)
        return self._exchange(fresh, method, target, body, query, form)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _exchange(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        target: str,
        body: object,
        query: Mapping[str, str] | None,
        form: str,
    ) -> tuple[int, bytes]:
        try:
            answer = self._send(
                connection, method, target, body, query=query, form=form
            )
            data = answer.read()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer.status, data

    def _idle_connection(self) -> http.client.HTTPSConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self, timeout_s: float) -> http.client.HTTPSConnection:
        host, port = self._address
        return http.client.HTTPSConnection(
            host, port, timeout=timeout_s, context=self._tls
        )

    def _send(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        target: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        form: str = "application/json",
    ) -> http.client.HTTPResponse:
        known = {key: value for key, value in (query or {}).items() if value}
        connection.request(
            method,
            f"{target}?{urlencode(known)}" if known else target,
            None if body is None else json.dumps(body),
            {"Authorization": f"Bearer {self.token}", "Content-Type": form},
        )
        return connection.getresponse()


def path(
    resource: str,
    namespace: str | None = None,
    name: str | None = None,
    subresource: str | None = None,
) -> str:
    """Where a resource, an object or a part of it is served."""
    group = _GROUP_OF.get(resource)
    scope = f"namespaces/{namespace}" if namespace else None
    parts = [
        f"/apis/{group}" if group else "/api/v1",
        scope,
        resource,
        name,
        subresource,
    ]
    return "/".join(part for part in parts if part)


def path_of(thing: Object) -> str:
    """Where an object is created; a namespace in it says that it is namespaced."""
    version, plural = thing["apiVersion"], _plural(thing["kind"].lower())
    root = "/api/v1" if version == "v1" else f"/apis/{version}"
    namespace = thing["metadata"].get("namespace")
    return (
        f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"
    )


def eventually(
    probe: Callable[[], T], timeout_s: float = 10, what: str = "", every_s: float = 0.05
) -> T:
    """The first true answer of a probe; fails the test if none comes in time."""
    deadline = time.monotonic() + timeout_s
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not within {timeout_s:g} s: {what or probe}: {answer!r}"
            )
        time.sleep(every_s)
    return answer


def _plural(kind: str) -> str:
    if kind.endswith("y"):
        return kind[:-1] + "ies"
    return kind + ("es" if kind.endswith("s") else "s")


def _delete_options(grace: int | None, uid: str | None) -> Object:
    options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
    # The default of Jobs is to leave their pods behind; kubectl does not either.
    options["propagationPolicy"] = "Background"
    if grace is not None:
        options["gracePeriodSeconds"] = grace
    if uid is not None:
        options["preconditions"] = {"uid": uid}
    return options


def _decoded(data: bytes) -> Object:
    try:
        answer = json.loads(data)
    except ValueError:
        return {"message": data.decode(errors="replace")}
    return answer if isinstance(answer, dict) else {"items": answer}
