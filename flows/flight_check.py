"""A small cycle on the production infrastructure: the same workers, device, store and catalog."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, task

from flows.cycle import run_cycle
from flows.reference import ForecastOn, plain_name, site_of
from flows.tasks import HOUR
from mosaic_core.cycle import Cycle
from mosaic_core.errors import StoreError
from mosaic_core.profile import Profile
from mosaic_core.publication import client

VARIANT = "flight-check"
_log = logging.getLogger(__name__)


@flow(name="flight-check", flow_run_name=plain_name, persist_result=False)
def flight_check(
    profile: str,
    overrides: list[str] | None = None,
    forecast_on: ForecastOn = "here",
    members: int = 2,
    steps: int = 2,
) -> dict[str, Any]:
    """From an analysis to a published forecast, read back byte for byte and removed.

    It is published below a prefix of its own, as variant `flight-check`; no one is told of it.

    Args:
        profile: name in config/profiles, or a YAML file.
        overrides: `key=value` settings, as `mosaic run --set` takes them.
        forecast_on: as `run-cycle` takes it.
        members, steps: of the ensemble.
    """
    settings = [*(overrides or []), *small(profile, overrides or [], members, steps)]
    cycle = newest(profile, settings)
    run_cycle(profile, cycle, settings, forecast_on, backfill=True)
    try:
        return read_back(profile, settings, cycle)
    finally:
        remove(profile, settings)


def small(profile: str, overrides: list[str], members: int, steps: int) -> list[str]:
    """Settings that make a profile small and keep it apart from the forecasts of its site."""
    site = Profile.load(profile, overrides)
    return [
        f"variant={VARIANT}",
        f"store={site.store.rstrip('/')}/{VARIANT}",
        f"members={min(members, site.members)}",
        f"steps={min(steps, site.steps)}",
        "events.webhook=null",
        "events.sns_topic=null",
    ]


def newest(profile: str, overrides: list[str]) -> str:
    """The newest cycle whose analysis can be there."""
    site = site_of(profile, overrides).profile
    now = datetime.now(UTC) - timedelta(hours=site.available_after_hours)
    return site.cycle or str(Cycle.latest_before(now))


@task(persist_result=False, timeout_seconds=HOUR)
def read_back(profile: str, overrides: list[str], cycle: str) -> dict[str, Any]:
    """Check every byte that was published, as a consumer would.

    Raises:
        IntegrityError: something is not what the manifest says.
    """
    store = site_of(profile, overrides).profile.store
    checked = client.verify(store, Cycle.parse(cycle), variant=VARIANT)
    return {"cycle": cycle, "objects": checked.objects, "bytes": checked.bytes}


@task(persist_result=False, timeout_seconds=HOUR)
def remove(profile: str, overrides: list[str]) -> None:
    """Remove what was published; where that is not allowed it stays, and is no harm."""
    site = site_of(profile, overrides)
    try:
        removed = sum(site.store.delete_all(part) for part in ("forecasts", "analyses"))
        _log.info("removed %d objects below %s", removed, site.store.url())
    except StoreError as error:
        _log.warning("the flight check was not removed: %s", error)
