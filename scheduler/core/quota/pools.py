"""Which form counts in which class groups.

Groups are nested or disjoint, so every form lies in one *chain* of pools: itself, the
smallest group around it, the next larger one. An amount of a group is had from any of
its members; an amount of a form from nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence

from scheduler.core.gpu import Form, class_of, value_weight
from scheduler.core.quota.queue import Fleet, Group


class Pools:
    """Forms and groups of a fleet.

    Raises
    ------
    ValueError
        When a name is taken twice, a group is empty, names itself or something cut, or
        two groups overlap without one containing the other.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._overruled = dict(fleet.values)
        self._values: dict[Form, int] = {}
        self.members = _expand(fleet.groups)
        ascending = sorted(self.members, key=lambda g: (len(self.members[g]), g))
        _check_nesting(ascending, self.members)
        self._chains: dict[Form, tuple[Form, ...]] = {}
        for form in self.forms():
            around = (g for g in ascending if form in self.members[g])
            self._chains[form] = (form, *around)
        for group in ascending:
            inside = self.members[group]
            around = (g for g in ascending if inside < self.members[g])
            self._chains[group] = (group, *around)
        self._rank = {group: place for place, group in enumerate(ascending, start=1)}

    def chain(self, pool: Form) -> tuple[Form, ...]:
        """Return the pool and the groups around it, the smallest first."""
        return self._chains.get(pool) or (pool,)

    def forms(self) -> list[Form]:
        """Every class that is in some group, sorted."""
        return sorted(set().union(*self.members.values()))

    def inside(self, pool: Form) -> frozenset[Form]:
        """Forms whose devices count in the pool."""
        return self.members.get(pool) or frozenset((pool,))

    def ascending(self, pools: Iterable[Form]) -> list[Form]:
        """Sort pools and the groups around them, what is inside before what is around.

        Forms come first, by name.
        """
        found = {around for pool in pools for around in self.chain(pool)}
        return sorted(found, key=lambda pool: (self._rank.get(pool, 0), pool))

    def total(self, amounts: Mapping[Form, int], pool: Form) -> int:
        """Add up what lies inside a pool, of amounts by form."""
        members = self.members.get(pool)
        if members is None:
            return amounts.get(pool, 0)
        return sum(amounts.get(form, 0) for form in members)

    def value(self, pool: Form) -> int:
        """Worth of a quantum in thousandths; of a group: of its least member."""
        known = self._values.get(pool)
        if known is None:
            known = min(self._value(form) for form in self.inside(pool))
            self._values[pool] = known
        return known

    def _value(self, form: Form) -> int:
        gpu_class = class_of(form)
        return self._overruled.get(gpu_class) or value_weight(gpu_class)


def _expand(groups: Sequence[Group]) -> dict[Form, frozenset[Form]]:
    """Return the classes of every group, those of groups inside it included."""
    named = {group.name: group for group in groups}
    if len(named) < len(groups):
        twice = sorted(g.name for g in groups if named[g.name] is not g)
        raise ValueError(f"group {twice[0]!r} is defined twice")

    def classes(name: Form, seen: tuple[Form, ...]) -> frozenset[Form]:
        if name in seen:
            raise ValueError(f"group {name!r} contains itself")
        found: set[Form] = set()
        for member in named[name].members:
            if member in named:
                found |= classes(member, (*seen, name))
            elif "/" in member:
                raise ValueError(f"group {name!r}: {member!r} is not a GPU class")
            else:
                found.add(member)
        if not found:
            raise ValueError(f"group {name!r} has no members")
        return frozenset(found)

    return {name: classes(name, ()) for name in sorted(named)}


def _check_nesting(groups: list[Form], members: Mapping[Form, frozenset[Form]]) -> None:
    for place, small in enumerate(groups):
        for large in groups[place + 1 :]:
            shared = sorted(members[small] & members[large])
            if shared and not members[small] < members[large]:
                both = ", ".join(shared)
                raise ValueError(
                    f"groups {small!r} and {large!r} overlap in {both}: "
                    "groups must be nested or disjoint"
                )
