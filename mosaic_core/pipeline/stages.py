"""One function a stage. Each can be run again: same inputs, same bytes."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from mosaic_core.analysis.initial_state import (
    HistoryPolicy,
    prepare_initial_state,
    stored_initial_state,
)
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisRejected, AnalysisUnreadable, CatalogError
from mosaic_core.initial_state import InitialState
from mosaic_core.pipeline.describing import context_of, draft_of, inputs_of
from mosaic_core.pipeline.references import ProductResult
from mosaic_core.pipeline.site import Site
from mosaic_core.products.product import (
    ProductFailure,
    build_products,
)
from mosaic_core.publication import layout
from mosaic_core.publication.latest import move_latest
from mosaic_core.publication.manifest import (
    Timeliness,
)
from mosaic_core.publication.progress import clear_in_progress
from mosaic_core.publication.publish import Publication, describe, publish

if TYPE_CHECKING:
    from mosaic_core.ensemble.run import Progress
    from mosaic_core.ensemble.store import ForecastStore
    from mosaic_core.ensemble.written import Written

_log = logging.getLogger(__name__)


def ingest(site: Site, cycle: Cycle) -> InitialState:
    """Fetch, check and store the analyses of a cycle, and build the state it starts from.

    Analyses that are stored already are read back, not fetched again. The verdict on each goes
    into the catalog, that on a refused one too.

    Raises:
        AnalysisError: missing, unreadable or refused by name.
    """
    config = site.config
    try:
        state = prepare_initial_state(
            site.source,
            cycle,
            config.lat_lon,
            config.channel_set,
            config.step_hours,
            config.history,
            _history_policy(site, cycle),
            store=site.store,
            static=site.static_fields,
            checks=site.checks,
            finer=site.profile.finer_grid,
        )
    except Exception as error:
        try:
            _record_refusal(site, cycle, error)
        except CatalogError as second:
            _log.error("the failure of %s could not be recorded: %s", cycle, second)
        raise
    site.last_state["state"] = state
    for entry in inputs_of(site, state):
        site.catalog.record_analysis(
            Cycle(entry.valid_time),
            source=entry.source,
            digest=entry.digest,
            checks=dict(entry.checks),
            state="degraded" if state.degraded else "accepted",
            url=entry.url,
        )
    return state


def _history_policy(site: Site, cycle: Cycle) -> HistoryPolicy:
    """The profile's policy after the cut-off; before it a missing analysis may still come."""
    cut_off = cycle.init_time + timedelta(hours=site.profile.cut_off_hours)
    return HistoryPolicy(missing=site.profile.history if now() >= cut_off else "stop")


def _record_refusal(site: Site, cycle: Cycle, error: Exception) -> None:
    """A row of the analysis that is refused, and an event that says why the cycle cannot start."""
    if isinstance(error, AnalysisRejected | AnalysisUnreadable) and error.valid_time is not None:
        verdicts = error.verdicts if isinstance(error, AnalysisRejected) else {"read": "failed"}
        site.catalog.record_analysis(
            Cycle(error.valid_time),
            source=site.source.name,
            digest=error.digest if isinstance(error, AnalysisRejected) else "",
            checks=dict(verdicts),
            state="rejected",
        )
    site.catalog.record_event(
        "ingest-failed",
        site.source.name,
        cycle=cycle,
        variant=site.config.name,
        error=f"{type(error).__name__}: {error}",
    )


def stored_state(site: Site, cycle: Cycle, valid_times: Sequence[datetime]) -> InitialState:
    """The state that a run was begun from, read back from the store.

    Raises:
        AnalysisMissing: it is not there any more.
    """
    config = site.config
    kept = site.last_state.get("state")
    if kept is not None and (kept.cycle, kept.valid_times) == (cycle, tuple(valid_times)):
        return kept
    site.last_state["state"] = state = stored_initial_state(
        site.store,
        site.source.name,
        cycle,
        valid_times,
        config.lat_lon,
        config.channel_set,
        config.step_hours,
        static=site.static_fields,
        checks=site.checks,
    )
    return state


