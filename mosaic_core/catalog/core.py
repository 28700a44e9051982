"""What every part of the catalog stands on: the connection, the schema, transactions, the audit."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from mosaic_core.catalog import database, schema
from mosaic_core.catalog.models import Event
from mosaic_core.cycle import Cycle


def default_owner() -> str:
    """Host and process, as claims and events name who acts."""
    return f"{socket.gethostname()}:{os.getpid()}"


class CatalogCore:
    """Connection, schema and transactions of a `Catalog`, which says what the arguments are."""

    def __init__(
        self,
        url: str,
        *,
        actor: str | None = None,
        clock: Callable[[], datetime] | None = None,
        check: bool = True,
    ) -> None:
        self._url = database.parse_url(url)
        self._engine = database.connect(self._url)
        self._actor = actor or default_owner()
        self._clock = clock
        if not check:
            return
        try:
            self._check_schema()
        except BaseException:
            self.close()
            raise

    def _check_schema(self) -> None:
        with database.plain_errors(self._url):
            with self._engine.execution_options(mosaic_reads=True).connect() as connection:
                if not self.embedded or schema.current(connection) == schema.head():
                    schema.require_current(connection)
                    return
            self.upgrade()

    def __repr__(self) -> str:
        return f"Catalog({database.shown(self._url)})"

    @property
    def embedded(self) -> bool:
        """Whether it is a SQLite file."""
        return self._url.get_backend_name() == "sqlite"

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def upgrade(self, revision: str = "head") -> None:
        """Make or bring up to date the tables; several processes may do so at once."""
        with database.plain_errors(self._url), self._engine.begin() as connection:
            schema.upgrade(connection, revision)

    def downgrade(self, revision: str) -> None:
        """Take the tables back to an older revision; `base` removes them with their rows."""
        with database.plain_errors(self._url), self._engine.begin() as connection:
            schema.downgrade(connection, revision)

    def schema_version(self) -> str | None:
        with database.plain_errors(self._url), self._engine.connect() as connection:
            return schema.current(connection)

    def record_event(
        self,
        kind: str,
        subject: str,
        *,
        cycle: Cycle | None = None,
        variant: str | None = None,
        **detail: Any,
    ) -> None:
        """Append to the audit what no state machine covers (a notice that failed, say)."""
        with self._writing() as session:
            self._note(session, kind, cycle, variant, subject, None, None, **detail)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Session]:
        with (
            database.plain_errors(self._url),
            Session(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Session]:
        engine = self._engine.execution_options(mosaic_reads=True)
        with database.plain_errors(self._url), Session(engine, expire_on_commit=False) as session:
            yield session

    def _now(self, session: Session) -> datetime:
        if self._clock is not None:
            return self._clock().astimezone(UTC)
        if self.embedded:
            return datetime.now(UTC)
        time: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
        return time.astimezone(UTC)

    def _insert(self, table: Any) -> Any:
        """INSERT of this dialect, which knows ON CONFLICT."""
        return sqlite.insert(table) if self.embedded else postgresql.insert(table)

    def _insert_new(self, session: Session, table: Any, values: Mapping[str, Any]) -> bool:
        """Insert unless a unique row of that identity is there; whether it was inserted."""
        statement = self._insert(table).values(dict(values)).on_conflict_do_nothing()
        return session.execute(statement.returning(table.id)).first() is not None

    def _note(
        self,
        session: Session,
        kind: str,
        cycle: Cycle | None,
        variant: str | None,
        subject: str,
        old: str | None,
        new: str | None,
        **detail: Any,
    ) -> None:
        session.add(
            Event(
                time=self._now(session),
                kind=kind,
                cycle=cycle,
                variant=variant,
                subject=subject,
                old=old,
                new=new,
                actor=self._actor,
                detail={name: value for name, value in detail.items() if value is not None},
            )
        )


def affected(result: Any) -> int:
    return int(result.rowcount)
