"""24 members x 40 steps x 82 channels written to a local store by one process.

`writing`: windows of smooth waves with noise in the last digits, copied while the one before is
written. `whole_run`: the whole path of an ensemble, rollout, reading back and resume markers
included, with such fields in place of the network's; on a CPU it shares the cores with the writing.

    python -m benchmarks.store [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import peak_gb, record
from mosaic_core.cycle import Cycle
from mosaic_core.ensemble.layout import EnsembleSpec
from mosaic_core.ensemble.run import layout_for, run_ensemble
from mosaic_core.ensemble.store import ForecastStore
from mosaic_core.initial_state import InitialState
from mosaic_core.model.checkpoint import LoadedModel, ModelVersion
from mosaic_core.model.config import ModelConfig
from mosaic_core.storage import open_store


class Waves:
    """Takes the place of the network: fields that compress like weather."""

    def __init__(self, config: ModelConfig) -> None:
        self.config, self.static_vars = config, torch.zeros(1)
        rng = np.random.default_rng(0)
        grid, channels = config.lat_lon, len(config.channel_set)
        lon, lat = np.deg2rad(np.array(grid.longitudes)), np.deg2rad(np.array(grid.latitudes))
        fields = np.empty((*grid.shape, channels), np.float32)
        for channel in range(channels):
            waves = sum(np.sin(k * lon + rng.uniform(0, 6.3)) / k for k in range(1, 40))
            fields[..., channel] = np.asarray(waves)[:, None] * np.cos(lat) ** 2
        fields += 0.005 * rng.standard_normal(fields.shape, np.float32)
        self.fields = torch.from_numpy(fields)

    def __call__(self, states: Tensor, day_year: Tensor, z: Tensor) -> Tensor:
        return self.fields * (1 + 0.1 * z[:, :1, None, None])


def setting() -> tuple[LoadedModel, InitialState]:
    config = ModelConfig.load("hres")
    channels = len(config.channel_set)
    network: Any = Waves(config)
    version = ModelVersion("hres", "0" * 64, False, "", "")
    mean, std = torch.full((channels,), 250.0), torch.full((channels,), 20.0)
    cycle = Cycle.parse("2026-11-20T00Z")
    times = tuple(cycle.history_times(config.history, config.step_hours))
    values = np.zeros((len(times), *config.lat_lon.shape, channels), np.float32)
    state = InitialState(cycle, config.lat_lon, config.channel_set, values, times)
    return LoadedModel(config, network, mean, std, version), state


def write_windows(store: ForecastStore, template: np.ndarray) -> None:
    with ThreadPoolExecutor(1) as writer:
        pending = None
        for window, batch in store.written().missing():
            computed = template.copy()
            if pending is not None:
                pending.result()
            pending = writer.submit(store.write, window, batch, computed)
            del computed
        assert pending is not None
        pending.result()
    store.seal()


def measure(part: str, folder: Path) -> dict[str, Any]:
    model, state = setting()
    layout = layout_for(model, state, EnsembleSpec(24, 40), batch=8)
    store = ForecastStore.begin(open_store(folder), "f", layout)
    if part == "writing":
        z = torch.randn(8, 1)
        fields = model.network(None, None, z).mul_(20).add_(250).permute(3, 0, 2, 1)
        template = np.repeat(fields.numpy()[:, :, None], layout.window, axis=2)
        rng = np.random.default_rng(1)
        for channel in template:
            channel += 0.1 * rng.standard_normal(channel.shape, np.float32)
        del fields
    before = peak_gb()
    began = time.perf_counter()
    if part == "writing":
        write_windows(store, template)
    else:
        run_ensemble(model, state, store)
    seconds = time.perf_counter() - began
    above = peak_gb() - before
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    ensemble = store.open()
    began = time.perf_counter()
    place = ensemble["2m_temperature"].sel(latitude=52.5, longitude=13.5).values
    raw = 24 * 40 * len(layout.channels) * layout.grid.nlon * layout.grid.nlat * 4
    return {
        "raw_gb": raw / 1e9,
        "seconds": seconds,
        "raw_mb_per_second": raw / seconds / 1e6,
        "stored_over_raw": sum(sizes) / raw,
        "objects": len(sizes),
        "peak_gb_above_start": above,
        "point_series_seconds": time.perf_counter() - began,
        "point_series_shape": list(place.shape),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--part", choices=["writing", "whole_run"])
    given = parser.parse_args()
    if given.part:
        folder = Path(tempfile.mkdtemp(dir=given.folder))
        try:
            print(json.dumps(measure(given.part, folder)))
        finally:
            shutil.rmtree(folder)
        return
    result = {}
    for part in ("writing", "whole_run"):
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.store", "--part", part]
        command += ["--folder", str(given.folder)] if given.folder else []
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result[part] = json.loads(done.stdout)
    packages = ("torch", "zarr", "zarrs", "obstore", "numpy")
    record("store", "python -m benchmarks.store", result, packages)


if __name__ == "__main__":
    main()
