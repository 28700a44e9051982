"""Retries and timeouts around the plain functions of `mosaic_core.pipeline`; no logic.

Arguments are references: a profile's name and an ISO time, never arrays. A task that is tried again
finds what is done done.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import task

from flows.artifacts import rollout_shown
from flows.reference import site_of
from mosaic_core.cycle import Cycle
from mosaic_core.errors import (
    AnalysisMissing,
    AnalysisRejected,
    ConfigurationError,
    CycleBusy,
    ModelError,
)
from mosaic_core.pipeline import beginning, steps
from mosaic_core.pipeline.references import Ingested
from mosaic_core.pipeline.reporting import Reporter

MINUTE, HOUR = 60.0, 3600.0
HOPELESS = (ConfigurationError, ModelError, AnalysisRejected)
FAILURES = 3
"""How often a step may fail before its run does; waiting for another run's claim is no failure."""


def retried(wait_for_analysis_until: datetime | None = None) -> Callable[[Any, Any, Any], bool]:
    """What is worth another try: not a wrong setting; a missing analysis before the cut-off."""

    def worth_it(_task: Any, run: Any, state: Any) -> bool:
        try:
            state.result()
        except HOPELESS:
            return False
        except CycleBusy:
            return True
        except AnalysisMissing:
            until = wait_for_analysis_until
            return until is not None and datetime.now(UTC) < until
        except Exception:
            return bool(run.run_count <= FAILURES)
        return False

    return worth_it


PATIENT: dict[str, Any] = {
    "retries": 600,
    "retry_delay_seconds": [5, 10, 20, 40, 60],
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": retried(),
    "persist_result": False,
}


def cut_off(profile: str, overrides: list[str], cycle: str) -> datetime:
    site = site_of(profile, overrides)
    return Cycle.parse(cycle).init_time + timedelta(hours=site.profile.cut_off_hours)


@task(**PATIENT, timeout_seconds=HOUR, task_run_name="ingest {cycle}")
def ingest(profile: str, overrides: list[str], cycle: str) -> dict[str, Any]:
    """Fetch, check and store the analyses; later steps read them back from the store."""
    return beginning.ingest(site_of(profile, overrides), Cycle.parse(cycle)).as_dict()


@task(**PATIENT, timeout_seconds=HOUR, task_run_name="begin {cycle}")
def begin(
    profile: str, overrides: list[str], cycle: str, ingested: dict[str, Any], backfill: bool
) -> dict[str, Any]:
    """Decide what is due, and take the cycle up in the catalog."""
    site, found = site_of(profile, overrides), Ingested.from_dict(ingested)
    return beginning.begin(site, Cycle.parse(cycle), found, backfill=backfill).as_dict()


@task(**PATIENT, timeout_seconds=6 * HOUR, task_run_name="forecast {cycle} r{revision} part {part}")
def forecast(
    profile: str, overrides: list[str], cycle: str, revision: int, part: int
) -> dict[str, Any]:
    """Compute what a part of the members lacks."""
    site = site_of(profile, overrides)
    with rollout_shown(site.config.name, f"{cycle} r{revision} part {part}") as show:
        reporter = Reporter(
            progress=lambda p: show(
                p.done / p.total,
                f"{p.done} of {p.total} member-steps, {p.rate:.1f}/s, ends {p.end:%H:%M:%S} UTC",
            )
        )
        done = steps.forecast(site, Cycle.parse(cycle), revision, part, reporter)
    return {"part": done.part, "of": done.of, "computed": done.computed, "seconds": done.seconds}


@task(**PATIENT, timeout_seconds=HOUR, task_run_name="join {cycle} r{revision}")
def join(profile: str, overrides: list[str], cycle: str, revision: int) -> None:
    """Close the ensemble."""
    steps.join(site_of(profile, overrides), Cycle.parse(cycle), revision)


@task(**PATIENT, timeout_seconds=HOUR, task_run_name="products {cycle} r{revision}")
def products(profile: str, overrides: list[str], cycle: str, revision: int) -> list[str]:
    """Make every product; which were made, the manifest says."""
    made = steps.products(site_of(profile, overrides), Cycle.parse(cycle), revision)
    return [result.id for result in made]


@task(**PATIENT, timeout_seconds=HOUR, task_run_name="publish {cycle} r{revision}")
def publish(profile: str, overrides: list[str], cycle: str, revision: int) -> dict[str, Any]:
    """Write the manifest, move `latest`, tell subscribers."""
    return steps.publish(site_of(profile, overrides), Cycle.parse(cycle), revision).as_dict()
