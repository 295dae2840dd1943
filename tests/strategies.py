"""What Hypothesis draws: amounts, claims, tenant trees, nodes and pods.

Numbers are small on purpose: collisions, ties and edges are where the rules bite.
"""

import pickle
from collections.abc import Mapping, Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from scheduler.core import (
    QUANTA_PER_GPU,
    Claim,
    Cluster,
    Demand,
    Form,
    GangId,
    Node,
    NodeName,
    Pod,
    PodUid,
    Queue,
    Standing,
    TenantName,
    WorkloadClass,
    parse_form,
)

WHOLE = parse_form("h100-80gb")
SLICE = parse_form("h100-80gb/1g.10gb")
OTHER = parse_form("a100-80gb")
FORMS = (WHOLE, SLICE, OTHER)
TEXT = st.text(max_size=6)
SECONDS = st.floats(0, 1e9)

COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much],
}
SOME = settings(max_examples=40, **COMMON)  # type: ignore[arg-type]
MANY = settings(max_examples=120, **COMMON)  # type: ignore[arg-type]


# -- fairness -----------------------------------------------------------------


@st.composite
def claims(
    draw: st.DrawFn,
    *,
    least_weight: int = 0,
    ceilings: bool = True,
    keeping: bool = True,
    most: int = 12,
    tiers: int = 4,
) -> list[Claim]:
    """One to six siblings; all ages differ."""
    size = draw(st.integers(1, 6))
    ages = draw(st.permutations(range(size)))
    amounts = st.integers(0, most)
    found: list[Claim] = []
    for age in ages:
        guarantee = draw(amounts)
        found.append(
            Claim(
                guarantee=guarantee,
                demands=tuple(draw(amounts) for _ in range(tiers)),
                weight=draw(st.integers(least_weight, 4)),
                priority=draw(st.integers(0, 2)),
                order=age,
                ceiling=draw(st.none() | st.integers(0, 2 * most))
                if ceilings
                else None,
                kept=draw(st.integers(0, guarantee)) if keeping else 0,
            )
        )
    return found


@st.composite
def standings(draw: st.DrawFn, most: int = 8) -> list[Standing]:
    """Gangs of one queue: waiting ones accept several forms, some extend another."""
    found: list[Standing] = []
    for number in range(draw(st.integers(0, most))):
        whole = [standing for standing in found if standing.core is None]
        core = draw(st.none() | st.sampled_from(whole)) if whole else None
        running = draw(st.booleans()) and (core is None or core.running)
        forms = draw(st.permutations(FORMS)) if not running else [WHOLE]
        also = forms[1 : 1 + draw(st.integers(0, 2))] if not running else []
        found.append(
            Standing(
                gang=GangId(f"g{number}"),
                workload_class=core.workload_class
                if core
                else draw(st.sampled_from(WorkloadClass)),
                priority=core.priority if core else draw(st.integers(0, 1)),
                running=running,
                since=float(draw(st.integers(0, 3))),
                form=forms[0],
                quanta=draw(st.integers(1, 6)),
                also=tuple((form, draw(st.integers(1, 6))) for form in also),
                core=core.gang if core else None,
            )
        )
    return found


# -- quota --------------------------------------------------------------------


