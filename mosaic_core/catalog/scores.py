"""Scores in the catalog: what has been verified, and averages over cycles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select

from mosaic_core.catalog.core import CatalogCore
from mosaic_core.catalog.models import VerificationScore
from mosaic_core.cycle import Cycle


@dataclass(frozen=True)
class AverageScore:
    """A statistic averaged over cycles, each with its weight; `level` is 0 at the surface."""

    variable: str
    level: int
    region: str
    lead_hours: int
    metric: str
    value: float
    cycles: int


class CycleScore(NamedTuple):
    """A statistic of one forecast at one lead time, as sum and weight."""

    cycle: Cycle
    lead_hours: int
    variable: str
    level: int
    metric: str
    sum: float
    weight: float


class Scores(CatalogCore):
    """The part of `Catalog` that reads scores."""

    def scored(
        self, model: str, truth_source: str, since: Cycle | None = None
    ) -> dict[tuple[Cycle, int], datetime]:
        """When each forecast was last verified against a truth: (cycle, lead hours) -> UTC."""
        table = VerificationScore
        query = (
            select(table.cycle, table.lead_hours, func.max(table.created))
            .where(table.model == model, table.truth_source == truth_source)
            .where(table.metric == "rmse")
            .group_by(table.cycle, table.lead_hours)
        )
        if since is not None:
            query = query.where(table.cycle >= since)
        with self._reading() as session:
            return {(cycle, hours): when for cycle, hours, when in session.execute(query)}

    def average_scores(
        self,
        model: str,
        truth_source: str,
        *,
        since: Cycle | None = None,
        until: Cycle | None = None,
        variable: str | None = None,
        level: int | None = None,
        region: str | None = None,
    ) -> tuple[AverageScore, ...]:
        """Averages over the cycles from `since` to `until`, both included."""
        table = VerificationScore
        key = (table.variable, table.level, table.region, table.lead_hours, table.metric)
        mean = func.sum(table.sum) / func.sum(table.weight)
        query = (
            select(*key, mean, func.count())
            .where(table.model == model, table.truth_source == truth_source)
            .group_by(*key)
            .order_by(*key)
        )
        wanted = {table.variable: variable, table.level: level, table.region: region}
        for column, value in wanted.items():
            if value is not None:
                query = query.where(column == value)
        if since is not None:
            query = query.where(table.cycle >= since)
        if until is not None:
            query = query.where(table.cycle <= until)
        with self._reading() as session:
            return tuple(AverageScore(*row) for row in session.execute(query))

    def scores_by_cycle(
        self,
        model: str,
        truth_source: str,
        metrics: Iterable[str],
        *,
        since: Cycle | None = None,
        until: Cycle | None = None,
        region: str = "global",
    ) -> tuple[CycleScore, ...]:
        """Statistics of every forecast, one a cycle, lead time, variable and metric."""
        table = VerificationScore
        columns = (table.cycle, table.lead_hours, table.variable, table.level, table.metric)
        query = (
            select(*columns, table.sum, table.weight)
            .where(table.model == model, table.truth_source == truth_source)
            .where(table.region == region, table.metric.in_(tuple(metrics)))
        )
        if since is not None:
            query = query.where(table.cycle >= since)
        if until is not None:
            query = query.where(table.cycle <= until)
        with self._reading() as session:
            return tuple(CycleScore(*row) for row in session.execute(query))

    def truths(self, model: str) -> tuple[str, ...]:
        """What forecasts of a model have been verified against."""
        table = VerificationScore
        query = select(table.truth_source).where(table.model == model).distinct()
        with self._reading() as session:
            return tuple(session.scalars(query.order_by(table.truth_source)))
