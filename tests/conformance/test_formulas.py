"""The product against the peers' published formulas, on cases made at random.

The tables of the peers are short; here their arithmetic answers for rows nobody wrote.
"""

from fractions import Fraction
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.conformance.amounts import exact, plain
from tests.conformance.differences import kai_levels
from tests.conformance.kinds import ADAPTERS, kai_shares, koordinator
from tests.conformance.kinds.kueue_tree import COHORT, cohort_name, queue_name
from tests.conformance.kueue_oracle import KueueOracle
from tests.conformance.oracles import Shares, kai_division, strict_division
from tests.conformance.runner import judge
from tests.strategies import MANY

SMALL = st.integers(0, 12)
HALVES = st.integers(0, 24).map(lambda n: n / 2)
LIMITS = st.none() | HALVES
WEIGHTS = st.sampled_from([1, 2, 0.5, 0.99, 1.01])
RESOURCES = ("cpu", "gpu")


# -- KAI ----------------------------------------------------------------------


def kai_queues(name: str = "q", parent: str | None = None) -> st.SearchStrategy[Any]:
    """Lists of queues below one parent."""
    queue = st.fixed_dictionaries(
        {
            "priority": st.sampled_from([0, 0, 1]),
            "deserved": st.integers(0, 5) | st.just(-1),
            "over_quota_weight": st.integers(0, 3),
            "limit": st.just(-1) | SMALL,
            "request": SMALL,
            "created": st.integers(0, 2),
        }
    )
    return st.lists(queue, min_size=1, max_size=4).map(
        lambda rows: [
            {**row, "name": f"{name}{i}", "parent": parent}
            for i, row in enumerate(rows)
        ]
    )


@MANY
@given(st.integers(0, 30), kai_queues())
def test_division_is_the_strict_rule(total: int, queues: list[Any]) -> None:
    """Exact level per tier, rounded once inside the tier (peers.md 2.2)."""
    siblings = kai_shares.siblings_of({"queues": queues})
    got = kai_shares.divide(Fraction(total), siblings)
    assert got == strict_division(Fraction(total), siblings)


@MANY
@given(st.integers(0, 30), kai_queues(), st.sampled_from([0, 0, 1]))
def test_no_flat_row_of_kai_could_fail(total: int, queues: list[Any], k: int) -> None:
    """Where our answer is not KAI's own, a named difference says why."""
    case = {"kind": "fair_share", "total": total, "k_value": k, "queues": queues}
    siblings = kai_shares.siblings_of(case)
    shares = kai_division(Fraction(total), siblings, exact(k))
    expected = {name: plain(share) for name, share in shares.items()}
    result = judge({**case, "expected": {"fair_share": expected}}, "x")
    assert result.outcome in ("passed", "differs"), result.reason


@st.composite
def kai_trees(draw: st.DrawFn) -> dict[str, Any]:
    """Two levels; parents ask for what their children ask for, and are not limited."""
    tops = draw(kai_queues("t"))
    rows = []
    for top in tops:
        children = draw(kai_queues(f"{top['name']}c", top["name"]))
        asked = sum(
            kai_shares.siblings_of({"queues": [c]})[0].request for c in children
        )
        rows += [{**top, "limit": -1, "request": plain(Fraction(asked))}, *children]
    total = draw(st.integers(0, 40))
    return {"kind": "fair_share_hierarchical", "total": total, "queues": rows}


@MANY
@given(kai_trees())
def test_no_tree_of_kai_could_fail(case: dict[str, Any]) -> None:
    shares: Shares = {}
    for level in kai_levels(case):
        shares |= kai_division(level.total, level.siblings)
    expected = {name: plain(share) for name, share in shares.items()}
    result = judge({**case, "expected": {"fair_share": expected}}, "x")
    assert result.outcome in ("passed", "differs"), result.reason


# -- Koordinator --------------------------------------------------------------

NODES = st.lists(
    st.fixed_dictionaries(
        {
            "shared_weight": st.integers(0, 5),
            "request": SMALL,
            "min": st.integers(0, 6),
            "guarantee": st.integers(0, 6),
            "lend": st.booleans(),
            "max": st.none() | SMALL,
        }
    ),
    min_size=1,
    max_size=5,
)


