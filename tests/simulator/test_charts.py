"""What the plots draw."""

import json

import pytest

from simulator.report.charts import binned, queueing_chart


def test_bins_hold_the_mean_over_their_time() -> None:
    """2 GPUs from 0 to 10, 6 until 15, then none; bins of 10 s."""
    steps = [(0.0, 2.0), (10.0, 6.0), (15.0, 0.0)]
    assert binned(steps, 0, 30, 3) == pytest.approx([2.0, 3.0, 0.0])
    assert binned(steps, -10, 10, 2) == pytest.approx([0.0, 2.0])
    assert binned([], 0, 10, 2) == [0.0, 0.0]


def test_bars_say_what_they_stand_for_even_where_they_are_too_short() -> None:
    figures = {"mean_queue_s": 0.0, "p95_queue_s": 7200.0}
    found = {"tenants": {"a": figures}, "classes": {"training": figures}}
    chart = json.loads(queueing_chart({"fifo": found}))
    mean, p95 = (trace for trace in chart["data"] if trace["type"] == "bar")
    assert mean["y"] == ["a", "all training"]
    assert (mean["text"], mean["x"]) == (["0 s", "0 s"], [1.0, 1.0])
    assert p95["text"] == ["2.0 h", "2.0 h"]
