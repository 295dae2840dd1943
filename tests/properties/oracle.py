"""What quota and fairness must compute, from scratch each time and as plain as can be.

No running sums, no arrays, no floats: recursion over the tree, Python's integers and
fractions. ``Rules`` is the tree as its owner wrote it down, ``Books`` who holds what in
it, ``Division`` who may hold what, ``cover`` what of it nobody may take.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations

from scheduler.core.fairness import Standing
from scheduler.core.gpu import Form, charge, class_of, value_weight
from scheduler.core.quota import UNLIMITED, Fleet, Pools, Queue
from scheduler.core.quota.scaling import served
from scheduler.core.workload import GangId, TenantName

Charges = Sequence[tuple[TenantName, Form, int]]
Demands = Mapping[TenantName, Sequence[int]]
Amount = int | Fraction
Shares = dict[TenantName, list[Amount]]


class Rules:
    """The tree as it was written down; amounts in quanta."""

    def __init__(
        self, queues: Sequence[Queue], fleet: Fleet, capacity: Mapping[Form, int]
    ) -> None:
        self.queues = {queue.name: queue for queue in queues}
        self.fleet, self.capacity = fleet, capacity
        self.groups = {group.name: self._classes(group.name) for group in fleet.groups}
        self.owned = self._scaled()

    # -- pools -----------------------------------------------------------------

    def _classes(self, pool: Form) -> frozenset[Form]:
        named = {group.name: group.members for group in self.fleet.groups}
        if pool not in named:
            return frozenset((pool,))
        return frozenset().union(*(self._classes(Form(m)) for m in named[pool]))

    def classes(self, pool: Form) -> frozenset[Form]:
        return self.groups.get(pool, frozenset((pool,)))

    def chain(self, pool: Form) -> list[Form]:
        """The pool, then the groups around it, the smallest first."""
        inside = self.classes(pool)
        around = [g for g, classes in self.groups.items() if inside <= classes]
        others = sorted(set(around) - {pool}, key=lambda g: len(self.groups[g]))
        return [pool, *others]

    def offered(self, pool: Form) -> int:
        return sum(self.capacity.get(form, 0) for form in self.classes(pool))

    def value(self, pool: Form) -> int:
        overruled = dict(self.fleet.values)
        worths = (class_of(form) for form in self.classes(pool))
        return min(overruled.get(worth) or value_weight(worth) for worth in worths)

    # -- queues ----------------------------------------------------------------

    def children(self, name: TenantName | None) -> list[TenantName]:
        """Older first."""
        found = [queue for queue in self.queues.values() if queue.parent == name]
        return [q.name for q in sorted(found, key=lambda q: (q.order, q.name))]

    def leaves(self) -> list[TenantName]:
        return [name for name in self.queues if not self.children(name)]

    def path(self, name: TenantName) -> list[TenantName]:
        parent = self.queues[name].parent
        return [name, *(self.path(parent) if parent is not None else [])]

    def written(self, name: TenantName, field: str) -> dict[Form, int]:
        counts = getattr(self.queues[name], field)
        return {pool: count * charge(pool) for pool, count in counts}

    def promised(self, name: TenantName) -> dict[Form, int]:
        """The guarantees within the queue's own limits; by name, who comes first."""
        limits = self.written(name, "limit")
        found: dict[Form, int] = {}
        for pool, amount in sorted(self.written(name, "guarantee").items()):
            left = [
                limit - sum(n for p, n in found.items() if around in self.chain(p))
                for around, limit in limits.items()
                if around in self.chain(pool)
            ]
            found[pool] = min([amount, *left])
        return found

    def guarantee(self, name: TenantName, pool: Form) -> int:
        return self.owned[name].get(pool, 0)

    def kept(self, name: TenantName, pool: Form) -> int:
        """What of its guarantees inside a pool a queue does not lend."""
        lent = self.written(name, "lending_limit").get(pool)
        if lent is None:
            return 0
        owned = self.owned[name].items()
        return max(0, sum(n for p, n in owned if pool in self.chain(p)) - lent)

    def borrowing_limits(self, name: TenantName, form: Form) -> dict[Form, int]:
        """Most use that nobody pays for, of the form and of each group around it."""
        limits = self.written(name, "borrowing_limit")
        if self.queues[name].weight == 0:
            limits = {form: 0}
        return {pool: n for pool, n in limits.items() if pool in self.chain(form)}

    def ceiling(self, name: TenantName, pool: Form) -> int:
        """The lower of limit and borrowing limit; weight 0 borrows nothing."""
        loan = self.written(name, "borrowing_limit").get(pool)
        if self.queues[name].weight == 0:
            loan = 0
        top = self.written(name, "limit").get(pool, UNLIMITED)
        if loan is None:
            return top
        owned = sum(
            amount
            for other, amount in self.promised(name).items()
            if other in self.chain(pool) or pool in self.chain(other)
        )
        return min(top, owned + loan)

    # -- scaling ---------------------------------------------------------------

    def _scaled(self) -> dict[TenantName, dict[Form, int]]:
        """As written, and no class beyond what is left of it for those who need it."""
        owned = {name: self.promised(name) for name in self.queues}
        needs = self.resolved()
        classes = self._cut_to_fit(
            {
                name: {p: n for p, n in amounts.items() if p not in self.groups}
                for name, amounts in needs.items()
            }
        )
        for name, amounts in owned.items():
            for pool in set(amounts) - set(self.groups):
                amounts[pool] = min(amounts[pool], classes[name][pool])
        return self._cut_to_fit(owned)

    def resolved(self) -> dict[TenantName, dict[Form, int]]:
        """What is promised, with what children need of a class taken out of groups."""
        found: dict[TenantName, dict[Form, int]] = {}
        for name in sorted(self.queues, key=lambda n: -len(self.path(n))):
            mine = found[name] = dict(self.promised(name))
            classes = set().union(*(found[child] for child in self.children(name)))
            for form in sorted(classes - set(self.groups)):
                need = sum(found[child].get(form, 0) for child in self.children(name))
                for group in self.chain(form)[1:]:
                    short = max(0, need - mine.get(form, 0))
                    part = min(short, mine.get(group, 0))
                    if part:
                        mine[form] = mine.get(form, 0) + part
                        mine[group] -= part
        return found

    def _cut_to_fit(
        self, owned: dict[TenantName, dict[Form, int]]
    ) -> dict[TenantName, dict[Form, int]]:
        """By tenant priority, then pro rata, largest remainder, then the older."""

        def descend(parent: TenantName | None, supply: Mapping[Form, int]) -> None:
            names = self.children(parent)
            wanted: dict[Form, int] = {}
            for name in names:
                for pool, amount in owned[name].items():
                    wanted[pool] = wanted.get(pool, 0) + amount
            had = served(Pools(self.fleet), supply, wanted)
            for pool in wanted:
                parts = [owned[name].get(pool, 0) for name in names]
                ranks = [-self.queues[name].priority for name in names]
                for name, part in zip(
                    names, cut(had[pool], parts, ranks, charge(pool)), strict=True
                ):
                    if pool in owned[name]:
                        owned[name][pool] = part
            for name in names:
                descend(name, owned[name])

        descend(None, self.capacity)
        return owned


