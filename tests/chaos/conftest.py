"""The fleet of the chaos tests, mended before each of them, and their figures at the end of the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from arena import Fleet, fleet

FIGURES: list[str] = []


@pytest.fixture(scope="session")
def shared_fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    long = not request.config.option.markexpr  # every day the time is for more tests
    with fleet(tmp_path_factory.mktemp("chaos"), first_cold=long) as nodes:
        yield nodes


@pytest.fixture
def struck(shared_fleet: Fleet) -> Iterator[Fleet]:
    """Three nodes that the test may strike as it likes."""
    try:
        yield shared_fleet
    finally:
        shared_fleet.project.end()
        shared_fleet.mend()


@pytest.fixture(scope="session")
def figures() -> list[str]:
    """Lines that are shown when all is over."""
    return FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("chaos")
        for line in FIGURES:
            terminalreporter.write_line(line)
