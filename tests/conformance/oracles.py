"""Published formulas of the peers, restated from their description in exact fractions.

They tell where a peer's rounding shows in a case (`differences`), and check our reading
of formulas that the product does not use. They prove nothing about the product.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

Age = tuple[float, str]
Shares = dict[str, Fraction]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """One queue in a division; `request` is capped by its limit already.

    `guarantee` None is unlimited. `start` is what it holds before the over-quota phase,
    None when the guarantee decides that.
    """

    name: str
    request: Fraction
    guarantee: Fraction | None = Fraction(0)
    weight: Fraction = Fraction(1)
    priority: float = 0
    age: Age = (0.0, "")
    usage: Fraction = Fraction(0)
    start: Fraction | None = None

    def granted(self, total: Fraction) -> Fraction:
        """What it has before the rest is divided."""
        if self.start is not None:
            return self.start
        deserved = total if self.guarantee is None else self.guarantee
        return min(deserved, self.request)


def tiers(siblings: Sequence[Sibling]) -> list[list[Sibling]]:
    """Group by priority, higher first."""
    ranks = sorted({s.priority for s in siblings}, reverse=True)
    return [[s for s in siblings if s.priority == rank] for rank in ranks]


# -- KAI ----------------------------------------------------------------------


def kai_division(
    total: Fraction, siblings: Sequence[Sibling], k: Fraction = Fraction(0)
) -> Shares:
    """KAI's fair share: guarantees, rounds of every tier, then all leftovers."""
    run = _Kai(total, siblings, k)
    for tier in tiers(siblings):
        while run.rest > 0 and run.round(tier):
            pass
    for tier in tiers(siblings):
        run.give_leftovers(tier)
    return run.shares


@dataclass(slots=True)
class _Kai:
    total: Fraction
    siblings: Sequence[Sibling]
    k: Fraction
    shares: Shares = field(init=False)
    rest: Fraction = field(init=False)
    fractions: dict[str, Fraction] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.shares = {s.name: s.granted(self.total) for s in self.siblings}
        used = sum(
            (self.shares[s.name] for s in self.siblings if s.start is None), Fraction(0)
        )
        self.rest = max(Fraction(0), self.total - used)

    def round(self, tier: Sequence[Sibling]) -> bool:
        """Give once; whether somebody wanted less than it could have had."""
        parts = self._parts(tier)
        whole, amount, again = sum(parts.values(), Fraction(0)), self.rest, False
        if not whole:
            return False
        for sibling in tier:
            if not parts.get(sibling.name):
                continue
            want = sibling.request - self.shares[sibling.name]
            level = amount * parts[sibling.name] / whole
            part = want if want <= level else Fraction(math.floor(level))
            self.fractions[sibling.name] = (
                Fraction(0) if want <= level else level - part
            )
            self.shares[sibling.name] += part
            self.rest -= part
            again = again or want < level
        return again

    def _parts(self, tier: Sequence[Sibling]) -> Shares:
        short = [s for s in tier if s.request > self.shares[s.name]]
        weights = sum((s.weight for s in short), Fraction(0))
        if not weights:
            return {}
        found = {}
        for sibling in short:
            part = sibling.weight / weights
            tilted = part + self.k * (part - sibling.usage)
            found[sibling.name] = max(Fraction(0), tilted)
        return found

    def give_leftovers(self, tier: Sequence[Sibling]) -> None:
        """Give what rounding left, a unit each: largest fraction first, then oldest."""
        for sibling in sorted(
            tier, key=lambda s: (-self.fractions.get(s.name, 0), s.age)
        ):
            if self.fractions.get(sibling.name):
                part = min(Fraction(1), self.rest)
                self.shares[sibling.name] += part
                self.rest -= part


# -- the stricter rule --------------------------------------------------------


def strict_division(
    total: Fraction, siblings: Sequence[Sibling], step: Fraction = Fraction(1)
) -> Shares:
    """Weighted max-min per tier, rounded inside the tier, never beyond a request."""
    shares = {s.name: s.granted(total) for s in siblings}
    used = sum((shares[s.name] for s in siblings if s.start is None), Fraction(0))
    rest = max(Fraction(0), total - used)
    for tier in tiers(siblings):
        wants = {
            s.name: s.request - shares[s.name]
            for s in tier
            if s.weight > 0 and s.request > shares[s.name]
        }
        for name, part in _fill(rest, wants, {s.name: s for s in tier}, step).items():
            shares[name] += part
            rest -= part
    return shares


