"""kill -9 in the middle of a rollout, of everything that Prefect runs; the cycle is published once.

Outages and waiting times are scaled down: the server is away for half a minute instead of two, and
a run is taken for dead after 15 s without a sign instead of a quarter of an hour.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaic_core.cycle import Cycle
from mosaic_core.publication import client
from tests.flows.conftest import world_of
from tests.flows.held import Held, kill_server, kill_worker
from tests.flows.orchestra import Orchestra, kill
from tests.pipeline.command import mosaic
from tests.pipeline.world import World, copy_of

pytestmark = pytest.mark.acceptance
AWAY_SECONDS = 30
SETTINGS = {"products": ["statistics"], "recovery": {"quiet_minutes": 0.25}}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, cycles: list[Cycle]) -> World:
    """A site that has published nothing; to be copied, not used."""
    return world_of(tmp_path_factory.mktemp("before") / "world", cycles[-1:], settings=SETTINGS)


@pytest.fixture(scope="module")
def unbroken(before: World, cycles: list[Cycle], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the forecast that no one disturbed."""
    world = copy_of(before, tmp_path_factory.mktemp("unbroken") / "world")
    outcome = mosaic("run", str(cycles[-1]), "-p", world.profile, "--json")
    assert outcome.code == 0, outcome.err
    return client.manifest(world.store).digest


@pytest.fixture
def world(before: World, tmp_path: Path) -> World:
    """A site of its own, with the deployments of `orchestra`."""
    return copy_of(before, tmp_path / "world")


@pytest.fixture
def held(orchestra: Orchestra, world: World, cycles: list[Cycle]) -> Iterator[Held]:
    made = Held(orchestra, world, cycles[-1])
    try:
        yield made
    finally:
        made.go_on()


def test_kill_of_the_forecast_is_made_good_by_the_run_that_asked_for_it(
    held: Held, unbroken: str
) -> None:
    kill(held.process_of("forecast"))
    held.go_on()
    held.orchestra.completed(held.run)
    held.require_published_once(unbroken)


def test_kill_of_both_flows_is_made_good_by_the_reconciler(held: Held, unbroken: str) -> None:
    for flow in ("run-cycle", "forecast"):
        kill(held.process_of(flow))
    held.go_on()
    held.reconciled()
    held.require_published_once(unbroken)


def test_kill_of_the_worker_leaves_its_run_to_go_on(held: Held, unbroken: str) -> None:
    kill_worker(held.orchestra)
    held.go_on()
    held.orchestra.completed(held.run)
    held.require_published_once(unbroken)
    held.orchestra.start_worker("gpu")


def test_kill_of_the_worker_and_its_run_is_made_good_by_the_next_worker(
    held: Held, unbroken: str
) -> None:
    pid = held.process_of("forecast")
    kill_worker(held.orchestra)
    kill(pid)
    held.go_on()
    held.orchestra.start_worker("gpu")
    held.orchestra.completed(held.run)
    held.require_published_once(unbroken)


def test_kill_of_the_server_for_a_while_delays_the_cycle_and_no_more(
    held: Held, unbroken: str
) -> None:
    kill_server(held.orchestra)
    held.go_on()
    time.sleep(AWAY_SECONDS)
    held.orchestra.start_server()
    held.orchestra.completed(held.run)
    held.require_published_once(unbroken)
