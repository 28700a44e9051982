"""A whole cycle under one claim: ingest, forecast, products, publish; recorded in the catalog."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from mosaic_core.catalog import states
from mosaic_core.catalog.models import ForecastRun
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CatalogError, CycleBusy, MosaicError, StoreError
from mosaic_core.initial_state import InitialState
from mosaic_core.pipeline import stages
from mosaic_core.pipeline.claims import claimed
from mosaic_core.pipeline.site import Site
from mosaic_core.products.product import BuiltProduct, ProductFailure
from mosaic_core.publication import events
from mosaic_core.publication.latest import read_manifest
from mosaic_core.publication.manifest import Manifest, Timeliness
from mosaic_core.publication.progress import InProgress, write_in_progress
from mosaic_core.publication.publish import Publication, next_revision

if TYPE_CHECKING:
    from mosaic_core.ensemble.run import Progress

_log = logging.getLogger(__name__)
Stage = Literal["ingest", "forecast", "products", "publish"]


@dataclass(frozen=True)
class Reporter:
    """Who is told how a cycle comes along."""

    stage: Callable[[Stage, str], None] = lambda stage, text: None
    progress: Callable[[Progress], None] = lambda progress: None


@dataclass
class CycleReport:
    """What a run of a cycle did.

    `outcome` is `published`, or `unchanged` when the same forecast was published before.
    """

    cycle: Cycle
    outcome: str
    manifest: Manifest
    url: str
    timings: dict[str, float] = field(default_factory=dict)
    products: list[stages.ProductResult] = field(default_factory=list)
    undelivered: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a program that reads them."""
        return {
            "cycle": self.cycle.id,
            "outcome": self.outcome,
            "revision": self.manifest.revision,
            "url": self.url,
            "digest": self.manifest.digest,
            "timings": self.timings,
            "products": sorted({asset.product for asset in self.manifest.assets}),
            "missing": {m.product: m.reason for m in self.manifest.missing},
            "degraded": self.manifest.quality.degraded,
            "flags": list(self.manifest.quality.flags),
            "undelivered": self.undelivered,
        }


def run_cycle(site: Site, cycle: Cycle, reporter: Reporter | None = None) -> CycleReport:
    """Run a cycle to its publication; whatever an earlier attempt has done is kept.

    Raises:
        CycleBusy: another run holds this cycle.
        MosaicError: the stage that failed; the catalog has the row, nothing is half published.
    """
    reporter = reporter or Reporter()
    with claimed(site.catalog, cycle, site.config.name) as alive:
        return _Cycle(site, cycle, reporter, alive).run()


