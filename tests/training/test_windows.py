"""Archives and windows: what is read, in which order, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_core.channels import Channels
from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable, ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.training import statistics
from mosaic_core.training.archive import Archive
from mosaic_core.training.objective import window_noise
from mosaic_core.training.recipe import DataConfig, Period, Phase, Recipe
from mosaic_core.training.windows import Windows, read_ahead
from tests.training import world

CHANNELS = Channels.parse(world.CHANNELS)


def archive(path: Path) -> Archive:
    return Archive(str(path), CHANNELS, world.GRID)


def windows(path: Path, missing: Any = "stop", last: int = 12, seed: int = 0) -> Windows:
    period = Period(world.START.isoformat(), world.time_of(last).isoformat())
    apart = Period("2030-01-01", "2030-02-01")
    data = DataConfig(str(path), period, apart, missing=missing)
    opened = archive(path)
    return Windows(data, period, opened, opened, 6, 2, 2, seed)


@pytest.mark.parametrize("descending", [False, True])
def test_a_state_has_the_models_order_of_axes_and_channels(
    tmp_path: Path, descending: bool
) -> None:
    values = np.random.default_rng(0).normal(size=(3, 16, 9, 4)).astype(np.float32)
    path = world.write_archive(tmp_path / "a.zarr", values, descending=descending)
    np.testing.assert_array_equal(archive(path).state(world.time_of(1)), values[1])


def test_a_window_holds_the_past_up_to_its_time_and_the_future_after_it(atmosphere: Path) -> None:
    values = world.waves(84)
    window = windows(atmosphere / "archive.zarr").read(world.time_of(5), 2)
    np.testing.assert_array_equal(window.history.numpy(), values[4:6])
    np.testing.assert_array_equal(window.targets.numpy(), values[6:8])


def test_statistics_are_weighted_by_area(atmosphere: Path) -> None:
    found = statistics.measure(
        windows(atmosphere / "archive.zarr", last=40), 400, timedelta(hours=6)
    )
    values = world.waves(84).astype(np.float64)
    weights = world.GRID.latitude_weights / world.GRID.latitude_weights.sum() / 16
    states = values[1:38]
    mean = np.einsum("txyc,y->c", states, weights) / len(states)
    square = np.einsum("txyc,y->c", (states - mean) ** 2, weights) / len(states)
    changes = values[2:39] - states
    moved = np.einsum("txyc,y->c", changes, weights) / len(states)
    change = np.einsum("txyc,y->c", (changes - moved) ** 2, weights) / len(states)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(found.std, np.sqrt(square), rtol=1e-3)
    np.testing.assert_allclose(found.change, np.sqrt(change), rtol=1e-3)


def test_an_epoch_is_a_permutation_and_the_next_another_one(atmosphere: Path) -> None:
    stream = windows(atmosphere / "archive.zarr", last=40)
    count = len(stream.times)
    first, second = ([stream.time(e * count + i) for i in range(count)] for e in (0, 1))
    assert sorted(first) == sorted(second) == stream.times
    assert first != second
    assert first != [windows(atmosphere / "archive.zarr", last=40, seed=1).time(i)
                     for i in range(count)]  # fmt: skip


phases = st.lists(
    st.builds(
        Phase, updates=st.integers(1, 4), rollout=st.integers(1, 3),
        batch=st.sampled_from([4, 8, 12]),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


@given(phases=phases, processes=st.sampled_from([1, 2, 4]), skip=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_update_takes_the_same_windows_on_any_number_of_processes(
    phases: list[Phase], processes: int, skip: int
) -> None:
    apart = DataConfig("a", Period("2026-01-01", "2026-02-01"), Period("2027-01-01", "2027-02-01"))
    recipe = Recipe("r", "m", apart, tuple(phases))
    first = min(skip, recipe.updates)
    alone = list(recipe.requests(first))
    shares = [list(recipe.requests(first, rank, processes)) for rank in range(processes)]
    assert sorted(alone) == sorted(request for share in shares for request in share)
    assert [n for n, _ in alone] == list(
        range(recipe.position(first), recipe.position(recipe.updates))
    )
    whole = list(recipe.requests(0))
    assert whole[recipe.position(first) :] == alone


def test_noise_is_that_of_its_window_and_nothing_else() -> None:
    found = window_noise(1, 7, members=2, steps=3, size=5)
    assert torch.equal(found, window_noise(1, 7, 2, 3, 5))
    assert not torch.equal(found, window_noise(1, 8, 2, 3, 5))
    assert not torch.equal(found, window_noise(2, 7, 2, 3, 5))
    assert found.unique().numel() == found.numel()


@pytest.mark.parametrize("readers", [1, 3])
def test_windows_are_read_ahead_in_order(atmosphere: Path, readers: int) -> None:
    stream = windows(atmosphere / "archive.zarr")
    requests = [(n, 1 + n % 2) for n in range(9)]
    found = list(read_ahead(stream, requests, readers))
    assert [w.time for w in found] == [stream.time(n) for n, _ in requests]
    assert [len(w.targets) for w in found] == [steps for _, steps in requests]


def test_a_value_that_is_not_finite_is_named_with_its_time_and_channel(tmp_path: Path) -> None:
    values = world.waves(14)
    values[6, 3, 4, 1] = np.nan
    path = world.write_archive(tmp_path / "a.zarr", values)
    expected = "temperature at 850 hPa of 2026-03-02T12Z.* not finite \\(1 values of 1 channels\\)"
    with pytest.raises(AnalysisUnreadable, match=expected):
        archive(path).state(world.time_of(6))
    with pytest.raises(AnalysisUnreadable, match="850 hPa of 2026-03-02T12Z"):
        [windows(path).draw(n, 2) for n in range(len(windows(path).times))]


def test_what_replaces_a_bad_window_does_not_depend_on_what_was_read_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = world.waves(14)
    values[6] = np.nan
    path = world.write_archive(tmp_path / "a.zarr", values)
    stream = windows(path, "skip")
    count = len(stream.times)
    forward = [stream.draw(n, 1 + n % 2).time for n in range(2 * count)]
    again = windows(path, "skip")
    backward = [again.draw(n, 1 + n % 2).time for n in reversed(range(2 * count))]
    assert forward == backward[::-1]
    touched = {world.time_of(i) for i in (4, 5, 6, 7)}
    assert set(stream.skipped) <= touched
    assert not {world.time_of(i) for i in (5, 6, 7)} & set(forward)
    assert "2026-03-02T12Z is left out" in caplog.text
    assert "never written" in stream.skipped[world.time_of(6)]


def test_missing_times_stop_a_training_or_are_skipped_by_name(tmp_path: Path) -> None:
    steps = [i for i in range(14) if i != 8]
    path = world.write_archive(tmp_path / "a.zarr", world.waves(14)[steps], times=steps)
    with pytest.raises(AnalysisMissing, match=r"has no 2026-03-03T00Z.*missing: skip"):
        windows(path)
    stream = windows(path, "skip")
    assert set(stream.skipped) == {world.time_of(i) for i in (6, 7, 8, 9)}
    assert not set(stream.skipped) & set(stream.times)


def test_an_archive_of_another_grid_level_or_variable_is_refused_by_name(atmosphere: Path) -> None:
    path = str(atmosphere / "archive.zarr")
    with pytest.raises(ConfigurationError, match=r"grid of 16 x 9.*24 x 13"):
        Archive(path, CHANNELS, LatLonGrid.with_poles(24, 13))
    with pytest.raises(ConfigurationError, match="no levels 700 hPa"):
        Archive(path, Channels.parse(["temperature_700"]), world.GRID)
    with pytest.raises(ConfigurationError, match="has no mean_sea_level_pressure"):
        Archive(path, Channels.parse(["mean_sea_level_pressure"]), world.GRID)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.nc").write_bytes(b"CDF\x01 not zarr")
    for url in (tmp_path / "nothing.zarr", tmp_path / "file.nc", tmp_path):
        with pytest.raises(AnalysisUnreadable, match="cannot be opened"):
            archive(url)
    zarr.create_group(tmp_path / "empty.zarr")
    with pytest.raises(AnalysisUnreadable, match="has no latitude"):
        archive(tmp_path / "empty.zarr")


def test_a_time_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = world.write_archive(tmp_path / "a.zarr", world.waves(3), times=[0, 1, 1])
    with pytest.raises(AnalysisUnreadable, match="a time twice"):
        archive(path)


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    path = world.write_archive(tmp_path / "a.zarr", world.waves(3))
    chunks = [p for p in (path / "2m_temperature").rglob("1.0.0*") if p.is_file()]
    assert chunks
    chunks[0].write_bytes(b"broken")
    with pytest.raises(AnalysisUnreadable, match="2m_temperature at 2026-03-01T06Z"):
        archive(path).state(world.time_of(1))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"phasez": []}, "did you mean 'phases'"),
        ({"phases": []}, "no phases"),
        ({"phases": [{"updates": 5, "learning_rte": 1}]}, "did you mean 'learning_rate'"),
        ({"phases": [{"updates": 0}]}, "one or more of each"),
        ({"precision": "float8"}, "float16"),
        ({"members": 0}, "members 1 or more"),
        ({"checkpoint_every": 0}, "checkpoint_every under 1"),
        ({"static": "a.npz", "start_from": "b.safetensors"}, "come with the weights"),
    ],
)
def test_a_recipe_that_cannot_be_right_is_refused(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    content = world.recipe_content() | change
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigurationError) as caught:
        Recipe.load(str(path))
    assert expected in str(caught.value)


def test_validation_of_states_that_were_trained_on_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="overlap"):
        DataConfig("a", Period("2026-01-01", "2026-03-01"), Period("2026-02-01", "2026-04-01"))


def test_overrides_reach_into_lists_and_refuse_what_is_not_there(tmp_path: Path) -> None:
    path = str(world.write_recipe(tmp_path))
    found = Recipe.load(path, overrides=["phases.1.updates=9", "data.missing=skip", "seed=8"])
    assert found.phases[1].updates == 9
    assert (found.data.missing, found.seed) == ("skip", 8)
    assert found == replace(found, name="tiny")
    for text in ("phases.7.updates=1", "phases.first=1", "seed.inner=1", "seed"):
        with pytest.raises(ConfigurationError, match="--set"):
            Recipe.load(path, overrides=[text])
