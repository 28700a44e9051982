"""Conservative regridding of all 82 channels from 0.25 to 1.5 degrees.

    OMP_NUM_THREADS=1 python benchmarks/regrid.py

writes benchmarks/results/regrid.json.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr

from mosaic_core.analysis.regrid import regrid_dataset
from mosaic_core.channels import ERA5_82
from mosaic_core.grid import LatLonGrid

TARGET_SECONDS = 3.0


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
        start, cpu = time.perf_counter(), time.process_time()
        regrid_dataset(source, target)
        seconds.append((time.perf_counter() - start, time.process_time() - cpu))
    first, rest = seconds[0], seconds[1:]
    result = {
        "command": " ".join(("python", *sys.argv)),
        "what": "82 channels, 1440 x 721 -> 240 x 121, conservative, weights made once",
        "first_call_s": round(first[0], 3),
        "median_s": round(float(np.median([wall for wall, _ in rest])), 3),
        "median_cpu_s": round(float(np.median([cpu for _, cpu in rest])), 3),
        "target_s": TARGET_SECONDS,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "threads": os.environ.get("OMP_NUM_THREADS", "unset"),
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "xarray")},
        },
    }
    path = Path(__file__).parent / "results" / "regrid.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
