"""The columns against a model that counts everything anew, and trials that undo."""

import contextlib
import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.cluster import UNTRACKED, Cluster, Node
from scheduler.core.gpu import QUANTA_PER_GPU, Form, charge
from scheduler.core.workload import Demand, NodeName, PodUid
from tests import builders
from tests.strategies import (
    FORMS,
    MANY,
    OTHER,
    SLICE,
    WHOLE,
    demands,
    everything,
    nodes,
)

NAMES = ("n0", "n1", "n2")
HALF = QUANTA_PER_GPU // 2
ONE = Demand(count=1)


def uid(text: object) -> PodUid:
    return PodUid(str(text))


def cluster_of(*offered: Node) -> Cluster:
    cluster = Cluster()
    for node in offered:
        cluster.set_node(node)
    return cluster


@dataclass
class Model:
    """What is offered and placed, in plain dictionaries."""

    nodes: dict[str, Node] = field(default_factory=dict)
    pods: dict[str, tuple[str, Form, Demand, int]] = field(default_factory=dict)

    def here(self, name: str, form: Form) -> list[tuple[Demand, int]]:
        return [
            (demand, slot)
            for node, what, demand, slot in self.pods.values()
            if (node, what) == (name, form)
        ]

    def slots(self, name: str, form: Form) -> dict[int, int]:
        left: dict[int, int] = {}
        for demand, slot in self.here(name, form):
            if demand.is_fraction:
                left[slot] = left.get(slot, QUANTA_PER_GPU) - demand.fraction
        return left

    def free(self, name: str, form: Form) -> int:
        offers = dict(self.nodes[name].offers) if name in self.nodes else {}
        whole = sum(d.count for d, _ in self.here(name, form) if not d.is_fraction)
        return offers.get(form, 0) - whole - len(self.slots(name, form))

    def spare(self, name: str, what: str) -> int:
        node = self.nodes.get(name)
        total: int = (getattr(node, what) if node else 0) or UNTRACKED
        here = (demand for node, _, demand, _ in self.pods.values() if node == name)
        used: int = sum(getattr(demand, what) for demand in here)
        return total - used

    def fits(self, name: str, form: Form, demand: Demand) -> bool:
        node = self.nodes.get(name)
        free = self.free(name, form)
        shared = (
            demand.is_fraction
            and free >= 0
            and any(n >= demand.fraction for n in self.slots(name, form).values())
        )
        return (
            node is not None
            and node.ready
            and (free >= demand.count or shared)
            and (
                not demand.cpu_milli
                or demand.cpu_milli <= self.spare(name, "cpu_milli")
            )
            and (
                not demand.memory_mib
                or demand.memory_mib <= self.spare(name, "memory_mib")
            )
        )


