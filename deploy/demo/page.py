"""The report of `make demo-kubernetes`: all of it as data, and a page to look at."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.demo import work
from deploy.demo.charts import Day, fleet_chart, usage_chart, waits_chart
from deploy.demo.chronicle import Life
from deploy.demo.stage import Stage
from simulator.report.look import render

HERE = Path(__file__).parent
_GLOSSARY = (
    ("guarantee", "GPUs that are the tenant's whenever it asks."),
    ("burst", "Use above the guarantee, out of what others leave idle."),
    ("gate", "A Kubernetes scheduling gate: kube-scheduler does not look at the pod."),
    ("hold", "A node that is freed for a pod, which is nominated to it and gated."),
    (
        "lost work",
        "GPU-seconds between the last checkpoint of a pod that had to go (its start, "
        "without one) and its end.",
    ),
)


def day_of(stage: Stage) -> Day:
    """Return what the pictures show."""
    return Day(
        lives=stage.chronicle.all,
        pauses=list(stage.chronicle.pauses),
        chapters=stage.chapters,
        guarantees=work.GUARANTEES,
        node_gpus=work.NODE_GPUS,
        seconds=stage.story.clock(),
    )


def document(stage: Stage, version: str, bound_s: float) -> dict[str, Any]:
    """Return what happened, as plain data.

    Parameters
    ----------
    bound_s
        Longest time a guarantee may have to wait, by the service's settings.
    """
    day = day_of(stage)
    return {
        "kubernetes": version,
        "fleet": {"nodes": work.NODES, "gpus": work.GPUS},
        "guarantees": work.GUARANTEES,
        "figures": {"reclaim_bound_s": bound_s, **figures(day)},
        "chapters": [{"at": at, "name": name} for at, name in day.chapters],
        "claims": [asdict(claim) for claim in stage.claims.held],
        "pods": [asdict(life) for life in day.lives],
        "suspended": [asdict(pause) for pause in day.pauses],
        "kubectl": stage.shown,
    }


def figures(day: Day) -> dict[str, float]:
    """Return the figures that matter, measured from outside."""
    victims = [life for life in day.lives if life.asked is not None]
    served = [life for life in day.lives if life.held is not None]
    return {
        "guarantee_wait_s": max(_wait(life) for life in served),
        "pods_asked_to_go": len(victims),
        "lost_gpu_s": sum(_lost(life) for life in victims),
        "seconds": day.seconds,
    }


def write(path: Path, day: Day, played: Mapping[str, Any]) -> None:
    """Write the page."""
    found = played["figures"]
    rows = (
        ("longest wait of a guaranteed pod", f"{found['guarantee_wait_s']:.1f} s"),
        ("the promise: at most", f"{found['reclaim_bound_s']:.0f} s"),
        ("burst pods that were asked to go", f"{found['pods_asked_to_go']}"),
        ("work they lost", f"{found['lost_gpu_s']:.0f} GPU-seconds"),
        ("claims that were checked", f"{len(played['claims'])}"),
    )
    text = render(
        HERE / "page.html.j2",
        title="A night, a morning and an evening on Kubernetes",
        subtitle=f"Kubernetes {played['kubernetes']} · {work.GPUS} GPUs in "
        f"{work.NODES} hollow nodes · three tenants · stock kube-scheduler",
        rows=rows,
        claims=played["claims"],
        shown=played["kubectl"],
        glossary=_GLOSSARY,
        charts={
            "fleet": fleet_chart(day),
            "waits": waits_chart(day),
            "usage": usage_chart(day),
        },
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _wait(life: Life) -> float:
    assert life.bound is not None
    return life.bound - life.created


def _lost(life: Life) -> float:
    assert life.bound is not None
    assert life.gone is not None
    return life.gpus * (life.gone - (life.saved or life.bound))
