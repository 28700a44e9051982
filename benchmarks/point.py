"""The ensemble at a place: 24 members x 40 steps at 1.5 degrees, from a local store.

One channel's arrays are written as a run writes them; `first` opens the store and reads a place,
`next` reads other places of the opened store, each once, in a process that has imported all.
Besides the time that passed stands the processor time, as a busy machine stretches the former.

    python -m benchmarks.point [--folder DIR]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.record import record
from mosaic_core.channels import Channels
from mosaic_core.cycle import Cycle
from mosaic_core.ensemble.layout import EnsembleSpec, ForecastLayout
from mosaic_core.ensemble.store import ForecastStore
from mosaic_core.grid import LatLonGrid
from mosaic_core.publication.series import at_place
from mosaic_core.storage import open_store

NAMES = ("2m_temperature", "temperature_850")


def written(folder: Path) -> ForecastStore:
    grid = LatLonGrid.with_poles(240, 121)
    layout = ForecastLayout(
        cycle=Cycle.parse("2026-11-20T00Z"), variant="hres", grid=grid,
        channels=Channels.parse(NAMES), step_hours=6, spec=EnsembleSpec(24, 40), weights="0" * 64,
        state="", precision="float32", batch=8,
    )  # fmt: skip
    store = ForecastStore.begin(open_store(folder), "f", layout)
    rng = np.random.default_rng(0)
    shape = (len(NAMES), 8, layout.window, grid.nlat, grid.nlon)
    values = (280 + 8 * rng.standard_normal(shape)).astype(np.float32)
    for window, batch in store.written().missing():
        store.write(window, batch, values)
    store.seal()
    return store


def measure(folder: Path) -> dict[str, Any]:
    store = written(folder)
    places = [(float(lat), float(lon)) for lat, lon in
              np.random.default_rng(1).uniform((-90, 0), (90, 359), (25, 2))]  # fmt: skip
    at_place(store.open(), *places[0], ["temperature_850"])  # threads and codecs have begun

    def timed(work: Any) -> tuple[float, float]:
        began, used = time.perf_counter(), time.process_time()
        work()
        return time.perf_counter() - began, time.process_time() - used

    first = [timed(lambda p=p: at_place(store.open(), *p, ["2m_temperature"])) for p in places]
    opened = store.open()
    after = [timed(lambda p=p: at_place(opened, *p, ["2m_temperature"])) for p in places]
    shape = at_place(opened, *places[0], ["2m_temperature"])["2m_temperature"].shape
    return {
        "shape": list(shape),
        "first_seconds_median": median(wall for wall, _ in first),
        "first_seconds_least": min(wall for wall, _ in first),
        "first_processor_seconds_median": median(used for _, used in first),
        "next_seconds_median": median(wall for wall, _ in after),
        "next_seconds_least": min(wall for wall, _ in after),
        "next_processor_seconds_median": median(used for _, used in after),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    folder = Path(tempfile.mkdtemp(dir=parser.parse_args().folder))
    try:
        result = measure(folder)
    finally:
        shutil.rmtree(folder)
    packages = ("zarr", "zarrs", "xarray", "obstore", "numpy")
    record("point", "python -m benchmarks.point", result, packages)


if __name__ == "__main__":
    main()
