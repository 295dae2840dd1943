"""Kueue's cohorts and queues as our trees.

Kueue adds a cohort's own quota to its children's; our guarantee is a total that
contains theirs. A ClusterQueue without a cohort is its own root, and a cohort nobody
lists exists with no quota. There is a tree per root and resource, in which a flavor is
a form; all forms are worth the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from scheduler.core import quota
from scheduler.core.gpu import Form
from scheduler.core.workload import TenantName
from tests.conformance.amounts import bound, exact, scale_of, sliver, whole
from tests.conformance.verdict import Case

Key = tuple[str, str]
"""Flavor and resource."""

COHORT, QUEUE = "cohort", "queue"


@dataclass(frozen=True, slots=True)
class Quota:
    """What a node owns of one flavor and resource; None is no limit."""

    nominal: Fraction = Fraction(0)
    borrowing: Fraction | None = None
    lending: Fraction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A cohort or a ClusterQueue. `name` says which, as Kueue may use a name twice."""

    name: TenantName
    parent: TenantName | None
    weight: Fraction = Fraction(1)
    quotas: Mapping[Key, Quota] = field(default_factory=dict)


def cohort_name(name: str) -> TenantName:
    """Name a cohort; sorts before any queue, as cohorts win ties in Kueue."""
    return TenantName(f"{COHORT}:{name}")


def queue_name(name: str) -> TenantName:
    """Name a ClusterQueue."""
    return TenantName(f"{QUEUE}:{name}")


class Family:
    """All nodes of a case."""

    def __init__(self, case: Case) -> None:
        self.nodes: dict[TenantName, Node] = {}
        for row in case.get("cohorts") or ():
            self._add(_node(cohort_name(row["name"]), row, row.get("parent")))
        for row in case.get("clusterQueues") or ():
            self._add(_node(queue_name(row["name"]), row, row.get("cohort")))

    def _add(self, node: Node) -> None:
        self.nodes[node.name] = node
        if node.parent is not None and node.parent not in self.nodes:
            self.nodes[node.parent] = Node(name=node.parent, parent=None)

    def find(self, name: str, kind: str | None = None) -> TenantName:
        """Find a node by Kueue's name: a queue first where its kind is not told."""
        names = [queue_name(name), cohort_name(name)]
        if kind is not None:
            names = names[1:] if kind == COHORT else names[:1]
        found = [known for known in names if known in self.nodes]
        if not found:
            raise ValueError(f"there is no {kind or 'node'} {name!r}")
        return found[0]

    def root(self, name: TenantName) -> TenantName:
        """Climb to the root."""
        seen = {name}
        while (parent := self.nodes[name].parent) is not None:
            if parent in seen:
                raise ValueError(f"the cohorts above {name!r} form a cycle")
            seen.add(parent)
            name = parent
        return name

    def members(self, root: TenantName) -> list[Node]:
        """List the nodes of a tree, cohorts first, in the order of their names."""
        found = [node for name, node in self.nodes.items() if self.root(name) == root]
        return sorted(found, key=lambda node: node.name)

    def resources(self, root: TenantName) -> list[str]:
        """List the resources anybody in the tree has quota for."""
        return sorted({r for node in self.members(root) for _, r in node.quotas})

    def amounts(self) -> Iterator[Fraction | None]:
        """List every amount, to find a common scale."""
        for node in self.nodes.values():
            for rule in node.quotas.values():
                yield from (rule.nominal, rule.borrowing, rule.lending)


def _node(name: TenantName, row: Mapping[str, Any], parent: Any) -> Node:
    weight = row.get("weight")
    return Node(
        name=name,
        parent=cohort_name(parent) if parent else None,
        weight=Fraction(1) if weight is None else exact(weight),
        quotas={
            (str(q["flavor"]), str(q["resource"])): Quota(
                exact(q.get("nominal")),
                bound(q.get("borrowingLimit")),
                bound(q.get("lendingLimit")),
            )
            for q in row.get("quotas") or ()
        },
    )


@dataclass(frozen=True, slots=True)
class Usage:
    """An amount of one flavor and resource."""

    key: Key
    amount: Fraction


def usages(rows: Iterable[Mapping[str, Any]] | None) -> list[Usage]:
    """Read a list of amounts."""
    return [
        Usage((str(row["flavor"]), str(row["resource"])), exact(row.get("amount")))
        for row in rows or ()
    ]


