"""A cycle in steps that may run in processes of their own, on hosts of their own.

    ingest -> begin -> forecast (each part) -> join -> products -> publish

What one step leaves for the next is in the catalog and the store; arguments are references. Every
step can be repeated: what is done is found done. Each holds the claim on what it works on: the
cycle, or one part of its members. A store or catalog that is away is waited for inside the step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mosaic_core.catalog.models import ForecastRun
from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError, ForecastError
from mosaic_core.pipeline import records, stages
from mosaic_core.pipeline.beginning import begin, due_parts, ingest, parts_of
from mosaic_core.pipeline.claims import claimed
from mosaic_core.pipeline.references import (
    CycleReport,
    Forecasted,
    ProductResult,
    results_from_plain,
    results_to_plain,
)
from mosaic_core.pipeline.reporting import QUIET, Reporter, note_readable, tell
from mosaic_core.pipeline.site import Site
from mosaic_core.pipeline.watch import Watch
from mosaic_core.products.product import ProductFailure
from mosaic_core.publication import events, layout
from mosaic_core.publication.manifest import Manifest

if TYPE_CHECKING:
    from mosaic_core.ensemble.run import Progress

__all__ = ["begin", "forecast", "ingest", "join", "products", "publish"]
_log = logging.getLogger(__name__)


def forecast(
    site: Site, cycle: Cycle, revision: int, part: int = 1, reporter: Reporter = QUIET
) -> Forecasted:
    """Compute what a part of the members lacks, from the first window that is missing.

    Parts may run at the same time on several hosts. They write into one store, whose batches are
    those of the part that came first: members are the same bit for bit as those of an unsplit run
    with the same batches on the same kind of device, and the same to rounding with others. All
    hosts of one attempt need the same code, weights and kind of device.

    Raises:
        CycleBusy: another process works on this part.
        ForecastError: parts of one attempt are of different forecasts, or a state is not finite.
    """
    variant, members = site.config.name, parts_of(site)
    if not 1 <= part <= len(members):
        raise ConfigurationError(
            f"part {part} of {variant} {cycle}",
            f"1 to {len(members)}: {site.profile.members} members, "
            f"{site.profile.members_per_run} a run",
        )
    name = "forecast" if len(members) == 1 else f"forecast-{part}"
    reached = 0

    def work(run: ForecastRun, alive: Callable[[], None]) -> Forecasted:
        if _is_published(site, run) or part not in _due_parts(site, run):
            _log.info("%s %s: %s is done", variant, cycle, name)
            return Forecasted(part, len(members), computed=False, device=run.device)
        began = time.monotonic()
        records.bring(site, run, "forecasting")
        watch = Watch(site, run, reporter, alive)

        def on_progress(progress: Progress) -> None:
            nonlocal reached
            reached = max(reached, progress.lead_hours)
            watch.on_progress(progress)

        with records.timed(site, run, name):
            device = stages.forecast(
                site, cycle, records.state_of(site, run), revision, members[part - 1],
                discard=watch.discard, begin=watch.begin, on_progress=on_progress,
            )  # fmt: skip
        site.catalog.note_run(run, device=device)
        seconds = round(time.monotonic() - began, 3)
        return Forecasted(part, len(members), True, device, seconds, tuple(watch.undelivered))

    with claimed(site.catalog, cycle, variant, part) as alive:
        steps = f"{len(members[part - 1])} members, {site.profile.steps} steps"
        reporter.stage("forecast", steps)
        return records.step(
            site, cycle, revision, name, lambda run: work(run, alive), lambda: reached
        )


def join(site: Site, cycle: Cycle, revision: int) -> tuple[str, ...]:
    """Close the ensemble: it is whole when all its parts are, and can be read.

    Returns:
        what subscribers could not be told of it, in words.

    Raises:
        ForecastError: members are missing; their parts are named.
    """
    from mosaic_core.ensemble.written import seal

    def work(run: ForecastRun) -> tuple[str, ...]:
        if _is_published(site, run):
            return ()
        due = _due_parts(site, run)
        if due:
            raise ForecastError(
                f"{', '.join(f'part {part}' for part in due)} of {len(parts_of(site))} of "
                f"{site.config.name} {cycle} {'is' if len(due) == 1 else 'are'} not whole",
                "every member of the ensemble",
                "run the forecast of what is missing again, then join",
            )
        seal(site.store, layout.forecast_prefix(site.config.name, cycle, revision))
        return note_readable(site, run, site.profile.steps, None)

    with claimed(site.catalog, cycle, site.config.name):
        return records.step(site, cycle, revision, "join", work)


def products(
    site: Site, cycle: Cycle, revision: int, reporter: Reporter = QUIET
) -> list[ProductResult]:
    """Make every product of a joined ensemble; one that fails does not hold back the others.

    Returns:
        what became of each; nothing for a forecast that is published already.

    Raises:
        ForecastError: the ensemble is not joined.
    """

    def work(run: ForecastRun) -> list[ProductResult]:
        if _is_published(site, run):
            return []
        state = records.state_of(site, run)
        wanted = stages.wanted_identity(site, cycle, state)
        found = stages.written_of(site, cycle, revision, wanted)
        if found is None or not found.sealed:
            raise ForecastError(
                f"the ensemble of {site.config.name} {cycle} r{revision} is not joined",
                "the step `join` before `products`",
                "run it, or the whole cycle again",
            )
        records.bring(site, run, "products")
        with records.timed(site, run, "products"):
            results = stages.make_products(site, cycle, state, revision)
        for result in results:
            if isinstance(result, ProductFailure):
                _log.warning("product %s is missing: %s", result.id, result.reason)
                site.catalog.record_product(
                    run, key=result.id, name=result.id, state="failed", error=result.reason
                )
        site.catalog.note_run(run, facts={"results": results_to_plain(results)})
        return results

    with claimed(site.catalog, cycle, site.config.name):
        reporter.stage("products", ", ".join(site.profile.products))
        return records.step(site, cycle, revision, "products", work)


def publish(site: Site, cycle: Cycle, revision: int, reporter: Reporter = QUIET) -> CycleReport:
    """Publish what `products` made, tell subscribers, and bring the run to its end.

    Raises:
        ForecastError: the products of this attempt were not made yet.
    """

    def work(run: ForecastRun) -> CycleReport:
        published = records.manifest_of(site, cycle, revision)
        if published is not None and run.state == "published":
            stages.complete_publication(site, cycle)
            return report_of(site, published, "published")
        plain = run.facts.get("results")
        if plain is None:
            raise ForecastError(
                f"the products of {site.config.name} {cycle} r{revision} were not made",
                "the step `products` before `publish`",
                "run it, or the whole cycle again",
            )
        records.bring(site, run, "publishing")
        results = results_from_plain(plain)
        state, times = records.state_of(site, run), records.timeliness_of(run)
        with records.timed(site, run, "publish"):
            done = stages.publish_forecast(site, state, results, times, revision)
        # A repeated publish finds its own manifest: that is no other forecast come out equal.
        own = done.manifest.revision == revision
        outcome = "published" if own else done.outcome
        event = events.published_event(site.store.url(), done.manifest)
        problems = tell(site, cycle, event)
        records.record_published(site, run, done.manifest, outcome)
        report = report_of(site, done.manifest, outcome)
        report.timings = dict(run.timings)
        report.products, report.undelivered = results, problems
        return report

    with claimed(site.catalog, cycle, site.config.name):
        reporter.stage("publish", site.store.url())
        return records.step(site, cycle, revision, "publish", work)


def report_of(site: Site, manifest: Manifest, outcome: str) -> CycleReport:
    """What is to be said of a published forecast."""
    return CycleReport(manifest.cycle, outcome, manifest, site.store.url(manifest.prefix))


def _is_published(site: Site, run: ForecastRun) -> bool:
    """Whether nothing of a revision may be touched any more."""
    return records.manifest_of(site, run.cycle, run.revision) is not None


def _due_parts(site: Site, run: ForecastRun) -> tuple[int, ...]:
    wanted = stages.wanted_identity(site, run.cycle, records.state_of(site, run))
    return due_parts(site, run.cycle, run.revision, wanted)
