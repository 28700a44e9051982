"""A year of the simulated atmosphere: drift, jets, spectra, and how it differs from the Earth.

OMP_NUM_THREADS=1 python -m benchmarks.simulated_climate --truncation 42 [--normalisation]
OMP_NUM_THREADS=1 python -m benchmarks.simulated_climate --planet held-suarez --truncation 31
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import record
from mosaic_core.analysis.checks.bounds import bounds_of
from mosaic_core.channels import ERA5_82
from mosaic_core.simulation import restart
from mosaic_core.simulation.climate import (
    ENERGY_LEVELS,
    GRID,
    NORMALISATION,
    Climate,
    measure,
    slope,
    write_normalisation,
)
from mosaic_core.simulation.spinup import spin_up
from mosaic_core.threads import one_thread

TOLERANCES = {
    "mass": (1.0, "Pa"),
    "msl": (50.0, "Pa"),
    "t850": (0.5, "K"),
    "kinetic_energy": (0.05, "share of the mean"),
}
"""How far the means of the two halves of a run may lie apart."""

SPIN_UP_DAYS = 100


def drift(daily: dict[str, list[float]]) -> dict[str, Any]:
    """Both halves' means of each quantity, against its tolerance."""
    result = {}
    for name, (tolerance, unit) in TOLERANCES.items():
        values = np.array(daily[name])
        halves = [float(half.mean()) for half in np.array_split(values, 2)]
        apart = halves[1] - halves[0]
        if unit.startswith("share"):
            apart /= float(values.mean())
        result[name] = {
            "first_half": halves[0],
            "second_half": halves[1],
            "apart": apart,
            "tolerance": tolerance,
            "unit": unit,
            "within": abs(apart) <= tolerance,
            "daily_std": float(values.std()),
            "means_of_30_days": [
                round(float(month.mean()), 4)
                for month in np.array_split(values, max(1, values.size // 30))
            ],
        }
    return result


def jets(zonal: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Strongest zonal mean westerlies at 250 hPa poleward of 15 degrees, m/s."""
    latitude = np.asarray(GRID.latitudes)
    found = {}
    for name, sign in (("north", 1), ("south", -1)):
        u = np.where(sign * latitude > 15, zonal, -np.inf)
        found[name] = {"wind": round(float(u.max()), 1), "latitude": float(latitude[u.argmax()])}
    return found


def against_earth(normalisation: dict[str, NDArray[Any]]) -> dict[str, dict[str, float]]:
    """By channel: mean less the Earth's in its spreads, and shares of its spread and tendency."""
    result = {}
    for i, channel in enumerate(ERA5_82):
        earth = bounds_of(channel)
        mean, std, change = (
            float(normalisation[n][i]) for n in ("state_mean", "state_std", "residual_std")
        )
        result[channel.name] = {
            "shift": round((mean - earth.mean) / earth.spread, 3),
            "spread": round(std / earth.spread, 3),
            "tendency": round(change / earth.tendency, 3),
        }
    return result


def report(climate: Climate, days: int) -> dict[str, Any]:
    channels = {name: i for i, name in enumerate(ERA5_82.names)}
    winds = climate.daily["wind"]
    return {
        "days": days,
        "seconds_a_day": round(climate.seconds / days, 3),
        "drift": drift(climate.daily),
        "jets_250": jets(climate.zonal_mean[channels["u_component_of_wind_250"]]),
        "strongest_wind_250": [round(min(winds), 1), round(max(winds), 1)],
        "slopes": {
            f"{first}-{last}": {
                str(p): round(slope(climate.kinetic_energy[j], first, last), 2)
                for j, p in enumerate(ENERGY_LEVELS)
            }
            for first, last in ((10, 20), (10, 30))
        },
        "against_earth": against_earth(climate.normalisation),
        "latitude": list(GRID.latitudes),
        "zonal_mean": {
            name: np.round(climate.zonal_mean[channels[name]], 3).tolist()
            for name in channels
            if name.startswith(("u_component_of_wind_", "temperature_"))
        },
        "kinetic_energy": {
            str(p): [float(f"{x:.5g}") for x in climate.kinetic_energy[j]]
            for j, p in enumerate(ENERGY_LEVELS)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planet", default="terra")
    parser.add_argument("--truncation", type=int, default=42)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--normalisation", action="store_true", help=f"write {NORMALISATION.name}")
    options = parser.parse_args()
    planet, truncation, days = options.planet, options.truncation, options.days
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        if planet == "terra":
            path = restart.shipped(planet, truncation)
        else:
            path = Path(folder) / "restart.npz"
            restart.write(path, spin_up(planet, truncation, SPIN_UP_DAYS, 0))
        climate = measure(path, days)
    if options.normalisation:
        write_normalisation(NORMALISATION, climate.normalisation)
    name = "simulated_climate" if planet == "terra" else planet.replace("-", "_")
    flags = " --normalisation" if options.normalisation else ""
    record(
        f"{name}_T{truncation}",
        f"OMP_NUM_THREADS=1 python -m benchmarks.simulated_climate --planet {planet} "
        f"--truncation {truncation} --days {days}{flags}",
        report(climate, days),
        ("numpy",),
    )


if __name__ == "__main__":
    main()
