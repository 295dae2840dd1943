"""Speaks gRPC: the generated messages on one side, the service's answers on the other.

The only module that knows the generated code. `RpcServer` runs on the service's loop;
the `fetch_*` functions are the client that the command line uses.
"""

from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc import aio

from scheduler.core import (
    QUANTA_PER_GPU,
    Explanation,
    Form,
    QueueEntry,
    TenantUse,
    charge,
)
from scheduler.service import Service
from scheduler.v1 import scheduler_pb2 as pb
from scheduler.v1 import scheduler_pb2_grpc as pb_grpc


class RpcError(RuntimeError):
    """A call that failed; says what the server, or the network, answered."""


class RpcServer:
    """The gRPC server of one service."""

    def __init__(self, service: Service, address: tuple[str, int]) -> None:
        self._service = service
        self._address = address
        self._server: aio.Server | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; return host and port.

        Raises
        ------
        OSError
            When the address cannot be had.
        """
        host, port = self._address
        self._server = aio.server(options=[("grpc.so_reuseport", 0)])
        servicer = _Servicer(self._service)
        pb_grpc.add_SchedulerServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call] # generated
        shown = f"[{host}]" if ":" in host else host
        try:
            bound = self._server.add_insecure_port(f"{shown}:{port}")
        except RuntimeError as error:
            raise OSError(f"gRPC {shown}:{port}: {error}") from error
        await self._server.start()
        return host, bound

    async def stop(self, grace_s: float) -> None:
        """Accept no more and give calls in flight `grace_s` seconds."""
        if self._server is not None:
            await self._server.stop(grace_s)


class _Servicer(pb_grpc.SchedulerServicer):
    """Answers from the service; every call only reads."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ListTenants(  # noqa: N802 (the name of the contract)
        self,
        request: pb.ListTenantsRequest,
        context: aio.ServicerContext[pb.ListTenantsRequest, pb.ListTenantsResponse],
    ) -> pb.ListTenantsResponse:
        """Guarantee, use and burst of every queue."""
        await self._require_ready(context)
        rows = [_tenant_message(row) for row in self._service.tenants()]
        return pb.ListTenantsResponse(rows=rows)

    async def ListQueue(  # noqa: N802 (the name of the contract)
        self,
        request: pb.ListQueueRequest,
        context: aio.ServicerContext[pb.ListQueueRequest, pb.ListQueueResponse],
    ) -> pb.ListQueueResponse:
        """List the waiting gangs in the order of decision."""
        await self._require_ready(context)
        now = self._service.now
        entries = [
            _queue_message(entry, now)
            for entry in self._service.queue()
            if request.tenant in ("", entry.tenant)
        ]
        return pb.ListQueueResponse(entries=entries)

    async def Explain(  # noqa: N802 (the name of the contract)
        self,
        request: pb.ExplainRequest,
        context: aio.ServicerContext[pb.ExplainRequest, pb.ExplainResponse],
    ) -> pb.ExplainResponse:
        """Why a pod is where it is."""
        await self._require_ready(context)
        found = self._service.explain(request.pod)
        if found is None:
            message = f"pod {request.pod!r} is unknown (a UID or namespace/name)"
            await context.abort(grpc.StatusCode.NOT_FOUND, message)
        return _explanation_message(found)

    async def _require_ready(self, context: aio.ServicerContext[Any, Any]) -> None:
        if not self._service.ready:
            message = "the service is starting or stopping"
            await context.abort(grpc.StatusCode.UNAVAILABLE, message)


def _amount(quanta: int, form: Form) -> pb.Amount:
    return pb.Amount(
        devices=quanta / charge(form), gpus=quanta / QUANTA_PER_GPU, quanta=quanta
    )


def _tenant_message(row: TenantUse) -> pb.TenantUse:
    form = row.form
    return pb.TenantUse(
        tenant=row.name,
        parent=row.parent or "",
        form=form,
        guarantee=_amount(row.guarantee, form),
        used=_amount(row.used, form),
        borrowed=_amount(row.burst, form),
        pending=_amount(row.pending, form),
        share=_amount(row.share, form),
        limit=None if row.limit is None else _amount(row.limit, form),
        leaving=_amount(row.leaving, form),
        promised=_amount(row.promised, form),
        conditions=row.conditions,
    )


def _queue_message(entry: QueueEntry, now: float) -> pb.QueueEntry:
    form = entry.forms[0] if entry.forms else None
    return pb.QueueEntry(
        position=entry.position,
        gang=entry.gang,
        tenant=entry.tenant,
        workload_class=entry.workload_class.label,
        pods=entry.pods,
        amount=None if form is None else _amount(entry.quanta, form),
        forms=entry.forms,
        waiting_seconds=now - entry.submitted,
        covered=entry.covered,
        reason=entry.reason.name,
        message=entry.reason.value,
    )


def _explanation_message(found: Explanation) -> pb.ExplainResponse:
    return pb.ExplainResponse(
        uid=found.uid,
        name=found.name,
        tenant=found.tenant,
        gang=found.gang,
        workload_class=found.workload_class.label,
        reason=found.reason.name,
        message=found.reason.value,
        detail=found.detail,
        node=found.node or "",
        covered=found.covered,
        position=found.position,
        blockers=found.blockers,
    )


# -- client -------------------------------------------------------------------


def fetch_tenants(server: str, timeout_s: float) -> pb.ListTenantsResponse:
    """Ask who holds what.

    Raises
    ------
    RpcError
        When the call fails.
    """
    reply: pb.ListTenantsResponse = _fetch(
        server, "ListTenants", pb.ListTenantsRequest(), timeout_s
    )
    return reply


def fetch_queue(server: str, tenant: str, timeout_s: float) -> pb.ListQueueResponse:
    """Ask who waits; of one tenant, or of all if it is empty.

    Raises
    ------
    RpcError
        When the call fails.
    """
    reply: pb.ListQueueResponse = _fetch(
        server, "ListQueue", pb.ListQueueRequest(tenant=tenant), timeout_s
    )
    return reply


def fetch_explanation(server: str, pod: str, timeout_s: float) -> pb.ExplainResponse:
    """Ask why a pod is where it is.

    Raises
    ------
    RpcError
        When the call fails, or the pod is unknown.
    """
    reply: pb.ExplainResponse = _fetch(
        server, "Explain", pb.ExplainRequest(pod=pod), timeout_s
    )
    return reply


def to_json(reply: Message) -> str:
    """Write a reply as JSON, every field present."""
    return json_format.MessageToJson(reply, always_print_fields_with_no_presence=True)


def _fetch(server: str, method: str, request: Message, timeout_s: float) -> Any:
    with grpc.insecure_channel(server) as channel:
        stub = pb_grpc.SchedulerStub(channel)  # type: ignore[no-untyped-call] # generated
        try:
            return getattr(stub, method)(request, timeout=timeout_s)
        except grpc.RpcError as error:
            text = f"{server}: {error.code().name}: {error.details()}"
            raise RpcError(text) from error
