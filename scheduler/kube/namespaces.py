"""Which namespace belongs to which tenant, by selectors.

Where several tenants select one namespace it belongs to the first, the oldest. Most
selectors ask for one certain label (``matchLabels``, or ``In`` with a few values); they
are found by it, so that a namespace is held against few of many selectors.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.codec.objects import NamespaceObject
from scheduler.config import Selector
from scheduler.core import TenantName

Selectors = Sequence[tuple[TenantName, Selector]]
"""Tenants and what they select, the oldest first."""


@dataclass(frozen=True, slots=True)
class Division:
    """Who got what.

    Parameters
    ----------
    owned
        Namespaces of each tenant that got any, by name.
    contested
        Namespaces that a tenant selects and an older one has got, and that one's name.
    """

    owned: Mapping[TenantName, tuple[str, ...]]
    contested: Mapping[TenantName, Mapping[str, TenantName]]


class Namespaces:
    """The namespaces there are, with their labels."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # by UID
        self._labels: dict[str, Mapping[str, str]] = {}  # by name

    def changed(self, obj: NamespaceObject) -> None:
        """Take a namespace as it is now."""
        self._names[obj.metadata.uid] = obj.metadata.name
        self._labels[obj.metadata.name] = obj.metadata.labels or {}

    def gone(self, uid: str) -> None:
        """Forget a namespace; another of the same name may be there by now."""
        name = self._names.pop(uid, None)
        if name is not None and name not in self._names.values():
            del self._labels[name]

    def divide(self, selectors: Selectors) -> Division:
        """Give every namespace to the oldest tenant that selects it."""
        index = _Index(selectors)
        owned: dict[TenantName, list[str]] = defaultdict(list)
        contested: dict[TenantName, dict[str, TenantName]] = defaultdict(dict)
        for name in sorted(self._labels):
            found = index.matching(self._labels[name])
            if found:
                owned[found[0]].append(name)
            for other in found[1:]:
                contested[other][name] = found[0]
        return Division({n: tuple(names) for n, names in owned.items()}, contested)


class _Index:
    """Selectors by the labels of which a match must have one."""

    def __init__(self, selectors: Selectors) -> None:
        self._selectors = selectors
        self._by_label: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._others: list[int] = []
        for place, (_, selector) in enumerate(selectors):
            labels = list(_needed(selector))
            for label in labels:
                self._by_label[label].append(place)
            if not labels:
                self._others.append(place)

    def matching(self, labels: Mapping[str, str]) -> list[TenantName]:
        """Return the tenants that select a namespace of these labels, oldest first."""
        places = set(self._others)
        for label in labels.items():
            places.update(self._by_label.get(label, ()))
        found = (self._selectors[place] for place in sorted(places))
        return [name for name, selector in found if selector.matches(labels)]


def _needed(selector: Selector) -> Iterable[tuple[str, str]]:
    """Return labels of which whatever the selector matches has one; nothing: any."""
    for label in selector.match_labels.items():
        return [label]
    for asked in selector.match_expressions:
        if asked.operator == "In":
            return [(asked.key, value) for value in asked.values]
    return []
