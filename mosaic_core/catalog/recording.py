"""Rows that go in: models, analyses, products, scores, and the changes of states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from mosaic_core.catalog import states
from mosaic_core.catalog.core import CatalogCore, affected
from mosaic_core.catalog.models import (
    Analysis,
    ForecastRun,
    ModelVersion,
    Product,
    VerificationScore,
)
from mosaic_core.cycle import Cycle
from mosaic_core.errors import TransitionRefused

_ROWS: Final[dict[str, type[ForecastRun] | type[Analysis] | type[Product]]] = {
    "run": ForecastRun,
    "analysis": Analysis,
    "product": Product,
}


class Recording(CatalogCore):
    """The part of `Catalog` that records work."""

    def record_model_version(
        self, *, name: str, variant: str, checkpoint_sha256: str, code_version: str
    ) -> ModelVersion:
        """The row of these weights and this code, made when it is not there."""
        identity = {
            "variant": variant,
            "checkpoint_sha256": checkpoint_sha256,
            "code_version": code_version,
        }
        with self._writing() as session:
            row = session.scalar(select(ModelVersion).filter_by(**identity))
            if row is None:
                values = {**identity, "name": name, "created": self._now(session)}
                self._insert_new(session, ModelVersion, values)
                row = session.scalars(select(ModelVersion).filter_by(**identity)).one()
            return row

    def record_analysis(
        self,
        cycle: Cycle,
        *,
        source: str,
        digest: str,
        checks: Mapping[str, Any],
        state: Literal["accepted", "degraded", "rejected"],
        url: str = "",
    ) -> Analysis:
        """Record an analysis and the verdict on it; the same digest and verdict change nothing."""
        with self._writing() as session:
            now = self._now(session)
            fresh = {
                "cycle": cycle,
                "source": source,
                "digest": digest,
                "url": url,
                "checks": dict(checks),
                "state": "received",
                "created": now,
                "updated": now,
            }
            if self._insert_new(session, Analysis, fresh):
                self._note(
                    session, "analysis", cycle, None, source, None, "received", digest=digest
                )
            row = session.scalars(
                select(Analysis).filter_by(cycle=cycle, source=source).with_for_update()
            ).one()
            if (row.digest, row.state) == (digest, state):
                return row
            if row.state != "received":
                self._move(session, "analysis", row, "received", digest=digest)
            row.digest, row.checks, row.url = digest, dict(checks), url
            self._move(session, "analysis", row, state, digest=digest)
            return row

    def set_state(
        self,
        row: ForecastRun | Analysis | Product,
        state: str,
        *,
        expected: str | None = None,
        timings: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        """Change the state of a run, analysis or product along its machine.

        Args:
            expected: the state it must be in; what `row` says when not given, so that a change
                made by somebody else since it was read is not overwritten.
            timings: added to those of a run.
            changes: other columns to set with it (`error`, `digest`, `published`, ...).

        Raises:
            TransitionRefused: the machine has no such arrow, or another changed it first.
        """
        kind = next(kind for kind, cls in _ROWS.items() if isinstance(row, cls))
        if timings is not None and isinstance(row, ForecastRun):
            changes["timings"] = {**row.timings, **timings}
        with self._writing() as session:
            before = expected or row.state
            attached: Any = session.get_one(type(row), row.id)
            self._move(session, kind, attached, state, expected=before, changes=changes)
            session.flush()
            session.refresh(attached)
            values = {column.key: getattr(attached, column.key) for column in row.__table__.columns}
        for name, value in values.items():
            set_committed_value(row, name, value)

    def record_product(
        self,
        run: ForecastRun,
        *,
        key: str,
        name: str,
        media_type: str = "",
        state: Literal["building", "ready", "failed", "published"] = "building",
        size: int | None = None,
        sha256: str | None = None,
        error: str | None = None,
    ) -> Product:
        """Record a product of a run, or move the one there is to `state`."""
        with self._writing() as session:
            now = self._now(session)
            fresh = {
                "run_id": run.id,
                "key": key,
                "name": name,
                "media_type": media_type,
                "state": "building",
                "created": now,
                "updated": now,
            }
            created = self._insert_new(session, Product, fresh)
            row = session.scalars(
                select(Product).filter_by(run_id=run.id, key=key).with_for_update()
            ).one()
            if created:
                self._note(session, "product", run.cycle, run.variant, key, None, "building")
            steps = ("ready", "published") if state == "published" else (state,)
            for step in steps:
                if row.state != step and not (step == "ready" and row.state == "published"):
                    self._move(session, "product", row, step, error=error)
            row.bytes = row.bytes if size is None else size
            row.sha256 = sha256 or row.sha256
            row.error = error
            return row

    def record_scores(self, scores: Iterable[Mapping[str, Any]]) -> int:
        """Insert or replace scores (keys are the columns of `VerificationScore`)."""
        identity = (
            "cycle", "model", "lead_hours", "variable", "level", "region", "metric", "truth_source",
        )  # fmt: skip
        with self._writing() as session:
            now = self._now(session)
            rows = [{**score, "created": now} for score in scores]
            statement = self._insert(VerificationScore.__table__)
            columns = ("sum", "weight", "value", "created")
            replaced = {name: statement.excluded[name] for name in columns}
            if rows:
                session.connection().execute(
                    statement.on_conflict_do_update(index_elements=identity, set_=replaced), rows
                )
            return len(rows)

    def _move(
        self,
        session: Session,
        kind: str,
        row: ForecastRun | Analysis | Product,
        state: str,
        *,
        expected: str | None = None,
        changes: Mapping[str, Any] | None = None,
        **detail: Any,
    ) -> None:
        """Compare-and-set of the state, with its event."""
        before = expected or row.state
        cycle, variant, subject = self._subject(session, row)
        states.require(kind, before, state, f"{kind} {subject}")
        table = type(row)
        values = {**(changes or {}), "state": state, "updated": self._now(session)}
        done = session.execute(
            update(table)
            .where(table.id == row.id, table.state == before)
            .values(values)
            .execution_options(synchronize_session=False)
        )
        if affected(done) == 0:
            now = session.scalar(select(table.state).where(table.id == row.id))
            raise TransitionRefused(
                f"{kind} {subject} is {now}, no longer {before}",
                f"{before} -> {state}",
                "another process changed it: read it again",
            )
        session.refresh(row)
        plain = {name: value for name, value in (changes or {}).items() if name == "error"}
        self._note(session, kind, cycle, variant, subject, before, state, **detail, **plain)

    def _subject(
        self, session: Session, row: ForecastRun | Analysis | Product
    ) -> tuple[Cycle, str | None, str]:
        if isinstance(row, ForecastRun):
            return row.cycle, row.variant, f"{row.variant} {row.cycle} r{row.revision}"
        if isinstance(row, Analysis):
            return row.cycle, None, row.source
        run = session.get_one(ForecastRun, row.run_id)
        return run.cycle, run.variant, row.key
