"""Every product of config/products.yaml of a full-size forecast: 24 members, 40 steps, 82 channels.

The ensemble, at 1.5 degrees, is written to a local store as a run writes it: patterns with the
slope of weather's spectra about each channel's climate, that drift and whose members draw apart.
The climatology that `probabilities` and `extremes` name is one with seasons, of such patterns.
Products are made in a process of their own, by one call of `build_products`; besides the time that
passed stands the processor time of all threads, as a busy machine stretches the former. Matrix
products run on one thread: those of `spectra` are so small that a second one mostly waits.

    python -m benchmarks.products [--folder DIR] [--only NAME ...] [--members 24] [--steps 40]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from benchmarks.record import peak_gb, record
from mosaic_core.channels import Channel
from mosaic_core.cycle import Cycle
from mosaic_core.dims import LATITUDE, LEVEL, LONGITUDE
from mosaic_core.ensemble.layout import EnsembleSpec, ForecastLayout
from mosaic_core.ensemble.store import ForecastStore, open_ensemble
from mosaic_core.model.config import ModelConfig
from mosaic_core.products import climatology
from mosaic_core.products.fields import channels_of
from mosaic_core.products.output import Output
from mosaic_core.products.product import (
    BuiltProduct,
    Product,
    ProductContext,
    build_products,
    load_products,
)
from mosaic_core.settings import read_config
from mosaic_core.spectral import SphericalHarmonics, power
from mosaic_core.storage import open_store

Field = NDArray[np.float32]

CYCLE = Cycle.parse("2026-11-20T00Z")
PATTERNS = 61
DAY_STEPS = 4
# Value at the equator, at the poles, size of the weather; those on levels are of 850 hPa or so.
CLIMATE = {
    "2m_temperature": (299.0, 250.0, 5.0),
    "10m_u_component_of_wind": (-3.0, 2.0, 5.0),
    "10m_v_component_of_wind": (0.0, 0.0, 5.0),
    "mean_sea_level_pressure": (101200.0, 100400.0, 1100.0),
    "specific_humidity": (0.012, 0.001, 0.001),
    "u_component_of_wind": (0.0, 8.0, 9.0),
    "v_component_of_wind": (0.0, 0.0, 8.0),
    "vertical_velocity": (0.0, 0.0, 0.2),
}


class Weather:
    """Synthetic fields (latitude, longitude) of a channel, member and step; smooth, of no model."""

    def __init__(self, config: ModelConfig) -> None:
        grid = config.lat_lon
        harmonics = SphericalHarmonics(grid)
        rng = np.random.default_rng(0)
        n = harmonics.truncation + 1
        slope = np.maximum(np.arange(n), 4.0) ** -1.9 * np.tri(n).T
        shape = (PATTERNS, n, n)
        parts = rng.standard_normal(shape), rng.standard_normal(shape)
        waves = np.empty(shape, np.complex128)
        waves.real, waves.imag = (slope * part for part in parts)
        waves[:, 0] = waves[:, 0].real
        waves[:, 0, 0] = 0.0
        waves /= np.sqrt(power(waves).sum(axis=-1))[:, None, None]
        self.patterns = harmonics.synthesis(waves).astype(np.float32)
        self.cosine = np.cos(np.deg2rad(grid.latitudes)).astype(np.float32)[:, None]
        self.channels = config.channel_set

    def field(self, channel: Channel, member: int, step: int) -> Field:
        """`member` 0 is what all have in common; `step` 0 the analysis."""
        index = self.channels.names.index(channel.name)
        common = np.roll(self.patterns[(7 * index + 1) % PATTERNS], step, axis=1)
        own = np.roll(self.patterns[(11 * index + 3 * member) % PATTERNS], 5 * member + step, 1)
        growth = 0.05 + 0.9 * np.sqrt(step / 40) if member else 0.0
        equator, pole, size = climate_of(channel)
        mean = pole + (equator - pole) * self.cosine**2
        return np.asarray(mean + size * (common + growth * own), np.float32)


def climate_of(channel: Channel) -> tuple[float, float, float]:
    """Value at the equator and at the poles, and the size of the weather."""
    height = 7600.0 * np.log(1013.0 / (channel.level or 1013))
    if channel.variable == "geopotential":
        return 9.81 * 1.02 * height + 400, 9.81 * 0.93 * height - 300, 900.0
    if channel.variable == "temperature":
        return max(200.0, 299 - 0.0063 * height), max(215.0, 252 - 0.005 * height), 4.0
    equator, pole, size = CLIMATE[channel.variable]
    if channel.variable == "specific_humidity":
        thin = float(np.exp(-height / 2500.0))
        return equator * thin, pole * thin, size * thin
    return equator, pole, size


def write_ensemble(folder: Path, weather: Weather, config: ModelConfig, size: EnsembleSpec) -> None:
    layout = ForecastLayout(
        cycle=CYCLE, variant=config.name, grid=config.lat_lon, channels=config.channel_set,
        step_hours=config.step_hours, spec=size, weights="0" * 64, state="", precision="float32",
        batch=8,
    )  # fmt: skip
    store = ForecastStore.begin(open_store(folder), "f", layout)
    for window, batch in store.written().missing():
        members, steps = layout.batches[batch], layout.windows[window]
        shape = (len(layout.channels), len(members), len(steps), *weather.patterns.shape[1:])
        values = np.empty(shape, np.float32)
        for index, channel in enumerate(layout.channels):
            for i, member in enumerate(members):
                for j, step in enumerate(steps):
                    values[index, i, j] = weather.field(channel, member, step)
        store.write(window, batch, values)
    store.seal()


def write_climatology(path: Path, weather: Weather, config: ModelConfig) -> None:
    """Quantiles of 40 days of the patterns, with a season of 3 K laid over every tenth day."""
    days = 40
    times = np.datetime64("2025-01-01T06", "ns") + np.arange(days * DAY_STEPS) * np.timedelta64(
        6, "h"
    )
    names = [name for field in climatology.FIELDS for name in channels_of(field)]
    variables: dict[str, Any] = {}
    for name in names:
        channel = Channel.parse(name)
        planes = [weather.field(channel, 1 + k // DAY_STEPS, k % 41) for k in range(len(times))]
        axes = ("time", LATITUDE, LONGITUDE)
        if channel.level is None:
            variables[name] = (axes, np.stack(planes))
        else:
            variables[channel.variable] = (("time", LEVEL, *axes[1:]), np.stack(planes)[:, None])
    grid = config.lat_lon
    archive = xr.Dataset(
        variables,
        {"time": times, LEVEL: [850], LATITUDE: list(grid.latitudes),
         LONGITUDE: list(grid.longitudes)},
    )  # fmt: skip
    made = climatology.make(archive, climatology.Recipe(climatology.FIELDS, config.step_hours))
    centres = np.arange(1.0, 366.0, 10.0)
    season = xr.DataArray(3 * np.sin(2 * np.pi * centres / 365), {climatology.DAY: centres})
    with_seasons = {}
    for key, array in made.data_vars.items():
        lead = [dim for dim in array.dims if dim == climatology.QUANTILE]
        turned = (array + season * ("wind" not in str(key))).astype(np.float32)
        turned = turned.transpose(*lead, climatology.DAY, LATITUDE, LONGITUDE)
        with_seasons[key] = turned.assign_attrs(array.attrs)
    climatology.write(xr.Dataset(with_seasons, attrs=made.attrs), path)


def context_of(weather: Weather, config: ModelConfig, size: EnsembleSpec) -> ProductContext:
    levels = sorted({c.level for c in config.channel_set if c.level is not None})
    variables: dict[str, Any] = {}
    for name, own in config.channel_set.variables.items():
        planes = [weather.field(Channel(name, level), 0, 0) for level in sorted(own) or (None,)]
        dims = (LEVEL, LATITUDE, LONGITUDE) if own else (LATITUDE, LONGITUDE)
        variables[name] = (dims, np.stack(planes) if own else planes[0])
    grid = config.lat_lon
    axes = {LEVEL: levels, LATITUDE: list(grid.latitudes), LONGITUDE: list(grid.longitudes)}
    analysis = xr.Dataset(variables, axes)
    return ProductContext(
        CYCLE, config.name, "Mosaic hres, synthetic values", size.members, config.step_hours,
        analysis=analysis,
    )  # fmt: skip


def configured(climate: Path, only: list[str]) -> list[Product]:
    """The products of config/products.yaml, with the climatology where one is named."""
    known: Mapping[str, Any] = read_config("", "products")[0]
    chosen = {name: dict(known[name]) for name in only or known}
    for settings in chosen.values():
        if "climatology" in settings:
            settings["climatology"] = str(climate)
    return load_products(chosen)


def timed(product: Product, spent: dict[str, float]) -> Product:
    """The product; the processor time from its first part to its last goes into `spent`."""
    build: Callable[..., Any] = product.build

    def counted(forecast: xr.Dataset, context: ProductContext) -> Iterator[Output]:
        began = time.process_time()
        yield from build(forecast, context)
        spent[product.id] = time.process_time() - began

    return replace(product, build=counted)


def prepare(folder: Path, size: EnsembleSpec) -> dict[str, Any]:
    config = ModelConfig.load("hres")
    weather = Weather(config)
    write_ensemble(folder, weather, config, size)
    write_climatology(folder / "climate.nc", weather, config)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    points = config.lat_lon.nlat * config.lat_lon.nlon
    raw = 4 * size.members * size.steps * len(config.channel_set) * points
    return {"raw_gb": raw / 1e9, "stored_over_raw": stored / raw}


def measure(folder: Path, size: EnsembleSpec, only: list[str]) -> dict[str, Any]:
    config = ModelConfig.load("hres")
    context = context_of(Weather(config), config, size)
    products = configured(folder / "climate.nc", only)
    processor: dict[str, float] = {}
    start = peak_gb()
    began, used, load = time.perf_counter(), time.process_time(), os.getloadavg()[0]
    store = open_store(folder)
    results = build_products(
        [timed(product, processor) for product in products],
        open_ensemble(store, "f"),
        context,
        store,
        "f",
    )
    seconds, total = time.perf_counter() - began, time.process_time() - used
    made = {}
    for result in results:
        if not isinstance(result, BuiltProduct):
            raise RuntimeError(f"{result.id}: {result.reason}")
        made[result.id] = {
            "seconds": round(result.seconds, 2),
            "processor_seconds": round(processor[result.id], 2),
            "assets": len(result.assets),
            "mb": round(sum(asset.size for asset in result.assets) / 1e6, 1),
        }
    return {
        "members": size.members,
        "steps": size.steps,
        "channels": len(config.channel_set),
        "products": made,
        "seconds": round(seconds, 1),
        "processor_seconds": round(total, 1),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "peak_gb": round(peak_gb(), 2),
        "peak_gb_before": round(start, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    parser.add_argument("--only", nargs="*", default=[], help="products; all by default")
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--part", choices=["prepare", "measure"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        size = EnsembleSpec(given.members, given.steps)
        part = prepare(given.folder, size) if given.part == "prepare" else measure(
            given.folder, size, given.only
        )  # fmt: skip
        print(json.dumps(part))
        return
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    size_of = ["--members", str(given.members), "--steps", str(given.steps)]
    result: dict[str, Any] = {}
    one_blas_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        for name in ("prepare", "measure"):
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.products", "--part", name]
            command += ["--folder", str(folder), *size_of, "--only", *given.only]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, env=one_blas_thread
            )
            result |= json.loads(done.stdout)
    finally:
        shutil.rmtree(folder)
    packages = ("numpy", "xarray", "zarr", "zarrs", "matplotlib", "eccodes", "netcdf4")
    record("products", "python -m benchmarks.products", result, packages)


if __name__ == "__main__":
    main()
