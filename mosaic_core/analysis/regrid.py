"""Regridding between regular grids: conservative, as WeatherBench 2 defines it.

A cell of a grid is bounded by the midpoints between its points and, in latitude, by the poles. The
value of a target cell is the mean over its area of the source cells it overlaps. On regular grids
the overlap factors into one matrix for latitude and one for longitude, each with a handful of
entries a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import xarray as xr
from numpy.typing import NDArray

from mosaic_core import dims
from mosaic_core.errors import AnalysisUnreadable, ConfigurationError
from mosaic_core.grid import LatLonGrid

Finer = Literal["refuse", "bilinear"]
Floats = NDArray[np.float64]

_SLACK = 1e-3


def regrid_dataset(ds: xr.Dataset, grid: LatLonGrid, *, finer: Finer = "refuse") -> xr.Dataset:
    """Bring every variable of an analysis onto `grid`.

    The same grid is a no-op. A coarser one is reached conservatively; points that are NaN take no
    part in a mean. A finer one is refused, unless `finer` is "bilinear". What was done is said in
    the attribute `regridding`.

    Args:
        ds: variables with dimensions (..., latitude, longitude) on a global regular grid.

    Raises:
        ConfigurationError: the target is finer than the source and `finer` is "refuse".
        AnalysisUnreadable: the source grid is not global.
    """
    source = dataset_grid(ds)
    if source.is_close(grid):
        before = ds.attrs.get("regridding", "none: already on the grid")
        return _relabel(ds, grid).assign_attrs(regridding=before)
    require_global(source)
    method = _method(source, grid, finer)
    apply = _regridder(source, grid, method)
    variables = {
        name: (array.dims, _by_field(apply, array.values, grid), array.attrs)
        for name, array in ds.data_vars.items()
    }
    coords = {n: c for n, c in ds.coords.items() if n not in (dims.LATITUDE, dims.LONGITUDE)}
    result = xr.Dataset(variables, coords, ds.attrs | {"regridding": f"{method} from {source}"})
    return _relabel(result, grid)


def dataset_grid(ds: xr.Dataset) -> LatLonGrid:
    """The grid that the coordinates of an analysis say.

    Raises:
        AnalysisUnreadable: the coordinates do not ascend, or are not degrees on the globe.
    """
    try:
        return LatLonGrid(
            tuple(ds[dims.LONGITUDE].values.astype(float).tolist()),
            tuple(ds[dims.LATITUDE].values.astype(float).tolist()),
        )
    except (ConfigurationError, KeyError) as error:
        raise AnalysisUnreadable(
            f"the analysis is not on a regular grid ({error})",
            "latitude and longitude that ascend",
        ) from error


def require_global(grid: LatLonGrid) -> None:
    """Refuse a grid that does not cover the globe evenly in longitude and from pole to pole.

    Raises:
        AnalysisUnreadable: a gap in longitude, or latitudes that end more than a row from a pole.
    """
    steps = np.diff([*grid.longitudes, grid.longitudes[0] + 360.0])
    rows = np.diff(grid.latitudes)
    if steps.max() > steps.min() * 1.01 + 1e-3:
        raise AnalysisUnreadable(
            f"longitudes {grid.longitudes[0]:g}..{grid.longitudes[-1]:g} leave steps of "
            f"{steps.min():g} to {steps.max():g} degrees",
            "even steps around the globe",
        )
    reach = 1.01 * rows.max() + 1e-3
    if grid.latitudes[0] + 90 > reach or 90 - grid.latitudes[-1] > reach:
        raise AnalysisUnreadable(
            f"latitudes {grid.latitudes[0]:g}..{grid.latitudes[-1]:g}", "both polar regions"
        )


def latitude_weights(source: Floats, target: Floats) -> Floats:
    """Share of each source row in each target row, (target, source), rows add to 1.

    Bounds are [-90, midpoints, 90]; an overlap counts as sin(upper) - sin(lower).
    """
    low, high = _row_bounds(source)
    to_low, to_high = _row_bounds(target)
    upper = np.minimum(to_high[:, None], high[None])
    lower = np.maximum(to_low[:, None], low[None])
    overlap = np.where(upper > lower, np.sin(np.deg2rad(upper)) - np.sin(np.deg2rad(lower)), 0.0)
    return np.asarray(overlap / overlap.sum(axis=1, keepdims=True))


def longitude_weights(source: Floats, target: Floats) -> Floats:
    """Share of each source column in each target column, (target, source), rows add to 1.

    Bounds are periodic midpoints; an overlap counts by its length.
    """
    low, high = _column_bounds(source)
    to_low, to_high = _column_bounds(target)
    overlap = np.zeros((target.size, source.size))
    for turn in (-360.0, 0.0, 360.0):
        upper = np.minimum(to_high[:, None], high[None] + turn)
        lower = np.maximum(to_low[:, None], low[None] + turn)
        overlap += np.maximum(upper - lower, 0.0)
    return np.asarray(overlap / overlap.sum(axis=1, keepdims=True))


def conservative(
    field: NDArray[np.float32], source: LatLonGrid, target: LatLonGrid
) -> NDArray[np.float32]:
    """Conservative mean of one field (latitude, longitude); NaN takes no part."""
    return _by_field(_regridder(source, target, "conservative"), field, target)


@dataclass(frozen=True)
class _Separable:
    """Two sparse matrices: (target, source) rows, and the same for columns."""

    rows: Any
    columns: Any

    def __call__(self, field: NDArray[np.float32]) -> NDArray[np.float32]:
        valid = np.isfinite(field)
        if valid.all():
            return self._mean(field)
        missing = np.isnan(field)
        if not missing.any():
            return self._mean(field)
        total = self._mean(np.where(missing, np.float32(0), field))
        share = self._mean((~missing).astype(np.float32))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(share > 1e-6, total / share, np.float32(np.nan))

    def _mean(self, field: NDArray[np.float32]) -> NDArray[np.float32]:
        by_row = self.rows @ np.ascontiguousarray(field)
        return np.asarray((self.columns @ np.ascontiguousarray(by_row.T)).T)


@lru_cache(maxsize=8)
def _regridder(source: LatLonGrid, target: LatLonGrid, method: str) -> _Separable:
    lat = np.asarray(source.latitudes), np.asarray(target.latitudes)
    lon = np.asarray(source.longitudes), np.asarray(target.longitudes)
    if method == "bilinear":
        rows, columns = _linear_rows(*lat), _linear_columns(*lon)
    else:
        rows, columns = latitude_weights(*lat), longitude_weights(*lon)
    return _Separable(
        sp.csr_matrix(rows.astype(np.float32)), sp.csr_matrix(columns.astype(np.float32))
    )


def _method(source: LatLonGrid, target: LatLonGrid, finer: Finer) -> str:
    def steps(grid: LatLonGrid) -> Floats:
        return np.array([360 / grid.nlon, np.median(np.diff(grid.latitudes))])

    if (steps(target) >= steps(source) * (1 - _SLACK)).all():
        return "conservative"
    if finer == "bilinear":
        return "bilinear"
    raise ConfigurationError(
        f"the analysis is on {source} points, the model on {target}",
        "an analysis at least as fine as the model",
        "set `finer: bilinear` to interpolate all the same, or take a finer source",
    )


def _by_field(
    apply: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    values: NDArray[Any],
    grid: LatLonGrid,
) -> NDArray[np.float32]:
    fields = values.reshape(-1, *values.shape[-2:])
    result = np.empty((len(fields), grid.nlat, grid.nlon), np.float32)
    for i, field in enumerate(fields):
        result[i] = apply(np.asarray(field, np.float32))
    return result.reshape(*values.shape[:-2], grid.nlat, grid.nlon)


def _relabel(ds: xr.Dataset, grid: LatLonGrid) -> xr.Dataset:
    return ds.assign_coords(
        {
            dims.LATITUDE: (
                dims.LATITUDE,
                np.asarray(grid.latitudes),
                dims.COORDINATE_ATTRIBUTES[dims.LATITUDE],
            ),
            dims.LONGITUDE: (
                dims.LONGITUDE,
                np.asarray(grid.longitudes),
                dims.COORDINATE_ATTRIBUTES[dims.LONGITUDE],
            ),
        }
    )


def _row_bounds(points: Floats) -> tuple[Floats, Floats]:
    bounds = np.concatenate(([-90.0], (points[1:] + points[:-1]) / 2, [90.0]))
    return bounds[:-1], bounds[1:]


def _column_bounds(points: Floats) -> tuple[Floats, Floats]:
    ring = np.concatenate(([points[-1] - 360.0], points, [points[0] + 360.0]))
    bounds = (ring[1:] + ring[:-1]) / 2
    return bounds[:-1], bounds[1:]


def _linear_rows(source: Floats, target: Floats) -> Floats:
    clipped = np.clip(target, source[0], source[-1])
    left = np.clip(np.searchsorted(source, clipped, side="right") - 1, 0, source.size - 2)
    share = (clipped - source[left]) / (source[left + 1] - source[left])
    return _two_points(left, left + 1, share, source.size)


def _linear_columns(source: Floats, target: Floats) -> Floats:
    ring = np.append(source, source[0] + 360.0)
    wrapped = np.where(target < source[0], target + 360.0, target)
    left = np.clip(np.searchsorted(ring, wrapped, side="right") - 1, 0, source.size - 1)
    share = (wrapped - ring[left]) / (ring[left + 1] - ring[left])
    return _two_points(left, (left + 1) % source.size, share, source.size)


def _two_points(
    left: NDArray[np.intp], right: NDArray[np.intp], share: Floats, size: int
) -> Floats:
    weights = np.zeros((left.size, size))
    rows = np.arange(left.size)
    weights[rows, left] += 1 - share
    weights[rows, right] += share
    return weights
