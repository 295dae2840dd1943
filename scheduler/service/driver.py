"""Drives the engine: when it is called, and who is told what it says.

Everything here runs on one asyncio loop, and every call into the engine is synchronous
and short: the loop is the lock. Decisions are taken in monotonic time. A cycle follows
each change within a few milliseconds (several changes share one, the longer a cycle
takes the more), each deadline of the engine, and at the latest every ``policy.cycle``.
What lane 1 leaves waiting goes to the solver's process, one problem at a time, so
seldom that taking the problem stays a small part of the loop's time.
"""

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

from scheduler.codec import Naming
from scheduler.config import Config
from scheduler.core import (
    Action,
    Engine,
    Event,
    Explanation,
    Filtered,
    NodeName,
    Pod,
    PodUid,
    Policy,
    QueueEntry,
    TenantUse,
)
from scheduler.metrics import Metrics, Scrape, Watch
from scheduler.service.roster import Roster
from scheduler.service.solver import Solver, pack

COALESCE_S = 0.01
"""Changes within this time are looked at together, seconds."""

CYCLE_SHARE = 0.1
"""Most of the loop's time that goes into cycles, while changes keep coming."""

SOLVE_SHARE = 0.005
"""Most of the loop's time that goes into taking problems for the solver."""

RETRY_S = 10.0
"""Pause after a solve that failed, seconds."""

HEALTHY_S = 30.0
"""A service whose last cycle is older than this is not well, seconds."""

log = logging.getLogger(__name__)


