"""Waiting of covered gangs: found in a first walk, measured in a second.

Hidden here: that placeability, which is dear to compute, matters only in episodes
longer than the bound. The first walk finds all episodes; the second looks at the
cluster, and only while a long one is open.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import attrgetter

from scheduler.core import (
    Cluster,
    Demand,
    Form,
    GangId,
    PodUid,
    Standing,
    TenantName,
    place_gang,
)
from simulator.audit.standings import Gang, Standings, Tenant
from simulator.simulation import Record
from simulator.trace import Trace, TraceJob


@dataclass(slots=True)
class Episode:
    """One gang waits while it is covered; seconds.

    `latency_s` is set where the episode is a reclaim.
    """

    job: TraceJob
    since: float
    until: float = 0.0
    latency_s: float | None = None
    violation_s: float = 0.0
    unplaceable_s: float = 0.0
    placeable_since: float | None = None
    others_burst_since: float | None = None


@dataclass(slots=True)
class Audit:
    """What the judge found.

    `burst` holds, by job, quanta x seconds that no guarantee covered; `broken` names
    the jobs that were evicted for another tenant though they were covered.
    """

    episodes: list[Episode] = field(default_factory=list[Episode])
    burst: dict[str, float] = field(default_factory=dict[str, float])
    broken: list[str] = field(default_factory=list[str])


def audit(trace: Trace, log: Sequence[Record], bound_s: float) -> Audit:
    """Judge a run.

    Parameters
    ----------
    bound_s
        The reclaim bound: how long placeable covered demand may wait, seconds.
    """
    found = _Finder(trace).walk(log)
    long = [e for e in found.episodes if e.until - e.since > bound_s]
    if long:
        _measure(trace, log, bound_s, long)
    return found


def _instants(log: Iterable[Record]) -> Iterator[tuple[float, list[Record]]]:
    for at, records in groupby(log, key=attrgetter("at")):
        yield at, list(records)


# -- the first walk -----------------------------------------------------------


class _Finder:
    """Opens and closes episodes, and spells of burst, as tenants change."""

    def __init__(self, trace: Trace) -> None:
        self._state = Standings(trace)
        self._found = Audit()
        self._episodes: dict[GangId, tuple[Episode, Gang]] = {}
        self._spells: dict[GangId, tuple[float, Gang]] = {}
        self._waiting: dict[TenantName, dict[GangId, Gang]] = {}
        self._bursting: dict[TenantName, dict[GangId, Gang]] = {}

    def walk(self, log: Iterable[Record]) -> Audit:
        """Return every episode, in the order in which they end."""
        at = 0.0
        for at, records in _instants(log):
            changed = self._state.apply(records)
            for tenant in changed:
                self._note_waiting(tenant, at)
                self._note_burst(tenant, at)
            if changed:
                self._note_others(at)
        for gang in list(self._episodes):
            self._close(gang, at)
        for gang in list(self._spells):
            self._settle(gang, at)
        self._found.broken = self._state.broken
        return self._found

    def _note_waiting(self, tenant: Tenant, at: float) -> None:
        before = self._waiting.get(tenant.name, {})
        after = self._waiting[tenant.name] = tenant.waiting()
        for name in before:
            if name not in after:
                self._close(name, at)
        for name, gang in after.items():
            if name not in before:
                self._episodes[name] = (Episode(gang.job, since=at), gang)

    def _close(self, name: GangId, at: float) -> None:
        episode, gang = self._episodes.pop(name)
        episode.until = at
        if episode.others_burst_since is not None and not gang.waits:
            episode.latency_s = at - episode.others_burst_since
        self._found.episodes.append(episode)

    def _note_burst(self, tenant: Tenant, at: float) -> None:
        before = self._bursting.get(tenant.name, {})
        after = self._bursting[tenant.name] = tenant.bursting()
        for name in before:
            if name not in after:
                self._settle(name, at)
        for name, gang in after.items():
            if name not in before:
                self._spells[name] = (at, gang)

    def _settle(self, name: GangId, at: float) -> None:
        since, gang = self._spells.pop(name)
        burst = self._found.burst
        amount = gang.standing.quanta * (at - since)
        burst[gang.job.id] = burst.get(gang.job.id, 0.0) + amount

    def _note_others(self, at: float) -> None:
        """Mark the episodes during which another tenant bursts where they could run."""
        taken = {
            tenant: {gang.standing.form for gang in gangs.values()}
            for tenant, gangs in self._bursting.items()
            if gangs
        }
        for episode, gang in self._episodes.values() if taken else ():
            if episode.others_burst_since is None and any(
                tenant != gang.job.tenant and form in forms
                for tenant, forms in taken.items()
                for form, _ in gang.offers
            ):
                episode.others_burst_since = at


# -- the second walk ----------------------------------------------------------


def _measure(
    trace: Trace, log: Iterable[Record], bound_s: float, long: list[Episode]
) -> None:
    """Split long episodes into placeable and unplaceable time."""
    state, floor = Standings(trace), _Floor(trace)
    ahead = sorted(long, key=lambda episode: episode.since, reverse=True)
    active: list[Episode] = []
    for (at, records), (until, _) in pairwise(_instants(log)):
        state.apply(records)
        while ahead and ahead[-1].since <= at:
            active.append(ahead.pop())
        active = [episode for episode in active if episode.until > at]
        if active:
            placeable = floor.placeable(state)
            for episode in active:
                fits = episode.job.id in placeable
                _account(episode, at, until, bound_s, fits=fits)


def _account(
    episode: Episode, at: float, until: float, bound_s: float, *, fits: bool
) -> None:
    """Book the time from one instant to the next."""
    if not fits:
        episode.placeable_since = None
        episode.unplaceable_s += until - at
        return
    if episode.placeable_since is None:
        episode.placeable_since = at
    late = max(at, episode.placeable_since + bound_s)
    episode.violation_s += max(0.0, until - late)


class _Floor:
    """The cluster with nothing on it but covered running gangs."""

    def __init__(self, trace: Trace) -> None:
        self._cluster = Cluster()
        for node in trace.nodes:
            self._cluster.set_node(node)
        # By gang, not by name: a gang that came back sits elsewhere under its old name.
        self._placed: dict[Gang, list[PodUid]] = {}

    def placeable(self, state: Standings) -> set[str]:
        """Return the jobs whose waiting gang is placeable now."""
        self._clear(state.tenants.values())
        waiting: list[tuple[Gang, Tenant]] = []
        for tenant in state.tenants.values():
            for name in sorted(tenant.covered):
                gang = tenant.gangs[name]
                if not gang.standing.running:
                    waiting.append((gang, tenant))
                elif gang not in self._placed:
                    self._placed[gang] = self._seat(gang)
        waiting.sort(key=lambda pair: pair[1].standing(pair[0]).rank)
        with self._cluster.trial():
            return {gang.job.id for gang, tenant in waiting if self._fits(gang, tenant)}

    def _clear(self, tenants: Iterable[Tenant]) -> None:
        """Take away what is covered and running no more."""
        stay = {
            tenant.gangs[name]
            for tenant in tenants
            for name in tenant.covered
            if tenant.gangs[name].standing.running
        }
        for gang in [gang for gang in self._placed if gang not in stay]:
            for uid in self._placed.pop(gang):
                self._cluster.remove(uid)

    def _seat(self, gang: Gang) -> list[PodUid]:
        """Put a running gang where it sits."""
        uids: list[PodUid] = []
        for member, (node, form) in sorted(gang.seats.items()):
            uid = PodUid(f"{gang.standing.gang}#{member}")
            column = self._cluster.index[node]
            self._cluster.place(uid, column, form, gang.job.members[member])
            uids.append(uid)
        return uids

    def _fits(self, gang: Gang, tenant: Tenant) -> bool:
        """Try a gang beside its tenant's own burst, and keep its place if it fits."""
        with self._cluster.trial():
            for other in tenant.bursting().values():
                if not _gives_way(tenant.standing(other), tenant.standing(gang)):
                    self._seat(other)
            placed = self._try(gang)
        for place in placed or ():
            self._cluster.place(*place)
        return placed is not None

    def _try(self, gang: Gang) -> list[tuple[PodUid, int, Form, Demand]] | None:
        name = gang.standing.gang
        members = [
            (PodUid(f"{name}#{member}"), demand)
            for member, demand in enumerate(gang.job.members)
        ]
        for form, _ in gang.offers:
            placed = place_gang(self._cluster, members, form)
            if placed is not None:
                return [(p.uid, p.column, p.form, p.demand) for p in placed]
        return None


def _gives_way(burst: Standing, taker: Standing) -> bool:
    """Whether burst of the taker's own tenant is less urgent than the taker."""
    ours = (int(taker.workload_class), -taker.priority)
    return ours < (int(burst.workload_class), -burst.priority)
