"""Retries and timeouts around the plain functions of `mosaic_core.pipeline`; no logic.

Arguments are references: a profile's name and an ISO time, never arrays.
"""

from __future__ import annotations

from typing import Any

from prefect import task

from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError, CycleBusy
from mosaic_core.pipeline import run, stages
from mosaic_core.pipeline.site import open_site
from mosaic_core.profile import Profile


def worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """A wrong setting or a cycle that another run holds is not cured by trying again."""
    try:
        state.result()
    except (ConfigurationError, CycleBusy):
        return False
    except Exception:
        return True
    return False


@task(
    retries=12,
    retry_delay_seconds=[30, 60, 120, 240, 480, *[900] * 7],
    retry_jitter_factor=0.3,
    retry_condition_fn=worth_retrying,
    persist_result=False,
)
def ingest(profile: str, cycle: str, overrides: list[str]) -> None:
    """Fetch, check and store the analyses; later stages read them back from the store."""
    stages.ingest(open_site(Profile.load(profile, overrides)), Cycle.parse(cycle))


@task(
    retries=2,
    retry_delay_seconds=30,
    retry_condition_fn=worth_retrying,
    timeout_seconds=7200,
    persist_result=False,
)
def complete(profile: str, cycle: str, overrides: list[str]) -> dict[str, Any]:
    """Ensemble, products and publication under one claim; goes on where an attempt stopped."""
    site = open_site(Profile.load(profile, overrides))
    return run.run_cycle(site, Cycle.parse(cycle)).as_dict()
