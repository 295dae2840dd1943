"""Public traces in the normal form."""

import io
import tarfile
from pathlib import Path

import pytest

from scheduler.core import QUANTA_PER_GPU, WorkloadClass
from simulator.importers import load, load_curves
from simulator.trace import RowErrors, TraceError
from tests.simulator.builders import HELIOS, ITP, OPENB

ITP_CSV = """\
job_id,submission_time,duration,num_gpu
one,100,50,20
two,90,10,8
three,90,10,1
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_an_itp_job_is_a_gang_of_whole_nodes_and_a_rest(tmp_path: Path) -> None:
    file = write(tmp_path / "cluster03.csv", ITP_CSV)
    found = load(f"itp:{file}", 8, RowErrors())
    assert [job.id for job in found.jobs] == ["two", "three", "one"]
    assert [[d.count for d in job.members] for job in found.jobs] == [
        [8],
        [1],
        [8, 8, 4],
    ]
    assert {job.tenant for job in found.jobs} == {"cluster03"}
    assert {job.workload_class for job in found.jobs} == {WorkloadClass.TRAINING}


def test_pods_are_no_larger_than_the_nodes_of_the_cluster(tmp_path: Path) -> None:
    file = write(tmp_path / "c.csv", ITP_CSV)
    found = load(f"itp:{file}", 4, RowErrors())
    assert [d.count for d in found.jobs[-1].members] == [4, 4, 4, 4, 4]


def test_an_archive_gives_every_cluster_or_the_one_named(tmp_path: Path) -> None:
    path = tmp_path / "raw.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("cluster02.csv", "cluster01.csv", "LICENSE"):
            data = ITP_CSV.replace("one", f"one-{name}").encode()
            entry = tarfile.TarInfo(f"data/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    assert load(f"itp:{path}", 8, RowErrors()).tenant_names() == [
        "cluster01",
        "cluster02",
    ]
    only = load(f"itp:{path}#cluster02", 8, RowErrors())
    assert only.tenant_names() == ["cluster02"]
    with pytest.raises(TraceError, match=r"no such CSV inside, got 'cluster09'"):
        load(f"itp:{path}#cluster09", 8, RowErrors())


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        ("x,1,-5,1", "duration", "-5"),
        ("x,1,5,0", "num_gpu", "0"),
        ("x,later,5,1", "submission_time", "later"),
        (",1,5,1", "job_id", ""),
    ],
)
def test_a_bad_itp_row_is_named(
    tmp_path: Path, row: str, field: str, value: str
) -> None:
    file = write(tmp_path / "c.csv", ITP_CSV + row + "\n")
    with pytest.raises(TraceError) as caught:
        load(f"itp:{file}", 8, RowErrors())
    error = caught.value
    assert (error.source, error.line, error.field, error.value) == (
        "c.csv",
        5,
        field,
        value,
    )
    errors = RowErrors(skip=True)
    assert len(load(f"itp:{file}", 8, errors).jobs) == 3
    assert [bad.line for bad in errors.bad] == [5]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "c.csv", "job_id,duration,num_gpu\nx,1,1\n")
    with pytest.raises(
        TraceError, match=r"c\.csv:1: submission_time: column is missing"
    ):
        load(f"itp:{file}", 8, RowErrors())


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(TraceError, match=r"normal:\.\.\., itp:\.\.\., openb:\.\.\."):
        load("swf:jobs.swf", 8, RowErrors())
    with pytest.raises(TraceError, match="known formats"):
        load("jobs.csv", 8, RowErrors())


def test_a_file_that_is_not_there_is_one_error() -> None:
    with pytest.raises(TraceError, match="No such file"):
        load("itp:/nowhere/x.csv", 8, RowErrors())


NODES = "sn,cpu_milli,memory_mib,gpu,model\nb,64000,1000,2,P100\ncpu,64000,1000,0,\n"
PODS = """\
name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
p0,1000,10,1,460,,LS,Running,100,500,150
p1,1000,10,2,1000,V100M16|V100M32|V100M32,BE,Pending,100,500,
p2,1000,10,0,0,,LS,Running,100,500,100
p3,1000,10,1,1000,,Burstable,Running,90,500,120
"""


def test_openb_pods_bring_fractions_classes_and_their_own_nodes(tmp_path: Path) -> None:
    pods, nodes = write(tmp_path / "p.csv", PODS), write(tmp_path / "n.csv", NODES)
    errors = RowErrors()
    found = load(f"openb:{pods},{nodes}", 8, errors)
    assert [job.id for job in found.jobs] == ["p3", "p0", "p1"]
    by_id = {job.id: job for job in found.jobs}
    assert by_id["p0"].members[0].fraction == 460 * QUANTA_PER_GPU // 1000
    assert by_id["p0"].duration_s == 350  # from its second on the node
    assert by_id["p1"].duration_s == 400  # never ran: as long as it was wanted
    assert by_id["p1"].members[0].classes == ("v100m16", "v100m32")
    kinds = [by_id[name].workload_class for name in ("p0", "p1", "p3")]
    assert kinds == [
        WorkloadClass.INFERENCE,
        WorkloadClass.BATCH,
        WorkloadClass.TRAINING,
    ]
    assert [(n.name, n.offers, n.cpu_milli) for n in found.nodes] == [
        ("b", (("p100", 2),), 64000)
    ]
    assert dict(errors.excluded) == {"node without GPUs": 1, "pod without GPUs": 1}


def test_an_openb_pod_gone_before_it_came_is_refused(tmp_path: Path) -> None:
    pods = write(tmp_path / "p.csv", PODS.replace("100,500,150", "100,140,150"))
    nodes = write(tmp_path / "n.csv", NODES)
    with pytest.raises(TraceError, match=r"p\.csv:2: deletion_time"):
        load(f"openb:{pods},{nodes}", 8, RowErrors())


@pytest.mark.skipif(not ITP.exists(), reason="needs the published traces")
def test_the_published_itp_trace_has_its_published_size() -> None:
    found = load(f"itp:{ITP}", 8, RowErrors())
    assert len(found.jobs) == 69_351
    gpu_h = sum(job.gpus * job.duration_s for job in found.jobs) / 3600
    assert round(gpu_h, 1) == 1_632_719.7


@pytest.mark.skipif(not OPENB.exists(), reason="needs the published traces")
def test_the_published_openb_trace_has_its_published_size() -> None:
    pods, nodes = "openb_pod_list_default.csv", "openb_node_list_all_node.csv"
    errors = RowErrors()
    found = load(f"openb:{OPENB / pods},{OPENB / nodes}", 8, errors)
    assert len(found.jobs) + errors.excluded["pod without GPUs"] == 8_152
    assert sum(node.gpus for node in found.nodes) == 6_212
    assert errors.excluded["node without GPUs"] == 1_523 - 1_213


def test_only_helios_holds_demand_curves() -> None:
    with pytest.raises(TraceError, match=r"helios:\.\.\. is needed"):
        load_curves(f"itp:{HELIOS}", RowErrors())
