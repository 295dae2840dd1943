"""Counts the random trees, and fails the long run if there were too few."""

import pytest

from tests.properties.worlds import DRAWN, PROFILE

PROMISED = 20_000


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A nightly run that tried too little must not look green."""
    if PROFILE == "long" and len(set(DRAWN)) < PROMISED and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many trees it were."""
    if DRAWN:
        different = len(set(DRAWN))
        terminalreporter.write_line(
            f"properties ({PROFILE}): {len(DRAWN)} random trees, {different} different"
            + (f", {PROMISED} promised" if PROFILE == "long" else "")
        )
