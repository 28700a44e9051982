"""The members of an ensemble as runs of their own on pool `gpu`, joined when all are whole."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from prefect import task

from flows.artifacts import rollout_shown
from flows.reference import fingerprint, site_of
from flows.submission import Errand, bring_about
from flows.tasks import HOUR
from mosaic_core.cycle import Cycle
from mosaic_core.errors import MosaicError, StoreError
from mosaic_core.pipeline import records, stages
from mosaic_core.pipeline.beginning import due_parts, parts_of
from mosaic_core.pipeline.claims import claimed, held_parts
from mosaic_core.pipeline.site import Site

LONGEST = 12 * HOUR
_log = logging.getLogger(__name__)


@task(task_run_name="forecast {cycle} r{revision} on pool gpu", persist_result=False)
def forecast_on_pool(
    profile: str, overrides: list[str], cycle: str, revision: int, attempt: int
) -> None:
    """Ask for a run of each part that is not whole, and wait until all are.

    The claim on the cycle is held meanwhile, so that all can see that somebody is at it. Another
    run of the cycle may have taken it since this one began: it is waited for, and what it has made
    is found.

    Raises:
        CycleBusy: another run holds the cycle, and does not let go of it for hours.
        ForecastError: a part ended several times without being whole.
    """
    site, when = site_of(profile, overrides), Cycle.parse(cycle)
    left = parts_left(site, when, revision)
    key = f"{fingerprint(profile, overrides)}-{site.config.name}-{when.id}-r{revision}-a{attempt}"

    def errand(part: int) -> Errand:
        parameters: dict[str, Any] = {
            "cycle": cycle, "revision": revision, "part": part,
            "profile": profile, "overrides": overrides,
        }  # fmt: skip
        return Errand(
            f"forecast/{site.profile.name}", f"{key}-p{part}", parameters,
            done=lambda: _is_none_of(part, left()), held=lambda: _held(site, when, part),
            quiet_seconds=60 * site.profile.recovery.quiet_minutes,
            tags=[str(when), site.config.name],
        )  # fmt: skip

    with (
        claimed(site.catalog, when, site.config.name, wait=LONGEST) as alive,
        rollout_shown(site.config.name, f"{cycle} r{revision}") as show,
    ):

        def look() -> None:
            alive()
            with suppress(StoreError):
                steps = stages.steps_written(site, when, revision)
                show(steps / site.profile.steps, f"{steps} of {site.profile.steps} steps there")

        parts = range(1, len(parts_of(site)) + 1)
        errands = [errand(part) for part in parts if not _is_none_of(part, left())]
        bring_about(errands, LONGEST, look=look)


def parts_left(site: Site, cycle: Cycle, revision: int) -> Callable[[], tuple[int, ...] | None]:
    """A function that looks which parts of a begun forecast are not whole; None: not known."""
    run = site.catalog.run(cycle, site.config.name, revision)
    wanted = stages.wanted_identity(site, cycle, records.state_of(site, run))

    def left() -> tuple[int, ...] | None:
        try:
            return due_parts(site, cycle, revision, wanted)
        except MosaicError as error:
            _log.warning("what is left of %s is not known: %s", cycle, error.found)
            return None

    return left


def _is_none_of(part: int, left: tuple[int, ...] | None) -> bool | None:
    return None if left is None else part not in left


def _held(site: Site, cycle: Cycle, part: int) -> bool:
    try:
        claims = held_parts(site.catalog, cycle, site.config.name)
    except MosaicError:
        return True  # not known
    return any(claim.part == part for claim in claims)
