"""Public traces in the normal form.

Hidden here: the columns, units and quirks of each published format. A trace is named
by ``format:path``:

``normal:FILE``
    Our own one-file form (`simulator.trace.normal`).
``itp:FILE.csv`` or ``itp:FILE.tar.gz`` or ``itp:FILE.tar.gz#cluster03``
    Microsoft ITP, as published with ElasticFlow (ASPLOS'23): one CSV per cluster, each
    a tenant that trains. A job of n GPUs is a gang of pods that fill whole nodes, and
    one for the rest. Checkpoints every 30 min and 60 s for a restart are assumptions:
    the trace does not tell.
``openb:PODS.csv,NODES.csv``
    Alibaba cluster-trace-gpu-v2023 (ATC'23), which brings its own nodes. Latency
    sensitive pods (LS) become inference, best effort (BE) batch, the others training.
    A pod runs from the second it was scheduled, or created, until its deletion.

Demand curves, for the fluid replay, come from ``helios:FILE.tar.xz``: the virtual
clusters of SenseTime's Helios (SC'21), minute by minute, each a tenant; demand is what
runs and what waits, the guarantee is the quota.
"""

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from scheduler.core import (
    QUANTA_PER_GPU,
    Demand,
    Form,
    Node,
    NodeName,
    TenantName,
    WorkloadClass,
)
from simulator.trace import (
    Curve,
    Row,
    RowErrors,
    Trace,
    TraceError,
    TraceJob,
    read_normal,
    read_rows,
)
from simulator.trace.job import default_checkpoint_interval_s, in_order

_TRAINING_INTERVAL_S = default_checkpoint_interval_s(WorkloadClass.TRAINING)
ITP_RESTART_S = 60.0
_QUANTA_PER_MILLI = QUANTA_PER_GPU // 1000


def load(spec: str, node_gpus: int, errors: RowErrors) -> Trace:
    """Read the trace that ``format:path`` names.

    Parameters
    ----------
    node_gpus
        GPUs of the largest node, which bounds the pods of formats without pods.

    Raises
    ------
    TraceError
        When the format is unknown, a file cannot be read, or a row is bad and bad
        rows are not skipped.
    """
    name, colon, path = spec.partition(":")
    reader = FORMATS.get(name)
    if not colon or reader is None:
        known = ", ".join(f"{known}:..." for known in FORMATS)
        raise TraceError("--trace", 0, "format", spec, f"known formats are {known}")
    try:
        return reader(path, node_gpus, errors)
    except (OSError, tarfile.TarError, UnicodeDecodeError) as problem:
        raise _unreadable(name, path, problem) from None


def _unreadable(name: str, path: str, problem: Exception) -> TraceError:
    reason = getattr(problem, "strerror", None) or str(problem)
    return TraceError("--trace", 0, name, path, f"cannot be read ({reason})")


# -- Microsoft ITP ------------------------------------------------------------


def _load_itp(path: str, node_gpus: int, errors: RowErrors) -> Trace:
    jobs: list[TraceJob] = []
    for source, lines in _csv_files(path):
        jobs += _itp_jobs(source, lines, node_gpus, errors)
    return Trace(jobs=in_order(jobs), errors=errors)


