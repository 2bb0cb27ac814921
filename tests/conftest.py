"""Fixtures that every suite shares: the real parts, each of which skips with the line that says how to get it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.realparts.postgresql import RunningPostgresql, find_postgresql
from tests.realparts.programs import absent

pytest_plugins = ["tests.controlplane.fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on one real part stay on one worker, so that there is one control plane, and not one per core."""
    for item in items:
        for part in ("kubernetes", "prometheus", "slurm"):
            if item.get_closest_marker(part) is not None:
                item.add_marker(pytest.mark.xdist_group(part))
                break


@pytest.fixture(scope="session")
def postgresql() -> Iterator[RunningPostgresql]:
    programs = find_postgresql()
    if programs is None:
        absent("postgresql")
    with RunningPostgresql(programs) as running:
        yield running


@pytest.fixture(autouse=True)
def _the_log_is_as_it_was() -> Iterator[None]:
    """A command that is run inside the test process sets up logging for itself."""
    yield
    structlog.reset_defaults()