class Pair:
    """One cluster and its model, told the same."""

    def __init__(self, *, holds: bool = True) -> None:
        self.cluster = Cluster()
        self.model = Model()
        self.count = 0
        self.holds = holds

    def step(self, data: st.DataObject) -> None:
        """Let a node or a pod do something."""
        steps = [self.offer, self.move, self.move, self.move]
        if self.model.nodes:
            steps.append(self.lose)
        data.draw(st.sampled_from(steps))(data)

    def move(self, data: st.DataObject) -> None:
        """Place a pod, or remove one."""
        steps = [self.place] * bool(self.model.nodes) + [self.remove] * bool(
            self.model.pods
        )
        if steps:
            data.draw(st.sampled_from(steps))(data)

    def offer(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(NAMES).flatmap(nodes))
        self.cluster.set_node(node)
        self.model.nodes[node.name] = node

    def lose(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.nodes)))
        self.cluster.drop_node(NodeName(name))
        del self.model.nodes[name]

    def place(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.nodes)))
        form = data.draw(st.sampled_from((WHOLE, WHOLE, WHOLE, SLICE, OTHER)))
        demand = data.draw(demands())
        column = self.cluster.index[NodeName(name)]
        held = self.holds and data.draw(st.integers(0, 3)) == 0
        if held or self.cluster.fits(demand, form)[column]:
            self.count += 1
            placed = self.cluster.place(uid(self.count), column, form, demand)
            assert placed.slot not in self.taken_elsewhere(name, form, placed.slot)
            self.model.pods[placed.uid] = (name, form, demand, placed.slot)

    def taken_elsewhere(self, name: str, form: Form, slot: int) -> set[int]:
        """Slots of other nodes and forms: a slot is one GPU of one node."""
        if slot < 0:
            return set()
        return {
            taken
            for node, what, _, taken in self.model.pods.values()
            if (node, what) != (name, form)
        }

    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.pods)))
        self.cluster.remove(uid(name))
        del self.model.pods[name]

    def agree(self) -> None:
        cluster, model = self.cluster, self.model
        assert set(cluster.placed) == set(model.pods)
        for name, column in cluster.index.items():
            for form, row in cluster.rows.items():
                slots = model.slots(name, form)
                assert cluster.free[row, column] == model.free(name, form)
                assert cluster.open[row, column] == max(slots.values(), default=0)
            assert cluster.cpu[column] == model.spare(name, "cpu_milli")
            assert cluster.memory[column] == model.spare(name, "memory_mib")
            assert cluster.node(name) == model.nodes.get(name)


# -- histories ----------------------------------------------------------------


@MANY
@given(st.data(), st.integers(4, 16))
def test_columns_equal_the_model_after_any_history(
    data: st.DataObject, length: int
) -> None:
    """Nodes grow, shrink, leave and return while pods come and go."""
    pair = Pair()
    for _ in range(length):
        pair.step(data)
        pair.agree()


@MANY
@given(st.data(), st.integers(4, 16))
def test_fits_tells_exactly_where_there_is_room(
    data: st.DataObject, length: int
) -> None:
    """One vector expression must mean the same as four plain conditions."""
    pair = Pair()
    for _ in range(length):
        pair.step(data)
    demand = data.draw(demands())
    for form in FORMS:
        mask = pair.cluster.fits(demand, form)
        found = {pair.cluster.names[i] for i in np.flatnonzero(mask)}
        assert found == {n for n in NAMES if pair.model.fits(n, form, demand)}


@MANY
@given(st.data(), st.integers(3, 10))
def test_nested_trials_leave_no_trace(data: st.DataObject, length: int) -> None:
    """What-if is change, look, undo: the smallest leak would become a decision."""
    pair = Pair()
    for _ in range(length):
        pair.step(data)

    def wander(depth: int) -> None:
        before, pods = everything(pair.cluster), dict(pair.model.pods)
        with pair.cluster.trial():
            for _ in range(data.draw(st.integers(0, 3))):
                pair.move(data)
                pair.agree()
                if depth < 2 and data.draw(st.booleans()):
                    wander(depth + 1)
        pair.model.pods = pods
        pair.agree()
        assert everything(pair.cluster) == before

    for form in FORMS:  # a form that is new to the cluster adds a row for good
        pair.cluster._row(form)
    wander(0)


def test_trial_is_undone_when_it_fails() -> None:
    """An exception inside must not leave half a what-if behind."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    before = everything(cluster)
    with contextlib.suppress(KeyError), cluster.trial():
        cluster.place(uid("a"), 0, WHOLE, Demand(count=3))
        cluster.remove(uid("nobody"))
    assert everything(cluster) == before


def test_what_is_placed_after_a_trial_stays() -> None:
    """Leaving a trial ends its log: later changes are real."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    with cluster.trial():
        cluster.place(uid("a"), 0, WHOLE, ONE)
    cluster.place(uid("b"), 0, WHOLE, ONE)
    with cluster.trial():
        cluster.remove(uid("b"))
    assert set(cluster.placed) == {"b"}
    assert cluster.free[0, 0] == 3


