"""The row of a run, as the steps of a cycle move it along."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from mosaic_core import tracing
from mosaic_core.catalog import states
from mosaic_core.catalog.models import ForecastRun
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CatalogError, CycleBusy, MosaicError, TransitionRefused
from mosaic_core.initial_state import InitialState
from mosaic_core.pipeline import stages
from mosaic_core.pipeline.patience import patiently
from mosaic_core.pipeline.reporting import tell
from mosaic_core.pipeline.site import Site
from mosaic_core.publication import events
from mosaic_core.publication.latest import read_manifest
from mosaic_core.publication.manifest import Manifest, Timeliness
from mosaic_core.publication.publish import next_revision

T = TypeVar("T")
_ORDER = ("waiting", "forecasting", "products", "publishing")
_log = logging.getLogger(__name__)


def step(
    site: Site,
    cycle: Cycle,
    revision: int,
    name: str,
    work: Callable[[ForecastRun], T],
    progress: Callable[[], object] = lambda: None,
) -> T:
    """Do the work of a step on its run: a store that is away is waited for, a failure recorded.

    Args:
        progress: as `patiently` takes it.

    Raises:
        CatalogError: the run was never begun.
    """
    what, seconds = f"{name} of {site.config.name} {cycle}", site.profile.patience_seconds

    def find() -> ForecastRun:
        return site.catalog.run(cycle, site.config.name, revision)

    run = patiently(find, what, seconds)
    try:
        return patiently(lambda: work(find()), what, seconds, progress)
    except BaseException as error:
        fail(site, run, error)
        raise


@contextmanager
def timed(site: Site, run: ForecastRun, stage: str) -> Iterator[None]:
    """Log a stage and note in the catalog how long it took, whether it ended well or not."""
    what, began = f"{site.config.name} {run.cycle}: {stage}", time.monotonic()
    _log.info("%s begins", what)
    try:
        with tracing.span(stage, variant=run.variant, cycle=run.cycle.id, revision=run.revision):
            yield
    except BaseException:
        seconds = round(time.monotonic() - began, 3)
        _log.info("%s failed after %.1f s", what, seconds)
        raise
    seconds = round(time.monotonic() - began, 3)
    _log.info("%s took %.1f s", what, seconds)
    site.catalog.note_run(run, timings={stage: seconds})


def bring(site: Site, run: ForecastRun, state: str) -> None:
    """Move a run to an unfinished state, from wherever another step or attempt has left it."""
    for _ in range(5):
        if run.state == state:
            return
        try:
            if run.state not in _ORDER or _ORDER.index(run.state) > _ORDER.index(state):
                site.catalog.set_state(run, "waiting", error=None)
            while run.state != state:
                site.catalog.set_state(run, _ORDER[_ORDER.index(run.state) + 1])
            return
        except TransitionRefused:  # a part beside this one was first
            run = site.catalog.run(run.cycle, run.variant, run.revision)
            if states.is_final("run", run.state):
                raise
    raise TransitionRefused(f"{run.variant} {run.cycle} r{run.revision} is {run.state}", state)


def fail(site: Site, run: ForecastRun, error: BaseException) -> None:
    """Record why a run failed; one that another has taken over, or published, is left alone."""
    if isinstance(error, CycleBusy):
        return
    text = str(error) if isinstance(error, MosaicError) else f"{type(error).__name__}: {error}"
    try:
        found = site.catalog.run(run.cycle, run.variant, run.revision)
        if not states.is_final("run", found.state) and found.state != "unchanged":
            if found.state in ("failed", "skipped"):
                site.catalog.set_state(found, "waiting")
            site.catalog.set_state(found, "failed", error=text)
    except MosaicError as second:
        _log.error("the failure of %s could not be recorded: %s", run.cycle, second)


def record_refusal(site: Site, cycle: Cycle, error: BaseException) -> None:
    """A row for a run that did not get beyond its analyses."""
    if isinstance(error, CycleBusy):
        return
    try:
        run = start(site, cycle, revision_to_make(site, cycle))
    except MosaicError as second:
        _log.error("the failure of %s could not be recorded: %s", cycle, second)
        return
    fail(site, run, error)


def start(site: Site, cycle: Cycle, revision: int, model_version: int | None = None) -> ForecastRun:
    """Take a run up in the catalog, which counts the attempt."""
    return site.catalog.start_run(
        cycle,
        site.config.name,
        revision=revision,
        model_version=model_version,
        host=stages.host(),
        device=site.profile.device,
    )


def revision_to_make(site: Site, cycle: Cycle) -> int:
    """After all that the store or the catalog knows as published.

    A forecast that was removed from the store is not published again under its number.
    """
    variant = site.config.name
    known = site.catalog.runs(cycle=cycle, variant=variant)
    final = [run.revision for run in known if states.is_final("run", run.state)]
    return max([next_revision(site.store, variant, cycle), *(n + 1 for n in final)])


def state_of(site: Site, run: ForecastRun) -> InitialState:
    """The state that a run was begun from.

    Raises:
        CatalogError: it was never begun.
    """
    if "valid_times" not in run.facts:
        raise CatalogError(
            f"{run.variant} {run.cycle} r{run.revision} did not get beyond its analyses",
            "a run that was begun",
            "begin it: `mosaic run`, or the flow from its start",
        )
    times = [datetime.fromisoformat(time) for time in run.facts["valid_times"]]
    return stages.stored_state(site, run.cycle, times)


def timeliness_of(run: ForecastRun) -> Timeliness:
    """When what happened to a run, as far as it is noted."""
    first = run.facts.get("first_step")
    return Timeliness(
        nominal=run.cycle.init_time,
        analysis_available=datetime.fromisoformat(run.facts["available"]),
        started=datetime.fromisoformat(run.facts["started"]),
        first_step=datetime.fromisoformat(first) if first else None,
    )


def manifest_of(site: Site, cycle: Cycle, revision: int) -> Manifest | None:
    """The manifest of a revision; None when it is not published."""
    if revision < 1:
        return None
    return read_manifest(site.store, site.config.name, cycle, revision)


def record_published(site: Site, run: ForecastRun, manifest: Manifest, outcome: str) -> None:
    """Bring a run and its products to their end."""
    for asset in manifest.assets:
        site.catalog.record_product(
            run, key=asset.key, name=asset.product, media_type=asset.media_type,
            state="published", size=asset.bytes, sha256=asset.sha256,
        )  # fmt: skip
    changes: dict[str, Any] = {
        "digest": manifest.digest, "published": manifest.timeliness.published
    }  # fmt: skip
    site.catalog.set_state(run, outcome, **changes)
    site.catalog.note_run(run, facts={"results": None})


def settle(site: Site, cycle: Cycle) -> None:
    """Bring rows of runs that died between publication and their last note to their end."""
    for run in site.catalog.runs(cycle=cycle, variant=site.config.name):
        unfinished = not states.is_final("run", run.state) and run.state != "unchanged"
        manifest = manifest_of(site, cycle, run.revision) if unfinished else None
        if manifest is None:
            continue
        bring(site, run, "publishing")
        tell(site, cycle, events.published_event(site.store.url(), manifest))
        record_published(site, run, manifest, "published")
