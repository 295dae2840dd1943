"""The one-file form that a person can write by hand.

A text file of sections, each a small CSV whose first line names its columns.
Columns may come in any order, optional ones may be left out, an empty cell means the
default, blank lines and lines that begin with ``#`` are skipped::

    [nodes]
    name,count,offers
    h100,4,h100-80gb:8

    [tenants]
    name,guarantee
    search,h100-80gb:8
    research,h100-80gb:24

    [jobs]
    id,tenant,class,submit_s,duration_s,gpus,pods
    train-1,research,training,0,3600,8,2
    serve-1,search,inference,600,1200,1,

``[nodes]``
    ``name``; ``count`` (default 1; above 1 the names get a number); ``offers``:
    devices per form, split by blanks; ``gpus``: physical GPUs of a node (default: the
    devices offered; needed where MIG slices are offered); ``cpu_milli`` and
    ``memory_mib`` (0: not tracked).
``[tenants]``
    ``name``; ``parent``; ``guarantee``, ``borrowing_limit``, ``lending_limit``,
    ``limit``: devices per form or group; ``weight`` (1); ``priority`` (0); ``burst``:
    most it may borrow, as a multiple of its guarantee by value; ``inference_burst``,
    ``inference_critical``: devices that may count as such; ``preempt_within``: never,
    lower-priority (default) or lower-or-newer-equal-priority.
``[groups]``
    ``name`` of a class group; ``members``: GPU classes or other groups, split by
    blanks.
``[fleet]``
    one row: ``burst_ceiling``: devices per form or group; ``values``: worth of GPU
    classes (``h100-80gb:1.75``); ``half_life_s`` (0: no usage memory) and
    ``memory_strength`` (1).
``[jobs]``
    ``id``; ``tenant``; ``class``: inference-critical, inference, training or batch;
    ``submit_s``, ``duration_s``; ``gpus`` of each pod; ``pods`` (1); ``last_gpus``:
    GPUs of the last pod where it is smaller; ``gpu_classes`` in order of preference,
    split by blanks (default: any); ``profile``: MIG profile, ``gpus`` then counts
    slices; ``gpu_milli``: thousandths of one GPU instead of ``gpus``; ``cpu_milli``,
    ``memory_mib`` of each pod; ``priority`` (0); ``checkpoint_interval_s`` (default:
    1800 for training, 1 for inference, which keeps what it served, 0 for batch: an
    eviction loses all); ``restart_s`` (0); ``on_request`` (yes): writes a checkpoint
    when asked to.

Nodes and tenants may be missing here and come from elsewhere.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from scheduler.core import (
    QUANTA_PER_GPU,
    Demand,
    Fleet,
    Form,
    Group,
    Node,
    NodeName,
    PreemptWithin,
    Queue,
    TenantName,
    parse_form,
    profile_of,
    workload_class,
)
from simulator.trace.amounts import (
    Counts,
    format_counts,
    format_milli,
    format_values,
    parse_counts,
    parse_milli,
    parse_values,
)
from simulator.trace.errors import RowErrors, TraceError
from simulator.trace.job import (
    Trace,
    TraceJob,
    default_checkpoint_interval_s,
    in_order,
)
from simulator.trace.rows import Row

T = TypeVar("T")

QUANTA_PER_MILLI = QUANTA_PER_GPU // 1000

_COLUMNS = {
    "nodes": "name count offers gpus cpu_milli memory_mib",
    "tenants": "name parent guarantee borrowing_limit lending_limit limit weight"
    " priority burst inference_burst inference_critical preempt_within",
    "groups": "name members",
    "fleet": "burst_ceiling values half_life_s memory_strength",
    "jobs": "id tenant class submit_s duration_s gpus pods last_gpus gpu_classes"
    " profile gpu_milli cpu_milli memory_mib priority checkpoint_interval_s restart_s"
    " on_request",
}
_NOTHING: Counts = ()
_LOWER = PreemptWithin.LOWER_PRIORITY
_NEEDED = {
    "nodes": ("name", "offers"),
    "tenants": ("name",),
    "groups": ("name", "members"),
    "fleet": (),
    "jobs": ("id", "tenant", "class", "submit_s", "duration_s"),
}


# -- reading ------------------------------------------------------------------


def read_normal(path: Path, errors: RowErrors) -> Trace:
    """Read a file in normal form.

    Raises
    ------
    TraceError
        When the file has no sections or a column is unknown, and for the first bad
        row unless `errors` skips them.
    """
    nodes: list[Node] = []
    tenants: list[Queue] = []
    groups: list[Group] = []
    fleet = Fleet()
    jobs: list[TraceJob] = []
    seen: set[tuple[str, str]] = set()
    with path.open(newline="", encoding="utf-8") as stream:
        for section, row in _rows(path.name, stream, errors):
            try:
                _once(row, section, seen)
                if section == "nodes":
                    nodes += _node(row)
                elif section == "tenants":
                    tenants.append(_checked(row, len(tenants)))
                elif section == "groups":
                    groups.append(_group(row))
                elif section == "fleet":
                    fleet = _fleet(row)
                else:
                    jobs.append(_job(row))
            except TraceError as problem:
                errors.report(problem)
    return Trace(
        jobs=in_order(jobs),
        tenants=tuple(tenants),
        nodes=tuple(nodes),
        fleet=replace(fleet, groups=tuple(groups)),
        errors=errors,
    )


def _rows(
    source: str, lines: Iterable[str], errors: RowErrors
) -> Iterator[tuple[str, Row]]:
    section, header = "", list[str]()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("["):
            section, header = _section(source, number, text), []
            continue
        if not section:
            known = ", ".join(f"[{name}]" for name in _COLUMNS)
            raise TraceError(source, number, "section", text, f"one of {known} first")
        cells = [cell.strip() for cell in next(csv.reader([text]))]
        if not header:
            header = _header(source, number, section, cells)
        elif len(cells) != len(header):
            reason = f"{len(header)} cells are needed, found {len(cells)}"
            errors.report(TraceError(source, number, "row", text, reason))
        else:
            yield section, Row(source, number, dict(zip(header, cells, strict=True)))


def _section(source: str, line: int, text: str) -> str:
    name = text.strip("[]")
    if name not in _COLUMNS or text != f"[{name}]":
        known = ", ".join(f"[{section}]" for section in _COLUMNS)
        raise TraceError(source, line, "section", text, f"one of {known} is needed")
    return name


def _header(source: str, line: int, section: str, cells: list[str]) -> list[str]:
    known = _COLUMNS[section].split()
    for cell in cells:
        if cell not in known or cells.count(cell) > 1:
            reason = f"columns of [{section}] are {', '.join(known)}, each once"
            raise TraceError(source, line, "header", cell, reason)
    for name in _NEEDED[section]:
        if name not in cells:
            reason = f"[{section}] needs the column {name}"
            raise TraceError(source, line, "header", ",".join(cells), reason)
    return cells


def _once(row: Row, section: str, seen: set[tuple[str, str]]) -> None:
    if section == "fleet":
        if (section, "") in seen:
            raise row.error("row", "[fleet] has one row")
        seen.add((section, ""))
        return
    field = "id" if section == "jobs" else "name"
    key = (section, row.name(field))
    if key in seen:
        raise row.error(field, "the name is taken twice")
    seen.add(key)


def _node(row: Row) -> Iterator[Node]:
    count = row.whole("count", 1, least=1)
    offers = row.parsed("offers", parse_counts, _NOTHING)
    if not offers:
        raise row.error("offers", "devices per form are needed")
    sliced = any(profile_of(form) for form, _ in offers)
    gpus = row.whole("gpus", -1 if sliced else sum(n for _, n in offers))
    if gpus < 0:
        raise row.error("gpus", "needed where MIG slices are offered")
    name = row.name("name")
    for number in range(count):
        yield Node(
            name=NodeName(name if count == 1 else f"{name}-{number:04d}"),
            offers=offers,
            gpus=gpus,
            cpu_milli=row.whole("cpu_milli", 0),
            memory_mib=row.whole("memory_mib", 0),
        )


def _checked(row: Row, order: int) -> Queue:
    """Read a tenant; amounts that nothing can be computed with are the row's fault."""
    try:
        return _tenant(row, order)
    except TraceError:
        raise
    except ValueError as fault:
        raise row.error("name", str(fault)) from None


