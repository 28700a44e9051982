"""Worlds to run cycles in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.command import mosaic
from tests.pipeline.world import FIRST, SECOND, World, copy_of

# The quick suite has each kind of store and catalog, and each kind of kill, once.
SLOW = (
    "[folder-postgresql]", "[s3-sqlite]", "[before ingest]", "[after products]", "[after latest]",
    "[in a marker of a window]", "[in an analysis]", "[declared in wrong units]",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.name.endswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A site where nothing has run yet."""
    return World(tmp_path / "world")


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A site that has published its first cycle; to be copied, not used."""
    made = World(tmp_path_factory.mktemp("past") / "world")
    outcome = mosaic("run", str(FIRST), "-p", made.profile, "--json")
    assert outcome.code == 0, outcome.err
    return made


@pytest.fixture(scope="session")
def unbroken(past: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A site that has published its second cycle too, without any disturbance."""
    made = copy_of(past, tmp_path_factory.mktemp("unbroken") / "world")
    outcome = mosaic("run", str(SECOND), "-p", made.profile, "--json")
    assert outcome.code == 0, outcome.err
    return made


@pytest.fixture
def second(past: World, tmp_path: Path) -> World:
    """A site of its own that has published its first cycle; the second is due."""
    return copy_of(past, tmp_path / "world")
