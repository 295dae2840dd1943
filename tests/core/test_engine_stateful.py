"""Whatever happens, the promises hold: random histories, checked after every event."""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from scheduler.core import (
    Action,
    Admit,
    CheckpointDone,
    CheckpointRequest,
    Engine,
    Evict,
    Fleet,
    Form,
    GangId,
    Group,
    NodeDown,
    NodeName,
    NodeUp,
    Pod,
    PodBound,
    PodGone,
    PodStopping,
    PodSubmitted,
    PodUid,
    Policy,
    PreemptWithin,
    TenantName,
    TenantsChanged,
    Withdraw,
    allocate,
    place_gang,
)
from scheduler.core.engine.gangs import Gang
from scheduler.core.engine.gangs import Phase as GangPhase
from scheduler.core.engine.state import State
from scheduler.core.fairness import Guarantee, covered_forms, granted
from tests import builders

pytestmark = pytest.mark.long

A, B = "h100-80gb", "a100-80gb"
SLICE = f"{A}/1g.10gb"
NODES = ("n1", "n2", "n3")
OFFERS = st.sampled_from([f"8x{A}", f"4x{A} 7x{SLICE}", f"8x{B}", f"2x{B}"])
TENANTS = ("a", "b", "c")
KINDS = st.sampled_from(["inference-critical", "inference", "training", "batch"])
FORMS = st.sampled_from([A, B, SLICE])


ANY = Group(name=Form("any"), members=(Form(A), Form(B)))


def amounts(most: int) -> st.SearchStrategy[str]:
    """Device counts per form, as the builders read them."""
    pairs = st.dictionaries(FORMS, st.integers(0, most), max_size=2)
    return pairs.map(lambda d: " ".join(f"{n}x{f}" for f, n in sorted(d.items())))


FLEETS = st.builds(
    Fleet,
    groups=st.sampled_from([(), (ANY,)]),
    burst_ceiling=st.sampled_from([(), ((Form(A), 6),)]),
    half_life_s=st.sampled_from([0.0, 0.0, 300.0]),
)
PREEMPT = st.sampled_from([rule.value for rule in PreemptWithin])


@st.composite
def tenant_trees(draw: st.DrawFn) -> TenantsChanged:
    """Three tenants, flat or two of them below a department, and what holds for all."""
    fleet, nested = draw(FLEETS), draw(st.booleans())
    leaves = []
    for order, name in enumerate(TENANTS):
        grouped = draw(st.integers(0, 4)) if fleet.groups else 0
        leaf = builders.tenant(
            name,
            f"{draw(amounts(6))} {grouped}x{ANY.name}",
            borrowing=draw(amounts(4)),
            lending=draw(amounts(4)),
            limit=draw(amounts(9)),
            parent="dept" if nested and name != "c" else None,
            weight=draw(st.sampled_from([0, 1, 1, 2])),
            priority=draw(st.sampled_from([0, 0, 1])),
            order=order,
            burst=draw(st.sampled_from([None, None, 0.5])),
            inference_burst=draw(amounts(3)),
            critical=draw(amounts(6)),
            preempt=draw(PREEMPT),
        )
        leaves.append(leaf)
    if not nested:
        return TenantsChanged(tuple(leaves), fleet)
    owned: dict[str, int] = {}
    for leaf in leaves[:2]:
        for form, count in leaf.guarantee:
            owned[form] = owned.get(form, 0) + count
    text = " ".join(f"{count}x{form}" for form, count in sorted(owned.items()))
    return TenantsChanged((builders.tenant("dept", text), *leaves), fleet)


