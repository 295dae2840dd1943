"""One caller of the API server, against a server that has bad days."""

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from scheduler.config import ConfigError
from scheduler.kube import credentials
from scheduler.kube.api import USER_AGENT, Api, ApiError, Patch
from scheduler.kube.credentials import load_credentials
from tests.kube.apiserver import (
    THINGS,
    Break,
    connected,
    flaky,
    hang_up,
    kubeconfig,
    refuse,
    status,
)

WATCH = {"watch": "true", "resourceVersion": "0", "timeoutSeconds": "5"}


# -- calls ----------------------------------------------------------------------


def test_each_call_says_what_it_means(tmp_path: Path) -> None:
    async def play() -> None:
        async with flaky() as server, connected(server, tmp_path) as api:
            server.put("a")
            page = json.loads(await api.get(THINGS, {"limit": "5"}))
            assert [item["metadata"]["name"] for item in page["items"]] == ["a"]
            assert json.loads(await api.create("/x", b"1")) == {"kind": "Thing"}
            await api.replace("/x", b"2")
            await api.patch("/x", b"3")
            await api.patch("/x", b"4", Patch.MERGE)
            await api.delete("/x", b"5")
            await api.delete("/x")
            sent = [(one.method, one.body) for one in server.seen[1:]]
            bodies = [b"1", b"2", b"3", b"4", b"5", b""]
            verbs = ["POST", "PUT", "PATCH", "PATCH", "DELETE", "DELETE"]
            assert sent == list(zip(verbs, bodies, strict=True))
            types = [one.headers.get("Content-Type") for one in server.seen]
            assert types == [
                None,
                "application/json",
                "application/json",
                "application/strategic-merge-patch+json",
                "application/merge-patch+json",
                "application/json",
                None,
            ]
            for one in server.seen:
                assert one.headers["User-Agent"] == USER_AGENT
                assert one.headers["Authorization"] == "Bearer first"
                assert one.headers["Accept-Encoding"] == "identity"

    asyncio.run(play())


async def failure(api: Api, verb: str = "POST") -> ApiError:
    with pytest.raises(ApiError) as caught:
        await (
            api.get(THINGS, {"limit": "1"}) if verb == "GET" else api.create("/x", b"")
        )
    return caught.value


def test_a_refusal_is_read(tmp_path: Path) -> None:
    causes = [{"reason": "DisruptionBudget", "message": "needs 3"}]
    body = status(429, "TooManyRequests", "no eviction now", details={"causes": causes})

    async def play() -> None:
        async with flaky() as server, connected(server, tmp_path) as api:
            server.faults["POST"].append(lambda _: web.json_response(body, status=429))
            error = await failure(api)
            assert (error.status, error.reason) == (429, "TooManyRequests")
            assert error.causes == ("DisruptionBudget",)
            assert error.details == ("needs 3",)
            assert error.retry_after_s is None
            said = "POST /x: 429 TooManyRequests: no eviction now"
            assert str(error) == said

    asyncio.run(play())


@pytest.mark.parametrize(
    ("header", "details", "seconds"),
    [
        ("7", {}, 7.0),
        ("", {"retryAfterSeconds": 3}, 3.0),
        ("7", {"retryAfterSeconds": 3}, 7.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", {}, None),
        ("-1", {}, None),
    ],
)
def test_when_to_ask_again(
    tmp_path: Path, header: str, details: dict[str, int], seconds: float | None
) -> None:
    body = status(503, "ServiceUnavailable", details=details)

    def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=503, headers={"Retry-After": header})

    async def play() -> None:
        async with flaky() as server, connected(server, tmp_path) as api:
            server.faults["POST"].append(answer)
            assert (await failure(api)).retry_after_s == seconds

    asyncio.run(play())


def test_an_answer_from_in_between_is_plain_text(tmp_path: Path) -> None:
    async def play() -> None:
        async with flaky() as server, connected(server, tmp_path) as api:
            text = "<html>" + "\xff" * 400
            server.faults["POST"].append(lambda _: web.Response(status=502, text=text))
            error = await failure(api)
            assert (error.status, error.reason) == (502, "")
            assert error.message.startswith("<html>")
            assert len(error.message) <= 300

    asyncio.run(play())


