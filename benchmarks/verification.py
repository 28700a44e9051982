"""Verification of a cycle's due forecasts: 40 lead times x 82 channels, 24 members, 1.5 degrees.

40 forecasts from cycles 6 h apart come true with one analysis, each at another lead time. Their
store is written as runs write it, of smooth waves with noise in the last digits. Since it is 40
steps long and no larger or smaller for one cycle than for another, one is written and linked 40
times, each read at its own step. All that `config/verification.yaml` asks for is made, but of all
channels: scores by region against persistence and climatology, ranks, events, spectra; rows go to
SQLite and arrays to the store.

The verification has a process of its own. Besides the time that passed stands the processor time,
as a busy machine stretches the former.

    python -m benchmarks.verification [--folder DIR] [--leads N]
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
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from benchmarks.record import peak_gb, record
from mosaic_core import dims
from mosaic_core.analysis.store import write_analysis
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.channels import ERA5_82, VARIABLES
from mosaic_core.cycle import Cycle
from mosaic_core.ensemble.layout import EnsembleSpec, ForecastLayout
from mosaic_core.ensemble.store import ForecastStore
from mosaic_core.model.config import ModelConfig
from mosaic_core.pipeline.site import Site
from mosaic_core.pipeline.truth import StoredAnalyses
from mosaic_core.pipeline.verification import verify_each
from mosaic_core.pipeline.verifier import Due
from mosaic_core.profile import Profile
from mosaic_core.publication import layout
from mosaic_core.storage import open_store
from mosaic_core.verification.climatology import Climatology
from mosaic_core.verification.settings import VerificationSettings

Values = NDArray[np.float32]
LEADS, MEMBERS, STEP_HOURS = 40, 24, 6
TRUE_WITH = Cycle.parse("2026-11-20T00Z")


def waves(rng: np.random.Generator, config: ModelConfig, count: int) -> Values:
    """(count, latitude, longitude) of about unit size."""
    lon, lat = (
        np.deg2rad(np.array(x)) for x in (config.lat_lon.longitudes, config.lat_lon.latitudes)
    )
    made = np.zeros((count, lat.size, lon.size), np.float32)
    for k in range(1, 40):
        phase = rng.uniform(0, 6.3, (count, 1, 1))
        made += (np.sin(k * lon + phase + 2 * np.sin(lat)[:, None]) / k).astype(np.float32)
    made *= np.cos(lat)[:, None].astype(np.float32) ** 2
    return made + 0.005 * rng.standard_normal(made.shape, np.float32)


def dataset(fields: Values, when: datetime, config: ModelConfig) -> xr.Dataset:
    """One analysis of planes (channel, latitude, longitude)."""
    levels = sorted({c.level for c in ERA5_82 if c.level})
    variables: dict[str, Any] = {}
    for name, own in ERA5_82.variables.items():
        planes = [fields[i] for i, c in enumerate(ERA5_82) if c.variable == name]
        space = (dims.LATITUDE, dims.LONGITUDE)
        axes = (dims.VALID_TIME, *((dims.LEVEL,) if own else ()), *space)
        stack = np.stack(planes) if own else planes[0]
        variables[name] = (axes, stack[None], {"units": VARIABLES[name].units})
    coordinates = {
        dims.VALID_TIME: [np.datetime64(when.replace(tzinfo=None), "ns")],
        dims.LEVEL: levels,
        dims.LATITUDE: list(config.lat_lon.latitudes),
        dims.LONGITUDE: list(config.lat_lon.longitudes),
    }
    return xr.Dataset(variables, coordinates)


def setting(folder: Path, leads: int) -> tuple[Site, VerificationSettings, list[Due]]:
    """A site in a folder, with all channels in its settings, and what is due."""
    config, store = ModelConfig.load("hres"), open_store(folder / "store")
    profile = Profile("benchmark", "hres", {}, store.root, f"sqlite:///{folder}/catalog.sqlite",
                      MEMBERS, LEADS)  # fmt: skip
    source: Any = SimpleNamespace(name="synthetic")
    site = Site(profile, config, source, store, Catalog(profile.catalog), (), ())
    climatology = str(folder / "climatology.npz")
    settings = VerificationSettings.load()
    settings = replace(settings, channels=ERA5_82.names, climatology=climatology)
    when, hours = TRUE_WITH.init_time, [STEP_HOURS * lead for lead in range(1, leads + 1)]
    return site, settings, [Due(when, TRUE_WITH.shift(-h), 1, h) for h in hours]


def prepare(folder: Path, leads: int) -> None:
    """Write the forecasts, the analyses and the climatology."""
    site, settings, dues = setting(folder, leads)
    rng = np.random.default_rng(0)
    truth = 280 + 20 * waves(rng, site.config, len(ERA5_82))
    for cycle in (TRUE_WITH, *(due.cycle for due in dues)):
        fields = dataset(truth, cycle.init_time, site.config)
        write_analysis(site.store, fields, "synthetic", ERA5_82, [])
    first, *others = (folder / "store" / layout.forecast_prefix("hres", d.cycle) for d in dues)
    _forecast(site, layout.forecast_prefix("hres", dues[0].cycle), dues[0].cycle, truth, rng)
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(first)
    mean, deviation = np.full(truth.shape, 280.0), np.full(truth.shape, 20.0)
    made = Climatology(site.config.lat_lon, ERA5_82, mean, deviation, {})
    made.write(Path(str(settings.climatology)))


def _forecast(
    site: Site, prefix: str, cycle: Cycle, truth: Values, rng: np.random.Generator
) -> None:
    shape = ForecastLayout(
        cycle=cycle, variant=site.config.name, grid=site.config.lat_lon, channels=ERA5_82,
        step_hours=STEP_HOURS, spec=EnsembleSpec(MEMBERS, LEADS), weights="0" * 64, state="",
        precision="float32", batch=8,
    )  # fmt: skip
    store = ForecastStore.begin(site.store, prefix, shape)
    errors = waves(rng, site.config, 8 * shape.window).reshape(8, shape.window, *truth.shape[1:])
    values = truth[:, None, None] + 5 * errors
    for plane in values:
        plane += 0.1 * rng.standard_normal(plane.shape, np.float32)
    for window, batch in store.written().missing():
        store.write(window, batch, values + np.float32(batch))
    store.seal()


def measure(folder: Path, leads: int) -> dict[str, Any]:
    site, settings, dues = setting(folder, leads)
    load = os.getloadavg()[0]
    began, used = time.perf_counter(), time.process_time()
    report = verify_each(site, StoredAnalyses(site), settings, dues)
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    assert len(report.verified) == leads, report.failed
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    return {
        "lead_times": leads,
        "channels": len(ERA5_82),
        "members": MEMBERS,
        "seconds": seconds,
        "processor_seconds": processor,
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "peak_gb": peak_gb(),
        "stored_gb": sum(sizes) / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--leads", type=int, default=LEADS, help="fewer are not recorded")
    parser.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.prepared:
        print(json.dumps(measure(given.prepared, given.leads)))
        return
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        prepare(folder, given.leads)
        command = [sys.executable, "-m", "benchmarks.verification", "--prepared", str(folder)]
        command += ["--leads", str(given.leads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        shutil.rmtree(folder)
    result = json.loads(done.stdout)
    if given.leads < LEADS:
        print(json.dumps(result, indent=1))
        return
    packages = ("zarr", "zarrs", "xarray", "obstore", "numpy", "scipy")
    record("verification", "python -m benchmarks.verification", result, packages)


if __name__ == "__main__":
    main()