def _tenant(row: Row, order: int) -> Queue:
    parent = row.text("parent")
    return Queue(
        name=TenantName(row.name("name")),
        parent=TenantName(parent) if parent else None,
        guarantee=row.parsed("guarantee", parse_counts, ()),
        borrowing_limit=row.parsed("borrowing_limit", parse_counts, ()),
        lending_limit=row.parsed("lending_limit", parse_counts, ()),
        limit=row.parsed("limit", parse_counts, ()),
        weight=row.whole("weight", 1),
        priority=row.whole("priority", 0, least=-(10**9)),
        order=order,
        burst_milli=row.parsed("burst", parse_milli, None),
        inference_burst=row.parsed("inference_burst", parse_counts, _NOTHING),
        critical=row.parsed("inference_critical", parse_counts, _NOTHING),
        preempt_within=row.parsed("preempt_within", _preempt_within, _LOWER),
    )


def _preempt_within(text: str) -> PreemptWithin:
    known = ", ".join(kind.value for kind in PreemptWithin)
    try:
        return PreemptWithin(text)
    except ValueError:
        raise ValueError(f"one of {known} is needed") from None


def _group(row: Row) -> Group:
    members: tuple[str, ...] = row.parsed("members", _classes, ())
    if not members:
        raise row.error("members", "GPU classes are needed")
    return Group(name=Form(row.name("name")), members=tuple(map(Form, members)))


