"""What one job has done so far, what of it is safe, and what an eviction loses.

Hidden here: the arithmetic of checkpoints. *Progress* is work done, in seconds of the
uninterrupted job, from 0 to its duration. It grows while the job runs, except during
the restart at the beginning of a later attempt, and not while the job stands still to
write a checkpoint it was asked for. A job that writes checkpoints by itself does so
whenever its progress passes ``phase + k * interval``. An eviction takes the progress
back to what was saved last.
"""

from simulator.trace import TraceJob


class Work:
    """The progress of one job over all its attempts; all times in seconds."""

    __slots__ = ("_clock", "_job", "_kept", "_restart", "_resumed", "_saved")

    def __init__(self, job: TraceJob) -> None:
        self._job = job
        self._kept = 0.0  # progress that this attempt began with
        self._saved = 0.0  # progress in the last checkpoint on request
        self._restart = 0.0  # running time this attempt spends before work goes on
        self._clock = 0.0  # running time of this attempt
        self._resumed = 0.0  # when the clock was started last

    def begin(self, now: float, *, again: bool) -> float:
        """Start an attempt; return the running time it needs to complete the job."""
        self._restart = self._job.restart_s if again else 0.0
        self._saved = self._kept
        self._clock = 0.0
        return self.resume(now)

    def resume(self, now: float) -> float:
        """Go on after a standstill; return the running time left."""
        self._resumed = now
        return self._restart + self._job.duration_s - self._kept - self._clock

    def pause(self, now: float) -> None:
        """Stand still."""
        self._clock += now - self._resumed

    def save(self) -> None:
        """Keep the progress at the standstill: a requested checkpoint is complete."""
        self._saved = max(self._saved, self._progress())

    def stop(self, phase: float) -> tuple[float, float]:
        """End the attempt at a standstill by eviction.

        Parameters
        ----------
        phase
            Progress at which the job writes its first checkpoint by itself, seconds;
            0: after one interval.

        Returns
        -------
        tuple of float
            Progress of this attempt that survives, and running time that was for
            nothing: work to be done again, and the restart.
        """
        return self._settle(max(self._saved, self._by_itself(phase)))

    def finish(self) -> tuple[float, float]:
        """End the attempt at a standstill, complete; the pair is that of `stop`."""
        return self._settle(self._job.duration_s)

    def _progress(self) -> float:
        return self._kept + max(0.0, self._clock - self._restart)

    def _by_itself(self, phase: float) -> float:
        """Progress in the last checkpoint the job wrote by itself."""
        interval = self._job.checkpoint_interval_s
        past = self._progress() - phase
        if not interval or past < 0:
            return 0.0
        return phase + past // interval * interval

    def _settle(self, kept: float) -> tuple[float, float]:
        gained = kept - self._kept
        self._kept = kept
        return gained, self._clock - gained
