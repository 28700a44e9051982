"""Map projections of the unit sphere: degrees in, plane coordinates out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

Array = NDArray[np.float64]

# Length of each parallel and its distance from the equator, every 5 degrees from 0 to 90.
# A. H. Robinson (1974), A new map projection: its development and characteristics,
# International Yearbook of Cartography 14, 145-155.
_LENGTH: Final = (
    *(1.0000, 0.9986, 0.9954, 0.9900, 0.9822, 0.9730, 0.9600, 0.9427, 0.9216, 0.8962),
    *(0.8679, 0.8350, 0.7986, 0.7597, 0.7186, 0.6732, 0.6213, 0.5722, 0.5322),
)
_DISTANCE: Final = (
    *(0.0000, 0.0620, 0.1240, 0.1860, 0.2480, 0.3100, 0.3720, 0.4340, 0.4958, 0.5571),
    *(0.6176, 0.6769, 0.7346, 0.7903, 0.8435, 0.8936, 0.9394, 0.9761, 1.0000),
)


class Projection(Protocol):
    """A view of the sphere.

    Attributes:
        west: longitude of the western edge, where the map is cut open; None if it is not.
        south, north: the latitudes shown.
    """

    @property
    def west(self) -> float | None: ...
    @property
    def south(self) -> float: ...
    @property
    def north(self) -> float: ...

    def project(self, lon: Any, lat: Any) -> tuple[Array, Array]:
        """Plane coordinates (x to the right, y up) of degrees; arrays broadcast."""

    def outline(self) -> tuple[Array, Array]:
        """The edge of the map as a closed line."""


@dataclass(frozen=True)
class Robinson:
    """The whole earth; `centre` is the longitude (degrees) in the middle."""

    centre: float = 0.0
    south = -90.0
    north = 90.0

    @property
    def west(self) -> float:
        return self.centre - 180.0

    @cached_property
    def _curves(self) -> tuple[CubicSpline, CubicSpline]:
        lat = np.arange(-90.0, 90.1, 5.0)
        length = np.concatenate((_LENGTH[:0:-1], _LENGTH))
        distance = np.concatenate((-np.array(_DISTANCE[:0:-1]), _DISTANCE))
        return CubicSpline(lat, length), CubicSpline(lat, distance)

    def project(self, lon: Any, lat: Any) -> tuple[Array, Array]:
        """x = 0.8487 X(lat) (lon - centre), y = 1.3523 Y(lat), longitudes taken as they are."""
        length, distance = self._curves
        lon, lat = np.broadcast_arrays(np.asarray(lon, float), np.asarray(lat, float))
        x = 0.8487 * length(lat) * np.deg2rad(lon - self.centre)
        return np.asarray(x), np.asarray(1.3523 * distance(lat))

    def outline(self) -> tuple[Array, Array]:
        side = np.linspace(-90.0, 90.0, 181)
        lat = np.concatenate((side, side[::-1], side[:1]))
        lon = np.concatenate((np.full(181, self.west), np.full(182, self.west + 360.0)))
        lon[-1] = self.west
        return self.project(lon, lat)


@dataclass(frozen=True)
class PolarStereographic:
    """One pole in the middle, down to the latitude `edge` (degrees from the equator)."""

    pole: int = 1
    edge: float = 20.0
    west = None

    @property
    def south(self) -> float:
        return self.edge if self.pole > 0 else -90.0

    @property
    def north(self) -> float:
        return 90.0 if self.pole > 0 else -self.edge

    def project(self, lon: Any, lat: Any) -> tuple[Array, Array]:
        """rho = 2 tan(pi/4 - lat/2) from the pole; Greenwich points down in the north, up in
        the south (Snyder 1987, USGS Professional Paper 1395, eq. 21-5 to 21-12)."""
        lon, lat = np.broadcast_arrays(np.asarray(lon, float), np.asarray(lat, float))
        rho = 2.0 * np.tan(np.pi / 4 - np.deg2rad(lat) * self.pole / 2)
        angle = np.deg2rad(lon)
        return np.asarray(rho * np.sin(angle)), np.asarray(-self.pole * rho * np.cos(angle))

    def outline(self) -> tuple[Array, Array]:
        return self.project(np.linspace(0.0, 360.0, 361), self.pole * self.edge)


VIEWS: Final[dict[str, Projection]] = {
    "globe": Robinson(),
    "pacific": Robinson(centre=180.0),
    "north": PolarStereographic(1),
    "south": PolarStereographic(-1),
}
"""The views that maps can have, by the name in the configuration."""
