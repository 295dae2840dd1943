"""The clock, the event heap, and a scheduler that is driven by them.

Hidden here: who does what when. The world plays kube-scheduler (binds what is
admitted), the kubelets (start, checkpoint, terminate, with the delays of `Kubelet`)
and the job controller (an evicted job returns as new pods once its old ones are gone).
It tells the scheduler what happened and performs what the scheduler says, and writes
the log.

Everything due at one instant is told in one go: first what was planned earlier (pods
that finish or disappear free their devices), then new submissions, then the scheduler
is asked once. The order inside an instant is the order in which things were planned,
so the log depends on the trace, the seed and the scheduler alone.
"""

import random
from collections.abc import Callable, Iterable
from functools import partial
from heapq import heappop, heappush
from typing import Protocol

from scheduler.core import (
    Action,
    Admit,
    CheckpointDone,
    CheckpointRequest,
    Event,
    Evict,
    GangId,
    NodeUp,
    Pod,
    PodBound,
    PodGone,
    PodSubmitted,
    PodUid,
    TenantsChanged,
)
from simulator.simulation.kubelet import Kubelet
from simulator.simulation.log import (
    Admitted,
    Bound,
    CheckpointAsked,
    CheckpointWritten,
    Evicted,
    Finished,
    Gone,
    Record,
    Started,
    Stopped,
    Submitted,
    Withdrawn,
)
from simulator.simulation.work import Work
from simulator.trace import Trace, TraceJob

_IDLE_WAKES = 1000  # deadlines in a row without an action before the run is over


class Scheduler(Protocol):
    """What drives decisions: the engine, or a baseline."""

    def observe(self, event: Event, now: float) -> None:
        """Hear what happened."""
        ...

    def cycle(self, now: float) -> Iterable[Action]:
        """Say what is to be done."""
        ...

    def next_deadline(self) -> float | None:
        """Return when `cycle` has something to do even if nothing happens."""
        ...


def simulate(
    trace: Trace,
    scheduler: Scheduler,
    *,
    kubelet: Kubelet | None = None,
    seed: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Record]:
    """Replay a trace and return the log.

    Parameters
    ----------
    trace
        Jobs with the nodes and tenants they run under.
    kubelet
        Delays of the modelled cluster.
    seed
        Draws when each job writes its first checkpoint by itself; None: after one
        interval.
    progress
        Called with the number of finished jobs after each instant.
    """
    world = _World(trace, scheduler, kubelet or Kubelet(), seed)
    world.run(progress or _ignore)
    return world.log


def _ignore(_finished: int) -> None:
    """Show no progress."""


class _Attempts:
    """One job on its way through the cluster, attempt by attempt.

    `held` counts its pods that are admitted and not gone yet, `bound` those that have
    a node. What was planned under an older `ticket` is void.
    """

    __slots__ = (
        "again",
        "asked",
        "bound",
        "held",
        "job",
        "running",
        "stopping",
        "ticket",
        "uids",
        "work",
    )

    def __init__(self, job: TraceJob, work: Work) -> None:
        self.job = job
        self.work = work
        self.again = 0
        self.uids: list[PodUid] = []
        self.held = 0
        self.bound = 0
        self.running = False
        self.asked = False  # to write a checkpoint
        self.stopping = False
        self.ticket = 0


class _Pod:
    """One pod: whose it is, and how far it got."""

    __slots__ = ("bound", "held", "leaving", "member", "owner", "ticket")

    def __init__(self, owner: _Attempts, member: int) -> None:
        self.owner = owner
        self.member = member
        self.held = False
        self.bound = False
        self.leaving = False
        self.ticket = 0