def forecast(
    site: Site,
    cycle: Cycle,
    state: InitialState,
    revision: int,
    members: range,
    *,
    discard: Callable[[str], None],
    begin: Callable[[Callable[[], ForecastStore]], ForecastStore],
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> str:
    """Run what a part of the members lacks; a killed run goes on where it stopped.

    Args:
        members: the part, from 1.
        discard: told of the remains of another forecast, which are then removed; may refuse.
        begin: calls the function that creates the store, where others may do so too.

    Returns:
        the device that it ran on.
    """
    from mosaic_core.ensemble.layout import EnsembleSpec
    from mosaic_core.ensemble.run import layout_for, run_members
    from mosaic_core.ensemble.store import ForecastStore
    from mosaic_core.kernels.dispatch import forced_backend

    profile = site.profile
    model = site.model.load()
    prefix = layout.forecast_prefix(site.config.name, cycle, revision)
    with forced_backend(profile.backend):
        wanted = layout_for(
            model,
            state,
            EnsembleSpec(profile.members, profile.steps, profile.seed),
            profile.precision,
            dict(profile.keepbits),
            profile.window,
            members_per_run=profile.members_per_run,
        )
        store = begin(lambda: ForecastStore.begin(site.store, prefix, wanted, discard=discard))
        run_members(model, state, store, members, on_progress, cuda_graph=profile.cuda_graph)
    return str(model.device)


def wanted_identity(site: Site, cycle: Cycle, state: InitialState) -> dict[str, Any]:
    """What the ensemble of a cycle is to be made from, but for the device, as plain values."""
    from mosaic_core.ensemble.layout import EnsembleSpec, ForecastLayout

    profile, config, version = site.profile, site.config, site.model.version
    wanted = ForecastLayout(
        cycle=cycle,
        variant=config.name,
        grid=config.lat_lon,
        channels=config.channel_set,
        step_hours=config.step_hours,
        spec=EnsembleSpec(profile.members, profile.steps, profile.seed),
        weights=version.sha256,
        state=state.digest,
        precision=profile.precision,
        batch=1,
        code_version=version.code_version,
        window=profile.window,
        keepbits=dict(profile.keepbits),
    ).identity()
    del wanted["device"]
    return wanted


def written_of(
    site: Site, cycle: Cycle, revision: int, wanted: Mapping[str, Any]
) -> Written | None:
    """What is there of the ensemble that is wanted; None when there is none, or another."""
    from mosaic_core.ensemble.written import written

    found = written(site.store, layout.forecast_prefix(site.config.name, cycle, revision))
    if found is None or any(found.identity.get(name) != wanted[name] for name in wanted):
        return None
    return found


def steps_written(site: Site, cycle: Cycle, revision: int) -> int:
    """Steps of an unfinished ensemble that can be read of every member."""
    from mosaic_core.ensemble.written import written

    found = written(site.store, layout.forecast_prefix(site.config.name, cycle, revision))
    return 0 if found is None else found.steps


def reuse_ensemble(site: Site, cycle: Cycle, revision: int, wanted: Mapping[str, Any]) -> bool:
    """Take the whole ensemble of the revision before over, if it is the wanted one.

    A product that failed is made again in a new revision, without a new rollout.

    Returns:
        whether it was taken over now.
    """
    from mosaic_core.ensemble.written import copy_whole

    if revision < 2 or written_of(site, cycle, revision, wanted) is not None:
        return False
    before = written_of(site, cycle, revision - 1, wanted)
    if before is None or not before.sealed:
        return False
    source, target = (
        layout.forecast_prefix(site.config.name, cycle, number)
        for number in (revision - 1, revision)
    )
    copy_whole(site.store, source, target)
    site.catalog.record_event(
        "ensemble-reused", target, cycle=cycle, variant=site.config.name, source=source
    )
    return True


def make_products(
    site: Site, cycle: Cycle, state: InitialState, revision: int = 1
) -> list[ProductResult]:
    """Make every product of a whole ensemble; one that fails does not hold back the others.

    What an earlier attempt left beside the ensemble is removed first: it may have been of other
    products.
    """
    from mosaic_core.ensemble.store import open_ensemble
    from mosaic_core.ensemble.written import NAME

    prefix = layout.forecast_prefix(site.config.name, cycle, revision)
    for info in list(site.store.list(prefix)):
        if not info.key.startswith(f"{prefix}/{NAME}/"):
            site.store.delete(info.key)
    ensemble = open_ensemble(site.store, prefix)
    return build_products(site.products, ensemble, context_of(site, state), site.store, prefix)


def publish_forecast(
    site: Site,
    state: InitialState,
    results: Sequence[ProductResult],
    timeliness: Timeliness,
    revision: int = 1,
) -> Publication:
    """Publish the ensemble with the products that are whole; the manifest says what is missing."""
    return publish(
        site.store,
        draft_of(site, state, results, timeliness, revision),
        revision=revision,
        discard=[f"{result.id}.zarr" for result in results if isinstance(result, ProductFailure)],
        lock=site.catalog.exclusive(f"latest:{site.config.name}"),
    )


def complete_publication(site: Site, cycle: Cycle) -> None:
    """Do what a publisher that died after its manifest has left undone."""
    variant = site.config.name
    with site.catalog.exclusive(f"latest:{variant}"):
        move_latest(site.store, variant)
        describe(site.store, variant, cycle)
    clear_in_progress(site.store, variant, cycle)


def now() -> datetime:
    return datetime.now(UTC)


def host() -> str:
    return socket.gethostname()
