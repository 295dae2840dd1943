"""Seeded bursts."""

import pytest

from simulator.synthetic import Bursts, generate, parse_bursts
from simulator.trace import RowErrors, Trace, TraceError

SPEC = "burst:tenant=serving,gpus=8,pod=2,on=600,off=1200,from=1000,until=50000"


def draw(seed: int, spec: str = SPEC) -> Trace:
    return generate(parse_bursts(spec), seed, RowErrors())


def test_the_same_seed_draws_the_same_jobs_and_another_draws_others() -> None:
    assert draw(1).jobs == draw(1).jobs
    assert draw(1).jobs != draw(2).jobs


def test_bursts_stay_within_the_guarantee_and_their_time() -> None:
    jobs = draw(3).jobs
    assert len(jobs) > 20
    assert {member.count for job in jobs for member in job.members} == {2}
    changes = sorted(
        change
        for job in jobs
        for change in ((job.submit_s, 2), (job.submit_s + job.duration_s, -2))
    )
    level = most = 0
    for _, change in changes:
        level += change
        most = max(most, level)
    assert 4 <= most <= 8
    assert jobs[0].submit_s > 1000
    assert max(job.submit_s for job in jobs) < 50_000 + 120


def test_there_is_quiet_between_bursts() -> None:
    starts: dict[str, float] = {}
    for one in draw(3).jobs:
        burst = one.id.rsplit("-", 1)[0]
        starts.setdefault(burst, one.submit_s)
    assert len(starts) > 10
    assert all(one.workload_class.is_inference for one in draw(3).jobs)


def test_keys_have_defaults() -> None:
    assert parse_bursts("burst:gpus=4") == Bursts(gpus=4)
    assert parse_bursts("burst:from=5").since == 5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("burst:size=4", "keys are tenant, gpus, pod, on, off, from, until, ramp"),
        ("burst:since=4", "keys are"),
        ("burst:gpus=four", "gpus: a whole number is needed, got 'four'"),
        ("burst:gpus=1,pod=2", "at least one pod"),
        ("burst:off=0", "off must be at least 1"),
    ],
)
def test_what_means_nothing_is_refused(spec: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        parse_bursts(spec)
