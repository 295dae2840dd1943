"""What subtrees take out of what is around them: used, or kept while idle.

For every queue and pool (form or group)

* ``kept`` is what of its guarantees inside the pool it does not lend:
  ``guarantees - lending limit``;
* ``inside`` is what it uses itself and its children take: sum of their ``held``;
* ``within`` is what the members of a group take: sum of ``held`` over them;
* ``held = max(kept, inside, within)`` is what it takes out of the pool's parent.

``slack`` is how much more a tenant may use before ``held`` grows there: what it, or a
queue above it, keeps idle. The books are only kept where some queue keeps anything.
"""

from collections.abc import Iterable, Mapping, Sequence

from scheduler.core.gpu import Form
from scheduler.core.quota.pools import Pools
from scheduler.core.workload import TenantName

Key = tuple[TenantName | None, Form]


class Keeping:
    """The books of one tree; the fleet is the queue ``None``."""

    def __init__(
        self, pools: Pools, kept: Mapping[TenantName, Mapping[Form, int]]
    ) -> None:
        self._pools = pools
        self._kept = {
            (name, pool): amount
            for name, amounts in kept.items()
            for pool, amount in _totals(pools, amounts).items()
        }
        self._inside: dict[Key, int] = {}
        self._within: dict[Key, int] = {}

    def seed(self, above: Sequence[TenantName], pools: Iterable[Form]) -> None:
        """Take out of the fleet what an idle queue keeps; children before parents.

        `above` is the path of the queue, itself first.
        """
        name, *parents = above
        parent = parents[0] if parents else None
        for pool in self._pools.ascending(pools):
            held = self.held(name, pool)
            self._add(self._inside, (parent, pool), held)
            for around in self._pools.chain(pool)[1:2]:
                self._add(self._within, (name, around), held)

    def held(self, name: TenantName, pool: Form) -> int:
        """Quanta the subtree takes out of its parent: used, or kept while idle."""
        key = (name, pool)
        return max(
            self._kept.get(key, 0), self._inside.get(key, 0), self._within.get(key, 0)
        )

    def inside(self, name: TenantName | None, pool: Form) -> int:
        """Quanta that are used by the queue itself, or taken by its children."""
        return self._inside.get((name, pool), 0)

    def charge(self, path: Sequence[TenantName], form: Form, quanta: int) -> None:
        """Note that the first queue of the path uses `quanta` more."""
        chain = self._pools.chain(form)
        rises = [quanta] * len(chain)
        for name in path:
            within = 0
            for place, pool in enumerate(chain):
                before = self.held(name, pool)
                self._add(self._inside, (name, pool), rises[place])
                self._add(self._within, (name, pool), within)
                rises[place] = within = self.held(name, pool) - before
        for place, pool in enumerate(chain):
            self._add(self._inside, (None, pool), rises[place])

    def slacks(
        self, path: Sequence[TenantName], form: Form
    ) -> list[list[tuple[Form, int, int]]]:
        """Per queue of the path, per pool of the chain: pool, inside, slack below.

        The slack below is how much may be used before ``inside`` grows. The fleet comes
        last.
        """
        chain = self._pools.chain(form)
        below = [0] * len(chain)
        found: list[list[tuple[Form, int, int]]] = []
        for name in path:
            row: list[tuple[Form, int, int]] = []
            inner = UNBOUND
            for place, pool in enumerate(chain):
                row.append((pool, self.inside(name, pool), below[place]))
                held = self.held(name, pool)
                mine = held - self.inside(name, pool) + below[place]
                rest = held - self._within.get((name, pool), 0) + inner
                below[place] = inner = min(mine, rest)
            found.append(row)
        fleet = [
            (pool, self.inside(None, pool), below[place])
            for place, pool in enumerate(chain)
        ]
        found.append(fleet)
        return found

    def copy(self) -> "Keeping":
        """Return books that live on by themselves."""
        twin = object.__new__(Keeping)
        own = {"_inside": dict(self._inside), "_within": dict(self._within)}
        twin.__dict__ = self.__dict__ | own
        return twin

    @staticmethod
    def _add(book: dict[Key, int], key: Key, amount: int) -> None:
        if amount:
            book[key] = book.get(key, 0) + amount


UNBOUND = 1 << 62


def _totals(pools: Pools, kept: Mapping[Form, int]) -> dict[Form, int]:
    """Return what is kept of each pool, at least what the pools inside it keep."""
    found: dict[Form, int] = {}
    inside: dict[Form, int] = {}
    for pool in pools.ascending(kept):
        found[pool] = max(kept.get(pool, 0), inside.get(pool, 0))
        for around in pools.chain(pool)[1:2]:
            inside[around] = inside.get(around, 0) + found[pool]
    return found
