"""The shape of the tenant tree: who is below whom."""

from collections.abc import Iterable, Iterator

from scheduler.core.quota.queue import Queue
from scheduler.core.workload import TenantName


class Shape:
    """Queues and how they hang together; siblings stand by age, then by name.

    Raises
    ------
    ValueError
        When a name is taken twice, a parent is missing, or the parents form a cycle.
    """

    def __init__(self, queues: Iterable[Queue]) -> None:
        self.queues: dict[TenantName, Queue] = {}
        for queue in queues:
            if queue.name in self.queues:
                raise ValueError(f"queue {queue.name!r} is defined twice")
            self.queues[queue.name] = queue
        self.children: dict[TenantName | None, list[TenantName]] = {None: []}
        self._paths: dict[TenantName, tuple[TenantName, ...]] = {}
        self._partings: dict[
            tuple[TenantName, TenantName], tuple[TenantName, TenantName]
        ] = {}
        self._link()

    def _link(self) -> None:
        for name, queue in self.queues.items():
            if queue.parent is not None and queue.parent not in self.queues:
                raise ValueError(f"queue {name!r}: unknown parent {queue.parent!r}")
            self.children.setdefault(queue.parent, []).append(name)
        for name in self.queues:
            self._paths[name] = tuple(self._climb(name))
        for siblings in self.children.values():
            siblings.sort(key=lambda name: (self.queues[name].order, name))

    def _climb(self, name: TenantName) -> Iterator[TenantName]:
        seen: set[TenantName] = set()
        at: TenantName | None = name
        while at is not None:
            if at in seen:
                raise ValueError(f"queue {name!r}: its parents form a cycle")
            seen.add(at)
            yield at
            at = self.queues[at].parent

    def path(self, name: TenantName) -> tuple[TenantName, ...]:
        """Return the queue and its ancestors, the root last."""
        return self._paths[name]

    def is_leaf(self, name: TenantName) -> bool:
        """Whether pods may be charged to the queue."""
        return name in self.queues and not self.children.get(name)

    def parting(self, a: TenantName, b: TenantName) -> tuple[TenantName, TenantName]:
        """Return the ancestors of two tenants just below where their paths meet.

        Protection between tenants is judged at these siblings (design, section 6).
        """
        found = self._partings.get((a, b))
        if found is None:
            path_a, path_b = self._paths[a], self._paths[b]
            shared = set(path_a) & set(path_b)
            below_a = [name for name in path_a if name not in shared]
            below_b = [name for name in path_b if name not in shared]
            found = (below_a[-1] if below_a else a, below_b[-1] if below_b else b)
            self._partings[a, b] = found
        return found
