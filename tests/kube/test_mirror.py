"""Whatever way the news take, the engine ends up knowing what is there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kube.histories import Cluster
from tests.kube.seen import Seen, job, lease, node, pod
from tests.strategies import MANY

SEEDS = st.integers(0, 2**32)


@MANY
@given(SEEDS, st.integers(1, 300))
def test_any_history_ends_in_what_a_new_process_would_know(
    seed: int, steps: int
) -> None:
    """News that are late, lost, doubled or in another order change nothing.

    On the way the engine's promises hold after each event, none is refused, no pod is
    told on a node that is unknown, and departures precede arrivals.
    """
    cluster = Cluster(seed)
    cluster.live(steps)
    cluster.settle()
    fresh = Seen(cluster.spaces).see(*cluster.now.values())
    fresh.hear()
    assert cluster.seen.known() == fresh.known()
    assert cluster.seen.offered() == fresh.offered()


@MANY
@given(SEEDS, st.integers(1, 200))
def test_nothing_is_kept_of_what_is_gone(seed: int, steps: int) -> None:
    """A service runs for months; pods, Jobs and nodes come and go all the time."""
    cluster = Cluster(seed)
    cluster.live(steps)
    cluster.settle()
    cluster.seen.lose(*sorted(cluster.now))
    cluster.hear()
    assert cluster.seen.kept() == {}
    assert cluster.seen.known() == {}
    assert cluster.seen.offered() == {}


def test_a_new_leader_of_kube_scheduler_is_another_word() -> None:
    """It has forgotten nominations of gated pods, so every hold is asserted anew."""
    leases = Seen().mirror.leases
    words = {leases.leader}
    for state in (lease("one"), lease("two"), lease("one", 2)):
        leases.changed(state)
        words.add(leases.leader)
    leases.gone("lease")
    assert len(words) == 4
    assert leases.leader == ""


@pytest.mark.parametrize("gangs", [1, 200])
def test_pods_of_one_list_are_told_once_each(gangs: int) -> None:
    seen = Seen().see(node("n1"))
    seen.see(*(pod(f"p{i}", gang=f"g{i % gangs}", size=2) for i in range(400)))
    assert len(seen.mirror.events(lambda s: s)) == 401
    assert seen.mirror.events(lambda s: s) == []


def test_who_is_refused_is_forgotten_as_well() -> None:
    batch = {"priorityClassName": "fairshare-batch"}
    seen = Seen().see(pod("p", gang="g", size=2), pod("q", gang="g", size=2, **batch))
    seen.see(job("j", suspended=True))
    seen.hear()
    seen.mirror.refuse("job:j/0", "no room for it")
    seen.lose("uid-q", "uid-p", "j").hear()
    assert seen.kept() == {}
