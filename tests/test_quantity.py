"""Quantities and durations as Kubernetes and Go write them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.quantity import (
    cpu_milli,
    memory_mib,
    quantity,
    round_down,
    round_up,
    seconds,
)

UNITS: dict[str, int | Fraction] = {
    "": 1,
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "e3": 10**3,
    "E3": 10**3,
    "e+2": 100,
    "e-2": Fraction(1, 100),
}


@given(st.integers(0, 10**6), st.sampled_from(sorted(UNITS)))
def test_whole_numbers_with_every_unit_are_exact(number: int, unit: str) -> None:
    assert quantity(f"{number}{unit}") == number * UNITS[unit]


@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from(sorted(UNITS)))
def test_decimals_are_exact(number: int, digits: int, unit: str) -> None:
    """The shortest way back: what a float would make of 0.1 is not 0.1."""
    whole, part = divmod(number, 10**digits)
    text = f"{whole}.{part:0{digits}d}{unit}"
    assert quantity(text) == Fraction(number, 10**digits) * UNITS[unit]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1E", 10**18), ("1E0", 1), ("7Ei", 7 * 2**60), (".5", Fraction(1, 2)), ("5.", 5)],
)
def test_exa_is_not_an_exponent(text: str, value: Fraction) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1gb",
        "1GB",
        "1KI",
        "0x1",
        "1e",
        "1e9999999",
        "\u0661",
        "1_000",
        "nan",
    ],
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity(text)


def test_bounds() -> None:
    assert quantity("9223372036854775807") == 2**63 - 1
    for text in ("9223372036854775808", "10E", "1e999"):
        with pytest.raises(ValueError, match="larger"):
            quantity(text)
    with pytest.raises(ValueError, match="negative"):
        quantity("-1")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (quantity, cpu_milli, memory_mib, seconds):
        try:
            assert parse(text) >= 0
        except ValueError:
            continue


def test_requests_round_up_and_capacities_down() -> None:
    assert round_up(cpu_milli("100u")) == 1
    assert round_down(cpu_milli("1999u")) == 1
    assert round_up(memory_mib("1")) == 1
    assert memory_mib("2Gi") == 2048
    with pytest.raises(ValueError, match="memory"):
        cpu_milli("1Gi")


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_add_up(hours: int, minutes: int, secs: int, millis: int) -> None:
    value = hours * 3600 + minutes * 60 + secs + millis / 1000
    text = f"{hours}h{minutes}m{secs}s{millis}ms"
    assert seconds(text) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(
    "text", ["", "5", "-5s", "5 s", "5sec", "1d", "s", "1m30", ".5s"]
)
def test_durations_need_units(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration with a unit"):
        seconds(text)
