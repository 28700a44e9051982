"""The run of one cycle, as Prefect sees it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import tasks
from flows.parts import forecast_on_pool
from flows.reference import ForecastOn, cycle_of, run_name, scheduled, site_of
from flows.showing import failure_shown, rename, show_published, skipped
from flows.verify import verify_after
from mosaic_core.pipeline.beginning import superseded


@flow(name="run-cycle", flow_run_name=run_name, persist_result=False)
def run_cycle(
    profile: str,
    cycle: str | None = None,
    overrides: list[str] | None = None,
    forecast_on: ForecastOn = "here",
    backfill: bool = False,
) -> dict[str, Any] | State[Any]:
    """Analyses in, published forecast out.

    Args:
        profile: name in config/profiles, or a YAML file.
        cycle: initial time, ISO: `2026-11-20T00Z`; that of the scheduled time by default.
        overrides: `key=value` settings, as `mosaic run --set` takes them.
        forecast_on: run the ensemble in this process, or as runs of their own on pool `gpu`.
        backfill: run it though a newer cycle is published.
    """
    settings = overrides or []
    site = site_of(profile, settings)
    when = cycle_of(site.profile, cycle, scheduled())
    with failure_shown(site, when):
        reason = "" if backfill else skipped(cycle) or superseded(site, when)
        if reason:
            return Completed(name="Skipped", message=f"{when} is not run: {reason}")
        analyses = tasks.ingest.with_options(
            retry_condition_fn=tasks.retried(tasks.cut_off(profile, settings, str(when)))
        )
        ingested = analyses(profile, settings, str(when))
        begun = tasks.begin(profile, settings, str(when), ingested, backfill)
        variant = site.config.name
        rename(f"{when} {variant} r{begun['revision']}", str(when), variant)
        if begun["outcome"] == "superseded":
            return Completed(name="Skipped", message=f"{when} is not run: {begun['reason']}")
        if begun["outcome"] == "unchanged":
            show_published(site, when, begun["revision"], "unchanged")
            return Completed(name="Unchanged", message=f"published before: {begun['url']}")
        given = (profile, settings, str(when), begun["revision"])
        if forecast_on == "gpu-pool":
            forecast_on_pool(*given, begun["attempt"])
        else:
            for part in begun["parts"]:
                tasks.forecast(*given, part)
        tasks.join(*given)
        tasks.products(*given)
        report = tasks.publish(*given)
        show_published(site, when, begun["revision"], report["outcome"])
        verify_after(profile, settings, str(when))
        return report
