"""A burst of 2,000 pods of four tenants whose limits allow half of them."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.controlplane import objects
from tests.controlplane.build import Binaries
from tests.controlplane.plane import ControlPlane
from tests.e2e.running import H100, fairshare, gated, tenant, until

NODES = 1_000
TENANTS = ("alpha", "beta", "gamma", "delta")
EACH, LIMIT = 500, 250
MOST_CALLS = 2.0
"""Filter calls per pod that was started; one is the least."""


@pytest.fixture
def crowded(binaries: Binaries, tmp_path: Path) -> Iterator[ControlPlane]:
    with ControlPlane(binaries, tmp_path / "plane", load=True) as plane:
        plane.client.create_all(objects.priority_classes())
        plane.client.create_all(objects.nodes(NODES), 24)
        yield plane


class Watched:
    """What each namespace holds, from the watch of all pods: every change counts."""

    def __init__(self, plane: ControlPlane) -> None:
        self.most: Counter[str] = Counter()
        self.bound: dict[str, str] = {}
        self._charged: dict[str, str] = {}
        self._held: Counter[str] = Counter()
        self._plane = plane
        self._stopped = False
        self.gap = ""
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        """Look at every change; who reads too slowly is cut off, and goes on there."""
        since = "0"
        while not self._stopped:
            with suppress(OSError, HTTPException):
                since = self._look(since)

    def _look(self, since: str) -> str:
        with self._plane.client.watch("pods", since=since, timeout_s=600) as changes:
            for kind, pod in changes:
                if kind == "ERROR":
                    self.gap = str(pod)  # something may have been missed
                    return "0"
                self._note(kind, pod)
                since = pod["metadata"]["resourceVersion"]
        return since

    def stop(self) -> None:
        self._stopped = True

    def _note(self, kind: str, pod: objects.Object) -> None:
        uid, space = pod["metadata"]["uid"], pod["metadata"]["namespace"]
        notes = pod["metadata"].get("annotations") or {}
        node = pod["spec"].get("nodeName", "")
        ended = kind == "DELETED" or pod["status"]["phase"] in ("Succeeded", "Failed")
        charged = not ended and (objects.GATE in notes or bool(node))
        if charged != (uid in self._charged):
            self._held[space] += 1 if charged else -1
        if charged:
            self._charged[uid] = space
        else:
            self._charged.pop(uid, None)
        if node and not ended:
            self.bound[uid] = space
        else:
            self.bound.pop(uid, None)
        self.most[space] = max(self.most[space], self._held[space])


def test_no_tenant_is_above_its_limit_at_any_instant_and_all_eligible_pods_run(
    crowded: ControlPlane,
) -> None:
    """The promise LIMIT, on 1,000 nodes, seen from the API server alone."""
    plane = crowded
    spaces = {name: plane.new_namespace(name) for name in TENANTS}
    seen = Watched(plane)
    with fairshare(plane) as service:
        for name, space in spaces.items():
            limits = {"guarantee": {H100: LIMIT // 2}, "limit": {H100: LIMIT}}
            plane.client.create(tenant(name, space, **limits))
        plane.client.create_all(
            [gated(f"p{i}", space) for i in range(EACH) for space in spaces.values()],
            24,
        )
        wanted = dict.fromkeys(spaces.values(), LIMIT)
        until("half of all are bound", lambda: held(seen) == wanted, 300)
        calls = service.metric("fairshare_decisions_total", verb="filter")
        assert calls <= MOST_CALLS * LIMIT * len(TENANTS)

        # Room that is given back is used again, and still nobody is above a limit.
        ended = [f"p{i}" for i in range(EACH)]
        space = spaces["alpha"]
        bound = [n for n in ended if _node(plane, n, space)][:50]
        for name in bound:
            plane.client.delete("pods", name, space, grace=0)
        until("others took the room", lambda: replaced(plane, seen, space, bound), 120)
        assert seen.most == Counter(wanted)
        assert not seen.gap
        seen.stop()


def held(seen: Watched) -> dict[str, int]:
    return dict(Counter(list(seen.bound.values())))


def replaced(plane: ControlPlane, seen: Watched, space: str, gone: list[str]) -> bool:
    names = {pod["metadata"]["name"] for pod in plane.client.items("pods", space)}
    return held(seen)[space] == LIMIT and not names & set(gone)


def _node(plane: ControlPlane, name: str, space: str) -> str:
    return str(plane.client.get("pods", name, space)["spec"].get("nodeName", ""))
