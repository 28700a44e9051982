from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mosaic_core.analysis.checks import (
    CheckResult,
    CheckSettings,
    Subject,
    default_checks,
    require,
    run_checks,
)
from mosaic_core.analysis.checks.bounds import bounds_of
from mosaic_core.analysis.regrid import dataset_grid
from mosaic_core.analysis.sources import fetch_analysis, make_source
from mosaic_core.analysis.static import shipped_static_fields
from mosaic_core.channels import ERA5_82, LEVELS, Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisRejected, ConfigurationError
from mosaic_core.grid import LatLonGrid
from tests.analysis.conftest import GFS_TIME, IFS_CHANNELS, IFS_TIMES, UVT_CHANNELS

ERA_TIME = datetime(2005, 1, 23, tzinfo=UTC)
CONTINENTS = "orientation on the continents"
Case = tuple[xr.Dataset, Channels, tuple[datetime, ...]]


@pytest.fixture(scope="session")
def uvt(era_interim: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    path = tmp_path_factory.mktemp("era") / "uvt.zarr"
    era_interim.to_zarr(path, zarr_format=2)
    source = make_source({"kind": "zarr", "url": str(path)})
    return fetch_analysis(source, Cycle(ERA_TIME), UVT_CHANNELS, [ERA_TIME])


@pytest.fixture(params=["era_interim", "gfs", "ifs"])
def case(request: pytest.FixtureRequest) -> Case:
    """Sound analyses: 1.5 degrees u, v, t; 2.5 degrees all channels; 10 degrees, eight times."""
    ds, channels, times = {
        "era_interim": ("uvt", UVT_CHANNELS, (ERA_TIME,)),
        "gfs": ("gfs", ERA5_82, (GFS_TIME,)),
        "ifs": ("ifs", IFS_CHANNELS, IFS_TIMES),
    }[request.param]
    return request.getfixturevalue(ds), channels, times


def results_of(
    ds: xr.Dataset, channels: Channels, times: tuple[datetime, ...], **more: object
) -> dict[str, CheckResult]:
    grid = dataset_grid(ds)
    subject = Subject(ds, channels, times, grid, shipped_static_fields(grid), **more)  # type: ignore[arg-type]
    return {result.check: result for result in run_checks(default_checks(), subject)}


def first(case: Case) -> Case:
    ds, channels, times = case
    return ds.isel(valid_time=[0]), channels, times[:1]


def failed(results: dict[str, CheckResult]) -> set[str]:
    return {name for name, result in results.items() if result.status == "failed"}


def rolled(ds: xr.Dataset, columns: int, rows: int = 0) -> xr.Dataset:
    return ds.roll(longitude=columns, latitude=rows, roll_coords=False)


def turned(ds: xr.Dataset) -> xr.Dataset:
    """Rows in the other order under the same coordinates."""
    return ds.isel(latitude=slice(None, None, -1)).assign_coords(latitude=ds.latitude)


def test_sound_analyses_pass_every_check(case: Case) -> None:
    results = results_of(*case)
    assert failed(results) == set()
    assert results[CONTINENTS].status == "passed"
    assert results["thermal wind"].status == "passed"
    require(results.values())


def test_a_rotation_by_half_the_globe_is_named(case: Case) -> None:
    ds, channels, times = case
    found = results_of(rolled(ds, ds.sizes["longitude"] // 2), channels, times)[CONTINENTS]
    assert found.status == "failed"
    assert "rotated by 180 degrees" in found.found


@pytest.mark.parametrize("columns", [-7, -1, 1, 3])
def test_a_shift_by_any_number_of_columns_is_named(case: Case, columns: int) -> None:
    ds, channels, times = first(case)
    degrees = columns * 360 / ds.sizes["longitude"]
    found = results_of(rolled(ds, columns), channels, times)[CONTINENTS]
    assert f"rotated by {degrees:g} degrees" in found.found


@pytest.mark.parametrize("rows", [-1, 1])
def test_a_shift_by_a_row_is_named(case: Case, rows: int) -> None:
    ds, channels, times = first(case)
    found = results_of(rolled(ds, 0, rows), channels, times)[CONTINENTS]
    assert f"shifted by {rows} rows" in found.found


def test_a_reflection_is_named_by_several_checks(case: Case) -> None:
    ds, channels, times = case
    results = results_of(turned(ds), channels, times)
    assert "reflected at the equator" in results[CONTINENTS].found
    assert results["thermal wind"].status == "failed"


@pytest.mark.parametrize(
    ("variable", "checks"),
    [
        ("temperature", {"thermal wind"}),
        ("v_component_of_wind", {"thermal wind"}),
        ("u_component_of_wind", {"zonal thermal wind"}),
    ],
)
def test_one_variable_out_of_place_is_found(case: Case, variable: str, checks: set[str]) -> None:
    ds, channels, times = first(case)
    wrong = ds.assign({variable: ds[variable].roll(longitude=3, roll_coords=False)})
    assert checks & failed(results_of(wrong, channels, times))


@pytest.mark.parametrize(
    ("variable", "check"),
    [
        ("geopotential", "geostrophic wind"),
        ("2m_temperature", "2 m temperature and 1000 hPa"),
        ("mean_sea_level_pressure", "sea level pressure and 1000 hPa"),
        ("10m_u_component_of_wind", "10 m wind u and 1000 hPa"),
        ("10m_v_component_of_wind", "10 m wind v and 1000 hPa"),
        ("vertical_velocity", "continuity"),
        ("specific_humidity", "humidity and ascent"),
    ],
)
def test_one_variable_rotated_by_half_the_globe_is_found(
    gfs: xr.Dataset, variable: str, check: str
) -> None:
    half = gfs.sizes["longitude"] // 2
    wrong = gfs.assign({variable: gfs[variable].roll(longitude=half, roll_coords=False)})
    assert check in failed(results_of(wrong, ERA5_82, (GFS_TIME,)))


@pytest.mark.parametrize(
    ("variable", "spoil"),
    [
        ("geopotential", lambda a: a / 9.80665),
        ("geopotential", lambda a: a * 9.80665),
        ("temperature", lambda a: a - 273.15),
        ("2m_temperature", lambda a: a - 273.15),
        ("mean_sea_level_pressure", lambda a: a / 100),
        ("specific_humidity", lambda a: a * 1000),
        ("specific_humidity", lambda a: a * 0 + 55 + 10 * np.sin(a * 1e4)),
        ("vertical_velocity", lambda a: a * -0.09),
        ("u_component_of_wind", lambda a: a * 1.94 * 1.94),
    ],
)
def test_wrong_units_are_named_by_channel(
    gfs: xr.Dataset, variable: str, spoil: Callable[[xr.DataArray], xr.DataArray]
) -> None:
    wrong = gfs.assign({variable: spoil(gfs[variable]).astype(np.float32)})
    result = results_of(wrong, ERA5_82, (GFS_TIME,))["units and plausible values"]
    assert result.status == "failed"
    assert all(name.startswith(variable) for name in result.channels)
    assert result.channels


def test_vertical_velocity_of_the_wrong_sign_breaks_continuity(gfs: xr.Dataset) -> None:
    wrong = gfs.assign(vertical_velocity=-gfs.vertical_velocity)
    assert failed(results_of(wrong, ERA5_82, (GFS_TIME,))) == {
        "continuity",
        "humidity and ascent",
    }


def test_geopotential_that_does_not_fit_the_temperature_is_found(gfs: xr.Dataset) -> None:
    wrong = gfs.geopotential.copy(deep=True)
    wrong.loc[{"level": 500}] *= 1.02
    results = results_of(gfs.assign(geopotential=wrong), ERA5_82, (GFS_TIME,))
    assert "500 to 400 hPa" in results["hydrostatic balance"].found


def test_nan_and_infinity_are_counted(gfs: xr.Dataset) -> None:
    wrong = gfs.copy(deep=True)
    wrong["temperature"].values[0, 3, 10, 10:14] = np.nan
    wrong["2m_temperature"].values[0, 0, 0] = np.inf
    found = results_of(wrong, ERA5_82, (GFS_TIME,))["finite values"].found
    assert "2m_temperature is NaN or infinite at 1 points" in found
    assert "temperature at 200 hPa is NaN or infinite at 4 points" in found


def test_the_same_analysis_again_is_stale(ifs: xr.Dataset) -> None:
    before, now = ifs.isel(valid_time=[0]), ifs.isel(valid_time=[1])
    assert not failed(results_of(now, IFS_CHANNELS, IFS_TIMES[1:2], previous=before))
    stale = before.assign_coords(valid_time=now.valid_time)
    results = results_of(stale, IFS_CHANNELS, IFS_TIMES[1:2], previous=before)
    assert failed(results) == {"not stale", "tendency"}
    assert len(results["not stale"].channels) == 30


def test_a_jump_is_found_by_its_tendency(ifs: xr.Dataset) -> None:
    later = ifs.isel(valid_time=[4]).assign_coords(valid_time=ifs.valid_time[1:2])
    moved = later.copy()
    moved["temperature"] = moved.temperature.roll(longitude=9, roll_coords=False)
    results = results_of(moved, IFS_CHANNELS, IFS_TIMES[1:2], previous=ifs.isel(valid_time=[0]))
    assert "temperature_500" in results["tendency"].channels


def test_missing_and_repeated_channels_and_wrong_times_are_named(ifs: xr.Dataset) -> None:
    fewer = ifs.drop_sel(level=500)
    results = results_of(fewer, IFS_CHANNELS, IFS_TIMES)
    assert "temperature at 500 hPa is missing" in results["channels present"].found
    results = results_of(ifs, IFS_CHANNELS, IFS_TIMES[1:])
    assert results["valid times"].status == "failed"
    twice = xr.concat([ifs, ifs.sel(level=[500])], "level")
    results = results_of(twice, IFS_CHANNELS, IFS_TIMES)
    assert "level 500 is there twice" in results["channels present"].found


def test_every_failure_is_in_the_one_error(gfs: xr.Dataset) -> None:
    wrong = turned(gfs).copy(deep=True).assign({"2m_temperature": gfs["2m_temperature"] - 273.15})
    wrong["temperature"].values[0, 0, 0, 0] = np.nan
    with pytest.raises(AnalysisRejected) as error:
        require(results_of(wrong, ERA5_82, (GFS_TIME,)).values())
    for name in ("finite values", "units and plausible values", CONTINENTS, "geostrophic wind"):
        assert name in error.value.found


def test_results_become_plain_values(gfs: xr.Dataset) -> None:
    import json

    results = results_of(gfs, ERA5_82, (GFS_TIME,))
    text = json.dumps([result.as_dict() for result in results.values()])
    assert CONTINENTS in text


def test_a_profile_may_leave_out_a_check_by_its_name_only() -> None:
    names = {check.name for check in default_checks(CheckSettings(leave_out=("continuity",)))}
    assert len(names) == len(default_checks()) - 1
    with pytest.raises(ConfigurationError, match="did you mean 'continuity'"):
        CheckSettings(leave_out=("continuty",))


@pytest.fixture(scope="session")
def era5(shared_data: Path) -> Case:
    """ERA5 of 1959 on the Gaussian grid of T31; nothing was tuned on it."""
    path = shared_data / "states/era5_tl31_19590102T00.nc"
    names = list(IFS_CHANNELS.variables)
    channels = Channels.parse([f"{name}_{level}" for name in names for level in LEVELS])
    with xr.open_dataset(path) as file:
        ds = file[names].sel(level=list(LEVELS)).sortby("latitude").astype("f4").load()
    keep = {"level", "latitude", "longitude"}
    ds = ds.drop_vars(set(ds.coords) - keep).transpose("level", "latitude", "longitude")
    when = datetime(1959, 1, 2, tzinfo=UTC)
    return ds.expand_dims(valid_time=[np.datetime64("1959-01-02", "ns")]), channels, (when,)


@pytest.fixture(scope="session")
def winds_at_1000(shared_data: Path) -> Case:
    """An IFS analysis of 2005 at 1000 hPa only, 1.5 degrees; nothing was tuned on it."""
    path = shared_data / "states/ifs_an_tuv1000_1p5deg_2005011212.grib"
    channels = Channels.parse([f"{name}_1000" for name in UVT_CHANNELS.variables])
    when = datetime(2005, 1, 12, 12, tzinfo=UTC)
    source = make_source({"kind": "grib", "path": str(path)})
    return fetch_analysis(source, Cycle(when), channels, [when]), channels, (when,)


@pytest.mark.parametrize("name", ["era5", "winds_at_1000"])
def test_analyses_that_nothing_was_tuned_on_are_judged_alike(
    name: str, request: pytest.FixtureRequest
) -> None:
    ds, channels, times = request.getfixturevalue(name)
    assert failed(results_of(ds, channels, times)) == set()
    for columns in (-1, 1, ds.sizes["longitude"] // 2):
        assert CONTINENTS in failed(results_of(rolled(ds, columns), channels, times))
    assert CONTINENTS in failed(results_of(rolled(ds, 0, 1), channels, times))
    assert CONTINENTS in failed(results_of(turned(ds), channels, times))


def test_a_check_that_stumbles_does_not_hide_the_others(gfs: xr.Dataset) -> None:
    wrong = gfs.assign({"2m_temperature": gfs["2m_temperature"].isel(valid_time=0, drop=True)})
    results = results_of(wrong, ERA5_82, (GFS_TIME,))
    assert "cannot be evaluated" in results["finite values"].found
    assert results["geostrophic wind"].status == "passed"


def test_our_round_numbers_agree_with_era5(shared_data: Path) -> None:
    """Points count alike there and by area here, so the means may differ by half a spread."""
    folder = shared_data / "states/era5_channel_stats"
    mean, std, change = (
        np.load(folder / f"normalize_{name}.npz") for name in ("mean", "std", "diff_std_6")
    )
    for channel in ERA5_82:
        bounds = bounds_of(channel)
        theirs = float(std[channel.name].item())
        assert abs(bounds.mean - mean[channel.name].item()) < 0.75 * theirs, channel
        assert 0.6 < bounds.spread / theirs < 1.5, channel
        assert 0.6 < bounds.tendency / change[channel.name].item() < 1.5, channel


def test_shipped_static_fields_agree_with_an_independent_source(shared_data: Path) -> None:
    grid = LatLonGrid.with_poles(240, 121)
    ours = shipped_static_fields(grid)
    theirs = np.load(shared_data / "mosaic/static_vars.npz")["data"]
    assert np.corrcoef(ours.land_sea_mask.ravel(), theirs[..., 1].T.ravel())[0, 1] > 0.9
    heights = np.corrcoef(ours.geopotential_at_surface.ravel(), theirs[..., 0].T.ravel())[0, 1]
    assert heights > 0.95
