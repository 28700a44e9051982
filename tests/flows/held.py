"""A cycle that is held in the middle of its rollout, and what is killed there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.publication import client
from tests.flows.orchestra import FINAL, Orchestra, kill, until
from tests.pipeline.world import World

QUIET_MINUTES = 1.0
"""`recovery.quiet_minutes` of the sites whose runs are killed: longer than a run takes to begin."""


class Held:
    """A cycle in the middle of its rollout."""

    def __init__(self, orchestra: Orchestra, world: World, cycle: Cycle) -> None:
        self.orchestra, self.world, self.cycle = orchestra, world, cycle
        self.flag = Path(orchestra.given["MOSAIC_TEST_PAUSE"])
        self.reached = self.flag.with_suffix(".reached")
        self.reached.unlink(missing_ok=True)
        self.flag.touch()
        given = {"profile": world.profile, "cycle": str(cycle)}
        self.run = orchestra.trigger("run-cycle/tiny", **given)
        until(self.reached.exists, "the middle of the rollout")

    def go_on(self) -> None:
        self.flag.unlink(missing_ok=True)

    def process_of(self, flow: str) -> int:
        """Process of the run of a flow that is under way."""
        running = [r["id"] for r in self.orchestra.runs(flow) if r["state_type"] == "RUNNING"]
        for pid in self.orchestra.flow_processes():
            with contextlib.suppress(psutil.Error):
                if psutil.Process(pid).environ().get("PREFECT__FLOW_RUN_ID") in running:
                    return pid
        raise AssertionError(f"no process runs {flow}: {running}")

    def published(self) -> bool:
        with Catalog(self.world.catalog) as catalog:
            return bool(catalog.runs(cycle=self.cycle, states=("published",)))

    def reconciled(self) -> None:
        """Run the reconciler now and then, as its schedule does, until the cycle is published."""

        def look() -> bool:
            given = {"profile": self.world.profile, "forecast_on": "gpu-pool"}
            self.orchestra.completed(self.orchestra.trigger("reconcile/tiny", **given))
            with contextlib.suppress(AssertionError):
                until(self.published, "the cycle to be published", 40)
            return self.published()

        until(look, "the cycle to be published")

    def part_ended(self) -> None:
        """Wait until the part of the members that was held is over."""

        def over() -> bool:
            runs = self.orchestra.runs("forecast")
            mine = [r for r in runs if r["parameters"].get("profile") == self.world.profile]
            return any(r["state_type"] in FINAL for r in mine)

        until(over, "the end of the part")

    def require_published_once(self, digest: str, attempts: int) -> None:
        """It is published whole, once, as `digest`, in the catalog and in the store."""
        until(self.published, "the cycle to be published")
        manifest = client.manifest(self.world.store)
        assert (manifest.cycle, manifest.revision) == (self.cycle, 1)
        assert manifest.digest == digest
        assert client.verify(self.world.store).ok
        with Catalog(self.world.catalog) as catalog:
            (row,) = catalog.runs()
            said = [e for e in catalog.events(kind="run", cycle=self.cycle) if e.new == "published"]
        assert (row.state, row.attempts) == ("published", attempts)
        assert len(said) == 1

    def require_nothing_left(self) -> None:
        """No run holds a place in a queue, and no process has outlived its run."""

        def quiet() -> bool:
            runs = [*self.orchestra.runs("forecast"), *self.orchestra.runs("run-cycle")]
            return {r["state_type"] for r in runs} <= FINAL

        until(quiet, "every run to have ended")
        until(lambda: not self.orchestra.flow_processes(), "every process of a run to have ended")


def kill_forecast(held: Held) -> None:
    kill(held.process_of("forecast"))
    held.go_on()
    held.orchestra.completed(held.run)


def kill_run_cycle(held: Held) -> None:
    kill(held.process_of("run-cycle"))
    held.go_on()
    held.part_ended()
    held.reconciled()


def kill_both_flows(held: Held) -> None:
    for flow in ("run-cycle", "forecast"):
        kill(held.process_of(flow))
    held.go_on()
    held.reconciled()


def kill_worker(held: Held) -> None:
    kill_worker_of_gpu(held.orchestra)
    held.go_on()
    held.part_ended()  # without a worker
    held.orchestra.start_worker("gpu")
    held.orchestra.completed(held.run)


def kill_worker_and_forecast(held: Held) -> None:
    pid = held.process_of("forecast")
    kill_worker_of_gpu(held.orchestra)
    kill(pid)
    held.go_on()
    held.orchestra.start_worker("gpu")
    held.orchestra.completed(held.run)


def kill_server_for_two_minutes(held: Held) -> None:
    orchestra = held.orchestra
    _away(held, orchestra.kill_server, lambda: orchestra.start_server(), 120)


def kill_postgres_for_a_minute(held: Held) -> None:
    server = held.orchestra.postgres
    assert server is not None
    _away(held, server.kill, server.start, 60)


def kill_s3_for_a_minute(held: Held) -> None:
    server = held.orchestra.s3
    assert server is not None
    _away(held, server.kill, server.start, 60)


Kill = Callable[[Held], None]
ATTEMPTS: dict[Kill, int] = {
    kill_forecast: 1,
    kill_run_cycle: 2,
    kill_both_flows: 2,
    kill_worker: 1,
    kill_worker_and_forecast: 1,
    kill_server_for_two_minutes: 1,
    kill_postgres_for_a_minute: 1,
    kill_s3_for_a_minute: 1,
}
"""What can be killed, and how many attempts at the cycle that makes by the catalog."""


def _away(
    held: Held, kill: Callable[[], None], start: Callable[[], object], seconds: float
) -> None:
    kill()
    held.go_on()
    time.sleep(seconds)
    start()
    held.orchestra.completed(held.run)


def kill_worker_of_gpu(orchestra: Orchestra) -> None:
    """kill -9 of the worker of pool `gpu`, and of nothing below it."""
    (worker,) = [p for p in orchestra.processes if "gpu" in p.args and p.poll() is None]
    kill(worker.pid)
    worker.wait()
