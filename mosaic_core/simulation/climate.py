"""The climate of a run: normalisation statistics and the figures that `docs/simulation.md` quotes.

`python -m mosaic_core.simulation.climate --truncation 42 --days 90` writes `normalisation.npz`
(`channels`, and per channel `state_mean`, `state_std`, and `residual_mean`, `residual_std` of the
six-hour change; area-weighted, from true states) and, with `--report`, a JSON of measures.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
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
from mosaic_core.simulation.model import Model
from mosaic_core.simulation.trajectory import Trajectory
from mosaic_core.simulation.transforms import Array
from mosaic_core.spectral import SphericalHarmonics

NORMALISATION: Final = Path(__file__).parent / "normalisation.npz"
_GRID: Final = LatLonGrid.with_poles(96, 49)
_ENERGY_LEVELS: Final = (250, 500, 850)

_log = logging.getLogger(__name__)


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


def measure(path: Path, days: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Run `days` from the restart: normalisation arrays, and a report of the run."""
    trajectory = Trajectory(path)
    diagnose = Diagnostics(trajectory.model, _GRID)
    state_moments, change_moments = Moments(_GRID), Moments(_GRID)
    daily: dict[str, list[float]] = {"mass": [], "msl": [], "wind": [], "t850": []}
    zonal, energy = np.zeros((len(ERA5_82), _GRID.nlat)), np.zeros((len(_ENERGY_LEVELS), 49))
    weights = (_GRID.latitude_weights / _GRID.nlat)[:, None] / _GRID.nlon
    harmonics = SphericalHarmonics(_GRID, 47)
    names = {name: ERA5_82.index(name) for name in ERA5_82.names}
    previous, integrated = None, 0.0
    for i in range(days * 4):
        began = time.perf_counter()
        coefficients = trajectory.state(
            trajectory.step_of(trajectory.start_time + timedelta(hours=6 * i))
        ).current
        integrated += time.perf_counter() - began
        state = stack(diagnose(coefficients, ERA5_82), ERA5_82)
        state_moments.add(state)
        if previous is not None:
            change_moments.add(state - previous)
        previous = state
        if i % 4 == 0:
            zonal += state.mean(axis=2)
            for j, level in enumerate(_ENERGY_LEVELS):
                u, v = (state[names[f"{x}_component_of_wind_{level}"]] for x in "uv")
                energy[j, :48] += harmonics.kinetic_energy(*harmonics.vorticity_divergence(u, v))
            wind = np.hypot(
                state[names["u_component_of_wind_250"]], state[names["v_component_of_wind_250"]]
            )
            daily["wind"].append(float(wind.max()))
            daily["msl"].append(float((state[names["mean_sea_level_pressure"]] * weights).sum()))
            daily["t850"].append(float((state[names["temperature_850"]] * weights).sum()))
            daily["mass"].append(_mass(trajectory.model, coefficients))
    normalisation = {
        "channels": np.array(ERA5_82.names),
        "state_mean": state_moments.mean,
        "state_std": state_moments.std,
        "residual_mean": change_moments.mean,
        "residual_std": change_moments.std,
    }
    report = {
        "restart": path.name,
        "days": days,
        "seconds_per_day": integrated / days,
        "slope_10_30": {str(p): slope(energy[j], 10, 30) for j, p in enumerate(_ENERGY_LEVELS)},
        "slope_10_20": {str(p): slope(energy[j], 10, 20) for j, p in enumerate(_ENERGY_LEVELS)},
        "daily": daily,
        "latitude": list(_GRID.latitudes),
        "zonal_mean": {name: (zonal[j] / days).tolist() for name, j in names.items()},
        "kinetic_energy": {
            str(p): (energy[j] / days).tolist() for j, p in enumerate(_ENERGY_LEVELS)
        },
    }
    return normalisation, report


def slope(energy: NDArray[np.float64], first: int, last: int) -> float:
    """Exponent of the energy spectrum between two total wavenumbers, by least squares."""
    ell = np.arange(first, last + 1)
    return float(np.polyfit(np.log(ell), np.log(energy[ell]), 1)[0])


def _mass(model: Model, coefficients: Array) -> float:
    t = model.transforms
    return t.mean(1e5 * np.exp(t.synthesis(coefficients[:, :, -1:])[0].astype(np.float64)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Statistics of the simulated climate.")
    parser.add_argument("--planet", default="terra")
    parser.add_argument("--truncation", type=int, default=42)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--output", type=Path, default=NORMALISATION)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    path = restart.shipped(options.planet, options.truncation)
    normalisation, report = measure(path, options.days)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **normalisation)  # type: ignore[arg-type]
    options.output.write_bytes(buffer.getvalue())
    if options.report:
        options.report.write_text(json.dumps(report))
    _log.info("%s: %d days, %.2f s a day", options.output, options.days, report["seconds_per_day"])


if __name__ == "__main__":
    main()
