"""Virtual time: a scheduler's decisions, played out.

    log     what happened, record by record
    work    what a job has done, saved and lost
    kubelet the delays of the modelled cluster
    world   the clock and the event heap; drives a scheduler

`simulate` is the door.
"""

from simulator.simulation.kubelet import Kubelet
from simulator.simulation.log import (
    Admitted,
    Bound,
    CheckpointAsked,
    CheckpointWritten,
    Evicted,
    Finished,
    Gone,
    Record,
    Started,
    Stopped,
    Submitted,
    Withdrawn,
    write_log,
)
from simulator.simulation.world import Scheduler, simulate

__all__ = [
    "Admitted",
    "Bound",
    "CheckpointAsked",
    "CheckpointWritten",
    "Evicted",
    "Finished",
    "Gone",
    "Kubelet",
    "Record",
    "Scheduler",
    "Started",
    "Stopped",
    "Submitted",
    "Withdrawn",
    "simulate",
    "write_log",
]