def test_redirects_are_not_followed(tmp_path: Path) -> None:
    async def play() -> None:
        async with flaky() as server, connected(server, tmp_path) as api:
            answer = refuse(302, Location="http://localhost:1/")
            server.faults["GET"].append(answer)
            server.faults["list"].append(answer)
            assert (await failure(api, "GET")).status == 302
            assert len(server.seen) == 1

    asyncio.run(play())


def test_no_answer(tmp_path: Path) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await response.write(b"{")
        hang_up(request)
        return response

    async def play() -> None:
        async with flaky() as server, connected(server, tmp_path) as api:
            for fault in (hang_up, half):
                server.faults["POST"].append(fault)
                error = await failure(api)
                assert (error.status, error.reason) == (0, "NoAnswer")
            assert len(server.seen) == 2, "nothing is tried again"

    asyncio.run(play())


def test_nobody_listens(tmp_path: Path) -> None:
    async def play() -> None:
        async with flaky() as server:
            pass
        async with connected(server, tmp_path) as api:
            assert (await failure(api)).reason == "NoAnswer"
            with pytest.raises(ApiError) as caught:
                async with api.stream(THINGS, WATCH):
                    pass
            assert caught.value.status == 0

    asyncio.run(play())


async def slow(_: web.Request) -> web.Response:
    await asyncio.sleep(5)
    return web.Response()


def test_every_call_has_an_end(tmp_path: Path) -> None:
    async def play() -> None:
        async with flaky() as server, connected(server, tmp_path, timeout_s=0.1) as api:
            server.faults["POST"].append(slow)
            error = await failure(api)
            assert (error.status, error.reason) == (0, "Timeout")
            server.faults["watch"].append(slow)
            with pytest.raises(ApiError) as caught:
                async with api.stream(THINGS, WATCH):
                    pass
            assert caught.value.reason == "Timeout"

    asyncio.run(play())


def test_watches_do_not_use_up_connections(tmp_path: Path) -> None:
    most = now = 0

    async def count(_: web.Request) -> web.Response:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return web.Response()

    async def play() -> None:
        async with flaky() as server, connected(server, tmp_path, connections=2) as api:
            server.faults["POST"].extend([count] * 8)
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(4):
                    await stack.enter_async_context(api.stream(THINGS, WATCH))
                await asyncio.gather(*(api.create("/x", b"") for _ in range(8)))
            assert len(server.watches()) == 4

    asyncio.run(play())
    assert most == 2


# -- watches --------------------------------------------------------------------


async def read(api: Api, found: list[bytes], silence_s: float = 5.0) -> None:
    """Read a watch to its end."""
    async with api.stream(THINGS, WATCH, silence_s) as lines:
        async for line in lines:
            found.append(line)  # noqa: PERF401


def test_lines_are_whole_however_they_arrive(tmp_path: Path) -> None:
    sizes = [0, 10, 3_000_000, 5]

    async def play() -> list[bytes]:
        async with flaky() as server, connected(server, tmp_path) as api:
            for number, size in enumerate(sizes):
                server.put(f"t{number}", filler="x" * size)
            server.faults["watch"].append(Break(after=len(sizes)))
            async with api.stream(THINGS, WATCH) as lines:
                return [line async for line in lines]

    found = [json.loads(line) for line in asyncio.run(play())]
    assert [len(one["object"]["spec"]["filler"]) for one in found] == sizes


def test_a_line_in_pieces(tmp_path: Path) -> None:
    async def play() -> list[bytes]:
        async with flaky() as server, connected(server, tmp_path) as api:
            server.slow = True
            server.put("a", 1)
            server.put("a", 2)
            server.faults["watch"].append(Break(after=2))
            async with api.stream(THINGS, WATCH) as lines:
                return [line async for line in lines]

    found = [json.loads(line) for line in asyncio.run(play())]
    assert [one["object"]["spec"]["value"] for one in found] == [1, 2]


