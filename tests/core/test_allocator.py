"""Plans: legal whatever the problem, and no fault passes the verifier."""

import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.allocator import (
    Admission,
    Ask,
    Assignment,
    Budget,
    Plan,
    Problem,
    Status,
    allocate,
    greedy,
    may_charge,
    place_ask,
    verify,
)
from scheduler.core.cluster import Cluster
from scheduler.core.engine import Engine, Policy
from scheduler.core.events import Admit, NodeUp, PodGone, PodSubmitted, TenantsChanged
from scheduler.core.gpu import QUANTA_PER_GPU, Form, charge
from scheduler.core.quota import Queue, QuotaTree
from scheduler.core.workload import Demand, GangId, NodeName, PodUid, TenantName
from tests import builders
from tests.strategies import (
    FORMS,
    MANY,
    OTHER,
    SOME,
    WHOLE,
    demands,
    everything,
    nodes,
    trees,
)

GPU = QUANTA_PER_GPU


def books(tree: QuotaTree) -> list[tuple[int, int]]:
    return [
        (tree.used(name, form), tree.held(name, form))
        for name in tree.queues
        for form in FORMS
    ]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """A few nodes, a tree that holds something already, and gangs that wait."""
    cluster = Cluster()
    for number in range(draw(st.integers(1, 4))):
        cluster.set_node(draw(nodes(f"n{number}")))
    queues = draw(trees(forms=FORMS, size=4))
    tree = QuotaTree(queues)
    tree.capacity = cluster.capacity()
    parents = {queue.parent for queue in queues}
    names = [queue.name for queue in queues if queue.name not in parents]
    for number in range(draw(st.integers(0, 3))):
        owner, form = draw(st.sampled_from(names)), draw(st.sampled_from(FORMS))
        running = Demand(count=draw(st.integers(1, 3)))
        column = draw(st.integers(0, len(cluster.names) - 1))
        if cluster.fits(running, form)[column]:
            cluster.place(PodUid(f"running{number}"), column, form, running)
            tree.charge(owner, form, running.charge(form))
    asks = tuple(
        draw(waiting(f"g{number}", names)) for number in range(draw(st.integers(0, 6)))
    )
    return Problem(version=7, now=0.0, asks=asks, cluster=cluster.room(), tree=tree)


@st.composite
def waiting(draw: st.DrawFn, name: str, owners: list[TenantName]) -> Ask:
    forms = tuple(draw(st.permutations(FORMS))[: draw(st.integers(1, 3))])
    demand = draw(demands(fractions=all("/" not in form for form in forms)))
    return Ask(
        gang=GangId(name),
        tenant=draw(st.sampled_from(owners)),
        forms=forms,
        members=tuple(
            (PodUid(f"{name}-{i}"), demand) for i in range(draw(st.integers(1, 3)))
        ),
        covered=draw(st.none() | st.sampled_from(forms)),
    )


# -- greedy -------------------------------------------------------------------


@MANY
@given(problems())
def test_every_plan_is_legal_and_leaves_the_problem_alone(problem: Problem) -> None:
    """The verifier is written apart from the greedy: both must be wrong alike."""
    before, charged = everything(problem.cluster), books(problem.tree)
    plan = allocate(problem, Budget(wall_s=1.0))
    assert verify(problem, plan) == []
    assert plan.version == problem.version
    assert plan.objective <= plan.bound
    assert everything(problem.cluster) == before
    assert books(problem.tree) == charged


@MANY
@given(problems())
def test_nobody_is_left_out_who_could_have_been_let_in(problem: Problem) -> None:
    """WORK CONSERVING for a batch: what still waits has no quota or no room."""
    plan = allocate(problem)
    asks = {ask.gang: ask for ask in problem.asks}
    cluster, tree = problem.cluster, problem.tree
    for admission in plan.admissions:
        ask = asks.pop(admission.gang)
        tree.charge(ask.tenant, admission.form, ask.quanta(admission.form))
        for assignment in admission.assignments:
            column = cluster.index[assignment.node]
            demand = dict(ask.members)[assignment.uid]
            cluster.place(assignment.uid, column, admission.form, demand)
    for ask in asks.values():
        assert place_ask(cluster, tree, ask) is None


@MANY
@given(problems(), st.integers(0, 5))
def test_later_gangs_take_nothing_from_earlier_ones(
    problem: Problem, length: int
) -> None:
    """The order of the asks is the decision order: it must be kept."""
    head = replace(problem, asks=problem.asks[:length])
    names = {ask.gang for ask in head.asks}
    whole = [a for a in allocate(problem).admissions if a.gang in names]
    assert list(allocate(head).admissions) == whole


