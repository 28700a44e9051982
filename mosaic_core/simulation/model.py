"""A dry-mass-conserving spectral primitive-equation model, stepped by semi-implicit leapfrog.

Prognostic, in this order along the field axis of `State.current`: vorticity and divergence (s-1),
temperature less 300 K, specific humidity (kg kg-1), each on twelve sigma layers from the top, and
ln(ps / 1000 hPa). Hoskins and Simmons (1975) in the horizontal, Simmons and Burridge (1981) in the
vertical, the filter of Williams (2009) in time. `docs/simulation.md` has the equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from mosaic_core.errors import ForecastError
from mosaic_core.simulation.physics import REFERENCE_PRESSURE, Physics
from mosaic_core.simulation.planet import DAY, GAS_CONSTANT, GRAVITY, KAPPA, ROTATION, Planet
from mosaic_core.simulation.transforms import Array, Transforms
from mosaic_core.simulation.vertical import (
    CONVERSION,
    HYDROSTATIC,
    LAYERS,
    SIGMA_DOT,
    THICKNESS,
)
from mosaic_core.spectral import EARTH_RADIUS

TIME_STEPS: Final = {21: 2400, 31: 1800, 42: 1440, 63: 900}
"""Seconds by truncation; each divides six hours."""

REFERENCE_TEMPERATURE: Final = 300.0
FIELDS: Final = 4 * LAYERS + 1
_FILTER: Final = 0.1
_FILTER_SHARE: Final = 0.53
_DAMPING_TIME: Final = 5 * 3600.0
_K: Final = LAYERS

VORTICITY, DIVERGENCE, TEMPERATURE, HUMIDITY = (slice(i * _K, (i + 1) * _K) for i in range(4))
PRESSURE: Final = slice(4 * _K, 4 * _K + 1)


@dataclass(frozen=True)
class State:
    """All that the next step depends on; equal states have equal futures, bit for bit.

    Attributes:
        step: steps since the restart.
        current: coefficients (m, part, field, l).
        previous: those of the step before, filtered; None at the start of a run.
        forcing: physics tendencies of the step before; None at the start of a run.
    """

    step: int
    current: Array
    previous: Array | None = None
    forcing: Array | None = None


class Model:
    """Steps states of one planet at one truncation.

    Raises:
        ConfigurationError: a truncation that the model does not have.
    """

    def __init__(self, planet: Planet, truncation: int) -> None:
        self.planet, self.truncation = planet, truncation
        self.transforms = t = Transforms(truncation, EARTH_RADIUS)
        self.time_step = TIME_STEPS[truncation]
        self.physics = Physics(planet, t)
        self.surface_geopotential = self._surface_geopotential()
        mu = np.sin(t.latitude)[:, None]
        self._sec2 = (1 / (1 - mu**2)).astype(np.float32)
        self._coriolis = (2 * ROTATION * mu).astype(np.float32)
        self._half = (0.5 / THICKNESS).astype(np.float32)[:, None, None]
        self._conversion = CONVERSION.astype(np.float32)
        self._hydrostatic = HYDROSTATIC.astype(np.float32)
        self._thickness = THICKNESS.astype(np.float32)
        self._sigma_dot = SIGMA_DOT.astype(np.float32)
        self._implicit = {scale: self._implicit_matrices(scale) for scale in (0.5, 1.0)}
        ell = np.arange(truncation + 2)
        top = truncation * (truncation + 1)
        self._damping = (ell * (ell + 1) / top) ** 4 / _DAMPING_TIME

    def days(self, step: int) -> float:
        """Days since the start of the run."""
        return step * self.time_step / DAY

    def step(self, state: State) -> State:
        """The state one time step later.

        Raises:
            ForecastError: the integration has left the finite numbers.
        """
        scale = 1.0 if state.previous is not None else 0.5
        previous = state.current if state.previous is None else state.previous
        explicit, forcing, excess = self._explicit(state)
        current = state.current
        following = self._advance(previous, explicit, scale)
        if state.previous is not None:
            displacement = (previous + following - 2 * current) * np.float32(_FILTER / 2)
            current = current + np.float32(_FILTER_SHARE) * displacement
            following += np.float32(_FILTER_SHARE - 1) * displacement
        else:
            current = current.copy()
        for x in (current, following):
            x[0, 0, -1, 0] -= excess
        if not np.isfinite(following[0, 0]).all():
            raise ForecastError(
                f"the simulation of {self.planet.name} at T{self.truncation} blew up after "
                f"{self.days(state.step):.2f} days",
                "finite numbers",
                "start from the shipped restart, or report the seed",
            )
        return State(state.step + 1, following, current, forcing)

    def _surface_geopotential(self) -> Array:
        """Coefficients (m, part, 1, l), smoothed so that the mountains do not ring."""
        t = self.transforms
        height = self.planet.height(
            np.rad2deg(t.latitude)[:, None], np.rad2deg(t.longitude)[None, :]
        )
        ell = np.arange(self.truncation + 2)
        smooth = np.exp(-2.0 * (ell * (ell + 1) / (self.truncation * (self.truncation + 1))) ** 2)
        field = (GRAVITY * height).astype(np.float32)[None]
        return np.asarray(t.analysis(field) * t.kept * smooth.astype(np.float32))

    def _implicit_matrices(self, scale: float) -> Array:
        """(l, layer, layer): what divergence feels of gravity waves over one step, inverted."""
        dt, eigen = scale * self.time_step, -self.transforms.laplacian.astype(np.float64)
        waves = KAPPA * REFERENCE_TEMPERATURE * HYDROSTATIC @ CONVERSION
        waves = waves + GAS_CONSTANT * REFERENCE_TEMPERATURE * THICKNESS
        system = np.eye(_K) + dt**2 * eigen[:, None, None] * waves
        return np.linalg.inv(system).astype(np.float32)

    def _explicit(self, state: State) -> tuple[Array, Array, np.float32]:
        """Tendency without the linear gravity-wave terms, physics, and ln of the mass excess."""
        t, x = self.transforms, state.current
        u, v = t.winds(x[:, :, VORTICITY], x[:, :, DIVERGENCE])
        log_p = x[:, :, PRESSURE]
        slopes = [t.by_longitude(log_p) / t.radius, t.by_latitude(log_p) / t.radius]
        grid = t.synthesis(np.concatenate([x, u, v, *slopes], axis=2).astype(np.float32))
        zeta, delta, warm, q = (grid[i * _K : (i + 1) * _K] for i in range(4))
        pressure = np.float32(REFERENCE_PRESSURE) * np.exp(grid[4 * _K])
        u, v = grid[FIELDS : FIELDS + _K], grid[FIELDS + _K : FIELDS + 2 * _K]
        east, north = grid[-2], grid[-1]
        now = self.physics(
            u, v, warm + np.float32(REFERENCE_TEMPERATURE), q, pressure, self.days(state.step)
        )
        lagged = (now if state.forcing is None else state.forcing).reshape(4, *warm.shape)

        advection = (u * east + v * north) * self._sec2
        mass = delta + advection
        rise = self._column(self._sigma_dot, mass)
        spin = zeta + self._coriolis
        gas = np.float32(GAS_CONSTANT) * warm
        out = np.empty((9 * _K + 1, *pressure.shape), np.float32)
        terms = out[:-1].reshape(9, *warm.shape)
        terms[0] = (spin * v - self._lift(rise, u) - gas * east + lagged[0]) * self._sec2
        terms[1] = (-spin * u - self._lift(rise, v) - gas * north + lagged[1]) * self._sec2
        u_over, v_over = u * self._sec2, v * self._sec2
        np.multiply(u_over, warm, out=terms[2])
        np.multiply(v_over, warm, out=terms[3])
        np.multiply(u_over, q, out=terms[4])
        np.multiply(v_over, q, out=terms[5])
        descent = advection - self._column(self._conversion, mass)
        linear = self._column(self._conversion, delta)
        terms[6] = warm * delta - self._lift(rise, warm) + lagged[2]
        terms[6] += np.float32(KAPPA) * (
            warm * descent + np.float32(REFERENCE_TEMPERATURE) * (descent + linear)
        )
        terms[7] = q * delta - self._lift(rise, q) + lagged[3]
        terms[8] = (u * u_over + v * v_over) * np.float32(0.5)
        out[-1] = -np.tensordot(self._thickness, advection, 1)
        excess = np.float32(np.log(t.mean(pressure) / self.planet.surface_pressure))
        return self._tendency(t.analysis(out)), now, excess

    def _tendency(self, s: Array) -> Array:
        """Spectral tendency (m, part, field, l) of the analysed products of `_explicit`."""
        t = self.transforms
        a, b, ut, vt, uq, vq, heat, moist, energy = (
            s[:, :, i * _K : (i + 1) * _K] for i in range(9)
        )
        out = np.empty((*s.shape[:2], FIELDS, s.shape[3]), np.float32)
        curl, divergence = t.curl_and_divergence(a, b)
        out[:, :, VORTICITY] = curl
        potential = energy + self.surface_geopotential
        out[:, :, DIVERGENCE] = divergence - t.laplacian * potential * t.kept
        out[:, :, TEMPERATURE] = heat * t.kept - t.curl_and_divergence(ut, vt)[1]
        out[:, :, HUMIDITY] = moist * t.kept - t.curl_and_divergence(uq, vq)[1]
        out[:, :, PRESSURE] = s[:, :, -1:] * t.kept
        return out

    def _advance(self, previous: Array, explicit: Array, scale: float) -> Array:
        """Leapfrog from `previous`, the gravity-wave terms taken at the mean of both ends."""
        dt = np.float32(scale * self.time_step)
        mean = previous + dt * explicit
        gas = np.float32(GAS_CONSTANT * REFERENCE_TEMPERATURE)
        warm, log_p = mean[:, :, TEMPERATURE], mean[:, :, PRESSURE]
        push = self._spectral_column(self._hydrostatic, warm) + gas * log_p
        right = mean[:, :, DIVERGENCE] - dt * self.transforms.laplacian * push
        columns = np.ascontiguousarray(right.transpose(3, 2, 0, 1)).reshape(right.shape[3], _K, -1)
        solved = np.matmul(self._implicit[scale], columns)
        divergence = solved.reshape(-1, _K, *right.shape[:2]).transpose(2, 3, 1, 0)
        mean[:, :, DIVERGENCE] = divergence
        heat = np.float32(KAPPA * REFERENCE_TEMPERATURE)
        mean[:, :, TEMPERATURE] -= dt * heat * self._spectral_column(self._conversion, divergence)
        mean[:, :, PRESSURE] -= dt * self._spectral_column(self._thickness[None], divergence)
        following = 2 * mean - previous
        damping = (1 / (1 + 2 * float(dt) * self._damping)).astype(np.float32)
        following[:, :, : 4 * _K] *= damping
        return np.asarray(following)

    def _lift(self, rise: Array, field: Array) -> Array:
        """Vertical advection: layer k feels half of what crosses each of its two faces."""
        crossing = rise * (field[1:] - field[:-1])
        out = np.empty_like(field)
        out[-1] = 0
        np.multiply(crossing, self._half[:-1], out=out[:-1])
        crossing *= self._half[1:]
        out[1:] += crossing
        return out

    @staticmethod
    def _column(matrix: Array, field: Array) -> Array:
        """matrix (a, layer) on (layer, latitude, longitude)."""
        flat = matrix @ field.reshape(field.shape[0], -1)
        return np.asarray(flat.reshape(-1, *field.shape[1:]))

    @staticmethod
    def _spectral_column(matrix: Array, x: Array) -> Array:
        """matrix (a, layer) on (m, part, layer, l)."""
        return np.asarray(np.matmul(matrix, x))


def cold_start(model: Model, seed: int) -> State:
    """Rest, near the relaxation temperature, with winds of some m/s at random below l = 12."""
    t, truncation = model.transforms, model.truncation
    height = t.synthesis(model.surface_geopotential)[0] / np.float32(GRAVITY)
    pressure = model.planet.surface_pressure * np.exp(-height / 8000.0)
    pressure *= model.planet.surface_pressure / t.mean(pressure)
    pressure = pressure.astype(np.float32)
    warm = model.physics.equilibrium(pressure, 0.0)
    q = model.physics.relative_target(warm, pressure) * np.float32(model.planet.moist)
    grid = np.concatenate(
        [
            warm - np.float32(REFERENCE_TEMPERATURE),
            q,
            np.log(pressure / np.float32(REFERENCE_PRESSURE))[None],
        ]
    )
    current = np.zeros((truncation + 1, 2, FIELDS, truncation + 2), np.float32)
    current[:, :, 2 * _K :] = t.analysis(grid.astype(np.float32)) * t.kept
    perturb(model, current, seed, amplitude=2.0, largest=12)
    return State(0, current)


def perturb(model: Model, current: Array, seed: int, amplitude: float, largest: int) -> None:
    """Add vorticity (in place) of `amplitude` m/s at l = 3..largest, alike in all layers."""
    random = np.random.Generator(np.random.Philox(key=seed))
    size = model.truncation + 2
    ell = np.arange(size)
    noise = random.standard_normal((size - 1, 2, 1, size))
    band = ((ell >= 3) & (ell <= largest)) / np.maximum(ell, 1) ** 0.5
    noise *= band * model.transforms.kept
    noise[0, 1] = 0
    energy = EARTH_RADIUS**2 / (2 * np.maximum(ell * (ell + 1), 1)) * noise**2
    energy[1:] *= 2
    noise *= amplitude / np.sqrt(2 * energy.sum())
    current[:, :, VORTICITY] += noise.astype(np.float32)
