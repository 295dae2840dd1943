"""The delays of the modelled cluster: kube-scheduler, kubelet and the job controller.

Hidden here: nothing but numbers. They are assumptions about a healthy cluster, stated
in one place; a planner who knows better passes others.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubelet:
    """How long things take, seconds.

    Parameters
    ----------
    bind_s
        From admission to the bound pod.
    startup_s
        From the last bound member of a gang to its first useful work (image pull,
        model load).
    checkpoint_s
        Writing a checkpoint on request; the job stands still meanwhile.
    termination_s
        From the eviction to free devices, at most the grace the scheduler allows.
    """

    bind_s: float = 0.0
    startup_s: float = 0.0
    checkpoint_s: float = 20.0
    termination_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse negative delays."""
        for field in ("bind_s", "startup_s", "checkpoint_s", "termination_s"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must not be negative")
