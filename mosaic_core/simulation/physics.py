"""Moist Held-Suarez forcing: relaxation, friction, evaporation and condensation with its heat."""

from __future__ import annotations

from typing import Final

import numpy as np

from mosaic_core.simulation.planet import DAY, HEAT_CAPACITY, KAPPA, LATENT_HEAT, Planet
from mosaic_core.simulation.transforms import Array, Transforms
from mosaic_core.simulation.vertical import FULL_LEVELS, LAYERS

REFERENCE_PRESSURE: Final = 1e5
_BOUNDARY: Final = 0.7
_SATURATED: Final = 0.95
_CONDENSATION_TIME: Final = 6 * 3600.0
_FILLING_TIME: Final = 3 * 3600.0
_STRATOSPHERE: Final = 0.14
_STRATOSPHERIC_HUMIDITY: Final = 2.7e-6


def saturation_humidity(temperature: Array, pressure: Array) -> Array:
    """Specific humidity (kg kg-1) over water at K and Pa; Bolton (1980), kept below one."""
    vapour = 611.2 * np.exp(17.67 * (temperature - 273.15) / (temperature - 29.65))
    vapour = np.minimum(vapour.astype(np.float32), np.float32(0.5) * pressure)
    return np.asarray(np.float32(0.622) * vapour / (pressure - np.float32(0.378) * vapour))


class Physics:
    """Tendencies of the state on the model's Gaussian grid."""

    def __init__(self, planet: Planet, transforms: Transforms) -> None:
        self.planet = planet
        latitude = np.rad2deg(transforms.latitude)[:, None]
        longitude = np.rad2deg(transforms.longitude)[None, :]
        mu = np.sin(transforms.latitude)[:, None]
        cos2 = 1 - mu**2
        land = planet.land(latitude, longitude)
        sigma = FULL_LEVELS[:, None, None]
        low = np.maximum(0, (sigma - _BOUNDARY) / (1 - _BOUNDARY))
        continental = land * sigma**2 * (-14 * np.maximum(mu, 0) + 10 * np.maximum(-mu, 0))

        def single(values: np.typing.ArrayLike) -> Array:
            return np.asarray(values, np.float32)

        self._friction = single(low * (1 + 0.5 * land) / DAY)
        self._relaxation = single((1 / 40 + (1 / 4 - 1 / 40) * low * cos2**2) / DAY)
        self._always = single(planet.warmest - planet.contrast * mu**2 - 10 * np.log(sigma) * cos2)
        self._seasonal = single(-planet.asymmetry * mu + continental)
        self._cos2, self._sigma = single(cos2), single(sigma)
        self._sigma_kappa = single(sigma**KAPPA)
        dry_land = np.where(sigma > _BOUNDARY, 1 - 0.3 * land, 1.0)
        self._humidity = single(
            np.interp(sigma, [0, 0.4, 0.7, 1], [0.05, 0.4, 0.55, 0.8]) * dry_land
        )
        days = np.interp(sigma, [0, 0.7, 0.85, 1], [12, 8, 1.5, 0.5])
        self._least_temperature = single(
            np.where(sigma < _STRATOSPHERE, planet.stratosphere, planet.tropopause)
        )
        self._stratospheric = single(
            np.where(sigma < _STRATOSPHERE, _STRATOSPHERIC_HUMIDITY, np.inf)
        )
        self._moistening = single(1 / (days * DAY))

    def equilibrium(self, surface_pressure: Array, days: float) -> Array:
        """Relaxation temperature (K), (layer, latitude, longitude), of Held and Suarez (1994)."""
        ratio = surface_pressure / np.float32(REFERENCE_PRESSURE)
        season = np.float32(self.planet.season(days))
        potential = self._always + season * self._seasonal
        potential -= np.float32(10) * np.log(ratio) * self._cos2
        potential *= ratio ** np.float32(KAPPA) * self._sigma_kappa
        return np.asarray(np.maximum(potential, self._least_temperature))

    def relative_target(self, temperature: Array, surface_pressure: Array) -> Array:
        """The humidity (kg kg-1) that evaporation and mixing tend to."""
        saturated = saturation_humidity(temperature, self._sigma * surface_pressure)
        return np.asarray(np.minimum(self._humidity * saturated, self._stratospheric))

    def __call__(
        self, u: Array, v: Array, temperature: Array, q: Array, surface_pressure: Array, days: float
    ) -> Array:
        """Tendencies of u cos, v cos, T and q, (4 layers, latitude, longitude)."""
        out = np.empty((4 * LAYERS, *surface_pressure.shape), np.float32)
        du, dv, heating, moistening = out.reshape(4, LAYERS, *surface_pressure.shape)
        np.multiply(u, -self._friction, out=du)
        np.multiply(v, -self._friction, out=dv)
        equilibrium = self.equilibrium(surface_pressure, days)
        np.multiply(equilibrium - temperature, self._relaxation, out=heating)
        if not self.planet.moist:
            moistening[:] = 0
            return out
        saturated = saturation_humidity(temperature, self._sigma * surface_pressure)
        excess = q - np.float32(_SATURATED) * saturated
        rain = np.maximum(excess, 0) * np.float32(1 / _CONDENSATION_TIME)
        target = np.minimum(self._humidity * saturated, self._stratospheric)
        np.multiply(target - q, self._moistening, out=moistening)
        moistening -= rain
        moistening += np.maximum(-q, 0) * np.float32(1 / _FILLING_TIME)
        heating += rain * np.float32(LATENT_HEAT / HEAT_CAPACITY)
        return out