def _fleet(row: Row) -> Fleet:
    try:
        return Fleet(
            burst_ceiling=row.parsed("burst_ceiling", parse_counts, _NOTHING),
            values=row.parsed("values", parse_values, _NOTHING),
            half_life_s=row.seconds("half_life_s", 0.0),
            memory_strength_milli=row.parsed("memory_strength", parse_milli, 1000),
        )
    except TraceError:
        raise
    except ValueError as problem:
        raise row.error("values", str(problem)) from None


def _job(row: Row) -> TraceJob:
    kind = row.parsed("class", workload_class, None)
    if kind is None:
        raise row.error("class", "a workload class is needed")
    default = default_checkpoint_interval_s(kind) or 0.0
    interval = row.seconds("checkpoint_interval_s", default)
    return TraceJob(
        id=row.name("id"),
        tenant=TenantName(row.name("tenant")),
        workload_class=kind,
        members=_members(row),
        submit_s=row.seconds("submit_s"),
        duration_s=row.seconds("duration_s"),
        priority=row.whole("priority", 0, least=-(10**9)),
        checkpoint_interval_s=interval or None,
        restart_s=row.seconds("restart_s", 0.0),
        on_request=row.flag("on_request", default=True),
    )


def _members(row: Row) -> tuple[Demand, ...]:
    pods = row.whole("pods", 1, least=1)
    if row.text("gpu_milli"):
        milli = row.whole("gpu_milli", least=1)
        if milli > 1000 or row.text("gpus") or row.text("last_gpus"):
            raise row.error("gpu_milli", "at most 1000, and instead of gpus")
        return (_demand(row, 1, milli * QUANTA_PER_MILLI),) * pods
    gpus = row.whole("gpus", least=1)
    last = row.whole("last_gpus", gpus, least=1)
    if last > gpus or (last < gpus and pods == 1):
        raise row.error("last_gpus", f"less than gpus ({gpus}) and pods above 1")
    return (_demand(row, gpus),) * (pods - 1) + (_demand(row, last),)


def _classes(text: str) -> tuple[str, ...]:
    return tuple(parse_form(name) for name in text.split())


def _demand(row: Row, count: int, fraction: int = QUANTA_PER_GPU) -> Demand:
    try:
        return Demand(
            count=count,
            classes=row.parsed("gpu_classes", _classes, ()),
            profile=row.text("profile"),
            fraction=fraction,
            cpu_milli=row.whole("cpu_milli", 0),
            memory_mib=row.whole("memory_mib", 0),
        )
    except TraceError:
        raise
    except ValueError as problem:
        raise row.error("gpu_milli", str(problem)) from None


# -- writing ------------------------------------------------------------------


