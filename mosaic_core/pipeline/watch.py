"""What is noted and told while members are computed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mosaic_core.catalog.models import ForecastRun
from mosaic_core.errors import CatalogUnreachable, ForecastError, StoreUnreachable
from mosaic_core.pipeline import stages
from mosaic_core.pipeline.claims import LOCK, claimed
from mosaic_core.pipeline.reporting import Reporter, note_readable
from mosaic_core.pipeline.site import Site
from mosaic_core.publication import layout

if TYPE_CHECKING:
    from mosaic_core.ensemble.run import Progress
    from mosaic_core.ensemble.store import ForecastStore

_CREATION_SECONDS = 300.0
_log = logging.getLogger(__name__)


class Watch:
    """The rollout of one part, as its run, the readers of the store and subscribers see it."""

    def __init__(
        self, site: Site, run: ForecastRun, reporter: Reporter, alive: Callable[[], None]
    ) -> None:
        self.site, self.run, self.reporter, self.alive = site, run, reporter, alive
        self.undelivered: list[str] = []
        self._lead = 0

    @property
    def _alone(self) -> bool:
        return int(self.run.facts.get("parts", 1)) == 1

    def begin(self, create: Callable[[], ForecastStore]) -> ForecastStore:
        """Create the store, or go on with it; of parts that come together, one after the other."""
        catalog, run = self.site.catalog, self.run
        if self._alone:
            return create()
        with claimed(catalog, run.cycle, run.variant, LOCK, wait=_CREATION_SECONDS):
            catalog.note_run(run)
            store = create()
            catalog.note_run(run, facts={"begun": True})
            return store

    def discard(self, differences: str) -> None:
        """Let the remains of an earlier attempt go; those of a part of this one are refused."""
        run = self.run
        prefix = layout.forecast_prefix(run.variant, run.cycle, run.revision)
        if run.facts.get("begun") and not self._alone:
            raise ForecastError(
                f"another part of this attempt at {run.variant} {run.cycle} began another "
                f"forecast: {differences}",
                "the same code, weights, settings and kind of device on every host",
                "bring the hosts to one state and run the cycle again",
            )
        self.site.catalog.record_event(
            "forecast-discarded", prefix, cycle=run.cycle, variant=run.variant,
            differences=differences,
        )  # fmt: skip

    def on_progress(self, progress: Progress) -> None:
        """Called at every step; the store is looked at when this part has a window more."""
        self.alive()
        if progress.lead_hours > self._lead:
            try:
                self._note(progress)
                self._lead = progress.lead_hours
            except (CatalogUnreachable, StoreUnreachable) as error:
                _log.warning("the progress of %s is noted later: %s", self.run.cycle, error.found)
        self.reporter.progress(progress)

    def _note(self, progress: Progress) -> None:
        site, run = self.site, self.run
        steps = progress.lead_hours // site.config.step_hours
        if not self._alone:
            steps = min(steps, stages.steps_written(site, run.cycle, run.revision))
        self.undelivered += note_readable(site, run, steps, progress.end)
