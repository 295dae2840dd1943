"""Nodes are offered less what others use on them, and told when that changes."""

from scheduler.core import NodeChanged, NodeDown, NodeUp, parse_form
from tests.kube.seen import H100, Seen, mark, node, pod

WHOLE = parse_form(H100)


def test_nodes_without_gpus_are_not_offered() -> None:
    seen = Seen().see(node("n1", 0), node("n2", product=""))
    assert seen.hear() == []
    assert list(seen.mirror.nodes.problems()) == ["n2"]


def test_a_node_is_told_when_it_changes_and_not_for_its_heartbeat() -> None:
    """Each change makes the engine compute everything anew."""
    seen = Seen().see(node("n1"))
    assert [type(event) for event in seen.hear()] == [NodeUp]
    assert seen.see(node("n1")).hear() == []
    (changed,) = seen.see(node("n1", ready=False)).hear()
    assert isinstance(changed, NodeChanged)
    assert not changed.node.ready


def test_heartbeats_do_not_cost_the_list_of_products() -> None:
    """It is made by looking at all nodes, and asked for with every gate."""
    seen = Seen().see(node("n1"), node("n2", product="NVIDIA-H100-PCIe"))
    found = seen.mirror.nodes.products(WHOLE)
    assert found == ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe")
    seen.see(node("n1"))
    assert seen.mirror.nodes.products(WHOLE) is found
    seen.lose("uid-n2")
    assert seen.mirror.nodes.products(WHOLE) == ("NVIDIA-H100-80GB-HBM3",)


def test_a_node_that_lost_its_gpus_is_kept_for_the_pods_on_it() -> None:
    seen = Seen().see(node("n1"), pod("p", node="n1", mark=mark()))
    seen.hear()
    (changed,) = seen.see(node("n1", 0)).hear()
    assert changed.node.offers == ()
    assert seen.known()["uid-p"][1] == "n1"


def test_a_node_that_is_gone_goes_after_its_pods() -> None:
    seen = Seen().see(node("n1"), pod("p", node="n1", mark=mark()))
    seen.hear()
    told = seen.lose("uid-n1", "uid-p").hear()
    assert [type(event).__name__ for event in told] == ["PodGone", "NodeDown"]
    assert seen.kept() == {}


def test_a_node_that_came_back_between_two_looks_was_never_gone() -> None:
    seen = Seen().see(node("n1", uid="1"))
    seen.hear()
    assert seen.lose("1").see(node("n1", uid="2")).hear() == []
    (changed,) = seen.lose("2").see(node("n1", 4, uid="3")).hear()
    assert dict(changed.node.offers) == {WHOLE: 4}


def test_the_loss_of_a_predecessor_that_is_told_late_changes_nothing() -> None:
    seen = Seen().see(node("n1", uid="1"), node("n1", uid="2"))
    seen.hear()
    assert seen.lose("1").hear() == []
    assert seen.lose("2").hear() == [NodeDown("n1")]
    assert seen.lose("2", "1").hear() == []


def test_the_loss_of_both_in_the_wrong_order_is_no_error() -> None:
    """An exception here would end the informer."""
    seen = Seen().see(node("n1", uid="1"), node("n1", uid="2"))
    seen.lose("2").lose("1")
    assert seen.hear() == []


def test_what_pods_without_gpus_use_is_taken_off() -> None:
    seen = Seen().see(node("n1", cpu=96), pod("p", 0, node="n1"))
    (up,) = seen.hear()
    assert up.node.cpu_milli == 95_000
    assert seen.see(pod("p", 0, node="n1")).hear() == []
    (changed,) = seen.see(pod("p", 0, node="n1", phase="Succeeded")).hear()
    assert changed.node.cpu_milli == 96_000


def test_capacity_is_what_nodes_have_whoever_uses_it() -> None:
    """A promise is judged by it: the pods in the way may be the tenant's own."""
    seen = Seen()
    assert seen.mirror.nodes.capacity() is None
    seen.see(node("n1"), node("n2", 4, ready=False), pod("p", 3, node="n1"))
    assert seen.mirror.nodes.capacity() == {WHOLE: 12 * 126_000}
    seen.lose("uid-n1", "uid-n2")
    assert seen.mirror.nodes.capacity() == {}


def test_product_labels_that_mean_something_else_are_read_anew() -> None:
    """In the round in which that becomes known, also for the pods on such nodes."""
    seen = Seen().see(node("n1", product="Mystery"), pod("p", 2, node="n1"))
    assert seen.mirror.node_events() == []
    seen.mirror.nodes.reclassify({"Mystery": H100})
    up, bound = seen.hear()
    assert dict(up.node.offers) == {WHOLE: 8}
    assert bound.node == "n1"
