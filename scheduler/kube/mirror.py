"""What the API server shows, as events for the engine.

The informers tell their sinks what they see, at any time and in any order; `events`
gives what is new since the last call, in the order that the engine wants: nodes before
the pods on them, departures before arrivals, by name or age inside each.
"""

from collections.abc import Callable, Collection

from scheduler.codec import LeaseObject, Naming, PdbObject
from scheduler.core import Event, PodUid
from scheduler.kube.jobs import Jobs
from scheduler.kube.nodes import Nodes
from scheduler.kube.pods import Pods


class Priorities:
    """PriorityClasses, for pods that do not exist yet."""

    def __init__(self, jobs: Jobs) -> None:
        self.changed, self.gone = jobs.changed_priority, jobs.gone_priority


class Leases:
    """Which kube-scheduler leads: a new one has forgotten nominations of gated pods."""

    def __init__(self) -> None:
        self.holders: dict[str, str] = {}

    def changed(self, lease: LeaseObject) -> None:
        """Take a lease."""
        spec = lease.spec
        holder = f"{spec.holder_identity or ''} {spec.lease_transitions or 0}"
        self.holders[lease.metadata.uid] = holder

    def gone(self, uid: str) -> None:
        """Forget a lease."""
        self.holders.pop(uid, None)

    @property
    def leader(self) -> str:
        """Who leads, in one word that changes whenever somebody else does."""
        return ", ".join(holder for _, holder in sorted(self.holders.items()))


class Budgets:
    """PodDisruptionBudgets, as far as they say where an eviction may go through again.

    Whether one may is the API server's to judge, at the very moment it is asked for.
    """

    def __init__(self) -> None:
        self._allowed: dict[str, int] = {}
        self._namespaces: dict[str, str] = {}
        self._eased: set[str] = set()

    def changed(self, budget: PdbObject) -> None:
        """Take a budget."""
        uid, allowed = budget.metadata.uid, budget.status.disruptions_allowed
        if allowed > self._allowed.get(uid, 0):
            self._eased.add(budget.metadata.namespace)
        self._allowed[uid] = allowed
        self._namespaces[uid] = budget.metadata.namespace

    def gone(self, uid: str) -> None:
        """Forget a budget: what it forbade is free now."""
        self._allowed.pop(uid, None)
        namespace = self._namespaces.pop(uid, None)
        if namespace is not None:
            self._eased.add(namespace)

    def eased(self) -> set[str]:
        """Return namespaces in which more may be evicted than at the last call."""
        found, self._eased = self._eased, set()
        return found


class Mirror:
    """Everything that is seen of the cluster, apart from tenants."""

    def __init__(self, naming: Naming, schedulers: Collection[str]) -> None:
        self.nodes = Nodes()
        self.jobs = Jobs(naming, schedulers)
        self.pods = Pods(naming, self.nodes, self.jobs, schedulers)
        self.priorities = Priorities(self.jobs)
        self.leases = Leases()
        self.budgets = Budgets()
        self._naming = naming

    def rename(self, naming: Naming) -> None:
        """Namespaces belong to other tenants from now on."""
        if naming != self._naming:
            self._naming = naming
            self.jobs.rename(naming)
            self.pods.rename(naming)

    def node_events(self) -> list[Event]:
        """Return nodes that came or changed."""
        self.pods.settle()
        return self.nodes.arrivals()

    def events(self, since: Callable[[float], float]) -> list[Event]:
        """Return all that is new for the engine.

        Parameters
        ----------
        since
            Turns seconds since the epoch into the engine's time.
        """
        for job in self.jobs.resized():
            self.pods.reread(job)
        return [
            *self.node_events(),
            *self.pods.departures(),
            *self.jobs.events(self.pods.count_of, since),
            *self.pods.arrivals(since),
            *self.nodes.departures(),
        ]

    def refuse(self, uid: PodUid, problem: str) -> None:
        """Remember that the engine has refused what it was told of a pod."""
        self.jobs.refuse(uid)
        self.pods.refuse(uid, problem)
