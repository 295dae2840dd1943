"""A running control plane for the tests of this folder; all of them are `e2e`."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.controlplane import objects
from tests.controlplane.build import Binaries, UnavailableError, ensure
from tests.controlplane.client import Client
from tests.controlplane.plane import ControlPlane
from tests.e2e import tapped, wiring
from tests.e2e.extenders import Scripted

REQUIRED = os.environ.get("FAIRSHARE_E2E") == "required"
USERS = {"fairshare": (), "alice": ("team-a",), "bob": ("team-b",)}

NewNamespace = Callable[..., str]


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("e2e")


@pytest.fixture(scope="session")
def binaries(pytestconfig: pytest.Config) -> Binaries:
    """The programs, built if need be; skips where they cannot be built."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    report = pytestconfig.pluginmanager.getplugin("terminalreporter")

    def say(line: str) -> None:
        # A cold build takes minutes: it must be seen to be alive.
        with capture.global_and_fixture_disabled():
            report.write_line(line)

    try:
        return ensure(os.environ.get("K8S") or None, say)
    except UnavailableError as reason:
        if REQUIRED:
            pytest.fail(str(reason), pytrace=False)
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def _shared_plane(
    binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    with ControlPlane(binaries, tmp_path_factory.mktemp("plane"), users=USERS) as plane:
        plane.client.create_all(objects.priority_classes())
        yield plane


@pytest.fixture
def plane(_shared_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The control plane all tests share, without nodes, pods and a scheduler."""
    yield _shared_plane
    fallen = _shared_plane.fallen
    _shared_plane.stop_scheduler()
    _shared_plane.clear()
    assert not fallen


@pytest.fixture
def fresh_plane(binaries: Binaries, tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane of the test's own, to be broken in any way."""
    with ControlPlane(binaries, tmp_path / "plane", users=USERS) as plane:
        plane.client.create_all(objects.priority_classes())
        yield plane


@pytest.fixture
def client(plane: ControlPlane) -> Client:
    """Of the user who may do everything."""
    return plane.client


@pytest.fixture
def new_namespace(plane: ControlPlane) -> NewNamespace:
    """As `ControlPlane.new_namespace`."""
    return plane.new_namespace


@pytest.fixture(scope="module")
def _wired(
    _shared_plane: ControlPlane,
) -> Iterator[tuple[ControlPlane, Scripted, Scripted]]:
    with wiring.wired(_shared_plane) as wired:
        yield wired


@pytest.fixture
def wire(_wired: tuple[ControlPlane, Scripted, Scripted]) -> Iterator[wiring.Wire]:
    """kube-scheduler with scripted extenders, shared by the tests of a module."""
    with wiring.wire(*_wired) as wire:
        yield wire


@pytest.fixture(scope="module")
def _ours(_shared_plane: ControlPlane) -> Iterator[tapped.Ours]:
    with tapped.ours(_shared_plane, {"checkpointNotice": "1s"}) as ours:
        yield ours


@pytest.fixture
def ours(_ours: tapped.Ours) -> Iterator[tapped.Ours]:
    """Our service, tapped, shared by the tests of a module; all answers are checked."""
    with tapped.told(_ours) as ours:
        yield ours
