"""Looking after the tables: old entries of the audit, statistics, space."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, select, text

from mosaic_core.catalog import database
from mosaic_core.catalog.core import CatalogCore, affected
from mosaic_core.catalog.models import Event

_TRIGGERS = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'event'"


class Upkeep(CatalogCore):
    """The part of `Catalog` that keeps it small and quick."""

    def count_events(self, before: datetime) -> int:
        """How many entries of the audit are older."""
        with self._reading() as session:
            query = select(func.count()).select_from(Event).where(Event.time < before)
            return int(session.execute(query).scalar_one())

    def expire_events(self, before: datetime) -> int:
        """Remove older entries of the audit; returns how many. That they went is an entry.

        The only way past the triggers that keep the audit as it is: they are off for this
        transaction alone.

        Raises:
            CatalogError: on PostgreSQL, the role does not own the table.
        """
        with self._writing() as session:
            if self.embedded:
                triggers = session.execute(text(_TRIGGERS)).all()
                for name, _ in triggers:
                    session.execute(text(f'DROP TRIGGER "{name}"'))
            else:
                session.execute(text("ALTER TABLE event DISABLE TRIGGER event_append_only"))
            count = affected(session.execute(delete(Event).where(Event.time < before)))
            if self.embedded:
                for _, statement in triggers:
                    session.connection().exec_driver_sql(statement)
            else:
                session.execute(text("ALTER TABLE event ENABLE TRIGGER event_append_only"))
            if count:
                self._note(
                    session, "audit", None, None, "event", None, "expired",
                    before=before.isoformat(), count=count,
                )  # fmt: skip
            return count

    def optimise(self) -> None:
        """Give space back and bring the planner's statistics up to date."""
        with database.plain_errors(self._url):
            if self.embedded:
                raw = self._engine.raw_connection()
                try:
                    for statement in ("VACUUM", "ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"):
                        raw.cursor().execute(statement)
                finally:
                    raw.close()
                return
            engine = self._engine.execution_options(isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text("VACUUM (ANALYZE)"))
