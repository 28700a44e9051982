"""A range of past cycles; those published already are passed over: begin it again at will."""

from __future__ import annotations

import logging
from typing import Any

from prefect import flow, task

from flows import artifacts
from flows.reference import ForecastOn, fingerprint, site_of
from flows.submission import Errand, bring_about
from flows.tasks import HOUR
from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError, ForecastError, MosaicError
from mosaic_core.pipeline.site import Site

DONE = ("published", "unchanged")
_log = logging.getLogger(__name__)


@flow(
    name="backfill", flow_run_name="{first} to {last} by {parallel} {profile}", persist_result=False
)
def backfill(
    first: str,
    last: str,
    profile: str,
    overrides: list[str] | None = None,
    parallel: int = 2,
    forecast_on: ForecastOn = "gpu-pool",
) -> dict[str, Any]:
    """Run every cycle of a range that is not published, newest first; `latest` never moves back.

    Args:
        first, last: initial times, ISO: `2026-11-20T00Z`; both belong to the range.
        parallel: cycles under way at the same time.
        forecast_on: as `run-cycle` takes it.

    Raises:
        ForecastError: some could not be published; the others are.
    """
    if parallel < 1:
        raise ConfigurationError(f"{parallel} cycles at the same time", "one or more")
    site, settings = site_of(profile, overrides or []), overrides or []
    cycles = cycles_between(first, last)
    todo = [cycle for cycle in cycles if not _published(site, cycle)]
    run_all(profile, settings, [str(cycle) for cycle in todo], parallel, forecast_on)
    done = [{"cycle": str(cycle), "run now": cycle in todo} for cycle in cycles]
    artifacts.show_table(site.config.name, "backfill", done, f"{len(cycles)} cycles are published")
    return {"cycles": len(cycles), "run": [str(cycle) for cycle in todo]}


def cycles_between(first: str, last: str) -> list[Cycle]:
    """Every cycle from `first` to `last`, newest first.

    Raises:
        ConfigurationError: `last` is before `first`.
    """
    begin, end = Cycle.parse(first), Cycle.parse(last)
    if end < begin:
        raise ConfigurationError(f"cycles from {begin} to {end}", "the earlier one first")
    found = [end]
    while found[-1] > begin:
        found.append(found[-1].predecessor)
    return found


@task(persist_result=False, task_run_name="{parallel} at a time")
def run_all(
    profile: str, overrides: list[str], cycles: list[str], parallel: int, forecast_on: ForecastOn
) -> None:
    """Ask for a run of each cycle, `parallel` at a time, and wait until all are published.

    Raises:
        ForecastError: some were tried twice in vain; the others are published.
    """
    site = site_of(profile, overrides)
    key = f"{fingerprint(profile, overrides)}-{site.config.name}"

    def errand(cycle: Cycle) -> Errand:
        parameters: dict[str, Any] = {
            "profile": profile, "overrides": overrides, "cycle": str(cycle),
            "forecast_on": forecast_on, "backfill": True,
        }  # fmt: skip
        return Errand(
            f"run-cycle/{site.profile.name}", f"{key}-{cycle.id}-backfill", parameters,
            done=lambda: _published(site, cycle), held=lambda: True,
            quiet_seconds=HOUR, tags=[str(cycle), site.config.name, "backfill"],
        )  # fmt: skip

    failed: dict[str, str] = {}

    def give_up(errand: Errand, error: ForecastError) -> None:
        failed[errand.parameters["cycle"]] = error.found
        _log.error("%s", error)

    errands = [errand(Cycle.parse(cycle)) for cycle in cycles]
    bring_about(errands, len(cycles) * 12 * HOUR, attempts=2, parallel=parallel, give_up=give_up)
    if failed:
        raise ForecastError(
            f"{len(failed)} of {len(cycles)} cycles are not published: {', '.join(failed)}",
            "all of the range",
            "read their runs' pages; begin the backfill again, which passes over the others",
        )


def _published(site: Site, cycle: Cycle) -> bool | None:
    """None while the catalog does not say."""
    try:
        return bool(site.catalog.runs(cycle=cycle, variant=site.config.name, states=DONE))
    except MosaicError as error:
        _log.warning("whether %s is published is not known: %s", cycle, error.found)
        return None
