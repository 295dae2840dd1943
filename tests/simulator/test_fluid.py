"""Division of demand curves, minute by minute."""

import json

import pytest

from simulator.fluid import FluidRun, replay
from simulator.importers import load_curves
from simulator.trace import Curve, RowErrors
from tests.simulator.builders import EXPECTED, HELIOS


def run(*tenants: tuple[str, int, list[int]]) -> FluidRun:
    return replay([Curve(name, (q,) * len(d), tuple(d)) for name, q, d in tenants])


def test_idle_guarantees_are_lent_and_given_back() -> None:
    found = run(("a", 4, [10, 10, 0]), ("b", 4, [0, 3, 8]))
    a, b = found.tenants["a"], found.tenants["b"]
    assert (a.static, a.shared) == (8, 13.0)  # 8 + 5: b asks for 3 in the second minute
    assert (b.static, b.shared) == (7, 11.0)
    assert (a.unmet_static, a.unmet_shared) == (12, 7.0)
    assert found.guarantee_violation_s == 0
    assert found.utilisation_shared == pytest.approx(24 / 24)
    assert found.utilisation_static == pytest.approx(15 / 24)


def test_what_is_left_is_divided_in_proportion_to_the_guarantees() -> None:
    found = run(("a", 6, [99]), ("b", 3, [99]), ("idle", 9, [0]))
    assert found.tenants["a"].shared == 6 + 6
    assert found.tenants["b"].shared == 3 + 3


def test_nothing_at_all_is_no_error() -> None:
    assert replay([]).minutes == 0


@pytest.mark.skipif(not HELIOS.exists(), reason="needs the published traces")
def test_helios_earth_equals_the_published_fluid_figures() -> None:
    """A6: exact where it counts GPUs, within half a GPU-minute where it divides."""
    wanted = json.loads(EXPECTED.read_text())["A6_earth_guarantee_burst_fluid"][
        "expected"
    ]
    found = replay(load_curves(f"helios:{HELIOS}", RowErrors()))
    assert (found.capacity, found.minutes) == (wanted["capacity"], wanted["minutes"])
    assert found.tenants.keys() == wanted["per_vc"].keys()
    for name, figures in {**wanted["per_vc"], "total": wanted["total"]}.items():
        served = found.total if name == "total" else found.tenants[name]
        for key in ("demand", "static", "unmet_static", "min_under"):
            assert getattr(served, key) == figures[key], (name, key)
        assert abs(served.shared - figures["shared"]) < 0.5, name
        assert abs(served.unmet_shared - figures["unmet_shared"]) < 0.5, name
    assert found.total.shared == 28_214_720
    assert found.total.unmet_shared == 11_934
    assert found.guarantee_violation_s == 0
    assert round(100 * found.utilisation_static, 2) == 67.96
    assert round(100 * found.utilisation_shared, 2) == 73.84
