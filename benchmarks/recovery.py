"""How long a cycle takes to recover from kill -9: `python -m benchmarks.recovery`.

Each case kills something in the middle of the rollout of a tiny model and measures, from the kill,
until the cycle is published and until its run has ended. PostgreSQL holds the catalog and Prefect's
database; the store is a real S3 server (`shared/tools/real-s3`). Two waiting times of the settings
are scaled down, as the result says: add the site's own to compare.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import record
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.pipeline.run import run_cycle
from mosaic_core.publication import client
from tests.flows.conftest import on_servers, performing, plan_with_pause, recent, site_to_kill
from tests.flows.held import ATTEMPTS, QUIET_MINUTES, Held, Kill
from tests.infra.real_s3 import real_s3_server
from tests.pipeline.world import copy_of
from tests.recovery.sites import site_of
from tests.servers import private_postgres


def nothing(held: Held) -> None:
    held.go_on()
    held.orchestra.completed(held.run)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, cycle = Path(name), recent(1)[0]
        before = site_to_kill(folder / "before", cycle)
        unbroken = copy_of(before, folder / "unbroken")
        run_cycle(site_of(unbroken), cycle)
        digest = client.manifest(unbroken.store).digest
        postgres = stack.enter_context(private_postgres())
        s3 = stack.enter_context(real_s3_server())
        s3.make_bucket("forecasts")
        os.environ.update(s3.environment)
        plan = plan_with_pause(folder)
        orchestra = stack.enter_context(
            performing(folder / "prefect", before.profile, plan, s3.environment, postgres.url)
        )
        orchestra.postgres, orchestra.s3 = postgres, s3
        cases: dict[str, Any] = {}
        for kill, attempts in {nothing: 1, **ATTEMPTS}.items():
            world = on_servers(before, folder / kill.__name__, postgres.url)
            held = Held(orchestra, world, cycle)
            cases[kill.__name__] = _measured(held, kill)
            held.require_published_once(digest, attempts)
            held.require_nothing_left()
            print(kill.__name__, cases[kill.__name__], flush=True)
    result = {
        "seconds after the kill": cases,
        "quiet_minutes": QUIET_MINUTES,
        "reconcile": "by hand, at once and then every 40 s",
    }
    record("recovery", "python -m benchmarks.recovery", result, ("prefect",))


def _measured(held: Held, kill: Kill) -> dict[str, float]:
    load, began, clock = psutil.getloadavg()[0], time.time(), time.monotonic()
    kill(held)
    ended = time.monotonic() - clock
    with Catalog(held.world.catalog) as catalog:
        (row,) = catalog.runs(cycle=held.cycle)
    assert row.published is not None
    return {
        "published": round(row.published.timestamp() - began, 1),
        "run ended": round(ended, 1),
        "load before": round(load, 1),
    }


if __name__ == "__main__":
    main()
