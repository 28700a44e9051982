"""Worlds of the pipeline's tests, whose past is made in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mosaic_core.cycle import Cycle
from mosaic_core.pipeline.run import run_cycle
from tests.pipeline.world import FIRST, SECOND, World, copy_of
from tests.recovery.sites import SPLIT, site_of, split_world

# The quick suite has the parts that matter most, and one outage of the store and the catalog each.
SLOW = (
    "[store, in an analysis]", "[store, in a marker]", "[store, in a product]",
    "[store, at latest]",
    "[catalog, at the claim]", "[catalog, at a state]", "[catalog, at a note]", "to_rounding",
    "fill_one_store", "from_the_same_ensemble[s3]", "is_made_again", "_and_then_runs",
    "removes_it_when_told",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.name.endswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As the processes of the tests have it: sums come out alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def published(world: World, cycle: Cycle) -> World:
    site = site_of(world)
    assert run_cycle(site, cycle).outcome == "published"
    site.catalog.close()
    return world


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A site that has published its first cycle; to be copied, not used."""
    return published(World(tmp_path_factory.mktemp("past") / "world"), FIRST)


@pytest.fixture(scope="session")
def unbroken(past: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A site that has published its second cycle too, without any disturbance."""
    return published(copy_of(past, tmp_path_factory.mktemp("unbroken") / "world"), SECOND)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A site where nothing has run yet."""
    return World(tmp_path / "world")


@pytest.fixture
def second(past: World, tmp_path: Path) -> World:
    """A site of its own that has published its first cycle; the second is due."""
    return copy_of(past, tmp_path / "world")


@pytest.fixture
def split(tmp_path: Path) -> World:
    """A site where nothing has run yet, whose members run in parts."""
    return split_world(tmp_path / "split", **SPLIT)