@pytest.mark.parametrize(
    ("large", "small"),
    [
        (Demand(count=1, cpu_milli=5), Demand(count=1, cpu_milli=3)),
        (Demand(count=1, memory_mib=5), Demand(count=1, memory_mib=3)),
    ],
)
def test_cpu_and_memory_bind_like_gpus(large: Demand, small: Demand) -> None:
    """Free GPUs are of no use to a pod whose node has run out of the rest."""
    cluster = cluster_of(builders.node("n1", cpu=8, memory=8), builders.node("n2"))
    cluster.place(uid("a"), 0, WHOLE, large)
    assert cluster.fits(large, WHOLE).tolist() == [False, True]
    assert cluster.fits(small, WHOLE).tolist() == [True, True]
    assert cluster.fits(ONE, WHOLE).tolist() == [True, True]


# -- shared GPUs --------------------------------------------------------------


def test_fractions_fill_the_tightest_gpu_first() -> None:
    """Best fit inside a node: whole GPUs stay whole as long as they can."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    third, sixth = QUANTA_PER_GPU // 3, QUANTA_PER_GPU // 6

    def share(name: str, fraction: int) -> int:
        demand = Demand(count=1, fraction=fraction)
        return cluster.place(uid(name), 0, WHOLE, demand).slot

    first = share("a", HALF)
    second = share("b", 2 * third)
    assert first != second
    assert share("c", sixth) == second  # leaves a third there, a half on the other
    assert share("d", HALF) == first
    assert cluster.free[0, 0] == 2


def test_a_slot_given_by_name_is_never_given_again() -> None:
    """A hold names the GPU its victims share; the next newcomer needs another one."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    half = Demand(count=1, fraction=HALF)
    most = Demand(count=1, fraction=QUANTA_PER_GPU - 1)
    cluster.place(uid("a"), 0, WHOLE, half, slot=1)
    assert cluster.place(uid("b"), 0, WHOLE, most).slot != 1
    cluster.check(set())


def test_fractions_do_not_join_where_a_hold_counts_on_whole_gpus() -> None:
    """Its victims have yet to free them: no slot there can be told from a free one."""
    cluster = cluster_of(builders.node("n1", "2xh100-80gb"))
    half = Demand(count=1, fraction=HALF)
    cluster.place(uid("a"), 0, WHOLE, half)
    assert cluster.fits(half, WHOLE)[0]
    cluster.place(uid("holder"), 0, WHOLE, Demand(count=2))
    assert not cluster.fits(half, WHOLE)[0]


def test_copy_has_slots_of_its_own() -> None:
    """Sharing a GPU in a plan must not share it in the live cluster."""
    cluster = cluster_of(builders.node("n1", "2xh100-80gb"))
    half = Demand(count=1, fraction=HALF)
    most = Demand(count=1, fraction=QUANTA_PER_GPU - 1)
    slot = cluster.place(uid("a"), 0, WHOLE, half).slot
    before = everything(cluster)
    copy = cluster.room()
    assert copy.place(uid("b"), 0, WHOLE, most).slot != slot
    assert copy.place(uid("c"), 0, WHOLE, half).slot == slot
    assert everything(cluster) == before


def test_smallest_fraction_keeps_its_gpu_shared() -> None:
    """One quantum is use: the GPU is not whole while it is there."""
    cluster = cluster_of(builders.node("n1", "1xh100-80gb"))
    cluster.place(uid("a"), 0, WHOLE, Demand(count=1, fraction=1))
    cluster.place(uid("b"), 0, WHOLE, Demand(count=1, fraction=HALF))
    cluster.remove(uid("b"))
    assert not cluster.fits(ONE, WHOLE)[0]


