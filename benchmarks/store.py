"""24 members x 40 steps x 82 channels written to a local store from one process.

The fields are smooth waves with noise in the last digits, made once and shifted for every window,
so that making them does not count.

    python -m benchmarks.store [--folder DIR]
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.record import record
from mosaic_core.channels import ERA5_82
from mosaic_core.cycle import Cycle
from mosaic_core.ensemble.layout import EnsembleSpec, ForecastLayout
from mosaic_core.ensemble.store import ForecastStore
from mosaic_core.grid import LatLonGrid
from mosaic_core.storage import open_store


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def fields(layout: ForecastLayout) -> np.ndarray:
    rng = np.random.default_rng(0)
    lon = np.deg2rad(np.array(layout.grid.longitudes, np.float32))
    lat = np.deg2rad(np.array(layout.grid.latitudes, np.float32))
    shape = (len(layout.channels), layout.batch, layout.window, *layout.grid.shape[::-1])
    out = np.empty(shape, np.float32)
    for channel in out:
        waves = sum(
            np.cos(lat)[:, None] ** 2 * np.sin(k * lon + rng.uniform(0, 6.3)) / k
            for k in range(1, 40)
        )
        noise = rng.standard_normal(channel.shape, np.float32)
        channel[:] = 250 + 10 * waves + 0.05 * noise
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    grid = LatLonGrid.with_poles(240, 121)
    layout = ForecastLayout(
        Cycle.parse("2026-11-20T00Z"), "benchmark", grid, ERA5_82, 6,
        EnsembleSpec(24, 40), "weights", "state", "float32", batch=8,
    )  # fmt: skip
    try:
        store = ForecastStore.begin(open_store(folder), "f", layout)
        before = peak_gb()
        values = fields(layout)
        began = time.perf_counter()
        raw = 0
        with ThreadPoolExecutor(1) as writer:
            pending = None
            for window, batch in store.missing():
                computed = np.empty_like(values)
                computed[:] = values
                if pending is not None:
                    pending.result()
                pending = writer.submit(store.write, window, batch, computed)
                raw += computed.nbytes
            assert pending is not None
            pending.result()
        store.seal()
        seconds = time.perf_counter() - began
        stored = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        objects = sum(1 for p in folder.rglob("*") if p.is_file())
        ensemble = store.open()
        point_began = time.perf_counter()
        place = ensemble["2m_temperature"].sel(latitude=52.5, longitude=13.5).values
        point = time.perf_counter() - point_began
    finally:
        shutil.rmtree(folder)
    record(
        "store",
        "python -m benchmarks.store",
        {
            "raw_gb": raw / 1e9,
            "seconds": seconds,
            "raw_mb_per_second": raw / seconds / 1e6,
            "stored_over_raw": stored / raw,
            "objects": objects,
            "peak_gb_above_start": peak_gb() - before - values.nbytes / 1e9,
            "note": "two windows in flight; the template they are copied from is not counted",
            "point_series_seconds": point,
            "point_series_shape": list(place.shape),
        },
        ("zarr", "obstore", "numpy"),
    )


if __name__ == "__main__":
    main()
