"""Scores of a site over many cycles: lines of a table, a scorecard, spectra."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError
from mosaic_core.pipeline.accumulated import Period, accumulate
from mosaic_core.pipeline.site import Site
from mosaic_core.pipeline.verification import published_runs
from mosaic_core.pipeline.verifier import last_wavenumber
from mosaic_core.publication.latest import read_manifest
from mosaic_core.spectral import SphericalHarmonics
from mosaic_core.verification import arrays
from mosaic_core.verification.energy import Energy
from mosaic_core.verification.rows import ENERGY, Line, scores_of, short_name

SCORECARD: Final = "scorecard.png"
SPECTRA: Final = "spectra.png"
_SHOWN_SPECTRA: Final = 3
"""Lead times in the picture of spectra."""


@dataclass(frozen=True)
class Scored:
    """Scores of one line over `cycles` forecasts, as `verification.rows.scores_of` names them."""

    line: Line
    cycles: int
    scores: Mapping[str, float]

    def as_record(self) -> dict[str, Any]:
        return {**self.line._asdict(), "cycles": self.cycles, **self.scores}


def scored_lines(
    catalog: Catalog,
    model: str,
    truth: str,
    period: Period | None = None,
    *,
    variable: tuple[str, int] | None = None,
    region: str | None = None,
) -> list[Scored]:
    """Scores by variable, level, region and lead time, of averages over the cycles of a period."""
    period = period or Period()
    name, level = variable or (None, None)
    averages: dict[Line, dict[str, float]] = {}
    cycles: dict[Line, int] = {}
    for row in catalog.average_scores(
        model, truth, since=period.since, until=period.until,
        variable=name, level=level, region=region,
    ):  # fmt: skip
        line = Line(row.variable, row.level, row.region, row.lead_hours)
        averages.setdefault(line, {})[row.metric] = row.value
        cycles[line] = max(cycles.get(line, 0), row.cycles)
    return [Scored(line, cycles[line], scores_of(means)) for line, means in averages.items()]


def truth_of(catalog: Catalog, model: str, wanted: str | None, default: str) -> str:
    """The truth to show scores against: as asked for, else `default`, else the only one.

    Raises:
        ConfigurationError: nothing has been verified, or not against what is asked for.
    """
    known = catalog.truths(model)
    if wanted is None and default in known:
        return default
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted in known:
        return str(wanted)
    raise ConfigurationError(
        f"no scores of {model} against {wanted or default}",
        f"one of {', '.join(known)}" if known else "forecasts that have been verified",
        "name one: `--truth`" if known else "run `mosaic verify`",
    )


def write_pictures(
    site: Site, truth: str, period: Period, flags: Iterable[str] = ()
) -> dict[str, str]:
    """Draw the scorecard and the spectra of a period again; name -> URL of those there are.

    They lie at `verification/v1/<variant>/<truth>/` and are replaced each time. The quality flags
    of the forecasts stand on them, after `flags`.
    """
    from mosaic_core.verification import figures

    variant = site.config.name
    scored = site.catalog.scored(variant, truth, period.since)
    cycles = {cycle for cycle, hours in scored if period.holds(cycle, hours)}
    said = tuple(dict.fromkeys((*flags, *quality_flags(site, cycles))))
    lines = scored_lines(site.catalog, variant, truth, period, region="global")
    pictures = {}
    scorecard = _scorecard(figures, variant, truth, lines, said)
    if scorecard is not None:
        pictures[SCORECARD] = scorecard
    energies, count, last = mean_energies(site, truth, period)
    if energies:
        hours = sorted({hours for hours, _ in energies})
        spread = np.linspace(0, len(hours) - 1, _SHOWN_SPECTRA, dtype=int)
        shown = [hours[i] for i in np.unique(spread)]
        chosen = {
            (f"{lead} h", f"{level} hPa"): energy
            for (lead, level), energy in energies.items()
            if lead in shown
        }
        title = f"Kinetic energy of {variant} against {truth}, {_cycles(count)}"
        pictures[SPECTRA] = figures.report((), (), chosen, last, title, said)
    found = {}
    for name, picture in pictures.items():
        key = f"{arrays.folder(variant, truth)}/{name}"
        site.store.put(key, picture)
        found[name] = site.store.url(key)
    return found


def quality_flags(site: Site, cycles: Collection[Cycle]) -> tuple[str, ...]:
    """What the published forecasts of some cycles say is wrong with them, each once."""
    flags: dict[str, None] = {}
    for run in published_runs(site):
        if run.cycle in cycles:
            manifest = read_manifest(site.store, run.variant, run.cycle, run.revision)
            flags |= dict.fromkeys(manifest.quality.flags if manifest else ())
    return tuple(flags)


def mean_energies(
    site: Site, truth: str, period: Period
) -> tuple[dict[tuple[int, int], Energy], int, int]:
    """Mean spectra by (lead hours, level), over how many cycles, and the last wavenumber."""
    found = accumulate(site.store, site.catalog, site.config.name, truth, period)
    last = last_wavenumber(site, SphericalHarmonics(site.config.lat_lon)) if found.energies else 0
    return found.energies, found.cycles, last


def _scorecard(
    figures: Any, variant: str, truth: str, lines: list[Scored], flags: tuple[str, ...]
) -> bytes | None:
    """Skill against climatology where there is one, else against persistence."""
    scored = [line for line in lines if line.line.variable != ENERGY]
    for reference in ("climatology", "persistence"):
        with_it = [line for line in scored if f"to_{reference}" in line.scores]
        if with_it:
            break
    else:
        return None
    rows = list(dict.fromkeys((s.line.variable, s.line.level) for s in with_it))
    hours = sorted({s.line.lead_hours for s in with_it})
    skill = np.full((len(rows), len(hours)), np.nan)
    for s in with_it:
        place = rows.index((s.line.variable, s.line.level)), hours.index(s.line.lead_hours)
        skill[place] = 1 - s.scores[f"to_{reference}"]
    picture: bytes = figures.scorecard(
        skill,
        [short_name(*row) for row in rows],
        hours,
        f"{variant}: better than {reference} by how many per cent",
        f"RMSE of the ensemble mean, {_cycles(max(s.cycles for s in with_it))}, against {truth}",
        flags,
    )
    return picture


def _cycles(count: int) -> str:
    return f"{count} cycle{'' if count == 1 else 's'}"
