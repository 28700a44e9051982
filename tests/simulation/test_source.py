"""The simulated source: layout, balance, determinism, restarts and their failures."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mosaic_core.channels import ERA5_82, Channels
from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable, ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.simulation import restart
from mosaic_core.simulation.model import Model, State, cold_start
from mosaic_core.simulation.planet import find_planet
from mosaic_core.simulation.source import SimulatedSource
from mosaic_core.simulation.trajectory import Trajectory

START = datetime(2026, 1, 1, tzinfo=UTC)
FEW = Channels.parse(["mean_sea_level_pressure", "geopotential_500", "geopotential_850"])
SMALL = {"kind": "simulated", "truncation": 31, "grid": [48, 25], "checkpoints": ""}


def hours(n: int) -> datetime:
    return START + timedelta(hours=n)


@pytest.fixture(scope="module")
def source() -> SimulatedSource:
    return SimulatedSource(SMALL)


@pytest.fixture(scope="module")
def state(source: SimulatedSource) -> xr.Dataset:
    return source.truth(ERA5_82, [hours(24)]).isel(valid_time=0)


@pytest.fixture
def small_restart(tmp_path: Path) -> Path:
    model = Model(find_planet("terra"), 21)
    made = restart.Restart("terra", 21, START, State(0, cold_start(model, 0).current), "")
    restart.write(tmp_path / "small.npz", made)
    return tmp_path / "small.npz"


def test_analyses_have_the_layout_of_an_archive(source: SimulatedSource) -> None:
    found = source.fetch(ERA5_82, [hours(h) for h in (0, 6, 12)])
    assert set(found) == set(ERA5_82.variables)
    assert found["geopotential"].dims == ("valid_time", "level", "latitude", "longitude")
    assert found["2m_temperature"].dims == ("valid_time", "latitude", "longitude")
    assert found["temperature"].shape == (3, 13, 25, 48)
    assert {v.dtype for v in found.data_vars.values()} == {np.dtype(np.float32)}
    assert found["level"].values.tolist() == sorted(found["level"].values.tolist())
    assert found["valid_time"].values[1] == np.datetime64("2026-01-01T06")
    assert found["vertical_velocity"].attrs["units"] == "Pa s-1"
    assert all(np.isfinite(v).all() for v in found.data_vars.values())
    assert float(found["specific_humidity"].min()) >= 9.9e-8


def test_same_time_gives_the_same_analysis_in_any_order(source: SimulatedSource) -> None:
    times = [hours(h) for h in (0, 6, 12, 18, 24)]
    together = source.fetch(FEW, times)
    fresh = SimulatedSource(SMALL)
    for time in reversed(times):
        alone = fresh.fetch(FEW, [time])
        xr.testing.assert_identical(alone, together.sel(valid_time=alone["valid_time"]))


def test_analysis_error_is_a_share_of_a_days_change_and_new_each_time(
    source: SimulatedSource,
) -> None:
    times = [hours(h) for h in range(0, 48, 6)]
    z = "geopotential"
    truth = source.truth(FEW, times)
    error = (source.fetch(FEW, times) - truth)[z].sel(level=500)
    change = (source.truth(FEW, [hours(96)])[z].values - truth[z].values[-1:])[:, 0]
    assert 0.03 < float(error.std() / change.std()) < 0.3
    flat = error.values.reshape(len(times), -1)
    correlation = np.corrcoef(flat)[np.triu_indices(len(times), 1)]
    assert np.abs(correlation).mean() < 0.4
    exact = SimulatedSource(SMALL | {"analysis_error": 0})
    xr.testing.assert_equal(exact.fetch(FEW, times[:2]), truth.isel(valid_time=slice(2)))


def test_thickness_is_hydrostatic_to_a_thousandth(source: SimulatedSource) -> None:
    """Each layer between the archive's levels, against ∫ R T d(ln p) at many levels between."""
    edges = np.array([50, 100, 200, 300, 500, 700, 850, 1000])
    levels = np.unique(np.concatenate([np.linspace(a, b, 11) for a, b in pairwise(edges)]))
    levels = np.round(levels).astype(int)
    names = [f"{v}_{p}" for v in ("temperature", "geopotential") for p in levels]
    fine = source.truth(Channels.parse(names), [hours(0)]).isel(valid_time=0)
    for top, bottom in pairwise(edges):
        layer = fine.sel(level=slice(top, bottom))
        depth = np.log(layer["level"].values.astype(float))
        integral = 287.05 * np.trapezoid(layer["temperature"].values, depth, axis=0)
        z = layer["geopotential"].values
        np.testing.assert_allclose(z[0] - z[-1], integral, rtol=1e-3, err_msg=f"{top} hPa")