@MANY
@given(st.integers(0, 40), NODES)
def test_koordinators_division_is_ours_rounded_once(
    total: int, rows: list[Any]
) -> None:
    nodes = [{**row, "name": f"n{i}"} for i, row in enumerate(rows)]
    case = {"kind": "koordinator_runtime_quota", "total": total, "nodes": nodes}
    assert koordinator.divide(case) == koordinator.rounded_once(case)
    result = judge({**case, "expected": koordinator.published(case)}, "x")
    assert result.outcome in ("passed", "differs"), result.reason


# -- Kueue --------------------------------------------------------------------


@st.composite
def quotas(draw: st.DrawFn) -> list[dict[str, Any]]:
    keys = [(f, r) for f in ("red", "blue") for r in RESOURCES]
    found = []
    for flavor, resource in draw(st.lists(st.sampled_from(keys), unique=True)):
        row: dict[str, Any] = {"flavor": flavor, "resource": resource}
        row["nominal"] = draw(HALVES)
        row["borrowingLimit"], row["lendingLimit"] = draw(LIMITS), draw(LIMITS)
        found.append(row)
    return found


@st.composite
def families(draw: st.DrawFn, deepest: int = 3) -> dict[str, Any]:
    """Cohorts below one root, queues anywhere, and what they use of their flavors."""
    cohorts: list[dict[str, Any]] = [{"name": "root", "quotas": draw(quotas())}]
    for i in range(draw(st.integers(0, deepest))):
        parent = draw(st.sampled_from([row["name"] for row in cohorts]))
        row = {"name": f"c{i}", "parent": parent, "weight": draw(WEIGHTS)}
        cohorts.append({**row, "quotas": draw(quotas())})
    queues, admitted = [], []
    for i in range(draw(st.integers(1, 4))):
        name, owned = f"q{i}", draw(quotas())
        cohort = draw(st.sampled_from([row["name"] for row in cohorts]))
        row = {"name": name, "cohort": cohort, "weight": draw(WEIGHTS), "quotas": owned}
        queues.append(row)
        for rule in owned:
            usage = {key: rule[key] for key in ("flavor", "resource")}
            for _ in range(draw(st.integers(0, 2))):
                amount = draw(HALVES)
                admitted.append({"queue": name, "usage": [{**usage, "amount": amount}]})
    return {"cohorts": cohorts, "clusterQueues": queues, "admitted": admitted}


@MANY
@given(families())
def test_available_quota_is_kueues(case: dict[str, Any]) -> None:
    oracle = KueueOracle(case)
    expected: dict[str, Any] = {"available": {}, "potential": {}}
    for what, idle in (("available", False), ("potential", True)):
        for row in case["clusterQueues"]:
            node, found = queue_name(row["name"]), []
            for rule in row["quotas"]:
                key = rule["flavor"], rule["resource"]
                amount = max(Fraction(0), oracle.available(node, key, idle=idle))
                named = {"flavor": key[0], "resource": key[1]}
                found.append({**named, "amount": plain(amount)})
            expected[what][row["name"]] = found
    verdict = ADAPTERS["available-quota"]({**case, "expected": expected})
    assert verdict.agrees, verdict


@MANY
@given(families())
def test_dominant_shares_are_kueues(case: dict[str, Any]) -> None:
    oracle = KueueOracle(case)
    nodes = [(row["name"], COHORT) for row in case["cohorts"]]
    nodes += [(row["name"], "clusterQueue") for row in case["clusterQueues"]]
    rows = []
    for name, kind in nodes:
        node = cohort_name(name) if kind == COHORT else queue_name(name)
        rows.append(
            {
                "node": name,
                "nodeType": kind,
                "share": oracle.share(node),
                "dominantResource": oracle.ratio(node)[1],
                "borrowing": bool(oracle.over(node)),
            }
        )
    verdict = ADAPTERS["dominant-share"]({**case, "expected": {"shares": rows}})
    assert verdict.agrees, verdict


@MANY
@given(families(deepest=0), st.data())
def test_among_siblings_kueues_next_victim_is_ours(
    case: dict[str, Any], data: st.DataObject
) -> None:
    """One resource: with several, Kueue's dominant one may change between siblings."""
    for row in (*case["cohorts"], *case["clusterQueues"]):
        row["quotas"] = [q for q in row["quotas"] if q["resource"] == "gpu"]
    used = [row for row in case["admitted"] if row["usage"][0]["resource"] == "gpu"]
    names = [row["name"] for row in case["clusterQueues"]]
    case |= {
        "admitted": used,
        "incoming": {"queue": data.draw(st.sampled_from(names))},
        "candidateQueues": data.draw(st.lists(st.sampled_from(names), unique=True)),
    }
    order = KueueOracle(case).order(case)
    verdict = ADAPTERS["fair-victim-queue-order"](
        {**case, "expected": {"order": order}}
    )
    assert verdict.agrees, verdict