class Histories(RuleBasedStateMachine):
    """Drives one engine as kube-scheduler, kubelets and owners would."""

    pods = Bundle("pods")

    @initialize(tree=tenant_trees(), offers=st.tuples(OFFERS, OFFERS, OFFERS))
    def begin(self, tree: TenantsChanged, offers: tuple[str, str, str]) -> None:
        self.engine = Engine(self.policy())
        self.now = 0.0
        self.count = 0
        self.live: dict[str, Pod] = {}
        self.doomed: set[str] = set()
        self.up = set(NODES)
        self.tree = tree
        for name, offer in zip(NODES, offers, strict=True):
            self.engine.observe(NodeUp(builders.node(name, offer)), self.now)
        self.engine.observe(tree, self.now)

    def policy(self) -> Policy:
        return Policy(inline=False, min_runtime_s=100.0)

    def cycle(self, bind: bool = True) -> tuple[Action, ...]:
        actions = self.engine.cycle(self.now)
        self.check_actions(actions)
        for action in actions:
            if isinstance(action, Admit) and bind and action.node in self.up:
                self.engine.observe(PodBound(action.uid, action.node), self.now)
            elif isinstance(action, Evict):
                self.doomed.add(action.uid)
        return actions

    def check_actions(self, actions: tuple[Action, ...]) -> None:
        """GANG and PROTECTED, judged from what the engine wishes."""
        admitted: dict[int, set[PodUid]] = {}
        for action in actions:
            if isinstance(action, Admit):
                admitted.setdefault(action.decision, set()).add(action.uid)
            elif isinstance(action, CheckpointRequest | Evict | Withdraw):
                assert action.uid in self.live, "a wish about a pod that is gone"
        for uids in admitted.values():
            pods = [self.live[uid] for uid in uids]
            least = max(pod.min_member for pod in pods)
            assert len(pods) >= least or len(pods) == 1, "GANG: started in part"

    # -- rules -----------------------------------------------------------------------

    @rule(
        target=pods,
        owner=st.sampled_from(TENANTS),
        kind=KINDS,
        gpus=st.integers(1, 6),
        members=st.integers(1, 3),
        size=st.sampled_from(["whole", "slice", "half", "any"]),
        interval=st.sampled_from([None, 60.0]),
        on_request=st.booleans(),
        priority=st.integers(0, 1),
    )
    def submit(
        self,
        owner: str,
        kind: str,
        gpus: int,
        members: int,
        size: str,
        interval: float | None,
        on_request: bool,
        priority: int,
    ) -> object:
        self.count += 1
        names = [f"p{self.count}-{i}" for i in range(members)]
        gang = f"g{self.count}" if members > 1 else ""
        for name in names:
            pod = builders.pod(
                name,
                owner,
                1 if size == "half" else gpus,
                kind=kind,
                classes=() if size == "any" else (A, B) if gpus > 3 else (A,),
                profile="1g.10gb" if size == "slice" else "",
                fraction=63_000 if size == "half" else None,
                gang=gang,
                min_member=members,
                interval=interval,
                on_request=on_request,
                priority=priority,
            )
            self.live[name] = pod
            self.engine.observe(PodSubmitted(pod), self.now)
        self.cycle()
        return multiple(*names)

    @rule(name=consumes(pods))
    def finish(self, name: str) -> None:
        self.live.pop(name, None)
        self.doomed.discard(name)
        self.engine.observe(PodGone(PodUid(name)), self.now)
        self.cycle()

    @rule(name=pods)
    def checkpoint(self, name: str) -> None:
        self.engine.observe(CheckpointDone(PodUid(name)), self.now)
        self.cycle()

    @rule(name=pods, seconds=st.sampled_from([0.0, 30.0, 500.0]))
    def delete(self, name: str, seconds: float) -> None:
        """Its owner tells it to stop: it goes with the victims."""
        if name in self.live:
            self.doomed.add(name)
        self.engine.observe(PodStopping(PodUid(name), self.now + seconds), self.now)
        self.cycle()

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0, 400.0]), bind=st.booleans())
    def wait(self, seconds: float, bind: bool) -> None:
        self.now += seconds
        self.cycle(bind)

    @precondition(lambda self: self.doomed)
    @rule()
    def victims_leave(self) -> None:
        for name in sorted(self.doomed):
            self.live.pop(name, None)
            self.engine.observe(PodGone(PodUid(name)), self.now)
        self.doomed.clear()
        self.cycle()

    @rule(name=st.sampled_from(NODES), offer=OFFERS, ready=st.booleans())
    def change_node(self, name: str, offer: str, ready: bool) -> None:
        self.engine.observe(NodeUp(builders.node(name, offer, ready=ready)), self.now)
        self.up.add(name)
        self.cycle()

    @precondition(lambda self: self.up)
    @rule(which=st.integers(0, 2))
    def lose_node(self, which: int) -> None:
        name = sorted(self.up)[which % len(self.up)]
        self.up.discard(name)
        self.engine.observe(NodeDown(NodeName(name)), self.now)
        self.cycle()

    @rule(tree=tenant_trees())
    def change_tenants(self, tree: TenantsChanged) -> None:
        self.engine.observe(tree, self.now)
        self.tree = tree
        self.cycle()

    @rule(gone=st.sampled_from(TENANTS))
    def forget_tenant(self, gone: str) -> None:
        """A tenant is deleted while its pods run: nothing is lost."""
        rest = tuple(q for q in self.tree.queues if q.name != gone)
        self.engine.observe(TenantsChanged(rest, self.tree.fleet), self.now)
        self.cycle()

    @rule(name=pods)
    def ask_again(self, name: str) -> None:
        """A question changes nothing that a second question would see."""
        pod = self.live.get(name)
        if pod is None:
            return
        nodes = [NodeName(node) for node in sorted(self.up)]
        first = self.engine.filter(pod, nodes, self.now)
        assert self.engine.filter(pod, nodes, self.now) == first
        scores = self.engine.score(pod, nodes, self.now)
        assert all(0 <= score <= 10 for score in scores)

    @rule()
    def everything_settles(self) -> None:
        """GUARANTEE: with victims that leave, no placeable covered gang waits on."""
        for _ in range(40):
            version = self.engine.version
            self.cycle()
            if self.doomed:
                self.victims_leave()
            elif version == self.engine.version and self.now % 7 == 0:
                break
            self.now = self.now // 7 * 7 + 126  # beyond notice and minimum runtime
        state = self.engine._state
        if all(queue.parent is None for queue in state.tree.queues.values()):
            cover = {tenant: cover_of(state, tenant) for tenant in state.tree.queues}
            for gang in list(state.gangs.waiting.values()):
                form = cover.get(gang.tenant, {}).get(gang.id)
                if form is not None and not gang.dormant:
                    assert not placeable(state, gang, form, cover), (
                        f"GUARANTEE: {gang.id}"
                    )

    # -- promises ----------------------------------------------------------------------

    @invariant()
    def promises_hold(self) -> None:
        if not hasattr(self, "engine"):
            return
        self.engine.check_invariants()
        for name in self.live:
            answer = self.engine.explain(PodUid(name), self.now)
            assert answer is not None, f"EXPLAINED: {name} is unknown"
        rounds = sum(bool(self.cycle()) for _ in range(len(self.live) + 2))
        assert rounds < len(self.live) + 2, "STABLE: no fixed point"
        assert self.engine.cycle(self.now) == (), "STABLE: wishes without a cause"
        plan = allocate(self.engine.problem(self.now))
        assert plan.admissions == (), "WORK CONSERVING: there was room"