def test_a_line_that_is_cut_is_never_seen(tmp_path: Path) -> None:
    async def play() -> list[bytes]:
        found: list[bytes] = []
        async with flaky() as server, connected(server, tmp_path) as api:
            server.put("a")
            server.put("b")
            server.faults["watch"].append(Break(after=1, cut=True))
            with pytest.raises(ApiError, match="NoAnswer"):
                await read(api, found)
        return found

    (line,) = asyncio.run(play())
    assert json.loads(line)["object"]["metadata"]["name"] == "a"


def test_silence_has_an_end(tmp_path: Path) -> None:
    async def play() -> None:
        async with flaky() as server, connected(server, tmp_path) as api:
            with pytest.raises(ApiError, match="Timeout"):
                await read(api, [], silence_s=0.1)

    asyncio.run(play())


def test_a_refused_watch(tmp_path: Path) -> None:
    async def play() -> None:
        async with flaky() as server, connected(server, tmp_path) as api:
            server.faults["watch"].append(refuse(429, "TooMany", Retry_After="2"))
            with pytest.raises(ApiError) as caught:
                async with api.stream(THINGS, WATCH):
                    pass
            assert (caught.value.status, caught.value.retry_after_s) == (429, 2.0)

    asyncio.run(play())


# -- who we are -----------------------------------------------------------------


@contextlib.asynccontextmanager
async def known_by(folder: Path, **user: Any) -> AsyncIterator[Any]:
    """A server, and a function that returns what a call shows as authorization."""
    async with flaky() as server:
        path = kubeconfig(folder, f"http://127.0.0.1:{server.port}", **user)
        api = await Api.connect(path, "here")

        async def shown() -> str | None:
            with contextlib.suppress(ApiError):
                await api.create("/x", b"")
            return server.seen[-1].headers.get("Authorization")

        try:
            yield server, shown
        finally:
            await api.close()


def test_a_token_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")

    async def play() -> None:
        async with known_by(tmp_path, tokenFile=str(token)) as (_, shown):
            assert await shown() == "Bearer one"
            token.write_text("two\n")
            assert await shown() == "Bearer one"
            monkeypatch.setattr(credentials, "RENEW_S", 0.0)
            assert await shown() == "Bearer two"

    asyncio.run(play())


def test_a_refused_token_is_read_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "REFUSED_RENEW_S", 0.0)
    token = tmp_path / "token"
    token.write_text("one")

    async def play() -> None:
        async with known_by(tmp_path, tokenFile=str(token)) as (server, shown):
            token.write_text("two")
            server.faults["POST"].append(refuse(401, "Unauthorized"))
            assert await shown() == "Bearer one"
            assert await shown() == "Bearer two"
            token.unlink()
            server.faults["POST"].append(refuse(401, "Unauthorized"))
            assert await shown() == "Bearer two"
            assert await shown() == "Bearer two", "what cannot be read stays"

    asyncio.run(play())


