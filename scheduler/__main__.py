"""The ``fairshare`` command: composition root of the service, and its client verbs.

No logic here: read, wire, run, shut down; ask, print. Imports are made inside the
commands, so that ``--help`` is quick and a client loads no server.
"""

import asyncio
import contextlib
import gc
import json
import logging
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from scheduler.config import Config

DEFAULT_SERVER = "127.0.0.1:9090"
CALL_TIMEOUT_S = 10.0

app = typer.Typer(
    help="GPU fair-share scheduler for Kubernetes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[
    Path, typer.Option("--config", help="Settings file, see deploy/example-config.yaml")
]
Address = Annotated[
    str | None, typer.Option(help="host:port in place of the file's; port 0: any free")
]
Server = Annotated[str, typer.Option(help="gRPC address of the service")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, not a table")]


# -- serve --------------------------------------------------------------------


@app.command()
def serve(
    config: ConfigFile,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the file can be used")
    ] = False,
    listen: Address = None,
    grpc_listen: Address = None,
) -> None:
    """Run the service: kube-scheduler's extender, and standalone mode's event door.

    Prints one line of JSON with the addresses when it is ready. SIGTERM ends it.
    """
    from scheduler.config import ConfigError, load_config

    try:
        settings = load_config(config)
        settings = _with_addresses(settings, listen, grpc_listen)
    except ConfigError as error:
        typer.echo(f"{config}: cannot be used", err=True)
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    if check:
        gpus = sum(node.gpus * node.count for node in settings.nodes)
        nodes = sum(node.count for node in settings.nodes)
        queues = len(settings.tenants)
        typer.echo(f"{config}: ok: {nodes} nodes, {gpus} GPUs, {queues} queues")
        return
    _run(settings)


def _with_addresses(
    settings: "Config", listen: str | None, grpc_listen: str | None
) -> "Config":
    from scheduler.config import ConfigError, parse_address

    changes = {}
    for key, text in (("listen", listen), ("grpc_listen", grpc_listen)):
        if text is not None:
            try:
                changes[key] = parse_address(text)
            except ValueError as error:
                option = key.replace("_", "-")
                raise ConfigError(f"--{option}: {text!r} {error}") from None
    server = settings.server.model_copy(update=changes)
    return settings.model_copy(update={"server": server})


def _run(settings: "Config") -> None:
    import uvloop

    from scheduler.config import ConfigError

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"cannot listen: {error}", err=True)
        raise typer.Exit(1) from None


async def _serve(settings: "Config") -> None:
    """Run until SIGTERM or SIGINT, which also end a start that takes long."""
    serving = asyncio.create_task(_serve_for_ever(settings))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not serving.cancelling():  # a second signal does not cut the end short
            serving.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _serve_for_ever(settings: "Config") -> None:
    async with _running(settings) as addresses:
        typer.echo(json.dumps({"event": "listening", **addresses}))
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def _running(settings: "Config") -> AsyncIterator[dict[str, str]]:
    """Start everything, give the addresses, and end everything."""
    from scheduler.extender import Extender
    from scheduler.rpc import RpcServer
    from scheduler.service import OnKubernetes, Service, Standalone

    on_kubernetes = settings.kubernetes is not None
    service: Service = OnKubernetes(settings) if on_kubernetes else Standalone(settings)
    extender = Extender(service, settings)
    rpc = RpcServer(service, settings.server.grpc_listen)
    try:
        http, grpc = await extender.start(), await rpc.start()
        await service.start()
        _settle_memory()
        yield {"http": _shown(http), "grpc": _shown(grpc)}
    finally:
        service.drain()
        await asyncio.gather(extender.stop(), rpc.stop(settings.server.stop_timeout))
        await service.stop()