@st.composite
def trees(
    draw: st.DrawFn,
    *,
    forms: Sequence[Form] = (WHOLE,),
    ceilings: bool = True,
    lending: bool = True,
    most: int = 4,
    size: int = 7,
) -> tuple[Queue, ...]:
    """A forest of up to `size` queues; guarantees nest and lie within the limits."""
    number = draw(st.integers(1, size))
    parents = [
        draw(st.none() | st.integers(0, i - 1)) if i else None for i in range(number)
    ]
    owned = [{form: draw(st.integers(0, most)) for form in forms} for _ in parents]
    for child in reversed(range(number)):
        parent = parents[child]
        if parent is not None:
            for form in forms:
                owned[parent][form] += owned[child][form]

    def amounts(
        wanted: bool, largest: int, least: Mapping[Form, int] | None = None
    ) -> tuple[tuple[Form, int], ...]:
        if not wanted:
            return ()
        options = {form: draw(st.none() | st.integers(0, largest)) for form in forms}
        base = least or {}
        return tuple(
            (form, base.get(form, 0) + n)
            for form, n in options.items()
            if n is not None
        )

    ages = draw(st.permutations(range(number)))
    return tuple(
        Queue(
            name=TenantName(f"q{i}"),
            parent=None if parents[i] is None else TenantName(f"q{parents[i]}"),
            guarantee=tuple(owned[i].items()),
            borrowing_limit=amounts(ceilings, 2 * most),
            lending_limit=amounts(lending, most // 2),
            limit=amounts(ceilings, 2 * most, owned[i]),
            weight=draw(st.integers(0, 3)),
            priority=draw(st.integers(0, 1)),
            order=ages[i],
        )
        for i in range(number)
    )


# -- nodes and pods -----------------------------------------------------------


@st.composite
def nodes(
    draw: st.DrawFn, name: str, *, limited: bool = True, ready: bool | None = None
) -> Node:
    """A node with some whole GPUs and a second form, CPU and memory counted or not."""
    others = st.dictionaries(st.sampled_from(FORMS[1:]), st.integers(0, 8), max_size=1)
    whole = st.sampled_from([{WHOLE: 4}, {WHOLE: 8}, {WHOLE: 8}, {WHOLE: 2}, {}])
    offers = draw(whole) | draw(others)
    tracked = st.sampled_from([0, 8, 16]) if limited else st.just(0)
    return Node(
        name=NodeName(name),
        offers=tuple(sorted(offers.items())),
        gpus=sum(offers.values()),
        cpu_milli=draw(tracked),
        memory_mib=draw(tracked),
        ready=draw(st.sampled_from([True] * 4 + [False])) if ready is None else ready,
    )


@st.composite
def demands(draw: st.DrawFn, *, limited: bool = True, fractions: bool = True) -> Demand:
    """What one pod asks for; one in three is a fraction of a GPU."""
    other = st.sampled_from([0, 0, 0, 3, 6]) if limited else st.just(0)
    part = fractions and draw(st.integers(0, 2)) == 0
    return Demand(
        count=1 if part else draw(st.integers(1, 5)),
        fraction=draw(st.sampled_from([1, 3, 5])) * QUANTA_PER_GPU // 6
        if part
        else QUANTA_PER_GPU,
        cpu_milli=draw(other),
        memory_mib=draw(other),
    )


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    """A pod with every field drawn; text may hold anything JSON must escape."""
    gang = draw(st.sampled_from(["", "g", 'quote"g']))
    return Pod(
        uid=PodUid(draw(TEXT)),
        name=draw(TEXT),
        tenant=TenantName(draw(TEXT)),
        workload_class=draw(st.sampled_from(WorkloadClass)),
        demand=draw(demands() | slices()),
        gang=gang,
        min_member=draw(st.integers(1, 4)) if gang else 1,
        priority=draw(st.integers(-5, 5)),
        preemptible=draw(st.booleans()),
        restart_cost_s=draw(SECONDS),
        checkpoint_interval_s=draw(st.none() | SECONDS),
        on_request=draw(st.booleans()),
    )


def slices() -> st.SearchStrategy[Demand]:
    """A demand for MIG slices, of any class or of one."""
    classes = st.sampled_from([(), ("h100-80gb",), ("h100-80gb", "a100-80gb")])
    return st.builds(
        Demand, count=st.integers(1, 7), classes=classes, profile=st.just("1g.10gb")
    )


# -- what draws are compared by -----------------------------------------------


def everything(cluster: Cluster) -> bytes:
    """All that a cluster knows, as bytes; the order of placement does not count."""
    n = len(cluster.names)
    arrays = (cluster.total, cluster.free, cluster.open)
    flat = (cluster.cpu, cluster.memory, cluster.ready)
    return pickle.dumps(
        (
            [array[:, :n].tolist() for array in arrays],
            [array[:n].tolist() for array in flat],
            sorted(cluster.placed.items()),
            sorted(
                (key, sorted(slots.items()))
                for key, slots in cluster._slots.items()
                if slots
            ),
            cluster._next_slot,
            sorted(cluster._shrunk),
        )
    )