def test_gpu_is_whole_again_when_its_last_fraction_leaves() -> None:
    """CONSERVATION of the slot itself."""
    cluster = cluster_of(builders.node("n1", "1xh100-80gb"))
    half = Demand(count=1, fraction=HALF)
    cluster.place(uid("a"), 0, WHOLE, half)
    cluster.place(uid("b"), 0, WHOLE, half)
    assert not cluster.fits(half, WHOLE)[0]
    cluster.remove(uid("a"))
    assert cluster.fits(half, WHOLE)[0]
    assert not cluster.fits(ONE, WHOLE)[0]
    cluster.remove(uid("b"))
    assert cluster.fits(ONE, WHOLE)[0]


# -- nodes --------------------------------------------------------------------


def test_dropped_node_takes_nothing_and_comes_back_with_its_pods() -> None:
    """Pods are reported gone one by one; a node that only blinked keeps them."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb", cpu=8))
    cluster.place(uid("a"), 0, WHOLE, Demand(count=3, cpu_milli=2))
    cluster.drop_node(NodeName("n1"))
    assert cluster.capacity() == {}
    assert cluster.forms() == []
    assert not cluster.fits(ONE, WHOLE)[0]
    cluster.set_node(builders.node("n1", "4xh100-80gb", cpu=8))
    assert cluster.free[0, 0] == 1
    assert cluster.cpu[0] == 6


def test_many_nodes_and_forms_keep_their_columns() -> None:
    """The arrays grow by copying: nothing may shift while they do."""
    cluster = Cluster()
    forms = [f"h100-80gb/shared-{n}" for n in (2, 3, 4, 5, 6)]
    for number in range(70):
        form = forms[number % len(forms)]
        cluster.set_node(builders.node(f"n{number}", f"{number}x{form}"))
        cluster.place(uid(number), number, Form(form), ONE)
    for number in range(70):
        row = cluster.rows[Form(forms[number % len(forms)])]
        assert cluster.free[row, number] == number - 1
        assert cluster.total[:, number].sum() == number


def test_holds_hears_of_nodes_that_join_and_leave() -> None:
    """What is remembered per demand must be forgotten with the nodes it counted."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    assert cluster.holds(ONE, WHOLE) == 4
    cluster.set_node(builders.node("n2", "2xh100-80gb"))
    assert cluster.holds(ONE, WHOLE) == 6
    cluster.drop_node(NodeName("n1"))
    assert cluster.holds(ONE, WHOLE) == 2


def test_capacity_counts_cordoned_nodes_too() -> None:
    """Guarantees are not scaled because somebody drains a node."""
    cluster = cluster_of(
        builders.node("n1", "2xh100-80gb 8xh100-80gb/1g.10gb"),
        builders.node("n2", "1xh100-80gb", ready=False),
    )
    assert cluster.capacity() == {WHOLE: 3 * QUANTA_PER_GPU, SLICE: QUANTA_PER_GPU}
    assert cluster.forms() == sorted([WHOLE, SLICE])


@MANY
@given(
    st.lists(st.integers(0, 3).flatmap(lambda i: nodes(f"n{i}")), max_size=5), demands()
)
def test_holds_counts_pods_of_the_empty_cluster(
    offered: list[Node], demand: Demand
) -> None:
    """Filling the emptied cluster one by one gives the same number."""
    cluster = cluster_of(*offered)
    for form in FORMS:
        model = Model({node.name: _ready(node) for node in offered})
        for name, column in cluster.index.items():
            while model.fits(name, form, demand):
                placed = cluster.place(uid(len(model.pods)), column, form, demand)
                model.pods[placed.uid] = (name, form, demand, placed.slot)
        for pod in list(cluster.placed):
            cluster.remove(pod)
        assert cluster.holds(demand, form) == len(model.pods)


def _ready(node: Node) -> Node:
    return Node(
        name=node.name,
        offers=node.offers,
        gpus=node.gpus,
        cpu_milli=node.cpu_milli,
        memory_mib=node.memory_mib,
    )