def test_atmosphere_looks_like_one(state: xr.Dataset) -> None:
    zonal = state["u_component_of_wind"].sel(level=250).mean("longitude")
    assert 20 < float(zonal.sel(latitude=slice(20, 60)).max()) < 70
    assert 20 < float(zonal.sel(latitude=slice(-60, -20)).max()) < 70
    t2m = state["2m_temperature"].mean("longitude")
    assert float(t2m.sel(latitude=0)) > float(t2m.sel(latitude=67.5)) + 25
    assert 980e2 < float(state["mean_sea_level_pressure"].mean()) < 1030e2
    assert float(state["vertical_velocity"].sel(level=500).std()) > 0.03
    assert (state["geopotential"].diff("level") < 0).all()


def test_winds_at_the_poles_are_one_vector(state: xr.Dataset) -> None:
    longitude = np.deg2rad(state["longitude"].values)
    for pole, sign in ((0, 1), (-1, -1)):
        u = state["u_component_of_wind"].sel(level=500).values[pole]
        v = state["v_component_of_wind"].sel(level=500).values[pole]
        x, y = -u * np.sin(longitude) + sign * v * np.cos(longitude), u * np.cos(longitude)
        y += sign * v * np.sin(longitude)
        assert np.ptp(x) < 0.01
        assert np.ptp(y) < 0.01
        assert np.ptp(state["temperature"].sel(level=500).values[pole]) < 1e-3


def test_static_fields_are_those_of_the_planet(source: SimulatedSource) -> None:
    static = source.static_fields()
    assert static.shape == (48, 25, 3)
    assert static.dtype == np.float32
    height, land, soil = np.moveaxis(static, -1, 0) / np.array([9.80665, 1, 1])[:, None, None]
    assert 2500 < height.max() < 5000
    assert land.min() >= 0
    assert land.max() <= 1
    assert 0.2 < (land * np.cos(np.deg2rad(source.grid.latitudes))).mean() / 0.63 < 0.45
    assert set(np.unique(soil)) <= set(range(7))
    assert np.array_equal(soil > 0, land > 0.5)
    other = LatLonGrid.with_poles(24, 13)
    np.testing.assert_allclose(source.static_fields(other), static[::2, ::2], atol=0.05)


def test_checkpoints_do_not_change_the_trajectory(small_restart: Path, tmp_path: Path) -> None:
    plain = Trajectory(small_restart)
    step = plain.step_of(hours(24 * 10 + 12))
    expected = plain.state(step)
    folder = tmp_path / "checkpoints"
    assert np.array_equal(
        Trajectory(small_restart, folder=folder).state(step).current, expected.current
    )
    (checkpoint,) = folder.rglob("*.npz")
    again = Trajectory(small_restart, folder=folder)
    assert again._newest_before(step).step == 360
    assert np.array_equal(again.state(step).current, expected.current)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    broken = Trajectory(small_restart, folder=folder)
    assert np.array_equal(broken.state(step).current, expected.current)
    assert not list(folder.rglob(".*.npz.*"))


def test_seeds_are_different_weather(small_restart: Path) -> None:
    a, b, again = (Trajectory(small_restart, seed).state(9).current for seed in (0, 1, 1))
    assert not np.array_equal(a, b)
    assert np.array_equal(b, again)


def test_time_before_the_restart_is_refused_with_what_there_is(source: SimulatedSource) -> None:
    with pytest.raises(ConfigurationError, match=r"2025-12-31T18:00Z.*from 2026-01-01T00Z"):
        source.fetch(FEW, [hours(-6)])


