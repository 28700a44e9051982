"""A cycle that is held in the middle of its rollout, and what is killed there."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.publication import client
from tests.flows.orchestra import FINAL, Orchestra, kill, until
from tests.pipeline.world import World


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
        """Run the reconciler, as its schedule does, until the cycle is published."""

        def look() -> bool:
            if self.published():
                return True
            given = {"profile": self.world.profile, "forecast_on": "gpu-pool"}
            self.orchestra.completed(self.orchestra.trigger("reconcile/tiny", **given))
            return self.published()

        until(look, "the cycle to be published")

    def require_published_once(self, digest: str) -> None:
        until(self.published, "the cycle to be published")
        manifest = client.manifest(self.world.store)
        assert (manifest.cycle, manifest.revision) == (self.cycle, 1)
        assert manifest.digest == digest
        assert client.verify(self.world.store).ok
        with Catalog(self.world.catalog) as catalog:
            (row,) = catalog.runs()
            said = [e for e in catalog.events(kind="run", cycle=self.cycle) if e.new == "published"]
        assert row.state == "published"
        assert len(said) == 1

        def quiet() -> bool:
            states = {r["state_type"] for r in self.orchestra.runs("forecast")}
            return states <= FINAL

        until(quiet, "every run of the queue to have ended")


def kill_worker(orchestra: Orchestra) -> None:
    """kill -9 of the worker of pool `gpu`, and of nothing below it."""
    (worker,) = [p for p in orchestra.processes if "gpu" in p.args and p.poll() is None]
    kill(worker.pid)
    worker.wait()


def kill_server(orchestra: Orchestra) -> None:
    """kill -9 of the server and all that it has started."""
    (server,) = [p for p in orchestra.processes if "server" in p.args and p.poll() is None]
    for child in psutil.Process(server.pid).children(recursive=True):
        kill(child.pid)
    kill(server.pid)
    server.wait()
