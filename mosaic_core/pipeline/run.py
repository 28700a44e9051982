"""A whole cycle in one process, under one claim: the steps, one after the other."""

from __future__ import annotations

from mosaic_core import tracing
from mosaic_core.cycle import Cycle
from mosaic_core.pipeline import records, steps
from mosaic_core.pipeline.claims import claimed
from mosaic_core.pipeline.references import CycleReport
from mosaic_core.pipeline.reporting import QUIET, Reporter, Stage
from mosaic_core.pipeline.site import Site

__all__ = ["CycleReport", "Reporter", "Stage", "run_cycle"]


def run_cycle(site: Site, cycle: Cycle, reporter: Reporter | None = None) -> CycleReport:
    """Run a cycle to its publication; whatever an earlier attempt has done is kept.

    It is run though a newer one is published: who asks for a cycle gets it.

    Raises:
        CycleBusy: another run holds this cycle.
        MosaicError: the stage that failed; the catalog has the row, nothing is half published.
    """
    reporter = reporter or QUIET
    variant = site.config.name
    span = tracing.span("cycle", variant=variant, cycle=cycle.id)
    with span, claimed(site.catalog, cycle, variant) as alive:
        ingested = steps.ingest(site, cycle, reporter)
        begun = steps.begin(site, cycle, ingested, backfill=True)
        if begun.outcome == "unchanged":
            found = records.manifest_of(site, cycle, begun.revision)
            assert found is not None
            report = steps.report_of(site, found, "unchanged")
            report.timings = {"ingest": ingested.seconds}
            return report
        undelivered: list[str] = []
        for part in begun.parts:
            alive()
            undelivered += steps.forecast(site, cycle, begun.revision, part, reporter).undelivered
        alive()
        undelivered += steps.join(site, cycle, begun.revision)
        steps.products(site, cycle, begun.revision, reporter)
        alive()
        report = steps.publish(site, cycle, begun.revision, reporter)
        report.undelivered = undelivered + report.undelivered
        return report
