"""KAI's checks on queues: whose turn it is, and what a limit or a quota lets in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from scheduler.core import fairness, quota
from scheduler.core.workload import TenantName
from tests.conformance.amounts import bound, exact, scale_of, sliver, table, whole
from tests.conformance.verdict import Case, Verdict

OVER_LIMIT = "over_limit"
OVER_QUOTA = "nonpreemptible_over_quota"

_RESOURCES = ("gpu", "cpu_millis", "memory")
_FORM = sliver("resource")  # each resource is asked for alone, in a tree of its own


# -- whose turn it is ---------------------------------------------------------


def queue_order(case: Case) -> Verdict:
    """Judge which of two queues with a waiting job goes first."""
    sides = {name: table(case[name]) for name in ("left", "right")}
    jobs = {name: _job(case, table(case.get(f"{name}_job"))) for name in sides}
    keys = {
        name: _turn(
            side,
            jobs[name],
            _age_rank(sides, name),
            _scale(sides, jobs),
            case.get("total_gpus"),
        )
        for name, side in sides.items()
    }
    first = min(keys, key=lambda name: keys[name])
    expected = case["expected"]["first"]
    named = {sides[name].get("name", name): name for name in sides}
    return Verdict(named.get(expected, expected) == first, first, expected)


def _job(case: Case, job: Mapping[str, Any]) -> dict[str, Fraction]:
    """What the waiting job asks for.

    GPU memory counts as its part of the smallest GPU's, and for nothing where that is
    not told.
    """
    found = {r: exact(job[r]) for r in _RESOURCES if job.get(r) is not None}
    memory = job.get("gpu_memory_mib_per_device")
    part = Fraction(1)
    if memory is not None:
        least = exact(case.get("min_node_gpu_memory_mib"))
        part = exact(memory) / least if least else Fraction(0)
    devices = job.get("devices", None if memory is None else 1)
    return {**found, "gpu": found.get("gpu", Fraction(0)) + exact(devices) * part}


def _scale(sides: Mapping[str, Any], jobs: Mapping[str, Mapping[str, Fraction]]) -> int:
    amounts = [amount for job in jobs.values() for amount in job.values()]
    for side in sides.values():
        for entry in table(side.get("resources")).values():
            amounts += [exact(entry.get(k)) for k in ("deserved", "fair_share")]
            amounts += [exact(entry.get(k)) for k in ("allocated", "limit")]
    return scale_of(amounts)


def _age_rank(sides: Mapping[str, Any], name: str) -> int:
    ages = {n: (side.get("created") or 0, n) for n, side in sides.items()}
    return sorted(sides, key=lambda n: ages[n]).index(name)


def _turn(
    side: Mapping[str, Any],
    job: Mapping[str, Fraction],
    order: int,
    scale: int,
    total: Any,
) -> tuple[Any, ...]:
    """Ask the product for the key of the queue's dominant resource."""
    resources = table(side.get("resources"))
    covered = all(
        _covers(entry, job.get(r, Fraction(0))) for r, entry in resources.items()
    )
    return max(
        fairness.turn(
            covered=covered,
            used=whole(exact(entry.get("allocated")) * scale),
            quanta=whole(job.get(resource, Fraction(0)) * scale),
            share=whole(_share(entry, total) * scale),
            priority=int(side.get("priority") or 0),
            borrowed=0,
            order=order,
        )
        for resource, entry in (resources or {"gpu": {}}).items()
    )


def _covers(entry: Mapping[str, Any], job: Fraction) -> bool:
    deserved = entry.get("deserved")
    owned = Fraction(0) if deserved is None else bound(deserved)
    return owned is None or exact(entry.get("allocated")) + job <= owned


def _share(entry: Mapping[str, Any], total: Any) -> Fraction:
    """What the queue may hold now: KAI's allocatable share."""
    limit = bound(entry.get("limit"))
    deserved = entry.get("deserved")
    owned = Fraction(0) if deserved is None else bound(deserved)
    share = exact(entry.get("fair_share"))
    if owned is None:  # its limit; where nothing binds, all there is
        return limit or (share if total is None else exact(total))
    share = max(owned, share)
    return share if limit is None else min(share, limit)


# -- what is let in -----------------------------------------------------------


def capacity_check(case: Case) -> Verdict:
    """Judge a request for several resources against one queue's bounds."""
    request, in_use = table(case["request"]), table(case.get("in_use"))
    bounds = table(case.get("bound"))
    short = []
    for resource in sorted(request):
        queue = {
            "name": "queue",
            "resources": {
                resource: {
                    "bound": bounds.get(resource, -1),
                    "used": in_use.get(resource),
                }
            },
        }
        if not _fits([queue], "queue", resource, request[resource], case["check"]):
            short.append(resource)
    expected = case["expected"]
    agrees = bool(short) == bool(expected["blocked"])
    named = expected.get("resource")
    if agrees and named is not None:
        agrees = named in short
    return Verdict(agrees, {"blocked": bool(short), "short of": short}, expected)


