"""Where a disruption budget allows an eviction again."""

from scheduler.codec import PdbObject
from scheduler.codec.objects import ObjectMeta, PdbStatus
from scheduler.kube.mirror import Budgets


def budget(uid: str, namespace: str, allowed: int) -> PdbObject:
    metadata = ObjectMeta(uid=uid, name=uid, namespace=namespace)
    return PdbObject(metadata, status=PdbStatus(disruptions_allowed=allowed))


def test_a_namespace_is_eased_once_when_its_budget_allows_more() -> None:
    """An eviction that was refused is asked for again at once, not after its rest."""
    budgets = Budgets()
    budgets.changed(budget("b", "a", 0))
    assert budgets.eased() == set()
    budgets.changed(budget("b", "a", 1))
    assert budgets.eased() == {"a"}
    assert budgets.eased() == set()
    budgets.changed(budget("b", "a", 1))
    budgets.changed(budget("b", "a", 0))
    assert budgets.eased() == set()


def test_a_budget_that_is_gone_forbids_nothing_any_more() -> None:
    """Its owner has taken it away; nothing is kept of it."""
    budgets = Budgets()
    budgets.changed(budget("b", "a", 0))
    budgets.gone("b")
    budgets.gone("never heard of")
    assert budgets.eased() == {"a"}
    assert not budgets._allowed
    assert not budgets._namespaces
