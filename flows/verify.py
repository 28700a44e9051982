"""Scores of what has come true."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from prefect import flow, task

from flows import artifacts
from flows.reference import plain_name, site_of
from flows.report import score_table
from flows.tasks import HOUR, PATIENT
from mosaic_core.cycle import Cycle
from mosaic_core.errors import MosaicError
from mosaic_core.pipeline import verification
from mosaic_core.pipeline.scorecard import Valid, make_page
from mosaic_core.pipeline.site import Site

SHOWN_DAYS = 7
_log = logging.getLogger(__name__)


@flow(name="verify", flow_run_name=plain_name, persist_result=False)
def verify(
    profile: str, overrides: list[str] | None = None, cycle: str | None = None
) -> dict[str, Any]:
    """Verify what has come true with the analysis of a cycle, and what is outstanding before it.

    Args:
        profile: name in config/profiles, or a YAML file.
        overrides: `key=value` settings, as `mosaic run --set` takes them.
        cycle: initial time, ISO; the newest by default.
    """
    until = cycle or str(Cycle.latest_before(datetime.now(UTC)))
    done = verify_due(profile, overrides or [], until)
    show_scores(profile, overrides or [], until)
    return done


@task(**PATIENT, timeout_seconds=HOUR, task_run_name="verify until {cycle}")
def verify_due(profile: str, overrides: list[str], cycle: str) -> dict[str, Any]:
    """Score what is due; what cannot be scored now is taken up by the next run."""
    return verification.verify_due(site_of(profile, overrides), Cycle.parse(cycle)).as_dict()


def verify_after(profile: str, overrides: list[str], cycle: str) -> None:
    """Verify at the end of a cycle; a failure leaves the published forecast what it is."""
    try:
        verify_due(profile, overrides, cycle)
        show_scores(profile, overrides, cycle)
    except Exception as error:  # the next cycle takes up what is outstanding
        _log.error("verification after %s failed: %s: %s", cycle, type(error).__name__, error)


def show_scores(profile: str, overrides: list[str], cycle: str) -> None:
    """A table of the global scores of the last days, and the scorecard of the month."""
    site, until = site_of(profile, overrides), Cycle.parse(cycle)
    try:
        scores = site.catalog.average_scores(
            site.config.name,
            site.source.name,
            since=until.shift(-24 * SHOWN_DAYS),
            until=until,
            region="global",
        )
    except MosaicError as error:
        _log.warning("the scores cannot be shown: %s", error)
        return
    description = f"Global scores against {site.source.name}, mean of {SHOWN_DAYS} days"
    artifacts.show_table(site.config.name, "scores", score_table(scores), description)
    if scores:
        month = Valid.parse(until.init_time.strftime("%Y-%m"))
        show_scorecard(site, month)


def show_scorecard(site: Site, month: Valid) -> None:
    """The page of the month, in Markdown."""
    try:
        page = make_page(site, site.source.name, month)
    except MosaicError as error:
        _log.warning("the scorecard cannot be shown: %s", error)
        return
    artifacts.show_text(site.config.name, "scorecard", page.markdown())