def cut(total: int, parts: Sequence[int], ranks: Sequence[int], unit: int) -> list[int]:
    """Serve rank by rank; inside a rank everybody has the same part of its own."""
    found = [0] * len(parts)
    for rank in sorted(set(ranks)):
        tier = [i for i, mine in enumerate(ranks) if mine == rank]
        asked = sum(parts[i] for i in tier)
        there = min(total, asked)
        exact = [Fraction(parts[i] * there, asked * unit or 1) for i in tier]
        for i, count in zip(tier, rounded(exact, there // unit), strict=True):
            found[i] = count * unit
        total -= there
    return found


def most_served(
    rules: Rules, supply: Mapping[Form, int], wanted: Mapping[Form, int]
) -> int:
    """Most of what is wanted that can be had at once: the least cut, all cuts tried.

    What is supplied for a pool serves what is inside it, and what is around it.
    """
    pools = [pool for pool, amount in wanted.items() if amount]
    best = sum(wanted.values())
    for size in range(1, len(pools) + 1):
        for chosen in combinations(pools, size):
            spared = sum(wanted[pool] for pool in pools if pool not in chosen)
            sources = {
                source
                for source in supply
                for pool in chosen
                if source in rules.chain(pool) or pool in rules.chain(source)
            }
            best = min(best, spared + sum(supply[source] for source in sources))
    return best


# -- who holds what -----------------------------------------------------------


class Books:
    """Who holds what, added up anew for each question."""

    def __init__(self, rules: Rules, charges: Charges) -> None:
        self.rules, self.charges = rules, charges
        forms = {form for _, form, _ in charges} | set(rules.capacity)
        forms |= {pool for amounts in rules.owned.values() for pool in amounts}
        members = set().union(*rules.groups.values())
        self.pools = sorted(forms | members | set(rules.groups))

    def own(self, name: TenantName, pool: Form) -> int:
        inside = self.rules.classes(pool)
        return sum(n for who, form, n in self.charges if who == name and form in inside)

    def used(self, name: TenantName, pool: Form) -> int:
        below = (self.used(child, pool) for child in self.rules.children(name))
        return self.own(name, pool) + sum(below)

    def inside(self, name: TenantName | None, pool: Form) -> int:
        """Used by the queue itself, or taken by its children."""
        below = sum(self.held(child, pool) for child in self.rules.children(name))
        return below if name is None else below + self.own(name, pool)

    def held(self, name: TenantName, pool: Form) -> int:
        """Used, or kept while idle: by its children, in its members, by itself."""
        rules = self.rules
        direct = [p for p in self.pools if rules.chain(p)[1:2] == [pool]]
        kept = self.kept(name, pool)
        members = sum(self.held(name, p) for p in direct)
        return max(kept, self.inside(name, pool), members)

    def kept(self, name: TenantName, pool: Form) -> int:
        """At least what is kept of the pools inside it."""
        rules = self.rules
        direct = [p for p in self.pools if rules.chain(p)[1:2] == [pool]]
        inside = sum(self.kept(name, p) for p in direct)
        return max(rules.kept(name, pool), inside)

    def loan(self, name: TenantName, pool: Form) -> int:
        """What of a pool's use is unpaid when all other use is paid first."""
        rules = self.rules
        forms = [p for p in self.pools if p not in rules.groups]
        used = {form: self.used(name, form) for form in forms}
        others = {f: n for f, n in used.items() if f not in rules.classes(pool)}
        owned = rules.promised(name)
        return unpaid(rules, used, owned) - unpaid(rules, others, owned)

    def is_respectful(self, name: TenantName, form: Form) -> bool:
        """Whether nobody on the path holds too much, what others keep included."""
        rules = self.rules
        return all(
            self.inside(None, pool) <= rules.offered(pool)
            and all(
                self.inside(queue, pool) <= rules.ceiling(queue, pool)
                for queue in rules.path(name)
            )
            for pool in rules.chain(form)
        ) and all(
            self.loan(queue, pool) <= limit
            for queue in rules.path(name)
            if len(rules.chain(form)) > 1
            for pool, limit in rules.borrowing_limits(queue, form).items()
        )


def unpaid(rules: Rules, used: Mapping[Form, int], owned: Mapping[Form, int]) -> int:
    """Least use that no guarantee pays for, in whichever way they are spent."""
    forms = [form for form, amount in used.items() if amount]
    paid = sum(used.values())
    for size in range(len(forms) + 1):
        for chosen in combinations(forms, size):
            spared = sum(used[form] for form in forms if form not in chosen)
            payers = {pool for form in chosen for pool in rules.chain(form)}
            paid = min(paid, spared + sum(owned.get(pool, 0) for pool in payers))
    return sum(used.values()) - paid


# -- who may hold what --------------------------------------------------------


def spend(budget: int, wants: Sequence[int]) -> list[int]:
    """Pay the most urgent demand first, until the budget is used."""
    found = []
    for want in wants:
        found.append(min(want, max(0, budget)))
        budget -= found[-1]
    return found


def rounded(exact: Sequence[Fraction], total: int) -> list[int]:
    """Whole parts; what is left goes to the largest fractions, then to the first."""
    parts = [int(part) for part in exact]
    order = sorted(range(len(exact)), key=lambda i: (parts[i] - exact[i], i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts


def water(
    total: Amount, wants: Sequence[Amount], weights: Sequence[int]
) -> list[Fraction]:
    """Weighted max-min in exact fractions: serve by want per weight, least first."""
    found = [Fraction(0)] * len(wants)
    live = sorted(
        (i for i, weight in enumerate(weights) if weight),
        key=lambda i: Fraction(wants[i], weights[i]),
    )
    for place, i in enumerate(live):
        weight = sum(weights[j] for j in live[place:])
        found[i] = min(Fraction(wants[i]), Fraction(total * weights[i], weight))
        total -= found[i]
    return found


def whole_water(total: int, wants: Sequence[int], weights: Sequence[int]) -> list[int]:
    """The same in whole units: only those that are not sated are rounded."""
    exact = water(total, wants, weights)
    sated = [w == part for w, part in zip(wants, exact, strict=True)]
    live = [i for i, done in enumerate(sated) if not done and weights[i]]
    left = total - sum(want for want, done in zip(wants, sated, strict=True) if done)
    found = [want if done else 0 for want, done in zip(wants, sated, strict=True)]
    for i, part in zip(live, rounded([exact[i] for i in live], left), strict=True):
        found[i] = part
    return found


class Division:
    """Section 6 of the design, word for word, for one form.

    Parameters
    ----------
    owned
        What of its guarantees each queue may claim on the form.
    whole
        Whether units are indivisible; otherwise shares are exact fractions.
    """

    def __init__(
        self,
        rules: Rules,
        form: Form,
        demands: Demands,
        owned: Mapping[TenantName, int] | None = None,
        *,
        whole: bool = True,
    ) -> None:
        self.rules, self.form, self.whole = rules, form, whole
        names = list(rules.queues)
        self.owned = owned or {n: rules.guarantee(n, form) for n in names}
        self.unit = self._unit(demands)
        self.wants: dict[TenantName, list[int]] = {}
        self.idle: dict[TenantName | None, int] = {}
        self.shares: Shares = {}
        for root in rules.children(None):
            self._ask(root, demands)
        self._grant(None, rules.capacity.get(form, 0) // self.unit)

    def _unit(self, demands: Demands) -> int:
        """A device where all amounts are whole devices, else a quantum."""
        unit, rules = charge(self.form), self.rules
        amounts = [n for tiers in demands.values() for n in tiers]
        amounts += self.owned.values()
        amounts += (rules.kept(name, self.form) for name in rules.queues)
        amounts.append(rules.capacity.get(self.form, 0))
        return unit if not any(amount % unit for amount in amounts) else 1

    def _ask(self, name: TenantName, demands: Demands) -> None:
        """What a subtree wants below its ceilings, and what it keeps idle."""
        children = self.rules.children(name)
        for child in children:
            self._ask(child, demands)
        below = sum(self.idle[child] for child in children)
        tiers = [n // self.unit for n in demands.get(name, (0,) * 4)]
        for child in children:
            tiers = [a + b for a, b in zip(tiers, self.wants[child], strict=True)]
        top = self.rules.ceiling(name, self.form) // self.unit
        self.wants[name] = spend(top - below, tiers)
        kept = self.rules.kept(name, self.form) // self.unit
        self.idle[name] = max(below, kept - sum(self.wants[name]))

    def _grant(self, parent: TenantName | None, there: Amount) -> None:
        """Guarantees first, then tier by tier, among the children of one queue."""
        names = self.rules.children(parent)
        found: Shares = {}
        for name, due in zip(names, self._due(names, there), strict=True):
            found[name] = list(spend(due, self.wants[name]))
        granted = sum(sum(share) for share in found.values())
        there = max(0, there - sum(self.idle[n] for n in names) - granted)
        for tier in range(4):
            for priority in self._priorities(names):
                queues = [self.rules.queues[name] for name in names]
                group = [q for q in queues if q.priority == priority]
                more = [self.wants[q.name][tier] - found[q.name][tier] for q in group]
                pour = whole_water if self.whole else water
                parts = pour(there, more, [q.weight for q in group])
                for queue, part in zip(group, parts, strict=True):
                    found[queue.name][tier] += part
                    there -= part
        for name in names:
            self.shares[name] = [part * self.unit for part in found[name]]
            below = sum(self.idle[child] for child in self.rules.children(name))
            self._grant(name, sum(found[name]) + below)

    def _due(self, names: Sequence[TenantName], there: Amount) -> list[int]:
        """What guarantees pay for, cut by the rule of scaling to what is there."""
        asked = [
            max(0, min(self.owned[n] // self.unit - self.idle[n], sum(self.wants[n])))
            for n in names
        ]
        left = max(0, int(there) - sum(self.idle[n] for n in names))
        if sum(asked) <= left:
            return asked
        ranks = [-self.rules.queues[name].priority for name in names]
        return cut(left, asked, ranks, 1)

    def _priorities(self, names: Sequence[TenantName]) -> list[int]:
        found = {self.rules.queues[name].priority for name in names}
        return sorted(found, reverse=True)


# -- what is covered ----------------------------------------------------------


def rank(gang: Standing) -> tuple[int, int, bool, float, int, str]:
    """Class, priority, running before waiting, age, turn, name."""
    urgency = (int(gang.workload_class), -gang.priority)
    return (*urgency, not gang.running, gang.since, gang.turn, gang.gang)


def walk(gangs: Sequence[Standing]) -> list[Standing]:
    """By rank; what extends a gang comes after it at the earliest, by rank as well."""
    ranks = {gang.gang: rank(gang) for gang in gangs}

    def place(gang: Standing) -> tuple[object, ...]:
        mine = rank(gang)
        core = mine if gang.core is None else ranks.get(gang.core, mine)
        return (max(mine, core), gang.core is not None, mine)

    return sorted(gangs, key=place)


def cover(
    rules: Rules, gangs: Sequence[Standing], owned: Mapping[Form, int]
) -> dict[GangId, Form]:
    """Take each whole gang that some way of spending the guarantee still pays for."""
    taken: dict[GangId, Form] = {}
    used: dict[Form, int] = {}
    present = {gang.gang for gang in gangs}
    for gang in walk(gangs):
        if gang.core in present and gang.core not in taken:
            continue  # what it extends is burst: so is it
        for form, quanta in ((gang.form, gang.quanta), *gang.also):
            more = {**used, form: used.get(form, 0) + quanta}
            if not unpaid(rules, more, owned):
                taken[gang.gang], used = form, more
                break
    return taken


def below_the_ancestor(
    rules: Rules, a: TenantName, b: TenantName
) -> tuple[TenantName, TenantName]:
    """The two siblings under the lowest common ancestor of two tenants."""
    above_a, above_b = rules.path(a), rules.path(b)
    ours = [queue for queue in above_a if queue not in above_b]
    theirs = [queue for queue in above_b if queue not in above_a]
    return (ours or [a])[-1], (theirs or [b])[-1]
