"""Upkeep of the catalog, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from mosaic_core.catalog import database
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CatalogError, CycleBusy
from tests.servers import database_url, postgres_server

__all__ = ["database_url", "postgres_server"]
CYCLE = Cycle.parse("2026-11-20T00Z")
START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def times() -> list[datetime]:
    return [START]


@pytest.fixture
def catalog(database_url: str, times: list[datetime]) -> Iterator[Catalog]:
    with Catalog(database_url, check=False) as fresh:
        fresh.upgrade()
    with Catalog(database_url, clock=lambda: times[-1]) as opened:
        yield opened


def test_old_entries_of_the_audit_go_and_it_stays_append_only(
    catalog: Catalog, times: list[datetime]
) -> None:
    catalog.record_event("old", "thing")
    times.append(START + timedelta(days=40))
    catalog.record_event("new", "thing")
    limit = START + timedelta(days=30)
    assert catalog.count_events(limit) == 1
    assert catalog.expire_events(limit) == 1
    assert catalog.expire_events(limit) == 0
    catalog.optimise()
    assert [event.kind for event in catalog.events()] == ["new", "audit"]
    for statement in ("DELETE FROM event", "UPDATE event SET kind = 'other'"):
        with (
            pytest.raises(CatalogError, match="append-only"),
            database.plain_errors(catalog._url),
            catalog._engine.begin() as connection,
        ):
            connection.exec_driver_sql(statement)


def test_parts_of_a_cycle_are_claimed_apart(catalog: Catalog) -> None:
    whole = catalog.claim(CYCLE, "hres", "one")
    parts = [catalog.claim(CYCLE, "hres", name, part=n) for n, name in ((1, "two"), (2, "three"))]
    with pytest.raises(CycleBusy, match="hres 2026-11-20T00Z part 2 is claimed by three"):
        catalog.claim(CYCLE, "hres", "one", part=2)
    assert catalog.heartbeat(parts[0]).owner == "two"
    assert catalog.release(whole)
    assert {(c.part, c.owner) for c in catalog.claims()} == {(1, "two"), (2, "three")}


def test_what_steps_note_is_added_to_what_others_noted(catalog: Catalog) -> None:
    mine = catalog.start_run(CYCLE, "hres")
    theirs = catalog.run(CYCLE, "hres", 1)
    catalog.note_run(mine, facts={"parts": 2}, timings={"ingest": 1.0})
    assert catalog.note_run(theirs, facts={"begun": True}, once={"first_step": "then"})
    assert not catalog.note_run(mine, once={"first_step": "later"}, timings={"forecast": 2.0})
    found = catalog.run(CYCLE, "hres", 1)
    assert found.facts == {"parts": 2, "begun": True, "first_step": "then"}
    assert found.timings == {"ingest": 1.0, "forecast": 2.0}
    catalog.note_run(found, facts={"begun": None})
    assert "begun" not in catalog.run(CYCLE, "hres", 1).facts


def test_a_skipped_run_says_why_and_can_be_taken_up(catalog: Catalog) -> None:
    catalog.skip_run(CYCLE, "hres", 1, "a newer one is published")
    run = catalog.skip_run(CYCLE, "hres", 1, "again")
    assert (run.state, run.attempts, run.error) == ("skipped", 0, "a newer one is published")
    again = catalog.start_run(CYCLE, "hres")
    assert (again.revision, again.state, again.attempts, again.error) == (1, "waiting", 1, None)
    catalog.set_state(again, "forecasting")
    assert catalog.skip_run(CYCLE, "hres", 1, "given up").state == "skipped"


def test_a_run_that_there_is_not_says_what_to_do(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="no run hres 2026-11-20T00Z r3"):
        catalog.run(CYCLE, "hres", 3)
