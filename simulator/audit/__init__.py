"""Whether the guarantees were kept, judged from outside, for every policy alike.

Theory of operation
-------------------
The log is replayed instant by instant. For each tenant the gangs it runs and the gangs
that wait are walked as the engine walks them (`scheduler.core.covered`): those its
guarantee pays for are *covered*. An *episode* is the time one gang waits while it is
covered. It is *placeable* while the whole gang would fit the cluster if all burst that
must give way to it were gone: everything uncovered of other tenants, and of its own
tenant what is less urgent. Its tenant's other burst stands in its own way (no rule lets
equals evict each other), so nobody broke a promise to that tenant. Gangs are tried
greedily, in the order of the walk, beside the covered ones that run and those that
wait before. Then

* ``guarantee_wait_s`` is all waiting in episodes, in gang-seconds;
* ``guarantee_violation_s`` is what of it was placeable without a break for longer than
  the reclaim bound: the part beyond the bound. The promise is that this is 0;
* ``guarantee_unplaceable_s`` is what of the episodes longer than the bound was not
  placeable: nobody could have helped but by moving covered work;
* a *reclaim* is an episode that ended in a start while, at some instant before, another
  tenant ran uncovered work on a form the gang accepts; its latency runs from the first
  such instant.

A gang waits until all its members hold their devices. One that is being evicted holds
its devices, and neither runs nor waits. An eviction of a covered gang for another
tenant breaks PROTECTED and is counted as well.

    standings  the log as standings of gangs, and what is covered
    episodes   waiting of covered gangs, found and measured
"""

from simulator.audit.episodes import Audit, Episode, audit

__all__ = ["Audit", "Episode", "audit"]