def cover_of(state: State, tenant: TenantName) -> dict[GangId, Form]:
    """The cover by the letter of the design: nobody who could run is left out."""
    standings = list(state.gangs.seated(tenant))
    eligible = filter(state.is_eligible, state.gangs.waiting_of(tenant))
    standings.extend(g.waiting(state.possible_forms(g)) for g in eligible)
    tree, pools = state.tree, state.tree.pools
    seen = granted(standings, tree.critical(tenant), pools)
    bounds = tree.group_bounds(tenant)
    return covered_forms(seen, Guarantee(tree.guarantees(tenant), pools, bounds))


def placeable(
    state: State, gang: Gang, form: Form, cover: dict[TenantName, dict[GangId, Form]]
) -> bool:
    """Whether the gang would fit with every other tenant's burst removed."""
    if gang.quanta(form) > state.tree.room(gang.tenant, form):
        return False
    with state.cluster.trial():
        for other in list(state.gangs.by_phase[GangPhase.RUNNING].values()):
            if other.tenant != gang.tenant and other.id not in cover[other.tenant]:
                for uid in other.pods:
                    state.cluster.remove(uid)
        return place_gang(state.cluster, gang.members, form) is not None


class InlineHistories(Histories):
    """The same with decisions taken in Filter."""

    def policy(self) -> Policy:
        return Policy(inline=True, min_runtime_s=100.0)


# The gate plays the same histories each time; `make test-long` draws new ones.
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
BUDGET = settings(
    max_examples=3000 if LONG else 800,
    derandomize=not LONG,
    stateful_step_count=20,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


TestHistories = Histories.TestCase
TestHistories.settings = BUDGET
TestInlineHistories = InlineHistories.TestCase
TestInlineHistories.settings = BUDGET
