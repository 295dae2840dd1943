"""What a pod was about at which time, and where it is drawn: plain data for charts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deploy.demo.chronicle import Life

GATE = "waits at the gate"
HELD = "its room is being freed"
RUNS = "runs"
SAVES = "asked to save its work"
STOPS = "shuts down"
PAUSED = "its Job is suspended"
STATES = (GATE, HELD, RUNS, SAVES, STOPS, PAUSED)


@dataclass(frozen=True)
class Segment:
    """A time that one pod spent in one state."""

    life: Life
    state: str
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.end - self.begin


def segments(life: Life, now: float) -> list[Segment]:
    """Return all of a pod's life, in order."""
    end = now if life.gone is None else life.gone
    moments = (
        (GATE, life.created),
        (HELD, life.held),
        (RUNS, life.bound),
        (SAVES, life.asked),
        (STOPS, life.ending),
    )
    begun = [(state, at) for state, at in moments if at is not None]
    ends = [at for _, at in begun[1:]] + [end]
    return [
        Segment(life, state, begin, until)
        for (state, begin), until in zip(begun, ends, strict=True)
        if until > begin
    ]


def lanes(lives: Iterable[Life]) -> list[list[Life]]:
    """Part the pods of a workload into rows; successors share one."""
    rows: list[list[Life]] = []
    for life in sorted(lives, key=lambda life: (life.created, life.name)):
        row = next((r for r in rows if _is_over(r[-1], life.created)), None)
        if row is None:
            rows.append([life])
        else:
            row.append(life)
    return rows


def seats(lives: Sequence[Life], size: int) -> dict[str, int]:
    """Return which GPUs of its node each pod is drawn on: its first, by pod name."""
    found: dict[str, int] = {}
    bound = [life for life in lives if life.bound is not None]
    for life in sorted(bound, key=lambda life: life.bound or 0.0):
        taken = {
            found[other.name] + gpu
            for other in bound
            if other.name in found and other.node == life.node
            for gpu in range(other.gpus)
            if not _is_over(other, life.bound or 0.0)
        }
        found[life.name] = next(
            first
            for first in range(size)
            if taken.isdisjoint(range(first, first + life.gpus))
        )
    return found


def use(lives: Sequence[Life], now: float) -> list[tuple[float, int]]:
    """Return the GPUs that these pods hold, as steps: from when on, how many."""
    changes = [(life.bound, life.gpus) for life in lives if life.bound is not None]
    changes += [
        (life.gone, -life.gpus)
        for life in lives
        if life.bound is not None and life.gone is not None
    ]
    steps, level = [(0.0, 0)], 0
    for at, change in sorted(changes):
        level += change
        steps.append((at, level))
    return [*steps, (now, level)]


def _is_over(life: Life, at: float) -> bool:
    return life.gone is not None and life.gone <= at