@pytest.mark.parametrize(
    ("offers", "gpus", "expected"),
    [
        ("7xh100-80gb/1g.10gb", 1, charge(SLICE)),  # seven 1g leave an eighth
        ("2xh100-80gb/3g.40gb", 1, 0),  # two halves leave nothing
        ("1xh100-80gb/3g.40gb", 1, HALF),
        ("6xh100-80gb 14xh100-80gb/1g.10gb", 8, 2 * charge(SLICE)),
        ("8xh100-80gb", 8, 0),  # nothing is cut
        ("7xh100-80gb", 8, 0),  # a broken GPU is not stranded by a layout
        ("4xh100-80gb/shared-4", 1, 0),
        ("4xh100-80gb/shared-4 7xh100-80gb/1g.10gb", 2, charge(SLICE)),
    ],
)
def test_stranded_is_what_no_slice_uses(offers: str, gpus: int, expected: int) -> None:
    """It is booked to the fleet, so it must be neither lost nor counted twice."""
    node = builders.node("n1", offers, gpus=gpus)
    assert node.stranded == expected
    assert cluster_of(node, builders.node("n2")).stranded() == expected


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"offers": ((WHOLE, -1),)}, "node 'n1': h100-80gb is negative: -1"),
        ({"gpus": -1}, "node 'n1': an amount is negative"),
        ({"cpu_milli": -1}, "node 'n1': an amount is negative"),
        ({"memory_mib": -1}, "node 'n1': an amount is negative"),
        (
            {"offers": ((Form("H100"), 1),)},
            "node 'n1': 'H100': 'H100' is no GPU class (lower case, a-z 0-9 . -)",
        ),
    ],
)
def test_broken_node_is_refused(fields: dict[str, object], text: str) -> None:
    """A form that cannot be charged would fail later, with half a node let in."""
    whole: dict[str, object] = {"name": NodeName("n1"), "offers": (), "gpus": 0}
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the text is compared
        Node(**(whole | fields))  # type: ignore[arg-type]
    assert str(refused.value) == text


# -- copies -------------------------------------------------------------------


@MANY
@given(st.data(), st.integers(3, 10))
def test_room_is_a_copy_that_answers_the_same(data: st.DataObject, length: int) -> None:
    """A solver in another process plans on it; the live cluster must not notice."""
    pair = Pair()
    for _ in range(length):
        pair.step(data)
    before = everything(pair.cluster)
    copy = pickle.loads(pickle.dumps(pair.cluster.room()))  # noqa: S301 -- our own
    assert copy.placed == {}
    demand = data.draw(demands())
    for form in FORMS:
        assert np.array_equal(copy.fits(demand, form), pair.cluster.fits(demand, form))
    assert copy.capacity() == pair.cluster.capacity()
    for column in range(len(copy.names)):
        copy.place(uid(f"new{column}"), column, WHOLE, demand)
    assert everything(pair.cluster) == before


# -- proof --------------------------------------------------------------------


def test_over_commitment_is_caught() -> None:
    """CONSERVATION is only worth what its check notices."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    cluster.place(uid("a"), 0, WHOLE, Demand(count=3))
    cluster.place(uid("b"), 0, WHOLE, Demand(count=2))
    with pytest.raises(AssertionError, match="CONSERVATION: n1 holds more than it has"):
        cluster.check(set())


@pytest.mark.parametrize(
    "demand", [Demand(count=1, cpu_milli=5), Demand(count=1, memory_mib=5)]
)
def test_over_commitment_of_cpu_and_memory_is_caught(demand: Demand) -> None:
    """GPUs are not all that a node runs out of."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb", cpu=4, memory=4))
    cluster.place(uid("a"), 0, WHOLE, demand)
    with pytest.raises(AssertionError, match="CONSERVATION: n1 holds more than it has"):
        cluster.check(set())


