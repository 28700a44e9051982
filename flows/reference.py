"""Which cycle of which site a run is about: references only, so that any host can take it up."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from prefect.runtime import flow_run

from mosaic_core.cycle import Cycle
from mosaic_core.model.config import ModelConfig
from mosaic_core.pipeline.site import Site, open_site
from mosaic_core.profile import Profile

BEFORE_THE_SCHEDULE = timedelta(hours=6)
"""The run for a cycle is scheduled some time after this, and before the next cycle's."""
ForecastOn = Literal["here", "gpu-pool"]
VARIANT = "variant="


def site_of(profile: str, overrides: Sequence[str]) -> Site:
    """The site of a profile, opened once a process."""
    return _site(profile, tuple(overrides))


@lru_cache(maxsize=4)
def _site(profile: str, overrides: tuple[str, ...]) -> Site:
    variant, others = _variant_named(overrides)
    site = open_site(Profile.load(profile, others))
    return replace(site, config=replace(site.config, name=variant)) if variant else site


def _variant_named(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """`variant=NAME` among the settings: forecasts and rows under another name than the model's."""
    named = [o.removeprefix(VARIANT) for o in overrides if o.startswith(VARIANT)]
    return named[-1] if named else None, [o for o in overrides if not o.startswith(VARIANT)]


def cycle_of(profile: Profile, cycle: str | None, scheduled: datetime) -> Cycle:
    """The cycle that is named; else the profile's own, else that of the scheduled time."""
    named = cycle or profile.cycle
    return Cycle.parse(named) if named else Cycle.latest_before(scheduled - BEFORE_THE_SCHEDULE)


def scheduled() -> datetime:
    """When this run was to start, UTC."""
    time = flow_run.scheduled_start_time
    # Prefect's own kind of time loses its zone in arithmetic.
    return datetime.fromtimestamp(time.timestamp(), UTC) if time else datetime.now(UTC)


def run_name() -> str:
    """`2026-11-20T00Z hres`; what cannot be read is left to the run itself, which says why."""
    given: Mapping[str, Any] = flow_run.parameters
    try:
        variant, overrides = _variant_named(given.get("overrides") or ())
        profile = Profile.load(given["profile"], overrides)
        when = cycle_of(profile, given.get("cycle"), scheduled())
        name = f"{when} {variant or ModelConfig.load(profile.model).name}"
    except Exception:
        return plain_name()
    part = given.get("part")
    return f"{name} r{given['revision']} part {part}" if part else name


def plain_name() -> str:
    """`watch 2026-11-20T06:30Z`, for a run that is of no cycle."""
    return f"{flow_run.flow_name} {scheduled():%Y-%m-%dT%H:%MZ}"


def fingerprint(profile: str, overrides: Sequence[str]) -> str:
    """Tells runs of the same cycle with other settings apart, in idempotency keys."""
    return hashlib.sha256("\n".join([profile, *overrides]).encode()).hexdigest()[:8]
