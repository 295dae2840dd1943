"""Who may be evicted for whom: cover in a tree, judged as the engine judges it.

Each story seats gangs, computes every cover from them, and asks the rules of reclaim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from scheduler.core.fairness import Standing, covered_forms
from scheduler.core.gpu import Form, charge, parse_form
from scheduler.core.quota import Fleet, Group, Queue, QuotaTree
from scheduler.core.reclaim import may_take
from scheduler.core.workload import GangId, TenantName, WorkloadClass
from tests import builders, courtroom

CRITICAL, INFERENCE, TRAINING, BATCH = WorkloadClass
H100, A80, A40 = map(parse_form, ("h100-80gb", "a100-80gb", "a100-40gb"))
GPU = charge(H100)
A100 = Form("any-a100")
FLEET = Fleet(groups=(Group(name=A100, members=(A80, A40)),))
Seats = Mapping[str, Sequence[Standing]]


def gang(
    name: str,
    gpus: int,
    kind: WorkloadClass = TRAINING,
    *,
    waits: bool = False,
    since: float = 0.0,
    form: Form = H100,
    core: str | None = None,
) -> Standing:
    above = None if core is None else GangId(core)
    size = gpus * GPU
    return Standing(GangId(name), kind, 0, not waits, since, form, size, core=above)


class Trial:
    """A tree with seated gangs; nobody is granted a share of burst."""

    def __init__(
        self, queues: Sequence[Queue], seats: Seats, devices: int = 64
    ) -> None:
        self.tree = QuotaTree(queues, FLEET)
        self.tree.capacity = {form: devices * GPU for form in (H100, A80, A40)}
        self.owners = {g.gang: TenantName(t) for t in seats for g in seats[t]}
        self.gangs = {g.gang: g for found in seats.values() for g in found}
        covers = {name: self._cover(name) for name in self.tree.queues}
        base = courtroom.court(queues)
        self.court = replace(base, tree=self.tree, covers=lambda name: covers[name])

    def _cover(self, queue: TenantName) -> dict[GangId, Form]:
        below = [
            self.gangs[name]
            for name, owner in self.owners.items()
            if queue in self.tree.path(owner)
        ]
        return covered_forms(below, self.tree.guarantees(queue), self.tree.pools)

    def covered(self, queue: str) -> set[str]:
        return set(self.court.covers(TenantName(queue)))

    def victims(self, taker: str) -> set[str]:
        """Running gangs that the rules let one waiting gang evict."""
        running = (name for name, g in self.gangs.items() if g.running)
        return {name for name in running if self._may(GangId(taker), name)}

    def _may(self, taker: GangId, victim: GangId) -> bool:
        mine, other = self.gangs[taker], self.gangs[victim]
        owner, holder = self.owners[taker], self.owners[victim]
        seeking = courtroom.taker(
            owner=owner,
            kind=mine.workload_class,
            form=mine.form,
            covered=self.court.covers(owner).get(taker) == mine.form,
            uses=dict.fromkeys(self.tree.path(owner), 0),
        )
        seeking = replace(seeking, gang=taker, quanta=mine.quanta)
        held = courtroom.holding(
            victim, owner=holder, kind=other.workload_class, form=other.form
        )
        held = replace(held, quanta=other.quanta)
        return may_take(seeking, held, self.court)


def tenants(*guarantees: str) -> list[Queue]:
    """`a`, `b`, ... side by side."""
    pairs = zip("abcdef", guarantees, strict=False)
    return [builders.tenant(n, owned, order=i) for i, (n, owned) in enumerate(pairs)]


# -- side by side ------------------------------------------------------------


def test_covered_demand_takes_burst_and_only_burst() -> None:
    """PROTECTED and GUARANTEE, the plain case."""
    trial = Trial(
        tenants("2xh100-80gb", "2xh100-80gb", ""),
        {
            "a": [gang("mine", 2, waits=True)],
            "b": [gang("own", 2), gang("burst", 2, since=1.0)],
            "c": [gang("guest", 4)],
        },
    )
    assert trial.victims("mine") == {"burst", "guest"}


def test_what_the_guarantee_does_not_pay_for_takes_nothing() -> None:
    """Burst waits for what is idle, however much its tenant is guaranteed."""
    trial = Trial(
        tenants("2xh100-80gb", ""),
        {
            "a": [gang("runs", 1), gang("large", 2, waits=True)],
            "b": [gang("guest", 4)],
        },
    )
    assert trial.covered("a") == {"runs"}
    assert trial.victims("large") == set()


def test_a_gang_across_the_edge_is_burst_as_a_whole() -> None:
    """GANG: three of its four devices are owned, and it may be taken all the same."""
    trial = Trial(
        tenants("1xh100-80gb", "3xh100-80gb"),
        {
            "a": [gang("mine", 1, waits=True)],
            "b": [gang("edge", 4), gang("small", 2, since=1.0)],
        },
    )
    assert trial.covered("b") == {"small"}
    assert trial.victims("mine") == {"edge"}


@pytest.mark.parametrize(
    ("kind", "covered"),
    [
        (CRITICAL, {"asks"}),
        (INFERENCE, {"asks"}),
        (TRAINING, {"runs"}),  # running before waiting
        (BATCH, {"runs"}),
    ],
)
def test_a_waiting_gang_moves_cover_only_by_its_class(
    kind: WorkloadClass, covered: set[str]
) -> None:
    """Submitting more of the same strips no running work of its protection."""
    trial = Trial(
        tenants("2xh100-80gb", "2xh100-80gb"),
        {
            "a": [gang("runs", 2), gang("asks", 2, kind, waits=True)],
            "b": [gang("theirs", 2, waits=True)],
        },
    )
    assert trial.covered("a") == covered
    assert trial.victims("theirs") == {"runs"} - covered


def test_lost_nodes_take_cover_with_them() -> None:
    """Scaled guarantees cover less: whoever is left uncovered is burst again."""
    seats = {
        "a": [gang("old", 2), gang("new", 2, since=1.0)],
        "b": [gang("mine", 2, waits=True)],
    }
    queues = tenants("4xh100-80gb", "4xh100-80gb")
    assert Trial(queues, seats).victims("mine") == set()
    assert Trial(queues, seats, devices=4).covered("a") == {"old"}
    assert Trial(queues, seats, devices=4).victims("mine") == {"new"}


def test_inside_a_tenant_class_decides_and_cover_protects() -> None:
    """Its own order is its own affair; burst never displaces what is covered."""
    trial = Trial(
        tenants("2xh100-80gb"),
        {
            "a": [
                gang("batch", 2, BATCH),
                gang("large", 3, TRAINING, waits=True),
                gang("small", 2, TRAINING, waits=True, since=1.0),
                gang("burst", 1, BATCH, since=2.0),
            ]
        },
    )
    assert trial.covered("a") == {"small"}
    assert trial.victims("small") == {"batch", "burst"}
    assert trial.victims("large") == {"batch", "burst"}
    kept = Trial(
        tenants("2xh100-80gb"),
        {
            "a": [
                gang("batch", 2, BATCH),
                gang("large", 3, TRAINING, waits=True),
                gang("burst", 1, BATCH, since=2.0),
            ]
        },
    )
    assert kept.covered("a") == {"batch"}
    assert kept.victims("large") == {"burst"}


# -- elastic gangs -------------------------------------------------------------


def test_extras_are_covered_one_by_one() -> None:
    """`minMember` first, then as many of the others as the guarantee pays for."""
    members = [
        gang("core", 2),
        *(gang(f"core+{n}", 1, since=float(n), core="core") for n in (1, 2, 3)),
    ]
    seats = {"a": members, "b": [gang("mine", 4, waits=True)]}
    for owned, burst in (
        (5, set()),
        (4, {"core+3"}),
        (3, {"core+2", "core+3"}),
        (2, {"core+1", "core+2", "core+3"}),
        (1, {"core", "core+1", "core+2", "core+3"}),
    ):
        trial = Trial(tenants(f"{owned}xh100-80gb", "4xh100-80gb"), seats)
        assert trial.victims("mine") == burst


def test_extras_are_burst_when_their_gang_is() -> None:
    """Else a covered pod would be stopped with its uncovered gang (PROTECTED)."""
    trial = Trial(
        tenants("2xh100-80gb", "4xh100-80gb"),
        {
            "a": [gang("core", 3), gang("core+1", 1, core="core")],
            "b": [gang("mine", 4, waits=True)],
        },
    )
    assert trial.victims("mine") == {"core", "core+1"}


def test_an_extra_that_does_not_fit_leaves_room_for_the_next() -> None:
    """Members of other sizes, and other gangs, come after it in their own right."""
    trial = Trial(
        tenants("4xh100-80gb", "4xh100-80gb"),
        {
            "a": [
                gang("core", 2),
                gang("core+1", 3, since=1.0, core="core"),
                gang("core+2", 1, since=2.0, core="core"),
                gang("other", 1, since=3.0),
            ],
            "b": [gang("mine", 4, waits=True)],
        },
    )
    assert trial.covered("a") == {"core", "core+2", "other"}
    assert trial.victims("mine") == {"core+1"}


def test_a_waiting_extra_takes_burst_for_itself_alone() -> None:
    """Covered extras have the claim of covered demand, uncovered ones none."""
    trial = Trial(
        tenants("3xh100-80gb", ""),
        {
            "a": [
                gang("core", 2),
                gang("core+1", 1, waits=True, core="core"),
                gang("core+2", 1, waits=True, since=1.0, core="core"),
            ],
            "b": [gang("guest", 1)],
        },
    )
    assert trial.victims("core+1") == {"guest"}
    assert trial.victims("core+2") == set()


# -- departments ----------------------------------------------------------------

X = "4xh100-80gb"


def departments(x1: str = "", x2: str = "", y: str = "", y1: str = "") -> list[Queue]:
    """`x` of four devices with `x1` and `x2`, and `y` with `y1`."""
    return [
        builders.tenant("x", X),
        builders.tenant("y", y, order=1),
        builders.tenant("x1", x1, parent="x", order=2),
        builders.tenant("x2", x2, parent="x", order=3),
        builders.tenant("y1", y1, parent="y", order=4),
    ]


def test_a_departments_guarantee_claims_for_a_tenant_without_one() -> None:
    """GUARANTEE: towards strangers it is the department that asks."""
    trial = Trial(
        departments(),
        {
            "x1": [gang("mine", 4, waits=True)],
            "x2": [gang("sibling", 1, since=1.0)],
            "y1": [gang("stranger", 4)],
        },
    )
    assert trial.covered("x") == {"sibling"}  # running before waiting
    assert trial.victims("mine") == set()
    alone = Trial(
        departments(),
        {"x1": [gang("mine", 4, waits=True)], "y1": [gang("stranger", 4)]},
    )
    assert alone.covered("x1") == set()
    assert alone.victims("mine") == {"stranger"}


def test_a_departments_guarantee_protects_from_strangers_not_from_siblings() -> None:
    """PROTECTED at the siblings below the common ancestor: two answers for one gang."""
    trial = Trial(
        departments(x2="2xh100-80gb", y="4xh100-80gb"),
        {
            "x1": [gang("victim", 4)],
            "x2": [gang("sibling", 2, waits=True)],
            "y1": [gang("stranger", 4, waits=True)],
        },
    )
    assert trial.covered("x") == {"victim"}
    assert trial.victims("stranger") == set()
    assert trial.victims("sibling") == {"victim"}


def test_a_tenants_own_guarantee_protects_from_siblings_not_from_strangers() -> None:
    """A department that spends its guarantee on inference exposes its training.

    Inside, x1's own guarantee still holds against its sibling.
    """
    trial = Trial(
        departments(x1="2xh100-80gb", x2="2xh100-80gb", y="4xh100-80gb"),
        {
            "x1": [gang("trains", 2)],
            "x2": [gang("serves", 4, INFERENCE), gang("asks", 2, waits=True)],
            "y1": [gang("stranger", 4, waits=True)],
        },
    )
    assert trial.covered("x") == {"serves"}
    assert trial.covered("x1") == {"trains"}
    assert trial.victims("stranger") == {"trains"}
    assert trial.covered("x2") == {"asks"}
    assert trial.victims("asks") == set()


def test_burst_inside_covered_outside_has_no_claim_on_siblings() -> None:
    """What the department owns is not the tenant's against its own siblings."""
    trial = Trial(
        departments(x2="2xh100-80gb"),
        {
            "x1": [gang("mine", 2, INFERENCE, waits=True)],
            "x2": [gang("own", 2), gang("burst", 2, since=1.0)],
            "y1": [gang("stranger", 2)],
        },
    )
    assert trial.covered("x") == {"mine", "own"}
    assert trial.victims("mine") == {"stranger"}


