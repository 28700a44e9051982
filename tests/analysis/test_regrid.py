from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_core.analysis.fields import orient
from mosaic_core.analysis.regrid import (
    conservative,
    latitude_weights,
    longitude_weights,
    regrid_dataset,
)
from mosaic_core.errors import AnalysisUnreadable, ConfigurationError
from mosaic_core.grid import LatLonGrid

QUARTER, MODEL = LatLonGrid.with_poles(1440, 721), LatLonGrid.with_poles(240, 121)


def dataset(grid: LatLonGrid, plane: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {"x": (("latitude", "longitude"), plane.astype(np.float32))},
        {"latitude": list(grid.latitudes), "longitude": list(grid.longitudes)},
    )


def by_cells(field: np.ndarray, source: LatLonGrid, target: LatLonGrid) -> np.ndarray:
    """The readable twin: every pair of cells, one after another."""
    result = np.zeros((target.nlat, target.nlon))
    lat = [-90.0, *np.convolve(source.latitudes, [0.5, 0.5], "valid"), 90.0]
    to_lat = [-90.0, *np.convolve(target.latitudes, [0.5, 0.5], "valid"), 90.0]
    d, to_d = 360 / source.nlon, 360 / target.nlon
    for i in range(target.nlat):
        for j in range(target.nlon):
            total = weight = 0.0
            for k in range(source.nlat):
                top, bottom = min(to_lat[i + 1], lat[k + 1]), max(to_lat[i], lat[k])
                if top <= bottom:
                    continue
                rows = np.sin(np.deg2rad(top)) - np.sin(np.deg2rad(bottom))
                for m in range(source.nlon):
                    apart = (m * d - j * to_d + 180) % 360 - 180
                    columns = min(to_d / 2, apart + d / 2) - max(-to_d / 2, apart - d / 2)
                    if columns > 0 and np.isfinite(field[k, m]):
                        total += rows * columns * field[k, m]
                        weight += rows * columns
            result[i, j] = total / weight if weight else np.nan
    return result


def test_longitude_weights_are_the_published_ones() -> None:
    weights = longitude_weights(np.array(QUARTER.longitudes), np.array(MODEL.longitudes))
    row = weights[0]
    around = np.concatenate([row[-3:], row[:4]])
    np.testing.assert_allclose(around * 12, [1, 2, 2, 2, 2, 2, 1], atol=1e-12)
    assert row.sum() == pytest.approx(1)
    assert (row > 0).sum() == 7


def test_latitude_weights_are_the_published_ones() -> None:
    weights = latitude_weights(np.array(QUARTER.latitudes), np.array(MODEL.latitudes))
    np.testing.assert_allclose(
        weights[0][weights[0] > 0], [0.027778, 0.222225, 0.444445, 0.305553], atol=6e-7
    )
    np.testing.assert_allclose(
        weights[1][weights[1] > 0],
        [0.045144, 0.111121, 0.138898, 0.166671, 0.194442, 0.222209, 0.121516],
        atol=6e-7,
    )


@settings(max_examples=15, deadline=None)
@given(
    st.integers(6, 14), st.integers(5, 11), st.integers(2, 6), st.integers(2, 5), st.integers(0, 99)
)
def test_the_matrices_agree_with_cell_by_cell(
    nlon: int, nlat: int, to_lon: int, to_lat: int, seed: int
) -> None:
    source, target = LatLonGrid.with_poles(nlon, nlat), LatLonGrid.with_poles(to_lon, to_lat)
    rng = np.random.default_rng(seed)
    field = rng.standard_normal((nlat, nlon)).astype(np.float32)
    field[rng.random(field.shape) < 0.2] = np.nan
    found = conservative(field, source, target)
    np.testing.assert_allclose(found, by_cells(field, source, target), atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 40), st.integers(5, 30), st.floats(-1e5, 1e5), st.integers(0, 99))
def test_constants_stay_and_the_area_mean_is_kept(
    nlon: int, nlat: int, value: float, seed: int
) -> None:
    source, target = LatLonGrid.with_poles(nlon, nlat), LatLonGrid.with_poles(8, 5)
    constant = np.full((nlat, nlon), value, np.float32)
    np.testing.assert_allclose(conservative(constant, source, target), value, rtol=1e-5, atol=1e-6)
    field = np.random.default_rng(seed).standard_normal((nlat, nlon)).astype(np.float32)
    before = (field.mean(axis=1) * source.latitude_weights).mean()
    after = (conservative(field, source, target).mean(axis=1) * target.latitude_weights).mean()
    assert after == pytest.approx(before, abs=1e-5)


