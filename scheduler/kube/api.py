"""Calls the API server: bytes in, bytes out, one error for everything that goes wrong.

Hidden here: aiohttp's client, TLS, tokens, and how the API server says no. Nothing is
tried again here: only callers know what may be done twice. (But aiohttp sends a GET,
PUT or DELETE once more when the connection breaks before there is an answer.)
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec
from msgspec import Struct

from scheduler.kube.credentials import Credentials, load_credentials

TIMEOUT_S = 30.0
"""Longest time a call may take, seconds."""

CONNECTIONS = 64
"""Most calls under way at once; further ones wait for their turn. Watches are extra."""

SILENCE_S = 330.0
"""Longest time a watch may say nothing, seconds; more than any watch lasts."""

USER_AGENT = f"gpu-fairshare/{version('gpu-fairshare')}"

GOODBYE_S = 0.25
"""Time that TLS connections have to close, seconds."""

_READ_BUFFER = 1 << 20
_SHOWN = 300

Query = Mapping[str, str]


class Patch(Enum):
    """How a patch is meant; the value is its content type."""

    STRATEGIC = "application/strategic-merge-patch+json"
    MERGE = "application/merge-patch+json"


class ApiError(Exception):
    """A call that did not succeed.

    Parameters
    ----------
    status
        HTTP status; 0 when there was no answer, and it is unknown what was done.
    reason
        The API's one word, such as ``Conflict``; ``Timeout`` or ``NoAnswer`` with 0.
    message
        The API's sentence.
    retry_after_s
        When the server wants to be asked again, seconds from now.
    causes
        The API's words for the details, such as ``DisruptionBudget``.
    details
        The API's sentences for the same, such as which budget.
    call
        What was called.
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        *,
        retry_after_s: float | None = None,
        causes: tuple[str, ...] = (),
        details: tuple[str, ...] = (),
        call: str = "",
    ) -> None:
        super().__init__(status, reason, message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        self.causes = causes
        self.details = details
        self.call = call

    def __str__(self) -> str:
        return f"{self.call}: {self.status} {self.reason}: {self.message}"


class Api:
    """One API server, as the caller of `connect` may see it."""

    def __init__(
        self, credentials: Credentials, *, timeout_s: float, connections: int
    ) -> None:
        self._credentials = credentials
        self._timeout_s = timeout_s
        self._calls = _session(credentials, connections)
        # Watches stay for minutes: they must not use up the connections of calls.
        self._watches = _session(credentials, 0)
        self._per_call: dict[str, Any] = {
            "allow_redirects": False,
            "server_hostname": credentials.server_name,
            "proxy": credentials.proxy,
        }

    @classmethod
    async def connect(
        cls,
        kubeconfig: Path | None = None,
        context: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        connections: int = CONNECTIONS,
    ) -> Self:
        """Read the credentials and be ready to call; nothing is called yet.

        Parameters
        ----------
        kubeconfig
            File to read. None: the service account when we run in a pod, else what
            kubectl would read.
        context
            Context of the kubeconfig; None: its current one.
        timeout_s
            Longest time a call may take, seconds.
        connections
            Most calls under way at once.

        Raises
        ------
        ConfigError
            When the credentials cannot be read or used.
        """
        credentials = await load_credentials(kubeconfig, context)
        return cls(credentials, timeout_s=timeout_s, connections=connections)

    async def close(self) -> None:
        """Close every connection."""
        await self._calls.close()
        await self._watches.close()
        await asyncio.sleep(GOODBYE_S)  # aiohttp does not wait for TLS to say goodbye

    async def get(self, path: str, query: Query | None = None) -> bytes:
        """Read an object or a list."""
        return await self._call("GET", path, query=query)

    async def create(self, path: str, body: bytes) -> bytes:
        """Post an object to a collection, or an order to a subresource."""
        return await self._call("POST", path, body)

    async def replace(self, path: str, body: bytes) -> bytes:
        """Put a whole object in the place of another."""
        return await self._call("PUT", path, body)

    async def patch(
        self, path: str, body: bytes, kind: Patch = Patch.STRATEGIC
    ) -> bytes:
        """Change parts of an object; only Kubernetes' own kinds take strategic ones."""
        return await self._call("PATCH", path, body, content=kind.value)

    async def delete(self, path: str, body: bytes | None = None) -> bytes:
        """Delete an object; the body holds options, such as preconditions."""
        return await self._call("DELETE", path, body)

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, query: Query, silence_s: float = SILENCE_S
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Watch: an iterator over whole lines; one that is cut off is never seen.

        It ends when the server ends the watch, and raises when the connection breaks
        or nothing is heard for `silence_s` seconds.
        """
        call = f"WATCH {path}"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=silence_s)
        async with contextlib.AsyncExitStack() as stack:
            with _unanswered(call):
                async with asyncio.timeout(self._timeout_s):
                    response = await stack.enter_async_context(
                        self._watches.get(
                            self._credentials.address + path,
                            params=query,
                            headers=await self._headers(None),
                            timeout=timeout,
                            **self._per_call,
                        )
                    )
                    if response.status >= 300:
                        raise self._refusal(call, response, await response.read())
            lines = _lines(call, response.content)
            stack.callback(_hang_up, response)
            async with contextlib.aclosing(lines):
                yield lines

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: Query | None = None,
        content: str = "application/json",
    ) -> bytes:
        """Make one call; everything but success is an ApiError."""
        call = f"{method} {path}"
        with _unanswered(call):
            async with asyncio.timeout(self._timeout_s):
                headers = await self._headers(None if body is None else content)
                async with self._calls.request(
                    method,
                    self._credentials.address + path,
                    params=query,
                    data=body,
                    headers=headers,
                    **self._per_call,
                ) as response:
                    answer = await response.read()
        if response.status >= 300:
            raise self._refusal(call, response, answer)
        return answer

    async def _headers(self, content: str | None) -> dict[str, str]:
        headers = {} if content is None else {"Content-Type": content}
        authorization = await self._credentials.authorization()
        if authorization is not None:
            headers["Authorization"] = authorization
        return headers

    def _refusal(
        self, call: str, response: aiohttp.ClientResponse, body: bytes
    ) -> ApiError:
        if response.status == 401:
            self._credentials.refused()
        retry_after = response.headers.get("Retry-After", "")
        return _refusal(call, response.status, retry_after, body)


class Cause(Struct, gc=False):
    """One detail of a refusal."""

    reason: str = ""
    message: str = ""


class Details(Struct, gc=False, rename="camel"):
    """The details of a refusal."""

    causes: list[Cause] | None = None
    retry_after_seconds: int = 0


class Status(Struct, gc=False):
    """What the API server sends in place of an object: as an answer, or in a watch."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: Details | None = None

    def error(self, call: str, retry_after_s: float | None = None) -> ApiError:
        """Return it as an error."""
        details = self.details or Details()
        return ApiError(
            self.code,
            self.reason,
            self.message,
            retry_after_s=retry_after_s or details.retry_after_seconds or None,
            causes=tuple(cause.reason for cause in details.causes or ()),
            details=tuple(c.message for c in details.causes or () if c.message),
            call=call,
        )


_status = msgspec.json.Decoder(Status)


def _refusal(call: str, status: int, retry_after: str, body: bytes) -> ApiError:
    """Read an answer that says no; what stands in between may answer in plain text."""
    try:
        found = _status.decode(body)
    except msgspec.DecodeError:
        found = Status(message=body[:_SHOWN].decode(errors="replace").strip())
    found.code = status
    return found.error(call, float(retry_after) if retry_after.isdecimal() else None)


@contextlib.contextmanager
def _unanswered(call: str) -> Iterator[None]:
    """Turn a missing answer into our error."""
    try:
        yield
    except TimeoutError as error:
        message = str(error) or "no answer in time"
        raise ApiError(0, "Timeout", message, call=call) from error
    except (aiohttp.ClientError, OSError) as error:
        message = f"{type(error).__name__}: {error}"
        raise ApiError(0, "NoAnswer", message, call=call) from error


def _hang_up(response: aiohttp.ClientResponse) -> None:
    """Close a watch that is left early at once: TLS would wait for a farewell."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


async def _lines(
    call: str, content: aiohttp.StreamReader
) -> AsyncGenerator[bytes, None]:
    """Cut what arrives into lines; the parts of a long one are put together once."""
    parts: list[bytes] = []
    with _unanswered(call):
        async for chunk in content.iter_any():
            first, *others = chunk.split(b"\n")
            parts.append(first)
            if others:
                yield b"".join(parts)
                for line in others[:-1]:
                    yield line
                parts = others[-1:]


def _session(credentials: Credentials, connections: int) -> aiohttp.ClientSession:
    tls = credentials.tls
    connector = aiohttp.TCPConnector(
        limit=connections,
        ssl=True if tls is None else tls,
        socket_factory=_socket,
    )
    # Not compressed: the API server would spend more time on that than the bytes need.
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
    }
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=_READ_BUFFER,
    )


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make a socket that finds out within a minute when its peer is gone for good."""
    family, kind, protocol, *_ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return made
