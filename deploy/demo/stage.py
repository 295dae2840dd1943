"""Where the story of `make demo-kubernetes` plays: the cluster, and who tells of it."""

import json
import subprocess
import sys
import urllib.request
from typing import Any

from rich.markup import escape

from deploy.demo import work
from deploy.demo.chronicle import Chronicle, Life, Pause, Trainer
from deploy.demo.claims import Claims
from deploy.demo.service import Served
from deploy.demo.telling import FIGURES, Story, Use
from tests.controlplane import objects
from tests.controlplane.plane import ControlPlane

SAVES_S = 1.5
"""Time a trainer takes to write its checkpoint, seconds."""

VERBS = {
    "created": "asks",
    "held": "is promised",
    "bound": "starts",
    "asked": "is asked",
    "saved": "has saved",
    "ending": "is told",
    "gone": "is gone",
}


class Stage:
    """A cluster with the service, watched."""

    def __init__(self, plane: ControlPlane, service: Served, story: Story) -> None:
        self.client = plane.client
        self.story = story
        self.chapters: list[tuple[float, str]] = []
        self.shown: dict[str, str] = {}
        self._plane, self._service = plane, service
        self._trainer = Trainer(plane.client, work.SWEEPS, SAVES_S)
        self.chronicle = Chronicle(
            plane.client, story.clock, self._hear, self._hear_pause
        )
        self.claims = Claims(story.clock, self._confirm, self.chronicle.alive)

    # -- what is so ------------------------------------------------------------------

    def of(self, *works: str) -> list[Life]:
        """Return the pods of some workloads, past ones as well."""
        return self.chronicle.of(*works)

    def gpus(self, tenant: str) -> int:
        """Count the GPUs of a tenant's pods that run."""
        return sum(p.gpus for p in self.chronicle.all if p.runs and p.tenant == tenant)

    def asked(self) -> list[Life]:
        """Return the pods that were asked to save their work."""
        return [p for p in self.chronicle.all if p.asked is not None]

    def job(self, name: str) -> dict[str, Any]:
        """Return a Job of research as it is now."""
        return self.client.get("jobs", name, "research")

    def is_published(self, used: tuple[int, ...], pending: tuple[int, ...]) -> bool:
        """Whether the Tenant objects say so, tenant by tenant."""
        totals = {
            tenant["metadata"]["name"]: tenant["status"]["totals"]
            for tenant in self.client.items("tenants")
        }
        told = [(totals[n]["used"], totals[n]["pending"]) for n in work.TENANTS]
        return told == [(str(u), str(p)) for u, p in zip(used, pending, strict=True)]

    # -- what is done and shown ------------------------------------------------------

    def make_homes(self) -> None:
        """Make a namespace for each tenant; pods can be made in them at once."""
        for name in work.TENANTS:
            self.client.create(objects.namespace(name))
            self.client.ensure(objects.service_account("default", name))

    def kubectl(self, *arguments: str, keep: str = "") -> str:
        """Run kubectl and show what it says; it is kept for the report by a name."""
        command = f"$ kubectl {' '.join(arguments)}"
        said = self._plane.kubectl(*arguments).rstrip()
        self._print(command, said)
        if keep:
            self.shown[keep] = f"{command}\n{said}"
        return said

    def explain(self, life: Life) -> None:
        """Ask our service why a pod is where it is, by its own command."""
        asked = ("explain", f"{life.tenant}/{life.name}")
        program = (sys.executable, "-m", "scheduler")
        done = subprocess.run(
            [*program, *asked, "--server", self._service.grpc],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"fairshare explain: {done.stderr}")
        self._print(f"$ fairshare {' '.join(asked)}", done.stdout)

    def chapter(self, text: str, name: str = "") -> None:
        """Begin a chapter; one with a name is marked on the report's time lines."""
        if name:
            self.chapters.append((self.story.clock(), name))
        self.story.chapter(text)

    def note(self, moment: str) -> None:
        """Remember who holds what now."""
        rows = self._get("/v1/tenants")["tenants"]
        use: Use = {r["tenant"]: {k: r[k]["gpus"] for k in FIGURES} for r in rows}
        self.story.note(moment, use)

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._service.url}{path}", timeout=10) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
        return found

    def _print(self, command: str, said: str) -> None:
        self._say(f"  [bold]{escape(command)}[/]")
        for line in said.rstrip().splitlines():
            self._say(f"  [dim]{escape(line)}[/]")

    def _say(self, line: str) -> None:
        self.story.console.print(line, highlight=False, soft_wrap=True)

    # -- what is heard ---------------------------------------------------------------

    def _hear(self, life: Life, what: str) -> None:
        if what in VERBS:
            rest = {
                "created": f"for {life.gpus} GPUs, at the gate",
                "held": f"room on {life.hold}; it waits until that is free",
                "bound": f"on {life.node}",
                "asked": "to save its work",
                "saved": "its work",
                "ending": "to stop",
                "gone": f"from {life.node}" if life.node else "",
            }[what]
            self.story.tell(life.tenant, life.short, VERBS[what], rest)
        if what == "asked":
            self._trainer.asked(life)

    def _hear_pause(self, pause: Pause) -> None:
        verb = "is suspended" if pause.end is None else "is resumed"
        self.story.tell(pause.tenant, pause.work, verb, "as a Job")

    def _confirm(self, text: str) -> None:
        self._say(f"  {self.story.clock():5.1f} s  [green]✓ {text}[/]")
