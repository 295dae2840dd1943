"""The live half of the demo: a burst, an inference spike, a graceful reclaim.

Runs as a process of its own and meets the service by HTTP alone:
``python -m deploy.demo.live URL``.
"""

import argparse
import asyncio
import sys
import time

from rich.console import Console

from deploy.demo.standin import Pod, StandIn, Work
from deploy.demo.telling import Story

NODES = [f"gpu-{i}" for i in range(4)]
GPUS = 32
TRAINING, INFERENCE = "fairshare-training", "fairshare-inference"
PATIENCE_S = 20.0

COLOURS = {"research": "cyan", "serving": "magenta"}


async def until(cluster: StandIn, tenant: str, gpus: int) -> None:
    """Wait until the tenant runs that many GPUs."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        running = sum(
            pod.work.gpus
            for pod in cluster.pods.values()
            if pod.node and pod.work.namespace == tenant and not pod.ending
        )
        if running == gpus:
            return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{tenant} did not come to {gpus} GPUs in {PATIENCE_S:g} s")


async def play(url: str, console: Console) -> None:
    story = Story(console, COLOURS, GPUS)

    def tell(verb: str, pod: Pod, rest: str) -> None:
        story.tell(pod.work.namespace, pod.uid.rsplit("-", 1)[0], verb, rest)

    async def note(moment: str) -> None:
        story.note(moment, await cluster.tenants())

    async with StandIn(url, NODES, tell) as cluster:
        story.chapter("1. research trains; serving is idle, so research bursts")
        cluster.submit(Work("pretrain", "research", TRAINING, 8, 60.0, pods=2))
        await until(cluster, "research", 16)
        await note("research uses its guarantee")
        cluster.submit(Work("tune-a", "research", TRAINING, 8, 60.0))
        cluster.submit(Work("tune-b", "research", TRAINING, 8, 60.0))
        await until(cluster, "research", 32)
        await note("research bursts into idle GPUs")
        await asyncio.sleep(2.0)

        story.chapter("2. serving's users arrive: it asks for its guarantee")
        asked = story.clock()
        for replica in range(4):
            cluster.submit(Work(f"chat-{replica}", "serving", INFERENCE, 2, 3600.0))
        await asyncio.sleep(1.0)
        await note("one burst job saves its work")
        await until(cluster, "serving", 8)
        served = story.clock()
        await note("serving has its GPUs")
        await asyncio.sleep(2.0)

        story.chapter("3. the spike is over; the evicted job resumes")
        await cluster.scale_down("chat")
        await until(cluster, "research", 32)
        await note("research bursts again")
    console.print()
    console.print(story.table())
    console.print(
        f"serving waited [bold]{served - asked:.1f} s[/] for its guarantee; one job of "
        "8 GPUs gave way, its work saved first. The two-node job that research's own "
        "guarantee covers was never touched."
    )


def main() -> None:
    """Run the story against the service at the given address."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="http://host:port of the service")
    console = Console(width=None if sys.stdout.isatty() else 118)
    asyncio.run(play(parser.parse_args().url, console))


if __name__ == "__main__":
    main()