def test_three_levels_are_judged_where_the_paths_part() -> None:
    """One gang, three takers: a sibling, a cousin and a stranger."""
    queues = [
        builders.tenant("org", "8xh100-80gb"),
        builders.tenant("z", "4xh100-80gb", order=1),
        builders.tenant("x", "2xh100-80gb", parent="org", order=2),
        builders.tenant("y", "2xh100-80gb", parent="org", order=3),
        builders.tenant("x1", parent="x", order=4),
        builders.tenant("x2", "1xh100-80gb", parent="x", order=5),
    ]
    seats = {
        "x1": [gang("victim", 2)],
        "x2": [gang("sibling", 1, waits=True)],
        "y": [gang("cousin", 2, waits=True)],
        "z": [gang("stranger", 4, waits=True)],
    }
    trial = Trial(queues, seats)
    assert trial.covered("x1") == set()
    assert "victim" in trial.covered("x")
    assert "victim" in trial.covered("org")
    assert trial.victims("sibling") == {"victim"}
    assert trial.victims("cousin") == set()
    assert trial.victims("stranger") == set()
    poor = [replace(q, guarantee=()) if q.name == "x" else q for q in queues]
    assert Trial(poor, seats).victims("cousin") == {"victim"}
    assert Trial(poor, seats).victims("stranger") == set()


