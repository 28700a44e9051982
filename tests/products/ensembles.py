"""Ensembles for the tests: smooth random fields on the sphere, in the layout of a forecast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from mosaic_core.channels import VARIABLES, Channels
from mosaic_core.cycle import Cycle
from mosaic_core.dims import COORDINATE_ATTRIBUTES
from mosaic_core.grid import LatLonGrid
from mosaic_core.products import climatology
from mosaic_core.products.product import ProductContext

WIND = ["10m_u_component_of_wind", "10m_v_component_of_wind"]
CYCLE = Cycle.parse("2026-11-20T00Z")

# Value at the equator, at the poles, and the size of the weather, in each variable's units.
_CLIMATE = {
    "2m_temperature": (300.0, 245.0, 4.0),
    "10m_u_component_of_wind": (-3.0, 2.0, 5.0),
    "10m_v_component_of_wind": (0.0, 0.0, 5.0),
    "mean_sea_level_pressure": (101100.0, 100600.0, 900.0),
    "geopotential": (57000.0, 49500.0, 700.0),
    "specific_humidity": (0.01, 0.0005, 0.001),
    "temperature": (290.0, 245.0, 4.0),
    "u_component_of_wind": (0.0, 5.0, 8.0),
    "v_component_of_wind": (0.0, 0.0, 8.0),
    "vertical_velocity": (0.0, 0.0, 0.2),
}


def smooth_fields(
    rng: np.random.Generator, count: int, grid: LatLonGrid, waves: int = 24
) -> np.ndarray:
    """(count, latitude, longitude) float64 of unit variance, smooth across poles and date line.

    Sums of plane waves in space, cos(k . x + phase), seen on the unit sphere.
    """
    lon = np.deg2rad(np.asarray(grid.longitudes))[None, :]
    lat = np.deg2rad(np.asarray(grid.latitudes))[:, None]
    xyz = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat) + 0 * lon])
    fields = np.zeros((count, grid.nlat, grid.nlon))
    for index in range(count):
        k = rng.normal(scale=5.0, size=(waves, 3))
        phase = rng.uniform(0, 2 * np.pi, size=(waves, 1, 1))
        fields[index] = np.cos(np.tensordot(k, xyz, 1) + phase).sum(0) * np.sqrt(2 / waves)
    return fields


def ensemble(
    names: list[str],
    *,
    members: int = 4,
    steps: int = 3,
    step_hours: int = 24,
    grid: LatLonGrid | None = None,
    seed: int = 0,
    cycle: Cycle = CYCLE,
) -> xr.Dataset:
    """A forecast with the channels `names`, whose members draw apart with lead time."""
    grid = grid or LatLonGrid.with_poles(24, 13)
    rng = np.random.default_rng(seed)
    hours = np.arange(1, steps + 1) * step_hours
    growth = np.sqrt(hours / 240.0)[None, :, None, None]
    cosine = np.cos(np.deg2rad(np.asarray(grid.latitudes)))[:, None]
    variables = {}
    for name, levels in Channels.parse(names).variables.items():
        equator, pole, weather = _CLIMATE[name]
        columns = []
        for _ in levels or (None,):
            common = smooth_fields(rng, steps, grid)[None]
            apart = smooth_fields(rng, members, grid)[:, None] * growth
            climate = pole + (equator - pole) * cosine**2
            columns.append((climate + weather * (common + apart)).astype(np.float32))
        known = VARIABLES[name]
        attributes = {"units": known.units, "standard_name": known.standard_name}
        if levels:
            dims = ("number", "lead_time", "level", "latitude", "longitude")
            level = np.array(levels, np.int32)
            variables[name] = xr.DataArray(
                np.stack(columns, axis=2), {"level": level}, dims, attrs=attributes
            )
        else:
            dims = ("number", "lead_time", "latitude", "longitude")
            variables[name] = xr.DataArray(columns[0], dims=dims, attrs=attributes)
    return with_coordinates(xr.Dataset(variables), grid, members, hours, cycle)


def with_coordinates(
    fields: xr.Dataset, grid: LatLonGrid, members: int, hours: np.ndarray, cycle: Cycle
) -> xr.Dataset:
    lead = np.asarray(hours).astype("timedelta64[h]").astype("timedelta64[ns]")
    start = np.datetime64(cycle.init_time.replace(tzinfo=None), "ns")
    forecast = fields.assign_coords(
        number=np.arange(1, members + 1),
        lead_time=lead,
        latitude=np.asarray(grid.latitudes),
        longitude=np.asarray(grid.longitudes),
        init_time=start,
        valid_time=("lead_time", start + lead),
    )
    for key in forecast.coords:
        forecast[key].attrs.update(COORDINATE_ATTRIBUTES[str(key)])
    forecast["lead_time"].encoding = {"units": "hours", "dtype": "int32"}
    for key in ("init_time", "valid_time"):
        forecast[key].encoding = {"units": "hours since 1970-01-01", "dtype": "int64"}
    return forecast


def context_of(forecast: xr.Dataset, **changes: object) -> ProductContext:
    given: dict[str, object] = {
        "cycle": CYCLE,
        "variant": "test",
        "model": "Mosaic test",
        "members": forecast.sizes["number"],
        "step_hours": 24,
    }
    return ProductContext(**{**given, **changes})  # type: ignore[arg-type]


def climate_of(forecast: xr.Dataset, folder: Path, step_hours: int = 24) -> tuple[str, np.ndarray]:
    """File of a climatology of the forecast's grid with seasons 2 K apart; the first's mean."""
    lat, lon = forecast["latitude"].values, forecast["longitude"].values
    normal = 270 + 20 * np.cos(np.deg2rad(lat))[:, None] + 0 * lon
    mean = np.stack([normal, normal + 2.0])
    quantiles = mean[None] + np.array([-3.0, 0.0, 3.0])[:, None, None, None]
    space = ("dayofyear", "latitude", "longitude")
    attributes = {"statistic": "mean", "units": "K"}
    made = xr.Dataset(
        {
            "temperature_850": (("quantile", *space), quantiles, attributes),
            "temperature_850_mean": (space, mean, attributes),
        },
        {"quantile": [0.1, 0.5, 0.9], "dayofyear": [1.0, 183.625], "latitude": lat,
         "longitude": lon},
        {"format": climatology.FORMAT, "step_hours": step_hours},
    )  # fmt: skip
    climatology.write(made, folder / "climate.nc")
    return str(folder / "climate.nc"), normal
