"""The story of `make demo-kubernetes`: a night, a morning and an evening of a fleet.

Whatever it says is checked against what the API server tells.
"""

import time
from pathlib import Path

from deploy.demo import work
from deploy.demo.chronicle import Life
from deploy.demo.stage import Stage
from deploy.demo.work import (
    ASSISTANT,
    CAPTIONS,
    NOTEBOOK,
    PRETRAIN,
    REPLICAS,
    SIMULATE,
    SWEEPS,
)

TENANTS = Path("deploy") / "demo" / "tenants.yaml"
SCALE = ("scale", f"deployment/{ASSISTANT}", "-n", "chat")
VICTIMS = (*SWEEPS, NOTEBOOK)
EVENTS = (
    *("get", "events", "-A", "--sort-by=.metadata.creationTimestamp"),
    *("--field-selector", "reportingComponent=gpu-fairshare,reason!=Admitted"),
)


class Shift:
    """The story, chapter by chapter."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._claims = stage.claims

    def play(self) -> None:
        """All of it."""
        self._stage.chronicle.begin()
        self._open()
        self._night()
        self._morning()
        self._evening()
        self._end()

    def _open(self) -> None:
        stage = self._stage
        stage.chapter("Three tenants share 64 GPUs; all 64 are promised to somebody")
        stage.make_homes()
        stage.kubectl("apply", "-f", str(TENANTS))
        stage.kubectl(
            "wait", "--for=condition=Ready", "--timeout=60s", "tenants", "--all"
        )
        stage.client.create(work.assistant())

    def _night(self) -> None:
        stage, claims = self._stage, self._claims
        stage.chapter("1. Night: nobody chats, so research bursts", "night")
        stage.client.create(work.pretrain())
        claims.until(
            f"{PRETRAIN} starts: a gang of two pods, on a whole node each",
            lambda: len({p.node for p in stage.of(PRETRAIN) if p.runs}) == 2,
        )
        for job in work.night():
            stage.client.create(job)
        claims.until(
            "all 64 GPUs work; research runs 48, three times its guarantee",
            lambda: (stage.gpus("research"), stage.gpus("vision")) == (48, 16),
        )
        stage.note("research bursts")
        time.sleep(2.0)  # so that there is work to lose

    def _morning(self) -> None:
        stage = self._stage
        stage.chapter(
            "2. Morning: chat wants 24 of the 32 GPUs it is promised", "morning"
        )
        stage.kubectl(*SCALE, f"--replicas={REPLICAS}")
        self._room_is_held()
        self._replicas_arrive()
        self._the_right_ones_left()
        self._those_who_left_wait()

    def _evening(self) -> None:
        stage, claims = self._stage, self._claims
        stage.chapter("3. Evening: chat goes home; what gave way goes on", "evening")
        claims.check("the evicted Jobs' new pods still wait", self._are_waiting())
        stage.kubectl(*SCALE, "--replicas=0")
        claims.until(
            "all three Jobs run again: research has its 48 GPUs back",
            lambda: stage.gpus("research") == 48,
        )
        stage.note("research bursts again")
        time.sleep(2.0)  # to be seen on the page

    def _end(self) -> None:
        stage, claims = self._stage, self._claims
        stage.chapter("What is left in Kubernetes")
        claims.until(
            "the tenants' statuses say that nothing waits any more",
            lambda: stage.is_published(used=(48, 16, 0), pending=(0, 0, 0)),
        )
        stage.kubectl("get", "tenants", keep="evening")
        said = stage.kubectl(*EVENTS, keep="events")
        told = {line.split()[3] for line in said.splitlines()[1:]}
        expected = {
            *("Reserved", "CheckpointRequested", "Evicted", "Suspended", "Resumed")
        }
        claims.check("the events tell the whole story", expected <= told)

    # -- the morning, claim by claim -------------------------------------------------

    def _room_is_held(self) -> None:
        stage, claims = self._stage, self._claims
        claims.until(
            f"room is held for all {REPLICAS} replicas, which are still gated",
            lambda: [p.hold != "" for p in stage.of(ASSISTANT)] == [True] * REPLICAS,
        )
        claims.until(
            f"the three Jobs that lose least are asked: {', '.join(VICTIMS)}",
            lambda: {p.work for p in stage.asked()} == set(VICTIMS),
        )
        stage.note("burst Jobs save their work")

    def _replicas_arrive(self) -> None:
        stage, claims = self._stage, self._claims
        replicas = stage.of(ASSISTANT)
        claims.until("all replicas run", lambda: all(p.runs for p in replicas))
        stage.note("chat has its GPUs")
        claims.check(
            "each runs on exactly the node that was held for it",
            all(p.node == p.hold for p in replicas),
        )
        claims.check(
            "no gate was opened before the room behind it was free",
            all(_was_free(p, stage.asked()) for p in replicas),
        )

    def _the_right_ones_left(self) -> None:
        stage, claims = self._stage, self._claims
        claims.check(
            f"{' and '.join(SWEEPS)} had saved their work before they were evicted",
            all(_saved_in_time(p) for p in stage.asked() if p.work in SWEEPS),
        )
        claims.check(
            f"{PRETRAIN} and {', '.join(CAPTIONS)}, which guarantees cover, were not "
            "touched",
            all(_is_untouched(p) for p in stage.of(PRETRAIN, *CAPTIONS)),
        )
        claims.check(
            f"nor was {SIMULATE}, which would lose half an hour by its restart",
            all(_is_untouched(p) for p in stage.of(SIMULATE)),
        )
        claims.until(
            f"{NOTEBOOK} allows it: its Job is suspended rather than evicted",
            lambda: (
                stage.job(NOTEBOOK)["spec"]["suspend"]
                and all(p.gone and not p.evicted for p in stage.of(NOTEBOOK))
            ),
        )

    def _those_who_left_wait(self) -> None:
        stage, claims = self._stage, self._claims
        claims.until(
            "the evicted Jobs have new pods, which wait at the gate", self._are_waiting
        )
        claims.check(
            "being evicted is no failure of a Job",
            not any(stage.job(name)["status"].get("failed") for name in SWEEPS),
        )
        stage.explain(stage.of(*SWEEPS)[-1])
        claims.until(
            "research's status counts them and the suspended Job: 24 GPUs pending",
            lambda: stage.is_published(used=(24, 16, 24), pending=(24, 0, 0)),
        )
        stage.kubectl("get", "tenants", keep="noon")
        time.sleep(2.0)  # long enough to see that they go on waiting

    def _are_waiting(self) -> bool:
        alive = [p for p in self._stage.of(*SWEEPS) if p.gone is None]
        return len(alive) == len(SWEEPS) and all(p.waits for p in alive)


def _was_free(replica: Life, victims: list[Life]) -> bool:
    """Whether all victims on a replica's node were gone when its gate was opened."""
    before = [p.gone for p in victims if p.node == replica.node]
    opened = replica.opened
    assert opened is not None
    return before != [] and all(at is not None and at <= opened for at in before)


def _saved_in_time(life: Life) -> bool:
    saved, evicted = life.saved, life.evicted
    return saved is not None and evicted is not None and saved < evicted


def _is_untouched(life: Life) -> bool:
    return life.runs and life.asked is None