def test_a_lone_tenant_and_a_deep_one_part_at_the_roots() -> None:
    """Paths of different length: the tenant itself, and the other's department."""
    queues = [
        *departments(y="2xh100-80gb"),
        builders.tenant("solo", "2xh100-80gb", order=9),
    ]
    trial = Trial(
        queues,
        {
            "solo": [gang("mine", 2, waits=True)],
            "x1": [gang("safe", 4), gang("burst", 1, since=1.0)],
            "y1": [gang("also", 3)],
        },
    )
    assert trial.victims("mine") == {"burst", "also"}


# -- groups -----------------------------------------------------------------------


def test_a_group_guarantee_takes_the_class_its_gang_asks_for() -> None:
    """Cover names a form: a claim on one A100 is no claim on another."""
    trial = Trial(
        tenants("2xany-a100", ""),
        {
            "a": [gang("mine", 2, waits=True, form=A40)],
            "b": [gang("a40", 1, form=A40), gang("a80", 1, form=A80)],
        },
    )
    assert trial.victims("mine") == {"a40"}


def test_a_group_guarantee_protects_whichever_class_it_pays_for() -> None:
    """PROTECTED: two of three devices, the older two, on either class."""
    trial = Trial(
        tenants("2xany-a100", "4xa100-80gb 4xa100-40gb"),
        {
            "a": [
                gang("first", 1, form=A40),
                gang("second", 1, since=1.0, form=A80),
                gang("third", 1, since=2.0, form=A40),
                gang("fourth", 1, since=3.0, form=A80),
            ],
            "b": [
                gang("on a40", 4, waits=True, form=A40),
                gang("on a80", 4, waits=True, form=A80),
            ],
        },
    )
    assert trial.victims("on a40") == {"third"}
    assert trial.victims("on a80") == {"fourth"}


def test_a_departments_group_covers_what_its_tenants_classes_do_not() -> None:
    """Outside the department pays with "any"; inside, x1 owns no A100-40GB."""
    queues = [
        builders.tenant("x", "2xany-a100"),
        builders.tenant("y", "2xa100-40gb", order=1),
        builders.tenant("x1", "1xa100-80gb", parent="x", order=2),
        builders.tenant("x2", "1xany-a100", parent="x", order=3),
    ]
    trial = Trial(
        queues,
        {
            "x1": [gang("runs", 1, form=A40)],
            "x2": [gang("asks", 1, waits=True, form=A40)],
            "y": [gang("stranger", 2, waits=True, form=A40)],
        },
    )
    assert trial.covered("x") == {"runs", "asks"}
    assert trial.victims("stranger") == set()
    assert trial.victims("asks") == {"runs"}
