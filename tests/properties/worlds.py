"""Random trees: any shape to five levels, several forms, class groups, every setting.

Numbers are small on purpose: collisions, ties and edges are where the rules bite. How
many trees a test draws is set by the environment variable ``HYPOTHESIS_PROFILE``:
``fast`` for `make test`, ``long`` for `make test-long`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from scheduler.core.fairness import TIERS, Division, Standing
from scheduler.core.gpu import Form, charge, parse_form
from scheduler.core.quota import Fleet, Group, Pools, Queue, QuotaTree
from scheduler.core.workload import GangId, TenantName, WorkloadClass
from tests.properties.oracle import Rules

H100, A80, A40 = map(parse_form, ("h100-80gb", "a100-80gb", "a100-40gb"))
SLICE = parse_form("h100-80gb/1g.10gb")
FORMS = (H100, A80, A40, SLICE)
ANY, ANY_A100 = Form("any"), Form("any-a100")
SMALL = Group(name=ANY_A100, members=(A80, A40))
LARGE = Group(name=ANY, members=(ANY_A100, H100))
DEEPEST = 5

COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much],
}
settings.register_profile("fast", max_examples=60, **COMMON)
settings.register_profile(  # other trees every night, also where chance is fixed
    "long", max_examples=900, derandomize=False, print_blob=True, **COMMON
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "fast")
TREES = settings(settings.get_profile(PROFILE))
"""How many trees a property is tried on; an unknown profile is an error."""

DRAWN: list[int] = []
"""Hashes of all trees drawn so far."""


@dataclass(frozen=True)
class World:
    """A tree, the fleet it shares and, in devices, what is there."""

    queues: tuple[Queue, ...]
    fleet: Fleet
    devices: tuple[tuple[Form, int], ...]

    @property
    def capacity(self) -> dict[Form, int]:
        return {form: count * charge(form) for form, count in self.devices}

    def tree(self) -> QuotaTree:
        tree = QuotaTree(self.queues, self.fleet)
        tree.capacity = self.capacity
        return tree

    def rules(self) -> Rules:
        return Rules(self.queues, self.fleet, self.capacity)

    def leaves(self) -> list[TenantName]:
        parents = {queue.parent for queue in self.queues}
        return [queue.name for queue in self.queues if queue.name not in parents]


FLEETS = (
    Fleet(),
    Fleet(groups=(SMALL,)),
    Fleet(groups=(SMALL, LARGE)),
    Fleet(groups=(SMALL, Group(name=Form("any-h100"), members=(H100,)))),
)


@st.composite
def worlds(
    draw: st.DrawFn,
    *,
    forms: Sequence[Form] = (H100, SLICE),
    fleets: Sequence[Fleet] = (Fleet(),),
    ceilings: bool = True,
    lending: bool = True,
    fits: bool | None = None,
    least_weight: int = 0,
    most: int = 4,
    size: int = 8,
) -> World:
    """A forest of up to `size` queues.

    Parameters
    ----------
    fits
        Whether guarantees lie within the parent's and the fleet's; None: any.
    """
    fleet = draw(st.sampled_from(list(fleets)))
    pools = [*forms, *(group.name for group in fleet.groups)]
    parents = draw(_shapes(size))
    nested = draw(st.booleans()) if fits is None else fits
    owned = [draw(_amounts(pools, most)) for _ in parents]
    if nested:
        for child in reversed(range(len(parents))):
            for pool in pools if parents[child] is not None else ():
                owned[parents[child]][pool] += owned[child][pool]

    def maybe(wanted: bool, extra: Mapping[Form, int]) -> tuple[tuple[Form, int], ...]:
        if not wanted or not draw(st.booleans()):
            return ()
        found = draw(_amounts(pools, most))
        listed = draw(st.sets(st.sampled_from(pools)))
        return tuple((p, found[p] + extra.get(p, 0)) for p in sorted(listed))

    ages = draw(st.permutations(range(len(parents))))
    queues = tuple(
        Queue(
            name=TenantName(f"q{i}"),
            parent=None if parent is None else TenantName(f"q{parent}"),
            guarantee=tuple(owned[i].items()),
            borrowing_limit=maybe(ceilings, {}),
            lending_limit=maybe(lending, {}),
            limit=maybe(ceilings, owned[i]),
            weight=draw(st.integers(least_weight, 4)),
            priority=draw(st.integers(0, 1)),
            order=ages[i],
        )
        for i, parent in enumerate(parents)
    )
    there = draw(_amounts(forms, 3 * most))
    if nested:  # a group is had in one member, no two of them in plenty
        insides = Pools(fleet)
        for i in (i for i, parent in enumerate(parents) if parent is None):
            for pool, count in owned[i].items():
                members = [f for f in forms if f in insides.inside(pool)]
                there[draw(st.sampled_from(members))] += count
    world = World(queues, fleet, tuple(there.items()))
    DRAWN.append(hash(world))
    return world


@st.composite
def _shapes(draw: st.DrawFn, size: int) -> list[int | None]:
    """The parent of each queue, which comes before it; no more levels than allowed."""
    parents: list[int | None] = [None]
    depths = [1]
    for number in range(1, draw(st.integers(1, size))):
        parent = draw(st.none() | st.integers(0, number - 1))
        if parent is not None and depths[parent] == DEEPEST:
            parent = None
        parents.append(parent)
        depths.append(1 if parent is None else depths[parent] + 1)
    return parents


@st.composite
def _amounts(draw: st.DrawFn, pools: Sequence[Form], most: int) -> dict[Form, int]:
    counts = st.lists(st.integers(0, most), min_size=len(pools), max_size=len(pools))
    return dict(zip(pools, draw(counts), strict=True))


# -- what is asked for --------------------------------------------------------


@st.composite
def demands(
    draw: st.DrawFn, world: World, form: Form = H100, most: int = 8
) -> dict[TenantName, tuple[int, ...]]:
    """Quanta per tier and tenant: of whole devices, or of thirds of one."""
    unit = charge(form) // draw(st.sampled_from((1, 1, 3)))
    tiers = st.just((0,) * TIERS) | st.tuples(*[st.integers(0, most)] * TIERS)
    return {
        name: tuple(n * unit for n in draw(tiers, label=name))
        for name in world.leaves()
    }


@st.composite
def charges(
    draw: st.DrawFn, world: World, forms: Sequence[Form]
) -> list[tuple[TenantName, Form, int]]:
    """What tenants hold: any amounts, also beyond every limit."""
    tenants, kinds = st.sampled_from(world.leaves()), st.sampled_from(list(forms))
    one = st.tuples(tenants, kinds, st.integers(1, 4))
    held = draw(st.lists(one, max_size=8))
    return [(name, form, count * charge(form)) for name, form, count in held]


@st.composite
def gangs(
    draw: st.DrawFn, forms: Sequence[Form], *, prefix: str = "g", most: int = 6
) -> list[Standing]:
    """Gangs of one tenant: waiting ones accept several forms, some extend another."""
    found: list[Standing] = []
    for number in range(draw(st.integers(0, most))):
        whole = [standing for standing in found if standing.core is None]
        core = draw(st.none() | st.sampled_from(whole)) if whole else None
        running = draw(st.booleans()) and (core is None or core.running)
        ways = draw(st.permutations(list(forms)))
        also = ways[1 : 1 + draw(st.integers(0, 2))] if not running else []
        size = draw(st.integers(1, 4))
        kind = core.workload_class if core else draw(st.sampled_from(WorkloadClass))
        found.append(
            Standing(
                gang=GangId(f"{prefix}{number}"),
                workload_class=kind,
                priority=core.priority if core else draw(st.integers(0, 1)),
                running=running,
                since=float(draw(st.integers(0, 3))),
                form=ways[0],
                quanta=size * charge(ways[0]),
                also=tuple((form, size * charge(form)) for form in also),
                core=core.gang if core else None,
            )
        )
    return found


# -- what is answered ---------------------------------------------------------


def divided(
    world: World, wanted: Mapping[TenantName, Sequence[int]], form: Form = H100
) -> dict[TenantName, list[int]]:
    """Quanta per tier that division grants each queue."""
    division = Division(world.tree())
    for name, tiers in wanted.items():
        division.ask(name, form, tiers)
    return {queue.name: division.share(queue.name, form) for queue in world.queues}


def totals(shares: Mapping[TenantName, Sequence[int]]) -> dict[TenantName, int]:
    """Shares over all tiers."""
    return {name: sum(tiers) for name, tiers in shares.items()}
