"""Before the first member is computed: are the analyses there, and is the cycle to be run?"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from mosaic_core import tracing
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisMissing, ConfigurationError, CycleBusy, IntegrityError
from mosaic_core.initial_state import InitialState
from mosaic_core.pipeline import describing, records, stages
from mosaic_core.pipeline.claims import LOCK, claimed, held_parts
from mosaic_core.pipeline.patience import patiently
from mosaic_core.pipeline.references import Begun, Ingested
from mosaic_core.pipeline.reporting import QUIET, Reporter, note_progress
from mosaic_core.pipeline.site import Site
from mosaic_core.publication.latest import read_latest
from mosaic_core.publication.manifest import Manifest

ANALYSES = Cycle.parse("1970-01-01T00Z")
"""The claim on a source, under which analyses are fetched, is of this time."""

_FETCHING_SECONDS = 1800.0
_log = logging.getLogger(__name__)


def ingest(site: Site, cycle: Cycle, reporter: Reporter = QUIET) -> Ingested:
    """Fetch, check and store the analyses of a cycle.

    A failure leaves a failed run in the catalog, unless the analysis may still come: before the
    cut-off a missing one may be tried again and again.

    Raises:
        AnalysisError: missing, unreadable or refused by name.
        CycleBusy: another run works on the cycle.
    """
    catalog, source = site.catalog, site.source.name

    def fetch() -> InitialState:
        # Cycles share analyses: of two that lack one, one fetches it and the other finds it.
        with claimed(catalog, ANALYSES, source, LOCK, wait=_FETCHING_SECONDS):
            return stages.ingest(site, cycle)

    with claimed(catalog, cycle, site.config.name):
        reporter.stage("ingest", f"analyses from {source}")
        started = stages.now()
        _log.info("%s %s: ingest begins (analyses from %s)", site.config.name, cycle, source)
        try:
            with tracing.span("ingest", variant=site.config.name, cycle=cycle.id, source=source):
                state = patiently(fetch, f"ingest of {cycle}", site.profile.patience_seconds)
        except BaseException as error:
            cut_off = cycle.init_time + timedelta(hours=site.profile.cut_off_hours)
            if not isinstance(error, AnalysisMissing) or stages.now() >= cut_off:
                records.record_refusal(site, cycle, error)
            raise
        found = Ingested(cycle, state.valid_times, started, stages.now(), state.degraded)
        _log.info("%s %s: ingest took %.1f s", site.config.name, cycle, found.seconds)
        return found


def begin(
    site: Site, cycle: Cycle, ingested: Ingested | None = None, *, backfill: bool = False
) -> Begun:
    """Decide whether a cycle is to be run, take it up in the catalog, and say what is due.

    The ensemble of the revision before is taken over when it is the one that is wanted, so that
    only what failed after it is made again.

    Args:
        ingested: what `ingest` said; without it the analyses are looked at again.
        backfill: run it though a newer cycle is published, or it is old.

    Raises:
        CycleBusy: another run works on the cycle or on a part of it.
    """
    catalog, variant = site.catalog, site.config.name
    with claimed(catalog, cycle, variant):
        _refuse_working_parts(site, cycle)
        reason = "" if backfill else superseded(site, cycle)
        revision = records.revision_to_make(site, cycle)
        if reason:
            if revision == 1:
                catalog.skip_run(cycle, variant, revision, reason)
            return Begun(cycle, "superseded", revision, reason=reason)
        ingested = ingested or ingest(site, cycle)
        work = f"beginning of {variant} {cycle}"
        return patiently(
            lambda: _begin(site, cycle, revision, ingested), work, site.profile.patience_seconds
        )


def superseded(site: Site, cycle: Cycle, now: datetime | None = None) -> str:
    """Why a cycle is not worth running any more, in words; empty when it is.

    The one cycle of a profile that names it is never too old.
    """
    variant = site.config.name
    try:
        newest = read_latest(site.store, variant)
    except IntegrityError:
        newest = None  # the next publication writes it anew
    if newest is not None and newest.cycle > cycle:
        return f"the newer cycle {newest.cycle} is published"
    age = ((now or stages.now()) - cycle.init_time) / timedelta(hours=1)
    if site.profile.cycle is None and age > site.profile.recovery.max_age_hours:
        return (
            f"it is {age:.0f} h old, and only cycles of the last "
            f"{site.profile.recovery.max_age_hours:g} h are made up for"
        )
    return ""


def parts_of(site: Site) -> tuple[range, ...]:
    """Members (from 1) of each part of a run.

    Raises:
        ConfigurationError: no members.
    """
    from mosaic_core.ensemble.cut import parts_of

    profile = site.profile
    if profile.members < 1:
        raise ConfigurationError(f"{profile.members} members", "one or more")
    return parts_of(profile.members, profile.members_per_run)


def due_parts(site: Site, cycle: Cycle, revision: int, wanted: dict[str, Any]) -> tuple[int, ...]:
    """Parts (from 1) of the wanted ensemble that have windows to compute."""
    parts = tuple(enumerate(parts_of(site), 1))
    found = stages.written_of(site, cycle, revision, wanted)
    if found is None:
        return tuple(part for part, _ in parts)
    return tuple(part for part, members in parts if any(found.missing(members)))


def _refuse_working_parts(site: Site, cycle: Cycle) -> None:
    others = [claim for claim in held_parts(site.catalog, cycle, site.config.name) if claim.part]
    if others:
        raise CycleBusy(
            f"part {others[0].part} of {site.config.name} {cycle} is claimed by "
            f"{others[0].owner} since {others[0].since:%Y-%m-%d %H:%M:%S} UTC",
            "one run a cycle at a time",
            f"wait for it; a dead one's claim ends at {others[0].expires:%H:%M:%S} UTC",
        )


def _begin(site: Site, cycle: Cycle, revision: int, ingested: Ingested) -> Begun:
    state = stages.stored_state(site, cycle, ingested.valid_times)
    if revision > 1:
        stages.complete_publication(site, cycle)
        records.settle(site, cycle)
    wanted = stages.wanted_identity(site, cycle, state)
    same = _published_already(site, cycle, revision - 1, state, wanted)
    if same is not None:
        url = site.store.url(same.prefix)
        return Begun(cycle, "unchanged", same.revision, url=url, seconds=ingested.seconds)
    version = site.model.version
    model = site.catalog.record_model_version(
        name=f"Mosaic {site.config.name}",
        variant=version.variant,
        checkpoint_sha256=version.sha256,
        code_version=version.code_version,
    )
    run = records.start(site, cycle, revision, model.id)
    try:
        stages.reuse_ensemble(site, cycle, revision, wanted)
        due = due_parts(site, cycle, revision, wanted)
        parts = len(parts_of(site))
        facts: dict[str, Any] = {
            "valid_times": [time.isoformat() for time in ingested.valid_times],
            "started": ingested.started.isoformat(),
            "available": ingested.available.isoformat(),
            "parts": parts,
            "begun": None,
            "results": None,
        }
        if len(due) == parts:
            facts["first_step"] = None
        site.catalog.note_run(run, facts=facts, timings={"ingest": ingested.seconds})
        records.bring(site, run, "forecasting")
        note_progress(site, cycle, revision, 0, None)
    except BaseException as error:
        records.fail(site, run, error)
        raise
    return Begun(cycle, "due", revision, run.attempts, due, parts, seconds=ingested.seconds)


def _published_already(
    site: Site, cycle: Cycle, revision: int, state: InitialState, wanted: dict[str, Any]
) -> Manifest | None:
    """The newest revision of the cycle, if this run could only repeat it."""
    found = records.manifest_of(site, cycle, revision)
    if found is None:
        return None
    inputs = [(i.source, i.valid_time, i.digest) for i in describing.inputs_of(site, state)]
    same = (
        found.model.code_version == site.model.version.code_version
        and [(i.source, i.valid_time, i.digest) for i in found.inputs] == inputs
        and stages.written_of(site, cycle, revision, wanted) is not None
        and {a.product for a in found.assets} == {"ensemble", *(p.id for p in site.products)}
        and not found.missing
    )
    return found if same else None