@SOME
@given(problems())
def test_equal_problems_have_equal_plans(problem: Problem) -> None:
    """DETERMINISTIC, also after a trip to another process."""
    copy = pickle.loads(pickle.dumps(problem))  # noqa: S301 -- our own
    plan = allocate(problem)
    assert allocate(copy) == plan
    assert allocate(problem) == plan
    assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301 -- our own


def problem(*asks: Ask, queues: tuple[Queue, ...] = (), size: int = 8) -> Problem:
    """Two nodes of `size` H100, one of A100; tenants a and b."""
    cluster = Cluster()
    for name in ("n0", "n1"):
        cluster.set_node(builders.node(name, f"{size}x{WHOLE}"))
    cluster.set_node(builders.node("n2", f"{size}x{OTHER}"))
    cluster.set_node(builders.node("n3", f"{size}x{WHOLE}", ready=False))
    tree = QuotaTree(queues or (builders.tenant("a"), builders.tenant("b", order=1)))
    tree.capacity = {WHOLE: 2 * size * GPU, OTHER: size * GPU}
    return Problem(version=1, now=0.0, asks=asks, cluster=cluster, tree=tree)


def ask(
    name: str,
    *counts: int,
    owner: str = "a",
    forms: tuple[Form, ...] = (WHOLE,),
    covered: Form | None = None,
) -> Ask:
    return Ask(
        gang=GangId(name),
        tenant=TenantName(owner),
        forms=forms,
        members=tuple(
            (PodUid(f"{name}-{i}"), Demand(count=n)) for i, n in enumerate(counts)
        ),
        covered=covered,
    )


def admitted(found: Plan) -> dict[str, tuple[str, list[str]]]:
    return {
        a.gang: (a.form, sorted(assignment.node for assignment in a.assignments))
        for a in found.admissions
    }


def test_gangs_are_admitted_in_order_each_whole() -> None:
    """The second does not fit any more, the third still does."""
    found = allocate(problem(ask("g0", 8, 4), ask("g1", 8), ask("g2", 4)))
    assert admitted(found) == {"g0": (WHOLE, ["n0", "n1"]), "g2": (WHOLE, ["n1"])}
    assert found.status is Status.GREEDY
    assert (found.objective, found.bound) == (16 * GPU, 24 * GPU)


def test_second_choice_is_taken_when_the_first_is_full() -> None:
    """Preferred form first; a form without quota or room is passed over."""
    asks = (ask("g0", 8, 8), ask("g1", 8, forms=(WHOLE, OTHER)))
    assert admitted(allocate(problem(*asks)))["g1"] == (OTHER, ["n2"])


def test_burst_stops_at_what_others_keep_and_cover_does_not() -> None:
    """Covered demand may claim its room while borrowers still hold it."""
    queues = (
        builders.tenant("a", f"8x{WHOLE}"),
        builders.tenant("b", f"8x{WHOLE}", lending=f"0x{WHOLE}", order=1),
        builders.tenant("c", order=2),
    )
    burst, covered = ask("burst", 1), ask("covered", 1, covered=WHOLE)
    here = problem(queues=queues)
    here.tree.charge(TenantName("c"), WHOLE, 8 * GPU)
    assert not may_charge(here.tree, burst, WHOLE)
    assert may_charge(here.tree, covered, WHOLE)
    assert not may_charge(here.tree, ask("elsewhere", 1, covered=OTHER), WHOLE)


def test_nobody_passes_a_limit_not_even_covered() -> None:
    """LIMIT binds every demand, and the plan's own earlier admissions count."""
    queues = (builders.tenant("a", f"3x{WHOLE}", limit=f"3x{WHOLE}"),)
    asks = [ask(f"g{i}", 2, covered=WHOLE) for i in range(2)]
    assert admitted(allocate(problem(*asks, queues=queues))) == {"g0": (WHOLE, ["n0"])}


def test_who_fails_takes_down_only_its_like() -> None:
    """Gangs of one shape fail alike; another tenant, form or cover is another shape."""
    queues = (
        builders.tenant("a", f"8x{WHOLE}"),
        builders.tenant("b", f"8x{WHOLE}", lending=f"0x{WHOLE}", order=1),
    )
    here = problem(
        ask("burst", 1),
        ask("covered", 1, covered=WHOLE),
        ask("other-form", 1, forms=(WHOLE, OTHER)),
        ask("owner", 1, owner="b"),
        ask("burst-too", 1),
        queues=queues,
    )
    here.tree.charge(TenantName("a"), WHOLE, 8 * GPU)
    assert set(admitted(allocate(here))) == {"covered", "other-form", "owner"}


