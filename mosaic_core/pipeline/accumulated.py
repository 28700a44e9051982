"""What the store keeps of verified forecasts, added up over the cycles of a period."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core import dims
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.storage import ObjectStore
from mosaic_core.verification import arrays
from mosaic_core.verification.energy import Energy
from mosaic_core.verification.events import Counts
from mosaic_core.verification.rows import ENERGY
from mosaic_core.verification.statistics import Average

_log = logging.getLogger(__name__)
Array = NDArray[np.float64]
PARTS = ("members", "mean", "truth")


class Span(Protocol):
    """Which forecasts count."""

    @property
    def since(self) -> Cycle | None:
        """No cycle before counts; None is no bound."""

    @property
    def until(self) -> Cycle | None:
        """No cycle after counts."""

    def holds(self, cycle: Cycle, lead_hours: int) -> bool:
        """Whether a lead time of a cycle counts."""


@dataclass(frozen=True)
class Period:
    """Initial times from `since` to `until`, both included; None is no bound."""

    since: Cycle | None = None
    until: Cycle | None = None

    def holds(self, cycle: Cycle, lead_hours: int) -> bool:
        after = self.since is None or cycle >= self.since
        return after and (self.until is None or cycle <= self.until)


@dataclass(eq=False)
class Accumulated:
    """Sums over forecasts of one ensemble size.

    Attributes:
        cycles: how many forecasts have been added.
        energies: mean spectra by (lead hours, level in hPa).
        ranks: mean rank histogram by (lead hours, channel, region), (rank,).
        counts: of events by (lead hours, event, region), (votes,).
    """

    cycles: int = 0
    energies: dict[tuple[int, int], Energy] = field(default_factory=dict)
    ranks: dict[tuple[int, str, str], Array] = field(default_factory=dict)
    counts: dict[tuple[int, str, str], Counts] = field(default_factory=dict)


def accumulate(
    store: ObjectStore, catalog: Catalog, model: str, truth: str, span: Span
) -> Accumulated:
    """Add up the arrays of the forecasts of a span that have scores.

    Forecasts with another number of members than the newest one are left out.
    """
    scored: dict[Cycle, set[int]] = {}
    for cycle, hours in catalog.scored(model, truth, span.since):
        if span.holds(cycle, hours):
            scored.setdefault(cycle, set()).add(hours)
    made = Accumulated()
    energies: dict[tuple[int, int], Average] = {}
    ranks: dict[tuple[int, str, str], Average] = {}
    size = 0
    for cycle in sorted(scored, reverse=True):
        kept = arrays.read(store, arrays.key_of(model, truth, cycle))
        if kept is None:
            continue
        size = size or kept.sizes["rank"]
        if kept.sizes["rank"] != size:
            _log.info("%s has %d members, not %d", cycle, kept.sizes["rank"] - 1, size - 1)
            continue
        made.cycles += 1
        inside = np.isin(kept[dims.LEAD_TIME].values, sorted(scored[cycle]))
        kept = kept.isel({dims.LEAD_TIME: np.flatnonzero(inside)})
        for spectrum_key, parts in _spectra(kept):
            energies.setdefault(spectrum_key, Average()).add(parts)
        for key, shares in _ranks(kept):
            ranks.setdefault(key, Average()).add({"ranks": shares})
        for key, counts in _counts(kept):
            made.counts[key] = made.counts[key] + counts if key in made.counts else counts
    made.energies = {key: Energy(**average.means()) for key, average in sorted(energies.items())}
    made.ranks = {key: average.means()["ranks"] for key, average in sorted(ranks.items())}
    return made


def _spectra(kept: xr.Dataset) -> Iterator[tuple[tuple[int, int], dict[str, Array]]]:
    if f"{ENERGY}_of_truth" not in kept:
        return
    parts = {part: kept[f"{ENERGY}_of_{part}"].values for part in PARTS}
    for i, hours in enumerate(kept[dims.LEAD_TIME].values.tolist()):
        for j, level in enumerate(kept["wind_level"].values.tolist()):
            if np.isfinite(parts["truth"][i, j]).all():
                yield (hours, level), {part: values[i, j] for part, values in parts.items()}


def _ranks(kept: xr.Dataset) -> Iterator[tuple[tuple[int, str, str], Array]]:
    values = kept["rank_histogram"].transpose(dims.LEAD_TIME, "variable", "region", "rank").values
    for i, hours in enumerate(kept[dims.LEAD_TIME].values.tolist()):
        for j, channel in enumerate(_names(kept, "variables")):
            for k, region in enumerate(_names(kept, "regions")):
                if np.isfinite(values[i, j, k]).all():
                    yield (hours, channel, region), values[i, j, k]


def _counts(kept: xr.Dataset) -> Iterator[tuple[tuple[int, str, str], Counts]]:
    if "event_forecast" not in kept:
        return
    forecast, happened = kept["event_forecast"].values, kept["event_happened"].values
    for i, hours in enumerate(kept[dims.LEAD_TIME].values.tolist()):
        for j, event in enumerate(_names(kept, "events")):
            for k, region in enumerate(_names(kept, "regions")):
                if np.isfinite(forecast[i, j, k]).all():
                    yield (hours, event, region), Counts(forecast[i, j, k], happened[i, j, k])


def _names(kept: xr.Dataset, attribute: str) -> list[str]:
    """xarray gives a list of one name back as a string."""
    return [str(name) for name in np.atleast_1d(kept.attrs[attribute])]
