"""The 82 channels of a spectral state, on any longitude-latitude grid."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mosaic_core.channels import Channels
from mosaic_core.grid import LatLonGrid
from mosaic_core.simulation.model import (
    DIVERGENCE,
    HUMIDITY,
    PRESSURE,
    REFERENCE_TEMPERATURE,
    VORTICITY,
    Model,
)
from mosaic_core.simulation.physics import REFERENCE_PRESSURE
from mosaic_core.simulation.planet import GAS_CONSTANT, GRAVITY
from mosaic_core.simulation.transforms import Array, fourier_synthesis, table, to_grid
from mosaic_core.simulation.vertical import CONVERSION, FULL_LEVELS, LAYERS
from mosaic_core.spectral import legendre, legendre_slope

LAPSE_RATE: Final = 0.0065
"""K m-1, from the lowest layer down to the ground and below it."""

LEAST_HUMIDITY: Final = 1e-7

_ROUGHNESS_SEA: Final = 2e-4
_ROUGHNESS_LAND: Final = 0.1
_EXPONENT: Final = GAS_CONSTANT * LAPSE_RATE / GRAVITY
_POLE: Final = np.pi / 2 - 1e-6


class Diagnostics:
    """Fields on `grid` of states of `model`; u and v have their finite limits at the poles."""

    def __init__(self, model: Model, grid: LatLonGrid) -> None:
        self.model, self.grid = model, grid
        latitude = np.clip(np.deg2rad(grid.latitudes), -_POLE, _POLE)
        orders, degrees = model.truncation + 1, model.truncation + 2
        cos = np.cos(latitude)
        values = legendre(orders, degrees, latitude)
        self._values = table(values)[:, None]
        self._along = table(values / cos)[:, None]
        self._across = table(legendre_slope(orders, degrees, latitude) / cos)[:, None]
        self._fourier = fourier_synthesis(model.truncation, np.deg2rad(grid.longitudes))
        degrees_north = np.asarray(grid.latitudes)[:, None]
        degrees_east = np.asarray(grid.longitudes)[None, :]
        self.land = model.planet.land(degrees_north, degrees_east).astype(np.float32)
        self.soil = model.planet.soil_type(degrees_north, degrees_east).astype(np.float32)
        self.surface_geopotential = to_grid(
            np.matmul(model.surface_geopotential, self._values), self._fourier
        )[0]

    def static_fields(self) -> Array:
        """(longitude, latitude, 3): surface geopotential (m2 s-2), land fraction, soil class."""
        fields = np.stack([self.surface_geopotential, self.land, self.soil], axis=-1)
        return np.ascontiguousarray(np.swapaxes(fields, 0, 1))

    def surface_pressure(self, coefficients: Array) -> Array:
        """Pa, (latitude, longitude)."""
        modes = np.matmul(coefficients[:, :, PRESSURE], self._values)
        return np.asarray(np.float32(REFERENCE_PRESSURE) * np.exp(to_grid(modes, self._fourier)[0]))

    def __call__(self, coefficients: Array, channels: Channels) -> dict[str, Array]:
        """Variables by name: (level, latitude, longitude) or (latitude, longitude), as asked."""
        column = _Column(self, coefficients)
        return {
            name: np.stack([column.at(name, level) for level in levels])
            if levels
            else column.surface(name)
            for name, levels in channels.variables.items()
        }

    def layers(self, x: Array) -> tuple[Array, ...]:
        """T, q, u, v, ω on the layers, and ps, of coefficients (m, part, field, l)."""
        t = self.model.transforms
        radius = np.float32(t.radius)
        psi = x[:, :, VORTICITY] * (t.inverse_laplacian / radius)
        chi = x[:, :, DIVERGENCE] * (t.inverse_laplacian / radius)
        log_p = x[:, :, PRESSURE] / radius
        scalars = np.concatenate([x[:, :, DIVERGENCE.start : HUMIDITY.stop], x[:, :, PRESSURE]], 2)
        modes = [
            np.matmul(scalars, self._values),
            np.matmul(t.by_longitude(chi), self._along) - np.matmul(psi, self._across),
            np.matmul(t.by_longitude(psi), self._along) + np.matmul(chi, self._across),
            np.matmul(t.by_longitude(log_p), self._along),
            np.matmul(log_p, self._across),
        ]
        grid = to_grid(np.concatenate(modes, axis=2), self._fourier)
        k = LAYERS
        delta, warm, q = grid[:k], grid[k : 2 * k], grid[2 * k : 3 * k]
        u, v = grid[3 * k + 1 : 4 * k + 1], grid[4 * k + 1 : 5 * k + 1]
        pressure = np.float32(REFERENCE_PRESSURE) * np.exp(grid[3 * k])
        advection = u * grid[-2] + v * grid[-1]
        conversion = CONVERSION.astype(np.float32)
        mass = (delta + advection).reshape(k, -1)
        descent = advection - (conversion @ mass).reshape(delta.shape)
        omega = descent * pressure * FULL_LEVELS.astype(np.float32)[:, None, None]
        return warm + np.float32(REFERENCE_TEMPERATURE), q, u, v, omega, pressure


class _Column:
    """One state's columns: linear in ln p between layers, exactly hydrostatic."""

    def __init__(self, of: Diagnostics, coefficients: Array) -> None:
        self.of = of
        temperature, q, u, v, omega, self.pressure = of.layers(coefficients)
        self.temperature = temperature
        self.fields = {
            "temperature": temperature,
            "specific_humidity": np.maximum(q, np.float32(LEAST_HUMIDITY)),
            "u_component_of_wind": u,
            "v_component_of_wind": v,
            "vertical_velocity": omega,
        }
        self.log_sigma = np.log(FULL_LEVELS).astype(np.float32)
        self.lowest = temperature[-1]
        self.ground = self.lowest * np.exp(np.float32(-_EXPONENT) * self.log_sigma[-1])
        self.heights = np.empty_like(temperature)
        self.heights[-1] = of.surface_geopotential + self._below(-self.log_sigma[-1])
        for k in range(LAYERS - 2, -1, -1):
            thickness = np.float32(GAS_CONSTANT / 2) * (self.log_sigma[k + 1] - self.log_sigma[k])
            pair = temperature[k] + temperature[k + 1]
            self.heights[k] = self.heights[k + 1] + thickness * pair
        self._places: dict[int, tuple[NDArray[np.intp], Array, Array, Array]] = {}

    def _below(self, depth: Array | np.float32) -> Array:
        """Geopotential lost from the lowest layer to ln p `depth` further down."""
        c = np.float32(_EXPONENT)
        return np.asarray(np.float32(GRAVITY / LAPSE_RATE) * self.lowest * np.expm1(c * depth))

    def _place(self, level: int) -> tuple[NDArray[np.intp], Array, Array, Array]:
        """Upper layer's index, weight of the layer under it, ln(p / ps), depth under the lowest."""
        if level not in self._places:
            x = np.float32(np.log(level * 100.0)) - np.log(self.pressure)
            upper = np.clip(np.searchsorted(self.log_sigma, x) - 1, 0, LAYERS - 2)
            above = self.log_sigma[upper]
            weight = np.clip((x - above) / (self.log_sigma[upper + 1] - above), 0, 1)
            depth = np.maximum(x - self.log_sigma[-1], np.float32(0))
            self._places[level] = (upper[None], weight.astype(np.float32), x, depth)
        return self._places[level]

    def at(self, name: str, level: int) -> Array:
        upper, weight, x, depth = self._place(level)
        if name == "geopotential":
            temperature = self.at("temperature", level)
            base = np.take_along_axis(self.heights, upper + 1, 0)[0]
            near = np.take_along_axis(self.temperature, upper + 1, 0)[0]
            rise = np.maximum(self.log_sigma[upper[0] + 1] - x, 0)
            inside = base + np.float32(GAS_CONSTANT / 2) * (temperature + near) * rise
            return np.asarray(np.where(depth > 0, self.heights[-1] - self._below(depth), inside))
        field = self.fields[name]
        over = np.take_along_axis(field, upper, 0)[0]
        under = np.take_along_axis(field, upper + 1, 0)[0]
        value = over + weight * (under - over)
        if name == "temperature":
            value = value * np.exp(np.float32(_EXPONENT) * depth)
        return np.asarray(value)

    def surface(self, name: str) -> Array:
        if name == "2m_temperature":
            return np.asarray(self.ground)
        if name == "mean_sea_level_pressure":
            warming = np.float32(LAPSE_RATE / GRAVITY) * self.of.surface_geopotential / self.ground
            return np.asarray(self.pressure * (1 + warming) ** np.float32(1 / _EXPONENT))
        wind = self.fields[name.removeprefix("10m_")][-1]
        height = self._below(-self.log_sigma[-1]) / np.float32(GRAVITY)
        land = self.of.land
        sea_share, land_share = (
            np.log(np.float32(10 / z)) / np.log(height / np.float32(z))
            for z in (_ROUGHNESS_SEA, _ROUGHNESS_LAND)
        )
        return np.asarray(wind * (sea_share + land * (land_share - sea_share)))
