"""Who is told how a cycle comes along: the caller, readers of the store, subscribers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from mosaic_core.catalog.models import ForecastRun
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CatalogError, StoreError
from mosaic_core.pipeline.site import Site
from mosaic_core.publication import events
from mosaic_core.publication.progress import InProgress, write_in_progress

if TYPE_CHECKING:
    from mosaic_core.ensemble.run import Progress

_log = logging.getLogger(__name__)
Stage = Literal["ingest", "forecast", "products", "publish"]


@dataclass(frozen=True)
class Reporter:
    """Who is told how a cycle comes along."""

    stage: Callable[[Stage, str], None] = lambda stage, text: None
    progress: Callable[[Progress], None] = lambda progress: None


QUIET = Reporter()


def note_progress(
    site: Site, cycle: Cycle, revision: int, steps: int, end: datetime | None
) -> InProgress:
    """Rewrite `in-progress.json`; a store that refuses is no obstacle to the forecast."""
    note = InProgress(
        cycle=cycle,
        variant=site.config.name,
        revision=revision,
        steps_done=steps,
        steps=site.profile.steps,
        updated=datetime.now(UTC),
        expected_end=end,
    )
    try:
        write_in_progress(site.store, note)
    except StoreError as error:
        _log.warning("the progress of %s could not be noted: %s", cycle, error)
    return note


def note_readable(
    site: Site, run: ForecastRun, steps: int, end: datetime | None
) -> tuple[str, ...]:
    """Note that so many steps of every member can be read; of the first ones, tell subscribers.

    Returns:
        what was not delivered, in words.
    """
    note = note_progress(site, run.cycle, run.revision, steps, end)
    if not steps or not site.catalog.note_run(run, once={"first_step": note.updated.isoformat()}):
        return ()
    event = events.first_steps_event(site.store.url(), note, site.config.step_hours)
    return tuple(tell(site, run.cycle, event))


def tell(site: Site, cycle: Cycle, event: dict[str, Any]) -> list[str]:
    """Send a notice; one that does not arrive is recorded, and never un-publishes.

    Returns:
        what was not delivered, in words.
    """
    problems = []
    for delivery in events.notify(event, site.targets):
        if delivery.delivered:
            continue
        text = f"{delivery.target.address}: {delivery.problem}"
        problems.append(text)
        _log.warning("a notice was not delivered: %s", text)
        with suppress(CatalogError):
            site.catalog.record_event(
                "notice-undelivered", delivery.event_id, cycle=cycle,
                variant=site.config.name, problem=text,
            )  # fmt: skip
    return problems
