"""The normal form, the amounts people write, and what is refused where."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core import (
    Demand,
    Fleet,
    Form,
    Group,
    Node,
    NodeName,
    PreemptWithin,
    Queue,
    TenantName,
    WorkloadClass,
)
from simulator.trace import (
    RowErrors,
    Trace,
    TraceError,
    TraceJob,
    merge,
    parse_counts,
    parse_nodes,
    read_cluster,
    read_normal,
    settle,
    write_normal,
)
from simulator.trace.job import in_order
from simulator.trace.normal import QUANTA_PER_MILLI
from tests.simulator.builders import GPU, job, nodes, trace

GOOD = """\
# what a person writes
[nodes]
name,count,offers
h100,2,h100-80gb:8

[tenants]
name,guarantee
research,h100-80gb:12
search,h100-80gb:4

[jobs]
id,tenant,class,submit_s,duration_s,gpus,pods,last_gpus
train-1,research,training,600,3600.5,8,2,4
serve-1,search,inference,0,1200,1,,
"""


def read(tmp_path: Path, text: str, *, skip: bool = False) -> Trace:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return read_normal(path, RowErrors(skip))


# -- normal form --------------------------------------------------------------


def test_a_hand_written_file_says_what_it_says(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert [one.id for one in found.jobs] == ["serve-1", "train-1"]  # by submission
    train = found.jobs[1]
    assert [member.count for member in train.members] == [8, 4]
    assert (train.submit_s, train.duration_s) == (600.0, 3600.5)
    assert train.checkpoint_interval_s == 1800.0
    assert found.jobs[0].workload_class is WorkloadClass.INFERENCE
    assert [node.name for node in found.nodes] == ["h100-0000", "h100-0001"]
    assert found.nodes[0].offers == (("h100-80gb", 8),)
    assert [(q.name, q.guarantee, q.order) for q in found.tenants] == [
        ("research", (("h100-80gb", 12),), 0),
        ("search", (("h100-80gb", 4),), 1),
    ]


BAD_ROWS = [
    # old text, new text, line, field, offending value
    (
        "train-1,research,training,600",
        "train-1,research,training,-1",
        13,
        "submit_s",
        "-1",
    ),
    ("training,600,3600.5", "training,600,soon", 13, "duration_s", "soon"),
    ("training,600,3600.5", "training,600,nan", 13, "duration_s", "nan"),
    ("training,600,3600.5", "training,600,inf", 13, "duration_s", "inf"),
    ("3600.5,8,2,4", "3600.5,0,2,", 13, "gpus", "0"),
    ("3600.5,8,2,4", "3600.5,8.5,2,", 13, "gpus", "8.5"),
    ("3600.5,8,2,4", "3600.5,8,2,9", 13, "last_gpus", "9"),
    ("3600.5,8,2,4", "3600.5,8,1,4", 13, "last_gpus", "4"),
    ("research,training", "research,urgent", 13, "class", "urgent"),
    ("research,training", "research,", 13, "class", ""),
    ("train-1,research", ",research", 13, "id", ""),
    ("train-1,research", "train 1,research", 13, "id", "train 1"),
    ("serve-1,search", "train-1,search", 14, "id", "train-1"),  # taken twice
    ("2,h100-80gb:8", "0,h100-80gb:8", 4, "count", "0"),
    ("2,h100-80gb:8", "2,h100-80gb", 4, "offers", "h100-80gb"),
    ("2,h100-80gb:8", "2,H100:8", 4, "offers", "H100:8"),
    ("2,h100-80gb:8", "2,h100-80gb/1g.10gb:7", 4, "gpus", ""),  # MIG needs gpus
    ("h100-80gb:12", "h100-80gb:twelve", 8, "guarantee", "h100-80gb:twelve"),
    ("h100-80gb:12", f"h100-80gb:{10**18}", 8, "name", "research"),  # overflows
]


@pytest.mark.parametrize(("old", "new", "line", "field", "value"), BAD_ROWS)
def test_a_bad_row_is_refused_by_file_line_field_and_value(
    tmp_path: Path, old: str, new: str, line: int, field: str, value: str
) -> None:
    assert old in GOOD
    with pytest.raises(TraceError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    error = caught.value
    assert (error.source, error.line, error.field) == ("trace.csv", line, field)
    assert error.value == value
    assert str(error).startswith(f"trace.csv:{line}: {field}: ")
    assert repr(value) in str(error)


def test_a_row_with_a_cell_too_few_names_the_row(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"trace\.csv:14: row: 8 cells are needed"):
        read(tmp_path, GOOD.replace("inference,0,1200,1,,", "inference,0,1200"))


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("[jobs]", "[job]", 11, "section"),
        ("[nodes]", "", 3, "section"),
        ("id,tenant,class", "id,tenant,klass", 12, "header"),
        ("id,tenant,class", "id,tenant,gpus", 12, "header"),  # gpus twice
        ("name,guarantee", "guarantee", 7, "header"),  # name is needed
    ],
)
def test_a_broken_frame_is_refused_even_when_bad_rows_are_skipped(
    tmp_path: Path, old: str, new: str, line: int, field: str
) -> None:
    with pytest.raises(TraceError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1), skip=True)
    assert (caught.value.line, caught.value.field) == (line, field)


def test_skipped_rows_are_counted_and_the_others_read(tmp_path: Path) -> None:
    text = GOOD.replace("600,3600.5", "600,soon") + "x,research,batch,1,1,1,,\nshort\n"
    found = read(tmp_path, text, skip=True)
    assert [one.id for one in found.jobs] == ["serve-1", "x"]
    assert [(error.line, error.field) for error in found.errors.bad] == [
        (13, "duration_s"),
        (16, "row"),
    ]


names = st.from_regex(r"[a-z][a-z0-9,\"._-]{0,8}", fullmatch=True)
forms = st.sampled_from(["gpu", "h100-80gb", "a100-40gb", "a10-24gb/shared-4"])
counts = st.dictionaries(forms, st.integers(0, 99), max_size=3).map(
    lambda found: tuple(sorted((Form(form), n) for form, n in found.items()))
)
amount = st.integers(0, 10**6)
times = st.one_of(
    st.integers(0, 10**9).map(float), st.floats(0, 1e9, allow_nan=False)
).map(abs)


@st.composite
def members(draw: st.DrawFn) -> tuple[Demand, ...]:
    gpus, pods = draw(st.integers(1, 16)), draw(st.integers(1, 4))
    last = draw(st.integers(1, gpus)) if pods > 1 else gpus
    other: dict[str, Any] = {
        "classes": tuple(draw(st.lists(forms, max_size=2, unique=True))),
        "cpu_milli": draw(amount),
        "memory_mib": draw(amount),
    }
    if draw(st.booleans()):
        other["profile"] = draw(st.sampled_from(["1g.10gb", "3g.40gb+me"]))
    elif not any("/" in name for name in other["classes"]) and draw(st.booleans()):
        milli = draw(st.integers(1, 999))
        return (Demand(count=1, fraction=milli * QUANTA_PER_MILLI, **other),) * pods
    return (Demand(count=gpus, **other),) * (pods - 1) + (Demand(count=last, **other),)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    tenants = draw(st.lists(names, max_size=3, unique=True))
    jobs = [
        TraceJob(
            id=name,
            tenant=TenantName(draw(names)),
            workload_class=draw(st.sampled_from(WorkloadClass)),
            members=draw(members()),
            submit_s=draw(times),
            duration_s=draw(times),
            priority=draw(st.integers(-5, 5)),
            checkpoint_interval_s=draw(st.one_of(st.none(), times)) or None,
            restart_s=draw(times),
            on_request=draw(st.booleans()),
        )
        for name in draw(st.lists(names, max_size=4, unique=True))
    ]
    queues = tuple(
        Queue(
            name=TenantName(name),
            parent=TenantName(draw(names)) if draw(st.booleans()) else None,
            guarantee=draw(counts),
            borrowing_limit=draw(counts),
            lending_limit=draw(counts),
            limit=draw(counts),
            weight=draw(st.integers(0, 9)),
            priority=draw(st.integers(-9, 9)),
            order=order,
            burst_milli=draw(st.none() | amount),
            inference_burst=draw(counts),
            critical=draw(counts),
            preempt_within=draw(st.sampled_from(PreemptWithin)),
        )
        for order, name in enumerate(tenants)
    )
    cluster = tuple(
        Node(
            name=NodeName(name),
            offers=draw(counts.filter(bool)),
            gpus=draw(st.integers(0, 16)),
            cpu_milli=draw(amount),
            memory_mib=draw(amount),
        )
        for name in draw(st.lists(names, max_size=3, unique=True))
    )
    return Trace(
        jobs=in_order(jobs), tenants=queues, nodes=cluster, fleet=draw(fleets())
    )


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    groups = draw(st.lists(names, max_size=2, unique=True))
    members = st.lists(forms.map(Form), min_size=1, max_size=3).map(tuple)
    values = st.dictionaries(
        st.sampled_from(["gpu", "h100-80gb"]), st.integers(1, 9999)
    )
    return Fleet(
        groups=tuple(Group(name=Form(name), members=draw(members)) for name in groups),
        burst_ceiling=draw(counts),
        values=tuple(sorted(draw(values).items())),
        half_life_s=draw(times),
        memory_strength_milli=draw(amount),
    )


@settings(max_examples=100, deadline=None)
@given(traces())
def test_what_is_written_is_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, given: Trace
) -> None:
    path = tmp_path_factory.mktemp("normal") / "trace.csv"
    write_normal(given, path)
    found = read_normal(path, RowErrors())
    assert found.jobs == given.jobs
    assert found.tenants == given.tenants
    assert found.nodes == given.nodes
    assert found.fleet == given.fleet


# -- amounts ------------------------------------------------------------------


def test_uniform_and_mixed_clusters_have_a_shorthand() -> None:
    assert len(parse_nodes("64x8")) == 64
    assert parse_nodes("64x8")[63].offers == ((GPU, 8),)
    mixed = parse_nodes("2x8:h100-80gb,1x4:a100-40gb")
    assert [(n.name, n.offers) for n in mixed] == [
        ("node-0000", (("h100-80gb", 8),)),
        ("node-0001", (("h100-80gb", 8),)),
        ("node-0002", (("a100-40gb", 4),)),
    ]


@pytest.mark.parametrize(
    "text", ["", "64", "64x", "0x8", "4x0", "4x8:", "4x8;2x8", "1000000x8"]
)
def test_a_shorthand_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="x"):
        parse_nodes(text)


def test_counts_are_split_by_blanks_or_commas() -> None:
    wanted = (("a10-24gb/shared-4", 2), ("h100-80gb", 8))
    assert parse_counts("h100-80gb:8 a10-24gb/shared-4:2") == wanted
    assert parse_counts("h100-80gb:8,a10-24gb/shared-4:2") == wanted


@pytest.mark.parametrize(
    "text", ["h100-80gb", "h100-80gb:-1", ":3", "gpu:1 gpu:2", "GPU:1"]
)
def test_counts_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"form:count|twice|class"):
        parse_counts(text)


# -- cluster files ------------------------------------------------------------

CLUSTER = """\
server: {listen: "127.0.0.1:1"}
nodes:
  - name: h100-{i}
    count: 2
    gpuClass: h100-80gb
    gpus: 8
    mig:
      - {gpus: 2, slices: {1g.10gb: 7}}
    cpu: 500m
    memory: 2Ti
