"""Verify published forecasts against what came true; what is done is in the catalog."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core import dims
from mosaic_core.catalog.models import ForecastRun
from mosaic_core.channels import Channel, Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import (
    CatalogError,
    ConfigurationError,
    ForecastError,
    IntegrityError,
    MosaicError,
    StoreError,
)
from mosaic_core.pipeline.site import Site
from mosaic_core.pipeline.truth import StoredAnalyses, Truth
from mosaic_core.publication import layout
from mosaic_core.publication.latest import read_manifest
from mosaic_core.spectral import SphericalHarmonics
from mosaic_core.storage import ObjectMissing
from mosaic_core.verification import arrays
from mosaic_core.verification.climatology import Climatology, shipped
from mosaic_core.verification.energy import Energy, bands
from mosaic_core.verification.ranks import rank_histogram
from mosaic_core.verification.regions import Weights
from mosaic_core.verification.rows import ENERGY, energy_rows, score_rows
from mosaic_core.verification.scores import member_fields, same_grid, truth_fields
from mosaic_core.verification.settings import VerificationSettings
from mosaic_core.verification.statistics import statistics

_log = logging.getLogger(__name__)
Array = NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Due:
    """A lead time of a published forecast that has come true; newest valid time sorts last."""

    valid_time: datetime
    cycle: Cycle
    revision: int
    lead_hours: int

    def __str__(self) -> str:
        return f"{self.cycle} +{self.lead_hours} h"


@dataclass(frozen=True)
class VerificationReport:
    """What a verification did.

    Attributes:
        truth: name of what was verified against.
        verified: lead times that have scores now and had none.
        failed: those that could not be verified, and why.
        left: due, but beyond what one go may do.
        waiting: whether the analysis that was asked about is not there yet.
    """

    truth: str
    verified: tuple[Due, ...] = ()
    failed: tuple[tuple[Due, str], ...] = ()
    left: int = 0
    waiting: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "truth": self.truth,
            "verified": [str(due) for due in self.verified],
            "failed": {str(due): reason for due, reason in self.failed},
            "left": self.left,
            "waiting": self.waiting,
        }


def verify_due(
    site: Site,
    cycle: Cycle,
    settings: VerificationSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> VerificationReport:
    """Verify every published forecast that comes true with the analysis of `cycle`.

    Lead times of earlier analyses that are still without scores are made up, the newest first, up
    to `at_most` in one go and `max_age_days` back. One that fails (a value that is not finite, an
    object that is damaged) leaves the others; it is an event, and is tried again next time.

    Args:
        on_progress: told how many lead times of how many are done.

    Raises:
        ConfigurationError: the settings, or a model without any of the channels.
        CatalogError, StoreError: not reachable.
    """
    settings = settings or VerificationSettings.load()
    analyses = StoredAnalyses(site)
    report = verify(site, analyses, cycle.init_time, settings, on_progress)
    if analyses.has(cycle.init_time):
        return report
    _log.info("the analysis of %s is not there yet", cycle)
    return replace(report, waiting=True)


def verify(
    site: Site,
    truth: Truth,
    until: datetime,
    settings: VerificationSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    cycles: Iterable[Cycle] | None = None,
    lead_hours: Iterable[int] | None = None,
) -> VerificationReport:
    """Verify what is due against `truth` up to the valid time `until`; see `verify_due`.

    Args:
        cycles: only forecasts of these; their age does not matter then.
        lead_hours: only these lead times.
    """
    settings = settings or VerificationSettings.load()
    wanted = None if cycles is None else set(cycles)
    since = Cycle.latest_before(until - timedelta(days=settings.max_age_days))
    if wanted is not None:
        since = min(wanted, default=since)
    runs = [
        run
        for run in _published(site)
        if run.cycle >= since and (wanted is None or run.cycle in wanted)
    ]
    due = sorted(_due(site, truth, runs, since, until, lead_hours), reverse=True)
    now, left = due[: settings.at_most], len(due) - settings.at_most
    if truth.forward:
        now.reverse()
    verifier = _Verifier(site, truth, settings)
    verified, failed = [], []
    on_progress(0, len(now))
    for i, one in enumerate(now):
        try:
            verifier.verify(one)
            verified.append(one)
        except MosaicError as error:
            if _is_away(error):
                raise
            _log.error("%s of %s cannot be verified: %s", one, site.config.name, error)
            site.catalog.record_event(
                "verification-failed", str(one), cycle=one.cycle, variant=site.config.name,
                truth=truth.name, error=str(error),
            )  # fmt: skip
            failed.append((one, str(error)))
        on_progress(i + 1, len(now))
    return VerificationReport(truth.name, tuple(verified), tuple(failed), max(0, left))


def _is_away(error: MosaicError) -> bool:
    """Whether the catalog or the whole store refuses, not one object in it."""
    if isinstance(error, IntegrityError | ObjectMissing):
        return False
    return isinstance(error, CatalogError | StoreError)


def climatology_of(site: Site, settings: VerificationSettings) -> Climatology | None:
    """The climatology of a site: that of the settings, or a shipped one of its planet and grid."""
    if settings.climatology:
        return Climatology.read(Path(settings.climatology))
    provenance = getattr(site.source, "provenance", None)
    return None if provenance is None else shipped(provenance, site.config.lat_lon)


def last_wavenumber(site: Site, harmonics: SphericalHarmonics) -> int:
    """The last wavenumber that both the grid and a simulated truth resolve."""
    simulated = getattr(getattr(site.source, "settings", None), "truncation", None)
    return min(harmonics.truncation, simulated or harmonics.truncation)


def _published(site: Site) -> list[ForecastRun]:
    """The newest published revision of each cycle, newest cycle first."""
    newest: dict[Cycle, ForecastRun] = {}
    for run in site.catalog.runs(variant=site.config.name, states=("published",)):
        newest.setdefault(run.cycle, run)
    return list(newest.values())


def _due(
    site: Site,
    truth: Truth,
    runs: Sequence[ForecastRun],
    since: Cycle,
    until: datetime,
    lead_hours: Iterable[int] | None,
) -> Iterator[Due]:
    """Lead times without scores, or with scores of an earlier revision, whose truth is there."""
    scored = site.catalog.scored(site.config.name, truth.name, since)
    only = None if lead_hours is None else set(lead_hours)
    known: dict[datetime, bool] = {}
    for run in runs:
        manifest = read_manifest(site.store, run.variant, run.cycle, run.revision)
        if manifest is None:
            _log.info("%s %s r%d is no longer stored", run.variant, run.cycle, run.revision)
            continue
        ensemble = manifest.ensemble
        for step in range(1, ensemble.steps + 1):
            hours = step * ensemble.step_hours
            valid = run.cycle.init_time + timedelta(hours=hours)
            when = scored.get((run.cycle, hours))
            done = when is not None and (run.published is None or when >= run.published)
            if done or valid > until or (only is not None and hours not in only):
                continue
            if valid not in known:
                known[valid] = truth.has(valid)
            if known[valid]:
                yield Due(valid, run.cycle, run.revision, hours)


class _Verifier:
    """Verifies lead times one by one; a truth serves all that are valid at its time."""

    def __init__(self, site: Site, truth: Truth, settings: VerificationSettings) -> None:
        self.site, self.truth, self.settings = site, truth, settings
        self.grid = site.config.lat_lon
        self.channels = settings.of(site.config.channel_set)
        self.winds = settings.winds(site.config.channel_set)
        self.weights = Weights.of(self.grid, settings.regions)
        self._truth = lru_cache(maxsize=1)(truth.at)
        self._start = lru_cache(maxsize=16)(self._read_start)
        try:
            self.harmonics = SphericalHarmonics(self.grid)
        except ConfigurationError as error:
            _log.warning("no spectra: %s", error)
            self.winds = {}

    @cached_property
    def climatology(self) -> tuple[Array, Array] | None:
        found = climatology_of(self.site, self.settings)
        return None if found is None else found.of(self.channels, self.grid)

    def verify(self, due: Due) -> None:
        site, name = self.site, self.site.config.name
        truth = self._truth(due.valid_time)
        wanted = _with(self.channels, self.winds)
        members, hours = self._members(due, truth, wanted)
        actual = truth_fields(truth, wanted)
        count = len(self.channels)
        found = self._scores(due, members[:, :count], actual[:count])
        energies = {
            level: self._energy(wanted, pair, members, actual) for level, pair in self.winds.items()
        }
        ranks = rank_histogram(members[:, :count], actual[:count], self.weights)
        key = arrays.key_of(name, self.truth.name, due.cycle)
        kept = self._arrays(due, energies, ranks)
        forecast = layout.forecast_prefix(name, due.cycle, due.revision)
        arrays.write_lead(site.store, key, kept, hours, forecast)
        chosen = bands(last_wavenumber(site, self.harmonics)) if energies else ()
        rows = [
            *score_rows(found, self.channels, self.weights),
            *energy_rows(energies, "global", chosen),
        ]
        identity = {
            "cycle": due.cycle, "model": name, "lead_hours": due.lead_hours,
            "truth_source": self.truth.name,
        }  # fmt: skip
        site.catalog.record_scores({**row, **identity} for row in rows)

    def _members(self, due: Due, truth: xr.Dataset, wanted: Channels) -> tuple[Array, list[int]]:
        """One lead time, (number, channel, latitude, longitude), and all that there are (h)."""
        from mosaic_core.ensemble.store import open_ensemble

        prefix = layout.forecast_prefix(self.site.config.name, due.cycle, due.revision)
        where = self.site.store.url(prefix)
        try:
            ensemble = open_ensemble(self.site.store, prefix)
            same_grid(ensemble, truth)
            hours = (ensemble[dims.LEAD_TIME].values / np.timedelta64(1, "h")).astype(int).tolist()
            if due.lead_hours not in hours:
                raise ForecastError(
                    f"{where} has no step at {due.lead_hours} h", "every step of its manifest"
                )
            step = ensemble.isel({dims.LEAD_TIME: hours.index(due.lead_hours)})
            return member_fields(step, wanted), hours
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise IntegrityError(
                f"{where} cannot be read: {error}",
                "the ensemble that was published",
                "`mosaic products verify` says what is damaged",
            ) from error

    def _scores(self, due: Due, members: Array, actual: Array) -> dict[str, Array]:
        """Statistics by name, (channel, region); without persistence where its analysis is gone."""
        persistence = self._start(due.cycle.init_time)
        mean, deviation = self.climatology or (None, None)
        return statistics(
            members, actual, self.weights,
            persistence=persistence, climatology=mean, deviation=deviation,
        )  # fmt: skip

    def _read_start(self, time: datetime) -> Array | None:
        analyses = StoredAnalyses(self.site)
        return truth_fields(analyses.at(time), self.channels) if analyses.has(time) else None

    def _energy(
        self, channels: Channels, pair: tuple[Channel, Channel], members: Array, actual: Array
    ) -> Energy:
        u, v = (channels.index(channel.name) for channel in pair)
        return Energy.of((members[:, u], members[:, v]), (actual[u], actual[v]), self.harmonics)

    def _arrays(self, due: Due, energies: dict[int, Energy], ranks: Array) -> xr.Dataset:
        values: dict[str, Any] = {"rank_histogram": (("variable", "region", "rank"), ranks)}
        coordinates: dict[str, Any] = {dims.LEAD_TIME: due.lead_hours}
        names = {"variables": list(self.channels.names), "regions": list(self.weights.names)}
        if energies:
            coordinates["wind_level"] = list(energies)
            axes = ("wind_level", "total_wavenumber")
            for part in ("members", "mean", "truth"):
                stacked = np.stack([energy.parts()[part] for energy in energies.values()])
                values[f"{ENERGY}_of_{part}"] = (axes, stacked, {"units": "m2 s-2"})
        return xr.Dataset(values, coordinates, names)


def _with(channels: Channels, winds: dict[int, tuple[Channel, Channel]]) -> Channels:
    """The verified channels, followed by the winds that are only needed for spectra."""
    others = [c for pair in winds.values() for c in pair if c.name not in channels.names]
    return Channels((*channels, *others))
