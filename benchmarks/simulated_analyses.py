"""Time of the last 24 h of simulated analyses, all 82 channels, from opening the source.

OMP_NUM_THREADS=1 python -m benchmarks.simulated_analyses
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.record import record
from mosaic_core.channels import ERA5_82
from mosaic_core.simulation.source import SimulatedSource
from mosaic_core.threads import one_thread

CYCLE = datetime(2026, 1, 5, tzinfo=UTC)
TIMES = [CYCLE - timedelta(hours=6 * i) for i in range(4, -1, -1)]
CASES = ((42, (240, 121)), (31, (240, 121)), (31, (72, 37)))


def measure(truncation: int, grid: tuple[int, int]) -> dict[str, Any]:
    """Wall and processor seconds of five analyses, the four days before included."""
    wall, cpu = time.perf_counter(), time.process_time()
    settings = {"truncation": truncation, "grid": list(grid), "checkpoints": ""}
    SimulatedSource({"kind": "simulated", **settings}).fetch(ERA5_82, TIMES)
    return {
        "truncation": truncation,
        "grid": f"{grid[0]} x {grid[1]}",
        "seconds": round(time.perf_counter() - wall, 2),
        "processor_seconds": round(time.process_time() - cpu, 2),
    }


def main() -> None:
    with one_thread():
        cases = [measure(*case) for case in CASES]
    record(
        "simulated_analyses",
        "OMP_NUM_THREADS=1 python -m benchmarks.simulated_analyses",
        {
            "what": "five analyses to 2026-01-05T00Z, integrated from 2026-01-01, one thread; "
            "the machine was shared, so the processor's seconds are those of the work",
            "cases": cases,
        },
        ("numpy", "xarray"),
    )


if __name__ == "__main__":
    main()