def test_nan_takes_no_part_and_a_cell_without_values_is_nan() -> None:
    source, target = LatLonGrid.with_poles(24, 13), LatLonGrid.with_poles(8, 5)
    field = np.full((13, 24), 3.0, np.float32)
    field[6, 0] = np.nan
    np.testing.assert_allclose(conservative(field, source, target), 3.0, rtol=1e-6)
    field[3:10, 0:7] = np.nan
    found = conservative(field, source, target)
    assert np.isnan(found).any()
    np.testing.assert_allclose(found[np.isfinite(found)], 3.0, rtol=1e-6)


def test_infinity_is_not_taken_for_a_gap() -> None:
    field = np.ones((13, 24), np.float32)
    field[6, 6] = np.inf
    found = conservative(field, LatLonGrid.with_poles(24, 13), LatLonGrid.with_poles(8, 5))
    assert np.isinf(found).any()


def test_the_same_grid_is_left_alone() -> None:
    plane = np.random.default_rng(0).standard_normal((5, 8))
    grid = LatLonGrid.with_poles(8, 5)
    result = regrid_dataset(dataset(grid, plane), grid)
    assert np.array_equal(result["x"].values, plane.astype(np.float32))
    assert result.attrs["regridding"].startswith("none")


def test_what_was_done_before_stays_on_record() -> None:
    source, target = LatLonGrid.with_poles(24, 13), LatLonGrid.with_poles(8, 5)
    once = regrid_dataset(dataset(source, np.ones((13, 24))), target)
    assert regrid_dataset(once, target).attrs["regridding"] == "conservative from 24 x 13"


def test_a_finer_grid_is_refused_unless_asked_for() -> None:
    coarse, fine = LatLonGrid.with_poles(24, 13), LatLonGrid.with_poles(48, 25)
    plane = np.sin(np.deg2rad(coarse.latitudes))[:, None] + np.cos(np.deg2rad(coarse.longitudes))
    with pytest.raises(ConfigurationError, match="finer: bilinear"):
        regrid_dataset(dataset(coarse, plane), fine)
    result = regrid_dataset(dataset(coarse, plane), fine, finer="bilinear")
    exact = np.sin(np.deg2rad(fine.latitudes))[:, None] + np.cos(np.deg2rad(fine.longitudes))
    assert result.attrs["regridding"].startswith("bilinear")
    np.testing.assert_allclose(result["x"].values, exact, atol=0.02)
    np.testing.assert_allclose(result["x"].values[::2, ::2], plane, atol=1e-6)


def test_a_regional_field_is_refused() -> None:
    grid = LatLonGrid(tuple(np.arange(0.0, 90, 5)), tuple(np.arange(-90.0, 91, 5)))
    with pytest.raises(AnalysisUnreadable, match="even steps around the globe"):
        regrid_dataset(dataset(grid, np.ones((37, 18))), LatLonGrid.with_poles(8, 5))


@settings(max_examples=50, deadline=None)
@given(st.integers(4, 36), st.integers(0, 100), st.booleans(), st.booleans())
def test_any_first_longitude_and_either_latitude_order_give_the_same_field(
    nlon: int, start: int, flip: bool, negative: bool
) -> None:
    grid = LatLonGrid.with_poles(nlon, 7)
    plane = np.random.default_rng(start).standard_normal((7, nlon)).astype(np.float32)
    lon, lat = np.roll(grid.longitudes, -start), np.array(grid.latitudes)
    values = np.roll(plane, -start, axis=1)
    if negative:
        lon = np.where(lon >= 180, lon - 360, lon)
    if flip:
        lat, values = lat[::-1], values[::-1]
    oriented = orient(values, lon, lat)
    assert oriented.grid.is_close(grid)
    assert np.array_equal(oriented.values, plane)
    assert oriented.how.flipped == flip
    assert oriented.how.rolled == -start % nlon


def test_a_repeated_meridian_is_refused() -> None:
    with pytest.raises(AnalysisUnreadable, match="repeat"):
        orient(np.zeros((3, 5)), np.array([0, 90, 180, 270, 360]), np.array([90, 0, -90]))
