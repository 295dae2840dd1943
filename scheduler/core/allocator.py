"""Best joint answer for a batch: problem -> greedy -> verified plan.

``allocate(problem, budget)`` is pure: the problem is frozen and self-contained, so it
can be shipped to another process, and the plan names nodes and pods, so that
``Engine.commit`` can drop whatever went stale meanwhile.

``verify`` states in plain Python what a legal plan is. Every plan passes it before it
leaves this module, in production too.
"""

from dataclasses import dataclass
from enum import Enum

from scheduler.core.cluster import Cluster, Mask
from scheduler.core.gpu import Form
from scheduler.core.placement import Member, place_gang
from scheduler.core.quota import QuotaTree
from scheduler.core.workload import GangId, NodeName, PodUid, TenantName


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One waiting gang, as far as the allocator needs to know it.

    Parameters
    ----------
    forms
        Acceptable forms, preferred first.
    covered
        The form in which its guarantee pays for it, None for burst. There it may claim
        room that others keep or borrow.
    """

    gang: GangId
    tenant: TenantName
    forms: tuple[Form, ...]
    members: tuple[Member, ...]
    covered: Form | None = None

    def quanta(self, form: Form) -> int:
        """Quanta the gang is charged on `form`."""
        return sum(demand.charge(form) for _, demand in self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A batch to decide: gangs in decision order, and the state they meet.

    `cluster` and `tree` are the problem's own: ``allocate`` leaves both as they were.
    `version` is the engine's state version the problem was taken at.
    """

    version: int
    now: float
    asks: tuple[Ask, ...]
    cluster: Cluster
    tree: QuotaTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much work a solve may spend.

    Parameters
    ----------
    wall_s
        Wall-clock seconds (live); None where answers must repeat.
    deterministic
        Deterministic work units (simulator); None for no bound.
    seed
        Seed of the search.
    """

    wall_s: float | None = None
    deterministic: float | None = None
    seed: int = 0


class Status(Enum):
    """How good a plan is known to be."""

    GREEDY = "greedy"
    FEASIBLE = "feasible"
    OPTIMAL = "optimal"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One pod's planned node. Which of its GPUs a fraction shares is chosen there."""

    uid: PodUid
    node: NodeName