def _fill(
    rest: Fraction, wants: Shares, of: Mapping[str, Sibling], step: Fraction
) -> Shares:
    open_, given = dict(wants), dict.fromkeys(wants, Fraction(0))
    spare = rest
    while open_:
        weight = sum((of[name].weight for name in open_), Fraction(0))
        level = {name: spare * of[name].weight / weight for name in open_}
        sated = [name for name in open_ if open_[name] <= level[name]]
        if not sated:
            break
        for name in sated:
            given[name] = open_.pop(name)
            spare -= given[name]
    else:
        return given
    for name in open_:
        given[name] = step * math.floor(level[name] / step)
        spare -= given[name]
    order = sorted(open_, key=lambda name: (given[name] - level[name], of[name].age))
    for name in order:
        part = min(step, spare, wants[name] - given[name])
        given[name] += part
        spare -= part
    return given


MOST_TILT = 4


def tilted_once(
    total: Fraction, siblings: Sequence[Sibling], k: Fraction
) -> list[Sibling]:
    """Tilt weights by past use as KAI's first round does, but within bounds."""
    found = []
    for tier in tiers(siblings):
        short = [s.weight for s in tier if s.request > s.granted(total)]
        whole = sum(short, Fraction(0))
        for sibling in tier:
            factor = Fraction(1)
            if sibling.weight and whole:
                factor += k * (1 - sibling.usage * whole / sibling.weight)
            bounded = min(max(factor, Fraction(1, MOST_TILT)), Fraction(MOST_TILT))
            found.append(replace(sibling, weight=sibling.weight * bounded))
    return found


# -- Koordinator --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaNode:
    """One quota of Koordinator's runtime division."""

    name: str
    weight: int
    request: int
    least: int
    lends: bool

    @property
    def start(self) -> int:
        """What it holds before the rest is divided."""
        if self.request > self.least or not self.lends:
            return self.least
        return self.request


def koordinator_runtime(total: int, nodes: Sequence[QuotaNode]) -> dict[str, int]:
    """Largest remainders in every round, what the sated hand back in the next."""
    runtime = {node.name: node.start for node in nodes}
    rest = total - sum(runtime.values())
    short = [node for node in nodes if node.request > node.least]
    while rest > 0 and sum(max(0, node.weight) for node in short) > 0:
        for name, part in _hamilton(rest, short).items():
            runtime[name] += part
        rest = sum(max(0, runtime[n.name] - n.request) for n in short)
        for node in short:
            runtime[node.name] = min(runtime[node.name], node.request)
        short = [node for node in short if runtime[node.name] < node.request]
    return runtime


def _hamilton(rest: int, nodes: Sequence[QuotaNode]) -> dict[str, int]:
    weights = {node.name: max(0, node.weight) for node in nodes}
    whole = sum(weights.values())
    given = {name: rest * weight // whole for name, weight in weights.items()}
    left = rest - sum(given.values())
    order = sorted(weights, key=lambda name: (-(rest * weights[name] % whole), name))
    for name in order[:left]:
        given[name] += 1
    return given


# -- YuniKorn -----------------------------------------------------------------

Amounts = Mapping[str, float]


def yunikorn_share(alloc: Amounts, guaranteed: Amounts, fair_max: Amounts) -> float:
    """Dominant share of a queue: use over guarantee, or over the maximum."""
    shares = [0.0]
    for name, used in alloc.items():
        whole = guaranteed.get(name, fair_max.get(name))
        if whole is None or used < 0:
            continue
        if whole <= 0:
            shares.append(1.0 if used > 0 else 0.0)
        else:
            shares.append(used / whole)
    return max(shares)


def yunikorn_vector(used: Amounts, total: Amounts) -> list[float]:
    """Shares of the total, largest first; without a total the use itself."""
    found = (v / (total.get(k) or 1) if v else 0.0 for k, v in used.items())
    return sorted(found, reverse=True)


def yunikorn_compare(left: Sequence[float], right: Sequence[float]) -> int:
    """Compare vectors: 1 when the left is larger; what one lacks counts as 0."""
    size = max(len(left), len(right))
    ours, theirs = ((*v, *[0.0] * (size - len(v))) for v in (left, right))
    for a, b in zip(ours, theirs, strict=True):
        if a != b:
            return 1 if a > b else -1
    return 0


def yunikorn_ratio(left: Sequence[float], right: Sequence[float]) -> float:
    """Fairness ratio of two vectors: largest over largest, 0/0 is 1."""
    ours, theirs = (v[0] if v else 0.0 for v in (left, right))
    if theirs:
        return ours / theirs
    return math.copysign(math.inf, ours) if ours else 1.0