def test_refusals_together_are_one_renewal(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one")

    async def play() -> None:
        async with known_by(tmp_path, tokenFile=str(token)) as (server, shown):
            token.write_text("two")
            server.faults["POST"].append(refuse(401, "Unauthorized"))
            await shown()
            assert await shown() == "Bearer one", "not twice within a second"

    asyncio.run(play())


def plugin(folder: Path, expiry: str) -> dict[str, Any]:
    """A program that gives another token each time it is asked."""
    count, script = folder / "count", folder / "plugin.py"
    count.write_text("0")
    script.write_text(
        f"""
import json, pathlib
count = pathlib.Path({str(count)!r})
number = int(count.read_text()) + 1
count.write_text(str(number))
status = {{"token": f"token-{{number}}", **json.loads({expiry!r})}}
version = "client.authentication.k8s.io/v1"
print(json.dumps({{"apiVersion": version, "kind": "ExecCredential", "status": status}}))
"""
    )
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(script)],
    }


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
@pytest.mark.parametrize(
    ("ends", "tokens"),
    [
        ("", ["token-1", "token-1", "token-2", "token-2"]),
        ("2999-01-01T00:00:00Z", ["token-1", "token-1", "token-2", "token-2"]),
        ("2000-01-01T00:00:00Z", ["token-2", "token-3", "token-4", "token-5"]),
    ],
)
def test_a_program_is_asked_when_its_token_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, tokens: list[str]
) -> None:
    monkeypatch.setattr(credentials, "RENEW_S", 0.0)
    monkeypatch.setattr(credentials, "REFUSED_RENEW_S", 0.0)
    status = json.dumps({"expirationTimestamp": ends} if ends else {})
    command = plugin(tmp_path, status)

    async def play() -> None:
        async with known_by(tmp_path, exec=command) as (server, shown):
            found = [await shown()]
            server.faults["POST"].append(refuse(401, "Unauthorized"))
            found += [await shown() for _ in range(3)]
            assert found == [f"Bearer {token}" for token in tokens]

    asyncio.run(play())


@pytest.mark.parametrize(
    ("text", "context", "problem"),
    [
        (None, None, "no such file"),
        ("{}", None, "current-context"),
        ('{"current-context": "x", "contexts": []}', None, "name x"),
        ('{"contexts": []}', "other", "name other"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(
    tmp_path: Path, text: str | None, context: str | None, problem: str
) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=problem) as caught:
        asyncio.run(Api.connect(path, context))
    assert str(path) in str(caught.value)


# -- TLS ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own authority, for localhost; for client and server."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is needed to make certificates")
    folder = tmp_path_factory.mktemp("tls")
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    subprocess.run(
        [openssl, *command.split(), *names.split(), *files],
        check=True,
        capture_output=True,
    )
    return folder


@contextlib.asynccontextmanager
async def guarded(identity: Path) -> AsyncIterator[str]:
    """A server that wants to see a client's certificate; the address it has."""
    certificate = str(identity / "certificate")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    tls.load_cert_chain(certificate, str(identity / "key"))
    tls.verify_mode = ssl.CERT_REQUIRED

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/hello", hello)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("cluster", "shows", "answers"),
    [
        ({"tls-server-name": "localhost"}, True, True),
        ({"insecure-skip-tls-verify": True}, True, True),
        ({}, True, False),
        ({"tls-server-name": "localhost"}, False, False),
    ],
    ids=["by another name", "not verified", "wrong name", "no certificate"],
)
def test_tls(
    tmp_path: Path, identity: Path, cluster: dict[str, Any], shows: bool, answers: bool
) -> None:
    certificate, key = str(identity / "certificate"), str(identity / "key")
    user = {"client-certificate": certificate, "client-key": key} if shows else {}
    trusted = {"certificate-authority": certificate, **cluster}

    async def play() -> None:
        async with guarded(identity) as address:
            path = kubeconfig(tmp_path, address, cluster=trusted, **user)
            api = await Api.connect(path)
            try:
                assert await api.get("/hello") == b"hello"
            finally:
                await api.close()

    if answers:
        asyncio.run(play())
    else:
        with pytest.raises(ApiError, match="NoAnswer"):
            asyncio.run(play())


def test_the_service_account_of_a_pod(
    tmp_path: Path, identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.aio.config import incluster_config

    token = tmp_path / "token"
    token.write_text("mine\n")
    certificate = str(identity / "certificate")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", certificate)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(credentials, "RENEW_S", 0.0)

    async def play() -> None:
        found = await load_credentials(None, None)
        assert found.address == "https://[fd00::1]:443"
        assert found.tls is not None
        assert await found.authorization() == "bearer mine"
        token.write_text("another")
        assert await found.authorization() == "bearer another"

    asyncio.run(play())


def test_a_pod_without_a_service_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(ConfigError, match="token file"):
        asyncio.run(Api.connect())
