"""docs/figures/simulation.png: a day of the simulated atmosphere, a year's means and its spectra.

python -m benchmarks.simulated_figure        (after benchmarks.simulated_climate at T42 and T31)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.record import RESULTS
from mosaic_core.channels import LEVELS, Channels
from mosaic_core.simulation.climate import ENERGY_LEVELS
from mosaic_core.simulation.source import SimulatedSource

PICTURE = Path(__file__).parent.parent / "docs" / "figures" / "simulation.png"
CHANNELS = Channels.parse(
    [
        "mean_sea_level_pressure",
        "geopotential_250",
        "geopotential_500",
        "u_component_of_wind_250",
        "u_component_of_wind_500",
        "v_component_of_wind_250",
        "v_component_of_wind_500",
    ]
)


def result(truncation: int) -> dict[str, Any]:
    text = (RESULTS / f"simulated_climate_T{truncation}.json").read_text()
    return dict(json.loads(text)["result"])


def weather(pressure: Axes, wind: Axes) -> None:
    """The first day of the shipped run."""
    source = SimulatedSource({"kind": "simulated", "checkpoints": ""})
    day = source.trajectory.start_time
    ds = source.truth(CHANNELS, [day]).isel(valid_time=0)
    lon, lat = ds["longitude"].values, ds["latitude"].values
    land = source.static_fields()[..., 1].T
    pressure.contourf(lon, lat, land, [0.5, 2], colors=["#ddd5c3"])
    lines = pressure.contour(
        lon, lat, ds["mean_sea_level_pressure"] / 100, range(920, 1081, 6),
        colors="black", linewidths=0.6,
    )  # fmt: skip
    pressure.clabel(lines, fontsize=6)
    pressure.set_title(f"mean sea level pressure (hPa), T42, {day:%Y-%m-%d}", fontsize=9)
    jet = ds.sel(level=250)
    speed = np.hypot(jet["u_component_of_wind"], jet["v_component_of_wind"])
    shades = wind.contourf(lon, lat, speed, range(20, 101, 10), extend="max")
    height = ds["geopotential"].sel(level=500) / 98.0665
    wind.contour(lon, lat, height, range(440, 601, 8), colors="black", linewidths=0.5)
    wind.figure.colorbar(shades, ax=wind, shrink=0.85)
    wind.set_title("250 hPa wind (m/s) and 500 hPa height (8 dam apart)", fontsize=9)


def means(axes: Axes, climate: dict[str, Any]) -> None:
    """Zonal mean wind and temperature by latitude and pressure."""
    u, t = (
        np.array([climate["zonal_mean"][f"{name}_{p}"] for p in LEVELS])
        for name in ("u_component_of_wind", "temperature")
    )
    shades = axes.contourf(
        climate["latitude"], LEVELS, u, range(-40, 41, 5), cmap="RdBu_r", extend="both"
    )
    lines = axes.contour(
        climate["latitude"], LEVELS, t, range(190, 311, 10), colors="black", linewidths=0.6
    )
    axes.clabel(lines, fontsize=6)
    axes.invert_yaxis()
    axes.set_ylabel("hPa")
    axes.figure.colorbar(shades, ax=axes, shrink=0.85)
    axes.set_title(f"zonal mean u (m/s) and T (K), T42, {climate['days']} days", fontsize=9)


def spectra(axes: Axes, climates: dict[int, dict[str, Any]]) -> None:
    """Kinetic energy by total wavenumber."""
    for truncation, style in ((42, "-"), (31, "--")):
        for colour, level in enumerate(ENERGY_LEVELS):
            energy = climates[truncation]["kinetic_energy"][str(level)]
            axes.loglog(
                range(1, truncation + 1), energy[1 : truncation + 1], style,
                color=f"C{colour}", label=f"T{truncation}, {level} hPa",
            )  # fmt: skip
    ell = np.array([9, 31])
    axes.loglog(ell, 60 * (ell / 9.0) ** -3, ":", color="black", label="slope -3")
    axes.axvspan(10, 30, color="#f2f2f2", zorder=0)
    axes.set_xlabel("total wavenumber")
    axes.legend(fontsize=6)
    axes.set_title("kinetic energy (m2/s2)", fontsize=9)


def main() -> None:
    climates = {n: result(n) for n in (42, 31)}
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    weather(*axes[0])
    means(axes[1][0], climates[42])
    spectra(axes[1][1], climates)
    figure.savefig(PICTURE, dpi=80)


if __name__ == "__main__":
    main()