class Service(ABC):
    """One engine with its clock and its cycle; where events come from is left open.

    Not ready before `start`, nor after `stop`. All methods are called on the loop.
    """

    def __init__(
        self, config: Config, policy: Policy, clock: Callable[[], float]
    ) -> None:
        self._config = config
        self._clock = clock
        self._engine = Engine(policy)
        self._cycle_s = policy.cycle_s
        self._roster = Roster()
        self._changed = asyncio.Event()
        self._last_cycle = 0.0
        self._pause = COALESCE_S
        self._solver = Solver()
        self._solving: asyncio.Task[None] | None = None
        self._solved_version = -1
        self._next_solve = 0.0
        self._cycling: asyncio.Task[None] | None = None
        self.naming = Naming(tenants={}, default_class=config.defaults.workload_class)
        self.metrics = Metrics(self._scrape)
        self.ready = False
        self.draining = False

    # -- life --------------------------------------------------------------------

    async def start(self) -> None:
        """Hear of what is there, decide once, and begin to answer."""
        await self._begin()
        self._cycle()
        self._cycling = asyncio.create_task(self._run_cycles())
        self.ready = True

    @abstractmethod
    async def _begin(self) -> None:
        """Tell the engine of everything that is there already."""

    def drain(self) -> None:
        """Go on answering, but say that no new calls should come."""
        self.draining = True

    async def stop(self) -> None:
        """Answer no more; end the cycle and the solver's process."""
        self.drain()
        self.ready = False
        if self._cycling is not None:
            self._cycling.cancel()
        self._solver.close()
        tasks = [task for task in (self._cycling, self._solving) if task]
        await asyncio.gather(*tasks, return_exceptions=True)
        self._solver.discard()

    @property
    def healthy(self) -> bool:
        """Whether the cycle goes on."""
        return not self.ready or self._clock() - self._last_cycle < HEALTHY_S

    @property
    def now(self) -> float:
        """Monotonic time in which the engine's deadlines count, seconds."""
        return self._clock()

    def pod(self, uid: str) -> Pod | None:
        """Return a pod as it was heard of; None when it is unknown."""
        return self._roster.pods.get(PodUid(uid))

    # -- kube-scheduler's questions ----------------------------------------------

    def filter(self, pod: Pod, nodes: Sequence[NodeName]) -> Filtered:
        """Say where the pod may go.

        Raises
        ------
        ValueError
            When the pod or a node contradicts what is known; nothing has changed then.
        """
        before = self._engine.version
        answer = self._engine.filter(pod, nodes, self._clock())
        if self._engine.version != before:
            self._changed.set()
        reason = "ACCEPTED" if answer.accepted else answer.default.name
        self.metrics.decided("filter", reason)
        return answer

    def score(self, pod: Pod, nodes: Sequence[NodeName]) -> tuple[int, ...]:
        """Rate nodes 0..10, in order.

        Raises
        ------
        ValueError
            When a node is unknown.
        """
        return self._engine.score(pod, nodes, self._clock())

    def preempt(
        self, pod: Pod | None, offers: Mapping[NodeName, Sequence[PodUid]]
    ) -> dict[NodeName, tuple[PodUid, ...]]:
        """Narrow or correct kube-scheduler's choice of victims.

        A pod that asks for no GPU (None) may not evict one that holds some.

        Raises
        ------
        ValueError
            When a node is unknown.
        """
        unknown = sorted(set(offers) - self._roster.nodes.keys())
        if unknown:
            raise ValueError(f"unknown node {unknown[0]!r}")
        if pod is None:
            kept = {n: tuple(v) for n, v in offers.items() if self._are_foreign(v)}
        else:
            kept = dict(self._engine.preempt(pod, offers, self._clock()).victims)
        self.metrics.decided("preempt", "VICTIMS" if kept else "NO_VICTIMS")
        return kept

    def _are_foreign(self, victims: Iterable[PodUid]) -> bool:
        return not any(uid in self._roster.pods for uid in victims)

    # -- views -------------------------------------------------------------------

    def tenants(self) -> tuple[TenantUse, ...]:
        """Who holds what."""
        return self._engine.tenants(self._clock())

    def queue(self) -> tuple[QueueEntry, ...]:
        """List waiting gangs in the order of decision."""
        return self._engine.queue(self._clock())

    def explain(self, pod: str) -> Explanation | None:
        """Why a pod is where it is; `pod` is a UID or ``namespace/name``.

        Of several pods of one name the youngest counts.
        """
        uid = PodUid(pod)
        if uid not in self._roster.pods:
            named = (u for u, p in reversed(self._roster.pods.items()) if p.name == pod)
            uid = next(named, uid)
        return self._engine.explain(uid, self._clock())

    def _scrape(self) -> Scrape:
        groups = self._roster.tenants.fleet.groups
        return Scrape(
            groups=frozenset(group.name for group in groups),
            tenants=self.tenants(),
            queue=self.queue(),
            capacity=self._engine.capacity(),
            stranded=self._engine.stranded(),
            wishes=self._wishes(),
            watches=self._watches(),
        )

    @abstractmethod
    def _wishes(self) -> int:
        """Return how many wishes of the engine are not performed yet."""

    def _watches(self) -> tuple[Watch, ...]:
        """Return what is watched of the API server."""
        return ()

    # -- lane 1 ------------------------------------------------------------------

    async def _run_cycles(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_next_cycle()):
                    await self._changed.wait()
            await asyncio.sleep(self._pause)
            self._changed.clear()
            try:
                self._cycle()
                self._consider_solving()
            except Exception:
                log.exception("a cycle failed; the next one tries again")

    def _until_next_cycle(self) -> float:
        deadline = self._engine.next_deadline()
        if deadline is None:
            return self._cycle_s
        return min(self._cycle_s, max(0.0, deadline - self._clock()))

    def _cycle(self) -> None:
        begun = time.perf_counter()
        self._prepare()
        self._take(self._engine.cycle(self._clock()))
        self._conclude()
        self._last_cycle = self._clock()
        spent = time.perf_counter() - begun
        self._pause = min(self._cycle_s, max(COALESCE_S, spent / CYCLE_SHARE))
        self.metrics.cycle.observe(spent)

    def _prepare(self) -> None:  # noqa: B027 (not everyone has something to do)
        """Tell the engine what it should hear before it decides."""

    def _conclude(self) -> None:  # noqa: B027 (not everyone has something to do)
        """See to what was decided, after each look at the queue."""

    def _apply(self, events: Iterable[Event]) -> None:
        for event in events:
            self._engine.observe(event, self._clock())
            self._roster.note(event)

    def _take(self, actions: Iterable[Action]) -> None:
        for action in actions:
            self.metrics.acted(type(action).__name__)
            self._perform(action)

    @abstractmethod
    def _perform(self, action: Action) -> None:
        """See to it that something the engine wishes happens."""

    # -- lane 2 ------------------------------------------------------------------

    def _consider_solving(self) -> None:
        """Hand what lane 1 left waiting to the solver, unless it is at work."""
        engine, begun = self._engine, self._clock()
        if (
            not self._config.policy.solver.enabled
            or self._solving is not None
            or begun < self._next_solve
            or not self._roster.waiting
            or engine.version == self._solved_version
        ):
            return
        self._solved_version = engine.version
        problem = engine.problem(begun)
        if problem.asks:
            package = pack(problem, self._config.policy.solver.budget)
            self._solving = asyncio.create_task(self._solve(package))
        self._next_solve = begun + (self._clock() - begun) / SOLVE_SHARE

    async def _solve(self, package: bytes) -> None:
        budget = self._config.policy.solver.budget
        try:
            plan = await asyncio.to_thread(self._solver.solve, package, budget)
            if plan is None:
                log.warning("the solver died or took too long; it is started anew")
                self._next_solve = self._clock() + RETRY_S
                self.metrics.solved("failed")
            else:
                self._take(self._engine.commit(plan, self._clock()))
                self.metrics.solved("planned" if plan.admissions else "empty")
        finally:
            self._solving = None
            self._changed.set()
