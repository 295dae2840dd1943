"""Owns time and concurrency: one engine, one loop, two lanes.

``driver`` calls the engine and runs the cycle, ``outbox`` keeps wishes until they are
acknowledged, ``roster`` judges batches of events, ``solver`` is lane 2's process.
"""

from scheduler.service.driver import Service
from scheduler.service.outbox import Outbox
from scheduler.service.roster import Roster
from scheduler.service.solver import Solver

__all__ = ["Outbox", "Roster", "Service", "Solver"]
