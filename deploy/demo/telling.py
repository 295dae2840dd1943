"""Tells a person at the screen what happens, and who held what at which moment."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

FIGURES = ("guarantee", "used", "burst", "leaving")
"""What `/v1/tenants` says of a tenant, and the table shows."""

Use = Mapping[str, Mapping[str, float]]
"""GPUs by tenant and figure."""


class Story:
    """A story in chapters.

    Parameters
    ----------
    colours
        Of the tenants, in the order of the table.
    gpus
        In the fleet.
    gpus_a_mark
        How many GPUs one mark of the table's bars stands for.
    """

    def __init__(
        self,
        console: Console,
        colours: Mapping[str, str],
        gpus: int,
        gpus_a_mark: int = 1,
    ) -> None:
        self.console = console
        self.begin = time.monotonic()
        self.rows: list[tuple[float, str, Use]] = []
        self._colours = colours
        self._marks = gpus // gpus_a_mark
        self._gpus_a_mark = gpus_a_mark

    def clock(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self.begin

    def chapter(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/]")

    def tell(self, tenant: str, name: str, verb: str, rest: str) -> None:
        """One line of what happens."""
        colour = self._colours[tenant]
        self.console.print(
            f"  {self.clock():5.1f} s  [{colour}]{tenant:>8}[/]  "
            f"{name:<10} [bold]{verb}[/] {rest}",
            highlight=False,
        )

    def note(self, moment: str, use: Use) -> None:
        """Remember who holds what now."""
        self.rows.append((self.clock(), moment, use))

    def table(self) -> Table:
        """All that was noted."""
        many = self._gpus_a_mark
        unit = "1 GPU" if many == 1 else f"{many} GPUs"
        table = Table(title="GPUs over time: guaranteed / used / of it burst")
        table.add_column("s", justify="right", no_wrap=True)
        table.add_column("moment", no_wrap=True)
        for tenant, colour in self._colours.items():
            table.add_column(tenant, justify="right", style=colour, no_wrap=True)
        table.add_column(f"{unit} a mark, ░ leaving, · idle", no_wrap=True)
        for at, moment, use in self.rows:
            table.add_row(f"{at:.0f}", moment, *self._amounts(use), self._bar(use))
        return table

    def _amounts(self, use: Use) -> list[str]:
        return [
            " / ".join(
                f"{use[tenant][key]:2g}" for key in ("guarantee", "used", "burst")
            )
            for tenant in self._colours
        ]

    def _bar(self, use: Use) -> str:
        bar = ""
        for tenant, colour in self._colours.items():
            used = round(use[tenant]["used"] / self._gpus_a_mark)
            leaving = round(use[tenant]["leaving"] / self._gpus_a_mark)
            bar += f"[{colour}]{'█' * used}{'░' * leaving}[/]"
        idle = self._marks - bar.count("█") - bar.count("░")
        return bar + "·" * idle
