"""Do the catalog and the store say the same? What can be derived is mended, the rest reported.

The store wins where it has a manifest: that is the commit. What the catalog calls published and the
store does not hold cannot be made up here; running the cycle again publishes a new revision.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from mosaic_core.catalog.models import ForecastRun
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CycleBusy, IntegrityError
from mosaic_core.pipeline import inventory, records, stages
from mosaic_core.pipeline.claims import claimed, held_parts
from mosaic_core.pipeline.recovery import LOOK_BACK
from mosaic_core.pipeline.site import Site
from mosaic_core.publication import layout
from mosaic_core.publication.latest import derive_latest, move_latest, read_latest
from mosaic_core.publication.layout import ForecastId
from mosaic_core.publication.progress import clear_in_progress, read_in_progress

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Difference:
    """One thing on which catalog and store differ.

    Attributes:
        kind: `unrecorded` (published, the catalog does not say so), `lost` (the catalog says so,
            the manifest is gone), `altered` (digests differ), `unreadable`, `unknown` (a folder
            of no run), `latest` (the pointer is behind), `progress` (a note of no run).
        mended: whether it has been put right; only the first and the last two can be.
        action: what is left to do.
    """

    kind: str
    subject: str
    text: str
    mended: bool = False
    action: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def differences(
    site: Site, *, mend: bool = False, since: Cycle | None = None, now: datetime | None = None
) -> tuple[Difference, ...]:
    """Compare what catalog and store say of every forecast since a cycle (ten days by default).

    A cycle that somebody works on is left out.
    """
    since = since or Cycle.latest_before((now or stages.now()) - LOOK_BACK)
    rows = {
        ForecastId(run.variant, run.cycle, run.revision): run
        for run in site.catalog.runs(variant=site.config.name, since=since)
    }
    folders = list(inventory.forecasts(site, since))
    found: list[Difference] = []
    for one in sorted({*rows, *folders}, reverse=True):
        if held_parts(site.catalog, one.cycle, one.variant):
            continue
        difference = _of_forecast(site, one, rows.get(one), one in folders)
        if difference is not None:
            found.append(_mended(site, one, difference) if mend else difference)
    found.extend(_of_notes(site, mend))
    for difference in found:
        _log.warning("%s: %s", difference.subject, difference.text)
    return tuple(found)


def _of_forecast(
    site: Site, one: ForecastId, run: ForecastRun | None, folder: bool
) -> Difference | None:
    prefix = layout.forecast_prefix(*one)
    try:
        manifest = records.manifest_of(site, one.cycle, one.revision)
    except IntegrityError as error:
        return Difference("unreadable", prefix, error.found, action=error.action)
    if manifest is None:
        if run is None and folder:
            text = "a folder without a manifest, of no run in the catalog"
            return Difference("unknown", prefix, text, action="remove it if nobody needs it")
        if run is None or run.state != "published" or _was_removed(site, one, prefix):
            return None
        text = "published in the catalog, but its manifest is gone from the store"
        return Difference("lost", prefix, text, action=f"`mosaic run {one.cycle}` makes it again")
    if run is None or run.state != "published":
        state = "no row" if run is None else f"its run is {run.state}"
        return Difference("unrecorded", prefix, f"published in the store, {state} in the catalog")
    if run.digest != manifest.digest:
        text = f"digest {manifest.digest[:12]} in the store, {str(run.digest)[:12]} in the catalog"
        action = "find out who wrote the manifest; restore it from a backup"
        return Difference("altered", prefix, text, action=action)
    return None


def _was_removed(site: Site, one: ForecastId, prefix: str) -> bool:
    told = site.catalog.events(kind="forecast-removed", cycle=one.cycle, variant=one.variant)
    return any(event.subject == prefix for event in told)


def _mended(site: Site, one: ForecastId, difference: Difference) -> Difference:
    if difference.kind != "unrecorded":
        return difference
    try:
        with claimed(site.catalog, one.cycle, one.variant):
            known = site.catalog.runs(cycle=one.cycle, variant=one.variant)
            if one.revision not in [run.revision for run in known]:
                records.start(site, one.cycle, one.revision)
            records.settle(site, one.cycle)
    except CycleBusy as busy:
        return Difference(**{**difference.as_dict(), "action": f"wait: {busy.found}"})
    return Difference(difference.kind, difference.subject, difference.text, mended=True)


def _of_notes(site: Site, mend: bool) -> Iterator[Difference]:
    store, variant = site.store, site.config.name
    try:
        pointer = read_latest(store, variant)
    except IntegrityError:
        pointer = None
    try:
        newest = derive_latest(store, variant)
    except IntegrityError:
        newest = None  # it has been reported
    if newest is not None and (pointer is None or pointer.order < newest.order):
        named = "nothing" if pointer is None else f"{pointer.cycle} r{pointer.revision}"
        text = f"names {named}, the newest published is {newest.cycle} r{newest.revision}"
        if mend:
            with site.catalog.exclusive(f"latest:{variant}"):
                move_latest(store, variant)
        yield Difference("latest", layout.latest_key(variant), text, mended=mend)
    try:
        note = read_in_progress(store, variant)
    except IntegrityError:
        return
    if note is None or held_parts(site.catalog, note.cycle, variant):
        return
    runs = site.catalog.runs(cycle=note.cycle, variant=variant)
    states = {run.state for run in runs if run.revision == note.revision}
    if states <= {"published", "skipped", "unchanged"}:
        text = f"speaks of {note.cycle} r{note.revision}, which nobody makes"
        if mend:
            clear_in_progress(store, variant, note.cycle)
        yield Difference("progress", layout.in_progress_key(variant), text, mended=mend)
