"""What Prefect costs a cycle: `python -m benchmarks.orchestration`.

A tiny model, so that the stages themselves take little. The overhead is the time from asking for a
run to its end, less what the stages took by the catalog. Once with the ensemble in the run's own
process, once as a run of its own on pool `gpu`, each on a server and workers that wait.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import record
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from tests.flows.conftest import recent, world_of
from tests.flows.orchestra import Orchestra
from tests.pipeline.world import World


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cycles = recent(3)[1:]
        world = world_of(Path(folder) / "world", cycles, settings={"members_per_run": None})
        orchestra = Orchestra(Path(folder) / "prefect")
        try:
            began = time.monotonic()
            orchestra.start_server()
            started = time.monotonic()
            orchestra.deploy(world.profile, None, "--paused")
            deployed = time.monotonic()
            orchestra.start_worker("cpu")
            orchestra.start_worker("gpu")
            result = {
                "server ready": round(started - began, 1),
                "deployed": round(deployed - started, 1),
                "here": _cycle(orchestra, world, cycles[0], "here"),
                "gpu-pool": _cycle(orchestra, world, cycles[1], "gpu-pool"),
                "load before, of one minute": round(psutil.getloadavg()[0], 1),
            }
        finally:
            orchestra.end()
    record("orchestration", "python -m benchmarks.orchestration", result, ("prefect", "fastapi"))


def _cycle(orchestra: Orchestra, world: World, cycle: Cycle, where: str) -> dict[str, Any]:
    began = time.monotonic()
    given = {"cycle": str(cycle), "forecast_on": where, "backfill": True}
    orchestra.completed(orchestra.trigger("run-cycle/tiny", **given))
    seconds = time.monotonic() - began
    with Catalog(world.catalog) as catalog:
        (row,) = catalog.runs(cycle=cycle)
    stages = sum(row.timings.values())
    return {
        "seconds": round(seconds, 1),
        "stages": {name: round(taken, 2) for name, taken in row.timings.items()},
        "overhead": round(seconds - stages, 1),
    }


if __name__ == "__main__":
    main()
