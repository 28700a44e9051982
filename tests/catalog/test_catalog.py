"""The catalog keeps one truth, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from mosaic_core.catalog import database, schema, states
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.catalog.models import Base, ForecastRun
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CatalogError, ConfigurationError, CycleBusy, TransitionRefused

CYCLE = Cycle.parse("2026-11-20T00Z")


def make_tables(url):
    with Catalog(url, check=False) as catalog:
        catalog.upgrade()


@pytest.fixture
def catalog(database_url):
    make_tables(database_url)
    with Catalog(database_url, actor="tester") as opened:
        yield opened


def publish_run(catalog, cycle=CYCLE, **how):
    run = catalog.start_run(cycle, "hres", **how)
    for state in ("forecasting", "products", "publishing", "published"):
        catalog.set_state(run, state)
    return run


def test_migrated_schema_is_that_of_the_models(database_url):
    with Catalog(database_url, check=False) as catalog:
        catalog.upgrade()
        with catalog._engine.begin() as connection:
            command.check(schema.configuration(connection))
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []


def test_schema_goes_down_and_up_again(database_url):
    with Catalog(database_url, check=False) as catalog:
        catalog.upgrade()
        catalog.downgrade("base")
        with catalog._engine.connect() as connection:
            assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
        assert catalog.schema_version() is None
        catalog.upgrade()
        catalog.upgrade()
        assert catalog.schema_version() == schema.head()
        publish_run(catalog)


def test_missing_schema_is_refused_on_postgresql_and_made_on_sqlite(database_url):
    if database_url.startswith("sqlite"):
        with Catalog(database_url) as catalog:
            assert catalog.schema_version() == schema.head()
    else:
        with pytest.raises(CatalogError, match="mosaic catalog upgrade"):
            Catalog(database_url)


def test_newer_schema_is_refused(catalog, database_url):
    with catalog._engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(CatalogError, match=r"9999.*newer release"):
        Catalog(database_url)


def test_run_goes_through_its_states_and_leaves_an_event_each(catalog):
    run = publish_run(catalog)
    assert (run.state, run.attempts, run.revision) == ("published", 1, 1)
    changes = [(e.old, e.new, e.actor) for e in catalog.events(kind="run", cycle=CYCLE)]
    expected = [None, "waiting", "forecasting", "products", "publishing", "published"]
    assert changes == [(a, b, "tester") for a, b in pairwise(expected)]
    assert catalog.latest_published("hres").id == run.id


@pytest.mark.parametrize("kind", sorted(states.MACHINES))
def test_every_change_outside_the_machine_is_refused(kind):
    machine = states.MACHINES[kind]
    for old in machine:
        for new in machine:
            if new in machine[old]:
                states.require(kind, old, new, "x")
            else:
                with pytest.raises(TransitionRefused, match=f"{old} -> {new}"):
                    states.require(kind, old, new, "x")


def test_refused_change_leaves_no_trace(catalog):
    run = catalog.start_run(CYCLE, "hres")
    before = len(catalog.events())
    with pytest.raises(TransitionRefused, match="waiting -> published"):
        catalog.set_state(run, "published")
    assert catalog.runs()[0].state == run.state == "waiting"
    assert len(catalog.events()) == before


def test_change_made_by_another_is_not_overwritten(catalog):
    mine, theirs = catalog.start_run(CYCLE, "hres"), catalog.runs()[0]
    catalog.set_state(theirs, "failed", error="no analysis")
    with pytest.raises(TransitionRefused, match="is failed, no longer waiting"):
        catalog.set_state(mine, "forecasting")
    assert catalog.runs()[0].error == "no analysis"


def test_database_refuses_an_unknown_state_and_a_second_run_of_a_revision(catalog):
    run = catalog.start_run(CYCLE, "hres")
    with pytest.raises(CatalogError), catalog._writing() as session:
        session.get_one(ForecastRun, run.id).state = "nonsense"
    copy = {c.key: getattr(run, c.key) for c in ForecastRun.__table__.columns if c.key != "id"}
    with pytest.raises(CatalogError, match="refuses the row"), catalog._writing() as session:
        session.add(ForecastRun(**copy))


def test_killed_run_is_taken_up_again_and_counted(catalog):
    run = catalog.start_run(CYCLE, "hres")
    catalog.set_state(run, "forecasting", timings={"ingest": 1.5})
    again = catalog.start_run(CYCLE, "hres")
    assert (again.id, again.attempts, again.state) == (run.id, 2, "waiting")
    catalog.set_state(again, "forecasting", timings={"forecast": 2.0})
    assert catalog.runs()[0].timings == {"ingest": 1.5, "forecast": 2.0}


def test_finished_run_is_followed_by_another_revision(catalog):
    publish_run(catalog)
    assert catalog.start_run(CYCLE, "hres").revision == 2
    with pytest.raises(TransitionRefused):
        catalog.start_run(CYCLE, "hres", revision=1)


def test_latest_published_is_the_newest_cycle_not_the_newest_row(catalog):
    newest = publish_run(catalog, CYCLE.shift(6))
    publish_run(catalog, CYCLE)
    assert catalog.latest_published("hres").id == newest.id
    assert catalog.latest_published("era5") is None


def test_audit_cannot_be_changed_or_deleted(catalog):
    catalog.record_event("test", "subject", answer=42)
    statements = ["UPDATE event SET actor = 'nobody'", "DELETE FROM event"]
    if not catalog.embedded:
        statements.append("TRUNCATE event")
    for statement in statements:
        with pytest.raises(Exception, match="append-only"), catalog._engine.begin() as connection:
            connection.execute(text(statement))
    assert catalog.events()[0].detail == {"answer": 42}


def test_analysis_is_recorded_once_and_judged_again_when_it_changes(catalog):
    checks = {"hydrostatic": "ok"}
    for _ in range(2):
        row = catalog.record_analysis(
            CYCLE, source="grib", digest="a", checks=checks, state="rejected"
        )
    assert [(e.old, e.new) for e in catalog.events(kind="analysis")] == [
        (None, "received"),
        ("received", "rejected"),
    ]
    row = catalog.record_analysis(CYCLE, source="grib", digest="b", checks={}, state="accepted")
    assert (row.digest, row.state, row.checks) == ("b", "accepted", {})
    assert len(catalog.analyses(cycle=CYCLE)) == 1


def test_model_version_is_recorded_once(catalog):
    how = {"name": "m", "variant": "hres", "checkpoint_sha256": "0" * 64, "code_version": "1"}
    assert catalog.record_model_version(**how).id == catalog.record_model_version(**how).id


def test_products_are_recorded_with_their_run(catalog):
    run = catalog.start_run(CYCLE, "hres")
    catalog.record_product(run, key="statistics.zarr", name="statistics")
    catalog.record_product(run, key="maps/t.png", name="maps", state="failed", error="no font")
    big = 5_000_000_000
    catalog.record_product(
        run, key="statistics.zarr", name="statistics", state="published", size=big, sha256="1" * 64
    )
    found = {p.key: (p.state, p.bytes, p.error) for p in catalog.products(run)}
    assert found == {
        "statistics.zarr": ("published", big, None),
        "maps/t.png": ("failed", None, "no font"),
    }
    with pytest.raises(TransitionRefused):
        catalog.record_product(run, key="statistics.zarr", name="statistics", state="building")


def test_scores_are_replaced_not_doubled(catalog):
    score = {
        "cycle": CYCLE, "model": "hres", "lead_hours": 24, "variable": "temperature", "level": 850,
        "region": "global", "metric": "crps", "sum": 2.0, "weight": 4.0, "value": 0.5,
        "truth_source": "analysis",
    }  # fmt: skip
    assert catalog.record_scores([score, {**score, "lead_hours": 48}]) == 2
    catalog.record_scores([{**score, "value": 0.25}])
    with catalog._engine.connect() as connection:
        rows = connection.execute(text("SELECT value FROM verification_score ORDER BY value"))
        assert [row[0] for row in rows] == [0.25, 0.5]


def test_alert_is_open_once_until_its_cause_is_gone(catalog):
    _, new = catalog.open_alert("analysis-late", subject=CYCLE.id, cycle=CYCLE)
    alert, again = catalog.open_alert("analysis-late", subject=CYCLE.id, cycle=CYCLE)
    assert (new, again, alert.repeats) == (True, False, 1)
    catalog.acknowledge_alert(alert.id)
    assert catalog.close_alert("analysis-late", CYCLE.id)
    assert not catalog.close_alert("analysis-late", CYCLE.id)
    assert catalog.open_alert("analysis-late", subject=CYCLE.id)[1]
    assert len(catalog.alerts()) == 1
    assert len(catalog.alerts(open_only=False)) == 2


def test_times_are_utc_whatever_zone_they_come_in(catalog):
    island = timezone(timedelta(hours=14))
    run = publish_run(catalog)
    moment = datetime(2026, 11, 21, 3, 4, 5, 678, tzinfo=island)
    with catalog._writing() as session:
        session.get_one(ForecastRun, run.id).published = moment
    found = catalog.runs()[0]
    assert found.published == moment
    assert found.published.utcoffset() == timedelta(0)
    assert found.cycle == CYCLE


ELSEWHERE = """
import sys
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
catalog = Catalog(sys.argv[1])
run = catalog.start_run(Cycle.parse("2026-11-20T00Z"), "hres")
catalog.claim(run.cycle, "hres", "elsewhere")
print(run.started.isoformat(), run.cycle.id)
"""


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns"])
def test_zone_of_the_machine_does_not_matter(catalog, database_url, zone):
    start = datetime.now(UTC)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, database_url],
        env={**os.environ, "TZ": zone, "PGTZ": zone},
        check=True,
        capture_output=True,
        text=True,
    )
    printed, cycle = done.stdout.split()
    run = catalog.runs(cycle=CYCLE)[0]
    assert cycle == CYCLE.id
    assert run.started == datetime.fromisoformat(printed)
    assert timedelta(seconds=-1) < run.started - start < timedelta(seconds=60)
    with pytest.raises(CycleBusy, match="elsewhere"):
        catalog.claim(CYCLE, "hres", "me")


def test_claim_excludes_others_until_it_is_released(catalog):
    claim = catalog.claim(CYCLE, "hres", "one")
    with pytest.raises(CycleBusy, match=r"claimed by one since \d{4}-"):
        catalog.claim(CYCLE, "hres", "two")
    catalog.claim(CYCLE, "era5", "two")
    assert catalog.release(claim)
    assert catalog.claim(CYCLE, "hres", "two").owner == "two"
    assert not catalog.release(claim)


def test_expired_claim_is_taken_over_and_its_holder_told(database_url):
    make_tables(database_url)
    now = [datetime(2026, 11, 20, tzinfo=UTC)]
    with Catalog(database_url, clock=lambda: now[0]) as catalog:
        first = catalog.claim(CYCLE, "hres", "one", ttl=60)
        now[0] += timedelta(seconds=50)
        first = catalog.heartbeat(first, ttl=60)
        now[0] += timedelta(seconds=50)
        with pytest.raises(CycleBusy):
            catalog.claim(CYCLE, "hres", "two")
        now[0] += timedelta(seconds=11)
        catalog.claim(CYCLE, "hres", "two")
        with pytest.raises(CycleBusy, match="was lost; held by two"):
            catalog.heartbeat(first)
        assert not catalog.release(first)
        assert [c.owner for c in catalog.claims()] == ["two"]


RACE = """
import sys, time
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CycleBusy
catalog = Catalog(sys.argv[1])
time.sleep(max(0.0, float(sys.argv[3]) - time.time()))
won = 0
for hour in range(0, 240, 6):
    try:
        catalog.claim(Cycle.parse("2026-11-01T00Z").shift(hour), "hres", sys.argv[2])
        won += 1
    except CycleBusy:
        pass
