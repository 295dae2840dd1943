"""Would one LP over all GPU classes divide better than one division per class?

Snapshots of a trace's demand (what runs or waits, and the classes it accepts), divided:

first  all counted on the first class a job accepts, then ``divide`` per class
held   as the engine counts: what runs where it runs (seated here in order of submission
       on the first class with room), what waits on its first class
wait   as held, but what waits is counted where there is room (``count_by_room``)
spill  as first; what got nothing asks its next class for what is left, and so on
room   everything is counted where there is room
level  an LP with the classes as `room` counts: one level over all, but no trading
lp     a max-min LP (GLOP) over tenants and acceptable classes, level by level

A *share* is what a tenant gets over what it would get if all classes were one pool. In
*value* a dearer class counts as better served (``value_weight``). Guarantees: half of
each class, by mean demand. Amounts are fluid. Only openb names acceptable classes; its
pods of equal requests and QoS are taken as one owner's, twenty by checksum, G2 and G3
as A10G and A100-40GB. By its times it asks for 66 of its 6,212 GPUs at most, so the
fleet is scaled to mean demand / load; *its order* keeps it and ignores times. ITP names
no classes: jobs draw openb's (*any*), or a tenant has four tastes, never any (*named*).
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from ortools.linear_solver import pywraplp

from scheduler.core import QUANTA_PER_GPU, Claim, Form, GpuClass, divide, value_weight
from simulator.importers import load
from simulator.trace import RowErrors, TraceJob

TRACES = Path(__file__).parents[2] / "shared" / "traces"
PODS = TRACES / "openb" / "openb_pod_list_gpuspec25.csv"
NODES = TRACES / "openb" / "openb_node_list_gpu_node.csv"
ORDER = TRACES / "openb" / "orders" / "gpuspec25.npz"
ITP = TRACES / "elasticflow_itp" / "raw-traces.tar.gz"
PAIRS = "t4=t4-16 p100=p100-16 v100m16=v100-16 v100m32=v100-32 a10=a10-24 g2=a10g-24"
PAIRED = [pair.split("=") for pair in f"{PAIRS} g3=a100-40".split(" ")]
MODELS = {model: Form(f"{name}gb") for model, name in PAIRED}
CLASSES = list(MODELS.values())
WORTH = np.array([value_weight(GpuClass(form)) / 1000 for form in CLASSES])
TITLE = "  {:6} smallest  mean  lp > 1%   median      max  of lp's lp: GPUs    value"
WAYS = ("first", "held", "wait", "spill", "room", "level", "lp")
Q, OWNERS, SNAPSHOTS = QUANTA_PER_GPU, 20, 40
SLACK, TINY = Q // 1000, 1e-7  # what an LP may be off: quanta, and relative

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Group = tuple[int, tuple[int, ...]]  # tenant, and the classes it accepts, in order
Asks = Mapping[Group, int]
Job = tuple[TraceJob, Group]


def per_class(counted: Ints, room: Ints, guarantee: Ints) -> Ints:
    """Divide each class as the product does, and check what that promises."""
    given = np.zeros_like(counted)
    for c, total in enumerate(room.tolist()):
        pairs = zip(guarantee[:, c].tolist(), counted[:, c].tolist(), strict=True)
        claims = [Claim(owed, (ask,), order=i) for i, (owed, ask) in enumerate(pairs)]
        given[:, c] = divide(total, claims)
    assert (given <= counted).all()
    assert (given >= np.minimum(guarantee, counted)).all()
    return given


def count(asks: Asks, shape: tuple[int, ...], place: int = 0) -> Ints:
    counted = np.zeros(shape, np.int64)
    for (tenant, accepts), quanta in asks.items():
        if place < len(accepts):
            counted[tenant, accepts[place]] += quanta
    return counted


def count_by_room(asks: Asks, room: Ints, counted: Ints) -> Ints:
    """Count beside `counted`, least flexible first, where there is room or by size."""
    counted, left = counted.copy(), np.maximum(0, room - counted.sum(0))
    for accepts in sorted({a for _, a in asks}, key=lambda a: (len(a), a)):
        wants = np.array([asks.get((t, accepts), 0) for t in range(len(counted))])
        at, put, total = list(accepts), np.zeros_like(room), int(wants.sum())
        put[at] = np.diff(np.minimum(np.cumsum([0, *left[at]]), total))
        left -= put
        put[at] += (total - put.sum()) * room[at] // room[at].sum()
        parts = np.outer(wants / max(1, total), put).astype(np.int64)
        parts[:, at[0]] += wants - parts.sum(1)
        counted += parts
    return counted


def serve(asks: Asks, given: Ints, place: int = 0) -> Asks:
    left, pool = dict(asks), given.copy()
    for tenant, accepts in sorted(left, key=lambda group: (len(group[1]), group)):
        if place < len(accepts):
            part = min(left[tenant, accepts], int(pool[tenant, accepts[place]]))
            left[tenant, accepts] -= part
            pool[tenant, accepts[place]] -= part
    assert not pool.any()  # every quantum serves a job that asked for it
    return left  # of each group; the least flexible were served first


def spill(asks: Asks, room: Ints, guarantee: Ints) -> Ints:
    given = np.zeros_like(guarantee)
    for place in range(len(room)):
        left, owed = room - given.sum(0), guarantee * (place == 0)
        more = per_class(count(asks, given.shape, place), left, owed)
        asks, given = serve(asks, more, place), given + more
    return given


def seat(jobs: Iterable[Job], room: Ints, shape: tuple[int, ...]) -> tuple[Ints, Asks]:
    left, running, waiting = room.copy(), np.zeros(shape, np.int64), Counter[Group]()
    for job, (tenant, accepts) in jobs:
        quanta = round(job.gpus * Q)
        found = next((c for c in accepts if left[c] >= quanta), None)
        if found is None:
            waiting[tenant, accepts] += quanta
        else:
            left[found] -= quanta
            running[tenant, found] += quanta
    return running, waiting  # running by tenant and class


class MaxMin:  # raises the smallest share, fixes the tenants that bind it, repeats
    def __init__(self, asks: Asks, room: Ints, owed: Ints, worth: Floats, goal: Floats):
        self.solver = lp = pywraplp.Solver.CreateSolver("GLOP")
        self.given, self.goal, most = np.zeros(owed.shape), goal, lp.infinity()
        self.shares = [lp.Constraint(0, most) for _ in goal]
        rooms = [lp.Constraint(0, quanta / Q) for quanta in room.tolist()]
        dues = [[lp.Constraint(q / Q, most) for q in row] for row in owed.tolist()]
        self.amounts, self.level = {}, lp.NumVar(0, most, "")
        for (tenant, accepts), quanta in sorted(asks.items()):
            asked = lp.Constraint(0, quanta / Q)
            for c in accepts:
                self.amounts[tenant, accepts, c] = amount = lp.NumVar(0, most, "")
                for row in (asked, rooms[c], dues[tenant][c]):
                    row.SetCoefficient(amount, 1)
                self.shares[tenant].SetCoefficient(amount, float(worth[c]))
        lp.Maximize(self.level)
        self.rising, self.solved = np.flatnonzero(goal).tolist(), 0
        for t in self.rising:
            self.shares[t].SetCoefficient(self.level, -float(goal[t]))

    def run(self, levels: int = 10**9) -> Floats:
        while self.rising and self.solved < levels:
            assert self.solver.Solve() == pywraplp.Solver.OPTIMAL
            self.solved += 1
            self.given[:] = 0  # all is read before anything is changed
            for (t, _, c), amount in self.amounts.items():
                self.given[t, c] += amount.solution_value() * Q
            reached, prices = self.level.solution_value(), self.goal.copy()
            prices *= [abs(share.dual_value()) for share in self.shares]
            assert (prices[self.rising] > TINY).any()
            for t in [t for t in self.rising if prices[t] > TINY]:
                self.shares[t].SetCoefficient(self.level, 0)
                self.shares[t].SetLb(reached * float(self.goal[t]) * (1 - TINY))
                self.rising.remove(t)
        return self.given


def pooled(asks: Asks, room: Ints, guarantee: Ints, worth: Floats) -> Floats:
    wants = np.zeros((len(guarantee), 1))
    for (tenant, accepts), quanta in asks.items():
        wants[tenant] += quanta * worth[list(accepts)].max()
    pool = wants, (room @ worth)[None], (guarantee @ worth)[:, None]
    return per_class(*(table.astype(np.int64) for table in pool))[:, 0] / Q


def study(name: str, moments: list[list[Job]], fleet: Ints, load: float) -> None:
    asked = [Counter[Group]() for _ in moments]
    for jobs, asks in zip(moments, asked, strict=True):
        for job, group in jobs:
            asks[group] += round(job.gpus * Q)
    mean = sum(asks.total() for asks in asked) / len(asked)
    room = (fleet * (mean / load / fleet.sum())).astype(np.int64) if load else fleet
    shape = (1 + max(tenant for asks in asked for tenant, _ in asks), len(room))
    firsts = np.array([count(asks, shape) for asks in asked])
    part = firsts.sum(0) / np.maximum(1, firsts.sum((0, 1)))
    guarantee = (part * (room // 2)).astype(np.int64)
    rows: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for jobs, asks, first in zip(moments, asked, firsts, strict=True):
        running, waiting = seat(jobs, room, shape)
        if not waiting:
            continue
        owed = np.minimum(guarantee, first)
        counted = {"first": first, "held": running + count(waiting, shape)}
        counted["wait"] = count_by_room(waiting, room, running)
        counted["room"] = by_room = count_by_room(serve(asks, owed), room, owed)
        given: dict[str, Ints | Floats] = {"spill": spill(asks, room, guarantee)}
        for way, table in counted.items():
            assert (table.sum(1) == first.sum(1)).all()
            given[way] = per_class(table, room, guarantee)
        pinned: Asks = {(t, (c,)): int(q) for (t, c), q in np.ndenumerate(by_room)}
        for kind, worth in (("GPUs", WORTH**0), ("value", WORTH)):
            goal = pooled(asks, room, guarantee, worth)
            given["level"] = MaxMin(pinned, room, owed, worth, goal).run()
            given["lp"] = MaxMin(asks, room, owed, worth, goal).run()
            for way in WAYS:
                assert (given[way].sum(0) <= room + SLACK).all()
                assert (given[way].sum(1) <= first.sum(1) + SLACK).all()
                assert way in ("held", "wait") or (given[way] >= owed - SLACK).all()
                gets = given[way] @ worth / Q
                share = gets[goal > 0] / goal[goal > 0]
                figures = share.min(), np.minimum(1, share).mean(), gets.sum()
                rows[kind, way].append([*figures, given[way].sum() / Q])
            lows = [rows[kind, w][-1][0] for w in WAYS if w not in ("held", "wait")]
            assert lows[-1] >= max(lows) - 1e-5  # the others could be the LP's answer
    print(f"\n{name}: {shape[0]} tenants, {room.sum() // Q:,} GPUs, demand", end="")
    print(f" {mean / Q:,.0f}; jobs wait in {len(rows['GPUs', 'lp'])} of {len(moments)}")
    for kind in ("GPUs", "value"):
        print(TITLE.format(kind))
        report({way: np.array(rows[kind, way]) for way in WAYS})


def report(rows: Mapping[str, Floats]) -> None:
    lp, least = rows["lp"], rows["first"][:, 0]
    for way, own in rows.items():
        gain = lp[:, 0] / np.maximum(own[:, 0], 1e-9) - 1
        caught = (own[:, 0] - least).sum() / (lp[:, 0] - least).sum()
        value, gpus = (lp.sum(0) / own.sum(0) - 1)[2:]
        told = np.mean(gain > 0.01), np.median(gain), gain.max(), caught, gpus, value
        print(f"  {way:6} {np.median(own[:, 0]):8.3f} {own[:, 1].mean():5.2f}", end="")
        print("".join(f"{figure:9.1%}" for figure in told))


def clock(tenants: int, levels: int) -> None:
    chance, asks = np.random.default_rng(tenants), Counter[Group]()
    for tenant in np.repeat(np.arange(tenants), 4).tolist():
        accepts = chance.permutation(8)[: chance.integers(1, 5)].tolist()
        asks[tenant, tuple(accepts)] += int(chance.integers(1, 64)) * Q
    first, room = count(asks, (tenants, 8)), np.full(8, asks.total() // 10)
    none, worth = np.zeros_like(first), np.linspace(0.1, 1.7, 8)
    times = [time.perf_counter()]
    per_class(first, room, none)
    times.append(time.perf_counter())
    per_class(count_by_room(asks, room, none), room, none)
    times.append(time.perf_counter())
    lp = MaxMin(asks, room, none, worth, pooled(asks, room, none, worth))
    lp.run(levels)
    took = 1000 * np.diff([*times, time.perf_counter()])
    print(f"{tenants:5} tenants, ms: divide {took[0]:.1f}, count by room too", end="")
    print(f" {took[1]:.1f}, {lp.solved} LPs {took[2]:,.0f} ({len(lp.rising)} not done)")


def snapshots(jobs: Sequence[Job]) -> list[list[Job]]:
    spans = [(j, j[0].submit_s, j[0].submit_s + j[0].duration_s) for j in jobs]
    times = np.linspace(spans[len(jobs) // 20][1], spans[-1][1], SNAPSHOTS).tolist()
    return [[job for job, start, end in spans if start <= at < end] for at in times]


def openb() -> tuple[dict[str, Job], Ints]:
    trace = load(f"openb:{PODS},{NODES}", 8, RowErrors())
    fleet, pods = np.zeros(len(CLASSES), np.int64), {}
    for form, devices in (offer for node in trace.nodes for offer in node.offers):
        fleet[CLASSES.index(MODELS[form])] += devices * Q
    for job in trace.jobs:
        demand, anonymous = job.members[0], replace(job.members[0], classes=())
        named = replace(demand, classes=tuple(MODELS[m] for m in demand.classes))
        accepts = tuple(CLASSES.index(form) for form in named.forms(CLASSES))
        owner = crc32(f"{anonymous} {job.workload_class.label}".encode()) % OWNERS
        pods[job.id] = job, (owner, accepts)
    return pods, fleet


def itp(tastes: Sequence[tuple[int, ...]], kinds: int) -> list[Job]:
    trace, jobs = load(f"itp:{ITP}", 8, RowErrors()), []
    tenants = trace.tenant_names()
    for job in trace.jobs:
        draw = crc32(f"{job.tenant}/{crc32(job.id.encode()) % kinds}".encode())
        jobs.append((job, (tenants.index(job.tenant), tastes[draw % len(tastes)])))
    return jobs


def main() -> None:
    for tenants, levels in ((2, 1), (20, 99), (100, 99), (1000, 1), (1000, 20)):
        clock(tenants, levels)
    if not all(path.exists() for path in (PODS, NODES, ORDER, ITP)):
        print("skipped: the public traces are not in ../shared/traces")
        return
    pods, fleet = openb()
    tastes = [accepts for _, (_, accepts) in pods.values()]
    cases = {"openb, its times": list(pods.values())}
    cases["ITP, classes: any"] = itp(tastes, 1 << 32)
    cases["ITP, classes: named"] = itp([t for t in tastes if len(t) < len(CLASSES)], 4)
    for name, moments in ((name, snapshots(jobs)) for name, jobs in cases.items()):
        for rate in (0.8, 1.3):
            study(f"{name}, load {rate}", moments, fleet, rate)
    names = [line.partition(",")[0] for line in PODS.read_text().splitlines()[1:]]
    came = [pods[names[i]] for i in np.load(ORDER)["seed42_pods"] if names[i] in pods]
    arrived = np.cumsum([job.gpus * Q for job, _ in came]) / fleet.sum()
    ends = np.searchsorted(arrived, np.linspace(0.3, 1.3, 21)).tolist()
    study("openb, its order, 30 to 130 %", [came[:end] for end in ends], fleet, 0)


if __name__ == "__main__":
    main()
