"""The live half of the demo: a burst, an inference spike, a graceful reclaim.

Runs as a process of its own and meets the service by HTTP alone:
``python -m deploy.demo.live URL``.
"""

import argparse
import asyncio
import sys
import time

from rich.console import Console
from rich.table import Table

from deploy.demo.standin import FIGURES, Pod, StandIn, Work

NODES = [f"gpu-{i}" for i in range(4)]
GPUS = 32
TRAINING, INFERENCE = "fairshare-training", "fairshare-inference"
PATIENCE_S = 20.0

COLOURS = {"research": "cyan", "serving": "magenta"}


class Story:
    """Tells what happens, and keeps the table of who held what."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.begin = time.monotonic()
        self.rows: list[tuple[float, str, dict[str, dict[str, float]]]] = []

    def clock(self) -> float:
        return time.monotonic() - self.begin

    def tell(self, verb: str, pod: Pod, rest: str) -> None:
        name = pod.uid.rsplit("-", 1)[0]
        colour = COLOURS[pod.work.namespace]
        self.console.print(
            f"  {self.clock():5.1f} s  [{colour}]{pod.work.namespace:>8}[/]  "
            f"{name:<10} [bold]{verb}[/] {rest}",
            highlight=False,
        )

    def chapter(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/]")

    async def note(self, cluster: StandIn, moment: str) -> None:
        self.rows.append((self.clock(), moment, await cluster.tenants()))

    def table(self) -> Table:
        table = Table(title="GPUs over time: guaranteed / used / of it burst")
        table.add_column("s", justify="right")
        table.add_column("moment", no_wrap=True)
        for tenant, colour in COLOURS.items():
            table.add_column(tenant, justify="right", style=colour, no_wrap=True)
        table.add_column("one mark a GPU (░ leaving, · idle)", no_wrap=True)
        for at, moment, use in self.rows:
            cells = [f"{at:.0f}", moment]
            bar = ""
            for tenant, colour in COLOURS.items():
                mine = use.get(tenant, dict.fromkeys(FIGURES, 0.0))
                figures = (f"{mine[k]:2g}" for k in ("guarantee", "used", "burst"))
                cells.append(" / ".join(figures))
                bar += f"[{colour}]{'█' * int(mine['used'])}"
                bar += f"{'░' * int(mine['leaving'])}[/]"
            idle = GPUS - bar.count("█") - bar.count("░")
            table.add_row(*cells, bar + "·" * idle)
        return table


async def until(story: Story, cluster: StandIn, tenant: str, gpus: int) -> None:
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
    story = Story(console)
    async with StandIn(url, NODES, story.tell) as cluster:
        story.chapter("1. research trains; serving is idle, so research bursts")
        cluster.submit(Work("pretrain", "research", TRAINING, 8, 60.0, pods=2))
        await until(story, cluster, "research", 16)
        await story.note(cluster, "research uses its guarantee")
        cluster.submit(Work("tune-a", "research", TRAINING, 8, 60.0))
        cluster.submit(Work("tune-b", "research", TRAINING, 8, 60.0))
        await until(story, cluster, "research", 32)
        await story.note(cluster, "research bursts into idle GPUs")
        await asyncio.sleep(2.0)

        story.chapter("2. serving's users arrive: it asks for its guarantee")
        asked = story.clock()
        for replica in range(4):
            cluster.submit(Work(f"chat-{replica}", "serving", INFERENCE, 2, 3600.0))
        await asyncio.sleep(1.0)
        await story.note(cluster, "one burst job saves its work")
        await until(story, cluster, "serving", 8)
        served = story.clock()
        await story.note(cluster, "serving has its GPUs")
        await asyncio.sleep(2.0)

        story.chapter("3. the spike is over; the evicted job resumes")
        await cluster.scale_down("chat")
        await until(story, cluster, "research", 32)
        await story.note(cluster, "research bursts again")
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
