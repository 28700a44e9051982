"""The simulated planets: their surface, and the climate they are relaxed to."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mosaic_core.errors import ConfigurationError

Real: TypeAlias = NDArray[np.float64]

GRAVITY: Final = 9.80665
GAS_CONSTANT: Final = 287.05
HEAT_CAPACITY: Final = 1004.6
KAPPA: Final = GAS_CONSTANT / HEAT_CAPACITY
LATENT_HEAT: Final = 2.5e6
ROTATION: Final = 7.292e-5
DAY: Final = 86400.0


@dataclass(frozen=True)
class Mountain:
    """A Gaussian rise: centre (degrees), height (m), e-folding half-widths (degrees)."""

    latitude: float
    longitude: float
    height: float
    half_latitude: float
    half_longitude: float


@dataclass(frozen=True)
class Continent:
    """An ellipse of land: centre and half axes in degrees."""

    latitude: float
    longitude: float
    half_latitude: float
    half_longitude: float


@dataclass(frozen=True)
class Planet:
    """Surface and radiative climate.

    Attributes:
        warmest: relaxation temperature at the equator's surface, K.
        contrast: equator to pole, K.
        asymmetry: cooler northern, warmer southern hemisphere, K times sin(latitude).
        seasons: the asymmetry follows the calendar; otherwise it is always January.
        moist: specific humidity is relaxed to a profile and condenses; otherwise it is carried.
        tropopause, stratosphere: least relaxation temperature below and above sigma 0.13, K.
        surface_pressure: global mean, Pa; the mass of the atmosphere.
    """

    name: str
    mountains: tuple[Mountain, ...] = ()
    continents: tuple[Continent, ...] = ()
    polar_cap_height: float = 0.0
    warmest: float = 306.0
    contrast: float = 65.0
    asymmetry: float = 6.0
    seasons: bool = False
    moist: bool = True
    surface_pressure: float = 99_100.0
    tropopause: float = 200.0
    stratosphere: float = 209.0

    def height(self, latitude: Real, longitude: Real) -> Real:
        """Height of the ground in m; latitude and longitude in degrees, broadcast together."""
        height = self.polar_cap_height * _logistic((-latitude - 73.0) / 3.5)
        height = height + np.zeros(np.broadcast_shapes(latitude.shape, longitude.shape))
        for m in self.mountains:
            north = (latitude - m.latitude) / m.half_latitude
            east = _eastward(longitude, m.longitude) / m.half_longitude
            height += m.height * np.exp(-(north**2) - east**2)
        return np.asarray(height)

    def land(self, latitude: Real, longitude: Real) -> Real:
        """Fraction of land, 0..1, with coasts some degrees wide."""
        shape = np.broadcast_shapes(latitude.shape, longitude.shape)
        sea = np.ones(shape)
        if self.polar_cap_height:
            sea *= 1 - _logistic((-latitude - 70.0) / 1.5)
        for c in self.continents:
            north = (latitude - c.latitude) / c.half_latitude
            east = _eastward(longitude, c.longitude) / c.half_longitude
            sea *= 1 - _logistic(8.0 * (1 - np.hypot(north, east)))
        return np.asarray(1 - sea)

    def soil_type(self, latitude: Real, longitude: Real) -> Real:
        """Classes by latitude as the IFS numbers them: 0 sea, 1 coarse .. 6 organic."""
        shape = np.broadcast_shapes(latitude.shape, longitude.shape)
        distance = np.broadcast_to(np.abs(latitude), shape)
        bands = [distance < 10, distance < 18, distance < 34, distance < 52, distance < 66]
        classes = np.select(bands, [6.0, 4.0, 1.0, 2.0, 3.0], 5.0)
        return np.asarray(np.where(self.land(latitude, longitude) > 0.5, classes, 0.0))

    def season(self, days: float) -> float:
        """Phase of the asymmetry, `days` after 1 January: 1 in January, -1 in July."""
        return float(np.cos(2 * np.pi * days / 365.0)) if self.seasons else 1.0


def _eastward(longitude: Real, centre: float) -> Real:
    return (longitude - centre + 180.0) % 360.0 - 180.0


def _logistic(x: Real) -> Real:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60.0, 60.0))))


_MOUNTAINS: Final = (
    Mountain(34, 88, 3800, 8, 16),
    Mountain(43, 250, 2000, 11, 9),
    Mountain(-20, 291, 2600, 15, 6),
    Mountain(73, 319, 2600, 7, 13),
    Mountain(6, 37, 1500, 10, 7),
    Mountain(-25, 24, 1000, 10, 10),
    Mountain(52, 102, 1000, 9, 18),
)
_CONTINENTS: Final = (
    Continent(56, 75, 19, 68),
    Continent(30, 95, 17, 27),
    Continent(17, 12, 16, 26),
    Continent(-10, 25, 23, 13),
    Continent(52, 258, 21, 33),
    Continent(-13, 300, 23, 16),
    Continent(-25, 134, 10, 18),
    Continent(72, 319, 9, 17),
)

PLANETS: Final = {
    planet.name: planet
    for planet in (
        Planet("terra", _MOUNTAINS, _CONTINENTS, polar_cap_height=2700.0),
        Planet(
            "terra-seasons",
            _MOUNTAINS,
            _CONTINENTS,
            polar_cap_height=2700.0,
            asymmetry=14.0,
            seasons=True,
        ),
        Planet(
            "held-suarez",
            warmest=315.0,
            contrast=60.0,
            asymmetry=0.0,
            moist=False,
            surface_pressure=100_000.0,
            stratosphere=200.0,
        ),
    )
}


def find_planet(name: str) -> Planet:
    """The planet `name`.

    Raises:
        ConfigurationError: there is none; the nearest name is given.
    """
    if name not in PLANETS:
        near = difflib.get_close_matches(name, PLANETS, n=1)
        raise ConfigurationError(
            f"unknown planet {name!r}",
            f"one of {', '.join(PLANETS)}",
            f"did you mean {near[0]!r}?" if near else "",
        )
    return PLANETS[name]
