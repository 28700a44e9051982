"""After an outage: the newest cycle first, what it supersedes skipped, and no end of attempts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.pipeline import recovery, steps
from mosaic_core.pipeline.beginning import superseded
from mosaic_core.pipeline.claims import owner
from mosaic_core.pipeline.run import run_cycle
from mosaic_core.pipeline.site import Site
from mosaic_core.publication import client
from mosaic_core.publication.latest import read_latest
from tests.pipeline.command import Fault, mosaic
from tests.pipeline.world import BEFORE, FIRST, VARIANT, World, analyses, plain, write_source
from tests.recovery.sites import site_of

DEAD_HERE = owner().replace(":", ":9999999", 1)
ELSEWHERE = "other-host:1@00000000"
DAY = [FIRST.shift(6 * i) for i in range(1, 5)]
"""The cycles of the day after the first, oldest first."""


def after(cycle: Cycle, hours: float) -> datetime:
    return cycle.init_time + timedelta(hours=hours)


NOON = after(DAY[-1], 9.5)
"""When the last of the day is due, even if nobody has begun it."""


class Clock:
    """The time by which the catalog notes what happens."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_minutes(self, minutes: float) -> datetime:
        self.now += timedelta(minutes=minutes)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(second: World, clock: Clock) -> Iterator[Site]:
    """A site that published its first cycle and then was down for a day."""
    write_source(second.source, analyses(BEFORE, 6))
    second.write(recovery={"max_age_hours": 30, "attempts": 3})
    opened = site_of(second)
    opened.catalog.close()
    with Catalog(second.catalog, clock=clock) as catalog:
        yield dataclasses.replace(opened, catalog=catalog)


def begin(site: Site, cycle: Cycle, state: str = "forecasting", attempts: int = 1) -> None:
    for _ in range(attempts):
        run = site.catalog.start_run(cycle, VARIANT, revision=1)
    site.catalog.set_state(run, state)


def test_a_backlog_lists_the_newest_cycle_first(site: Site) -> None:
    due = recovery.due(site, NOON)
    assert [d.cycle for d in due] == DAY[::-1]
    assert due[0].key == f"{VARIANT}-{DAY[-1].id}-1"
    assert {d.reason for d in due} == {"nobody has begun it"}
    assert recovery.backlog(site, NOON).next == due[0]
    assert site.catalog.runs(cycle=DAY[0]) == ()


def test_a_cycle_that_nobody_began_is_left_alone_until_it_is_overdue(site: Site) -> None:
    assert recovery.due(site, after(DAY[0], 8.9)) == ()
    assert [d.cycle for d in recovery.due(site, after(DAY[0], 9.1))] == [DAY[0]]


def test_an_outage_of_a_day_ends_with_the_newest_cycle_and_skips_what_it_supersedes(
    site: Site,
) -> None:
    (done,) = recovery.reconcile(site, NOON)
    assert (done.due.cycle, done.outcome) == (DAY[-1], "published")
    assert client.latest(site.store.root).cycle == DAY[-1]
    for cycle in DAY[:-1]:
        (run,) = site.catalog.runs(cycle=cycle)
        assert (run.state, run.attempts) == ("skipped", 0)
        assert run.error == f"the newer cycle {DAY[-1]} is published"
    assert recovery.backlog(site, NOON) == recovery.Backlog()
    assert list(recovery.reconcile(site, NOON)) == []
    # Asked for by name, a skipped cycle is run all the same, and `latest` stays.
    assert run_cycle(site, DAY[-2]).manifest.revision == 1
    latest = read_latest(site.store, VARIANT)
    assert latest is not None
    assert latest.cycle == DAY[-1]


def test_when_the_newest_fails_the_next_older_one_follows(site: Site) -> None:
    newest = DAY[-1].shift(6)  # there is no analysis of it
    first, second = recovery.reconcile(site, after(newest, 9.5))
    assert (first.due.cycle, first.outcome) == (newest, "failed")
    assert "no analysis" in str(first.error) or "not in" in str(first.error)
    assert (second.due.cycle, second.outcome) == (DAY[-1], "published")
    (failed,) = site.catalog.runs(cycle=newest)
    assert (failed.state, failed.attempts) == ("failed", 1)


def test_what_is_too_old_is_skipped_with_its_age(site: Site) -> None:
    now = after(DAY[0], 31)
    assert [d.cycle for d in recovery.due(site, now)] == DAY[:0:-1]
    (run,) = site.catalog.runs(cycle=DAY[0])
    assert run.state == "skipped"
    assert run.error == "it is 31 h old, and only cycles of the last 30 h are made up for"


