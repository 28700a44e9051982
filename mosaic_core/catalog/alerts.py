"""Alerts: opened once, counted while their cause lasts, closed when it is gone."""

from __future__ import annotations

from sqlalchemy import select

from mosaic_core.catalog.core import CatalogCore
from mosaic_core.catalog.models import (
    Alert,
)
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
