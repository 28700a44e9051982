"""Verify published forecasts against what came true; what is done is in the catalog."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from mosaic_core.catalog.models import ForecastRun
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CatalogError, IntegrityError, MosaicError, StoreError
from mosaic_core.pipeline.computing import Computing, found, one_ahead
from mosaic_core.pipeline.forecasts import Archive, Forecasts
from mosaic_core.pipeline.site import Site
from mosaic_core.pipeline.truth import StoredAnalyses, Truth
from mosaic_core.pipeline.verifier import Due, Verifier
from mosaic_core.publication.latest import read_manifest
from mosaic_core.storage import ObjectMissing
from mosaic_core.verification.settings import VerificationSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VerificationReport:
    """What a verification did.

    Attributes:
        truth: name of what was verified against.
        verified: lead times that have scores now and had none.
        failed: those that could not be verified, and why.
        left: due, but beyond what one go may do.
        waiting: whether the analysis that was asked about is not there yet.
    """

    truth: str
    verified: tuple[Due, ...] = ()
    failed: tuple[tuple[Due, str], ...] = ()
    left: int = 0
    waiting: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "truth": self.truth,
            "verified": [str(due) for due in self.verified],
            "failed": {str(due): reason for due, reason in self.failed},
            "left": self.left,
            "waiting": self.waiting,
        }


def verify_due(
    site: Site,
    cycle: Cycle,
    settings: VerificationSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    since: Cycle | None = None,
    computing: Computing = one_ahead,
) -> VerificationReport:
    """Verify every published forecast that comes true with the analysis of `cycle`.

    Lead times of earlier analyses that are still without scores are made up, the newest first, up
    to `at_most` in one go and `max_age_days` back. One that fails (a value that is not finite, an
    object that is damaged) leaves the others; it is an event, and is tried again next time.

    Args:
        on_progress: told how many lead times of how many are done.
        since: forecasts from this initial time on, however old and however many they are.
        computing: where; see `computing`.

    Raises:
        ConfigurationError: the settings, or a model without any of the channels.
        CatalogError, StoreError: not reachable.
    """
    settings = settings or VerificationSettings.load()
    analyses = StoredAnalyses(site)
    report = verify(
        site, analyses, cycle.init_time, settings, on_progress, since=since, computing=computing
    )
    if analyses.has(cycle.init_time):
        return report
    _log.info("the analysis of %s is not there yet", cycle)
    return replace(report, waiting=True)


def verify(
    site: Site,
    truth: Truth,
    until: datetime,
    settings: VerificationSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    cycles: Iterable[Cycle] | None = None,
    lead_hours: Iterable[int] | None = None,
    *,
    since: Cycle | None = None,
    computing: Computing = one_ahead,
) -> VerificationReport:
    """Verify what is due against `truth` up to the valid time `until`; see `verify_due`.

    Args:
        cycles: only forecasts of these; their age does not matter then.
        lead_hours: only these lead times.
    """
    settings = settings or VerificationSettings.load()
    wanted = None if cycles is None else set(cycles)
    at_most = settings.at_most if since is None else None
    since = since or Cycle.latest_before(until - timedelta(days=settings.max_age_days))
    if wanted is not None:
        since = min(wanted, default=since)
    runs = [
        run
        for run in published_runs(site)
        if run.cycle >= since and (wanted is None or run.cycle in wanted)
    ]
    due = sorted(_due(site, truth, runs, since, until, lead_hours), reverse=True)
    now = due[:at_most]
    if truth.forward:
        now.reverse()
    report = verify_each(site, truth, settings, now, on_progress, computing)
    return replace(report, left=len(due) - len(now))


def verify_archive(
    site: Site,
    truth: Truth,
    forecasts: Archive,
    until: datetime,
    settings: VerificationSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    since: Cycle | None = None,
) -> VerificationReport:
    """Verify forecasts of another model that have come true by `until`, as the site's own are.

    Their scores stand under the other model's name, so that pages of scores can compare with them.
    What has scores is not done again; `at_most` and `max_age_days` hold as in `verify_due`.

    Args:
        since: forecasts from this initial time on, however old and however many they are.
    """
    settings = settings or VerificationSettings.load()
    oldest = since or Cycle.latest_before(until - timedelta(days=settings.max_age_days))
    scored = site.catalog.scored(forecasts.name, truth.name, oldest)
    due, has = [], cache(truth.has)
    for cycle in map(Cycle, forecasts.times):
        for hours in forecasts.hours if cycle >= oldest else ():
            valid = cycle.init_time + timedelta(hours=hours)
            if hours > 0 and valid <= until and (cycle, hours) not in scored and has(valid):
                due.append(Due(valid, cycle, 1, hours))
    due.sort(reverse=True)
    now = due[: settings.at_most if since is None else None]
    if truth.forward:
        now.reverse()
    report = verify_each(site, truth, settings, now, on_progress, forecasts=forecasts)
    return replace(report, left=len(due) - len(now))


def verify_each(
    site: Site,
    truth: Truth,
    settings: VerificationSettings,
    dues: Sequence[Due],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    computing: Computing = one_ahead,
    forecasts: Forecasts | None = None,
) -> VerificationReport:
    """Verify lead times that have come true; see `verify_due`."""
    verifier = Verifier(site, truth, settings, forecasts)
    model = verifier.forecasts.name
    verified, failed = [], []
    on_progress(0, len(dues))
    for done, (one, answer) in enumerate(computing(verifier, dues), start=1):
        try:
            verifier.keep(found(answer))
            verified.append(one)
        except MosaicError as error:
            if _is_away(error):
                raise
            _log.error("%s of %s cannot be verified: %s", one, model, error)
            site.catalog.record_event(
                "verification-failed", str(one), cycle=one.cycle, variant=model,
                truth=truth.name, error=str(error),
            )  # fmt: skip
            failed.append((one, str(error)))
        on_progress(done, len(dues))
    return VerificationReport(truth.name, tuple(verified), tuple(failed))


def _is_away(error: MosaicError) -> bool:
    """Whether the catalog or the whole store refuses, not one object in it."""
    if isinstance(error, IntegrityError | ObjectMissing):
        return False
    return isinstance(error, CatalogError | StoreError)


def published_runs(site: Site) -> list[ForecastRun]:
    """The newest published revision of each cycle, newest cycle first."""
    newest: dict[Cycle, ForecastRun] = {}
    for run in site.catalog.runs(variant=site.config.name, states=("published",)):
        newest.setdefault(run.cycle, run)
    return list(newest.values())


def _due(
    site: Site,
    truth: Truth,
    runs: Sequence[ForecastRun],
    since: Cycle,
    until: datetime,
    lead_hours: Iterable[int] | None,
) -> Iterator[Due]:
    """Lead times without scores, or with scores of an earlier revision, whose truth is there."""
    scored = site.catalog.scored(site.config.name, truth.name, since)
    only = None if lead_hours is None else set(lead_hours)
    has = cache(truth.has)
    for run in runs:
        manifest = read_manifest(site.store, run.variant, run.cycle, run.revision)
        if manifest is None:
            _log.info("%s %s r%d is no longer stored", run.variant, run.cycle, run.revision)
            continue
        ensemble = manifest.ensemble
        for step in range(1, ensemble.steps + 1):
            hours = step * ensemble.step_hours
            valid = run.cycle.init_time + timedelta(hours=hours)
            when = scored.get((run.cycle, hours))
            done = when is not None and (run.published is None or when >= run.published)
            if done or valid > until or (only is not None and hours not in only):
                continue
            if has(valid):
                yield Due(valid, run.cycle, run.revision, hours)
