"""Longitude-latitude grids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mosaic_core.errors import ConfigurationError


@dataclass(frozen=True)
class LatLonGrid:
    """A regular product grid: longitudes ascend in [0, 360), latitudes ascend in [-90, 90].

    Attributes are in degrees. Arrays on the grid are (longitude, latitude) in tensors and
    (latitude, longitude) in files.
    """

    longitudes: tuple[float, ...]
    latitudes: tuple[float, ...]

    def __post_init__(self) -> None:
        lon, lat = np.asarray(self.longitudes, float), np.asarray(self.latitudes, float)
        if lon.size < 2 or lat.size < 2:
            raise ConfigurationError(f"a grid of {lon.size} x {lat.size} points", "2 x 2 or more")
        if np.any(np.diff(lon) <= 0) or lon[0] < 0 or lon[-1] >= 360:
            raise ConfigurationError(
                f"longitudes {lon[0]:g}..{lon[-1]:g}", "ascending degrees in [0, 360)"
            )
        if np.any(np.diff(lat) <= 0) or lat[0] < -90 or lat[-1] > 90:
            raise ConfigurationError(
                f"latitudes {lat[0]:g}..{lat[-1]:g}", "ascending degrees in [-90, 90]"
            )

    @classmethod
    def with_poles(cls, nlon: int, nlat: int) -> LatLonGrid:
        """Equiangular grid with both poles: `with_poles(240, 121)` is the 1.5 degree grid."""
        if nlon < 2 or nlat < 2:
            raise ConfigurationError(f"a grid of {nlon} x {nlat} points", "2 x 2 or more")
        lon = np.arange(nlon) * (360.0 / nlon)
        lat = -90.0 + np.arange(nlat) * (180.0 / (nlat - 1))
        return cls(tuple(lon.tolist()), tuple(lat.tolist()))

    @property
    def nlon(self) -> int:
        return len(self.longitudes)

    @property
    def nlat(self) -> int:
        return len(self.latitudes)

    @property
    def shape(self) -> tuple[int, int]:
        """(longitude, latitude)"""
        return self.nlon, self.nlat

    def __str__(self) -> str:
        return f"{self.nlon} x {self.nlat}"

    @cached_property
    def latitude_weights(self) -> NDArray[np.float64]:
        """Area of each latitude row's cells, (nlat,), mean 1.

        Cells are bounded by the midpoints between rows and by the poles, as in WeatherBench 2.
        """
        lat = np.asarray(self.latitudes)
        bounds = np.concatenate(([-90.0], (lat[1:] + lat[:-1]) / 2, [90.0]))
        area = np.diff(np.sin(np.deg2rad(bounds)))
        return np.asarray(area / area.mean())

    @cached_property
    def digest(self) -> str:
        """Short sha256 of the coordinates: equal only for equal grids."""
        values = np.concatenate(
            (np.asarray(self.longitudes), [np.nan], np.asarray(self.latitudes))
        ).astype("<f8")
        return hashlib.sha256(values.tobytes()).hexdigest()[:16]

    def is_close(self, other: LatLonGrid, tolerance: float = 1e-4) -> bool:
        """True where both have the same points to `tolerance` degrees."""
        return self.shape == other.shape and bool(
            np.allclose(self.longitudes, other.longitudes, atol=tolerance, rtol=0)
            and np.allclose(self.latitudes, other.latitudes, atol=tolerance, rtol=0)
        )
