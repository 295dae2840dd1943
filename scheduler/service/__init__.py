"""Owns time and concurrency: one engine, one loop, two lanes.

``driver`` calls the engine and runs the cycle; ``standalone`` and ``cluster`` are the
two places it runs in: a file and an event door, or Kubernetes. ``outbox`` keeps wishes
until they are acknowledged, ``roster`` judges batches of events, ``solver`` is lane 2's
process.
"""

from scheduler.service.cluster import OnKubernetes
from scheduler.service.driver import Service
from scheduler.service.outbox import Outbox
from scheduler.service.roster import Roster
from scheduler.service.solver import Solver
from scheduler.service.standalone import Standalone

__all__ = ["OnKubernetes", "Outbox", "Roster", "Service", "Solver", "Standalone"]
