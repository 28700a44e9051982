"""Members in parts, each in a process of its own: whole once, and the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mosaic_core.ensemble import run as ensemble_run
from mosaic_core.ensemble.written import written
from mosaic_core.errors import ConfigurationError, CycleBusy, ForecastError
from mosaic_core.pipeline import steps
from mosaic_core.pipeline.run import run_cycle
from mosaic_core.publication import client, layout
from tests.pipeline.command import Fault
from tests.pipeline.world import FIRST, STEPS, VARIANT, World
from tests.recovery.sites import PARTS, SPLIT, Worker, digests, site_of, split_world, wait_until

PREFIX = layout.forecast_prefix(VARIANT, FIRST)
CHUNK = "mosaic_core.storage.zarr_store:TranslatingStore.set"
SECOND_WINDOW = "temperature/c/{batch}/1/"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The forecast of a site whose members run in one, two at a time."""
    made = split_world(tmp_path_factory.mktemp("whole") / "world", members=SPLIT["members"])
    with pytest.MonkeyPatch.context() as patch:
        # Memory for two members at a time, whatever this machine has.
        patch.setattr(ensemble_run, "fitting_batch", lambda c, members, *rest: min(members, 2))
        run_cycle(site_of(made), FIRST)
    return made


def begun(world: World) -> int:
    found = steps.begin(site_of(world), FIRST, backfill=True)
    assert (found.outcome, found.parts, found.of) == ("due", (1, 2, 3), PARTS)
    return found.revision


def finish(world: World, revision: int) -> None:
    for name in ("join", "products", "publish"):
        Worker(world, name, revision).end()


def test_members_in_parts_are_bit_for_bit_those_of_one_run_with_the_same_batches(
    split: World, whole: World
) -> None:
    report = run_cycle(site_of(split), FIRST)
    assert report.outcome == "published"
    assert digests(split.store) == digests(whole.store)
    assert {"forecast-1", "forecast-2", "forecast-3"} <= set(report.timings)


def test_members_with_other_batches_are_the_same_to_rounding(split: World, tmp_path: Path) -> None:
    together = split_world(tmp_path / "together", members=SPLIT["members"])
    for world in (split, together):
        run_cycle(site_of(world), FIRST)
    one, other = (client.open_forecast(w.store, product="ensemble") for w in (split, together))
    for name in one.data_vars:
        scale = float(np.abs(other[name]).max())
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-5 * scale)


def test_parts_that_start_at_the_same_moment_fill_one_store(split: World, whole: World) -> None:
    revision = begun(split)
    workers = [Worker(split, "forecast", revision, part) for part in (1, 2, 3)]
    done = [worker.end() for worker in workers]
    assert [(d.part, d.of, d.computed) for d in done] == [(n, PARTS, True) for n in (1, 2, 3)]
    finish(split, revision)
    assert digests(split.store) == digests(whole.store)


def test_a_part_that_was_killed_holds_up_the_join_and_goes_on_alone(
    split: World, whole: World
) -> None:
    revision = begun(split)
    kill = Fault(CHUNK, about=SECOND_WINDOW.format(batch=1))
    assert Worker(split, "forecast", revision, 2, faults=[kill]).end() is None
    for part in (1, 3):
        assert Worker(split, "forecast", revision, part).end().computed
    site = site_of(split)
    with pytest.raises(ForecastError, match=r"part 2 of 3 .* is not whole"):
        steps.join(site, FIRST, revision)
    found = written(site.store, PREFIX)
    assert found is not None
    assert found.windows == {(w, b) for w in (0, 1) for b in (0, 1, 2)} - {(1, 1)}
    assert found.steps == STEPS // 2

    again = steps.begin(site, FIRST, backfill=True)
    assert (again.parts, again.attempt) == ((2,), 2)
    first_window = Fault(CHUNK, about="temperature/c/1/0/")
    for part in (1, 2, 3):
        done = Worker(split, "forecast", revision, part, faults=[first_window]).end()
        assert done.computed == (part == 2)
    finish(split, revision)
    assert digests(split.store) == digests(whole.store)


def test_of_two_processes_given_one_part_one_computes_and_the_other_says_who(
    split: World, tmp_path: Path
) -> None:
    revision, reached = begun(split), tmp_path / "reached"
    pause = Fault("mosaic_core.pipeline.stages:forecast", "pause", seconds=600, signal=str(reached))
    first = Worker(split, "forecast", revision, 1, faults=[pause])
    wait_until(reached.exists, first)
    site = site_of(split)
    with pytest.raises(CycleBusy, match=rf"part 1 is claimed by .*:{first.process.pid}"):
        steps.forecast(site, FIRST, revision, 1)
    with pytest.raises(CycleBusy, match="part 1"):
        steps.begin(site, FIRST)
    first.process.kill()
    assert first.end() is None
    # Its claim is taken over at once: it was of this machine.
    assert steps.forecast(site, FIRST, revision, 1).computed
    assert not steps.forecast(site, FIRST, revision, 1).computed
    assert site.catalog.claims() == ()


def test_a_part_of_another_forecast_is_refused_while_the_attempt_lasts(split: World) -> None:
    revision = begun(split)
    steps.forecast(site_of(split), FIRST, revision, 1)
    other = site_of(split, "seed=9")
    with pytest.raises(ForecastError, match=r"another part of this attempt .* seed 0 is stored"):
        steps.forecast(other, FIRST, revision, 2)
    assert not steps.forecast(site_of(split), FIRST, revision, 1).computed
    # A new attempt with the other settings begins afresh.
    begun_again = steps.begin(other, FIRST, backfill=True)
    assert begun_again.parts == (1, 2, 3)
    assert steps.forecast(other, FIRST, revision, 2).computed
    (event,) = other.catalog.events(kind="forecast-discarded")
    assert "seed" in event.detail["differences"]


def test_steps_of_a_published_forecast_change_nothing(split: World) -> None:
    site = site_of(split)
    run_cycle(site, FIRST)
    before = digests(split.store)
    other = site_of(split, "seed=9")
    assert not steps.forecast(other, FIRST, 1, 2).computed
    steps.join(other, FIRST, 1)
    assert steps.products(other, FIRST, 1) == []
    assert steps.publish(other, FIRST, 1).outcome == "published"
    assert client.verify(split.store).ok
    assert digests(split.store) == before
    (run,) = site.catalog.runs()
    assert (run.state, run.attempts) == ("published", 1)


def test_a_part_that_there_is_not_is_refused(split: World) -> None:
    with pytest.raises(ConfigurationError, match="1 to 3: 5 members, 2 a run"):
        steps.forecast(site_of(split), FIRST, 1, 4)


def test_products_before_the_join_and_publication_before_the_products_are_refused(
    split: World,
) -> None:
    revision, site = begun(split), site_of(split)
    with pytest.raises(ForecastError, match="were not made"):
        steps.publish(site, FIRST, revision)
    with pytest.raises(ForecastError, match="not joined"):
        steps.products(site, FIRST, revision)
