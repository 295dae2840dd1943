"""Makes what is decided so: marks, nominations, gates, requests, evictions, Jobs.

At every look the decisions are compared with what the API server shows (``gaps``), and
what is missing is written. Every write names the pod by UID, and does no harm when it
is done twice. A pod that is gone meanwhile is no error.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec

from scheduler.codec import PodObject, writes
from scheduler.codec.mark import CHECKPOINT_DEADLINE
from scheduler.core import GangId, Leaving, Planned, PodUid
from scheduler.kube import gaps
from scheduler.kube.api import Api, ApiError
from scheduler.kube.calls import WORKERS, Calls, Counted, all_of
from scheduler.kube.gaps import Admission, Adorn, Ask, Discard
from scheduler.kube.jobs import JobRecord
from scheduler.kube.mirror import Mirror
from scheduler.kube.news import News
from scheduler.kube.records import Record

QUIET = 32
"""With more work than this under way, nobody is told of admissions: pods come first."""

log = logging.getLogger(__name__)


_pod = msgspec.json.Decoder(PodObject)


class Writer:
    """Compares and writes.

    Parameters
    ----------
    epoch
        Of our lease, written into every mark.
    """

    def __init__(
        self,
        api: Api,
        mirror: Mirror,
        count: Counted,
        workers: int = WORKERS,
        epoch: int = 0,
    ) -> None:
        self._api = api
        self._mirror = mirror
        self._epoch = epoch
        self._calls = Calls(count, workers)
        self._planned: dict[PodUid, Planned] = {}
        self._gangs: dict[GangId, list[Planned]] = {}
        self.news = News(api, self._calls)
        self.blocked: dict[PodUid, str] = {}
        self._told: dict[PodUid, str] = {}

    async def stop(self) -> None:
        """End all writes that are under way."""
        await self._calls.stop()

    def reconcile(
        self, plans: Sequence[Planned], leaving: Sequence[Leaving], to_epoch: float
    ) -> None:
        """Begin to write what is missing.

        Parameters
        ----------
        to_epoch
            What to add to the engine's time to get seconds since the epoch.
        """
        records, pods = self._mirror.pods.records, self._mirror.pods
        self._planned = {plan.uid: plan for plan in plans}
        self._gangs = {}
        for plan in plans:
            self._gangs.setdefault(plan.gang, []).append(plan)
        for admission in gaps.admissions(plans, records, self._epoch):
            self._begin_admission(admission)
        for hold in gaps.holds(plans, records, self._mirror.leases.leader):
            self._begin_adornment(hold)
        for step in gaps.leftovers(pods.adorned, records, self._planned):
            self._begin_clearance(step)
        self._retry_where_eased()
        going = {wish.uid: wish for wish in leaving}
        for ask in gaps.requests(going, records, pods.asked, to_epoch):
            self._begin_request(ask, going.get(ask.record.uid))
        self._evict(going)
        self._mind_jobs()
        self._tell_problems()
        self.blocked = {u: why for u, why in self.blocked.items() if u in going}
        self._calls.forget(self._is_alive)

    def _is_alive(self, key: str) -> bool:
        kind, _, name = key.partition(" ")
        if kind == "gang":
            return GangId(name) in self._gangs
        if kind == "job":
            return self._mirror.jobs.get(name) is not None
        return PodUid(name) in self._mirror.pods.records

    def _tell_problems(self) -> None:
        """Tell the owners of pods that cannot be taken as they are, once each."""
        pods = self._mirror.pods
        known = {uid: pods.records[uid] for uid in pods.troubled}
        for uid, record in known.items():
            if self._told.get(uid) != record.problem:
                self.news.tell(record, "Refused", record.problem, warning=True)
        self._told = {uid: record.problem for uid, record in known.items()}

    # -- admit -------------------------------------------------------------------

    def _begin_admission(self, admission: Admission) -> None:
        """Adorn and open a gang; pods that are being written already go first."""
        busy = [f"pod {adorn.record.uid}" for adorn in admission.adorn]
        if not any(self._calls.is_busy(key) for key in busy):
            key = f"gang {admission.gang}"
            self._calls.start(key, lambda: self._admit(admission, key))

    async def _admit(self, admission: Admission, key: str) -> None:
        """Adorn all members, then open the gates, unless it is decided anew meanwhile.

        A nomination that kube-scheduler wiped is not written again at once: each write
        wakes the pod, and its next attempt may end the same way.
        """
        await all_of(self._adorn(adorn) for adorn in admission.adorn)
        if not self._stands(admission):
            return
        if not self._is_adorned(admission.gang):
            self._calls.rest(key)
            return
        await all_of(self._open(record, admission) for record in admission.gates)
        if not admission.gates:
            self._calls.rest(key)
        elif len(self._calls) < QUIET:
            first = admission.gates[0]
            plan = self._planned.get(first.uid)
            where = f"{plan.node} as {plan.form}" if plan else "its node"
            self.news.tell(first, "Admitted", f"{first.name} to {where}")

    def _stands(self, admission: Admission) -> bool:
        """Whether it is still the same decision that the gang starts by."""
        plans = self._gangs.get(admission.gang, ())
        return any(p.decision == admission.decision and not p.held for p in plans)

    def _is_adorned(self, gang: GangId) -> bool:
        """Whether every member that is not bound carries its plan."""
        records = self._mirror.pods.records
        plans = self._gangs.get(gang, ())
        return all(gaps.is_admitted(plan, records.get(plan.uid)) for plan in plans)

    async def _adorn(self, step: Adorn) -> None:
        record = step.record
        body = writes.nomination(record.uid, step.node, step.mark, step.hold)
        path = f"{record.path}/status"
        await self._patch("nominate", path, body, lambda: self._is_wanted(step))

    def _is_wanted(self, step: Adorn) -> bool:
        """Whether nothing else has been decided since."""
        plan = self._planned.get(step.record.uid)
        if plan is None:
            return step.node is None
        return plan.node == step.node and plan.held == (step.mark is None)

    async def _open(self, record: Record, admission: Admission) -> None:
        """Open a pod's gate, if it is what was decided on, and that still stands."""
        pods, uid = self._mirror.pods, record.uid
        plan, current = self._planned.get(uid), pods.records.get(uid)
        if plan is None or current is None or not current.gated:
            return
        products = self._mirror.nodes.products(plan.form)
        version = str(current.version)
        body = writes.open_gate(uid, current.affinity, products, version)

        def is_wanted() -> bool:
            return self._stands(admission) and pods.is_as_told(uid)

        await self._patch("open", record.path, body, is_wanted)

    async def _patch(
        self, kind: str, path: str, body: bytes, is_wanted: Callable[[], bool]
    ) -> None:
        """Patch a pod, unless that is not wanted any more.

        Its turn may come late, when the API server is slow.
        """

        async def patch() -> bytes:
            return await self._api.patch(path, body) if is_wanted() else b""

        answer = await self._calls.call(kind, patch)
        if answer:
            self._mirror.pods.answered(_pod.decode(answer))

    # -- hold, take back -----------------------------------------------------------

    def _begin_adornment(self, step: Adorn) -> None:
        key = f"pod {step.record.uid}"
        if self._calls.start(key, lambda: self._adorn(step)) and step.hold:
            text = f"room on {step.node} is being freed for it"
            self.news.tell(step.record, "Reserved", text)

    def _begin_clearance(self, step: Adorn | Discard) -> None:
        key = f"pod {step.record.uid}"
        if isinstance(step, Discard):
            self._calls.start(key, lambda: self._discard(step.record, key))
            return
        begun = self._calls.start(key, lambda: self._adorn(step))
        if begun and not step.record.gated:
            text = "its gang could not start: it waits, and is charged for nothing"
            self.news.tell(step.record, "Replanning", text)

    async def _discard(self, record: Record, key: str) -> None:
        """Delete a pod as it was seen: unbound."""
        body = writes.delete_options(record.uid, str(record.version), None)
        await self._calls.call("discard", lambda: self._api.delete(record.path, body))
        self._calls.rest(key)  # the news of it are on their way
        self.news.tell(record, "RolledBack", "its gang could not start: made anew")

    # -- evict -------------------------------------------------------------------

    def _begin_request(self, ask: Ask, wish: Leaving | None) -> None:
        record = ask.record
        begun = self._calls.start(f"ask {record.uid}", lambda: self._request(ask))
        if begun and wish is not None:
            text = f"asked to save its work by {ask.save_by}: {self._why(wish)}"
            self.news.tell(record, "CheckpointRequested", text)

    async def _request(self, ask: Ask) -> None:
        body = writes.annotate(ask.record.uid, {CHECKPOINT_DEADLINE: ask.save_by})
        await self._patch("ask", ask.record.path, body, lambda: True)

    def _evict(self, going: Mapping[PodUid, Leaving]) -> None:
        jobs: dict[str, JobRecord | None] = {}
        for uid, wish in going.items():
            record = self._mirror.pods.records.get(uid)
            if record is None or wish.save_by is not None:
                continue
            if record.terminating:
                # Whoever stopped it may have given it more time than the policy does.
                if record.grace_s > wish.grace_s:
                    self._begin_eviction(record, wish)
                continue
            owner = record.controller.uid if record.controller else ""
            if owner not in jobs:
                jobs[owner] = self._job_that_leaves(owner, going)
            job = jobs[owner]
            if job is not None:
                self._begin_switch(job, True, f"suspended: {self._why(wish)}", record)
            else:
                self._begin_eviction(record, wish)

    def _job_that_leaves(
        self, owner: str, going: Mapping[PodUid, Leaving]
    ) -> JobRecord | None:
        """Return the Job to suspend, if it may be and all of its pods are to stop."""
        job = self._mirror.jobs.managed(owner)
        wishes = (going.get(uid) for uid in self._mirror.pods.of_controller(owner))
        whole = all(wish and wish.save_by is None for wish in wishes)
        return job if whole else None

    def _begin_eviction(self, record: Record, wish: Leaving) -> None:
        key = f"evict {record.uid}"
        if self._calls.start(key, lambda: self._send_away(record, wish, key)):
            log.info(
                "evicting %s/%s: %s", record.namespace, record.name, self._why(wish)
            )

    async def _send_away(self, record: Record, wish: Leaving, key: str) -> None:
        grace = int(wish.grace_s) if record.grace_s > wish.grace_s else None
        body = writes.eviction(record.name, record.namespace, record.uid, grace)
        path = f"{record.path}/eviction"
        try:
            await self._calls.call("evict", lambda: self._api.create(path, body))
        except ApiError as error:
            if (error.status == 429 and error.causes) or error.status == 500:
                self._explain_refusal(record, error)
            raise
        self.blocked.pop(record.uid, None)
        self._calls.rest(key)  # the news of it are on their way
        self.news.tell(record, "Evicted", self._why(wish))

    def _retry_where_eased(self) -> None:
        """Ask for evictions again where a disruption budget allows more than before."""
        eased = self._mirror.budgets.eased()
        for uid in self.blocked:
            record = self._mirror.pods.records.get(uid)
            if record is not None and record.namespace in eased:
                self._calls.wake(f"evict {uid}")

    def _explain_refusal(self, record: Record, error: ApiError) -> None:
        """Say that a disruption budget, or two of them, keeps the pod where it is."""
        why = " ".join((error.message, *error.details))
        if self.blocked.get(record.uid) != why:
            self.blocked[record.uid] = why
            self.news.tell(record, "EvictionBlocked", why, warning=True)

    def _why(self, wish: Leaving) -> str:
        """Say why a pod goes and for whom; a pod on its own has a name for people."""
        if wish.beneficiary is None:
            return wish.reason
        taker = self._mirror.pods.records.get(PodUid(wish.beneficiary))
        name = f"{taker.namespace}/{taker.name}" if taker else wish.beneficiary
        return f"{wish.reason} for {name}"

    # -- Jobs --------------------------------------------------------------------

    def _mind_jobs(self) -> None:
        """Resume Jobs whose stand-ins have room; suspend those that lost all of it.

        One of whose pods are there already is left to them: they wait at their gates.
        """
        for uid, stand_ins in self._mirror.jobs.stand_ins.items():
            job = self._mirror.jobs.managed(uid)
            if job is None:
                continue
            plans = [self._planned[s] for s in stand_ins if s in self._planned]
            ready = next((plan for plan in plans if not plan.held), None)
            if job.suspended and ready is not None:
                self._begin_switch(job, False, f"resumed: room on {ready.node}", None)
            elif not (job.suspended or plans or self._mirror.pods.of_controller(uid)):
                self._begin_switch(job, True, "suspended: it lost its room", None)

    def _begin_switch(
        self, job: JobRecord, suspend: bool, why: str, pod: Record | None
    ) -> None:
        if job.suspended == suspend:
            return
        key = f"job {job.uid}"
        if self._calls.start(key, lambda: self._switch(job, suspend)):
            self.news.tell_job(job, "Suspended" if suspend else "Resumed", why)
            if pod is not None:
                self.news.tell(pod, "Evicted", why)

    async def _switch(self, job: JobRecord, suspend: bool) -> None:
        body = writes.suspend_job(job.uid, suspend)
        kind = "suspend" if suspend else "resume"
        await self._calls.call(kind, lambda: self._api.patch(job.path, body))
        self._calls.rest(f"job {job.uid}")  # the news of it are on their way
