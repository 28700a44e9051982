"""Tables of the catalog. Times are UTC with a zone on every database, cycles are `Cycle`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from mosaic_core.catalog import states
from mosaic_core.cycle import Cycle


class UtcTime(TypeDecorator[datetime]):
    """`timestamptz` on PostgreSQL; on SQLite the same moment without its zone, in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value.isoformat()} has no zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class CycleTime(TypeDecorator[Cycle]):
    """A cycle, stored as its initial time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Cycle | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return UtcTime().process_bind_param(value.init_time, dialect)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> Cycle | None:
        time = UtcTime().process_result_value(value, dialect)
        return None if time is None else Cycle(time)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: UtcTime,
        Cycle: CycleTime,
        dict[str, Any]: JSON,
        str: String(200),
    }


def _known(kind: str) -> CheckConstraint:
    names = ", ".join(f"'{state}'" for state in states.MACHINES[kind])
    return CheckConstraint(f"state IN ({names})", name="state")


class ModelVersion(Base):
    """A variant with the weights and the code that ran it."""

    __tablename__ = "model_version"
    __table_args__ = (UniqueConstraint("variant", "checkpoint_sha256", "code_version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    variant: Mapped[str]
    checkpoint_sha256: Mapped[str] = mapped_column(String(64))
    code_version: Mapped[str]
    created: Mapped[datetime]


class Analysis(Base):
    """An analysis as it came in, with the result of each check by name."""

    __tablename__ = "analysis"
    __table_args__ = (UniqueConstraint("cycle", "source"), _known("analysis"))

    id: Mapped[int] = mapped_column(primary_key=True)
    cycle: Mapped[Cycle]
    source: Mapped[str]
    digest: Mapped[str]
    url: Mapped[str] = mapped_column(Text)
    checks: Mapped[dict[str, Any]]
    state: Mapped[str]
    created: Mapped[datetime]
    updated: Mapped[datetime]


class ForecastRun(Base):
    """One forecast of a cycle; `attempts` counts how often it was taken up.

    `facts` are what one step of the run leaves for the next, which may be another process.
    """

    __tablename__ = "forecast_run"
    __table_args__ = (UniqueConstraint("cycle", "variant", "revision"), _known("run"))

    id: Mapped[int] = mapped_column(primary_key=True)
    cycle: Mapped[Cycle]
    variant: Mapped[str]
    revision: Mapped[int]
    state: Mapped[str]
    attempts: Mapped[int]
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_version.id"))
    host: Mapped[str]
    device: Mapped[str]
    digest: Mapped[str | None]
    error: Mapped[str | None] = mapped_column(Text)
    timings: Mapped[dict[str, Any]]
    facts: Mapped[dict[str, Any]]
    started: Mapped[datetime]
    updated: Mapped[datetime]
    published: Mapped[datetime | None]


class Product(Base):
    """One asset of a run."""

    __tablename__ = "product"
    __table_args__ = (UniqueConstraint("run_id", "key"), _known("product"))

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("forecast_run.id"), index=True)
    name: Mapped[str]
    key: Mapped[str] = mapped_column(String(500))
    media_type: Mapped[str]
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str]
    error: Mapped[str | None] = mapped_column(Text)
    created: Mapped[datetime]
    updated: Mapped[datetime]


class VerificationScore(Base):
    """A score as sum and weight, which add; `level` is 0 hPa for surface variables."""

    __tablename__ = "verification_score"
    __table_args__ = (
        UniqueConstraint(
            "cycle",
            "model",
            "lead_hours",
            "variable",
            "level",
            "region",
            "metric",
            "truth_source",
            name="uq_verification_score_identity",
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    cycle: Mapped[Cycle]
    model: Mapped[str]
    lead_hours: Mapped[int]
    variable: Mapped[str]
    level: Mapped[int]
    region: Mapped[str]
    metric: Mapped[str]
    sum: Mapped[float] = mapped_column(Float(53))
    weight: Mapped[float] = mapped_column(Float(53))
    value: Mapped[float] = mapped_column(Float(53))
    truth_source: Mapped[str]
    created: Mapped[datetime]


class Alert(Base):
    """An alert; at most one of a kind and subject is open.

    `told` is when a message about it was last due: at its opening, and at each repetition.
    """

    __tablename__ = "alert"
    __table_args__ = (
        Index(
            "uq_alert_open",
            "kind",
            "subject",
            unique=True,
            sqlite_where=text("closed IS NULL"),
            postgresql_where=text("closed IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    subject: Mapped[str]
    cycle: Mapped[Cycle | None]
    severity: Mapped[str]
    text: Mapped[str] = mapped_column(Text)
    opened: Mapped[datetime]
    repeats: Mapped[int]
    last_seen: Mapped[datetime]
    told: Mapped[datetime | None]
    acknowledged: Mapped[datetime | None]
    closed: Mapped[datetime | None]


class AlertDelivery(Base):
    """One message about an alert for one channel, kept until it has arrived.

    Attributes:
        number: of a repetition, from 1; 0 for the opening and the closing.
        leased: until when whoever sends it has it to himself.
        problem: why the last attempt failed.
    """

    __tablename__ = "alert_delivery"
    __table_args__ = (
        UniqueConstraint("alert_id", "channel", "event", "number"),
        CheckConstraint("event IN ('opened', 'repeated', 'closed')", name="event"),
        CheckConstraint("state IN ('pending', 'delivered', 'dropped')", name="state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    alert_id: Mapped[int] = mapped_column(ForeignKey("alert.id"), index=True)
    channel: Mapped[str]
    event: Mapped[str]
    number: Mapped[int]
    state: Mapped[str]
    attempts: Mapped[int]
    problem: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime]
    tried: Mapped[datetime | None]
    leased: Mapped[datetime | None]


class Pulse(Base):
    """When something that has to go on was last at work."""

    __tablename__ = "pulse"

    name: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    time: Mapped[datetime]


class Event(Base):
    """The audit: appended, never changed; triggers in the database refuse the rest."""

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_cycle_variant", "cycle", "variant"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    time: Mapped[datetime]
    kind: Mapped[str]
    cycle: Mapped[Cycle | None]
    variant: Mapped[str | None]
    subject: Mapped[str] = mapped_column(String(500))
    old: Mapped[str | None]
    new: Mapped[str | None]
    actor: Mapped[str]
    detail: Mapped[dict[str, Any]]


class Claim(Base):
    """Who works on a cycle (part 0), on a part of its members (from 1); void once expired."""

    __tablename__ = "claim"

    cycle: Mapped[Cycle] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str]
    since: Mapped[datetime]
    heartbeat: Mapped[datetime]
    expires: Mapped[datetime]
