"""Alerts: opened once, counted while their cause lasts, closed when it is gone.

Each change of an alert that somebody is to hear of leaves, in the same transaction, one row a
channel in `alert_delivery`. Who sends takes such a row for a while (`lease_delivery`), so that
of two watchers one sends it, and settles it with what became of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from mosaic_core.catalog.core import CatalogCore, affected
from mosaic_core.catalog.models import Alert, AlertDelivery, Pulse
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CatalogError


class Alerts(CatalogCore):
    """The part of `Catalog` that keeps alerts."""

    def open_alert(
        self,
        kind: str,
        *,
        subject: str = "",
        severity: str = "warning",
        text: str = "",
        cycle: Cycle | None = None,
        channels: Iterable[str] = (),
        opened: datetime | None = None,
    ) -> tuple[Alert, bool]:
        """(alert, whether it is new): one that is open already is counted, not doubled.

        Args:
            channels: who is to hear of a new one.
            opened: since when, where the catalog could not be told at once; now by default.
        """
        channels = tuple(channels)
        with self._writing() as session:
            now = self._now(session)
            fresh = {
                "kind": kind,
                "subject": subject,
                "cycle": cycle,
                "severity": severity,
                "text": text,
                "opened": opened or now,
                "repeats": 0,
                "last_seen": now,
                "told": now if channels else None,
            }
            created = self._insert_new(session, Alert, fresh)
            row = session.scalars(
                select(Alert).filter_by(kind=kind, subject=subject, closed=None).with_for_update()
            ).one()
            if created:
                self._note_alert(session, row, None, "open")
                self._schedule(session, row, "opened", 0, channels)
            else:
                row.repeats, row.last_seen, row.text = row.repeats + 1, now, text or row.text
            return row, created

    def acknowledge_alert(self, alert_id: int) -> Alert:
        """Note that somebody has seen it: it is not repeated any more."""
        with self._writing() as session:
            row = session.get(Alert, alert_id)
            if row is None:
                raise CatalogError(
                    f"there is no alert {alert_id}", "the number of an alert", "`mosaic alerts ls`"
                )
            if row.acknowledged is None:
                row.acknowledged = self._now(session)
                self._note_alert(session, row, "open", "acknowledged")
            return row

    def remind_of_alert(
        self, alert_id: int, channels: Iterable[str], after: timedelta | None
    ) -> bool:
        """Say again that an alert is open, if that was last said `after` ago or longer.

        One that nobody has been told of yet is said for the first time. False when it is not due,
        acknowledged, closed, or when an earlier message about it has not arrived yet.
        """
        with self._writing() as session:
            row = session.get_one(Alert, alert_id, with_for_update=True)
            now = self._now(session)
            first = row.told is None
            due = first or (after is not None and now - (row.told or now) >= after)
            pending = select(AlertDelivery.id).filter_by(alert_id=alert_id, state="pending")
            if not due or row.closed or row.acknowledged or session.scalar(pending.limit(1)):
                return False
            said = session.scalar(
                select(func.max(AlertDelivery.number)).filter_by(alert_id=alert_id)
            )
            row.told = now
            event, number = ("opened", 0) if first else ("repeated", (said or 0) + 1)
            self._schedule(session, row, event, number, channels)
            return True

    def close_alert(self, kind: str, subject: str = "") -> bool:
        """Close the open alert of a kind and subject; False when there is none.

        Every channel that was told of its opening is told of its end.
        """
        with self._writing() as session:
            row = session.scalar(
                select(Alert).filter_by(kind=kind, subject=subject, closed=None).with_for_update()
            )
            if row is None:
                return False
            row.closed = self._now(session)
            self._note_alert(session, row, "open", "closed")
            told = select(AlertDelivery.channel).filter_by(alert_id=row.id, event="opened")
            self._schedule(session, row, "closed", 0, session.scalars(told))
            return True

    def record_message(
        self, alert_id: int, channel: str, event: str, number: int, sent: datetime | None
    ) -> None:
        """Note a message of the time in which the catalog could not be reached.

        Args:
            sent: when it arrived; None when it has not.
        """
        with self._writing() as session:
            row = session.get_one(Alert, alert_id)
            state = "delivered" if sent else "pending"
            self._schedule(session, row, event, number, [channel], state, sent)
            if event != "closed":
                row.told = max(row.told or row.opened, sent or row.opened)

    def pending_deliveries(self) -> tuple[tuple[AlertDelivery, Alert], ...]:
        """Messages that have not arrived, in the order in which they became due."""
        query = (
            select(AlertDelivery, Alert)
            .join(Alert, Alert.id == AlertDelivery.alert_id)
            .where(AlertDelivery.state == "pending")
            .order_by(AlertDelivery.id)
        )
        with self._reading() as session:
            return tuple((delivery, alert) for delivery, alert in session.execute(query))

    def deliveries(self, alert_id: int | None = None) -> tuple[AlertDelivery, ...]:
        """Messages about one alert or all of them, in the order in which they became due."""
        query = select(AlertDelivery).order_by(AlertDelivery.id)
        if alert_id is not None:
            query = query.filter_by(alert_id=alert_id)
        with self._reading() as session:
            return tuple(session.scalars(query))

    def lease_delivery(self, delivery_id: int, seconds: float = 120.0) -> bool:
        """Take a pending message to send it; False when another has it or it has arrived."""
        with self._writing() as session:
            now = self._now(session)
            free = AlertDelivery.leased.is_(None) | (AlertDelivery.leased <= now)
            taken = session.execute(
                update(AlertDelivery)
                .where(AlertDelivery.id == delivery_id, AlertDelivery.state == "pending", free)
                .values(
                    leased=now + timedelta(seconds=seconds), attempts=AlertDelivery.attempts + 1
                )
            )
            return affected(taken) == 1

    def settle_delivery(self, delivery_id: int, problem: str = "", *, drop: bool = False) -> None:
        """Note what became of a message; without a problem it has arrived.

        Args:
            drop: it will not be tried again (its channel is gone); the audit says so.
        """
        with self._writing() as session:
            row = session.get_one(AlertDelivery, delivery_id)
            row.tried, row.leased, row.problem = self._now(session), None, problem
            row.state = "dropped" if drop else "pending" if problem else "delivered"
            if drop:
                alert = session.get_one(Alert, row.alert_id)
                self._note_alert(
                    session, alert, None, None, channel=row.channel, dropped=row.event,
                    problem=problem,
                )  # fmt: skip

    def beat(self, name: str) -> None:
        """Note that `name` has just been at work."""
        with self._writing() as session:
            host = self._actor.partition(":")[0]
            values = {"name": name, "host": host, "time": self._now(session)}
            statement = self._insert(Pulse).values(values)
            session.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))

    def pulses(self) -> dict[str, datetime]:
        """When each thing that has to go on was last at work."""
        with self._reading() as session:
            return {row.name: row.time for row in session.scalars(select(Pulse))}

    def _schedule(
        self,
        session: Session,
        alert: Alert,
        event: str,
        number: int,
        channels: Iterable[str],
        state: str = "pending",
        sent: datetime | None = None,
    ) -> None:
        for channel in list(channels):
            values = {
                "alert_id": alert.id,
                "channel": channel,
                "event": event,
                "number": number,
                "state": state,
                "attempts": int(state == "delivered"),
                "problem": "",
                "created": self._now(session),
                "tried": sent,
            }
            self._insert_new(session, AlertDelivery, values)

    def _note_alert(
        self, session: Session, row: Alert, old: str | None, new: str | None, **detail: Any
    ) -> None:
        subject = f"{row.kind} {row.subject}".strip()
        self._note(session, "alert", row.cycle, None, subject, old, new, **detail)
