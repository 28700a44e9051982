"""What is known about a site at one moment, read from the catalog, the store and the host.

A part that cannot be read is None and its problem is said: the conditions that need it are then
neither found nor taken back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import urlsplit

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.catalog.measures import Series
from mosaic_core.catalog.models import Alert, AlertDelivery, Analysis, Claim, Event, ForecastRun
from mosaic_core.cycle import Cycle
from mosaic_core.errors import IntegrityError, PublicationError, StoreError
from mosaic_core.monitoring.kinds import Alerting, Drift
from mosaic_core.profile import Profile
from mosaic_core.publication.latest import Latest, read_latest, read_manifest
from mosaic_core.publication.manifest import Manifest
from mosaic_core.storage import ObjectStore, open_store

ACTIVE: Final = ("forecasting", "products", "publishing")
DONE: Final = ("published", "unchanged")
_STAGES: Final = {
    "waiting": "ingest",
    "forecasting": "forecast",
    "products": "products",
    "publishing": "publish",
}


@dataclass(frozen=True)
class Watched:
    """A site as monitoring sees it: nothing is opened yet.

    Attributes:
        source: name of the source of analyses.
    """

    profile: Profile
    variant: str
    source: str
    alerting: Alerting

    @classmethod
    def of(cls, profile: Profile, alerting: Alerting | None = None) -> Watched:
        """What a profile names, with `config/alerts.yaml` unless other settings are given.

        Raises:
            ConfigurationError: the profile names no model or source that there is.
        """
        from mosaic_core.analysis.sources.registry import make_source
        from mosaic_core.model.config import ModelConfig

        source = make_source(profile.source, f"profile {profile.name}: source")
        variant = ModelConfig.load(profile.model).name
        return cls(profile, variant, source.name, alerting or Alerting.load())

    @property
    def host(self) -> str:
        return self.alerting.host or socket.gethostname()

    @property
    def state(self) -> Path:
        return Path(self.alerting.state)

    def store(self) -> ObjectStore:
        return open_store(self.profile.store, create=False)


@dataclass(frozen=True)
class CycleFacts:
    """What the catalog has about one cycle of one variant.

    Attributes:
        runs: newest revision first.
        analysis: the row of its own analysis, whatever became of it.
        refusals: events of attempts that did not get beyond the analyses, oldest first.
        failed_in: stage in which the newest failure happened.
    """

    cycle: Cycle
    runs: tuple[ForecastRun, ...] = ()
    analysis: Analysis | None = None
    refusals: tuple[Event, ...] = ()
    failed_in: str = ""

    @property
    def settled(self) -> bool:
        """Published, or left out on purpose."""
        states = [run.state for run in self.runs]
        return any(state in DONE for state in states) or states[:1] == ["skipped"]

    @property
    def refusal(self) -> tuple[str, str] | None:
        """(error, text) of the newest failure to begin, unless the cycle went on after it."""
        if not self.refusals:
            return None
        last = self.refusals[-1]
        accepted = self.analysis is not None and self.analysis.state in ("accepted", "degraded")
        if accepted and self.analysis is not None and self.analysis.updated >= last.time:
            return None
        if any(run.state in (*ACTIVE, *DONE) and run.updated >= last.time for run in self.runs):
            return None
        error, _, text = str(last.detail.get("error", "")).partition(": ")
        return error, text

    @property
    def begun(self) -> bool:
        """Whether its analyses have been accepted."""
        accepted = self.analysis is not None and self.analysis.state in ("accepted", "degraded")
        return accepted or any(run.state in ACTIVE for run in self.runs)

    @property
    def state(self) -> str:
        """In words, how far it is."""
        if not self.runs:
            return f"no run: {self.refusal[1]}" if self.refusal else "no run was started"
        run = self.runs[0]
        return f"{run.state}: {run.error}" if run.error else run.state


@dataclass(frozen=True)
class Drifting:
    """Medians of a series of scores before and lately: one bad day does not move them."""

    series: Series
    reference: float
    recent: float

    @property
    def ratio(self) -> float:
        return self.recent / self.reference


@dataclass(frozen=True)
class CatalogFacts:
    """What the catalog has.

    Attributes:
        cycles: those looked back at, oldest first, none before the first that was ever run.
        has_history: whether anything has ever been run.
        active: runs that are under way.
        claims: those that have expired too.
        notices: events of notices that were not delivered.
        pending: messages about alerts that have not arrived.
        series: of scores with enough cycles, by metric.
    """

    cycles: tuple[CycleFacts, ...]
    has_history: bool
    active: tuple[ForecastRun, ...]
    claims: tuple[Claim, ...]
    newest_published: ForecastRun | None
    notices: tuple[Event, ...]
    pending: tuple[tuple[AlertDelivery, Alert], ...]
    series: Mapping[str, tuple[Drifting, ...]]


@dataclass(frozen=True)
class StoreFacts:
    """What is published; `damage` says what cannot be right about it."""

    latest: Latest | None = None
    manifest: Manifest | None = None
    damage: str = ""


@dataclass(frozen=True)
class DiskFacts:
    """Shares of a file system that are free, 0..1; None where it does not say."""

    path: str
    bytes_free: float | None
    inodes_free: float | None


@dataclass(frozen=True)
class Facts:
    """All of it; `problem` of a part says why it is None."""

    site: Watched
    now: datetime
    catalog: CatalogFacts | None = None
    store: StoreFacts | None = None
    disks: tuple[DiskFacts, ...] = ()
    catalog_problem: str = ""
    store_problem: str = ""

    def due(self, hours: float) -> list[CycleFacts]:
        """Cycles that are `hours` past their initial time, oldest first.

        Of a site where nothing has ever run only the newest; of a profile with a fixed cycle
        none: it has no schedule.
        """
        if self.catalog is None or self.site.profile.cycle is not None:
            return []
        limit = self.now - timedelta(hours=hours)
        due = [facts for facts in self.catalog.cycles if facts.cycle.init_time <= limit]
        return due if self.catalog.has_history else due[-1:]


def read_catalog(site: Watched, catalog: Catalog, now: datetime) -> CatalogFacts:
    """Raises CatalogError when it cannot be read."""
    first = catalog.first_cycle(site.variant)
    return CatalogFacts(
        cycles=tuple(_cycles(site, catalog, now, first)),
        has_history=first is not None,
        active=catalog.runs(variant=site.variant, states=ACTIVE, limit=50),
        claims=catalog.all_claims(site.variant),
        newest_published=catalog.latest_published(site.variant),
        notices=catalog.events(kind="notice-undelivered", variant=site.variant, limit=50),
        pending=catalog.pending_deliveries(),
        series=_series(site, catalog, now),
    )


def read_store(site: Watched) -> StoreFacts:
    """Raises StoreError when the store cannot be read."""
    store = site.store()
    try:
        latest = read_latest(store, site.variant)
        if latest is None:
            return StoreFacts()
        manifest = read_manifest(store, site.variant, latest.cycle, latest.revision)
    except (IntegrityError, PublicationError) as error:
        return StoreFacts(damage=error.found)
    if manifest is None:
        return StoreFacts(latest, damage=f"latest.json names {latest.manifest}, which is not there")
    return StoreFacts(latest, manifest)


def read_disks(
    site: Watched, statvfs: Callable[[str], os.statvfs_result] = os.statvfs
) -> tuple[DiskFacts, ...]:
    """The file systems under the store, the catalog and the paths of `disk-nearly-full`."""
    found: dict[int, DiskFacts] = {}
    for path in _paths(site):
        there = next((p for p in (path, *path.parents) if p.exists()), None)
        if there is None or there.stat().st_dev in found:
            continue
        status = statvfs(str(there))
        found[there.stat().st_dev] = DiskFacts(
            str(path),
            status.f_bavail / status.f_blocks if status.f_blocks else None,
            status.f_favail / status.f_files if status.f_files else None,
        )
    return tuple(found.values())


def try_store(site: Watched) -> tuple[StoreFacts | None, str]:
    """(what is published, "") or (None, why the store cannot be read)."""
    try:
        return read_store(site), ""
    except StoreError as error:
        return None, str(error)


def _cycles(
    site: Watched, catalog: Catalog, now: datetime, first: Cycle | None
) -> Iterator[CycleFacts]:
    analyses = {a.cycle: a for a in catalog.analyses(source=site.source, limit=200)}
    newest = Cycle.latest_before(now)
    count = int(site.alerting.look_back_hours // 6)
    for back in reversed(range(count + 1)):
        cycle = newest.shift(-6 * back)
        if now - cycle.init_time > timedelta(hours=site.alerting.look_back_hours):
            continue
        if first is not None and cycle < first:
            continue
        key = {"cycle": cycle, "variant": site.variant}
        changes = catalog.events(kind="run", **key)  # type: ignore[arg-type]
        failures = [event for event in changes if event.new == "failed"]
        yield CycleFacts(
            cycle,
            catalog.runs(**key),  # type: ignore[arg-type]
            analyses.get(cycle),
            catalog.events(kind="ingest-failed", **key, limit=50),  # type: ignore[arg-type]
            _STAGES.get(failures[-1].old or "", "") if failures else "",
        )


def _series(site: Watched, catalog: Catalog, now: datetime) -> dict[str, tuple[Drifting, ...]]:
    """Series with enough cycles on both sides; windows by valid time, so shifted by lead time."""
    drift, scores = site.alerting.kinds.get("verification-drift"), site.alerting.scores
    if not isinstance(drift, Drift):
        return {}
    found: dict[str, list[Drifting]] = {metric: [] for metric in drift.metrics}
    for lead_hours in scores.lead_hours:
        end = now - timedelta(hours=lead_hours)
        middle = end - timedelta(days=drift.recent_days)
        start = middle - timedelta(days=drift.reference_days)

        def values(begin: datetime, stop: datetime, lead: int = lead_hours) -> _Values:
            return catalog.score_values(
                site.variant, metrics=drift.metrics, variables=scores.variables,
                regions=scores.regions, lead_hours=lead,
                start=Cycle.latest_before(begin), end=Cycle.latest_before(stop),
            )  # fmt: skip

        before, lately = values(start, middle), values(middle, end)
        for series in before.keys() & lately.keys():
            old, new = before[series], lately[series]
            if min(len(old), len(new)) >= drift.least_cycles and median(old) > 0:
                found[series.metric].append(Drifting(series, median(old), median(new)))
    return {metric: tuple(series) for metric, series in found.items()}


_Values = Mapping[Series, Sequence[float]]


def _paths(site: Watched) -> Sequence[Path]:
    kind = site.alerting.kinds.get("disk-nearly-full")
    paths = [Path(path) for path in getattr(kind, "paths", ())]
    store = urlsplit(site.profile.store)
    if store.scheme in ("", "file"):
        paths.append(Path(store.path or site.profile.store))
    if site.profile.catalog.startswith("sqlite:///"):
        paths.append(Path(site.profile.catalog.removeprefix("sqlite:///")).parent)
    return [path.expanduser().absolute() for path in paths]
