"""Regions, and the area of every cell of a grid that lies in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """A box in degrees; `west` may lie east of `east`, the box then crosses the date line.

    Raises:
        ConfigurationError: the box is empty or reaches beyond a pole.
    """

    south: float = -90.0
    north: float = 90.0
    west: float = 0.0
    east: float = 360.0

    def __post_init__(self) -> None:
        if not -90 <= self.south < self.north <= 90:
            raise ConfigurationError(
                f"a region from {self.south:g} to {self.north:g} degrees north",
                "south below north, in -90..90",
            )
        if self.west == self.east:
            raise ConfigurationError(
                f"a region from {self.west:g} to {self.east:g} degrees east", "west apart from east"
            )


REGIONS: Final[Mapping[str, Region]] = {
    "global": Region(),
    "northern-extratropics": Region(20.0, 90.0),
    "southern-extratropics": Region(-90.0, -20.0),
    "tropics": Region(-20.0, 20.0),
}
"""Those of WMO's exchange of scores (WMO-No. 485, Manual on the GDPFS)."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Parts of the sphere's area: cell (i, j) has `rows[r, i] * columns[r, j]` in region r.

    Cells end at the midpoints between points and at the poles; one that a region's edge cuts
    counts with the part inside. All weights of the sphere add up to 1.

    Attributes:
        names: of the regions.
        rows: (region, latitude); columns: (region, longitude).
    """

    names: tuple[str, ...]
    rows: Array
    columns: Array

    @classmethod
    def of(cls, grid: LatLonGrid, regions: Mapping[str, Region] = REGIONS) -> Weights:
        """Weights of a grid in each region.

        Raises:
            ConfigurationError: no region.
        """
        if not regions:
            raise ConfigurationError("no regions", "at least one")
        rows = np.stack([_rows(grid, region) for region in regions.values()])
        columns = np.stack([_columns(grid, region) for region in regions.values()])
        return cls(tuple(regions), rows, columns)

    @property
    def areas(self) -> Array:
        """Share of the sphere's area in each region, (region,)."""
        return np.asarray(self.rows.sum(1) * self.columns.sum(1))

    def mean(self, field: Array, observed: NDArray[np.bool_] | None = None) -> Array:
        """Area mean of fields (..., latitude, longitude) in each region, (..., region).

        With `observed`, of the same shape, the mean over those points only, whatever the field has
        elsewhere; NaN where a region has none.
        """
        if observed is None:
            return self._sums(field) / self.areas
        shares = self.shares(observed)
        with np.errstate(divide="ignore", invalid="ignore"):
            means = self._sums(np.where(observed, field, 0.0)) / shares
        return np.where(shares > 0, means, np.nan)

    def shares(self, observed: NDArray[np.bool_]) -> Array:
        """Share of the sphere that is observed in each region: (..., latitude, longitude) to
        (..., region)."""
        return self._sums(observed.astype(np.float64))

    def histogram(self, index: NDArray[np.int64], size: int, parts: Array | None = None) -> Array:
        """Share of the sphere by index, (..., latitude, longitude) to (..., region, size).

        Args:
            index: 0..size - 1 at each point.
            parts: how much of each point counts; all by default.
        """
        nlat, nlon = index.shape[-2:]
        flat = index.reshape(-1, nlat, nlon) + size * np.arange(nlat)[:, None]
        scales = None if parts is None else np.broadcast_to(parts, index.shape).reshape(flat.shape)
        columns, which = self._distinct_columns
        found = np.empty((len(flat), len(self.names), size))
        for i, places in enumerate(flat):
            for j, column in enumerate(columns):
                scaled = np.broadcast_to(column, (nlat, nlon)) if scales is None else (
                    scales[i] * column
                )  # fmt: skip
                by_row = np.bincount(places.ravel(), scaled.ravel(), nlat * size)
                found[i, which == j] = self.rows[which == j] @ by_row.reshape(nlat, size)
        return found.reshape(*index.shape[:-2], len(self.names), size)

    def _sums(self, field: Array) -> Array:
        by_row = field @ self.columns.T
        return np.asarray(np.einsum("...yr,ry->...r", by_row, self.rows))

    @cached_property
    def _distinct_columns(self) -> tuple[Array, NDArray[np.intp]]:
        """Those of `columns` that differ, and which of them each region has."""
        distinct, which = np.unique(self.columns, axis=0, return_inverse=True)
        return distinct, which.reshape(-1)

    @property
    def cells(self) -> Array:
        """(region, latitude, longitude)"""
        return np.asarray(self.rows[:, :, None] * self.columns[:, None, :])


def _rows(grid: LatLonGrid, region: Region) -> Array:
    """Share of the sphere between the parallels that bound each row, within the region."""
    lat = np.asarray(grid.latitudes)
    bounds = np.concatenate(([-90.0], (lat[1:] + lat[:-1]) / 2, [90.0]))
    inside = np.sin(np.deg2rad(np.clip(bounds, region.south, region.north)))
    return np.asarray(np.diff(inside) / 2)


def _columns(grid: LatLonGrid, region: Region) -> Array:
    """Share of the full circle that each column covers within the region."""
    lon = np.asarray(grid.longitudes)
    around = np.concatenate((lon[-1:] - 360.0, lon, lon[:1] + 360.0))
    bounds = (around[1:] + around[:-1]) / 2
    width = (region.east - region.west) % 360.0 or 360.0
    west = region.west % 360.0
    turned = np.array([-360.0, 0.0, 360.0, 720.0])[:, None]  # a box may end short of 720
    clipped = np.clip(bounds[None] + turned, west, west + width)
    return np.asarray(np.diff(clipped, axis=1).sum(0) / 360.0)