class _Cycle:
    def __init__(
        self, site: Site, cycle: Cycle, reporter: Reporter, alive: Callable[[], None]
    ) -> None:
        self.site, self.cycle, self.reporter, self.alive = site, cycle, reporter, alive
        self.timings: dict[str, float] = {}
        self.started = stages.now()
        self.first_step = self.started
        self.revision = 1
        self.undelivered: list[str] = []
        self.noted = 0

    def run(self) -> CycleReport:
        site, catalog = self.site, self.site.catalog
        try:
            with self._timed("ingest", f"analyses from {site.source.name}"):
                state = stages.ingest(site, self.cycle)
        except BaseException as error:
            self._record_refusal(error)
            raise
        available = stages.now()
        self.revision = self._next_revision()
        if self.revision > 1:
            stages.complete_publication(site, self.cycle)
            self._settle()
        same = self._published_already(state)
        if same is not None:
            return CycleReport(
                self.cycle, "unchanged", same, site.store.url(same.prefix), self.timings
            )
        version = site.model.version
        row_of_model = catalog.record_model_version(
            name=f"Mosaic {site.config.name}",
            variant=version.variant,
            checkpoint_sha256=version.sha256,
            code_version=version.code_version,
        )
        run = self._start(row_of_model.id)
        try:
            publication, results = self._produce(run, state, available)
        except BaseException as error:
            self._failed(run, error)
            raise
        manifest = publication.manifest
        return CycleReport(
            self.cycle, publication.outcome, manifest, site.store.url(manifest.prefix),
            self.timings, results, self.undelivered,
        )  # fmt: skip

    def _next_revision(self) -> int:
        """After all that the store or the catalog knows as published.

        A forecast that was removed from the store is not published again under its number.
        """
        variant = self.site.config.name
        known = self.site.catalog.runs(cycle=self.cycle, variant=variant)
        final = [run.revision for run in known if states.is_final("run", run.state)]
        return max([next_revision(self.site.store, variant, self.cycle), *(n + 1 for n in final)])

    def _start(self, model_version: int | None = None) -> ForecastRun:
        return self.site.catalog.start_run(
            self.cycle,
            self.site.config.name,
            revision=self.revision,
            model_version=model_version,
            host=stages.host(),
            device=self.site.profile.device,
        )

    def _produce(
        self, run: ForecastRun, state: InitialState, available: datetime
    ) -> tuple[Publication, list[stages.ProductResult]]:
        site, catalog = self.site, self.site.catalog
        profile = site.profile
        catalog.set_state(run, "forecasting", timings=self.timings)
        self._note_progress(0, None)
        with self._timed("forecast", f"{profile.members} members, {profile.steps} steps"):
            device = stages.forecast(site, self.cycle, state, self.revision, self._on_progress)
        catalog.set_state(run, "products", timings=self.timings, device=device)
        self.alive()
        with self._timed("products", ", ".join(profile.products)):
            results = stages.make_products(site, self.cycle, state, self.revision)
        for result in results:
            self._record_product(run, result)
        self.alive()
        catalog.set_state(run, "publishing", timings=self.timings)
        timeliness = Timeliness(
            nominal=self.cycle.init_time,
            analysis_available=available,
            started=self.started,
            first_step=self.first_step,
        )
        with self._timed("publish", site.store.url()):
            publication = stages.publish_forecast(site, state, results, timeliness, self.revision)
        manifest = publication.manifest
        self._tell(events.published_event(site.store.url(), manifest))
        self._record_published(run, manifest, publication.outcome)
        return publication, results

    def _record_published(self, run: ForecastRun, manifest: Manifest, outcome: str) -> None:
        catalog = self.site.catalog
        for asset in manifest.assets:
            catalog.record_product(
                run, key=asset.key, name=asset.product, media_type=asset.media_type,
                state="published", size=asset.bytes, sha256=asset.sha256,
            )  # fmt: skip
        catalog.set_state(
            run, outcome, timings=self.timings, digest=manifest.digest,
            published=manifest.timeliness.published,
        )  # fmt: skip

    def _published_already(self, state: InitialState) -> Manifest | None:
        """The newest revision of the cycle, if this run could only repeat it."""
        site, profile = self.site, self.site.profile
        found = self._manifest(self.revision - 1)
        if found is None:
            return None
        version = site.model.version
        made = stages.identity_of(site, self.cycle, found.revision)
        wanted = {
            "weights": version.sha256,
            "state": state.digest,
            "members": profile.members,
            "steps": profile.steps,
            "seed": profile.seed,
            "precision": profile.precision,
            "keepbits": dict(profile.keepbits),
            "window": profile.window,
        }
        inputs = [(i.source, i.valid_time, i.digest) for i in stages.inputs_of(site, state)]
        same = (
            found.model.code_version == version.code_version
            and [(i.source, i.valid_time, i.digest) for i in found.inputs] == inputs
            and {name: made.get(name) for name in wanted} == wanted
            and {a.product for a in found.assets} == {"ensemble", *(p.id for p in site.products)}
            and not found.missing
        )
        return found if same else None

    def _manifest(self, revision: int) -> Manifest | None:
        if revision < 1:
            return None
        return read_manifest(self.site.store, self.site.config.name, self.cycle, revision)

    def _settle(self) -> None:
        """Bring rows of runs that died between publication and their last note to their end."""
        catalog = self.site.catalog
        for run in catalog.runs(cycle=self.cycle, variant=self.site.config.name):
            unfinished = not states.is_final("run", run.state) and run.state != "unchanged"
            manifest = self._manifest(run.revision) if unfinished else None
            if manifest is None:
                continue
            taken_up = catalog.start_run(
                self.cycle, run.variant, revision=run.revision, host=run.host, device=run.device
            )
            for state in ("forecasting", "products", "publishing"):
                catalog.set_state(taken_up, state)
            self._tell(events.published_event(self.site.store.url(), manifest))
            self._record_published(taken_up, manifest, "published")

    def _record_refusal(self, error: BaseException) -> None:
        """A row for a run that did not get beyond its analyses."""
        if isinstance(error, CycleBusy):
            return
        try:
            self.revision = self._next_revision()
            run = self._start()
        except MosaicError as second:
            _log.error("the failure of %s could not be recorded: %s", self.cycle, second)
            return
        self._failed(run, error)

    def _record_product(self, run: ForecastRun, result: stages.ProductResult) -> None:
        if isinstance(result, BuiltProduct):
            return
        assert isinstance(result, ProductFailure)
        _log.warning("product %s is missing: %s", result.id, result.reason)
        self.site.catalog.record_product(
            run, key=result.id, name=result.id, state="failed", error=result.reason
        )

    def _failed(self, run: ForecastRun, error: BaseException) -> None:
        if isinstance(error, CycleBusy):
            return  # the row belongs to the run that has taken over
        text = str(error) if isinstance(error, MosaicError) else f"{type(error).__name__}: {error}"
        try:
            self.site.catalog.set_state(run, "failed", error=text, timings=self.timings)
        except MosaicError as second:
            _log.error("the failure of %s could not be recorded: %s", self.cycle, second)

    def _on_progress(self, progress: Progress) -> None:
        self.alive()
        step_hours = self.site.config.step_hours
        steps = progress.lead_hours // step_hours
        if steps != self.noted:
            note = self._note_progress(steps, progress)
            if self.noted == 0:
                self.first_step = stages.now()
                self._tell(events.first_steps_event(self.site.store.url(), note, step_hours))
            self.noted = steps
        self.reporter.progress(progress)

    def _note_progress(self, steps: int, progress: Progress | None) -> InProgress:
        note = InProgress(
            cycle=self.cycle,
            variant=self.site.config.name,
            revision=self.revision,
            steps_done=steps,
            steps=self.site.profile.steps,
            updated=stages.now(),
            expected_end=progress.end if progress else None,
        )
        try:
            write_in_progress(self.site.store, note)
        except StoreError as error:
            _log.warning("the progress of %s could not be noted: %s", self.cycle, error)
        return note

    def _tell(self, event: dict[str, object]) -> None:
        """Send an event; one that does not arrive is recorded, and never un-publishes."""
        for delivery in events.notify(event, self.site.targets):
            if not delivery.delivered:
                text = f"{delivery.target.address}: {delivery.problem}"
                self.undelivered.append(text)
                _log.warning("a notice was not delivered: %s", text)
                with suppress(CatalogError):
                    self.site.catalog.record_event(
                        "notice-undelivered", delivery.event_id, cycle=self.cycle,
                        variant=self.site.config.name, problem=text,
                    )  # fmt: skip

    @contextmanager
    def _timed(self, stage: Stage, text: str) -> Iterator[None]:
        self.alive()
        self.reporter.stage(stage, text)
        began = time.monotonic()
        _log.info("%s %s: %s (%s)", self.site.config.name, self.cycle, stage, text)
        try:
            yield
        finally:
            self.timings[stage] = round(time.monotonic() - began, 3)
        _log.info(
            "%s %s: %s took %.1f s", self.site.config.name, self.cycle, stage, self.timings[stage]
        )
