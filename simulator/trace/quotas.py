"""Which guarantees hold in a replay.

Hidden here: where guarantees come from when a trace names none, and the check that
what is promised can be kept: the sum of the guarantees never exceeds the capacity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scheduler.core import Form, Node, Queue, QuotaTree, TenantName
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
        When there are no nodes, or more is guaranteed than the nodes offer.
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
    try:
        tree = QuotaTree(queues)
    except ValueError as problem:
        raise TraceError("tenants", 0, "tenants", len(queues), str(problem)) from None
    for name in trace.tenant_names():
        if not tree.is_leaf(name):
            raise TraceError("tenants", 0, "tenant", name, "jobs need a leaf")
    offered = _capacity(nodes)
    promised: dict[Form, int] = {}
    for root in tree.children[None]:
        for form, count in tree.queues[root].guarantee:
            promised[form] = promised.get(form, 0) + count
    for form, count in sorted(promised.items()):
        if count > offered.get(form, 0):
            reason = f"guarantees of {form} exceed the {offered.get(form, 0)} offered"
            raise TraceError("tenants", 0, "guarantee", count, reason)