def write_normal(trace: Trace, path: Path) -> None:
    """Write a trace so that `read_normal` returns all of it the same."""
    out = io.StringIO()
    fleet = trace.fleet
    _write(out, "nodes", trace.nodes, _node_cells)
    _write(out, "groups", fleet.groups, _group_cells)
    if replace(fleet, groups=()) != Fleet():
        _write(out, "fleet", (fleet,), _fleet_cells)
    _write(out, "tenants", trace.tenants, _tenant_cells)
    _write(out, "jobs", trace.jobs, _job_cells)
    path.write_text(out.getvalue(), encoding="utf-8")


def _write(
    out: io.StringIO,
    section: str,
    things: Sequence[T],
    cells: Callable[[T], dict[str, object]],
) -> None:
    """Write one section with the columns that somebody uses."""
    if not things:
        return
    table = [cells(thing) for thing in things]
    header = [
        name
        for name in _COLUMNS[section].split()
        if name in _NEEDED[section] or any(row[name] != "" for row in table)
    ]
    out.write(f"[{section}]\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([row[name] for name in header] for row in table)
    out.write("\n")


def _node_cells(node: Node) -> dict[str, object]:
    whole = sum(count for _, count in node.offers)
    return {
        "name": node.name,
        "count": "",
        "offers": format_counts(node.offers),
        "gpus": _unless(node.gpus, whole),
        "cpu_milli": _unless(node.cpu_milli, 0),
        "memory_mib": _unless(node.memory_mib, 0),
    }


def _tenant_cells(queue: Queue) -> dict[str, object]:
    return {
        "name": queue.name,
        "parent": queue.parent or "",
        "guarantee": format_counts(queue.guarantee),
        "borrowing_limit": format_counts(queue.borrowing_limit),
        "lending_limit": format_counts(queue.lending_limit),
        "limit": format_counts(queue.limit),
        "weight": _unless(queue.weight, 1),
        "priority": _unless(queue.priority, 0),
        "burst": "" if queue.burst_milli is None else format_milli(queue.burst_milli),
        "inference_burst": format_counts(queue.inference_burst),
        "inference_critical": format_counts(queue.critical),
        "preempt_within": ""
        if queue.preempt_within is _LOWER
        else queue.preempt_within.value,
    }


def _group_cells(group: Group) -> dict[str, object]:
    return {"name": group.name, "members": " ".join(group.members)}


def _fleet_cells(fleet: Fleet) -> dict[str, object]:
    strength = fleet.memory_strength_milli
    return {
        "burst_ceiling": format_counts(fleet.burst_ceiling),
        "values": format_values(tuple((Form(n), v) for n, v in fleet.values)),
        "half_life_s": _number(fleet.half_life_s, 0.0),
        "memory_strength": "" if strength == 1000 else format_milli(strength),
    }


def _job_cells(job: TraceJob) -> dict[str, object]:
    first, last = job.members[0], job.members[-1]
    cells: dict[str, object] = {
        "id": job.id,
        "tenant": job.tenant,
        "class": job.workload_class.label,
        "submit_s": _number(job.submit_s),
        "duration_s": _number(job.duration_s),
        "gpus": "" if first.is_fraction else first.count,
        "pods": _unless(len(job.members), 1),
        "last_gpus": _unless(last.count, first.count),
        "gpu_classes": " ".join(first.classes),
        "profile": first.profile,
        "gpu_milli": first.fraction // QUANTA_PER_MILLI if first.is_fraction else "",
        "cpu_milli": _unless(first.cpu_milli, 0),
        "memory_mib": _unless(first.memory_mib, 0),
    }
    return cells | _life_cells(job)


def _life_cells(job: TraceJob) -> dict[str, object]:
    default = default_checkpoint_interval_s(job.workload_class) or 0.0
    interval = job.checkpoint_interval_s or 0.0
    return {
        "priority": _unless(job.priority, 0),
        "checkpoint_interval_s": _number(interval, default),
        "restart_s": _number(job.restart_s, 0.0),
        "on_request": "" if job.on_request else "no",
    }


def _unless(value: int, default: int) -> int | str:
    return "" if value == default else value


def _number(value: float, default: float | None = None) -> str:
    """Write a number so that reading it gives the same float."""
    if value == default:
        return ""
    return str(int(value)) if value == int(value) else repr(value)
