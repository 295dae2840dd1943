"""Extenders for tests: one that does as it is told, and one that listens in.

Both are the same small HTTP server, down to the bytes on the connection, because what
kube-scheduler makes of a broken answer is what the tests here are about.
"""

import json
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.controlplane.client import Object

VERBS = ("filter", "prioritize", "preempt")


@dataclass
class Call:
    """One call of kube-scheduler, and what it was answered."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    at: float = field(default_factory=time.monotonic)
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b""

    @property
    def verb(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def args(self) -> Any:
        return json.loads(self.body)

    @property
    def result(self) -> Any:
        return json.loads(self.answer)

    @property
    def pod(self) -> str:
        """The pod asked about, as namespace/name."""
        metadata = self.args["Pod"]["metadata"]
        return f"{metadata['namespace']}/{metadata['name']}"

    @property
    def uid(self) -> str:
        return str(self.args["Pod"]["metadata"]["uid"])

    @property
    def names(self) -> list[str]:
        """The nodes offered."""
        offered = self.args.get("NodeNames")
        return list(offered if offered is not None else self.args.get("Nodes") or ())


@dataclass(frozen=True)
class Reply:
    """What to answer, and how badly."""

    body: bytes = b""
    status: int = 200
    headers: tuple[str, ...] = ()
    delay_s: float = 0
    chunked: bool = False
    cut: bool = False
    """Only half of the body comes, then the end of the connection."""
    reset: bool = False
    """The connection is reset in place of an answer."""


Script = Callable[[Call], Reply]


def said(value: object, **how: Any) -> Reply:
    """A reply of JSON."""
    return Reply(json.dumps(value).encode(), **how)


def accepted(
    names: Sequence[str],
    failed: dict[str, str] | None = None,
    unresolvable: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The result of filter."""
    return {
        "Nodes": None,
        "NodeNames": list(names),
        "FailedNodes": failed or {},
        "FailedAndUnresolvableNodes": unresolvable or {},
        "Error": "",
    }


def agreeable(call: Call) -> Reply:
    """Accepts every node, likes all alike and takes the victims it is offered."""
    if call.verb == "prioritize":
        return said([{"Host": name, "Score": 0} for name in call.names])
    if call.verb == "preempt":
        return said({"NodeNameToMetaVictims": call.args["NodeNameToMetaVictims"]})
    return said(accepted(call.names))


def rejecting(message: str | Callable[[], str], resolvable: bool = False) -> Script:
    """Accepts no node, for a reason."""

    def script(call: Call) -> Reply:
        if call.verb != "filter":
            return agreeable(call)
        text = message if isinstance(message, str) else message()
        failed = dict.fromkeys(call.names, text)
        return said(accepted([], *((failed, {}) if resolvable else ({}, failed))))

    return script


def only(verb: str, script: Script) -> Script:
    """A script for one verb; the others are agreeable."""
    return lambda call: script(call) if call.verb == verb else agreeable(call)


class Listener:
    """An HTTP server that remembers what it was asked and what it said."""

    scheme = "http"

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._connections: dict[int, socket.socket] = {}
        self._count = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.listener = self
        host, port = self._server.server_address[:2]
        self.address = f"{host!s}:{port}"
        self.url = f"{self.scheme}://{self.address}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self.hang_up()
        self._server.server_close()  # waits for the handlers
        self._thread.join()

    # What was asked

    def asked(self, verb: str = "", pod: str = "", since: float = 0) -> list[Call]:
        """The calls of one verb, or pod, or both, in their order."""
        return [
            call
            for call in list(self.calls)
            if verb in ("", call.verb)
            and call.at >= since
            and (not pod or pod in (call.pod, call.uid))
        ]

    @property
    def connections(self) -> int:
        """How many there have been so far."""
        return self._count

    def hang_up(self) -> None:
        """Close every connection."""
        for connection in list(self._connections.values()):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    # What is answered

    def serve(self, connection: socket.socket) -> None:
        self._count += 1
        number = self._count
        self._connections[number] = connection
        try:
            with suppress(OSError, EOFError):
                self._serve(connection, number)
        finally:
            del self._connections[number]

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection.makefile("rb") as stream:
            self._converse(connection, stream, number)

    def _converse(self, connection: socket.socket, stream: Any, number: int) -> None:
        while True:
            first, headers, body, _ = read_message(stream)
            call = Call(first.split(" ")[1], headers, body, number)
            if not self.answer(connection, call):
                return

    def answer(self, connection: socket.socket, call: Call) -> bool:
        """Answer one call; says whether the connection goes on."""
        raise NotImplementedError