tenants:
  - name: research
    guarantee: {h100-80gb: 8, h100-80gb/1g.10gb: 14}
    borrowingLimit: {h100-80gb: 2}
"""


def test_the_settings_of_the_service_describe_a_cluster(tmp_path: Path) -> None:
    path = tmp_path / "fairshare.yaml"
    path.write_text(CLUSTER)
    found = read_cluster(path)
    assert [node.name for node in found.nodes] == ["h100-0", "h100-1"]
    assert found.nodes[0].offers == (("h100-80gb", 6), ("h100-80gb/1g.10gb", 14))
    assert (found.nodes[0].cpu_milli, found.nodes[0].memory_mib) == (500, 2 * 2**20)
    assert found.tenants[0].borrowing_limit == (("h100-80gb", 2),)


def test_the_example_of_the_service_can_be_replayed() -> None:
    example = Path(__file__).parents[2] / "deploy" / "example-config.yaml"
    found = read_cluster(example)
    assert len(found.nodes) == 8
    settle(merge([found], RowErrors()), (), {})


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("gpus: 8", "gpus: many", 6, "nodes.0.gpus"),
        ("gpus: 8", "gpu: 8", 6, "nodes.0.gpu"),
        ("500m", "500x", 9, "nodes.0.cpu"),
        ("1g.10gb: 7", "1g.10gb: 8", 3, "nodes.0"),
        ("h100-{i}", "h100", 3, "nodes.0"),
        ("{h100-80gb: 2}", "{h100-80gb: -2}", 14, "tenants.0.borrowingLimit.h100-80gb"),
        ("nodes:", "nodes: [", 3, "file"),
    ],
)
def test_a_fault_in_a_cluster_file_is_found_by_its_line(
    tmp_path: Path, old: str, new: str, line: int, field: str
) -> None:
    path = tmp_path / "fairshare.yaml"
    path.write_text(CLUSTER.replace(old, new, 1))
    with pytest.raises(TraceError) as caught:
        read_cluster(path)
    assert (caught.value.line, caught.value.field) == (line, field)


# -- guarantees ---------------------------------------------------------------


def shares(found: Trace) -> dict[str, int]:
    return {queue.name: dict(queue.guarantee).get(GPU, 0) for queue in found.tenants}


def test_a_single_tenant_owns_the_cluster_where_nothing_is_said() -> None:
    bare = Trace(jobs=(job("j", 0, 1),))
    assert shares(settle(bare, nodes(8, 8), {})) == {"a": 16}


def test_tenants_share_equally_and_the_first_gets_the_remainder() -> None:
    bare = Trace(jobs=tuple(job(t, 0, 1, tenant=t) for t in "cab"))
    assert shares(settle(bare, nodes(8, 8), {})) == {"a": 6, "b": 5, "c": 5}


def test_who_only_submits_beside_described_tenants_has_no_guarantee() -> None:
    bare = Trace(jobs=(job("j", 0, 1), job("k", 0, 1, tenant="b")))
    found = settle(bare, nodes(8), {TenantName("b"): ((GPU, 3),)})
    assert shares(found) == {"a": 0, "b": 3}


def test_more_than_there_is_cannot_be_guaranteed() -> None:
    given = trace([job("j", 0, 1)], nodes(8), {"a": 5, "b": 4})
    with pytest.raises(TraceError, match=r"quota: guarantees of gpu: 5 \+ 4 > 8 av"):
        settle(given, (), {})


def test_a_replay_needs_a_cluster() -> None:
    with pytest.raises(TraceError, match="a cluster is needed"):
        settle(Trace(jobs=(job("j", 0, 1),)), (), {})


def test_traces_with_a_job_in_common_are_not_merged() -> None:
    one = Trace(jobs=(job("j", 0, 1),))
    with pytest.raises(TraceError, match="job: the name is taken twice, got 'j'"):
        merge([one, one], RowErrors())


def test_merged_jobs_stand_by_submission_then_by_trace() -> None:
    one = Trace(jobs=(job("x", 5, 1), job("y", 9, 1)))
    two = Trace(jobs=(job("u", 0, 1), job("v", 5, 1)))
    assert [j.id for j in merge([one, two], RowErrors()).jobs] == ["u", "x", "v", "y"]
