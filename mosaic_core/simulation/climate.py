"""The climate of a run: the statistics of the planet, and its circulation.

`python -m mosaic_core.simulation.climate --truncation 42 --days 365` writes `normalisation.npz`:
`channels`, and per channel `state_mean`, `state_std`, and `residual_mean`, `residual_std` of the
six-hour change; area-weighted, from true states. `benchmarks/simulated_climate.py` keeps the rest.
"""

from __future__ import annotations

import argparse
import io
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mosaic_core.channels import ERA5_82, Channels
from mosaic_core.grid import LatLonGrid
from mosaic_core.simulation import restart
from mosaic_core.simulation.diagnostics import Diagnostics
from mosaic_core.simulation.model import DIVERGENCE, PRESSURE, VORTICITY, Model
from mosaic_core.simulation.physics import REFERENCE_PRESSURE
from mosaic_core.simulation.trajectory import Trajectory
from mosaic_core.simulation.transforms import Array
from mosaic_core.simulation.vertical import LAYERS, THICKNESS
from mosaic_core.spectral import EARTH_RADIUS, SphericalHarmonics

NORMALISATION: Final = Path(__file__).parent / "normalisation.npz"
GRID: Final = LatLonGrid.with_poles(96, 49)
ENERGY_LEVELS: Final = (250, 500, 850)


@dataclass
class Moments:
    """Area-weighted mean and standard deviation per channel, summed state by state."""

    grid: LatLonGrid
    count: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 1)))

    def add(self, state: Array) -> None:
        """state (channel, latitude, longitude)."""
        weights = (self.grid.latitude_weights / self.grid.nlat)[:, None] / self.grid.nlon
        values = state.astype(np.float64)
        self.sums = self.sums + np.array(
            [(values * weights).sum((1, 2)), (values**2 * weights).sum((1, 2))]
        )
        self.count += 1

    @property
    def mean(self) -> NDArray[np.float64]:
        return np.asarray(self.sums[0] / self.count)

    @property
    def std(self) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(np.maximum(self.sums[1] / self.count - self.mean**2, 0)))


def stack(fields: dict[str, Array], channels: Channels) -> Array:
    """(channel, latitude, longitude) in the channels' order."""
    return np.stack(
        [
            fields[c.variable]
            if c.level is None
            else fields[c.variable][channels.variables[c.variable].index(c.level)]
            for c in channels
        ]
    )


@dataclass
class Climate:
    """What a run of some days was like.

    Attributes:
        normalisation: the arrays of `normalisation.npz`.
        seconds: spent in the model's steps.
        daily: by quantity, a value of each day: global means of surface pressure `mass` (Pa),
            `msl` (Pa), `t850` (K) and `kinetic_energy` (J kg-1), and the strongest 250 hPa `wind`.
        zonal_mean: (channel, latitude), over the run.
        kinetic_energy: (level of `ENERGY_LEVELS`, total wavenumber), m2 s-2.
    """

    normalisation: dict[str, NDArray[Any]]
    seconds: float
    daily: dict[str, list[float]]
    zonal_mean: NDArray[np.float64]
    kinetic_energy: NDArray[np.float64]


def measure(path: Path, days: int) -> Climate:
    """Run `days` from a restart and watch it every six hours."""
    trajectory = Trajectory(path)
    diagnose = Diagnostics(trajectory.model, GRID)
    state_moments, change_moments = Moments(GRID), Moments(GRID)
    daily: dict[str, list[float]] = {}
    zonal = np.zeros((len(ERA5_82), GRID.nlat))
    harmonics = SphericalHarmonics(GRID, GRID.nlat - 2)
    energy = np.zeros((len(ENERGY_LEVELS), GRID.nlat - 1))
    previous, seconds = None, 0.0
    for i in range(days * 4):
        began = time.perf_counter()
        time_i = trajectory.start_time + timedelta(hours=6 * i)
        coefficients = trajectory.state(trajectory.step_of(time_i)).current
        seconds += time.perf_counter() - began
        state = stack(diagnose(coefficients, ERA5_82), ERA5_82)
        state_moments.add(state)
        if previous is not None:
            change_moments.add(state - previous)
        previous = state
        if i % 4 == 0:
            zonal += state.mean(axis=2) / days
            for j, level in enumerate(ENERGY_LEVELS):
                wind = (state[ERA5_82.index(f"{x}_component_of_wind_{level}")] for x in "uv")
                spectrum = harmonics.kinetic_energy(*harmonics.vorticity_divergence(*wind))
                energy[j, : spectrum.size] += spectrum / days
            for name, value in _watch(trajectory.model, coefficients, state).items():
                daily.setdefault(name, []).append(value)
    normalisation = {
        "channels": np.array(ERA5_82.names),
        "state_mean": state_moments.mean,
        "state_std": state_moments.std,
        "residual_mean": change_moments.mean,
        "residual_std": change_moments.std,
    }
    return Climate(normalisation, seconds, daily, zonal, energy)


def _watch(model: Model, coefficients: Array, state: Array) -> dict[str, float]:
    """One day's value of each quantity of `Climate.daily`."""
    weights = (GRID.latitude_weights / GRID.nlat)[:, None] / GRID.nlon
    plane = {name: state[ERA5_82.index(name)] for name in ERA5_82.names}
    wind = np.hypot(plane["u_component_of_wind_250"], plane["v_component_of_wind_250"])
    t = model.transforms
    pressure = np.exp(t.synthesis(coefficients[:, :, PRESSURE])[0].astype(np.float64))
    return {
        "mass": REFERENCE_PRESSURE * t.mean(pressure),
        "msl": float((plane["mean_sea_level_pressure"] * weights).sum()),
        "t850": float((plane["temperature_850"] * weights).sum()),
        "kinetic_energy": kinetic_energy(coefficients),
        "wind": float(wind.max()),
    }


def kinetic_energy(coefficients: Array) -> float:
    """Global mean of half the squared wind, weighted by the layers' mass, J kg-1."""
    x = coefficients[:, :, VORTICITY.start : DIVERGENCE.stop].astype(np.float64)
    ell = np.arange(x.shape[-1])
    squares = x**2 * (EARTH_RADIUS**2 / (2 * np.maximum(ell * (ell + 1), 1)))
    squares[1:] *= 2
    by_layer = squares.sum((0, 1, 3)).reshape(2, LAYERS).sum(0)
    return float(by_layer @ THICKNESS)


def slope(energy: NDArray[np.float64], first: int, last: int) -> float:
    """Exponent of the energy spectrum between two total wavenumbers, by least squares."""
    ell = np.arange(first, last + 1)
    return float(np.polyfit(np.log(ell), np.log(energy[ell]), 1)[0])


def write_normalisation(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write `normalisation.npz`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    path.write_bytes(buffer.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description="Statistics of the simulated climate.")
    parser.add_argument("--planet", default="terra")
    parser.add_argument("--truncation", type=int, default=42)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--output", type=Path, default=NORMALISATION)
    options = parser.parse_args()
    climate = measure(restart.shipped(options.planet, options.truncation), options.days)
    write_normalisation(options.output, climate.normalisation)


if __name__ == "__main__":
    main()