@dataclass(frozen=True, slots=True)
class Admission:
    """One gang's planned start on one form."""

    gang: GangId
    form: Form
    assignments: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which gangs start where: `objective` quanta served, at most `bound` possible."""

    version: int
    admissions: tuple[Admission, ...]
    status: Status
    objective: int
    bound: int


def allocate(problem: Problem, budget: Budget | None = None) -> Plan:
    """Decide the batch; every answer has passed ``verify``.

    The greedy needs no budget; the parameter is the contract's.
    """
    del budget  # spent by the solver stage only; greedy always runs to its end
    plan = greedy(problem)
    faults = verify(problem, plan)
    if faults:
        raise AssertionError("the plan is not legal: " + "; ".join(faults))
    return plan


def greedy(problem: Problem) -> Plan:
    """Admit gangs in their order, each where it fits best, each whole.

    Gangs of the same tenant and shape fail alike: the second one is not tried.
    """
    admissions: list[Admission] = []
    served = 0
    failed: set[tuple[object, ...]] = set()
    charged: list[tuple[TenantName, Form, int]] = []
    with problem.cluster.trial():
        for ask in problem.asks:
            shape = _shape(ask)
            if shape in failed:
                continue
            admission = place_ask(problem.cluster, problem.tree, ask)
            if admission is None:
                failed.add(shape)
                continue
            quanta = ask.quanta(admission.form)
            problem.tree.charge(ask.tenant, admission.form, quanta)
            charged.append((ask.tenant, admission.form, quanta))
            admissions.append(admission)
            served += quanta
    for tenant, form, quanta in charged:
        problem.tree.release(tenant, form, quanta)
    asked = sum(_most(ask) for ask in problem.asks)
    return Plan(
        version=problem.version,
        admissions=tuple(admissions),
        status=Status.GREEDY,
        objective=served,
        bound=asked,
    )


def may_charge(tree: QuotaTree, ask: Ask, form: Form) -> bool:
    """Whether limits and lending limits let the gang hold `form` now."""
    quanta = ask.quanta(form)
    if quanta > tree.room(ask.tenant, form):
        return False
    return form == ask.covered or quanta <= tree.available(ask.tenant, form)


def place_ask(
    cluster: Cluster,
    tree: QuotaTree,
    ask: Ask,
    allowed: dict[PodUid, Mask] | None = None,
) -> Admission | None:
    """Place the gang on the first acceptable form that has quota and room.

    A success stays placed in `cluster`; the caller's trial undoes it.
    """
    for form in ask.forms:
        if not may_charge(tree, ask, form):
            continue
        placed = place_gang(cluster, ask.members, form, allowed)
        if placed is not None:
            return Admission(
                ask.gang,
                form,
                tuple(Assignment(p.uid, cluster.names[p.column]) for p in placed),
            )
    return None


def _shape(ask: Ask) -> tuple[object, ...]:
    return (ask.tenant, ask.forms, ask.covered, tuple(d for _, d in ask.members))


def _most(ask: Ask) -> int:
    return max((ask.quanta(form) for form in ask.forms), default=0)


# -- what a legal plan is -----------------------------------------------------


def verify(problem: Problem, plan: Plan) -> list[str]:
    """Return what is wrong with the plan; empty when it is legal.

    Whole gangs, each once; acceptable forms; ready nodes that exist; nothing placed
    beyond what is free; nothing charged beyond a ceiling; nothing taken that others
    keep, except by covered demand. And it is worth what it claims.
    """
    faults: list[str] = []
    asks = {ask.gang: ask for ask in problem.asks}
    seen: set[GangId] = set()
    charged: list[tuple[TenantName, Form, int]] = []
    with problem.cluster.trial():
        for admission in plan.admissions:
            ask = asks.get(admission.gang)
            if ask is None or admission.gang in seen:
                faults.append(f"gang {admission.gang}: not asked, or admitted twice")
                continue
            seen.add(admission.gang)
            faults.extend(_check_shape(ask, admission))
            faults.extend(_check_quota(problem.tree, ask, admission.form))
            faults.extend(_check_room(problem.cluster, ask, admission))
            quanta = ask.quanta(admission.form)
            problem.tree.charge(ask.tenant, admission.form, quanta)
            charged.append((ask.tenant, admission.form, quanta))
    for tenant, form, quanta in charged:
        problem.tree.release(tenant, form, quanta)
    served = sum(quanta for _, _, quanta in charged)
    if plan.objective != served or plan.bound < served:
        told = f"{plan.objective} of at most {plan.bound}"
        faults.append(f"it serves {served} quanta and claims {told}")
    return faults


def _check_shape(ask: Ask, admission: Admission) -> list[str]:
    faults: list[str] = []
    if admission.form not in ask.forms:
        faults.append(f"gang {ask.gang}: {admission.form} is not acceptable")
    planned = sorted(assignment.uid for assignment in admission.assignments)
    if planned != sorted(uid for uid, _ in ask.members):
        faults.append(f"gang {ask.gang}: not every member is placed exactly once")
    return faults


def _check_quota(tree: QuotaTree, ask: Ask, form: Form) -> list[str]:
    if may_charge(tree, ask, form):
        return []
    return [f"gang {ask.gang}: {ask.quanta(form)} quanta of {form} exceed its quota"]


def _check_room(cluster: Cluster, ask: Ask, admission: Admission) -> list[str]:
    faults: list[str] = []
    demands = dict(ask.members)
    for assignment in admission.assignments:
        demand = demands.get(assignment.uid)
        column = cluster.index.get(assignment.node)
        if demand is None or column is None or assignment.uid in cluster.placed:
            faults.append(f"pod {assignment.uid}: unknown, or its node is")
            continue
        if not cluster.fits(demand, admission.form)[column]:
            faults.append(f"pod {assignment.uid}: no room on {assignment.node}")
            continue
        cluster.place(assignment.uid, column, admission.form, demand)
    return faults
