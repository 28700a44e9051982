"""Cycles that should be published by now and are not: found, made up for, or given up plainly.

The catalog says what is due; no orchestrator is asked. Of a backlog the newest cycle comes first,
and what it supersedes is skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mosaic_core.catalog.models import ForecastRun
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CycleBusy, MosaicError
from mosaic_core.pipeline import records, stages
from mosaic_core.pipeline.beginning import superseded
from mosaic_core.pipeline.claims import claimed, has_died, held_parts
from mosaic_core.pipeline.run import Reporter, run_cycle
from mosaic_core.pipeline.site import Site
from mosaic_core.publication.publish import next_revision

LOOK_BACK = timedelta(days=10)
"""Cycles before that are history, and no backlog."""

_DONE = frozenset(("published", "unchanged", "skipped"))
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Due:
    """One cycle that is to be run now.

    Attributes:
        attempt: the number that this attempt will have, from 1.
        key: `<variant>-<cycle>-<attempt>`: asked for twice under one key, it is to run once.
        reason: why it is due, in words.
    """

    cycle: Cycle
    attempt: int
    key: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "cycle": self.cycle.id}


@dataclass(frozen=True)
class Backlog:
    """What is known of the cycles that are not published, each list newest first.

    Attributes:
        due: to be run.
        running: somebody works on them, or did a moment ago.
        superseded: not worth running any more, and why.
        exhausted: failed as often as they may; left to people.
    """

    due: tuple[Due, ...] = ()
    running: tuple[Cycle, ...] = ()
    superseded: tuple[tuple[Cycle, str], ...] = ()
    exhausted: tuple[Due, ...] = ()

    @property
    def next(self) -> Due | None:
        """What to start now: the newest due cycle, unless a newer one is under way.

        One at a time, because the newest supersedes the others once it is published; they follow
        if it is not.
        """
        if not self.due or any(cycle > self.due[0].cycle for cycle in self.running):
            return None
        return self.due[0]

    def as_dict(self) -> dict[str, Any]:
        return {
            "due": [due.as_dict() for due in self.due],
            "running": [cycle.id for cycle in self.running],
            "superseded": {cycle.id: reason for cycle, reason in self.superseded},
            "exhausted": [due.as_dict() for due in self.exhausted],
        }


def backlog(site: Site, now: datetime | None = None) -> Backlog:
    """Look at every cycle of the last days that could be published by `now`; changes nothing.

    A cycle that nobody has begun is due after `recovery.unheard_hours`. One that was begun is due
    when its run has failed or died: its claim's holder is gone from this machine, or there has
    been no sign of it for `recovery.quiet_minutes`.
    """
    now = now or stages.now()
    due: list[Due] = []
    running: list[Cycle] = []
    passed: list[tuple[Cycle, str]] = []
    exhausted: list[Due] = []
    for cycle, run in _unpublished(site, now):
        if _is_worked_on(site, cycle, run, now):
            running.append(cycle)
            continue
        reason = superseded(site, cycle, now)
        if reason:
            passed.append((cycle, reason))
            continue
        found = _due(site, cycle, run, now)
        if found is not None:
            spent = found.attempt > site.profile.recovery.attempts
            (exhausted if spent else due).append(found)
    return Backlog(tuple(due), tuple(running), tuple(passed), tuple(exhausted))


def due(site: Site, now: datetime | None = None) -> tuple[Due, ...]:
    """The cycles to be run now, newest first; what is superseded is recorded as skipped.

    Who starts them one by one asks `Backlog.next` after each instead; who starts them all relies
    on `begin`, which skips the older ones once a newer one is published.
    """
    found = backlog(site, now)
    record_superseded(site, found)
    return found.due


def record_superseded(site: Site, found: Backlog) -> None:
    """Write the cycles that are not run, and why, into the catalog."""
    for cycle, reason in found.superseded:
        try:
            with claimed(site.catalog, cycle, site.config.name):
                revision = records.revision_to_make(site, cycle)
                if next_revision(site.store, site.config.name, cycle) == 1:
                    site.catalog.skip_run(cycle, site.config.name, revision, reason)
                    _log.warning("%s %s is skipped: %s", site.config.name, cycle, reason)
        except CycleBusy:
            continue


def count_lost_attempt(site: Site, lost: Due, reason: str) -> None:
    """Count an attempt that ended before it could say anything, so that the next has another key.

    For who asked for `lost.key` and finds that run ended: an attempt that got as far as its
    analyses has counted itself, and nothing is done.
    """
    with claimed(site.catalog, lost.cycle, site.config.name):
        revision = records.revision_to_make(site, lost.cycle)
        run = _newest(site, lost.cycle)
        if run is not None and (run.attempts >= lost.attempt or run.state in _DONE):
            return
        run = records.start(site, lost.cycle, revision)
        site.catalog.set_state(run, "failed", error=reason)


@dataclass(frozen=True)
class Reconciled:
    """What `reconcile` did with one cycle: `published`, `unchanged`, or what went wrong."""

    due: Due
    outcome: str
    error: MosaicError | None = None


def reconcile(
    site: Site, now: datetime | None = None, reporter: Reporter | None = None
) -> Iterator[Reconciled]:
    """Run what is due in this process, the newest cycle first, until nothing is left.

    A cycle that fails is tried again by a later call, and the next older one follows meanwhile.
    """
    tried: set[Cycle] = set()
    while True:
        found = backlog(site, now)
        record_superseded(site, found)
        left = Backlog(tuple(d for d in found.due if d.cycle not in tried), found.running)
        if left.next is None:
            return
        one = left.next
        tried.add(one.cycle)
        try:
            yield Reconciled(one, run_cycle(site, one.cycle, reporter).outcome)
        except MosaicError as error:
            _log.error("%s %s failed again: %s", site.config.name, one.cycle, error)
            yield Reconciled(one, "failed", error)


def _unpublished(site: Site, now: datetime) -> Iterator[tuple[Cycle, ForecastRun | None]]:
    """Cycles that could be published, newest first, with their newest run where there is one."""
    variant = site.config.name
    newest: dict[Cycle, ForecastRun] = {}
    done: set[Cycle] = set()
    for run in site.catalog.runs(variant=variant, since=Cycle.latest_before(now - LOOK_BACK)):
        newest.setdefault(run.cycle, run)
        if run.state in _DONE:
            done.add(run.cycle)
    fresh = Cycle.latest_before(now - timedelta(hours=site.profile.recovery.max_age_hours))
    first = min(newest, default=fresh.shift(6))
    delay = timedelta(hours=site.profile.available_after_hours)
    cycle = Cycle.latest_before(now - delay)
    while cycle >= first:
        if cycle not in done and next_revision(site.store, variant, cycle) == 1:
            yield cycle, newest.get(cycle)
        cycle = cycle.predecessor


def _is_worked_on(site: Site, cycle: Cycle, run: ForecastRun | None, now: datetime) -> bool:
    if held_parts(site.catalog, cycle, site.config.name):
        return True
    if run is None or run.state == "failed" or _is_dead(site, cycle):
        return False
    return run.attempts > 0 and not _is_quiet(site, run, now)


def _is_quiet(site: Site, run: ForecastRun, now: datetime) -> bool:
    return now - run.updated >= timedelta(minutes=site.profile.recovery.quiet_minutes)


def _is_dead(site: Site, cycle: Cycle) -> bool:
    """Whether a process that died on this machine has left its claim behind."""
    return any(
        has_died(claim.owner)
        for claim in site.catalog.claims()
        if (claim.cycle, claim.variant) == (cycle, site.config.name)
    )


def _due(site: Site, cycle: Cycle, run: ForecastRun | None, now: datetime) -> Due | None:
    recovery = site.profile.recovery
    attempt = 1 if run is None else run.attempts + 1
    key = f"{site.config.name}-{cycle.id}-{attempt}"
    if run is not None and run.attempts:
        if run.state == "failed" and not _is_quiet(site, run, now):
            return None  # it may be tried again by whoever runs it; an older one need not wait
        what = "failed" if run.state == "failed" else f"died while {run.state}"
        return Due(cycle, attempt, key, f"attempt {run.attempts} {what}")
    hours = recovery.unheard_hours
    hours = site.profile.cut_off_hours if hours is None else hours
    if now - cycle.init_time < timedelta(hours=hours):
        return None
    return Due(cycle, attempt, key, "nobody has begun it")


def _newest(site: Site, cycle: Cycle) -> ForecastRun | None:
    return next(iter(site.catalog.runs(cycle=cycle, variant=site.config.name, limit=1)), None)