def test_a_late_start_of_a_superseded_cycle_does_nothing(site: Site) -> None:
    run_cycle(site, DAY[1])
    begun = steps.begin(site, DAY[0])
    assert begun.outcome == "superseded"
    assert begun.reason == f"the newer cycle {DAY[1]} is published"
    (run,) = site.catalog.runs(cycle=DAY[0])
    assert run.state == "skipped"
    assert steps.begin(site, DAY[0], backfill=True).outcome == "due"


def test_the_one_cycle_of_a_profile_that_names_it_is_never_too_old(site: Site) -> None:
    now = after(DAY[0], 100_000)
    assert "only cycles of the last 30 h" in superseded(site, DAY[0], now)
    fixed = dataclasses.replace(site.profile, cycle=str(DAY[0]))
    assert superseded(dataclasses.replace(site, profile=fixed), DAY[0], now) == ""


def test_attempts_are_counted_and_end(site: Site, clock: Clock) -> None:
    begin(site, DAY[0], "failed", attempts=2)
    assert DAY[0] not in [d.cycle for d in recovery.backlog(site, clock.now).due]
    due = recovery.backlog(site, clock.pass_minutes(16)).due[-1]
    assert (due.cycle, due.attempt, due.reason) == (DAY[0], 3, "attempt 2 failed")
    assert due.key == f"{VARIANT}-{DAY[0].id}-3"
    begin(site, DAY[0], "failed")
    found = recovery.backlog(site, clock.pass_minutes(16))
    assert DAY[0] not in [d.cycle for d in found.due]
    assert [d.cycle for d in found.exhausted] == [DAY[0]]


def test_a_run_that_gave_a_sign_a_moment_ago_is_under_way(site: Site, clock: Clock) -> None:
    begin(site, DAY[0])
    assert recovery.backlog(site, clock.pass_minutes(14)).running == (DAY[0],)
    found = recovery.backlog(site, clock.pass_minutes(2))
    assert found.running == ()
    assert found.due[-1].reason == "attempt 1 died while forecasting"


def test_a_claim_says_whether_a_run_lives(site: Site, clock: Clock) -> None:
    begin(site, DAY[0])
    held = site.catalog.claim(DAY[0], VARIANT, ELSEWHERE, ttl=3600, part=2)
    assert recovery.backlog(site, clock.pass_minutes(16)).running == (DAY[0],)
    site.catalog.release(held)
    begin(site, DAY[0])
    # Of this machine, and dead: no need to wait for the claim to run out.
    site.catalog.claim(DAY[0], VARIANT, DEAD_HERE, ttl=3600, part=2)
    assert recovery.backlog(site, clock.now).due[-1].cycle == DAY[0]


def test_while_a_newer_cycle_is_under_way_no_older_one_is_started(site: Site) -> None:
    site.catalog.claim(DAY[-1], VARIANT, ELSEWHERE, ttl=3600)
    found = recovery.backlog(site, NOON)
    assert found.running == (DAY[-1],)
    assert [d.cycle for d in found.due] == DAY[-2::-1]
    assert found.next is None
    assert list(recovery.reconcile(site, NOON)) == []


def test_an_attempt_that_never_said_anything_is_counted_once(site: Site) -> None:
    lost = recovery.due(site, NOON)[0]
    for _ in range(2):
        recovery.count_lost_attempt(site, lost, "its process was gone")
    (run,) = site.catalog.runs(cycle=lost.cycle)
    assert (run.state, run.attempts, run.error) == ("failed", 1, "its process was gone")


def test_mosaic_reconcile_tells_first_and_then_runs(world: World) -> None:
    recent = Cycle.latest_before(datetime.now(UTC))
    write_source(world.source, analyses(recent.predecessor, 2))
    world.write(recovery={"unheard_hours": 100})
    kill = Fault("mosaic_core.ensemble.written:seal")
    assert mosaic("run", str(recent), "-p", world.profile, faults=[kill]).code < 0
    words = ("reconcile", "-p", world.profile, "--json")
    told = plain(mosaic(*words, "--dry-run").out)
    assert [(d["cycle"], d["attempt"]) for d in told["due"]] == [(recent.id, 2)]
    assert told["done"] == []
    outcome = mosaic(*words)
    assert outcome.code == 0, outcome.err
    assert [d["outcome"] for d in plain(outcome.out)["done"]] == ["published"]
    assert client.latest(world.store).cycle == recent
    assert mosaic("reconcile", "-p", world.profile).out == "nothing is due\n"
