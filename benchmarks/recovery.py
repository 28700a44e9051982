"""How long a cycle takes to recover from kill -9: `python -m benchmarks.recovery`.

Each case kills something in the middle of the rollout of a tiny model, and measures until the cycle
is published. Waiting times are scaled down as in tests/flows/test_kills.py, and said in the result:
add the site's own (`recovery.quiet_minutes`, the schedule of `reconcile`) to compare.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.record import record
from flows.plan import plan_file
from tests.flows.conftest import recent, world_of
from tests.flows.held import Held, kill_server, kill_worker
from tests.flows.orchestra import Orchestra, kill, until
from tests.pipeline.world import copy_of

AWAY_SECONDS = 30
QUIET_MINUTES = 0.25


def nothing(held: Held) -> None:
    """The cycle as it is without a kill, for comparison."""


def forecast(held: Held) -> None:
    kill(held.process_of("forecast"))


def both_flows(held: Held) -> None:
    for flow in ("run-cycle", "forecast"):
        kill(held.process_of(flow))
    held.go_on()
    held.reconciled()


def worker(held: Held) -> None:
    kill_worker(held.orchestra)
    held.go_on()
    until(held.published, "the publication")
    held.orchestra.start_worker("gpu")


def worker_and_forecast(held: Held) -> None:
    pid = held.process_of("forecast")
    kill_worker(held.orchestra)
    kill(pid)
    held.go_on()
    held.orchestra.start_worker("gpu")


def server(held: Held) -> None:
    kill_server(held.orchestra)
    held.go_on()
    time.sleep(AWAY_SECONDS)
    held.orchestra.start_server()


CASES: dict[str, Callable[[Held], None]] = {
    "nothing": nothing,
    "forecast": forecast,
    "forecast and run-cycle": both_flows,
    "worker": worker,
    "worker and forecast": worker_and_forecast,
    f"server for {AWAY_SECONDS} s": server,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, cycle = Path(name), recent(1)[0]
        settings = {"products": ["statistics"], "recovery": {"quiet_minutes": QUIET_MINUTES}}
        world = world_of(folder / "world", [cycle], settings=settings)
        content = yaml.safe_load(plan_file().read_text())
        for entry in content["deployments"]:
            if entry["entrypoint"] == "flows.forecast.forecast":
                entry["entrypoint"] = "tests.flows.paused.forecast"
        plan = folder / "prefect.yaml"
        plan.write_text(yaml.safe_dump(content))
        orchestra = Orchestra(folder / "prefect", {"MOSAIC_TEST_PAUSE": str(folder / "pause")})
        try:
            orchestra.start_server()
            orchestra.deploy(world.profile, plan, "--paused")
            orchestra.start_worker("cpu")
            orchestra.start_worker("gpu")
            seconds = {}
            for i, (case, act) in enumerate(CASES.items()):
                copy = copy_of(world, folder / f"world-{i}")
                seconds[case] = _measured(Held(orchestra, copy, cycle), act)
                shutil.rmtree(copy.folder)
        finally:
            orchestra.end()
    result: dict[str, Any] = {
        "killed": "seconds until published",
        **seconds,
        "quiet_minutes": QUIET_MINUTES,
        "load after, of one minute": round(psutil.getloadavg()[0], 1),
    }
    record("recovery", "python -m benchmarks.recovery", result, ("prefect",))


def _measured(held: Held, act: Callable[[Held], None]) -> float:
    began = time.monotonic()
    act(held)
    held.go_on()
    until(held.published, "the publication", 600)
    seconds = round(time.monotonic() - began, 1)
    until(lambda: not held.orchestra.flow_processes(), "the processes of the runs to end", 600)
    return seconds


if __name__ == "__main__":
    main()