def _csv_files(path: str) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield name and lines of a CSV, or of the CSVs in an archive."""
    file, _, wanted = path.partition("#")
    if not tarfile.is_tarfile(file):
        with Path(file).open(newline="", encoding="utf-8") as stream:
            yield Path(file).name, stream
        return
    found = False
    with tarfile.open(file) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            name = Path(member.name)
            if name.suffix != ".csv" or wanted not in ("", name.stem):
                continue
            content = archive.extractfile(member)
            if content is not None:
                found = True
                yield name.name, io.StringIO(content.read().decode("utf-8"), newline="")
    if not found:
        raise TraceError(Path(file).name, 0, "member", wanted, "no such CSV inside")


def _itp_jobs(
    source: str, lines: Iterable[str], node_gpus: int, errors: RowErrors
) -> Iterator[TraceJob]:
    tenant = TenantName(Path(source).stem)
    needed = ("job_id", "submission_time", "duration", "num_gpu")
    for row in read_rows(source, lines, needed, errors):
        try:
            yield TraceJob(
                id=row.name("job_id"),
                tenant=tenant,
                workload_class=WorkloadClass.TRAINING,
                members=_gang(row.whole("num_gpu", least=1), node_gpus),
                submit_s=row.seconds("submission_time"),
                duration_s=row.seconds("duration"),
                checkpoint_interval_s=_TRAINING_INTERVAL_S,
                restart_s=ITP_RESTART_S,
            )
        except TraceError as problem:
            errors.report(problem)


@lru_cache(maxsize=1024)
def _gang(gpus: int, node_gpus: int) -> tuple[Demand, ...]:
    """Return the pods of a job that may not fit one node; equal jobs share them."""
    whole, rest = divmod(gpus, node_gpus)
    members = (Demand(count=node_gpus),) * whole
    return (*members, Demand(count=rest)) if rest else members


# -- Alibaba openb ------------------------------------------------------------

_OPENB_CLASSES = {"LS": WorkloadClass.INFERENCE, "BE": WorkloadClass.BATCH}


def _load_openb(path: str, _node_gpus: int, errors: RowErrors) -> Trace:
    pods, comma, nodes = path.partition(",")
    if not comma:
        raise TraceError("--trace", 0, "openb", path, "PODS.csv,NODES.csv is needed")
    with Path(nodes).open(newline="", encoding="utf-8") as stream:
        offered = tuple(_openb_nodes(Path(nodes).name, stream, errors))
    with Path(pods).open(newline="", encoding="utf-8") as stream:
        jobs = in_order(_openb_jobs(Path(pods).name, stream, errors))
    return Trace(jobs=jobs, nodes=offered, errors=errors)


def _openb_nodes(
    source: str, lines: Iterable[str], errors: RowErrors
) -> Iterator[Node]:
    needed = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
    for row in read_rows(source, lines, needed, errors):
        try:
            gpus = row.whole("gpu")
            if not gpus:
                errors.exclude("node without GPUs")
                continue
            yield Node(
                name=NodeName(row.name("sn")),
                offers=((Form(row.name("model").lower()), gpus),),
                gpus=gpus,
                cpu_milli=row.whole("cpu_milli"),
                memory_mib=row.whole("memory_mib"),
            )
        except TraceError as problem:
            errors.report(problem)


def _openb_jobs(
    source: str, lines: Iterable[str], errors: RowErrors
) -> Iterator[TraceJob]:
    needed = ("name", "num_gpu", "gpu_milli", "gpu_spec", "qos")
    times = ("creation_time", "deletion_time", "scheduled_time")
    for row in read_rows(source, lines, (*needed, *times), errors):
        try:
            gpus = row.whole("num_gpu")
            if not gpus:
                errors.exclude("pod without GPUs")
                continue
            kind = _OPENB_CLASSES.get(row.text("qos"), WorkloadClass.TRAINING)
            yield TraceJob(
                id=row.name("name"),
                tenant=TenantName("openb"),
                workload_class=kind,
                members=(_openb_demand(row, gpus),),
                submit_s=row.seconds("creation_time"),
                duration_s=_openb_duration(row),
                checkpoint_interval_s=default_checkpoint_interval_s(kind),
            )
        except TraceError as problem:
            errors.report(problem)


def _openb_demand(row: Row, gpus: int) -> Demand:
    milli = row.whole("gpu_milli", least=1)
    if milli > 1000 or (gpus > 1 and milli != 1000):
        raise row.error("gpu_milli", "at most 1000, and 1000 for several GPUs")
    models = row.text("gpu_spec").lower().split("|")
    return Demand(
        count=gpus,
        classes=tuple(dict.fromkeys(model for model in models if model)),
        fraction=milli * _QUANTA_PER_MILLI,
        cpu_milli=row.whole("cpu_milli"),
        memory_mib=row.whole("memory_mib"),
    )


def _openb_duration(row: Row) -> float:
    created = row.seconds("creation_time")
    lasted = row.seconds("deletion_time") - row.seconds("scheduled_time", created)
    if lasted < 0:
        raise row.error("deletion_time", "not before scheduled_time")
    return lasted


# -- SenseTime Helios ---------------------------------------------------------


def load_curves(spec: str, errors: RowErrors) -> list[Curve]:
    """Read the demand curves that ``helios:FILE.tar.xz`` names, by tenant.

    Raises
    ------
    TraceError
        As `load`, and when the curves are not equally long.
    """
    name, _, path = spec.partition(":")
    if name != "helios":
        raise TraceError("--trace", 0, "format", spec, "helios:... is needed")
    try:
        curves = [_curve(*file, errors) for file in _csv_files(path)]
    except (OSError, tarfile.TarError, UnicodeDecodeError) as problem:
        raise _unreadable(name, path, problem) from None
    for curve in curves:
        if len(curve.demand) != len(curves[0].demand):
            minutes = len(curve.demand)
            raise TraceError(
                path, 0, curve.tenant, minutes, "as many minutes as others"
            )
    return curves


def _curve(source: str, lines: Iterable[str], errors: RowErrors) -> Curve:
    needed = ("total_gpu_num", "running_gpu_num", "pending_gpu_num")
    quota: list[int] = []
    demand: list[int] = []
    for row in read_rows(source, lines, needed, errors):
        try:
            asked = row.whole("running_gpu_num") + row.whole("pending_gpu_num")
            quota.append(row.whole("total_gpu_num"))
            demand.append(asked)
        except TraceError as problem:
            errors.report(problem)
    return Curve(Path(source).stem, tuple(quota), tuple(demand))


FORMATS: dict[str, Callable[[str, int, RowErrors], Trace]] = {
    "normal": lambda path, _node_gpus, errors: read_normal(Path(path), errors),
    "itp": _load_itp,
    "openb": _load_openb,
}
