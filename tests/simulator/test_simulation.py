"""The clock and the model of the cluster, by hand-made examples."""

import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from scheduler.core import (
    Action,
    CheckpointDone,
    CheckpointRequest,
    Event,
    Evict,
    GangId,
    NodeName,
    PodBound,
    PodGone,
    PodSubmitted,
    PodUid,
    Withdraw,
)
from simulator.simulation import (
    Admitted,
    Bound,
    CheckpointAsked,
    CheckpointWritten,
    Evicted,
    Finished,
    Gone,
    Kubelet,
    Record,
    Started,
    Stopped,
    Submitted,
    Withdrawn,
    simulate,
    write_log,
)
from simulator.simulation.work import Work
from simulator.trace import Trace
from tests.simulator.builders import GPU, Script, admit, job, nodes, trace

N0 = NodeName("n0")
Acts = Mapping[float, Sequence[Action]]


def evict(uid: str, grace: float = 120.0, taker: str | None = None) -> Evict:
    beneficiary = GangId(taker) if taker else None
    return Evict(PodUid(uid), GangId(uid), N0, grace, "reclaimed", beneficiary)


def ask(uid: str, deadline: float) -> CheckpointRequest:
    return CheckpointRequest(PodUid(uid), GangId(uid), N0, deadline, GangId("taker"))


def play(
    given: Trace,
    acts: Acts | None = None,
    kubelet: Kubelet | None = None,
    *,
    eager: bool = True,
) -> tuple[list[Record], Script]:
    script = Script(acts or {}, eager=eager)
    return simulate(given, script, kubelet=kubelet), script


def times(log: Sequence[Record], kind: type[Record]) -> list[float]:
    return [record.at for record in log if type(record) is kind]


def only(log: Sequence[Record], kind: type[Record]) -> Record:
    (record,) = (record for record in log if type(record) is kind)
    return record


def told(script: Script, kind: type[Event]) -> list[tuple[float, Event]]:
    return [(at, event) for at, event in script.heard if isinstance(event, kind)]


# -- a life without incident --------------------------------------------------


def test_a_job_runs_for_its_duration_and_frees_its_pods() -> None:
    log, script = play(trace([job("j", 5, 100, (2, 1))], nodes(8)))
    assert log == [
        Submitted(5, "j", 0, GangId("a/j")),
        Admitted(5, "j", 0, N0, GPU, 2 * 126_000),
        Bound(5, "j", 0),
        Admitted(5, "j", 1, N0, GPU, 126_000),
        Bound(5, "j", 1),
        Started(5, "j"),
        Finished(105, "j", 100.0, 0.0),
        Gone(105, "j", 0),
        Gone(105, "j", 1),
    ]
    assert [event for _, event in told(script, PodBound)] == [
        PodBound(PodUid("j.0.0"), N0),
        PodBound(PodUid("j.0.1"), N0),
    ]
    pod = script.pods["j.0.0"]
    assert (pod.gang, pod.min_member) == ("j", 2)


def test_a_pod_on_its_own_is_no_gang() -> None:
    _, script = play(trace([job("j", 0, 1)], nodes(8)))
    assert script.pods["j.0.0"].gang == ""


def test_a_gang_starts_when_its_last_member_is_bound() -> None:
    acts = {0.0: [admit("j.0.0", "n0")], 7.0: [admit("j.0.1", "n0")]}
    given = trace([job("j", 0, 100, (1, 1))], nodes(8))
    log, _ = play(given, acts, eager=False)
    assert times(log, Bound) == [0, 7]
    assert times(log, Started) == [7]
    assert times(log, Finished) == [107]


def test_binding_and_start_up_take_their_time() -> None:
    delays = Kubelet(bind_s=3, startup_s=40)
    log, _ = play(trace([job("j", 0, 100)], nodes(8)), kubelet=delays)
    assert times(log, Bound) == [3]
    assert times(log, Started) == [43]
    assert only(log, Finished) == Finished(143, "j", 100.0, 0.0)


def test_all_events_of_an_instant_come_before_its_one_cycle() -> None:
    """What ends frees its devices first, then the new ones are told."""
    jobs = [job("old", 0, 10), job("new", 10, 5), job("newer", 10, 5)]
    _, script = play(trace(jobs, nodes(8)))
    at_ten = [event for at, event in script.heard if at == 10]
    kinds = [type(event) for event in at_ten]
    bound = at_ten.index(None) + 1
    assert kinds[:bound] == [PodGone, PodSubmitted, PodSubmitted, type(None)]
    assert kinds[bound : bound + 2] == [PodBound, PodBound]


