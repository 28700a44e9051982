"""What monitoring asks the catalog: sums over many rows, made by the database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import and_, case, func, select

from mosaic_core.catalog.core import CatalogCore
from mosaic_core.catalog.models import Claim, ForecastRun, Product, VerificationScore
from mosaic_core.cycle import Cycle


class Series(NamedTuple):
    """One series of scores over cycles; `level` is 0 hPa for surface variables."""

    metric: str
    variable: str
    level: int
    region: str
    lead_hours: int

    def __str__(self) -> str:
        level = f" {self.level} hPa" if self.level else ""
        return f"{self.variable}{level} +{self.lead_hours} h {self.region}"


_SERIES = (
    VerificationScore.metric,
    VerificationScore.variable,
    VerificationScore.level,
    VerificationScore.region,
    VerificationScore.lead_hours,
)


class Measures(CatalogCore):
    """The part of `Catalog` that measures."""

    def all_claims(self, variant: str | None = None) -> tuple[Claim, ...]:
        """Claims, those that have expired and that nobody has taken over too."""
        query = select(Claim).order_by(Claim.since)
        if variant is not None:
            query = query.filter_by(variant=variant)
        with self._reading() as session:
            return tuple(session.scalars(query))

    def first_cycle(self, variant: str) -> Cycle | None:
        """The oldest cycle of which there is a run."""
        query = select(ForecastRun.cycle).filter_by(variant=variant).order_by(ForecastRun.cycle)
        with self._reading() as session:
            return session.scalar(query.limit(1))

    def run_totals(self) -> dict[str, tuple[int, int]]:
        """Variant -> (attempts at runs, runs published), since the beginning."""
        published = case((ForecastRun.state == "published", 1), else_=0)
        query = select(
            ForecastRun.variant, func.sum(ForecastRun.attempts), func.sum(published)
        ).group_by(ForecastRun.variant)
        with self._reading() as session:
            return {v: (int(tries), int(done)) for v, tries, done in session.execute(query)}

    def published_bytes(self) -> dict[tuple[str, str], int]:
        """(variant, product) -> bytes published so far."""
        query = (
            select(ForecastRun.variant, Product.name, func.sum(Product.bytes))
            .join(Product, Product.run_id == ForecastRun.id)
            .where(Product.state == "published")
            .group_by(ForecastRun.variant, Product.name)
        )
        with self._reading() as session:
            return {(v, name): int(total or 0) for v, name, total in session.execute(query)}

    def score_values(
        self,
        model: str,
        *,
        metrics: Iterable[str],
        variables: Iterable[str],
        regions: Iterable[str],
        lead_hours: int,
        start: Cycle,
        end: Cycle,
    ) -> dict[Series, list[float]]:
        """Series -> its values in the cycles from `start` to before `end`."""
        score = VerificationScore
        query = select(*_SERIES, score.value).where(
            score.model == model,
            score.metric.in_(list(metrics)),
            score.variable.in_(list(variables)),
            score.region.in_(list(regions)),
            score.lead_hours == lead_hours,
            score.cycle >= start,
            score.cycle < end,
        )
        found: dict[Series, list[float]] = {}
        with self._reading() as session:
            for row in session.execute(query):
                found.setdefault(Series(*row[:5]), []).append(float(row[5]))
        return found

    def newest_scores(
        self,
        *,
        metrics: Iterable[str],
        variables: Iterable[str],
        lead_hours: Iterable[int],
        regions: Iterable[str],
    ) -> dict[tuple[str, Series], float]:
        """(model, series) -> the value of its newest cycle."""
        score = VerificationScore
        wanted = (
            score.metric.in_(list(metrics)),
            score.variable.in_(list(variables)),
            score.lead_hours.in_(list(lead_hours)),
            score.region.in_(list(regions)),
        )
        newest = (
            select(score.model, *_SERIES, func.max(score.cycle).label("cycle"))
            .where(*wanted)
            .group_by(score.model, *_SERIES)
            .subquery()
        )
        same = [newest.c[c.key] == c for c in (score.model, *_SERIES, score.cycle)]
        query = select(score.model, *_SERIES, score.value).join(newest, and_(*same))
        with self._reading() as session:
            return {
                (str(row[0]), Series(*row[1:6])): float(row[6]) for row in session.execute(query)
            }
