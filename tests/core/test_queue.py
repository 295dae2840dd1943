"""What a queue may be written with: nothing that the arithmetic has no room for."""

from typing import Any

import pytest

from scheduler.core import Fleet, Form, Policy, Queue, TenantName
from scheduler.core.gpu import charge, parse_form
from scheduler.core.quota import UNLIMITED
from tests.builders import node, pod
from tests.core.desk import Desk
from tests.strategies import WHOLE

SLIVER = parse_form("gpu/shared-126000")
MOST = (UNLIMITED - 1) // charge(WHOLE)
FIELDS = (
    "guarantee",
    "borrowing_limit",
    "lending_limit",
    "limit",
    "inference_burst",
    "critical",
)


def queue(**fields: Any) -> Queue:
    return Queue(name=TenantName("a"), **fields)


@pytest.mark.parametrize("field", FIELDS)
def test_amounts_that_no_integer_holds_are_refused(field: str) -> None:
    """Said with field and value when it is written, not in the middle of a cycle."""
    text = rf"queue 'a': {field} of h100-80gb is too large: {MOST + 1}"
    with pytest.raises(ValueError, match=text):
        queue(**{field: ((WHOLE, MOST + 1),)})
    text = rf"queue 'a': {field} of h100-80gb is too large: {MOST}"
    with pytest.raises(ValueError, match=text):
        queue(**{field: ((Form("any"), 1), (WHOLE, MOST))})


def test_amounts_count_by_what_they_are_charged() -> None:
    """Many devices of little worth are no large amount."""
    assert queue(guarantee=((SLIVER, 10**18),)).guarantee == ((SLIVER, 10**18),)
    with pytest.raises(ValueError, match=rf"too large: {1 << 62}"):
        queue(limit=((SLIVER, 1 << 62),))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"weight": 10**9 + 1}, "queue 'a': weight 1000000001 is above 1000000000"),
        ({"weight": -1}, "queue 'a': weight -1 is negative"),
        ({"priority": 1 << 31}, "queue 'a': priority 2147483648 is beyond 2147483647"),
        ({"priority": -(1 << 31)}, "queue 'a': priority -2147483648 is beyond"),
        ({"burst_milli": -1}, "queue 'a': burst is negative"),
    ],
)
def test_other_numbers_out_of_range_are_refused(
    fields: dict[str, int], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        queue(**fields)


def test_a_ceiling_of_the_fleet_is_an_amount_too() -> None:
    text = rf"fleet: burst_ceiling of h100-80gb is too large: {MOST + 1}"
    with pytest.raises(ValueError, match=text):
        Fleet(burst_ceiling=((WHOLE, MOST + 1),))


def test_the_largest_of_all_work() -> None:
    """Whatever is not refused is divided without overflow."""
    amounts = ((WHOLE, MOST),)
    largest = queue(
        guarantee=amounts,
        borrowing_limit=amounts,
        weight=10**9,
        priority=(1 << 31) - 1,
    )
    other = Queue(name=TenantName("b"), limit=amounts, weight=10**9)
    desk = Desk([node("n1")], [largest, other], Policy(inline=False))
    desk.start(pod("p", "a", 6))
    desk.start(pod("q", "b", 6))
    shares = {row.name: row.share for row in desk.engine.tenants(desk.now)}
    assert shares == {"a": 6 * charge(WHOLE), "b": 2 * charge(WHOLE)}
