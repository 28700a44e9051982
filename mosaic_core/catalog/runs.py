"""Runs: begun, taken up again, told about by their steps, skipped."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from mosaic_core.catalog import states
from mosaic_core.catalog.models import ForecastRun, ModelVersion
from mosaic_core.catalog.recording import Recording
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CatalogError


class Runs(Recording):
    """The part of `Catalog` that follows a run through its attempts."""

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
            row = self._row(session, cycle, variant, revision)
            if row.state != "waiting":
                self._move(session, "run", row, "waiting", attempt=row.attempts + 1)
            row.attempts += 1
            row.host, row.device, row.error = host, device, None
            row.model_version_id = version or row.model_version_id
            row.updated = self._now(session)
            return row

    def run(self, cycle: Cycle, variant: str, revision: int) -> ForecastRun:
        """One run.

        Raises:
            CatalogError: there is none.
        """
        key = {"cycle": cycle, "variant": variant, "revision": revision}
        with self._reading() as session:
            row = session.scalar(select(ForecastRun).filter_by(**key))
        if row is None:
            raise CatalogError(
                f"the catalog has no run {variant} {cycle} r{revision}",
                "one that was begun",
                "begin it: `mosaic run`, or the flow from its start",
            )
        return row

    def note_run(
        self,
        row: ForecastRun,
        *,
        timings: Mapping[str, float] | None = None,
        device: str | None = None,
        facts: Mapping[str, Any] | None = None,
        once: Mapping[str, Any] | None = None,
    ) -> bool:
        """Add to what is known of a run, beside others who do; `row` is brought up to date.

        Args:
            facts: plain values by name; None takes a name away.
            once: facts that are noted only when none of their names is there.

        Returns:
            whether `once` was noted.
        """
        with self._writing() as session:
            query = select(ForecastRun).filter_by(id=row.id).with_for_update()
            found = session.scalars(query).one()
            first = not any(name in found.facts for name in once or ())
            merged = {**found.facts, **(facts or {}), **((once or {}) if first else {})}
            found.facts = {name: value for name, value in merged.items() if value is not None}
            found.timings = {**found.timings, **(timings or {})}
            found.device = device or found.device
            found.updated = self._now(session)
        for name in ("facts", "timings", "device", "updated", "state", "error"):
            set_committed_value(row, name, getattr(found, name))
        return first

    def skip_run(self, cycle: Cycle, variant: str, revision: int, reason: str) -> ForecastRun:
        """Say of a cycle that it is not run, and why; `start_run` takes it up all the same.

        Raises:
            TransitionRefused: that revision is published.
        """
        with self._writing() as session:
            row = self._row(session, cycle, variant, revision)
            if row.state == "skipped":
                return row
            if row.state not in ("waiting", "failed"):
                self._move(session, "run", row, "waiting")
            self._move(session, "run", row, "skipped", changes={"error": reason})
            return row

    def _row(self, session: Session, cycle: Cycle, variant: str, revision: int) -> ForecastRun:
        """The row of a revision, locked; made (`waiting`) when it is not there."""
        now = self._now(session)
        identity = {"cycle": cycle, "variant": variant, "revision": revision}
        fresh = {
            **identity,
            "state": "waiting",
            "attempts": 0,
            "host": "",
            "device": "",
            "timings": {},
            "facts": {},
            "started": now,
            "updated": now,
        }
        created = self._insert_new(session, ForecastRun, fresh)
        query = select(ForecastRun).filter_by(**identity).with_for_update()
        row = session.scalars(query).one()
        if created:
            _, _, subject = self._subject(session, row)
            self._note(session, "run", cycle, variant, subject, None, "waiting")
        return row

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
