"""What a run of a cycle leaves for its operator: its name, tags and artifacts; all best effort."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from flows import artifacts, report
from flows.reference import scheduled
from mosaic_core.cycle import Cycle
from mosaic_core.errors import MosaicError
from mosaic_core.pipeline import records
from mosaic_core.pipeline.site import Site

_log = logging.getLogger(__name__)


def skipped(cycle: str | None) -> str:
    """Why a scheduled run that starts late is not worth it; a backlog comes oldest first."""
    if cycle is None and datetime.now(UTC) - scheduled() >= timedelta(hours=6):
        return f"it was scheduled for {scheduled():%Y-%m-%d %H:%MZ}, and the next cycle is due"
    return ""


def rename(name: str, *tags: str) -> None:
    """Give this run its full name, and more tags."""
    if not flow_run.id:
        return
    try:
        with get_client(sync_client=True) as client:
            identity = UUID(flow_run.id)
            known = client.read_flow_run(identity).tags
            client.update_flow_run(identity, name=name, tags=sorted({*known, *tags}))
    except Exception as error:  # a name is no part of a forecast
        _log.warning("this run could not be named %s: %s", name, error)


def show_published(site: Site, cycle: Cycle, revision: int, outcome: str) -> None:
    """Summary, products, quick looks and newest scores of a published cycle."""
    try:
        manifest = records.manifest_of(site, cycle, revision)
        runs = site.catalog.runs(cycle=cycle, variant=site.config.name)
    except MosaicError as error:
        _log.warning("nothing can be shown of %s: %s", cycle, error)
        return
    if manifest is not None:
        timings = next((run.timings for run in runs if run.revision == revision), {})
        artifacts.show_published(site, manifest, timings, outcome)


@contextmanager
def failure_shown(site: Site, cycle: Cycle) -> Iterator[None]:
    """Leave a page that says why, when a run of a cycle fails."""
    try:
        yield
    except Exception as error:
        try:
            events = site.catalog.events(cycle=cycle, variant=site.config.name, limit=20)
        except MosaicError:
            events = ()
        text = report.refusal(str(cycle), site.config.name, error, events)
        artifacts.show_text(site.config.name, "summary", text, f"{cycle} is not published")
        raise
