"""A site that has published forecasts which have come true."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosaic_core.cycle import Cycle
from mosaic_core.pipeline.run import run_cycle
from mosaic_core.pipeline.site import Site, open_site
from mosaic_core.profile import Profile
from tests.pipeline.world import FIRST, World, analyses, copy_of, write_source

CYCLES = [FIRST.shift(6 * i) for i in range(3)]


def site_of(world: World) -> Site:
    return open_site(Profile.load(world.profile))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three cycles, 6 h apart, of 2 members and 4 steps; nothing verified. To be copied."""
    world = World(tmp_path_factory.mktemp("published") / "world")
    write_source(world.source, analyses(count=6))
    site = site_of(world)
    for cycle in CYCLES:
        run_cycle(site, cycle)
    site.catalog.close()
    return world


@pytest.fixture
def world(published: World, tmp_path: Path) -> World:
    return copy_of(published, tmp_path / "world")


@pytest.fixture
def site(world: World) -> Site:
    return site_of(world)


@pytest.fixture
def newest() -> Cycle:
    return CYCLES[-1]
