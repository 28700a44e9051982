"""The catalog: what is known of every analysis, run, product, score and alert, and who did it.

The catalog and the store are the truth about what is done. Every change of a state goes along
`states`, by compare-and-set, and leaves an `event` in the same transaction.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, delete, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from mosaic_core.catalog import database, schema, states
from mosaic_core.catalog.models import (
    Alert,
    Analysis,
    Claim,
    Event,
    ForecastRun,
    ModelVersion,
    Product,
    VerificationScore,
)
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CatalogError, CycleBusy, TransitionRefused

_ROWS: Final[dict[str, type[ForecastRun] | type[Analysis] | type[Product]]] = {
    "run": ForecastRun,
    "analysis": Analysis,
    "product": Product,
}


def default_owner() -> str:
    """Host and process, as claims and events name who acts."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Catalog:
    """One catalog. Safe to use from several threads; each process opens its own.

    Args:
        url: `sqlite:///path/catalog.db` or `postgresql://user:password@host/database`.
        actor: who acts, in events; host and process when not given.
        clock: the time, UTC; when not given, that of PostgreSQL's server or of this machine, so
            that all who share a catalog share a clock.
        check: refuse a schema that is not this program's. A SQLite file is brought up to date
            instead, because nobody else looks after it.

    Raises:
        ConfigurationError: the URL is of another kind.
        CatalogError: it cannot be reached, does not accept the password, or has another schema.
    """

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

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Schema

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

    # What goes in

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

    def start_run(
        self,
        cycle: Cycle,
        variant: str,
        *,
        revision: int | None = None,
        model_version: ModelVersion | int | None = None,
        host: str | None = None,
        device: str = "",
    ) -> ForecastRun:
        """Begin a run, or take up an unfinished one again (`attempts` counts on).

        Args:
            revision: as `publication.publish.next_revision` has it; None takes up the newest
                unfinished run, or begins the revision after the newest finished one.

        Raises:
            TransitionRefused: that revision is finished.
        """
        version = model_version.id if isinstance(model_version, ModelVersion) else model_version
        host = host or socket.gethostname()
        with self._writing() as session:
            revision = revision or self._open_revision(session, cycle, variant)
            now = self._now(session)
            fresh = {
                "cycle": cycle,
                "variant": variant,
                "revision": revision,
                "state": "waiting",
                "attempts": 1,
                "model_version_id": version,
                "host": host,
                "device": device,
                "timings": {},
                "started": now,
                "updated": now,
            }
            created = self._insert_new(session, ForecastRun, fresh)
            row = session.scalars(
                select(ForecastRun)
                .filter_by(cycle=cycle, variant=variant, revision=revision)
                .with_for_update()
            ).one()
            if created:
                self._note_run(session, row, None, "waiting")
                return row
            if row.state != "waiting":
                self._move(session, "run", row, "waiting", attempt=row.attempts + 1)
            row.attempts += 1
            row.host, row.device, row.error = host, device, None
            row.model_version_id = version or row.model_version_id
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
            attached = session.get_one(type(row), row.id)
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
            for start in range(0, len(rows), 500):
                statement = self._insert(VerificationScore).values(rows[start : start + 500])
                replaced = {
                    name: statement.excluded[name] for name in ("sum", "weight", "value", "created")
                }
                session.execute(
                    statement.on_conflict_do_update(index_elements=identity, set_=replaced)
                )
            return len(rows)

    # Claims

    def claim(
        self, cycle: Cycle, variant: str, owner: str | None = None, ttl: float = 300.0
    ) -> Claim:
        """Claim a cycle for `ttl` seconds; `heartbeat` prolongs it, an expired one is taken over.

        Raises:
            CycleBusy: another holds it; says who and since when.
        """
        owner = owner or self._actor
        with self._writing() as session:
            now = self._now(session)
            values = {
                "cycle": cycle,
                "variant": variant,
                "owner": owner,
                "since": now,
                "heartbeat": now,
                "expires": now + timedelta(seconds=ttl),
            }
            statement = self._insert(Claim).values(values)
            changed = session.execute(
                statement.on_conflict_do_update(
                    index_elements=["cycle", "variant"],
                    set_={name: statement.excluded[name] for name in values},
                    where=(Claim.expires <= now) | (Claim.owner == owner),
                ).returning(Claim.owner)
            ).first()
            row = session.scalars(select(Claim).filter_by(cycle=cycle, variant=variant)).one()
            if changed is None:
                raise CycleBusy(
                    f"{variant} {cycle} is claimed by {row.owner} since "
                    f"{row.since:%Y-%m-%d %H:%M:%S} UTC (last sign {row.heartbeat:%H:%M:%S})",
                    "one run a cycle at a time",
                    f"wait for it; a dead one's claim ends at {row.expires:%H:%M:%S} UTC",
                )
            self._note(session, "claim", cycle, variant, owner, None, "claimed")
            return row

    def heartbeat(self, claim: Claim, ttl: float = 300.0) -> Claim:
        """Prolong a claim to `ttl` seconds from now.

        Raises:
            CycleBusy: it expired and another has it: stop working.
        """
        with self._writing() as session:
            now = self._now(session)
            expires = now + timedelta(seconds=ttl)
            held = session.execute(
                update(Claim).where(*_is(claim)).values(heartbeat=now, expires=expires)
            )
            row = session.scalar(select(Claim).filter_by(cycle=claim.cycle, variant=claim.variant))
            if row is None or _count(held) == 0:
                holder = "nobody" if row is None else f"{row.owner} since {row.since:%H:%M:%S} UTC"
                raise CycleBusy(
                    f"the claim of {claim.owner} on {claim.variant} {claim.cycle} was lost; "
                    f"held by {holder}",
                    "a claim prolonged before it expires",
                    "stop this run; the other one goes on with it",
                )
            return row

    def release(self, claim: Claim) -> bool:
        """Give a claim up; False when it was no longer held."""
        with self._writing() as session:
            released = _count(session.execute(delete(Claim).where(*_is(claim)))) == 1
            if released:
                self._note(
                    session, "claim", claim.cycle, claim.variant, claim.owner, "claimed", "released"
                )
            return released

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold the lock `name` until the block is left or the process dies.

        For the moment in which `latest.json` moves: give it to `publish(lock=...)`. SQLite has
        one lock for the whole file, so the block has to be short and must not write to the
        catalog.
        """
        with database.plain_errors(self._url):
            connection = self._engine.connect()
        try:
            with database.plain_errors(self._url):
                transaction = connection.begin()
                if not self.embedded:
                    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            try:
                yield
            finally:
                transaction.rollback()
        finally:
            connection.close()

    # Alerts

    def open_alert(
        self,
        kind: str,
        *,
        subject: str = "",
        severity: str = "warning",
        text: str = "",
        cycle: Cycle | None = None,
    ) -> tuple[Alert, bool]:
        """(alert, whether it is new): one that is open already is counted, not doubled."""
        with self._writing() as session:
            now = self._now(session)
            fresh = {
                "kind": kind,
                "subject": subject,
                "cycle": cycle,
                "severity": severity,
                "text": text,
                "opened": now,
                "repeats": 0,
                "last_seen": now,
            }
            created = self._insert_new(session, Alert, fresh)
            row = session.scalars(
                select(Alert).filter_by(kind=kind, subject=subject, closed=None).with_for_update()
            ).one()
            if created:
                self._note(session, "alert", cycle, None, f"{kind} {subject}".strip(), None, "open")
            else:
                row.repeats, row.last_seen, row.text = row.repeats + 1, now, text or row.text
            return row, created

    def acknowledge_alert(self, alert_id: int) -> None:
        with self._writing() as session:
            row = session.get(Alert, alert_id)
            if row is None:
                raise CatalogError(f"there is no alert {alert_id}", "the number of an alert")
            if row.acknowledged is None:
                row.acknowledged = self._now(session)
                subject = f"{row.kind} {row.subject}".strip()
                self._note(session, "alert", row.cycle, None, subject, "open", "acknowledged")

    def close_alert(self, kind: str, subject: str = "") -> bool:
        """Close the open alert of a kind and subject; False when there is none."""
        with self._writing() as session:
            row = session.scalar(select(Alert).filter_by(kind=kind, subject=subject, closed=None))
            if row is None:
                return False
            row.closed = self._now(session)
            self._note(
                session, "alert", row.cycle, None, f"{kind} {subject}".strip(), "open", "closed"
            )
            return True

    # What is asked

    def runs(
        self,
        *,
        cycle: Cycle | None = None,
        variant: str | None = None,
        states: Iterable[str] | None = None,
        limit: int | None = None,
    ) -> tuple[ForecastRun, ...]:
        """Runs, newest cycle and revision first."""
        query = select(ForecastRun).order_by(
            ForecastRun.cycle.desc(), ForecastRun.variant, ForecastRun.revision.desc()
        )
        query = query.where(*_equal(ForecastRun, cycle=cycle, variant=variant)).limit(limit)
        if states is not None:
            query = query.where(ForecastRun.state.in_(list(states)))
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

    # Within a transaction

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
        if _count(done) == 0:
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

    def _note_run(self, session: Session, row: ForecastRun, old: str | None, new: str) -> None:
        _, _, subject = self._subject(session, row)
        self._note(session, "run", row.cycle, row.variant, subject, old, new, attempt=row.attempts)

    def _open_revision(self, session: Session, cycle: Cycle, variant: str) -> int:
        newest = session.scalar(
            select(ForecastRun)
            .filter_by(cycle=cycle, variant=variant)
            .order_by(ForecastRun.revision.desc())
            .limit(1)
        )
        if newest is None:
            return 1
        return newest.revision + states.is_final("run", newest.state)


def _is(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        Claim.cycle == claim.cycle,
        Claim.variant == claim.variant,
        Claim.owner == claim.owner,
        Claim.since == claim.since,
    )


def _equal(table: Any, **wanted: Any) -> list[ColumnElement[bool]]:
    return [getattr(table, name) == value for name, value in wanted.items() if value is not None]


def _count(result: Any) -> int:
    return int(result.rowcount)
