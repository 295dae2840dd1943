"""What became of the jobs: waiting, completion, use, loss.

Hidden here: how a log becomes numbers. Definitions, for every policy alike:

* *queueing*: all waiting of a job for its devices and their start, again after each
  eviction; *completion time* (JCT): from submission to the end. Jobs that never
  finish are counted, and left out of both.
* *makespan*: from the first submission to the last end.
* *allocated*: GPUs x time from bound to free; *useful*: the part that became work kept;
  *lost*: work to be done again after an eviction, and restarts; *overhead*: the rest
  (starting, terminating, standing still for a checkpoint). The first is the sum of the
  other three.
* *utilisation*: allocated over capacity x makespan of the whole run.
* percentile p of n sorted values: the one at index ``int(p * n)``.

GPUs are charged GPUs: a slice or a fraction counts as the part it is.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scheduler.core import QUANTA_PER_GPU, Node, charge
from simulator.simulation import (
    Admitted,
    Bound,
    Finished,
    Gone,
    Record,
    Started,
    Stopped,
    Submitted,
    Withdrawn,
)
from simulator.trace import Trace, TraceJob


@dataclass(slots=True)
class Outcome:
    """What became of one job; times in seconds, amounts in quanta x seconds."""

    job: TraceJob
    waits_since: float = 0.0
    queue_s: float = 0.0
    end: float | None = None
    evictions: int = 0
    quanta: int = 0  # of the current attempt
    allocated: float = 0.0
    useful: float = 0.0
    lost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of a group of jobs; seconds, GPU-seconds, and counts.

    `utilisation` is the group's part of the whole cluster over the whole run.
    """

    jobs: int
    unfinished: int
    jct_sum_s: float
    mean_jct_s: float
    mean_queue_s: float
    p50_queue_s: float
    p95_queue_s: float
    p99_queue_s: float
    makespan_s: float
    utilisation: float
    evictions: int
    allocated_gpu_s: float
    useful_gpu_s: float
    lost_gpu_s: float
    overhead_gpu_s: float


def outcomes(trace: Trace, log: Iterable[Record]) -> list[Outcome]:
    """Return what became of each job, in the order of the trace."""
    books = _Books(trace)
    for record in log:
        handler = books.handlers.get(type(record))
        if handler is not None:
            handler(books.table[record.job], record)
    return list(books.table.values())


class _Books:
    """The log, booked job by job."""

    def __init__(self, trace: Trace) -> None:
        self.table = {job.id: Outcome(job) for job in trace.jobs}
        self._pods: dict[tuple[str, int], tuple[int, float]] = {}
        self.handlers: dict[type[Record], Callable[..., None]] = {
            Submitted: self._submitted,
            Admitted: self._admitted,
            Withdrawn: self._withdrawn,
            Bound: self._bound,
            Started: self._started,
            Stopped: self._stopped,
            Gone: self._gone,
            Finished: self._finished,
        }

    def _submitted(self, outcome: Outcome, record: Submitted) -> None:
        outcome.waits_since = record.at
        outcome.quanta = 0

    def _admitted(self, outcome: Outcome, record: Admitted) -> None:
        outcome.quanta += record.quanta
        self._pods[record.job, record.member] = (record.quanta, math.inf)

    def _withdrawn(self, outcome: Outcome, record: Withdrawn) -> None:
        quanta, _ = self._pods.pop((record.job, record.member))
        outcome.quanta -= quanta

    def _bound(self, _outcome: Outcome, record: Bound) -> None:
        quanta, _ = self._pods[record.job, record.member]
        self._pods[record.job, record.member] = (quanta, record.at)

    def _started(self, outcome: Outcome, record: Started) -> None:
        outcome.queue_s += record.at - outcome.waits_since

    def _gone(self, outcome: Outcome, record: Gone) -> None:
        quanta, since = self._pods.pop((record.job, record.member))
        outcome.allocated += quanta * max(0.0, record.at - since)

    def _stopped(self, outcome: Outcome, record: Stopped) -> None:
        outcome.evictions += 1
        self._worked(outcome, record)

    def _finished(self, outcome: Outcome, record: Finished) -> None:
        outcome.end = record.at
        self._worked(outcome, record)

    @staticmethod
    def _worked(outcome: Outcome, record: Stopped | Finished) -> None:
        outcome.useful += outcome.quanta * record.kept_s
        outcome.lost += outcome.quanta * record.lost_s