def test_bad_requests_are_refused(source: SimulatedSource) -> None:
    with pytest.raises(ConfigurationError, match="between time steps"):
        source.fetch(FEW, [START + timedelta(minutes=7)])
    with pytest.raises(ConfigurationError, match="no valid times"):
        source.fetch(FEW, [])
    with pytest.raises(ConfigurationError, match="temperature_10"):
        source.fetch(Channels.parse(["temperature_10"]), [START])
    with pytest.raises(ConfigurationError, match="no time zone"):
        source.fetch(FEW, [datetime(2026, 1, 1)])  # noqa: DTZ001


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'terra'"):
        SimulatedSource(SMALL | {"planet": "tera"})
    with pytest.raises(ConfigurationError, match="did you mean 'seed'"):
        SimulatedSource(SMALL | {"sed": 3})
    with pytest.raises(AnalysisMissing, match=r"python -m mosaic_core.simulation.spinup"):
        SimulatedSource(SMALL | {"truncation": 63})
    with pytest.raises(ConfigurationError, match="analysis_error"):
        SimulatedSource(SMALL | {"analysis_error": 12.0})


def test_shipped_restart_is_small() -> None:
    for path in restart.FOLDER.glob("*.npz"):
        assert path.stat().st_size < 400_000
        assert restart.read(path).valid_time == START


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_restart_cut_short_is_refused(small_restart: Path, share: float) -> None:
    whole = small_restart.read_bytes()
    small_restart.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(AnalysisUnreadable, match="cannot be read"):
        restart.read(small_restart)


def test_restart_of_another_version_planet_or_content_is_refused(small_restart: Path) -> None:
    with np.load(small_restart) as stored:
        header, current = json.loads(str(stored["header"])), stored["current"]

    def rewrite(changes: dict[str, object], array: np.ndarray = current) -> None:
        np.savez(small_restart, header=np.array(json.dumps(header | changes)), current=array)

    rewrite({"version": 99})
    with pytest.raises(AnalysisUnreadable, match=rf"version 99.*version {restart.VERSION}"):
        restart.read(small_restart)
    rewrite({"planet": "mars"})
    with pytest.raises(ConfigurationError, match="unknown planet 'mars'"):
        restart.read(small_restart)
    rewrite({}, current * 2)
    with pytest.raises(AnalysisUnreadable, match="sha256"):
        restart.read(small_restart)
    rewrite({"truncation": 31})
    with pytest.raises(AnalysisUnreadable, match="T31"):
        restart.read(small_restart)
    for name, value in (("valid_time", "yesterday"), ("step", None), ("truncation", "wide")):
        rewrite({name: value})
        with pytest.raises(AnalysisUnreadable, match="cannot be read"):
            restart.read(small_restart)
    np.savez(small_restart, header=np.array("[3]"), current=current)
    with pytest.raises(AnalysisUnreadable, match="cannot be read"):
        restart.read(small_restart)


def test_restart_altered_by_one_byte_is_refused(small_restart: Path) -> None:
    whole = bytearray(small_restart.read_bytes())
    whole[len(whole) // 2] ^= 1
    small_restart.write_bytes(whole)
    with pytest.raises(AnalysisUnreadable):
        restart.read(small_restart)


def test_restart_with_nan_is_refused(small_restart: Path) -> None:
    found = restart.read(small_restart)
    current = found.state.current.copy()
    current[2, 0, 3, 4] = np.nan
    restart.write(small_restart, replace(found, state=State(0, current)))
    with pytest.raises(AnalysisUnreadable, match="NaN or infinite in current"):
        restart.read(small_restart)


def test_missing_restart_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnalysisMissing, match=r"no restart .*gone.npz"):
        SimulatedSource(SMALL | {"restart": str(tmp_path / "gone.npz")})


def test_restart_round_trip_is_exact(small_restart: Path, tmp_path: Path) -> None:
    found = restart.read(small_restart)
    later = Trajectory(small_restart).state(5)
    restart.write(tmp_path / "later.npz", replace(found, state=later))
    again = restart.read(tmp_path / "later.npz").state
    for name in ("current", "previous", "forcing"):
        assert np.array_equal(getattr(again, name), getattr(later, name))


def test_statistics_follow_the_order_of_the_channels(source: SimulatedSource) -> None:
    channels = Channels.parse(["temperature_850", "mean_sea_level_pressure", "temperature_50"])
    mean, std = source.statistics(channels)
    assert 270 < mean[0] < 285
    assert 99_000 < mean[1] < 102_500
    assert np.all(std > 0)
    with pytest.raises(ConfigurationError, match="temperature_875"):
        source.statistics(Channels.parse(["temperature_875"]))
