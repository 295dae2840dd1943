"""The floor of `webhook.py`: the service's server software, and nothing to decide."""

import asyncio
import json
import signal

import uvloop
from aiohttp import web


async def echo(request: web.Request) -> web.Response:
    """Send the body back."""
    body = await request.read()
    return web.Response(body=body, headers={"Content-Type": "application/json"})


async def serve() -> None:
    """Run until SIGTERM."""
    app = web.Application(client_max_size=8 << 20)
    app.router.add_post("/", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    print(json.dumps({"http": f"{host}:{port}"}), flush=True)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as main:
        main.run(serve())
