"""Demand over time, without single jobs: what a fluid replay divides."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Curve:
    """Guarantee and demand of one tenant: GPUs in each minute, equally many of both."""

    tenant: str
    quota: tuple[int, ...]
    demand: tuple[int, ...]
