"""Which guarantees hold in a replay.

Hidden here: where guarantees come from when a trace names none, and the check that
what is promised can be kept (the core's ``refusals``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scheduler.core import (
    Form,
    Node,
    Queue,
    TenantName,
    charge,
    class_of,
    refusals,
)
from simulator.trace.amounts import Counts
from simulator.trace.errors import TraceError
from simulator.trace.job import Trace


def settle(
    trace: Trace, nodes: Sequence[Node], given: Mapping[TenantName, Counts]
) -> Trace:
    """Return the trace with a cluster, and a guarantee for each of its tenants.

    `nodes` and `given` (guarantees by tenant) replace what the trace itself says.
    Where neither says anything about tenants, the cluster is divided equally among
    those that submit jobs, remainders to the first: a single tenant owns all of it.
    A tenant that only submits jobs, beside others that are described, has none.

    Raises
    ------
    TraceError
        When there are no nodes, or the tenants ask for what they may not have: more is
        guaranteed than the nodes offer, say.
    """
    nodes = tuple(nodes) or trace.nodes
    if not nodes:
        raise TraceError("cluster", 0, "nodes", "", "a cluster is needed")
    names = [*trace.tenant_names(), *given]
    if trace.tenants or given:
        tenants = _described(trace.tenants, names, given)
    else:
        tenants = _equal_parts(sorted(set(names)), _capacity(nodes))
    _check(tenants, nodes, trace)
    return replace(trace, nodes=nodes, tenants=tenants)


def _described(
    queues: Sequence[Queue],
    names: Sequence[TenantName],
    given: Mapping[TenantName, Counts],
) -> tuple[Queue, ...]:
    known = {queue.name for queue in queues}
    new = [name for name in dict.fromkeys(names) if name not in known]
    added = [Queue(name=n, order=len(known) + i) for i, n in enumerate(new)]
    return tuple(
        replace(queue, guarantee=given.get(queue.name, queue.guarantee))
        for queue in (*queues, *added)
    )


def _equal_parts(
    names: Sequence[TenantName], capacity: Mapping[Form, int]
) -> tuple[Queue, ...]:
    def part(place: int) -> Counts:
        return tuple(
            (form, count // len(names) + (place < count % len(names)))
            for form, count in capacity.items()
        )

    return tuple(
        Queue(name=name, guarantee=part(place), order=place)
        for place, name in enumerate(names)
    )


def _capacity(nodes: Sequence[Node]) -> dict[Form, int]:
    devices: dict[Form, int] = {}
    for node in nodes:
        for form, count in node.offers:
            devices[form] = devices.get(form, 0) + count
    return dict(sorted(devices.items()))


def _check(queues: Sequence[Queue], nodes: Sequence[Node], trace: Trace) -> None:
    there = _capacity(nodes)
    for group in trace.fleet.groups:
        if group.name in {str(class_of(form)) for form in there}:
            reason = "nodes offer a class of that name"
            raise TraceError("tenants", 0, "group", group.name, reason)
    quanta = {form: count * charge(form) for form, count in there.items()}
    found = refusals(queues, trace.fleet, quanta)
    if found:
        raise TraceError("tenants", 0, "quota", None, "; ".join(found))
    inner = {queue.parent for queue in queues}
    for name in trace.tenant_names():
        if name in inner:
            raise TraceError("tenants", 0, "tenant", name, "jobs need a leaf")