class Scripted(Listener):
    """An extender, or several under one roof: `scripts` by the first part of the path.

    Whoever has no script is agreeable.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scripts: dict[str, Script] = {}

    def answer(self, connection: socket.socket, call: Call) -> bool:
        self.calls.append(call)
        script = self.scripts.get(call.path.split("/")[1], agreeable)
        reply = script(call)
        call.status, call.answer = reply.status, reply.body
        if reply.delay_s:
            time.sleep(reply.delay_s)
        if reply.reset:
            # No time to linger: the peer gets a reset in place of an end.
            option = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            connection.close()
            return False
        connection.sendall(_head_of(reply) + _body_of(reply))
        if reply.cut:
            connection.shutdown(socket.SHUT_RDWR)
        return not reply.cut


class SecretlyScripted(Scripted):
    """The same over TLS, with a certificate that no authority has signed."""

    scheme = "https"

    def __init__(self, certificate: str, key: str) -> None:
        super().__init__()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate, key)

    def _serve(self, connection: socket.socket, number: int) -> None:
        with self._context.wrap_socket(connection, server_side=True) as secret:
            self._connections[number] = secret
            super()._serve(secret, number)


class Tap(Listener):
    """Sits between kube-scheduler and our service, and passes bytes on as they are.

    `meddle` is called with every call and its answer before that is passed on.
    """

    def __init__(self, service: str = "") -> None:
        super().__init__()
        self.service = service
        self.meddle: Callable[[Call], None] = lambda _: None
        self._upstream: dict[int, tuple[socket.socket, Any]] = {}

    def _converse(self, connection: socket.socket, stream: Any, number: int) -> None:
        try:
            super()._converse(connection, stream, number)
        finally:
            self._leave(number)

    def answer(self, connection: socket.socket, call: Call) -> bool:
        try:
            raw = self._ask(call)
        except (OSError, EOFError):
            self._leave(call.connection)
            self.calls.append(call)
            return False
        self.calls.append(call)
        self.meddle(call)
        connection.sendall(raw)
        return True

    def _ask(self, call: Call) -> bytes:
        upstream, stream = self._join(call.connection)
        headers = "".join(f"{name}: {text}\r\n" for name, text in call.headers.items())
        head = f"POST {call.path} HTTP/1.1\r\n{headers}\r\n"
        upstream.sendall(head.encode() + call.body)
        first, call.answer_headers, call.answer, raw = read_message(stream)
        call.status = int(first.split(" ")[1])
        return raw

    def _join(self, number: int) -> tuple[socket.socket, Any]:
        """One connection to the service for each from kube-scheduler."""
        if number not in self._upstream:
            host, _, port = self.service.partition(":")
            upstream = socket.create_connection((host, int(port)), timeout=30)
            self._upstream[number] = upstream, upstream.makefile("rb")
        return self._upstream[number]

    def _leave(self, number: int) -> None:
        upstream, stream = self._upstream.pop(number, (None, None))
        if upstream is not None:
            stream.close()
            upstream.close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64
    listener: Listener


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        self.server.listener.serve(self.request)


def read_message(stream: Any) -> tuple[str, dict[str, str], bytes, bytes]:
    """First line, headers, body and raw bytes of a message; EOFError at the end."""
    raw = [_line(stream)]
    headers: dict[str, str] = {}
    while (line := _line(stream)) != b"\r\n":
        raw.append(line)
        name, _, value = line.decode().partition(":")
        headers[name.title()] = value.strip()
    raw.append(line)
    body = stream.read(int(headers.get("Content-Length", 0)))
    return raw[0].decode().strip(), headers, body, b"".join(raw) + body


def _line(stream: Any) -> bytes:
    line: bytes = stream.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError
    return line


def _head_of(reply: Reply) -> bytes:
    how = ["Content-Type: application/json", *reply.headers]
    if reply.chunked:
        how.append("Transfer-Encoding: chunked")
    elif reply.status != 204:
        how.append(f"Content-Length: {len(reply.body)}")
    return "\r\n".join([f"HTTP/1.1 {reply.status} So", *how, "", ""]).encode()


def _body_of(reply: Reply) -> bytes:
    if reply.cut:
        return reply.body[: len(reply.body) // 2]
    if reply.chunked:
        return b"%x\r\n%s\r\n0\r\n\r\n" % (len(reply.body), reply.body)
    return reply.body


# kube-scheduler's side


def stanza(url: str, name: str, *verbs: str, **changes: Any) -> Object:
    """One extender of a KubeSchedulerConfiguration, asked about one resource."""
    found: Object = {"urlPrefix": f"{url}/{name}", "nodeCacheCapable": True}
    found |= {f"{verb}Verb": verb for verb in verbs}
    if "prioritize" in verbs:
        found["weight"] = 1
    found["httpTimeout"] = "5s"
    found["managedResources"] = [
        {"name": resource_of(name), "ignoredByScheduler": False}
    ]
    return {**found, **changes}


def resource_of(name: str) -> str:
    """The extended resource by which pods choose their extender."""
    return f"wire.example/{name}"


def condition(pod: Object) -> Object:
    """What kube-scheduler says about a pod; empty while it has said nothing."""
    conditions: Iterable[Object] = pod.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == "PodScheduled"), {})
