"""Where tropical cyclones are in one atmospheric state.

A candidate is a minimum of mean sea level pressure inside a closed isobar, with cyclonic vorticity
at 850 hPa, strong wind at 10 m, and a warm core: a maximum of the thickness between 500 and 300 hPa
inside a closed contour. The pressure and thickness criteria are those of Ullrich et al. (2021,
TempestExtremes v2.1, Geosci. Model Dev. 14, 5023-5048, section 4.1: 200 Pa within 5.5 degrees,
58.8 m2 s-2 within 6.5 degrees, 10 m s-1), the vorticity is that of Vitart and Stockdale (2001,
Mon. Wea. Rev. 129, 2521-2537: 3.5e-5 s-1), which was chosen for grids as coarse as these. How far
from the pressure minimum wind, vorticity and thickness may be greatest is ours: about two grid
lengths of 1.5 degrees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, maximum_filter, minimum_filter

from mosaic_core.errors import ConfigurationError

Field = NDArray[np.float64]

EARTH_RADIUS: Final = 6.371e6
NEEDS: Final = (
    "mean_sea_level_pressure",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "u_component_of_wind_850",
    "v_component_of_wind_850",
    "geopotential_300",
    "geopotential_500",
)


@dataclass(frozen=True)
class Criteria:
    """What makes a pressure minimum a tropical cyclone; radii in degrees of arc.

    Attributes:
        latitude: greatest distance from the equator (degrees).
        pressure_rise, pressure_radius: the isobar this much (Pa) above the minimum closes within.
        thickness_fall, thickness_radius: the same of the thickness (m2 s-2) below its maximum.
        core_radius: how far from the pressure minimum the thickness is greatest.
        vorticity: least cyclonic vorticity at 850 hPa (s-1), within `near`.
        wind: least wind speed at 10 m (m s-1), within `near`.
    """

    latitude: float = 50.0
    pressure_rise: float = 200.0
    pressure_radius: float = 5.5
    thickness_fall: float = 58.8
    thickness_radius: float = 6.5
    core_radius: float = 2.0
    vorticity: float = 3.5e-5
    wind: float = 10.0
    near: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.latitude <= 80:
            raise ConfigurationError(f"latitude {self.latitude:g}", "above 0, at most 80")
        for name, value in vars(self).items():
            if value <= 0:
                raise ConfigurationError(f"{name} {value:g}", "more than 0")


@dataclass(frozen=True)
class State:
    """Fields (latitude, longitude) of one member and time, in the units of `NEEDS`."""

    pressure: Field
    u10: Field
    v10: Field
    u850: Field
    v850: Field
    z300: Field
    z500: Field


@dataclass(frozen=True)
class Candidate:
    """One cyclone at one time: degrees, Pa, m s-1, s-1 (cyclonic is positive), m2 s-2."""

    latitude: float
    longitude: float
    pressure: float
    wind: float
    vorticity: float
    warm_core: float


@dataclass(frozen=True)
class Sphere:
    """A regular grid: latitudes and longitudes ascend by equal steps, longitudes all around."""

    latitudes: tuple[float, ...]
    longitudes: tuple[float, ...]

    @cached_property
    def steps(self) -> tuple[float, float]:
        """Degrees between latitudes and between longitudes."""
        return self.latitudes[1] - self.latitudes[0], 360.0 / len(self.longitudes)

    @cached_property
    def _distances(self) -> dict[tuple[int, float], tuple[slice, NDArray[np.intp], Field]]:
        return {}

    def around(self, row: int, radius: float) -> tuple[slice, NDArray[np.intp], Field]:
        """Rows, column offsets and distances (degrees of arc) of a window that holds a disc."""
        key = (row, radius)
        if key not in self._distances:
            self._distances[key] = self._around(row, radius)
        return self._distances[key]

    def _around(self, row: int, radius: float) -> tuple[slice, NDArray[np.intp], Field]:
        dlat, dlon = self.steps
        reach = math.ceil(radius / dlat)
        rows = slice(max(0, row - reach), min(len(self.latitudes), row + reach + 1))
        lat = np.array(self.latitudes[rows])
        widest = math.cos(math.radians(min(89.0, float(np.abs(lat).max()))))
        half = min(math.ceil(radius / dlon / widest), (len(self.longitudes) - 1) // 2)
        offsets = np.arange(-half, half + 1)
        centre = self.latitudes[row]
        return rows, offsets, distance(centre, 0.0, lat[:, None], offsets * dlon)

    def part(self, field: Field, row: int, column: int, radius: float) -> tuple[Field, Field]:
        """The window of a field around a point, and the distance of its points."""
        rows, offsets, apart = self.around(row, radius)
        return field[rows][:, (column + offsets) % len(self.longitudes)], apart

    def vorticity(self, u: Field, v: Field) -> Field:
        """Relative vorticity (s-1) by centred differences; the rows at the edges are 0."""
        dlat, dlon = (math.radians(step) for step in self.steps)
        cosine = np.maximum(np.cos(np.radians(self.latitudes)), 1e-6)[:, None]
        east = (np.roll(v, -1, 1) - np.roll(v, 1, 1)) / (2 * dlon)
        north = np.zeros_like(u)
        north[1:-1] = ((u * cosine)[2:] - (u * cosine)[:-2]) / (2 * dlat)
        curl = (east - north) / (EARTH_RADIUS * cosine)
        curl[[0, -1]] = 0.0
        return np.asarray(curl)


def distance(lat: object, lon: object, other_lat: object, other_lon: object) -> Field:
    """Great-circle distance in degrees of arc (haversine); arrays broadcast."""
    a, b, c, d = (np.radians(np.asarray(x, float)) for x in (lat, lon, other_lat, other_lon))
    h = np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2
    return np.asarray(np.degrees(2 * np.arcsin(np.sqrt(np.minimum(h, 1.0)))))


def candidates(state: State, sphere: Sphere, criteria: Criteria) -> list[Candidate]:
    """Every tropical cyclone of a state, from south to north."""
    speed = np.hypot(state.u10, state.v10)
    curl = sphere.vorticity(state.u850, state.v850)
    curl *= np.sign(np.array(sphere.latitudes))[:, None]
    thickness = state.z300 - state.z500
    found = []
    for row, column in _minima(state.pressure, sphere, criteria):
        wind = _greatest(sphere, speed, row, column, criteria.near)
        if wind < criteria.wind:
            continue
        vorticity = _greatest(sphere, curl, row, column, criteria.near)
        if vorticity < criteria.vorticity:
            continue
        if not closed(state.pressure, sphere, (row, column),
                      criteria.pressure_rise, criteria.pressure_radius):  # fmt: skip
            continue
        warm = _warm_core(thickness, sphere, (row, column), criteria)
        if warm is None:
            continue
        lat, lon, depth = refine(state.pressure, sphere, row, column)
        found.append(Candidate(lat, lon, depth, wind, vorticity, warm))
    return found


def _minima(field: Field, sphere: Sphere, criteria: Criteria) -> Iterator[tuple[int, int]]:
    """Points that are lowest of their eight neighbours, between the latitudes; a plateau once."""
    wide = np.concatenate((field[:, -1:], field, field[:, :1]), axis=1)
    lowest = minimum_filter(wide, size=3, mode="nearest")[:, 1:-1]
    inside = np.abs(np.array(sphere.latitudes)) <= criteria.latitude
    inside[[0, -1]] = False
    flat = maximum_filter(wide, size=3, mode="nearest")[:, 1:-1] == field
    for row, column in np.argwhere((field == lowest) & inside[:, None] & ~flat):
        yield int(row), int(column)


def _greatest(sphere: Sphere, field: Field, row: int, column: int, radius: float) -> float:
    part, apart = sphere.part(field, row, column, radius)
    return float(part[apart <= radius].max())


def closed(field: Field, sphere: Sphere, at: tuple[int, int], rise: float, radius: float) -> bool:
    """Whether every way from a minimum to beyond `radius` climbs by at least `rise`."""
    margin = max(sphere.steps)
    part, apart = sphere.part(field, *at, radius + margin)
    region, _ = label(part < field[at] + rise)
    centre = np.unravel_index(int(apart.argmin()), apart.shape)
    inside = region == region[centre]
    return bool(apart[inside].max() <= radius) and not _touches_edge(inside)


def _touches_edge(inside: NDArray[np.bool_]) -> bool:
    return bool(inside[[0, -1]].any() or inside[:, [0, -1]].any())


def _warm_core(
    thickness: Field, sphere: Sphere, at: tuple[int, int], criteria: Criteria
) -> float | None:
    """By how much the thickest point near the centre exceeds its ring; None if it is not closed."""
    row, column = at
    rows, offsets, apart = sphere.around(row, criteria.core_radius)
    part, _ = sphere.part(thickness, row, column, criteria.core_radius)
    highest = int(np.where(apart <= criteria.core_radius, part, -np.inf).argmax())
    i, j = np.unravel_index(highest, part.shape)
    top = (rows.start + int(i), int((column + offsets[j]) % len(sphere.longitudes)))
    if not closed(-thickness, sphere, top, criteria.thickness_fall, criteria.thickness_radius):
        return None
    ring, far = sphere.part(thickness, *top, criteria.thickness_radius + max(sphere.steps))
    return float(thickness[top] - ring[np.abs(far - criteria.thickness_radius) <= 1.5].mean())


def refine(field: Field, sphere: Sphere, row: int, column: int) -> tuple[float, float, float]:
    """Latitude, longitude and value of the minimum between grid points, by parabolas."""
    count = len(sphere.longitudes)
    north = _vertex(field[row - 1, column], field[row, column], field[row + 1, column])
    east = _vertex(
        field[row, (column - 1) % count], field[row, column], field[row, (column + 1) % count]
    )
    lat = float(sphere.latitudes[row] + north[0] * sphere.steps[0])
    lon = float((sphere.longitudes[column] + east[0] * sphere.steps[1]) % 360.0)
    return lat, lon, float(field[row, column] - north[1] - east[1])


def _vertex(before: float, here: float, after: float) -> tuple[float, float]:
    """Where, in steps from the middle, a parabola has its minimum, and how far below."""
    curvature = before - 2 * here + after
    if curvature <= 0:
        return 0.0, 0.0
    slope = (after - before) / 2
    return float(np.clip(-slope / curvature, -0.5, 0.5)), float(slope**2 / (2 * curvature))