POLICIES = ("Never", "LowerPriority", "LowerOrNewerEqualPriority", "Any")
TIMES = st.none() | st.integers(0, 2)


@MANY
@given(st.sampled_from(POLICIES), *[st.integers(-1, 1)] * 4, TIMES, TIMES)
def test_policies_are_kueues(
    policy: str, mine: int, boost: int, its: int, lift: int, at: Any, then: Any
) -> None:
    ours, theirs = mine + boost, its + lift
    newer = -1 if at is None else at
    newer = newer < (-1 if then is None else then)
    allowed = {
        "Never": False,
        "LowerPriority": ours > theirs,
        "LowerOrNewerEqualPriority": ours > theirs or (ours == theirs and newer),
        "Any": True,
    }
    case = {
        "kind": "policy-check",
        "policy": policy,
        "incoming": {"priority": mine, "priorityBoost": boost, "createdAt": at},
        "admitted": [{"priority": its, "priorityBoost": lift, "createdAt": then}],
        "expected": {"mayPreempt": allowed[policy]},
    }
    assert judge(case, "x").outcome == "passed"


@MANY
@given(HALVES, HALVES, st.integers(1, 1000), st.integers(0, 5000))
def test_use_decays_as_kueues(start: float, use: float, half: int, after: int) -> None:
    """Samples of constant use add up to the closed form."""
    level = start
    for _ in range(after // 10):
        level += (1 - 0.5 ** (10 / half)) * (use - level)
    given_ = {"usage": use, "startConsumed": start, "halfLifeSeconds": half}
    case = {
        "kind": "usage-decay",
        "input": {**given_, "sampleSeconds": 10, "samples": after // 10},
        "expected": {"consumed": level, "tolerance": 1e-6},
    }
    assert judge(case, "x").outcome == "passed"


# -- whose turn it is -----------------------------------------------------------


@st.composite
def sides(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A queue of KAI as its division could leave it."""
    deserved, limit = draw(SMALL | st.just(-1)), draw(st.just(-1) | st.integers(1, 12))
    request = draw(SMALL) if limit < 0 else min(limit, draw(SMALL))
    owned = request if deserved < 0 else min(deserved, request)
    entry = {"deserved": deserved, "limit": limit, "request": request}
    entry["fair_share"] = draw(st.integers(owned, request))
    entry["allocated"] = draw(st.integers(0, request))
    priority = draw(st.sampled_from([0, 0, 1]))
    return {"name": name, "priority": priority, "resources": {"gpu": entry}}


def kai_key(side: Any, job: int, total: int) -> tuple[Any, ...]:
    """KAI's order of two queues (peers.md 2.1), one resource."""
    entry = side["resources"]["gpu"]
    used, deserved, limit = entry["allocated"], entry["deserved"], entry["limit"]
    most = limit
    if deserved >= 0:
        share = max(deserved, entry["fair_share"])
        most = share if limit < 0 else min(limit, share)
    most = total if most < 0 else most
    return (
        used > entry["fair_share"],
        not (deserved < 0 or used + job <= deserved),
        -side["priority"],
        not most and used + job > 0,
        *(
            Fraction(n, most) if most else Fraction(1000 * n)
            for n in (used + job, used)
        ),
        most,
    )


@MANY
@given(sides("left"), sides("right"), SMALL, SMALL)
def test_queues_take_turns_as_kais(
    left: Any, right: Any, ours: int, theirs: int
) -> None:
    keys = kai_key(left, ours, 40), kai_key(right, theirs, 40)
    case = {
        "kind": "queue_order",
        "left": left,
        "right": right,
        "left_job": {"devices": ours},
        "right_job": {"devices": theirs},
        "total_gpus": 40,
        "expected": {"first": "left" if keys[0] <= keys[1] else "right"},
    }
    # what is left open: two queues of no share, and those told apart by its size alone
    assume(keys[0][:-1] != keys[1][:-1] and (keys[0][-1] or keys[1][-1]))
    assert judge(case, "x").outcome == "passed"
