"""Usage memory at work: what is kept per pool, and whose past tilts whose turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core import Fleet, Form, Policy, Queue, TenantName, TenantsChanged
from scheduler.core.fairness import UsageMemory
from scheduler.core.gpu import charge
from tests.builders import node, pod, tenant
from tests.core.desk import Desk
from tests.strategies import MANY, WHOLE

DAY = 86_400.0
HOUR = 3600.0
A100, T4 = Form("a100-80gb"), Form("t4-16gb")
TIMES = st.lists(st.floats(0, 10 * DAY), min_size=1, max_size=12)


# -- the memory -----------------------------------------------------------------


def test_a_clock_that_goes_back_counts_no_time_twice() -> None:
    """A day at 8 is a day, though the clock said twice that it was half past."""
    memory = UsageMemory(DAY)
    memory.change("a", 8.0, 0.0)
    for now in (DAY, DAY / 2, DAY):
        memory.change("a", 8.0, now)
    assert memory.average("a", DAY) == pytest.approx(4.0)


@MANY
@given(TIMES, st.floats(0, 10 * DAY))
def test_any_clock_counts_like_the_latest_it_has_shown(
    times: list[float], last: float
) -> None:
    """CONSERVATION of the past: whatever is noted, no moment counts more than once."""
    torn, whole = UsageMemory(DAY), UsageMemory(DAY)
    whole.change("a", 8.0, times[0])
    for now in times:
        torn.change("a", 8.0, now)
    end = max(last, *times)
    assert torn.average("a", end) == pytest.approx(whole.average("a", end))


def test_pools_are_remembered_apart_and_what_is_not_named_has_ended() -> None:
    memory = UsageMemory(DAY)
    memory.note("a", {A100: 8.0}, 0.0)
    memory.note("a", {T4: 2.0}, DAY)
    assert memory.averages("a", DAY) == pytest.approx({A100: 4.0, T4: 0.0})
    assert memory.averages("a", 2 * DAY) == pytest.approx({A100: 2.0, T4: 1.0})
    assert memory.averages("b", DAY) == {}


def test_another_half_life_forgets_nothing_at_once() -> None:
    """What is known and what is borrowed stay; only the pace changes."""
    memory = UsageMemory(DAY)
    memory.note("a", {A100: 8.0}, 0.0)
    slower = memory.with_half_life(2 * DAY, DAY)
    assert slower.averages("a", DAY) == pytest.approx({A100: 4.0})
    assert slower.averages("a", 3 * DAY) == pytest.approx({A100: 6.0})
    slower.note("a", {}, 3 * DAY)
    assert slower.averages("a", 5 * DAY) == pytest.approx({A100: 3.0})
    assert memory.averages("a", 2 * DAY) == pytest.approx({A100: 6.0})


# -- turns -----------------------------------------------------------------------


def desk_of(fleet: Fleet, *queues: Queue, offers: str = f"800x{WHOLE}") -> Desk:
    desk = Desk([node("n1", offers)], [], Policy(inline=False))
    desk.tell(TenantsChanged(queues, fleet))
    return desk


def turns(desk: Desk, *names: str) -> list[int]:
    """Turn shares of whole GPUs as of now."""
    shares = desk.engine._state.shares
    shares.weigh(desk.now)
    unit = charge(WHOLE)
    return [shares.turn_share(TenantName(name), WHOLE) // unit for name in names]


def department(weight: int = 1) -> tuple[Queue, ...]:
    """Eight GPUs of a large fleet, of which its two tenants may have all."""
    return (
        tenant("d", f"8x{WHOLE}", limit=f"8x{WHOLE}"),
        tenant("a", parent="d", weight=weight),
        tenant("b", parent="d", weight=weight),
    )


def test_below_a_parent_the_past_counts_against_what_the_parent_has() -> None:
    """Who has used all of it waits, however little of the fleet that is."""
    desk = desk_of(Fleet(half_life_s=HOUR), *department())
    desk.start(pod("p", "a", 8))
    desk.submit(pod("q", "b", 8))
    assert turns(desk, "a", "b") == [4, 4]
    desk.now = 100 * HOUR
    assert turns(desk, "a", "b") == [1, 7]


def test_among_roots_the_past_counts_against_the_fleet() -> None:
    desk = desk_of(Fleet(half_life_s=HOUR), tenant("a"), tenant("b"))
    desk.start(pod("p", "a", 400))
    desk.submit(pod("q", "b", 800))
    desk.now = 100 * HOUR
    assert turns(desk, "a", "b") == [267, 533]  # 1 : 2, as u is n for the one


def test_another_half_life_leaves_the_past_known() -> None:
    """Whoever writes the setting anew does not wipe out all debts."""
    desk = desk_of(Fleet(half_life_s=HOUR), *department())
    desk.start(pod("p", "a", 8))
    desk.submit(pod("q", "b", 8))
    desk.now = 100 * HOUR
    desk.tell(TenantsChanged(department(), Fleet(half_life_s=2 * HOUR)))
    assert turns(desk, "a", "b") == [1, 7]
    desk.tell(TenantsChanged(department(), Fleet()))
    assert turns(desk, "a", "b") == [4, 4]


def test_what_was_borrowed_counts_by_what_it_is_worth() -> None:
    """As many small GPUs are a smaller debt than as many large ones."""
    fleet = Fleet(half_life_s=HOUR, values=(("a100-80gb", 1000), ("t4-16gb", 100)))
    desk = desk_of(
        fleet,
        *(tenant(name) for name in ("a", "b")),
        offers=f"8x{A100} 8x{T4}",
    )
    desk.start(pod("p", "a", 8, classes=(A100,)), pod("q", "b", 8, classes=(T4,)))
    desk.submit(pod("r", "a", 8, classes=(T4,)), pod("s", "b", 8, classes=(A100,)))
    desk.now = 100 * HOUR
    shares = desk.engine._state.shares
    shares.weigh(desk.now)
    a, b = (shares.turn_share(TenantName(name), A100) for name in ("a", "b"))
    assert a < b


def test_the_largest_weights_divide_with_memory_on() -> None:
    """Tilted weights are thousands of times larger; no product may overflow."""
    desk = desk_of(Fleet(half_life_s=HOUR), *department(weight=10**9))
    desk.start(pod("p", "a", 8))
    desk.submit(pod("q", "b", 8))
    desk.now = 100 * HOUR
    assert turns(desk, "a", "b") == [1, 7]
