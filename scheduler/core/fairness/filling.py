"""Water-filling in exact integers, for many groups of claims at once.

In each group a level rises until the capacity is used; a claim gets the level times its
weight, and never more than it wants. What rounding leaves over goes unit by unit to the
largest fractions, then to the claim that is listed first.

Claims are columns of numpy arrays, groups lie one behind the other. Products of amounts
and weights that could pass 63 bits are computed in Python's integers instead: slower,
and as exact.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_SAFE = 1 << 62


def fill_groups(rest: Ints, group: Ints, wants: Ints, weights: Ints) -> Ints:
    """Divide ``rest[g]`` among the claims of each group g.

    Parameters
    ----------
    rest
        What there is for each group, in units.
    group
        Group of each claim, ascending.
    wants, weights
        What each claim wants, in units, and its weight. A claim of weight 0 gets
        nothing.

    Returns
    -------
    array
        What each claim gets, in units.
    """
    given = np.zeros(len(wants), np.int64)
    live = np.flatnonzero((wants > 0) & (weights > 0) & (rest[group] > 0))
    if not len(live):
        return given
    rest, wants, weights = _wide_enough(rest, wants, weights)
    left = rest.copy()
    while len(live):
        served = _serve_sated(left, group[live], wants[live], weights[live])
        if not served.any():
            break
        done = live[served]
        given[done] = wants[done]
        np.subtract.at(left, group[done], wants[done])
        live = live[~served]
    if len(live):
        given[live] += _round(left, group[live], weights[live])
    return given


def _wide_enough(rest: Ints, wants: Ints, weights: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the amounts as Python integers where products could overflow."""
    amount = max(int(np.max(rest)), int(np.max(wants)) * len(wants))
    if amount * int(np.max(weights)) * len(weights) < _SAFE:
        return rest, wants, weights
    return rest.astype(object), wants.astype(object), weights.astype(object)


def _starts(group: Ints) -> Ints:
    """Where each group begins; groups are ascending."""
    return np.flatnonzero(np.diff(group, prepend=-1))


def _serve_sated(
    rest: Ints, group: Ints, wants: Ints, weights: Ints
) -> NDArray[np.bool_]:
    """Find claims that the level passes: each wants no more than its part of the rest.

    They are looked at by want per weight, each as if those before it were served, up to
    the first that is not passed. The order is a guess in floating point that saves
    rounds; whether a claim is passed is decided in integers.
    """
    ratio = wants.astype(np.float64) / weights.astype(np.float64)
    order = np.lexsort((ratio, group))
    starts = _starts(group)
    place = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(group)))
    want, weight = wants[order], weights[order]
    before = np.cumsum(want) - want
    before = before - before[starts][place]
    lighter = np.cumsum(weight) - weight
    lighter = lighter - lighter[starts][place]
    total = np.add.reduceat(weights, starts)[place]
    there = rest[group]
    passed = want * (total - lighter) <= (there - before) * weight
    stopped = np.cumsum(~passed.astype(np.bool_))
    base = stopped[starts] - ~passed[starts].astype(np.bool_)
    served = np.zeros(len(group), np.bool_)
    served[order] = stopped == base[place]
    return served


def _round(rest: Ints, group: Ints, weights: Ints) -> Ints:
    """Divide the rest in proportion, in whole units: largest remainder, then first."""
    starts = _starts(group)
    place = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(group)))
    there, total = rest[group], np.add.reduceat(weights, starts)[place]
    part = there * weights // total
    fraction = there * weights - part * total
    spare = rest[group[starts]] - np.add.reduceat(part, starts)
    by_fraction = np.argsort(-fraction, kind="stable")
    order = by_fraction[np.argsort(group[by_fraction], kind="stable")]
    turn = np.arange(len(group)) - starts[place]
    given: Ints = part.astype(np.int64)
    given[order[(turn < spare[place]).astype(np.bool_)]] += 1
    return given
