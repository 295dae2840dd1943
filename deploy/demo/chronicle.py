"""What the API server tells of pods and Jobs, as it happens: who ran where and when.

Everything the demo shows and checks comes from these two watches, not from our service.
"""

import http.client
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from deploy.demo.claims import DemoError
from tests.controlplane.client import ApiError, Client, Object
from tests.controlplane.objects import GATE, GPU

PREFIX = "fairshare.dev/"
HOLD = f"{PREFIX}hold"
ASKED = f"{PREFIX}checkpoint-deadline"
SAVED = f"{PREFIX}checkpoint-done"


@dataclass
class Life:
    """One pod that asks for GPUs; moments in seconds since the story began."""

    tenant: str
    work: str
    name: str
    gpus: int
    created: float
    node: str = ""
    hold: str = ""
    held: float | None = None
    opened: float | None = None
    bound: float | None = None
    started: float | None = None
    asked: float | None = None
    saved: float | None = None
    evicted: float | None = None
    ending: float | None = None
    gone: float | None = None

    @property
    def short(self) -> str:
        """Its name without what a Deployment or Job puts in the middle."""
        return f"{self.work}-{self.name.rpartition('-')[2]}"

    @property
    def waits(self) -> bool:
        """Whether it is at the gate."""
        return self.opened is None and self.ending is None and self.gone is None

    @property
    def runs(self) -> bool:
        """Whether it was started by its node and not told to stop."""
        return self.started is not None and self.ending is None and self.gone is None


@dataclass
class Pause:
    """A time for which a Job was suspended; `end` is None while it is."""

    tenant: str
    work: str
    begin: float
    end: float | None = None


@dataclass
class Chronicle:
    """Watches pods and Jobs until the API server ends.

    Parameters
    ----------
    on_moment
        Hears of each moment of a pod's life, by its name, in their order.
    on_pause
        Hears when a Job is suspended, and when it goes on.
    """

    client: Client
    clock: Callable[[], float]
    on_moment: Callable[[Life, str], None]
    on_pause: Callable[[Pause], None]
    lives: dict[str, Life] = field(default_factory=dict)
    pauses: list[Pause] = field(default_factory=list)
    failure: str = ""
    closing: bool = False

    def begin(self) -> None:
        """Watch from now on."""
        for resource, see in (("pods", self._see_pod), ("jobs", self._see_job)):
            threading.Thread(
                target=self._watch, args=(resource, see), daemon=True
            ).start()

    def alive(self) -> None:
        """Raise if one of the watches has ended."""
        if self.failure:
            raise DemoError(self.failure)

    def of(self, *works: str) -> list[Life]:
        """Return the pods of some workloads, past ones as well, as they came."""
        return [life for life in self.all if life.work in works]

    @property
    def all(self) -> list[Life]:
        """All pods there were, in the order they came."""
        return list(self.lives.values())

    def _watch(self, resource: str, see: Callable[[str, Object], None]) -> None:
        try:
            with self.client.watch(resource, timeout_s=3600) as news:
                for kind, thing in news:
                    see(kind, thing)
            problem = "the stream has ended"
        except Exception as error:  # else nobody would hear of it: this is a thread
            problem = repr(error)
        if not self.closing:
            self.failure = f"the watch of {resource} broke: {problem}"

    # -- pods ------------------------------------------------------------------------

    def _see_pod(self, kind: str, pod: Object) -> None:
        uid, now = pod["metadata"]["uid"], self.clock()
        if uid not in self.lives:
            if kind == "DELETED" or not gpus_of(pod):
                return
            self.lives[uid] = born(pod, now)
            self.on_moment(self.lives[uid], "created")
        life = self.lives[uid]
        for what in self._news(life, kind, pod):
            setattr(life, what, now)
            self.on_moment(life, what)

    def _news(self, life: Life, kind: str, pod: Object) -> Iterable[str]:
        """Moments of a life that this is the first sight of, in their order."""
        notes = pod["metadata"].get("annotations") or {}
        life.node = life.node or pod["spec"].get("nodeName", "")
        if HOLD in notes:
            life.hold = pod["status"].get("nominatedNodeName", "")
        phase = pod["status"].get("phase")
        seen = {
            "held": bool(life.hold),
            "opened": not is_gated(pod),
            "bound": bool(life.node),
            "started": phase == "Running",
            "asked": ASKED in notes,
            "saved": SAVED in notes,
            "evicted": has_to_go(pod),
            "ending": "deletionTimestamp" in pod["metadata"],
            "gone": kind == "DELETED" or phase in ("Succeeded", "Failed"),
        }
        return [w for w, so in seen.items() if so and getattr(life, w) is None]

    # -- Jobs ------------------------------------------------------------------------

    def _see_job(self, kind: str, job: Object) -> None:
        tenant, work = job["metadata"]["namespace"], job["metadata"]["name"]
        mine = [p for p in self.pauses if p.work == work and p.end is None]
        suspended = bool(job["spec"].get("suspend")) and kind != "DELETED"
        if suspended and not mine:
            self.pauses.append(Pause(tenant, work, self.clock()))
            self.on_pause(self.pauses[-1])
        for pause in mine:
            if not suspended:
                pause.end = self.clock()
                self.on_pause(pause)


def born(pod: Object, now: float) -> Life:
    """Return the beginning of a pod's life."""
    meta = pod["metadata"]
    return Life(
        tenant=meta["namespace"],
        work=(meta.get("labels") or {}).get("app", meta["name"]),
        name=meta["name"],
        gpus=gpus_of(pod),
        created=now,
    )


def gpus_of(pod: Object) -> int:
    """Return how many GPUs a pod asks for."""
    asked = (
        c.get("resources", {}).get("limits", {}) for c in pod["spec"]["containers"]
    )
    return sum(int(limits.get(GPU, 0)) for limits in asked)


def is_gated(pod: Object) -> bool:
    """Whether it has our gate."""
    gates = pod["spec"].get("schedulingGates") or ()
    return any(gate["name"] == GATE for gate in gates)


def has_to_go(pod: Object) -> bool:
    """Whether the eviction API was called for it."""
    conditions = pod["status"].get("conditions") or ()
    return any(c["type"] == "DisruptionTarget" for c in conditions)


class Trainer:
    """Plays the training code: some workloads answer when asked to save their work.

    Parameters
    ----------
    takes_s
        Time it takes to write a checkpoint.
    """

    def __init__(self, client: Client, works: Iterable[str], takes_s: float) -> None:
        self._client = client
        self._works = frozenset(works)
        self._takes_s = takes_s

    def asked(self, life: Life) -> None:
        """Save, if this workload does, and say so."""
        if life.work in self._works:
            timer = threading.Timer(self._takes_s, self._done, (life,))
            timer.daemon = True
            timer.start()

    def _done(self, life: Life) -> None:
        with suppress(ApiError, OSError, http.client.HTTPException):  # it is gone
            self._client.annotate("pods", life.name, {SAVED: "1"}, life.tenant)