class Grove:
    """The product's trees of a case, one per root and resource, with its charges.

    `unweighted` gives every node the weight 1.
    """

    def __init__(
        self,
        case: Case,
        *,
        unweighted: bool = False,
        orders: Mapping[TenantName, int] | None = None,
    ) -> None:
        self.family = Family(case)
        self._unweighted = unweighted
        self._orders = orders or {}
        rows = [usages(row.get("usage")) for row in case.get("admitted") or ()]
        extra = usages((case.get("incoming") or {}).get("hypotheticalUsage"))
        asked = [usage.amount for row in (*rows, extra) for usage in row]
        self.scale = scale_of([*asked, *self.family.amounts()], fine=1)
        self.parts = scale_of([n.weight for n in self.family.nodes.values()], fine=1)
        self._forms = self._name_forms([u for row in (*rows, extra) for u in row])
        self.trees: dict[tuple[TenantName, str], quota.QuotaTree] = {}
        for row, used in zip(case.get("admitted") or (), rows, strict=True):
            self.charge(queue_name(row["queue"]), used)

    def _name_forms(self, used: Iterable[Usage]) -> dict[str, Form]:
        """Give each flavor a form of its own, whatever Kueue lets a name contain."""
        keys = [key for node in self.family.nodes.values() for key in node.quotas]
        flavors = sorted({flavor for flavor, _ in (*keys, *(u.key for u in used))})
        return {flavor: sliver(f"flavor-{i}") for i, flavor in enumerate(flavors)}

    def form(self, flavor: str) -> Form:
        """Give the form that stands for a flavor."""
        return self._forms.get(flavor) or sliver("flavor-unknown")

    def tree(self, name: TenantName, resource: str) -> quota.QuotaTree:
        """Return the tree a node is in, for one resource."""
        root = self.family.root(name)
        if (root, resource) not in self.trees:
            self.trees[root, resource] = self._grow(root, resource)
        return self.trees[root, resource]

    def charge(self, name: TenantName, used: Iterable[Usage], sign: int = 1) -> None:
        """Charge amounts to a node and all above it."""
        for usage in used:
            flavor, resource = usage.key
            quanta = sign * whole(usage.amount * self.scale)
            self.tree(name, resource).charge(name, self.form(flavor), quanta)

    def _grow(self, root: TenantName, resource: str) -> quota.QuotaTree:
        nodes = self.family.members(root)
        totals = {node.name: self._total(node, nodes, resource) for node in nodes}
        tree = quota.QuotaTree(
            self._queue(node, order, resource, totals[node.name])
            for order, node in enumerate(nodes)
        )
        tree.capacity = {
            self.form(flavor): whole(total * self.scale)
            for flavor, total in totals[root].items()
        }
        return tree

    def _total(
        self, node: Node, nodes: Iterable[Node], resource: str
    ) -> dict[str, Fraction]:
        """What a node and all below it own, by flavor."""
        found: dict[str, Fraction] = {}
        below = [n for n in nodes if n.parent == node.name]
        for part in (
            {f: q.nominal for (f, r), q in node.quotas.items() if r == resource},
            *(self._total(child, nodes, resource) for child in below),
        ):
            for flavor, amount in part.items():
                found[flavor] = found.get(flavor, Fraction(0)) + amount
        return found

    def _queue(
        self, node: Node, order: int, resource: str, totals: Mapping[str, Fraction]
    ) -> quota.Queue:
        rules = {f: q for (f, r), q in node.quotas.items() if r == resource}
        weight = Fraction(1) if self._unweighted else max(Fraction(0), node.weight)
        return quota.Queue(
            name=node.name,
            parent=node.parent,
            guarantee=self._counts(totals),
            borrowing_limit=self._counts({f: q.borrowing for f, q in rules.items()}),
            lending_limit=self._counts({f: q.lending for f, q in rules.items()}),
            weight=whole(weight * self.parts),
            order=self._orders.get(node.name, order),
        )

    def _counts(
        self, amounts: Mapping[str, Fraction | None]
    ) -> tuple[tuple[Form, int], ...]:
        return tuple(
            (self.form(flavor), whole(amount * self.scale))
            for flavor, amount in sorted(amounts.items())
            if amount is not None
        )
