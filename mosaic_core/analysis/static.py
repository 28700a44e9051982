"""Fields that do not change with time, and that an analysis must lie on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core import dims
from mosaic_core.analysis.derive import STANDARD_GRAVITY
from mosaic_core.analysis.regrid import regrid_dataset
from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid

Plane = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StaticFields:
    """Surface geopotential (m2 s-2) and land-sea mask (0..1), both (latitude, longitude).

    Raises:
        ConfigurationError: the fields do not fit the grid, or hold impossible values.
    """

    grid: LatLonGrid
    geopotential_at_surface: Plane
    land_sea_mask: Plane

    def __post_init__(self) -> None:
        shape = (self.grid.nlat, self.grid.nlon)
        for name in ("geopotential_at_surface", "land_sea_mask"):
            found = getattr(self, name).shape
            if found != shape:
                raise ConfigurationError(f"{name} is {found}", f"{shape} (latitude, longitude)")
        mask, height = self.land_sea_mask, self.geopotential_at_surface
        if not (mask.min() >= -1e-3 and mask.max() <= 1 + 1e-3):
            raise ConfigurationError(
                f"a land-sea mask of {mask.min():g}..{mask.max():g}", "0 at sea to 1 on land"
            )
        if not (height.min() > -1e4 and height.max() < 9e4 and height.max() > 9e3):
            raise ConfigurationError(
                f"surface geopotential of {height.min():g}..{height.max():g}",
                "m2 s-2 (9.80665 times metres)",
            )


@lru_cache(maxsize=8)
def shipped_static_fields(grid: LatLonGrid) -> StaticFields:
    """The 2.5 degree fields of the package (see `data/README.md`), brought onto `grid`."""
    with (files("mosaic_core.analysis") / "data/static_2p5deg.npz").open("rb") as file:
        stored = np.load(file)
        mask = stored["land_sea_mask"].astype(np.float32)
        height = stored["orography"].astype(np.float32) * np.float32(STANDARD_GRAVITY)
    own = LatLonGrid.with_poles(144, 73)
    plane = (dims.LATITUDE, dims.LONGITUDE)
    ds = xr.Dataset(
        {"mask": (plane, mask), "height": (plane, height)},
        {dims.LATITUDE: list(own.latitudes), dims.LONGITUDE: list(own.longitudes)},
    )
    there = regrid_dataset(ds, grid, finer="bilinear")
    return StaticFields(grid, there["height"].values, np.clip(there["mask"].values, 0, 1))
