"""What follows from the gangs of one tenant alone: cover, tiers, what it wants."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import takewhile

from scheduler.core.fairness import (
    TIERS,
    Guarantee,
    Standing,
    covered_forms,
    demoted,
    granted,
)
from scheduler.core.gpu import Form
from scheduler.core.quota import QuotaTree
from scheduler.core.workload import GangId, TenantName, WorkloadClass

_INFERENCE = WorkloadClass.INFERENCE
_TRAINING = WorkloadClass.TRAINING


class TenantView:
    """What follows from one tenant's gangs alone; thrown away when one changes."""

    def __init__(
        self,
        tree: QuotaTree,
        tenant: TenantName,
        gangs: list[Standing],
        aside: Mapping[GangId, Collection[Form]],
    ) -> None:
        self._tree, self._tenant = tree, tenant
        self._all = granted(gangs, tree.critical(tenant), tree.pools)
        self.standings = self._all
        if aside:
            kept = (_without(s, aside.get(s.gang, ())) for s in self._all)
            self.standings = [standing for standing in kept if standing is not None]

    @cached_property
    def cover(self) -> dict[GangId, Form]:
        """Gangs the guarantee pays for, and in which form."""
        return covered_forms(self.standings, guarantee_of(self._tree, self._tenant))

    def stands_after(
        self, gang: GangId, kind: WorkloadClass, priority: int, form: Form
    ) -> bool:
        """Whether cover and tiers stay as they are when a waiting gang starts.

        It moves ahead of what waits beside it, of equal class and priority. A purse
        (the guarantee, the cap on inference) that pays for it goes on to pay for the
        same gangs: together they fit it, in whatever order. One that does not pay for
        it must not pay for anything beside it that waits, or what is kept for that
        would be paid to this one. What is critical is not looked at so closely.
        """
        if kind is WorkloadClass.INFERENCE_CRITICAL:
            return False
        covered = self.cover.get(gang)
        if covered not in (None, form):
            return False
        purses = (covered is not None, self.tiers.get(gang) is not _TRAINING)
        beside = self._waiting_beside.get((kind, priority), [0, 0])
        if any(
            not pays and waiting for pays, waiting in zip(purses, beside, strict=True)
        ):
            return False
        for purse, pays in enumerate(purses):
            beside[purse] -= int(pays)
        return True

    @cached_property
    def _waiting_beside(self) -> dict[tuple[WorkloadClass, int], list[int]]:
        """Count waiting gangs by class and priority: covered, and within the cap."""
        found: dict[tuple[WorkloadClass, int], list[int]] = {}
        for standing in self.standings:
            if not standing.running:
                kind = standing.workload_class
                counts = found.setdefault((kind, standing.priority), [0, 0])
                counts[0] += standing.gang in self.cover
                counts[1] += self.tiers.get(standing.gang) is not _TRAINING
        return found

    @cached_property
    def pinned(self) -> list[Standing]:
        """Gangs as queues above see them: on the form that the guarantee pays for.

        Else a guarantee above could pay for a gang on one form, and that of the tenant
        on another.
        """
        return [
            replace(standing, form=form, quanta=quanta, also=())
            if standing.also and standing.gang in self.cover
            else standing
            for standing in self.standings
            for form, quanta in (self.wish(standing),)
        ]

    @cached_property
    def promised(self) -> list[tuple[Standing, Form]]:
        """Gangs that are covered if those that no room was found for count too."""
        cover = covered_forms(self._all, guarantee_of(self._tree, self._tenant))
        return [(s, cover[s.gang]) for s in self._all if s.gang in cover]

    def seen(self, standing: Standing) -> Standing:
        """Return one more gang as others would see it: critical if that is granted."""
        grant = self._tree.critical(self._tenant)
        return granted([*self._all, standing], grant, self._tree.pools)[-1]

    @cached_property
    def kinds(self) -> dict[GangId, WorkloadClass]:
        """Classes that others see of urgent gangs: critical as far as it is granted."""
        return {s.gang: s.workload_class for s in self._urgent()}

    @cached_property
    def tiers(self) -> dict[GangId, WorkloadClass]:
        """Tiers of urgent gangs: training beyond the tenant's cap on inference."""
        caps = self._tree.inference_caps(self._tenant)
        beyond = demoted(list(self._urgent()), caps, self._tree.pools)
        return self.kinds | dict.fromkeys(beyond, WorkloadClass.TRAINING)

    def _urgent(self) -> Iterator[Standing]:
        """Gangs that are inference: by rank they come first."""
        return takewhile(lambda s: s.workload_class <= _INFERENCE, self._all)

    def tier(self, gang: GangId, kind: WorkloadClass) -> WorkloadClass:
        """Return the tier in which the gang's demand is divided."""
        return self.tiers.get(gang, kind)

    @cached_property
    def wanted(self) -> dict[Form, list[int]]:
        """Quanta running and waiting, per form and tier."""
        return self._by_tier(self.standings)

    @cached_property
    def use(self) -> dict[Form, list[int]]:
        """Quanta running, per form and tier."""
        return self._by_tier(s for s in self.standings if s.running)

    def _by_tier(self, standings: Iterable[Standing]) -> dict[Form, list[int]]:
        found: dict[Form, list[int]] = {}
        tiers = self.tiers
        for standing in standings:
            form, quanta = standing.form, standing.quanta
            if standing.also:
                form, quanta = self.wish(standing)
            if form not in found:
                found[form] = [0] * TIERS
            tier = tiers.get(standing.gang, standing.workload_class)
            found[form][tier] += quanta
        return found

    def wish(self, standing: Standing) -> tuple[Form, int]:
        """Return the one form on which a demand counts, and its quanta there.

        Where the guarantee pays for it, else the form it likes best.
        """
        if standing.also:
            form = self.cover.get(standing.gang, standing.form)
            return form, dict(((standing.form, standing.quanta), *standing.also))[form]
        return standing.form, standing.quanta


def guarantee_of(tree: QuotaTree, name: TenantName) -> Guarantee:
    """Return what a queue's gangs may be paid from."""
    return Guarantee(tree.guarantees(name), tree.pools, tree.group_bounds(name))


def _without(standing: Standing, forms: Collection[Form]) -> Standing | None:
    """Return a waiting gang as it stands without some forms; None without any left."""
    if standing.running or not forms:
        return standing
    options = ((standing.form, standing.quanta), *standing.also)
    left = [(form, quanta) for form, quanta in options if form not in forms]
    if not left:
        return None
    (form, quanta), *also = left
    return replace(standing, form=form, quanta=quanta, also=tuple(also))
