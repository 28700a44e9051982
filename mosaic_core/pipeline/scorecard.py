"""Pages of scores: of the forecasts that came true on a day, or in a month.

They lie at `verification/v1/<variant>/<truth>/pages/2026-03-28.html` and `2026-03.html`, with a
`.md` beside each, and are replaced when they are made again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from mosaic_core.catalog.scores import CycleScore
from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError
from mosaic_core.pipeline import sections
from mosaic_core.pipeline.accumulated import accumulate
from mosaic_core.pipeline.scoreboard import quality_flags
from mosaic_core.pipeline.sections import METRICS, REGION, Means
from mosaic_core.pipeline.site import Site
from mosaic_core.pipeline.verifier import last_wavenumber
from mosaic_core.spectral import SphericalHarmonics
from mosaic_core.verification import arrays
from mosaic_core.verification.page import Page

LONGEST_HOURS: Final = 16 * 24
HISTORY_DAYS: Final = 35


@dataclass(frozen=True)
class Valid:
    """Forecasts that come true from `start` on and before `end`, UTC."""

    start: datetime
    end: datetime

    @classmethod
    def parse(cls, text: str) -> Valid:
        """A day, `2026-03-28`, or a month, `2026-03`.

        Raises:
            ConfigurationError: neither.
        """
        match = re.fullmatch(r"(\d{4})-(\d{2})(?:-(\d{2}))?", text)
        try:
            if match is None:
                raise ValueError(text)
            year, month, day = int(match[1]), int(match[2]), int(match[3] or 1)
            start = datetime(year, month, day, tzinfo=UTC)
        except ValueError as error:
            raise ConfigurationError(
                f"{text!r}", "a day or a month, as in 2026-03-28 or 2026-03"
            ) from error
        if match[3]:
            return cls(start, start + timedelta(days=1))
        return cls(start, datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC))

    @property
    def since(self) -> Cycle:
        return Cycle.latest_before(self.start - timedelta(hours=LONGEST_HOURS))

    @property
    def until(self) -> Cycle:
        return Cycle.latest_before(self.end)

    def holds(self, cycle: Cycle, lead_hours: int) -> bool:
        return self.start <= cycle.init_time + timedelta(hours=lead_hours) < self.end

    @property
    def name(self) -> str:
        whole_day = self.end - self.start == timedelta(days=1)
        return f"{self.start:%Y-%m-%d}" if whole_day else f"{self.start:%Y-%m}"


def write_page(
    site: Site, truth: str, valid: Valid, reference: str | None = None, flags: Iterable[str] = ()
) -> dict[str, str]:
    """Make the page of a day or a month; `html` and `markdown` -> URL.

    Args:
        reference: another model with scores against the same truth; by default climatology, and
            persistence where there is none.
        flags: stand on the page, before the quality flags of its forecasts.

    Raises:
        ConfigurationError: nothing came true then, or the reference has no scores.
    """
    page = make_page(site, truth, valid, reference, flags)
    found = {}
    for kind, suffix, text in (("html", "html", page.html()), ("markdown", "md", page.markdown())):
        key = f"{arrays.folder(site.config.name, truth)}/pages/{valid.name}.{suffix}"
        site.store.put(key, text.encode())
        found[kind] = site.store.url(key)
    return found


def make_page(
    site: Site, truth: str, valid: Valid, reference: str | None = None, flags: Iterable[str] = ()
) -> Page:
    """The page itself; see `write_page`."""
    variant = site.config.name
    history = _read(site, variant, truth, valid, timedelta(days=HISTORY_DAYS))
    means = _within(history, valid)
    if not means:
        raise ConfigurationError(
            f"no forecast of {variant} that came true in {valid.name} has scores against {truth}",
            "one or more", "run `mosaic verify`",
        )  # fmt: skip
    other = None
    if reference is not None:
        other = _within(_read(site, reference, truth, valid, timedelta(0)), valid)
        if not other:
            raise ConfigurationError(
                f"no scores of {reference} against {truth} in {valid.name}",
                "a reference that was verified against the same truth",
            )
    kept = accumulate(site.store, site.catalog, variant, truth, valid)
    made = [
        *sections.table(means),
        *sections.curves(means),
        *sections.heat_map(means, reference, other),
        *sections.ranks(kept),
        *sections.events(kept),
        *sections.spectra(kept, last_wavenumber(site, SphericalHarmonics(site.config.lat_lon))),
        *sections.drift(history),
    ]
    cycles = {c for leads in means.values() for m in leads.values() for c in m["rmse"]}
    subtitle = (
        f"Forecasts that came true in {valid.name}, from {len(cycles)} cycles, verified against "
        f"{truth}; {REGION} means."
    )
    said = tuple(dict.fromkeys((*flags, *quality_flags(site, cycles))))
    return Page(f"{variant}: scores of {valid.name}", subtitle, said, tuple(made))


def _read(site: Site, model: str, truth: str, valid: Valid, before: timedelta) -> Means:
    since = Cycle.latest_before(valid.since.init_time - before)
    rows = site.catalog.scores_by_cycle(
        model, truth, METRICS, since=since, until=valid.until, region=REGION
    )
    means: Means = {}
    for row in rows:
        if row.cycle.init_time + timedelta(hours=row.lead_hours) < valid.end:
            _put(means, row)
    return dict(sorted(means.items(), key=lambda each: sections.order(*each[0])))


def _put(means: Means, row: CycleScore) -> None:
    leads = means.setdefault((row.variable, row.level), {})
    leads.setdefault(row.lead_hours, {}).setdefault(row.metric, {})[row.cycle] = (
        row.sum, row.weight,
    )  # fmt: skip


def _within(means: Means, valid: Valid) -> Means:
    found: Means = {}
    for line, leads in means.items():
        for hours, metrics in sorted(leads.items()):
            for metric, values in metrics.items():
                inside = {c: v for c, v in values.items() if valid.holds(c, hours)}
                if inside:
                    found.setdefault(line, {}).setdefault(hours, {})[metric] = inside
    return found