def test_over_filled_shared_gpu_is_caught() -> None:
    """Two pods of two thirds do not share one GPU, however many GPUs are free."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    part = Demand(count=1, fraction=QUANTA_PER_GPU * 2 // 3)
    slot = cluster.place(uid("a"), 0, WHOLE, part).slot
    cluster.place(uid("b"), 0, WHOLE, part, slot)
    with pytest.raises(AssertionError, match="CONSERVATION: n1 holds more than it has"):
        cluster.check(set())


def test_held_room_may_be_promised_before_it_is_free() -> None:
    """A hold takes the room of its victims at once, so that nobody else can."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    cluster.place(uid("victim"), 0, WHOLE, Demand(count=4))
    cluster.place(uid("taker"), 0, WHOLE, Demand(count=4))
    cluster.check({uid("taker")})
    cluster.remove(uid("victim"))
    assert not cluster.fits(ONE, WHOLE)[0]
    cluster.check(set())


def test_wrong_books_are_caught() -> None:
    """Devices that vanish from the columns are a leak, not a decision."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    cluster.free[0, 0] += 1
    with pytest.raises(AssertionError, match="CONSERVATION: device books"):
        cluster.check(set())
    cluster.free[0, 0] -= 1
    cluster.cpu[0] -= 1
    with pytest.raises(AssertionError, match="CONSERVATION: cpu books"):
        cluster.check(set())


@pytest.mark.parametrize(
    "smaller",
    [
        builders.node("n1", "2xh100-80gb", cpu=8, memory=8),  # a GPU fell off
        builders.node("n1", "4xh100-80gb", cpu=2, memory=8),
        builders.node("n1", "4xh100-80gb", cpu=8, memory=2),
    ],
)
def test_node_that_shrinks_under_its_pods_is_excused(smaller: Node) -> None:
    """Nobody placed too much there; what runs stays."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb", cpu=8, memory=8))
    cluster.place(uid("a"), 0, WHOLE, Demand(count=4, cpu_milli=4, memory_mib=4))
    cluster.set_node(smaller)
    cluster.check(set())


def test_excuse_ends_when_there_is_room_again() -> None:
    """A node that shrank once must not be free to be over-committed for ever."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    cluster.place(uid("a"), 0, WHOLE, Demand(count=3))
    cluster.set_node(builders.node("n1", "2xh100-80gb"))
    cluster.check(set())
    cluster.remove(uid("a"))
    cluster.place(uid("b"), 0, WHOLE, Demand(count=3))
    with pytest.raises(AssertionError, match="CONSERVATION"):
        cluster.check(set())


def test_excuse_ends_when_the_node_has_grown_back() -> None:
    """The same by way of the node."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    cluster.place(uid("a"), 0, WHOLE, Demand(count=3))
    cluster.drop_node(NodeName("n1"))
    cluster.set_node(builders.node("n1", "4xh100-80gb"))
    cluster.place(uid("b"), 0, WHOLE, Demand(count=3))
    with pytest.raises(AssertionError, match="CONSERVATION"):
        cluster.check(set())


@MANY
@given(st.data(), st.integers(4, 16))
def test_check_accepts_every_honest_history(data: st.DataObject, length: int) -> None:
    """Placing only what fits is never called too much, whatever nodes do."""
    pair = Pair(holds=False)
    for _ in range(length):
        pair.step(data)
        pair.cluster.check(set())


def test_pod_is_placed_at_most_once() -> None:
    """CONSERVATION: the second placement is a mistake of the caller."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    cluster.place(uid("a"), 0, WHOLE, ONE)
    with pytest.raises(ValueError, match="pod 'a' is placed already"):
        cluster.place(uid("a"), 0, WHOLE, ONE)


def test_unknown_form_fits_nowhere() -> None:
    """A form nobody offers has no row, and that is no error."""
    cluster = cluster_of(builders.node("n1", "4xh100-80gb"))
    assert not cluster.fits(ONE, OTHER).any()
    assert cluster.holds(ONE, OTHER) == 0
    assert cluster.node(NodeName("nobody")) is None