def test_empty_batch_has_an_empty_plan() -> None:
    """Nothing waits: nothing is done, and that is optimal."""
    found = greedy(problem())
    assert (found.admissions, found.objective, found.bound) == ((), 0, 0)


# -- the verifier -------------------------------------------------------------


def plan(*admissions: Admission, objective: int = 0, bound: int = 99 * GPU) -> Plan:
    return Plan(
        version=1,
        admissions=admissions,
        status=Status.FEASIBLE,
        objective=objective * GPU,
        bound=bound,
    )


def admission(name: str, *places: tuple[int, str], form: Form = WHOLE) -> Admission:
    """Members by number, each with its node."""
    return Admission(
        GangId(name),
        form,
        tuple(
            Assignment(PodUid(f"{name}-{number}"), NodeName(node))
            for number, node in places
        ),
    )


PAIR = ask("g", 4, 4, forms=(WHOLE, OTHER))
LIMITED = (
    builders.tenant("a", limit=f"7x{WHOLE}"),
    builders.tenant("b", f"12x{WHOLE}", lending=f"0x{WHOLE}", order=1),
)


def test_legal_plan_has_no_faults() -> None:
    """So that each fault below comes from its one change."""
    assert (
        verify(problem(PAIR), plan(admission("g", (0, "n0"), (1, "n0")), objective=8))
        == []
    )
    assert verify(problem(PAIR), plan()) == []


@pytest.mark.parametrize(
    ("made", "queues", "text"),
    [
        (
            plan(admission("stranger", (0, "n0"))),
            (),
            "gang stranger: not asked, or admitted twice",
        ),
        (
            plan(
                admission("g", (0, "n0"), (1, "n0")),
                admission("g", (0, "n1"), (1, "n1")),
                objective=8,
            ),
            (),
            "gang g: not asked, or admitted twice",
        ),
        (
            plan(admission("g", (0, "n0")), objective=8),
            (),
            "gang g: not every member is placed exactly once",
        ),
        (
            plan(admission("g", (0, "n0"), (1, "n9")), objective=8),
            (),
            "pod g-1: unknown, or its node is",
        ),
        (
            plan(admission("g", (0, "n0"), (1, "n2")), objective=8),
            (),
            "pod g-1: no room on n2",
        ),
        (
            plan(admission("g", (0, "n0"), (1, "n3")), objective=8),
            (),
            "pod g-1: no room on n3",
        ),
        (
            plan(
                admission("g", (0, "n0"), (1, "n0")),
                admission("other", (0, "n0")),
                objective=9,
            ),
            (),
            "pod other-0: no room on n0",
        ),
        (
            plan(admission("g", (0, "n0"), (1, "n0")), objective=8),
            LIMITED[:1],
            "gang g: 1008000 quanta of h100-80gb exceed its quota",
        ),
        (
            plan(admission("g", (0, "n0"), (1, "n0")), objective=8),
            (replace(LIMITED[0], limit=()), LIMITED[1]),
            "gang g: 1008000 quanta of h100-80gb exceed its quota",
        ),
        (
            plan(admission("g", (0, "n0"), (1, "n0")), objective=9),
            (),
            "it serves 1008000 quanta and claims 1134000 of at most 12474000",
        ),
        (
            plan(admission("g", (0, "n0"), (1, "n0")), objective=8, bound=7 * GPU),
            (),
            "it serves 1008000 quanta and claims 1008000 of at most 882000",
        ),
    ],
)
def test_each_fault_is_found_alone(
    made: Plan, queues: tuple[Queue, ...], text: str
) -> None:
    """One change, one fault: the verifier neither misses nor blames the innocent."""
    here = problem(PAIR, ask("other", 1), queues=queues)
    before, charged = everything(here.cluster), books(here.tree)
    assert verify(here, made) == [text]
    assert everything(here.cluster) == before
    assert books(here.tree) == charged


def test_form_nobody_asked_for_is_found() -> None:
    """The gang would run, on what it cannot use."""
    made = plan(admission("g", (0, "n2"), (1, "n2"), form=OTHER), objective=8)
    assert verify(problem(replace(PAIR, forms=(WHOLE,))), made) == [
        f"gang g: {OTHER} is not acceptable"
    ]
    assert verify(problem(PAIR), made) == []


