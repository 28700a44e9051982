"""Scores of one lead time of one forecast: computed from the fields, then kept.

Computing reads a few channels of the members at a time and changes nothing, so that threads and
other machines can do it; keeping writes to the catalog and the store.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core import dims
from mosaic_core.channels import Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError
from mosaic_core.pipeline.forecasts import Forecasts, Published, readable
from mosaic_core.pipeline.site import Site
from mosaic_core.pipeline.truth import StoredAnalyses, Truth
from mosaic_core.spectral import SphericalHarmonics
from mosaic_core.verification import arrays
from mosaic_core.verification.climatology import Climatology, shipped
from mosaic_core.verification.energy import Energy, bands
from mosaic_core.verification.events import Counts, Event
from mosaic_core.verification.members import Members
from mosaic_core.verification.ranks import ranks_of
from mosaic_core.verification.regions import Weights
from mosaic_core.verification.rows import ENERGY, energy_rows, event_rows, score_rows
from mosaic_core.verification.scores import member_fields, same_grid, truth_fields
from mosaic_core.verification.settings import VerificationSettings
from mosaic_core.verification.statistics import statistics_of, truth_statistics

_log = logging.getLogger(__name__)
Array = NDArray[np.float64]

_TOGETHER: Final = 4
"""Channels that are read and scored at a time: what bounds the memory."""


@dataclass(frozen=True, order=True)
class Due:
    """A lead time of a published forecast that has come true; newest valid time sorts last."""

    valid_time: datetime
    cycle: Cycle
    revision: int
    lead_hours: int

    def __str__(self) -> str:
        return f"{self.cycle} +{self.lead_hours} h"


@dataclass(frozen=True, eq=False)
class Verified:
    """What was found of one lead time.

    Attributes:
        rows: for the catalog.
        kept: arrays without `lead_time`, with the scalar coordinate `lead_time` in hours.
        lead_hours: every lead time of the forecast.
    """

    due: Due
    rows: tuple[dict[str, Any], ...]
    kept: xr.Dataset
    lead_hours: tuple[int, ...]


class Verifier:
    """Verifies lead times one by one; a truth serves all that are valid at its time."""

    def __init__(
        self,
        site: Site,
        truth: Truth,
        settings: VerificationSettings,
        forecasts: Forecasts | None = None,
    ) -> None:
        self.site, self.truth = site, truth
        self.forecasts = forecasts or Published(site)
        self.grid = site.config.lat_lon
        held = self.forecasts.channels
        common = tuple(c for c in site.config.channel_set if c in held)
        if not common:
            raise ConfigurationError(
                f"forecasts of {', '.join(held.names)}",
                f"a channel of {site.config.name}: {', '.join(site.config.channel_set.names)}",
            )
        both = Channels(common)
        self.channels = settings.of(both)
        self.winds = settings.winds(both)
        self.events = settings.events_of(both)
        self.weights = Weights.of(self.grid, settings.regions)
        self.settings = settings
        self._actual = lru_cache(maxsize=1)(self._read_actual)
        self._start = lru_cache(maxsize=16)(self._read_start)
        try:
            self.harmonics = SphericalHarmonics(self.grid)
        except ConfigurationError as error:
            _log.warning("no spectra: %s", error)
            self.winds = {}
        pairs = (Channels(pair) for pair in self.winds.values())
        self._again = tuple(
            dict.fromkeys(
                name for part in (*pairs, *(e.channels for e in self.events)) for name in part.names
            )
        )

    @cached_property
    def climatology(self) -> tuple[Array, Array] | None:
        found = climatology_of(self.site, self.settings)
        return None if found is None else found.of(self.channels, self.grid)

    def compute(self, due: Due) -> Verified:
        """Scores of a lead time; reads only.

        Raises:
            ForecastError, AnalysisRejected: a value is not finite; the channel is named.
            IntegrityError: the forecast cannot be read.
            StoreError: the store is not reachable.
        """
        ensemble, where, hours = self.forecasts.open(due)
        actual = self._actual(due.valid_time)
        fields = _Fields(self.forecasts, ensemble, where, actual, self._again)
        scored = _Scored(self, due, actual)
        for part in _parts(self.channels):
            scored.add(part, *fields.of(part))
        energies = {} if scored.gaps else self._energies(fields)
        counts = {event: self._count(event, fields) for event in self.events}
        chosen = bands(last_wavenumber(self.site, self.harmonics)) if energies else ()
        rows = (
            *score_rows(scored.means, self.channels, self.weights, scored.observed),
            *energy_rows(energies, "global", chosen),
            *event_rows(counts, self.weights),
        )
        kept = self._arrays(due, energies, scored.ranks, counts)
        return Verified(due, rows, kept, tuple(hours))

    def keep(self, found: Verified) -> None:
        """Write what was found: arrays into the store, then rows into the catalog.

        Raises:
            StoreError, CatalogError: not reachable.
        """
        name, due = self.forecasts.name, found.due
        key = arrays.key_of(name, self.truth.name, due.cycle)
        forecast = self.forecasts.identity(due)
        arrays.write_lead(self.site.store, key, found.kept, list(found.lead_hours), forecast)
        identity = {
            "cycle": due.cycle, "model": name, "lead_hours": due.lead_hours,
            "truth_source": self.truth.name,
        }  # fmt: skip
        self.site.catalog.record_scores({**row, **identity} for row in found.rows)

    def _read_actual(self, time: datetime) -> _Actual:
        dataset = self.truth.at(time)
        channels = Channels.parse(dict.fromkeys((*self.channels.names, *self._again)))
        fields = truth_fields(dataset, channels, self.truth.gaps)
        mean, deviation = self.climatology or (None, None)
        parts = []
        for part in _parts(self.channels):
            order = [self.channels.index(name) for name in part.names]
            known = {
                "climatology": None if mean is None else mean[order],
                "deviation": None if deviation is None else deviation[order],
            }
            parts.append(truth_statistics(fields[order], self.weights, **known))
        means = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return _Actual(dataset, channels, fields, means)

    def _read_start(self, time: datetime) -> Array | None:
        analyses = StoredAnalyses(self.site)
        return truth_fields(analyses.at(time), self.channels) if analyses.has(time) else None

    def start(self, due: Due) -> Array | None:
        """The analysis that the forecast started from, (channel, latitude, longitude)."""
        return self._start(due.cycle.init_time)

    def _energies(self, fields: _Fields) -> dict[int, Energy]:
        return {
            level: Energy.of(*_wind(*fields.of(Channels(pair))), self.harmonics)
            for level, pair in self.winds.items()
        }

    def _count(self, event: Event, fields: _Fields) -> Counts:
        members, actual = fields.of(event.channels)
        members = members.astype(np.float64)  # as thresholds are
        observed = np.asarray(~np.isnan(actual).any(0))
        return Counts.of(
            event.happens(members, event.channels), event.happens(actual, event.channels),
            self.weights, observed,
        )  # fmt: skip

    def _arrays(
        self, due: Due, energies: dict[int, Energy], ranks: Array, counts: dict[Event, Counts]
    ) -> xr.Dataset:
        values: dict[str, Any] = {"rank_histogram": (("variable", "region", "rank"), ranks)}
        coordinates: dict[str, Any] = {dims.LEAD_TIME: due.lead_hours}
        names = {"variables": list(self.channels.names), "regions": list(self.weights.names)}
        if counts:
            votes = ("event", "region", "votes")
            for part in ("forecast", "happened"):
                sums = np.stack([getattr(count, part) for count in counts.values()])
                values[f"event_{part}"] = (votes, sums, {"units": "1"})
            names["events"] = [event.label for event in counts]
        if energies:
            coordinates["wind_level"] = list(energies)
            axes = ("wind_level", "total_wavenumber")
            for part in ("members", "mean", "truth"):
                stacked = np.stack([energy.parts()[part] for energy in energies.values()])
                values[f"{ENERGY}_of_{part}"] = (axes, stacked, {"units": "m2 s-2"})
        return xr.Dataset(values, coordinates, names)


@dataclass(frozen=True, eq=False)
class _Actual:
    """What came true at a time, for all lead times that are valid then.

    Attributes:
        fields: (channel, latitude, longitude), those of `channels`: first those that are verified.
        means: `truth_statistics` of the verified ones, (channel, region).
    """

    dataset: xr.Dataset
    channels: Channels
    fields: Array
    means: dict[str, Array]

    def of(self, channels: Channels) -> Array:
        return self.fields[[self.channels.index(name) for name in channels.names]]


class _Scored:
    """Statistics and ranks of a lead time, part by part of its channels."""

    def __init__(self, verifier: Verifier, due: Due, actual: _Actual) -> None:
        self._verifier, start = verifier, verifier.start(due)
        self._of_truth = actual.means
        mean, deviation = verifier.climatology or (None, None)
        self._references = {"persistence": start, "climatology": mean, "deviation": deviation}
        self._means: list[dict[str, Array]] = []
        self._ranks: list[Array] = []
        self._observed: list[Array] = []
        self.gaps = False

    def add(self, part: Channels, members: NDArray[Any], actual: Array) -> None:
        """Members (number, channel, latitude, longitude) and truth of some channels."""
        verifier = self._verifier
        order = [verifier.channels.index(name) for name in part.names]
        chosen = {k: None if f is None else f[order] for k, f in self._references.items()}
        passed = Members.of(members, actual)
        of_truth = {name: means[order] for name, means in self._of_truth.items()}
        known = ~np.isnan(actual)
        self._means.append(
            statistics_of(passed, actual, verifier.weights, **chosen, of_truth=of_truth)
        )
        self._ranks.append(ranks_of(passed, actual, verifier.weights))
        self._observed.append(verifier.weights.shares(known))
        self.gaps = self.gaps or not known.all()

    @property
    def means(self) -> dict[str, Array]:
        return {name: np.concatenate([m[name] for m in self._means]) for name in self._means[0]}

    @property
    def ranks(self) -> Array:
        return np.concatenate(self._ranks)

    @property
    def observed(self) -> Array:
        return np.concatenate(self._observed)


class _Fields:
    """Members and truth of a lead time, read when asked for; channels that are wanted `again` are
    kept, as they are stored."""

    def __init__(
        self,
        forecasts: Forecasts,
        ensemble: xr.Dataset,
        where: str,
        actual: _Actual,
        again: Sequence[str],
    ) -> None:
        self._forecasts, self._ensemble, self._where = forecasts, ensemble, where
        self._actual, self._again = actual, again
        self._kept: dict[str, NDArray[Any]] = {}

    def of(self, channels: Channels) -> tuple[NDArray[Any], Array]:
        """(number, channel, latitude, longitude) and (channel, latitude, longitude)."""
        actual = self._actual.of(channels)
        if set(channels.names) <= set(self._kept):
            return np.stack([self._kept[name] for name in channels.names], axis=1), actual
        with readable(self._where):
            step = self._forecasts.fields(self._ensemble, channels)
            same_grid(step, self._actual.dataset)
            members = member_fields(step, channels)
        for i, name in enumerate(channels.names):
            if name in self._again:
                self._kept[name] = members[:, i].copy()
        return members, actual


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


def _parts(channels: Channels) -> Iterator[Channels]:
    """The channels in their order, a few of one variable at a time."""
    for _, group in groupby(channels, key=lambda channel: channel.variable):
        same = tuple(group)
        for start in range(0, len(same), _TOGETHER):
            yield Channels(same[start : start + _TOGETHER])


def _wind(members: NDArray[Any], actual: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """u and v of the members and of truth, from (..., 2, latitude, longitude)."""
    return (members[:, 0], members[:, 1]), (actual[0], actual[1])
