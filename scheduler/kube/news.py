"""Events that people see in ``kubectl describe`` and ``kubectl get events``.

They are told as far as there is room: what nobody can write down in time is dropped,
and nothing waits for it.
"""

import itertools
import time

from scheduler.codec import writes
from scheduler.codec.writes import Subject
from scheduler.kube.api import Api, ApiError
from scheduler.kube.calls import Calls
from scheduler.kube.gaps import timestamp
from scheduler.kube.jobs import JobRecord
from scheduler.kube.records import Record

MOST = 200
"""Events that wait to be written; further ones are dropped."""


class News:
    """Writes events."""

    def __init__(self, api: Api, calls: Calls) -> None:
        self._api = api
        self._calls = calls
        self._numbers = itertools.count(1)
        self._start = f"{time.time_ns():x}"
        self._waiting = 0
        self.dropped = 0

    def tell(
        self, record: Record, reason: str, message: str, *, warning: bool = False
    ) -> None:
        """Tell something about a pod."""
        subject = Subject("v1", "Pod", record.name, record.uid, record.namespace)
        self._tell(subject, reason, message, warning)

    def tell_job(self, job: JobRecord, reason: str, message: str) -> None:
        """Tell something about a Job."""
        subject = Subject("batch/v1", "Job", job.name, job.uid, job.namespace)
        self._tell(subject, reason, message, False)

    def _tell(self, subject: Subject, reason: str, message: str, warning: bool) -> None:
        if self._waiting >= MOST:
            self.dropped += 1
            return
        self._waiting += 1
        number = next(self._numbers)
        name = f"{subject.name[:200]}.{self._start}-{number:x}"
        body = writes.event(
            name, subject, reason, message, timestamp(time.time()), warning=warning
        )
        path = f"/api/v1/namespaces/{subject.namespace}/events"
        self._calls.start(f"event {number}", lambda: self._write(path, body))

    async def _write(self, path: str, body: bytes) -> None:
        try:
            await self._calls.call("event", lambda: self._api.create(path, body))
        except ApiError:
            self.dropped += 1
        finally:
            self._waiting -= 1