def capacity_check_tree(case: Case) -> Verdict:
    """Judge a request against the bounds of a queue and all above it."""
    job, request = table(case["job"]), table(case["request"])
    check = case["check"]
    fields = {
        OVER_LIMIT: ("limit", "allocated"),
        OVER_QUOTA: ("deserved", "allocated_nonpreemptible"),
    }[check]
    free = check == OVER_QUOTA and bool(job.get("preemptible"))
    short = [
        resource
        for resource in sorted(request)
        if not _fits(
            [_bounded(queue, resource, fields, free) for queue in case["queues"]],
            str(job["queue"]),
            resource,
            request[resource],
            check,
        )
    ]
    expected = case["expected"]
    got = {"schedulable": not short, "short of": short}
    return Verdict(bool(expected["schedulable"]) == (not short), got, expected)


def _bounded(
    queue: Mapping[str, Any], resource: str, fields: tuple[str, str], free: bool
) -> dict[str, Any]:
    """Reduce a queue to its bound and use; work that may be evicted is not bound."""
    entry = table(table(queue.get("resources")).get(resource))
    limit = -1 if free else entry.get(fields[0], -1)
    return {
        "name": str(queue["name"]),
        "parent": queue.get("parent"),
        "resources": {resource: {"bound": limit, "used": entry.get(fields[1])}},
    }


def _fits(
    queues: Sequence[Mapping[str, Any]],
    at: str,
    resource: str,
    request: Any,
    check: str,
) -> bool:
    """Ask the product for the room at a leaf; a request for nothing always fits."""
    if not exact(request) > 0:
        return True
    entries = [queue["resources"][resource] for queue in queues]
    amounts = [exact(request), *(exact(entry["used"]) for entry in entries)]
    scale = scale_of([*amounts, *(bound(entry["bound"]) for entry in entries)])
    tree = quota.QuotaTree(_tree(queues, scale, check))
    tree.capacity = {_FORM: quota.UNLIMITED}
    for name, amount in _own_use(queues, resource).items():
        tree.charge(_others(name), _FORM, whole(amount * scale))
    return whole(exact(request) * scale) <= tree.room(TenantName(at), _FORM)


def _others(name: str) -> TenantName:
    """Name the leaf that holds what a queue uses outside of its children."""
    return TenantName(f"{name}: others")


def _tree(
    queues: Sequence[Mapping[str, Any]], scale: int, check: str
) -> Iterator[quota.Queue]:
    bounds = {q["name"]: bound(*_field(q, "bound")) for q in queues}
    parents = {q["name"]: q.get("parent") for q in queues}
    for name, limit in bounds.items():
        above = parents[name] if parents[name] in bounds else None
        counts = () if limit is None else ((_FORM, whole(limit * scale)),)
        owned = _owned(name, bounds, parents)
        queue = quota.Queue(
            name=TenantName(name), parent=None if above is None else TenantName(above)
        )
        if check == OVER_LIMIT:
            yield replace(queue, limit=counts)
        elif check == OVER_QUOTA:
            yield replace(
                queue,
                guarantee=((_FORM, whole(owned * scale)),),
                borrowing_limit=tuple((form, 0) for form, _ in counts),
            )
        else:
            raise ValueError(f"unknown check {check!r}")
        yield quota.Queue(name=_others(name), parent=TenantName(name))


def _field(queue: Mapping[str, Any], name: str) -> list[Any]:
    return [entry[name] for entry in queue["resources"].values()]


def _owned(
    name: str,
    bounds: Mapping[str, Fraction | None],
    parents: Mapping[str, str | None],
) -> Fraction:
    """What a queue is guaranteed: its bound, else whatever those below it are."""
    own = bounds[name]
    if own is not None:
        return own
    below = (child for child, parent in parents.items() if parent == name)
    return sum((_owned(child, bounds, parents) for child in below), Fraction(0))


def _own_use(queues: Sequence[Mapping[str, Any]], resource: str) -> dict[str, Fraction]:
    """What each queue uses beyond what its children use together."""
    used = {q["name"]: exact(q["resources"][resource]["used"]) for q in queues}
    own = dict(used)
    for queue in queues:
        if queue.get("parent") in own:
            own[queue["parent"]] -= used[queue["name"]]
    return own
