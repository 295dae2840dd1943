"""Seeded bursts of inference demand, in the normal form.

Hidden here: the shape of a burst. A service is quiet, then asks for replicas up to its
guarantee within a minute or two, keeps them for a while, and lets them go. Quiet times
and burst lengths are exponential, the size of a burst is uniform between half and all
of the guarantee. It is an assumption about demand, not a measurement.

A source is named by ``burst:KEY=VALUE,...`` with the keys of `Bursts`, for example
``burst:tenant=serving,gpus=32,pod=2,on=1800,off=5400,from=0,until=86400``.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields

from scheduler.core import Demand, TenantName, WorkloadClass
from simulator.trace import RowErrors, Trace, TraceError, TraceJob
from simulator.trace.job import default_checkpoint_interval_s, in_order

_KEYS = {"from": "since"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """An on/off source.

    Parameters
    ----------
    tenant
        Whose demand it is.
    gpus
        Most GPUs at a time, the tenant's guarantee for example.
    pod
        GPUs of one replica; replicas are jobs of their own.
    on, off
        Mean length of a burst and of the quiet time after it, seconds.
    since, until
        When the first quiet time begins, and after which no burst does, seconds.
    ramp
        Time in which a burst's replicas come, seconds.
    """

    tenant: str = "serving"
    gpus: int = 8
    pod: int = 1
    on: int = 1800
    off: int = 5400
    since: int = 0
    until: int = 86_400
    ramp: int = 120

    def __post_init__(self) -> None:
        """Refuse a source that cannot be."""
        for name in ("pod", "on", "off", "ramp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.gpus < self.pod:
            raise ValueError("gpus must hold at least one pod")


def parse_bursts(spec: str) -> Bursts:
    """Read ``burst:KEY=VALUE,...``.

    Raises
    ------
    TraceError
        When a key is unknown or a value is no whole number.
    """
    known = {field.name: field.type for field in fields(Bursts)}
    chosen: dict[str, str | int] = {}
    for term in filter(None, spec.removeprefix("burst:").split(",")):
        key, _, value = term.partition("=")
        name = _KEYS.get(key, key)
        if name not in known or name == key == "since":
            keys = ", ".join("from" if name == "since" else name for name in known)
            raise TraceError("--trace", 0, "burst", term, f"keys are {keys}")
        if name != "tenant" and not value.isdecimal():
            raise TraceError("--trace", 0, key, value, "a whole number is needed")
        chosen[name] = value if name == "tenant" else int(value)
    try:
        return Bursts(**chosen)  # type: ignore[arg-type]  # keys were checked above
    except ValueError as problem:
        raise TraceError("--trace", 0, "burst", spec, str(problem)) from None


def generate(bursts: Bursts, seed: int, errors: RowErrors) -> Trace:
    """Draw the jobs of a source; the same seed draws the same jobs."""
    draw = random.Random(f"{seed}/{bursts.tenant}")
    jobs = [job for burst in _spells(bursts, draw) for job in _burst(bursts, burst)]
    return Trace(jobs=in_order(jobs), errors=errors)


@dataclass(frozen=True, slots=True)
class _Spell:
    number: int
    begin: int
    starts: tuple[int, ...]  # when each replica comes, seconds
    end: int


def _spells(bursts: Bursts, draw: random.Random) -> Iterator[_Spell]:
    """Yield the bursts one after the other."""
    most = bursts.gpus // bursts.pod
    at, number = bursts.since, 0
    while True:
        at += bursts.ramp + round(draw.expovariate(1 / bursts.off))
        if at >= bursts.until:
            return
        replicas = draw.randint((most + 1) // 2, most)
        starts = sorted(at + draw.randrange(bursts.ramp) for _ in range(replicas))
        end = at + bursts.ramp + round(draw.expovariate(1 / bursts.on))
        yield _Spell(number, at, tuple(starts), end)
        at, number = end, number + 1


def _burst(bursts: Bursts, spell: _Spell) -> Iterator[TraceJob]:
    kind = WorkloadClass.INFERENCE
    for replica, start in enumerate(spell.starts):
        yield TraceJob(
            id=f"{bursts.tenant}-{spell.number}-{replica}",
            tenant=TenantName(bursts.tenant),
            workload_class=kind,
            members=(Demand(count=bursts.pod),),
            submit_s=start,
            duration_s=spell.end - start,
            checkpoint_interval_s=default_checkpoint_interval_s(kind),
        )