def test_the_scheduler_is_woken_at_its_deadline_though_nothing_happens() -> None:
    _, script = play(trace([job("j", 0, 100)], nodes(8)), {42.5: []})
    assert (42.5, None) in script.heard


def test_a_withdrawn_admission_is_never_bound() -> None:
    back = Withdraw(PodUid("j.0.0"), GangId("j.0.0"), N0, "late")
    acts: Acts = {0.0: [admit("j.0.0", "n0")], 2.0: [back], 9.0: [admit("j.0.0", "n0")]}
    given = trace([job("j", 0, 100)], nodes(8))
    log, _ = play(given, acts, Kubelet(bind_s=3), eager=False)
    assert times(log, Withdrawn) == [2]
    assert times(log, Bound) == [12]
    assert times(log, Finished) == [112]


def test_what_is_wished_twice_or_too_late_does_nothing() -> None:
    acts: Acts = {
        5.0: [admit("j.0.0", "n0")],
        6.0: [evict("j.0.0"), evict("j.0.0")],
        200.0: [evict("j.0.0"), admit("nobody", "n0")],
    }
    log, _ = play(trace([job("j", 0, 100)], nodes(8)), acts)
    assert times(log, Admitted) == [0, 16]
    assert times(log, Evicted) == [6]
    assert times(log, Finished) == [116]


# -- evictions ----------------------------------------------------------------


def test_an_evicted_job_comes_back_as_new_pods_once_the_old_are_gone() -> None:
    given = trace([job("j", 0, 100, (1, 1))], nodes(8))
    log, script = play(given, {30.0: [evict("j.0.0"), evict("j.0.1")]})
    assert times(log, Gone)[:2] == [40, 40]  # ten seconds to terminate
    again = [record for record in log if type(record) is Submitted][1]
    assert again == Submitted(40, "j", 1, GangId("a/j"))
    assert {"j.1.0", "j.1.1"} <= script.pods.keys()
    # The devices of both were free before the scheduler heard of the new ones.
    kinds = [type(event) for at, event in script.heard if at == 40]
    assert kinds[:4] == [PodGone, PodGone, PodSubmitted, PodSubmitted]


def test_termination_never_takes_longer_than_the_grace() -> None:
    given = trace([job("j", 0, 100)], nodes(8))
    log, _ = play(given, {30.0: [evict("j.0.0", grace=4.0)]})
    assert times(log, Gone)[0] == 34
    log, _ = play(given, {30.0: [evict("j.0.0", grace=0.0)]})
    assert times(log, Gone)[0] == 30


@pytest.mark.parametrize(
    ("every", "restart", "kept", "lost", "end"),
    [
        (None, 0.0, 0.0, 75.0, 185.0),  # no checkpoints: all is lost
        (30.0, 0.0, 60.0, 15.0, 125.0),  # two checkpoints are safe
        (30.0, 7.0, 60.0, 15.0, 132.0),  # and the restart costs
        (75.0, 0.0, 75.0, 0.0, 110.0),  # evicted the moment one is written
    ],
)
def test_an_eviction_loses_the_work_since_the_last_checkpoint(
    every: float | None, restart: float, kept: float, lost: float, end: float
) -> None:
    """100 s of work, evicted after 75 s, back after 10 s."""
    given = trace([job("j", 0, 100, every=every, restart=restart)], nodes(8))
    log, _ = play(given, {75.0: [evict("j.0.0")]})
    assert only(log, Stopped) == Stopped(75, "j", kept, lost)
    assert only(log, Finished) == Finished(end, "j", 100 - kept, restart)


def test_an_eviction_during_the_restart_loses_the_restart_so_far() -> None:
    given = trace([job("j", 0, 100, every=10.0, restart=20.0)], nodes(8))
    acts = {50.0: [evict("j.0.0")], 68.0: [evict("j.1.0")]}
    log, _ = play(given, acts)
    stops = [record for record in log if type(record) is Stopped]
    assert stops == [Stopped(50, "j", 50.0, 0.0), Stopped(68, "j", 0.0, 8.0)]
    assert only(log, Finished) == Finished(148, "j", 50.0, 20.0)


def test_an_eviction_during_start_up_ends_the_attempt_without_work() -> None:
    given = trace([job("j", 0, 100)], nodes(8))
    log, _ = play(given, {20.0: [evict("j.0.0")]}, Kubelet(startup_s=45))
    assert only(log, Stopped) == Stopped(20, "j", 0.0, 0.0)
    assert times(log, Started) == [75]
    assert only(log, Finished) == Finished(175, "j", 100.0, 0.0)


# -- checkpoints on request ---------------------------------------------------


