"""The only door to the decisions.

Theory of operation
-------------------
Events go in through ``observe``; what should happen comes out of ``cycle`` (and, for a
plan that another process solved, of ``commit``) as actions, which are data. ``filter``,
``score`` and ``preempt`` answer kube-scheduler's questions. There is no clock, no I/O
and no randomness in here: `now` (seconds) is an argument, and the same calls with the
same arguments give the same answers, byte for byte.

What the caller owes
--------------------
* One call at a time; no call is made from inside another. `now` never goes back.
* Order: nodes and tenants before the pods that need them; per pod `PodSubmitted` (or,
  inline, the first ``filter``), then `PodBound`, then `PodGone`. `PodGone` is valid at
  any point and says that the devices are really free again.
* After the events of one instant, one ``cycle``; and one when ``next_deadline`` has
  come although nothing happened.
* Every action is performed and its outcome reported by events. Actions are wishes and
  may be performed twice; an `Evict` is answered by the pod's `PodGone`.
* A workload that goes on after an eviction comes back as new pods with new UIDs.

What the engine promises: the invariants of the design's section 2, of which
``check_invariants`` asserts those that the state alone can prove. Repeating an event or
a question changes nothing. Broken input raises ValueError, names the value, and leaves
everything as it was.
"""

from scheduler.core.engine.door import Engine
from scheduler.core.engine.views import (
    Explanation,
    Filtered,
    Leaving,
    Planned,
    Policy,
    Preemption,
    QueueEntry,
    TenantUse,
)

__all__ = [
    "Engine",
    "Explanation",
    "Filtered",
    "Leaving",
    "Planned",
    "Policy",
    "Preemption",
    "QueueEntry",
    "TenantUse",
]