print(won)
"""


def test_of_racing_processes_exactly_one_gets_each_cycle(catalog, database_url):
    start = str(time.time() + 2.5)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, database_url, f"racer-{i}", start],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    won = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert sum(won) == 40 == len(catalog.claims())


OPEN = """
import sys, time
from mosaic_core.catalog.catalog import Catalog
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
print(Catalog(sys.argv[1]).schema_version())
"""


def test_processes_that_open_a_new_file_at_once_all_find_the_tables(tmp_path):
    command = [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path}/c.db", str(time.time() + 3)]
    opened = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [p.communicate(timeout=60)[0].strip() for p in opened] == [schema.head()] * 4


def test_exclusive_lock_is_held_by_one_at_a_time(catalog, database_url):
    import threading

    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with Catalog(database_url) as mine:
            for _ in range(5):
                with mine.exclusive("latest hres"):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.005)
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_wrong_password_is_named_and_never_shown(postgres_server):
    url = postgres_server.replace("secret-of-tests", "Wrong%21secret") + "/postgres"
    with pytest.raises(CatalogError, match="user or password") as caught:
        Catalog(url)
    assert "Wrong" not in str(caught.value)
    assert "Wrong" not in repr(Catalog(url, check=False))


def test_unreachable_and_missing_databases_say_what_to_do(postgres_server):
    with pytest.raises(CatalogError, match="cannot be reached"):
        Catalog("postgresql://mosaic:Hidden@127.0.0.1:9/none")
    with pytest.raises(CatalogError, match="createdb"):
        Catalog(f"{postgres_server}/nosuch")


@pytest.mark.parametrize("url", ["mysql://u:Hidden@h/d", "nonsense Hidden", "sqlite://", ""])
def test_other_urls_are_refused_without_being_repeated(url):
    with pytest.raises(ConfigurationError) as caught:
        Catalog(url)
    assert "Hidden" not in str(caught.value)


def test_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "catalog.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(CatalogError, match="no SQLite file"):
        Catalog(f"sqlite:///{tmp_path}/catalog.db")


def test_sqlite_is_opened_for_many_processes(tmp_path):
    with Catalog(str(tmp_path / "deep" / "catalog.db")) as catalog:
        with catalog._engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "foreign_keys", "busy_timeout")
            }
        assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30000}


def test_naive_times_are_refused_by_the_database_types(catalog):
    run = catalog.start_run(CYCLE, "hres")
    with pytest.raises(Exception, match="no zone"), catalog._writing() as session:
        session.get_one(ForecastRun, run.id).published = datetime(2026, 1, 1)  # noqa: DTZ001


def test_passwords_are_hidden_in_shown_urls():
    url = database.parse_url("postgresql://u:Hidden@h/d")
    assert "Hidden" not in database.shown(url)
    create_engine(url).dispose()
