"""What the catalog is asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, select

from mosaic_core.catalog.core import CatalogCore
from mosaic_core.catalog.models import (
    Alert,
    Analysis,
    Claim,
    Event,
    ForecastRun,
    Product,
)
from mosaic_core.cycle import Cycle


class Queries(CatalogCore):
    """The part of `Catalog` that only reads."""

    def runs(
        self,
        *,
        cycle: Cycle | None = None,
        variant: str | None = None,
        states: Iterable[str] | None = None,
        since: Cycle | None = None,
        limit: int | None = None,
    ) -> tuple[ForecastRun, ...]:
        """Runs, newest cycle and revision first; `since` is the oldest cycle."""
        query = select(ForecastRun).order_by(
            ForecastRun.cycle.desc(), ForecastRun.variant, ForecastRun.revision.desc()
        )
        query = query.where(*_equal(ForecastRun, cycle=cycle, variant=variant)).limit(limit)
        if states is not None:
            query = query.where(ForecastRun.state.in_(list(states)))
        if since is not None:
            query = query.where(ForecastRun.cycle >= since)
        with self._reading() as session:
            return tuple(session.scalars(query))

    def latest_published(self, variant: str | None = None) -> ForecastRun | None:
        """The published run of the newest cycle."""
        found = self.runs(variant=variant, states=("published",), limit=1)
        return found[0] if found else None

    def products(self, run: ForecastRun) -> tuple[Product, ...]:
        query = select(Product).filter_by(run_id=run.id).order_by(Product.key)
        with self._reading() as session:
            return tuple(session.scalars(query))

    def analyses(
        self, *, cycle: Cycle | None = None, source: str | None = None, limit: int | None = None
    ) -> tuple[Analysis, ...]:
        """Analyses, newest first."""
        query = select(Analysis).where(*_equal(Analysis, cycle=cycle, source=source))
        with self._reading() as session:
            return tuple(session.scalars(query.order_by(Analysis.cycle.desc()).limit(limit)))

    def alerts(self, *, open_only: bool = True) -> tuple[Alert, ...]:
        query = select(Alert).order_by(Alert.opened.desc(), Alert.id.desc())
        if open_only:
            query = query.where(Alert.closed.is_(None))
        with self._reading() as session:
            return tuple(session.scalars(query))

    def claims(self) -> tuple[Claim, ...]:
        """Claims that have not expired."""
        with self._reading() as session:
            query = select(Claim).where(Claim.expires > self._now(session)).order_by(Claim.since)
            return tuple(session.scalars(query))

    def events(
        self,
        *,
        kind: str | None = None,
        cycle: Cycle | None = None,
        variant: str | None = None,
        limit: int | None = None,
    ) -> tuple[Event, ...]:
        """The audit, oldest first; with `limit`, its newest entries."""
        query = select(Event).where(*_equal(Event, kind=kind, cycle=cycle, variant=variant))
        with self._reading() as session:
            newest = session.scalars(query.order_by(Event.id.desc()).limit(limit)).all()
        return tuple(reversed(newest))


def _equal(table: Any, **wanted: Any) -> list[ColumnElement[bool]]:
    return [getattr(table, name) == value for name, value in wanted.items() if value is not None]