def _settle_memory() -> None:
    """Keep the collector's pauses short: nothing is answered meanwhile.

    A full collection walks every node and pod, so what is there already is left out,
    and full ones are rare; young ones stay small.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 50, 1_000)


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# -- client verbs -------------------------------------------------------------

_Reply = TypeVar("_Reply")


@app.command()
def tenants(server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Show guarantee, use and burst of every queue."""
    from scheduler import rpc

    reply = _ask(lambda: rpc.fetch_tenants(server, CALL_TIMEOUT_S))
    if as_json:
        typer.echo(rpc.to_json(reply))
        return
    table = _table("tenant", "form")
    figures = ("guarantee", "used", "burst", "leaving", "pending", "share", "limit")
    for name in figures:
        table.add_column(name, justify="right")
    conditions: dict[str, list[str]] = {}
    for row in reply.rows:
        held = (row.used, row.borrowed, row.leaving)
        amounts = (*held, row.pending, row.share)
        limit = f"{row.limit.devices:g}" if row.HasField("limit") else "-"
        numbers = [f"{amount.devices:g}" for amount in amounts]
        guarantee = _kept(row.guarantee.devices, row.promised.devices)
        table.add_row(row.tenant, row.form, guarantee, *numbers, limit)
        for condition in row.conditions:
            conditions.setdefault(condition, []).append(row.tenant)
    _show(table)
    for condition, names in conditions.items():
        typer.echo(f"{', '.join(dict.fromkeys(names))}: {condition}")


def _kept(guarantee: float, promised: float) -> str:
    """Write a guarantee; ``8 of 16`` where not all that was promised is there."""
    kept = f"{guarantee:g}"
    return kept if guarantee == promised else f"{kept} of {promised:g}"


@app.command()
def queue(
    server: Server = DEFAULT_SERVER,
    tenant: Annotated[str, typer.Option(help="Only this tenant")] = "",
    as_json: AsJson = False,
) -> None:
    """Show who waits, in the order of decision."""
    from scheduler import rpc

    reply = _ask(lambda: rpc.fetch_queue(server, tenant, CALL_TIMEOUT_S))
    if as_json:
        typer.echo(rpc.to_json(reply))
        return
    table = _table("#", "gang", "tenant", "class", "pods", "GPUs", "covered", "waits")
    table.add_column("reason")
    for entry in reply.entries:
        table.add_row(
            str(entry.position),
            entry.gang,
            entry.tenant,
            entry.workload_class,
            str(entry.pods),
            f"{entry.amount.gpus:g}",
            "yes" if entry.covered else "no",
            f"{entry.waiting_seconds:.0f}s",
            entry.message,
        )
    _show(table)


@app.command()
def explain(
    pod: Annotated[str, typer.Argument(help="UID, or namespace/name")],
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Say why a pod is where it is."""
    from scheduler import rpc

    reply = _ask(lambda: rpc.fetch_explanation(server, pod, CALL_TIMEOUT_S))
    if as_json:
        typer.echo(rpc.to_json(reply))
        return
    typer.echo(f"{reply.name}: {reply.message}")
    table = _table("", "")
    table.show_header = False
    covered = "yes" if reply.covered else "no"
    for name, text in (
        ("reason", reply.reason),
        ("detail", reply.detail),
        ("tenant", reply.tenant),
        ("class", reply.workload_class),
        ("gang", reply.gang),
        ("node", reply.node),
        ("covered by guarantee", covered if reply.HasField("covered") else ""),
        ("place in the queue", str(reply.position) if reply.position else ""),
        ("waits for", ", ".join(reply.blockers)),
    ):
        if text:
            table.add_row(name, text)
    _show(table)


def _ask(call: Callable[[], _Reply]) -> _Reply:
    from scheduler.rpc import RpcError

    try:
        return call()
    except RpcError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _table(*columns: str) -> "Table":
    from rich.table import Table

    return Table(*columns, box=None, header_style="bold", pad_edge=False)


def _show(table: "Table") -> None:
    from rich.console import Console

    Console().print(table)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
