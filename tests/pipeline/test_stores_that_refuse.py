"""Full disks and stores that refuse: the run fails in plain words and can be taken up again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaic_core.catalog.catalog import Catalog
from tests.pipeline.command import Fault, Outcome, mosaic
from tests.pipeline.test_kills import published_bytes, require_only_whole_forecasts
from tests.pipeline.world import FIRST, SECOND, World, copy_of

WRITE = "mosaic_core.storage.objects:write_file"
PLACES = {
    "in an analysis": Fault("zarr.storage:ObjectStore.set", "no-space", about="2m_temperature/c"),
    "in a window": Fault("zarr.storage:ObjectStore.set", "no-space", about="temperature/c/0/1/"),
    "in a product": Fault(
        "zarr.storage:ObjectStore.set", "no-space", about="temperature_standard_deviation/c/"
    ),
    "in a marker of a window": Fault(WRITE, "no-space", call=4),
    "in the manifest": Fault(WRITE, "no-space", about="manifest.json"),
    "in latest": Fault(WRITE, "no-space", about="latest.json"),
}


def require_failed(world: World, outcome: Outcome, meaning: str) -> None:
    assert outcome.code == 6, outcome.err
    assert meaning in outcome.err
    assert "what to do:" in outcome.err
    with Catalog(world.catalog) as catalog:
        (run,) = catalog.runs(cycle=SECOND)
        assert run.state == "failed"
        assert meaning in (run.error or "")
        assert catalog.claims() == ()


def require_finished(world: World, unbroken: World) -> None:
    outcome = mosaic("run", str(SECOND), "-p", world.profile, "--json")
    assert outcome.code == 0, outcome.err
    require_only_whole_forecasts(world.store, {SECOND.id})
    assert published_bytes(world.store) == published_bytes(unbroken.store)
    with Catalog(world.catalog) as catalog:
        (run,) = catalog.runs(cycle=SECOND)
        assert (run.state, run.error) == ("published", None)


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk_fails_the_run_and_is_recovered_from(
    place: str, second: World, unbroken: World
) -> None:
    outcome = mosaic("run", str(SECOND), "-p", second.profile, faults=[PLACES[place]])
    require_failed(second, outcome, "no space is left")
    newest = {FIRST.id, SECOND.id} if place == "in latest" else {FIRST.id}
    require_only_whole_forecasts(second.store, newest)
    require_finished(second, unbroken)


def test_a_store_that_refuses_writes_says_permission(second: World, unbroken: World) -> None:
    refuse = Fault(WRITE, "refuse", ever_after=True)
    outcome = mosaic("run", str(SECOND), "-p", second.profile, faults=[refuse])
    require_failed(second, outcome, "permission is denied")
    require_only_whole_forecasts(second.store, {FIRST.id})
    require_finished(second, unbroken)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_fails_the_run_and_more_space_lets_it_go_on(
    past: World, unbroken: World, tmp_path: Path, small_disk: Path
) -> None:
    world = copy_of(past, tmp_path / "world")
    store = small_disk / "store"
    subprocess.run(["cp", "-r", world.store, str(store)], check=True)
    world.store = str(store)
    world.write()
    ballast = small_disk / "ballast"
    state = os.statvfs(small_disk)
    ballast.write_bytes(b"\1" * max(0, state.f_bavail * state.f_frsize - 90_000))
    outcome = mosaic("run", str(SECOND), "-p", world.profile)
    require_failed(world, outcome, "no space is left")
    require_only_whole_forecasts(world.store, {FIRST.id})
    ballast.unlink()
    require_finished(world, unbroken)
