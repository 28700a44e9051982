"""Conservative regridding of all 82 channels from 0.25 to 1.5 degrees.

OMP_NUM_THREADS=1 python -m benchmarks.regrid
"""

from __future__ import annotations

import os
import statistics
import time

import numpy as np
import xarray as xr

from benchmarks.record import peak_gb, record
from mosaic_core.analysis.regrid import regrid_dataset
from mosaic_core.channels import ERA5_82
from mosaic_core.grid import LatLonGrid


def analysis() -> xr.Dataset:
    """All 82 channels at one time on 1440 x 721 points, smooth waves and noise."""
    grid = LatLonGrid.with_poles(1440, 721)
    rng = np.random.default_rng(0)
    coords = {"latitude": list(grid.latitudes), "longitude": list(grid.longitudes)}
    variables = {}
    for name, levels in ERA5_82.variables.items():
        shape = (1, len(levels), 721, 1440) if levels else (1, 721, 1440)
        names = ("valid_time", "level", "latitude", "longitude")
        kept = names if levels else (names[0], *names[2:])
        variables[name] = (kept, rng.standard_normal(shape, dtype=np.float32))
        if levels:
            coords["level"] = list(levels)
    return xr.Dataset(variables, coords)


def main() -> None:
    source, target = analysis(), LatLonGrid.with_poles(240, 121)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        regrid_dataset(source, target)
        seconds.append(time.perf_counter() - start)
    record(
        "regrid",
        "OMP_NUM_THREADS=1 python -m benchmarks.regrid",
        {
            "what": "82 channels, 1440 x 721 -> 240 x 121, conservative",
            "first_call_seconds": seconds[0],
            "median_seconds": statistics.median(seconds[1:]),
            "peak_gb": peak_gb(),
            "threads": os.environ.get("OMP_NUM_THREADS", "unset"),
        },
        ("numpy", "scipy", "xarray"),
    )


if __name__ == "__main__":
    main()
