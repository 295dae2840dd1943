"""Lane 2: the allocator in a process of its own, at low priority.

Hidden here: the process. It is spawned when the first problem comes, solves one problem
at a time, and is replaced when it has died or does not answer in time. It ends with
its parent: reading from the closed pipe ends its loop.
"""

import multiprocessing
import os
import pickle
import signal
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from scheduler.core import Budget, Plan, Problem, allocate

LOWEST_PRIORITY = 19
START_S = 30.0
"""Time the process has to start, seconds: it imports the allocator."""

OVERTIME_S = 5.0
"""Time beyond its budget after which a solve is given up, seconds."""


def pack(problem: Problem, wall_s: float) -> bytes:
    """Write a problem and its budget (seconds) for the solving process.

    This holds the interpreter's lock from begin to end, whichever thread it runs in:
    the caller decides when it can afford that.
    """
    return pickle.dumps((problem, Budget(wall_s=wall_s)), pickle.HIGHEST_PROTOCOL)


class Solver:
    """One solving process.

    `solve` blocks, and is called from one thread at a time; `close` may be called
    meanwhile, from another.
    """

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no process."""
        return self._process.pid if self._process else None

    def solve(self, package: bytes, wall_s: float) -> Plan | None:
        """Return a plan, None when the process died or took too long.

        Parameters
        ----------
        package
            From `pack`.
        wall_s
            Wall-clock budget of the solve, seconds.
        """
        try:
            pipe = self._connect()
            pipe.send_bytes(package)
            if pipe.poll(wall_s + OVERTIME_S):
                answer = pipe.recv()
                return answer if isinstance(answer, Plan) else None
        except (EOFError, OSError):
            pass
        self.discard()
        return None

    def close(self) -> None:
        """End the process, whatever it is doing, and start no other.

        A solve under way returns None at once.
        """
        self._closed = True
        process = self._process
        if process is not None and process.is_alive():
            process.kill()

    def discard(self) -> None:
        """Free what the process held; not during a solve."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def _connect(self) -> Connection:
        if self._process is not None and not self._process.is_alive():
            self.discard()
        if self._closed:
            raise EOFError("the solver is closed")
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=_serve, args=(theirs,), name="fairshare-solver", daemon=True
            )
            self._process.start()
            theirs.close()
            if not self._pipe.poll(START_S):
                raise EOFError("the solver did not start")
            self._pipe.recv()
        return self._pipe


def _serve(pipe: Connection) -> None:
    """Solve what comes in until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(LOWEST_PRIORITY)
    pipe.send("ready")
    while True:
        try:
            problem, budget = pipe.recv()
        except EOFError:
            return
        pipe.send(allocate(problem, budget))
