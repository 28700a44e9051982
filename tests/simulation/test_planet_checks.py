"""Every check of analyses runs on the simulated planet: sound ones pass, spoilt ones do not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import xarray as xr

from mosaic_core.analysis.checks import (
    CheckResult,
    CheckSettings,
    Subject,
    default_checks,
    run_checks,
)
from mosaic_core.analysis.checks.bounds import EARTH, climatology_of
from mosaic_core.analysis.static import StaticFields
from mosaic_core.channels import ERA5_82, Channels
from mosaic_core.pipeline.site import open_site
from mosaic_core.profile import Profile
from mosaic_core.simulation.source import SimulatedSource

START = datetime(2026, 1, 4, 18, tzinfo=UTC)
TIMES = (START, START + timedelta(hours=6))


def source_of(truncation: int, grid: tuple[int, int]) -> SimulatedSource:
    settings = {"truncation": truncation, "grid": list(grid), "checkpoints": ""}
    return SimulatedSource({"kind": "simulated", **settings})


def check(
    source: SimulatedSource, dataset: xr.Dataset, times: tuple[datetime, ...]
) -> dict[str, CheckResult]:
    """Results of all checks by name, as a site runs them."""
    height, land, _ = np.moveaxis(source.static_fields(), -1, 0)
    static = StaticFields(
        source.grid,
        np.ascontiguousarray(height.T),
        np.clip(np.ascontiguousarray(land.T), 0, 1),
    )
    settings = CheckSettings(climatology=climatology_of(source, ERA5_82))
    subject = Subject(dataset, ERA5_82, times, source.grid, static)
    return {result.check: result for result in run_checks(default_checks(settings), subject)}


def failures(results: dict[str, CheckResult]) -> dict[str, str]:
    return {name: r.found for name, r in results.items() if r.status != "passed"}


@pytest.fixture(scope="module")
def source() -> SimulatedSource:
    return source_of(31, (72, 37))


@pytest.fixture(scope="module")
def sound(source: SimulatedSource) -> xr.Dataset:
    return source.fetch(ERA5_82, TIMES)


def test_the_demo_leaves_no_check_out() -> None:
    profile = Profile.load("demo")
    assert profile.leave_out_checks == ()


def test_a_site_checks_against_its_planet(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSAIC_HOME", str(tmp_path))
    demo = open_site(Profile.load("demo"))
    whose = {getattr(c, "climatology", EARTH).whose for c in demo.checks if c.name == "tendency"}
    assert whose == {f"the atmosphere of {demo.source.name}"}


def test_sound_analyses_pass_every_check(source: SimulatedSource, sound: xr.Dataset) -> None:
    results = check(source, sound, TIMES)
    assert failures(results) == {}
    assert len(results) == len(default_checks())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("truncation", "grid"),
    [(31, (120, 61)), (31, (240, 121)), (42, (120, 61)), (42, (240, 121))],
)
def test_sound_analyses_of_other_days_and_grids_pass(
    truncation: int, grid: tuple[int, int]
) -> None:
    source = source_of(truncation, grid)
    for days in (0, 8):
        times = tuple(START + timedelta(days=days, hours=h) for h in (0, 6))
        assert failures(check(source, source.fetch(ERA5_82, times), times)) == {}, days


Spoil = Callable[[xr.Dataset], xr.Dataset]


def scaled(variable: str, factor: float, shift: float = 0.0) -> Spoil:
    def spoil(ds: xr.Dataset) -> xr.Dataset:
        values = ds[variable] * np.float32(factor) + np.float32(shift)
        return ds.assign({variable: values.assign_attrs(ds[variable].attrs)})

    return spoil


def rolled(ds: xr.Dataset, columns: int, *variables: str) -> xr.Dataset:
    names = variables or tuple(map(str, ds.data_vars))
    return ds.assign({name: ds[name].roll(longitude=columns) for name in names})


def flipped(ds: xr.Dataset, *variables: str) -> xr.Dataset:
    names = variables or tuple(map(str, ds.data_vars))
    axis = {name: ds[name].get_axis_num("latitude") for name in names}
    return ds.assign({n: ds[n].copy(data=np.flip(ds[n].values, axis[n])) for n in names})


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (scaled("2m_temperature", 1, -273.15), "units and plausible values"),
        (scaled("temperature", 1, -273.15), "units and plausible values"),
        (scaled("geopotential", 1 / 9.80665), "units and plausible values"),
        (scaled("mean_sea_level_pressure", 0.01), "units and plausible values"),
        (scaled("specific_humidity", 1000), "units and plausible values"),
        (scaled("vertical_velocity", -0.1), "units and plausible values"),
        (scaled("vertical_velocity", -1), "continuity"),
        (scaled("u_component_of_wind", 1.94), "units and plausible values"),
        (scaled("temperature", 1, 4), "global means"),
        (lambda ds: flipped(ds), "orientation on the continents"),
        (lambda ds: rolled(ds, 36), "orientation on the continents"),
        (lambda ds: rolled(ds, 5), "orientation on the continents"),
        (lambda ds: flipped(ds, "temperature"), "thermal wind"),
        (lambda ds: rolled(ds, 2, "geopotential"), "geostrophic wind"),
        (lambda ds: rolled(ds, 3, "specific_humidity"), "humidity and ascent"),
        (lambda ds: rolled(ds, 1, "2m_temperature"), "2 m temperature and 1000 hPa"),
    ],
)
def test_spoilt_analyses_are_refused_by_name(
    source: SimulatedSource, sound: xr.Dataset, spoil: Spoil, named: str
) -> None:
    assert named in failures(check(source, spoil(sound), TIMES))


def test_a_change_that_no_weather_makes_is_refused(
    source: SimulatedSource, sound: xr.Dataset
) -> None:
    z = sound["mean_sea_level_pressure"].copy()
    z[1] += 600 * np.sin(2 * np.deg2rad(z["longitude"]))
    found = failures(check(source, sound.assign(mean_sea_level_pressure=z), TIMES))
    assert "mean_sea_level_pressure changes" in found["tendency"]


def test_the_earths_bounds_do_not_fit_the_planet(sound: xr.Dataset) -> None:
    class Plain:
        """A source without statistics: the Earth."""

    assert climatology_of(Plain(), ERA5_82) is EARTH
    settings = CheckSettings(climatology=EARTH)
    grid = source_of(31, (72, 37)).grid
    results = run_checks(default_checks(settings), Subject(sound, ERA5_82, TIMES, grid))
    assert {"units and plausible values", "global means"} <= {
        r.check for r in results if r.status == "failed"
    }


def test_bounds_of_some_channels_are_those_of_the_source(source: SimulatedSource) -> None:
    few = Channels.parse(["temperature_850", "mean_sea_level_pressure"])
    climatology = climatology_of(source, few)
    mean, spread, tendency = source.usual(few)
    bounds = climatology.bounds(few[0])
    assert (bounds.mean, bounds.spread, bounds.tendency) == (mean[0], spread[0], tendency[0])
    assert sorted(climatology.global_means) == ["mean_sea_level_pressure", "temperature_850"]