class _World:
    """One run."""

    def __init__(
        self, trace: Trace, scheduler: Scheduler, kubelet: Kubelet, seed: int | None
    ) -> None:
        self.log: list[Record] = []
        self.finished = 0
        self._trace = trace
        self._scheduler = scheduler
        self._kubelet = kubelet
        self._seed = seed
        self._plan: list[tuple[float, int, Callable[[float], None]]] = []
        self._planned = 0
        self._arrived = 0
        self._pods: dict[PodUid, _Pod] = {}

    # -- the clock -----------------------------------------------------------

    def run(self, progress: Callable[[int], None]) -> None:
        """Play until nothing is due any more."""
        jobs = self._trace.jobs
        now = jobs[0].submit_s if jobs else 0.0
        for node in self._trace.nodes:
            self._scheduler.observe(NodeUp(node), now)
        self._scheduler.observe(
            TenantsChanged(self._trace.tenants, self._trace.fleet), now
        )
        idle = 0
        while idle < _IDLE_WAKES:
            due = self._next_instant(now)
            if due is None:
                return
            now = due
            happened = self._deliver(now)
            acted = self._ask(now)
            idle = 0 if happened or acted else idle + 1
            progress(self.finished)

    def _ask(self, now: float) -> bool:
        """Do what the scheduler says, and ask again while binds are news to it."""
        acted = admitted = False
        while admitted or not acted:
            actions = tuple(self._scheduler.cycle(now))
            if not actions:
                break
            for action in actions:
                self._perform(action, now)
            acted = True
            admitted = any(isinstance(action, Admit) for action in actions)
        return acted

    def _next_instant(self, now: float) -> float | None:
        """Return the earliest time anything is due, None when nothing is."""
        due = self._scheduler.next_deadline()
        if due is not None and due <= now:
            due = None  # the scheduler was just asked; it has had its chance
        if self._plan and (due is None or self._plan[0][0] < due):
            due = self._plan[0][0]
        if self._arrived < len(self._trace.jobs):
            arrival = self._trace.jobs[self._arrived].submit_s
            due = arrival if due is None else min(due, arrival)
        return due

    def _deliver(self, now: float) -> bool:
        """Let happen what is due; return whether anything was."""
        happened = False
        plan = self._plan
        while plan and plan[0][0] <= now:
            heappop(plan)[2](now)
            happened = True
        jobs = self._trace.jobs
        while self._arrived < len(jobs) and jobs[self._arrived].submit_s <= now:
            job = jobs[self._arrived]
            self._arrived += 1
            self._submit(_Attempts(job, Work(job)), now)
            happened = True
        return happened

    def _later(self, at: float, step: Callable[[float], None]) -> None:
        self._planned += 1
        heappush(self._plan, (at, self._planned, step))

    def _phase(self, job: TraceJob) -> float:
        if self._seed is None or not job.checkpoint_interval_s:
            return 0.0
        # A stream of its own for each job: one more job changes nothing for others.
        draw = random.Random(f"{self._seed}/{job.id}")
        return draw.random() * job.checkpoint_interval_s

    # -- the job controller --------------------------------------------------

    def _submit(self, run: _Attempts, now: float) -> None:
        """Create the pods of an attempt."""
        job = run.job
        run.uids = [
            PodUid(f"{job.id}.{run.again}.{member}")
            for member in range(len(job.members))
        ]
        pods = [self._pod(run, member) for member in range(len(job.members))]
        self.log.append(Submitted(now, job.id, run.again, pods[0].gang_id))
        for member, pod in enumerate(pods):
            self._pods[pod.uid] = _Pod(run, member)
            self._scheduler.observe(PodSubmitted(pod), now)

    def _pod(self, run: _Attempts, member: int) -> Pod:
        job, uid = run.job, run.uids[member]
        return Pod(
            uid=uid,
            name=f"{job.tenant}/{uid}",
            tenant=job.tenant,
            workload_class=job.workload_class,
            demand=job.members[member],
            gang=job.id if len(job.members) > 1 else "",
            min_member=len(job.members),
            priority=job.priority,
            restart_cost_s=job.restart_s,
            checkpoint_interval_s=job.checkpoint_interval_s,
            on_request=job.on_request,
        )

    def _resubmit(self, run: _Attempts, now: float) -> None:
        """Delete what is left of a broken attempt and begin the next one."""
        for uid in run.uids:
            if self._pods.pop(uid, None) is not None:
                self._scheduler.observe(PodGone(uid), now)
        run.again += 1
        run.stopping = False
        self._submit(run, now)

    # -- kube-scheduler ------------------------------------------------------

    def _perform(self, action: Action, now: float) -> None:
        """Do what the scheduler wishes; what is out of date does nothing."""
        pod = self._pods.get(action.uid)
        if pod is None:
            return
        if isinstance(action, Admit):
            self._admit(action, pod, now)
        elif isinstance(action, Evict):
            self._evict(action, pod, now)
        elif isinstance(action, CheckpointRequest):
            self._checkpoint(action, pod.owner, now)
        else:
            self._withdraw(pod, now)

    def _admit(self, action: Admit, pod: _Pod, now: float) -> None:
        run = pod.owner
        if pod.held or run.stopping:
            return
        pod.held = True
        run.held += 1
        self.log.append(
            Admitted(
                now, run.job.id, pod.member, action.node, action.form, action.quanta
            )
        )
        if self._kubelet.bind_s:
            bind = partial(self._bind, action, pod, pod.ticket)
            self._later(now + self._kubelet.bind_s, bind)
        else:
            self._bind(action, pod, pod.ticket, now)

    def _withdraw(self, pod: _Pod, now: float) -> None:
        if pod.held and not pod.bound:
            pod.ticket += 1
            pod.held = False
            pod.owner.held -= 1
            self.log.append(Withdrawn(now, pod.owner.job.id, pod.member))

    def _bind(self, action: Admit, pod: _Pod, ticket: int, now: float) -> None:
        if pod.ticket != ticket:
            return
        run = pod.owner
        pod.bound = True
        run.bound += 1
        self.log.append(Bound(now, run.job.id, pod.member))
        self._scheduler.observe(PodBound(action.uid, action.node), now)
        if run.bound == len(run.uids) and not run.stopping:
            if self._kubelet.startup_s:
                start = partial(self._start, run, run.ticket)
                self._later(now + self._kubelet.startup_s, start)
            else:
                self._start(run, run.ticket, now)

    # -- the kubelets --------------------------------------------------------

    def _start(self, run: _Attempts, ticket: int, now: float) -> None:
        if run.ticket != ticket:
            return
        run.running = True
        self.log.append(Started(now, run.job.id))
        left = run.work.begin(now, again=run.again > 0)
        self._later(now + left, partial(self._finish, run, run.ticket))

    def _finish(self, run: _Attempts, ticket: int, now: float) -> None:
        if run.ticket != ticket:
            return
        run.work.pause(now)
        self.log.append(Finished(now, run.job.id, *run.work.finish()))
        self.finished += 1
        for uid in run.uids:
            self._leave(uid, now)

    def _checkpoint(
        self, action: CheckpointRequest, run: _Attempts, now: float
    ) -> None:
        """Begin to write, once for the whole gang; the job stands still meanwhile."""
        if not run.running or run.asked or not run.job.on_request:
            return
        run.asked = True
        run.ticket += 1
        run.work.pause(now)
        self.log.append(CheckpointAsked(now, run.job.id, action.deadline))
        written = partial(self._written, run, run.ticket)
        self._later(now + self._kubelet.checkpoint_s, written)

    def _written(self, run: _Attempts, ticket: int, now: float) -> None:
        if run.ticket != ticket:
            return
        run.asked = False
        run.work.save()
        self.log.append(CheckpointWritten(now, run.job.id))
        for uid in run.uids:
            self._scheduler.observe(CheckpointDone(uid), now)
        left = run.work.resume(now)
        self._later(now + left, partial(self._finish, run, run.ticket))

    def _evict(self, action: Evict, pod: _Pod, now: float) -> None:
        if pod.leaving or not pod.held:
            return
        run = pod.owner
        pod.leaving = True
        pod.ticket += 1
        self.log.append(
            Evicted(
                now,
                run.job.id,
                pod.member,
                action.reason,
                action.beneficiary or GangId(""),
            )
        )
        self._stop(run, now)
        grace = min(self._kubelet.termination_s, max(0.0, action.grace_s))
        self._later(now + (grace if pod.bound else 0.0), partial(self._gone, pod))

    def _stop(self, run: _Attempts, now: float) -> None:
        """End the work of the whole gang: without one member it cannot go on."""
        if run.stopping:
            return
        kept_s = lost_s = 0.0
        if run.running:
            if not run.asked:
                run.work.pause(now)
            kept_s, lost_s = run.work.stop(self._phase(run.job))
        self.log.append(Stopped(now, run.job.id, kept_s, lost_s))
        run.running = run.asked = False
        run.stopping = True
        run.ticket += 1

    def _gone(self, pod: _Pod, now: float) -> None:
        run = pod.owner
        self._leave(run.uids[pod.member], now)
        if not run.held:
            self._resubmit(run, now)

    def _leave(self, uid: PodUid, now: float) -> None:
        """Free the devices of a pod."""
        pod = self._pods.pop(uid)
        pod.owner.held -= 1
        pod.owner.bound -= pod.bound
        self.log.append(Gone(now, pod.owner.job.id, pod.member))
        self._scheduler.observe(PodGone(uid), now)
