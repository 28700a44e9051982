"""Start again what is due and neither published nor under way.

The catalog says what is due. A run that died is never set going again; a new one is asked for, at
most `recovery.attempts` times a cycle, each under an idempotency key of its own.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, task
from prefect.states import Crashed

from flows import artifacts
from flows.reference import ForecastOn, fingerprint, plain_name, site_of
from flows.submission import ask_for, mark_crashed
from flows.tasks import PATIENT
from mosaic_core.pipeline import recovery
from mosaic_core.pipeline.agreement import differences
from mosaic_core.pipeline.recovery import Due
from mosaic_core.pipeline.site import Site

_log = logging.getLogger(__name__)


@flow(name="reconcile", flow_run_name=plain_name, persist_result=False)
def reconcile(
    profile: str, overrides: list[str] | None = None, forecast_on: ForecastOn = "here"
) -> dict[str, Any]:
    """Mend what store and catalog differ in, and ask for a run of the newest cycle that is due.

    Args:
        profile: name in config/profiles, or a YAML file.
        overrides: `key=value` settings, as `mosaic run --set` takes them.
        forecast_on: as `run-cycle` takes it.
    """
    settings = overrides or []
    mended = mend(profile, settings)
    found = start_due(profile, settings, forecast_on)
    artifacts.show_table(profile, "differences", mended, "Store and catalog differed")
    artifacts.show_table(profile, "due", found["due"] + found["exhausted"], "Cycles that were due")
    return found


@task(**PATIENT, timeout_seconds=240)
def mend(profile: str, overrides: list[str]) -> list[dict[str, Any]]:
    """Put right what store and catalog differ in, where that can be done."""
    return [one.as_dict() for one in differences(site_of(profile, overrides), mend=True)]


@task(**PATIENT, timeout_seconds=240)
def start_due(profile: str, overrides: list[str], forecast_on: str) -> dict[str, Any]:
    """Ask for a run of what is due; one at a time, because the newest supersedes the others."""
    site = site_of(profile, overrides)
    found = recovery.backlog(site)
    recovery.record_superseded(site, found)
    for one in found.exhausted:
        _log.error("%s has failed too often (%s): it is left to people", one.cycle, one.reason)
    if found.next is not None:
        parameters = {
            "profile": profile, "overrides": overrides, "cycle": str(found.next.cycle),
            "forecast_on": forecast_on,
        }  # fmt: skip
        start(site, found.next, parameters)
    return found.as_dict()


def start(site: Site, due: Due, parameters: dict[str, Any]) -> None:
    """Ask for one attempt, once; one that ended without a word is counted as lost.

    So is one that a worker took up and never began: it died in between.
    """
    key = f"{fingerprint(parameters['profile'], parameters['overrides'])}-{due.key}"
    tags = [str(due.cycle), site.config.name, "reconciled"]
    name = f"run-cycle/{site.profile.name}"
    run = ask_for(name, parameters, key, tags, part_of_this_run=False)
    state, quiet = run.state, timedelta(minutes=site.profile.recovery.quiet_minutes)
    if state is not None and state.is_pending() and datetime.now(UTC) - state.timestamp > quiet:
        state = Crashed(message=f"It has been {state.name} for {quiet.total_seconds():.0f} s")
        mark_crashed(run.id, str(state.message))
    if state is not None and state.is_final():
        reason = f"run {run.name} of Prefect ended as {state.name}: {state.message}"
        recovery.count_lost_attempt(site, due, reason)
    else:
        _log.warning("%s is due (%s): %s", due.cycle, due.reason, run.name)
