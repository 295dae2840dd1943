"""Tenant and Fleet objects become the tenant tree, and nothing is half applied.

Theory of operation
-------------------
Of every object two specs are known: the *newest*, as its owner wrote it, and the one
*in force*, the newest that was accepted. The specs in force make up the tree. `resolve`
tries the newest specs that are not in force yet: the Fleet, then tenants, parents
before children and the older first. It accepts what adds no fault to the tree
(`scheduler.tenancy.faults`). A batch that is faultless as a whole is accepted as a
whole, so that two tenants may swap what they have; otherwise its halves are tried, and
all of it again until nothing more is accepted. What is refused stays out, spec in force
and all others untouched, and is tried again at the next `resolve`: its parent may have
come by then, or more nodes. What comes out does not depend on who was heard of first.

Three things happen whether or not they may: a tenant is deleted, the Fleet is deleted,
nodes vanish. A tenant whose parent is gone stands as a root until it is back, so what
was promised to it is kept. Without a Fleet there are no groups and no ceilings.

No input or output happens here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from scheduler.codec.objects import NamespaceObject
from scheduler.config import FleetSpec, TenantSpec, fleet_from, queue_from
from scheduler.config.objects import FLEET_NAME, GROUP, VERSION
from scheduler.core import Fleet, Form, Queue, QuotaTree, TenantName, TenantUse
from scheduler.kube.namespaces import Division, Namespaces
from scheduler.kube.owned import FleetObject, Owned, TenantObject, owned
from scheduler.kube.statuses import Report, status_of
from scheduler.tenancy import Tenancy, faults

TENANTS_PATH = f"/apis/{GROUP}/{VERSION}/tenants"
FLEETS_PATH = f"/apis/{GROUP}/{VERSION}/fleets"

_AT = re.compile(r"tenants\[(\d+)\]\.(.*)", re.DOTALL)

Batch = Sequence[Owned[Any]]
"""Objects whose newest specs are tried together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What holds now.

    Parameters
    ----------
    tenancy
        The tree in force, with the namespaces of each tenant and the fleet.
    products
        GPU class of a product label, where the built-in table is overruled.
    prices
        Per GPU class and hour, in thousandths; for reports only.
    refused
        Why the newest spec of a tenant is not in force, by its name.
    """

    tenancy: Tenancy
    products: Mapping[str, str]
    prices: Mapping[str, int]
    refused: Mapping[TenantName, str]


class Tenants:
    """What the Tenant, Fleet and Namespace objects say, and what of it is in force."""

    def __init__(self) -> None:
        self._tenants: dict[TenantName, Owned[TenantSpec]] = {}
        self._fleet: Owned[FleetSpec] | None = None
        self._namespaces = Namespaces()
        self._division = Division({}, {})
        self._classes: Set[str] = frozenset()
        self._capacity: Mapping[Form, int] | None = None
        self._tried = False  # since owners or nodes said something new
        self._present: tuple[QuotaTree, Set[str]] | None = None

    # -- what the API server says ------------------------------------------------

    def changed_tenant(self, obj: TenantObject) -> None:
        """Take a tenant as its owner wrote it; `resolve` says what becomes of it."""
        name = TenantName(obj.metadata.name)
        known = self._tenants.get(name)
        self._tenants[name] = found = owned(TenantSpec, obj, known)
        self._tried = self._tried and found.says_the_same(known)
        if found.in_force is not None and not self._is_sound(name, found.in_force):
            found.accepted = None

    def gone_tenant(self, uid: str) -> None:
        """Forget a tenant; another of the same name may be there by now."""
        for name, known in list(self._tenants.items()):
            if known.meta.uid == uid:
                del self._tenants[name]
                self._tried = False

    def changed_fleet(self, obj: FleetObject) -> None:
        """Take the fleet as its owner wrote it; only the one named default counts."""
        if obj.metadata.name != FLEET_NAME:
            return
        known = self._fleet
        self._fleet = found = owned(FleetSpec, obj, known)
        self._tried = self._tried and found.says_the_same(known)
        if found.in_force is not None and not _is_tree((), fleet_from(found.in_force)):
            found.accepted = None

    def gone_fleet(self, uid: str) -> None:
        """Forget the fleet: no groups, no ceilings, built-in worths."""
        if self._fleet is not None and self._fleet.meta.uid == uid:
            self._fleet = None
            self._tried = False

    def changed_namespace(self, obj: NamespaceObject) -> None:
        """Take a namespace's labels."""
        self._namespaces.changed(obj)

    def gone_namespace(self, uid: str) -> None:
        """Forget a namespace."""
        self._namespaces.gone(uid)

    def _is_sound(self, name: TenantName, spec: TenantSpec) -> bool:
        """Whether a spec, which a status may have said, can be in a tree at all.

        Statuses are written one by one: after a crash they may say a cycle.
        """
        seen, at = {str(name)}, spec.parent
        while at is not None and at not in seen:
            seen.add(at)
            above = self._tenants.get(TenantName(at))
            at = above.in_force.parent if above and above.in_force else None
        alone = replace(queue_from(spec, name, 0), parent=None)
        return at is None and _is_tree((alone,), Fleet())

    # -- what holds --------------------------------------------------------------

    def resolve(
        self, classes: Set[str], capacity: Mapping[Form, int] | None
    ) -> Resolved:
        """Accept what may be had of the newest specs, and say what is in force.

        Parameters
        ----------
        classes
            GPU classes of the nodes.
        capacity
            Quanta of the fleet by form; None while nobody knows.
        """
        if not self._tried or (classes, capacity) != (self._classes, self._capacity):
            self._classes = frozenset(classes)
            self._capacity = None if capacity is None else dict(capacity)
            self._try_all()
        return self._resolved()

    def _try_all(self) -> None:
        self._tried, self._present = True, None
        known: list[Owned[Any]] = sorted(self._by_age(), key=self._depth)
        if self._fleet is not None:
            known.insert(0, self._fleet)
        waiting: Batch = [each for each in known if each.waits]
        left = self._take(waiting)
        while left and len(left) < len(waiting):
            waiting, left = left, self._take(left)

    def _by_age(self) -> list[Owned[TenantSpec]]:
        known = self._tenants.values()
        return sorted(known, key=lambda tenant: (tenant.order, tenant.meta.name))

    def _depth(self, tenant: Owned[TenantSpec]) -> int:
        """Return how many queues are above a tenant, as the newest specs have it."""
        above: set[str] = set()
        at: Owned[TenantSpec] | None = tenant
        while at is not None and at.meta.name not in above:
            above.add(at.meta.name)
            parent = at.newest.parent if at.newest else None
            at = self._tenants.get(TenantName(parent)) if parent else None
        return len(above)

    def _take(self, batch: Batch) -> Batch:
        """Accept what may be had of a batch, and return what may not."""
        found = self._new_faults(batch) if batch else []
        if not found:
            for each in batch:
                each.accept()
            self._present = None
            return []
        if len(batch) == 1:
            self._refuse(batch[0], found)
            return batch
        half = len(batch) // 2
        return [*self._take(batch[:half]), *self._take(batch[half:])]

    def _refuse(self, one: Owned[Any], found: Iterable[str]) -> None:
        own = "fleet: " if one is self._fleet else f"tenant {one.meta.name}: "
        told = [fault.removeprefix(own) for fault in found]
        parent = getattr(one.newest, "parent", None)
        if parent is None or parent in self._specs(()):
            one.refuse("Refused", "; ".join(told))
            return
        there = TenantName(parent) in self._tenants
        why = "is not in force itself, see its status" if there else "is no tenant"
        told = [fault for fault in told if not fault.startswith("spec.parent: ")]
        one.refuse(
            "ParentMissing", "; ".join([f"spec.parent: {parent!r} {why}", *told])
        )

    def _new_faults(self, batch: Batch) -> list[str]:
        """Return what is wrong with the tree if a batch was in force, and not now."""
        if self._present is None:
            now = self._tree(())
            before = QuotaTree(now.queues, now.fleet)
            if self._capacity is not None:
                before.capacity = self._capacity
            self._present = before, frozenset(self._faults((), before))
        before, known = self._present
        return [fault for fault in self._faults(batch, before) if fault not in known]

    def _faults(self, batch: Batch, before: QuotaTree) -> list[str]:
        """Return what would be wrong; ``tenant x: spec.limit...`` names key and value.

        What is only wrong because of how it was before is no fault.
        """
        tenancy, fleet = self._tree(batch), self._fleet_spec(batch)
        names = [queue.name for queue in tenancy.queues]
        classes = {*self._classes, *fleet.classes.values()}
        told = faults(tenancy, classes, self._capacity, before)
        return [
            *(_as_keys_of_objects(fault, names) for fault in told),
            *(
                f"fleet: spec.classes.{product}: {name!r} is a group, no GPU class"
                for product, name in sorted(fleet.classes.items())
                if name in fleet.groups
            ),
            *_selecting_parents(self._specs(batch)),
        ]

    # -- the tree ----------------------------------------------------------------

    def _specs(self, batch: Batch) -> dict[str, TenantSpec]:
        """Return what is in force, or would be with a batch; the oldest first."""
        tried = {id(each) for each in batch}
        found = (
            (each.meta.name, each.newest if id(each) in tried else each.in_force)
            for each in self._by_age()
        )
        return {name: spec for name, spec in found if spec is not None}

    def _fleet_spec(self, batch: Batch) -> FleetSpec:
        """Return what holds for all tenants, or would with a batch."""
        if self._fleet is None:
            return FleetSpec()
        tried = any(each is self._fleet for each in batch)
        spec = self._fleet.newest if tried else self._fleet.in_force
        return spec or FleetSpec()

    def _tree(self, batch: Batch) -> Tenancy:
        """Return the tree that is in force, or would be with a batch.

        Only what is in force already may have lost its parent: it stands as a root.
        """
        specs = self._specs(batch)
        tried = {each.meta.name for each in batch}
        queues: list[Queue] = []
        for name, spec in specs.items():
            queue = queue_from(spec, name, self._tenants[TenantName(name)].order)
            if name not in tried and queue.parent not in specs:
                queue = replace(queue, parent=None)
            queues.append(queue)
        return Tenancy(
            queues=tuple(queues),
            namespaces=((),) * len(queues),
            fleet=fleet_from(self._fleet_spec(batch)),
        )

    def _resolved(self) -> Resolved:
        tenancy, specs, fleet = self._tree(()), self._specs(()), self._fleet_spec(())
        inner = {queue.parent for queue in tenancy.queues}
        self._division = self._namespaces.divide(
            [
                (queue.name, selector)
                for queue in tenancy.queues
                if (selector := specs[queue.name].namespaces) is not None
                and queue.name not in inner
            ]
        )
        got = self._division.owned
        namespaces = tuple(got.get(queue.name, ()) for queue in tenancy.queues)
        return Resolved(
            tenancy=replace(tenancy, namespaces=namespaces),
            products=fleet.classes,
            prices=fleet.prices,
            refused={
                name: known.problem
                for name, known in sorted(self._tenants.items())
                if known.problem
            },
        )

    # -- what owners are told ----------------------------------------------------

    def statuses(
        self, rows: Sequence[TenantUse], now_iso: str
    ) -> dict[TenantName, dict[str, Any]]:
        """Return the statuses that differ from what was handed out or read last.

        Use changes all the time: whoever writes them decides how often to ask. Each is
        handed out once; say `untold` when it could not be written. A spec that was
        written since the last `resolve` is not spoken of.
        """
        mine: dict[TenantName, list[TenantUse]] = {}
        for row in rows:
            mine.setdefault(row.name, []).append(row)
        found: dict[TenantName, dict[str, Any]] = {}
        judged = (pair for pair in sorted(self._tenants.items()) if pair[1].is_judged)
        for name, known in judged:
            report = self._report(known, mine.get(name, ()))
            status = status_of(report, known.told, now_iso)
            if status != known.told:
                found[name] = known.told = status
        return found

    def fleet_status(self, now_iso: str) -> dict[str, Any] | None:
        """Return the Fleet's status if it differs from the last one."""
        known = self._fleet
        if known is None or not known.is_judged:
            return None
        status = status_of(known.report(), known.told, now_iso)
        if status == known.told:
            return None
        known.told = status
        return status

    def untold(self, name: TenantName | None) -> None:
        """Note that a status was not written: a tenant's, or for None the Fleet's.

        Conditions that it began are dated anew when it is handed out again.
        """
        known = self._fleet if name is None else self._tenants.get(name)
        if known is not None:
            known.told = {}

    def update_of(self, name: TenantName | None) -> tuple[str, bytes] | None:
        """Return path and body of the PUT that writes what was handed out last.

        409 means that the object has changed, and that the watch will bring it. None
        when the object is gone; for the name None it is the Fleet's.
        """
        if name is None:
            path, kind = f"{FLEETS_PATH}/{FLEET_NAME}/status", "Fleet"
            return (path, self._fleet.status_update(kind)) if self._fleet else None
        known = self._tenants.get(name)
        path, kind = f"{TENANTS_PATH}/{name}/status", "Tenant"
        return (path, known.status_update(kind)) if known else None

    def _report(self, known: Owned[TenantSpec], rows: Sequence[TenantUse]) -> Report:
        name, spec = TenantName(known.meta.name), known.in_force
        parent = spec.parent if spec is not None else None
        above = self._tenants.get(TenantName(parent)) if parent is not None else None
        return replace(
            known.report(),
            rows=rows,
            groups=self._fleet_spec(()).groups,
            namespaces=self._division.owned.get(name, ()),
            contested=self._division.contested.get(name, {}),
            lost_parent=None if above and above.accepted else parent,
        )


def _is_tree(queues: Sequence[Queue], fleet: Fleet) -> bool:
    try:
        QuotaTree(queues, fleet)
    except ValueError:
        return False
    return True


def _as_keys_of_objects(fault: str, names: Sequence[TenantName]) -> str:
    """Say by name whom a fault is about, and name keys as the object has them."""
    if match := _AT.fullmatch(fault):
        return f"tenant {names[int(match[1])]}: spec.{match[2]}"
    if fault.startswith("fleet."):
        return f"fleet: spec.{fault.removeprefix('fleet.')}"
    return fault.removeprefix("tenants: ")


def _selecting_parents(specs: Mapping[str, TenantSpec]) -> list[str]:
    """Name the queues that have children and select namespaces all the same."""
    children: dict[str, str] = {}
    for name, spec in specs.items():
        if spec.parent is not None:
            children.setdefault(spec.parent, name)
    return [
        f"tenant {parent}: spec.namespaces: {parent!r} has children, as {child!r}; "
        "pods belong to its leaves: leave namespaces away"
        for parent, child in sorted(children.items())
        if parent in specs and specs[parent].namespaces is not None
    ]
