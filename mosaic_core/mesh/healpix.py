"""The HEALPix sphere in NESTED order (Gorski et al. 2005).

The four children of pixel p of the next finer mesh are 4p..4p+3, so that any run of 4^m tokens
that starts at a multiple of 4^m is one compact patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import healpy
import numpy as np
from numpy.typing import NDArray

from mosaic_core.errors import ConfigurationError

Float32 = NDArray[np.float32]


def to_radians(degrees: Float32) -> Float32:
    """Degrees to radians in float32 throughout.

    float32(90) becomes more than pi/2, so that cos(latitude) of a pole is -4.37e-8: the polar
    neighbours of the published models follow from it.
    """
    return np.asarray(degrees, np.float32) * np.float32(np.pi / 180)


def unit_vectors(longitude: Float32, latitude: Float32) -> Float32:
    """Unit vectors (..., 3), float32, of positions in radians."""
    lon, lat = longitude.astype(np.float64), latitude.astype(np.float64)
    cos_lat, sin_lat = np.cos(lat).astype(np.float32), np.sin(lat).astype(np.float32)
    cos_lon, sin_lon = np.cos(lon).astype(np.float32), np.sin(lon).astype(np.float32)
    return np.stack((cos_lat * cos_lon, cos_lat * sin_lon, sin_lat), axis=-1)


@dataclass(frozen=True)
class HealpixMesh:
    """`12 nside^2` equal-area pixels in NESTED order; positions are pixel centres, float32."""

    nside: int

    def __post_init__(self) -> None:
        if self.nside < 1 or self.nside & (self.nside - 1):
            raise ConfigurationError(f"nside {self.nside}", "a power of two")

    @property
    def size(self) -> int:
        return 12 * self.nside**2

    @cached_property
    def degrees(self) -> Float32:
        """Longitude in [0, 360) and latitude of each pixel, (size, 2)."""
        theta, phi = healpy.pix2ang(self.nside, np.arange(self.size), nest=True)
        return np.stack((np.rad2deg(phi), 90.0 - np.rad2deg(theta)), axis=1).astype(np.float32)

    @cached_property
    def radians(self) -> Float32:
        """Longitude and latitude of each pixel, (size, 2)."""
        return to_radians(self.degrees)

    @cached_property
    def xyz(self) -> Float32:
        """Unit vectors, (size, 3)."""
        return unit_vectors(self.radians[:, 0], self.radians[:, 1])

    def child_offsets(self, fine: HealpixMesh) -> Float32:
        """xyz of each child in `fine` minus that of its parent: (size, 3 children), child outer."""
        children = fine.size // self.size
        if children * self.size != fine.size or children < 1:
            raise ConfigurationError(f"nside {fine.nside} is not finer than {self.nside}")
        offsets = fine.xyz.reshape(self.size, children, 3) - self.xyz[:, None]
        return offsets.reshape(self.size, 3 * children)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Pixels in RING order: from north to south, row by row (size,)."""
        return np.asarray(healpy.ring2nest(self.nside, np.arange(self.size)), np.int64)