def test_member_placed_twice_is_found() -> None:
    """A pod is placed at most once: the same one twice is no gang of two."""
    made = plan(admission("g", (0, "n0"), (0, "n1")), objective=8)
    assert verify(problem(PAIR), made) == [
        "gang g: not every member is placed exactly once",
        "pod g-0: unknown, or its node is",
    ]


def test_quota_is_checked_over_the_whole_plan() -> None:
    """Two gangs that each may start may not both."""
    made = plan(
        admission("g", (0, "n0"), (1, "n0")), admission("h", (0, "n1")), objective=9
    )
    queues = (builders.tenant("a", limit=f"8x{WHOLE}"),)
    assert verify(problem(PAIR, ask("h", 1), queues=queues), made) == [
        "gang h: 126000 quanta of h100-80gb exceed its quota"
    ]


def test_illegal_plan_never_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """In production too: a solver's mistake is an error here, not an eviction there."""
    wrong = plan(admission("stranger", (0, "n0")))
    monkeypatch.setattr("scheduler.core.allocator.greedy", lambda _: wrong)
    with pytest.raises(AssertionError, match="not legal: gang stranger: not asked"):
        allocate(problem(PAIR))


# -- the engine's problems ----------------------------------------------------


def busy_engine() -> Engine:
    """Gangs wait that nobody has looked at yet; one is placed and one has left."""
    engine = Engine(Policy(inline=False))
    for name, offers in (("n0", f"8x{WHOLE}"), ("n1", f"4x{WHOLE} 4x{OTHER}")):
        engine.observe(NodeUp(builders.node(name, offers, cpu=64)), 0.0)
    queues = (builders.tenant("a", f"4x{WHOLE}"), builders.tenant("b", order=1))
    engine.observe(TenantsChanged(queues), 0.0)
    engine.observe(PodSubmitted(builders.pod("first", "a", 3)), 0.0)
    engine.observe(PodSubmitted(builders.pod("left", "a", 2)), 0.0)
    engine.cycle(0.0)
    engine.observe(PodGone(PodUid("left")), 1.0)
    for number in range(3):
        pod = builders.pod(f"m{number}", "b", 2, gang="g", min_member=3)
        engine.observe(PodSubmitted(pod), 1.0)
    half = builders.pod("half", "a", 1, fraction=GPU // 2)
    engine.observe(PodSubmitted(half), 1.0)
    any_class = builders.pod("any", "b", 3, classes=(), cpu=8)
    engine.observe(PodSubmitted(any_class), 1.0)
    return engine


def test_problem_travels_to_another_process_and_back() -> None:
    """Lane 2 solves elsewhere: the same bytes must give the same plan."""
    engine = busy_engine()
    here = engine.problem(2.0)
    there = pickle.loads(pickle.dumps(here))  # noqa: S301 -- our own
    assert there.asks == here.asks
    assert {ask.gang for ask in here.asks} == {"b/g", "half", "any"}
    assert everything(there.cluster) == everything(here.cluster)
    assert books(there.tree) == books(here.tree)
    assert allocate(there) == allocate(here)
    assert {a.gang for a in allocate(there).admissions} == {"b/g", "half", "any"}


def test_solving_a_problem_changes_nothing_in_the_engine() -> None:
    """A problem is frozen: it owns its cluster and its tree."""
    engine = busy_engine()
    rows = engine.tenants(2.0)
    here = engine.problem(2.0)
    allocate(here)
    here.cluster.place(PodUid("intruder"), 0, WHOLE, Demand(count=5))
    here.tree.charge(TenantName("b"), WHOLE, 5 * charge(WHOLE))
    engine.check_invariants()
    assert engine.tenants(2.0) == rows
    assert engine.problem(2.0).version == here.version


def test_plan_of_a_problem_is_admitted_as_it_was_made() -> None:
    """Nothing happened meanwhile, so nothing is stale."""
    engine = busy_engine()
    made = allocate(engine.problem(2.0))
    actions = engine.commit(made, 2.0)
    planned = {
        assignment.uid: assignment.node
        for admission_ in made.admissions
        for assignment in admission_.assignments
    }
    assert {a.uid: a.node for a in actions if isinstance(a, Admit)} == planned
    engine.check_invariants()
    assert engine.commit(made, 2.0) == ()
