"""What is older than its kind is kept, and may go: planned first, removed when told to.

Never removed, whatever its age:

- the forecast that `latest.json` names, and the newest that is published;
- the folder of a run that is not at its end, and of one that somebody works on;
- the ensemble of a forecast that is still to be verified, and analyses that it will be verified
  against; analyses that an unfinished run, or one that may still come, starts from;
- what cannot be read, or belongs to no run that the catalog knows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from mosaic_core.analysis.store import COMMIT
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CycleBusy, IntegrityError
from mosaic_core.pipeline import inventory, records, stages
from mosaic_core.pipeline.claims import claimed, held_parts
from mosaic_core.pipeline.recovery import LOOK_BACK
from mosaic_core.pipeline.site import Site
from mosaic_core.publication import layout
from mosaic_core.publication.latest import derive_latest, read_latest
from mosaic_core.publication.layout import ForecastId
from mosaic_core.publication.manifest import Manifest
from mosaic_core.publication.removal import read_removed, remove_assets, remove_forecast
from mosaic_core.verification.settings import VerificationSettings

ENSEMBLE = "ensemble"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removal:
    """One thing that may go.

    Attributes:
        kind: `forecast` (all that is left of it), `assets` of a forecast, `remains` of a run that
            was given up, or `analysis`.
        key: folder in the store.
        assets: keys of the assets, relative to the folder.
        bytes: as the manifest has it; 0 where nobody has counted.
    """

    kind: Literal["forecast", "assets", "remains", "analysis"]
    key: str
    cycle: Cycle
    reason: str
    assets: tuple[str, ...] = ()
    bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "cycle": self.cycle.id, "assets": list(self.assets)}


class Retention:
    """The retention of one site at one time."""

    def __init__(self, site: Site, now: datetime | None = None) -> None:
        self.site, self.now = site, now or stages.now()
        self.rules = site.profile.retention

    def plan(self) -> Iterator[Removal]:
        """What may go, newest first; nothing is changed."""
        if self.rules.products:
            for one in inventory.forecasts(self.site):
                removal = self.of_forecast(one)
                if removal is not None:
                    yield removal
        if self.rules.analyses is not None:
            for valid, key in inventory.analyses(self.site):
                reason = self._too_old(valid, self.rules.analyses)
                if not reason or valid in self._needed_analyses or valid >= self._history_from:
                    continue
                if not held_parts(self.site.catalog, Cycle(valid), self.site.config.name):
                    yield Removal("analysis", key, Cycle(valid), reason)

    def of_forecast(self, one: ForecastId) -> Removal | None:
        """What of a forecast may go now; None when all of it stays."""
        if one in self._pointed_at or held_parts(self.site.catalog, one.cycle, one.variant):
            return None
        prefix = layout.forecast_prefix(*one)
        try:
            manifest = records.manifest_of(self.site, one.cycle, one.revision)
            removed = read_removed(self.site.store, prefix)
        except IntegrityError as error:
            _log.warning("%s is left alone: %s", prefix, error)
            return None
        if manifest is None:
            return self._remains(one, prefix)
        due = self._due_assets(manifest)
        if not due:
            return None
        if len(due) == len(manifest.assets):
            left = sum(a.bytes for a in manifest.assets if a.key not in removed)
            reason = "all of it is older than it is kept"
            return Removal("forecast", prefix, one.cycle, reason, bytes=left)
        fresh = [a for a in manifest.assets if a.key in due and a.key not in removed]
        if not fresh:
            return None
        reason = "; ".join(sorted({due[a.key] for a in fresh}))
        keys = tuple(a.key for a in fresh)
        return Removal("assets", prefix, one.cycle, reason, keys, sum(a.bytes for a in fresh))

    def apply(self) -> Iterator[Removal]:
        """Remove what may go, each under the claim on its cycle; yields what has gone.

        Everything is looked at again under the claim: who took the cycle up meanwhile keeps it.
        """
        for planned in list(self.plan()):
            try:
                with claimed(self.site.catalog, planned.cycle, self.site.config.name):
                    removal = self._again(planned)
                    if removal is not None:
                        self._remove(removal)
                        yield removal
            except CycleBusy as busy:
                _log.info("%s stays for now: %s", planned.key, busy.found)

    def _again(self, planned: Removal) -> Removal | None:
        for name in ("_pointed_at", "_unverified", "_needed_analyses"):
            vars(self).pop(name, None)
        if planned.kind == "analysis":
            needed = self._needed_analyses
            return None if planned.cycle.init_time in needed else planned
        return self.of_forecast(layout.parse_forecast_prefix(planned.key))

    def _remove(self, removal: Removal) -> None:
        store, catalog, name = self.site.store, self.site.catalog, self.site.config.name
        # Said before it is done: who finds the remains of a removal knows that they may go.
        catalog.record_event(
            f"{removal.kind}-removed", removal.key, cycle=removal.cycle, variant=name,
            reason=removal.reason, assets=list(removal.assets) or None, bytes=removal.bytes,
        )  # fmt: skip
        if removal.kind == "assets":
            one = layout.parse_forecast_prefix(removal.key)
            manifest = records.manifest_of(self.site, one.cycle, one.revision)
            assert manifest is not None
            gone = [a for a in manifest.assets if a.key in removal.assets]
            remove_assets(store, manifest, gone, self.now)
        elif removal.kind == "analysis":
            store.delete(f"{removal.key}/{COMMIT}")
            store.delete_all(removal.key)
        else:
            remove_forecast(store, removal.key)
        _log.info("%s of %s removed: %s", removal.kind, removal.key, removal.reason)

    def _due_assets(self, manifest: Manifest) -> dict[str, str]:
        """Keys of assets that are older than they are kept, and why."""
        due = {}
        for asset in manifest.assets:
            reason = self._too_old(manifest.cycle.init_time, self.rules.of(asset.product))
            if reason and not (asset.product == ENSEMBLE and manifest.id in self._unverified):
                due[asset.key] = f"{asset.product}: {reason}"
        return due

    def _remains(self, one: ForecastId, prefix: str) -> Removal | None:
        """A folder without a manifest: of a removal that was cut short, or of a run given up."""
        catalog = self.site.catalog
        runs = catalog.runs(cycle=one.cycle, variant=one.variant)
        state = next((run.state for run in runs if run.revision == one.revision), None)
        told = catalog.events(kind="forecast-removed", cycle=one.cycle, variant=one.variant)
        if state == "published" and any(event.subject == prefix for event in told):
            return Removal("remains", prefix, one.cycle, "its removal was cut short")
        if state == "skipped":
            return Removal("remains", prefix, one.cycle, "its run was given up")
        return None

    def _too_old(self, time: datetime, days: float | None) -> str:
        age = (self.now - time) / timedelta(days=1)
        return f"{age:.0f} days old, kept for {days:g}" if days is not None and age > days else ""

    @cached_property
    def _pointed_at(self) -> set[ForecastId]:
        variant = self.site.config.name
        named = (read_latest(self.site.store, variant), derive_latest(self.site.store, variant))
        return {ForecastId(p.variant, p.cycle, p.revision) for p in named if p is not None}

    @cached_property
    def _unverified(self) -> dict[ForecastId, set[datetime]]:
        """Forecasts that are still to be verified, with the times whose truth they lack."""
        variant = self.site.config.name
        days = VerificationSettings.load().max_age_days
        since = Cycle.latest_before(self.now - timedelta(days=days))
        scored = self.site.catalog.scored(variant, self.site.source.name, since)
        found: dict[ForecastId, set[datetime]] = {}
        seen: set[Cycle] = set()
        for run in self.site.catalog.runs(variant=variant, states=("published",), since=since):
            manifest = None
            if run.cycle not in seen:
                seen.add(run.cycle)
                manifest = records.manifest_of(self.site, run.cycle, run.revision)
            if manifest is None:
                continue
            made = manifest.ensemble
            hours = [made.step_hours * (i + 1) for i in range(made.steps)]
            left = {h for h in hours if not self._is_scored(scored.get((run.cycle, h)), run)}
            if left:
                times = {run.cycle.init_time + timedelta(hours=h) for h in left}
                found[manifest.id] = times
        return found

    @staticmethod
    def _is_scored(when: datetime | None, run: Any) -> bool:
        return when is not None and (run.published is None or when >= run.published)

    @cached_property
    def _needed_analyses(self) -> set[datetime]:
        """Valid times that a verification or an unfinished run needs."""
        needed = {time for times in self._unverified.values() for time in times}
        unfinished = ("waiting", "forecasting", "products", "publishing", "failed")
        config = self.site.config
        for run in self.site.catalog.runs(variant=config.name, states=unfinished):
            needed.update(run.cycle.history_times(config.history, config.step_hours))
            begun_from = run.facts.get("valid_times", [])
            needed.update(datetime.fromisoformat(time) for time in begun_from)
        return needed

    @property
    def _history_from(self) -> datetime:
        """Analyses since then may start a cycle that is made up for."""
        history = timedelta(hours=self.site.config.history * self.site.config.step_hours)
        return self.now - LOOK_BACK - history


def keep_up(site: Site, now: datetime | None = None) -> int:
    """Upkeep of the catalog: old entries of the audit go, space is given back.

    Returns:
        how many entries went.
    """
    days = site.profile.retention.audit
    count = 0
    if days is not None:
        count = site.catalog.expire_events((now or stages.now()) - timedelta(days=days))
    site.catalog.optimise()
    return count
