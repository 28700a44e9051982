"""Who may work on a cycle: claims that expire, and locks for a moment."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, select, text, update

from mosaic_core.catalog import database
from mosaic_core.catalog.core import CatalogCore, affected
from mosaic_core.catalog.models import (
    Claim,
)
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CycleBusy


class Claims(CatalogCore):
    """The part of `Catalog` that keeps two workers apart."""

    def claim(
        self,
        cycle: Cycle,
        variant: str,
        owner: str | None = None,
        ttl: float = 300.0,
        part: int = 0,
    ) -> Claim:
        """Claim a cycle for `ttl` seconds; `heartbeat` prolongs it, an expired one is taken over.

        Args:
            part: 0 for the cycle, from 1 for parts of its members, which are claimed apart.

        Raises:
            CycleBusy: another holds it; says who and since when.
        """
        owner = owner or self._actor
        with self._writing() as session:
            now = self._now(session)
            values = {
                "cycle": cycle,
                "variant": variant,
                "part": part,
                "owner": owner,
                "since": now,
                "heartbeat": now,
                "expires": now + timedelta(seconds=ttl),
            }
            statement = self._insert(Claim).values(values)
            changed = session.execute(
                statement.on_conflict_do_update(
                    index_elements=["cycle", "variant", "part"],
                    set_={name: statement.excluded[name] for name in values},
                    where=(Claim.expires <= now) | (Claim.owner == owner),
                ).returning(Claim.owner)
            ).first()
            key = {"cycle": cycle, "variant": variant, "part": part}
            row = session.scalars(select(Claim).filter_by(**key)).one()
            if changed is None:
                raise CycleBusy(
                    f"{subject(row)} is claimed by {row.owner} since "
                    f"{row.since:%Y-%m-%d %H:%M:%S} UTC (last sign {row.heartbeat:%H:%M:%S})",
                    f"one run a {'part' if part > 0 else 'cycle'} at a time",
                    f"wait for it; a dead one's claim ends at {row.expires:%H:%M:%S} UTC",
                )
            self._note(session, "claim", cycle, variant, owner, None, "claimed", part=part or None)
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
            key = {"cycle": claim.cycle, "variant": claim.variant, "part": claim.part}
            row = session.scalar(select(Claim).filter_by(**key))
            if row is None or affected(held) == 0:
                holder = "nobody" if row is None else f"{row.owner} since {row.since:%H:%M:%S} UTC"
                raise CycleBusy(
                    f"the claim of {claim.owner} on {subject(claim)} was lost; held by {holder}",
                    "a claim prolonged before it expires",
                    "stop this run; the other one goes on with it",
                )
            return row

    def release(self, claim: Claim) -> bool:
        """Give a claim up; False when it was no longer held."""
        with self._writing() as session:
            released = affected(session.execute(delete(Claim).where(*_is(claim)))) == 1
            if released:
                self._note(
                    session, "claim", claim.cycle, claim.variant, claim.owner, "claimed",
                    "released", part=claim.part or None,
                )  # fmt: skip
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


def subject(claim: Claim) -> str:
    """What is claimed, in words."""
    part = f" part {claim.part}" if claim.part > 0 else ""
    return f"{claim.variant} {claim.cycle}{part}"


def _is(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        Claim.cycle == claim.cycle,
        Claim.variant == claim.variant,
        Claim.part == claim.part,
        Claim.owner == claim.owner,
        Claim.since == claim.since,
    )