def capacity(nodes: Iterable[Node]) -> int:
    """Return all that the nodes offer, in quanta."""
    return sum(count * charge(form) for node in nodes for form, count in node.offers)


def figures(
    group: Sequence[Outcome], capacity_quanta: int, makespan_s: float
) -> Figures:
    """Return the figures of some jobs.

    Parameters
    ----------
    capacity_quanta, makespan_s
        Of the whole cluster and the whole run: what utilisation is a part of.
    """
    done = [outcome for outcome in group if outcome.end is not None]
    jcts = [o.end - o.job.submit_s for o in group if o.end is not None]
    queues = sorted(outcome.queue_s for outcome in done)
    allocated = sum(outcome.allocated for outcome in group)
    useful = sum(outcome.useful for outcome in group)
    lost = sum(outcome.lost for outcome in group)
    offered = capacity_quanta * makespan_s
    return Figures(
        jobs=len(group),
        unfinished=len(group) - len(done),
        jct_sum_s=sum(jcts),
        mean_jct_s=_mean(jcts),
        mean_queue_s=_mean(queues),
        p50_queue_s=percentile(queues, 0.50),
        p95_queue_s=percentile(queues, 0.95),
        p99_queue_s=percentile(queues, 0.99),
        makespan_s=makespan(group),
        utilisation=allocated / offered if offered else 0.0,
        evictions=sum(outcome.evictions for outcome in group),
        allocated_gpu_s=allocated / QUANTA_PER_GPU,
        useful_gpu_s=useful / QUANTA_PER_GPU,
        lost_gpu_s=lost / QUANTA_PER_GPU,
        overhead_gpu_s=(allocated - useful - lost) / QUANTA_PER_GPU,
    )


def makespan(group: Iterable[Outcome]) -> float:
    """Return the time from the first submission to the last end, seconds."""
    done = [(o.job.submit_s, o.end) for o in group if o.end is not None]
    return max(end for _, end in done) - min(s for s, _ in done) if done else 0.0


def percentile(ordered: Sequence[float], part: float) -> float:
    """Return the value at index ``int(part * n)`` of sorted values, 0 of none."""
    return ordered[int(part * len(ordered))] if ordered else 0.0


def jain(values: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 where all are equal, 1/n where one has all.

    Jain, Chiu and Hawe 1984: ``(sum x)^2 / (n sum x^2)``; 1 of nothing.
    """
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def speed(group: Sequence[Outcome]) -> float:
    """Return the part of their time in the system that finished jobs did not queue."""
    done = [(o.end - o.job.submit_s, o.queue_s) for o in group if o.end is not None]
    total = sum(jct for jct, _ in done)
    return 1.0 - sum(queue for _, queue in done) / total if total else 1.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def split(
    group: Iterable[Outcome], key: Callable[[Outcome], str]
) -> dict[str, list[Outcome]]:
    """Return the outcomes by key, the keys sorted."""
    parts: dict[str, list[Outcome]] = {}
    for outcome in group:
        parts.setdefault(key(outcome), []).append(outcome)
    return dict(sorted(parts.items()))


def usage(trace: Trace, log: Iterable[Record]) -> dict[str, list[tuple[float, float]]]:
    """Return GPUs in use over time: steps of (time, GPUs) for each tenant."""
    tenant_of = {job.id: job.tenant for job in trace.jobs}
    held: dict[tuple[str, int], int] = {}
    level = {str(tenant): 0 for tenant in sorted(trace.tenant_names())}
    steps: dict[str, list[tuple[float, float]]] = {name: [] for name in level}
    for record in log:
        if isinstance(record, Admitted):
            change = held[record.job, record.member] = record.quanta
        elif isinstance(record, Gone | Withdrawn):
            change = -held.pop((record.job, record.member))
        else:
            continue
        tenant = tenant_of[record.job]
        level[tenant] += change
        _step(steps[tenant], record.at, level[tenant] / QUANTA_PER_GPU)
    return steps


def _step(steps: list[tuple[float, float]], at: float, value: float) -> None:
    """Append a step; of several at one instant the last counts."""
    if steps and steps[-1][0] == at:
        steps.pop()
    steps.append((at, value))