def test_a_requested_checkpoint_saves_all_and_costs_its_writing() -> None:
    """Asked at 75, written at 95; the job stands still, so 75 s are safe, not 95."""
    given = trace([job("j", 0, 100)], nodes(8))
    log, script = play(given, {75.0: [ask("j.0.0", 135)], 95.0: [evict("j.0.0")]})
    assert only(log, CheckpointAsked) == CheckpointAsked(75, "j", 135)
    assert times(log, CheckpointWritten) == [95]
    assert told(script, CheckpointDone) == [(95, CheckpointDone(PodUid("j.0.0")))]
    assert only(log, Stopped) == Stopped(95, "j", 75.0, 0.0)
    assert only(log, Finished) == Finished(130, "j", 25.0, 0.0)


def test_a_checkpoint_without_an_eviction_delays_the_job_by_its_writing() -> None:
    given = trace([job("j", 0, 100)], nodes(8))
    log, _ = play(given, {75.0: [ask("j.0.0", 135)]})
    assert only(log, Finished) == Finished(120, "j", 100.0, 0.0)


def test_an_eviction_before_the_checkpoint_is_written_makes_it_worthless() -> None:
    given = trace([job("j", 0, 100, every=30.0)], nodes(8))
    log, script = play(given, {75.0: [ask("j.0.0", 85)], 85.0: [evict("j.0.0")]})
    assert not told(script, CheckpointDone)
    assert only(log, Stopped) == Stopped(85, "j", 60.0, 15.0)


def test_a_gang_writes_one_checkpoint_and_every_member_reports_it() -> None:
    given = trace([job("j", 0, 100, (1, 1))], nodes(8))
    log, script = play(given, {50.0: [ask("j.0.0", 110), ask("j.0.1", 110)]})
    assert times(log, CheckpointAsked) == [50]
    assert len(told(script, CheckpointDone)) == 2


def test_who_writes_no_checkpoints_on_request_ignores_it() -> None:
    given = trace([job("j", 0, 100, on_request=False)], nodes(8))
    log, script = play(given, {50.0: [ask("j.0.0", 110)]})
    assert not told(script, CheckpointDone)
    assert times(log, Finished) == [100]
    assert script.pods["j.0.0"].on_request is False


def test_the_phase_shifts_the_checkpoints_a_job_writes_by_itself() -> None:
    work = Work(job("j", 0, 100, every=30.0))
    work.begin(0.0, again=False)
    work.pause(75.0)
    assert work.stop(phase=20.0) == (50.0, 25.0)  # written at 20 and 50
    work.begin(0.0, again=True)
    work.pause(4.0)
    assert work.stop(phase=20.0) == (0.0, 4.0)  # what was kept stays kept


# -- the log ------------------------------------------------------------------


def test_the_log_is_one_json_array_a_line() -> None:
    log, _ = play(trace([job("j", 0, 1.5)], nodes(8)))
    stream = io.StringIO()
    write_log(log, stream)
    lines = stream.getvalue().splitlines()
    assert lines[0] == '["Submitted",0,"j",0,"j.0.0"]'
    assert lines[-2:] == ['["Finished",1.5,"j",1.5,0]', '["Gone",1.5,"j",0]']


def log_bytes(path: Path, hash_seed: str, options: Sequence[str]) -> bytes:
    command = [sys.executable, "-m", "simulator", "run", *options, "--log", str(path)]
    subprocess.run(
        command,
        check=True,
        env={"PYTHONHASHSEED": hash_seed},
        cwd=Path(__file__).parents[2],
        capture_output=True,
    )
    return path.read_bytes()


@pytest.mark.parametrize("policy", ["fairshare", "static", "fifo"])
def test_two_processes_write_the_same_log_byte_for_byte(
    tmp_path: Path, policy: str
) -> None:
    """Whatever the seed of Python's hashes: DETERMINISTIC."""
    rows = [
        f"j{n},{'xy'[n % 2]},training,{97 * n},{3000 + n},3,{1 + n % 3}"
        for n in range(120)
    ]
    source = tmp_path / "trace.csv"
    source.write_text(
        "[nodes]\nname,count,offers\nn,4,gpu:8\n"
        "[tenants]\nname,guarantee\nx,gpu:12\ny,gpu:12\nserving,gpu:8\n"
        "[jobs]\nid,tenant,class,submit_s,duration_s,gpus,pods\n" + "\n".join(rows)
    )
    bursts = "burst:tenant=serving,gpus=8,on=900,off=900,until=12000"
    options = ["--trace", f"normal:{source}", "--trace", bursts]
    options += ["--policy", policy, "--seed", "7"]
    first = log_bytes(tmp_path / "first", "1", options)
    assert first == log_bytes(tmp_path / "second", "2", options)
    assert first.count(b"\n") > 500
    assert (b'"Evicted"' in first) == (policy == "fairshare")
