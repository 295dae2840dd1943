from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Amount(_message.Message):
    __slots__ = ("devices", "gpus", "quanta")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    QUANTA_FIELD_NUMBER: _ClassVar[int]
    devices: float
    gpus: float
    quanta: int
    def __init__(self, devices: _Optional[float] = ..., gpus: _Optional[float] = ..., quanta: _Optional[int] = ...) -> None: ...

class ListTenantsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTenantsResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[TenantUse]
    def __init__(self, rows: _Optional[_Iterable[_Union[TenantUse, _Mapping]]] = ...) -> None: ...

class TenantUse(_message.Message):
    __slots__ = ("tenant", "parent", "form", "guarantee", "used", "borrowed", "pending", "share", "limit", "leaving", "promised", "conditions")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    GUARANTEE_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    BORROWED_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    PROMISED_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    parent: str
    form: str
    guarantee: Amount
    used: Amount
    borrowed: Amount
    pending: Amount
    share: Amount
    limit: Amount
    leaving: Amount
    promised: Amount
    conditions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tenant: _Optional[str] = ..., parent: _Optional[str] = ..., form: _Optional[str] = ..., guarantee: _Optional[_Union[Amount, _Mapping]] = ..., used: _Optional[_Union[Amount, _Mapping]] = ..., borrowed: _Optional[_Union[Amount, _Mapping]] = ..., pending: _Optional[_Union[Amount, _Mapping]] = ..., share: _Optional[_Union[Amount, _Mapping]] = ..., limit: _Optional[_Union[Amount, _Mapping]] = ..., leaving: _Optional[_Union[Amount, _Mapping]] = ..., promised: _Optional[_Union[Amount, _Mapping]] = ..., conditions: _Optional[_Iterable[str]] = ...) -> None: ...

class ListQueueRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class ListQueueResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[QueueEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[QueueEntry, _Mapping]]] = ...) -> None: ...

class QueueEntry(_message.Message):
    __slots__ = ("position", "gang", "tenant", "workload_class", "pods", "amount", "forms", "waiting_seconds", "covered", "reason", "message")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    GANG_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_CLASS_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    FORMS_FIELD_NUMBER: _ClassVar[int]
    WAITING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COVERED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    position: int
    gang: str
    tenant: str
    workload_class: str
    pods: int
    amount: Amount
    forms: _containers.RepeatedScalarFieldContainer[str]
    waiting_seconds: float
    covered: bool
    reason: str
    message: str
    def __init__(self, position: _Optional[int] = ..., gang: _Optional[str] = ..., tenant: _Optional[str] = ..., workload_class: _Optional[str] = ..., pods: _Optional[int] = ..., amount: _Optional[_Union[Amount, _Mapping]] = ..., forms: _Optional[_Iterable[str]] = ..., waiting_seconds: _Optional[float] = ..., covered: _Optional[bool] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("pod",)
    POD_FIELD_NUMBER: _ClassVar[int]
    pod: str
    def __init__(self, pod: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("uid", "name", "tenant", "gang", "workload_class", "reason", "message", "detail", "node", "covered", "position", "blockers")
    UID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    GANG_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_CLASS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    COVERED_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    BLOCKERS_FIELD_NUMBER: _ClassVar[int]
    uid: str
    name: str
    tenant: str
    gang: str
    workload_class: str
    reason: str
    message: str
    detail: str
    node: str
    covered: bool
    position: int
    blockers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, uid: _Optional[str] = ..., name: _Optional[str] = ..., tenant: _Optional[str] = ..., gang: _Optional[str] = ..., workload_class: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., detail: _Optional[str] = ..., node: _Optional[str] = ..., covered: _Optional[bool] = ..., position: _Optional[int] = ..., blockers: _Optional[_Iterable[str]] = ...) -> None: ...
