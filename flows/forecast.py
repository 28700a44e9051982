"""The ensemble on the GPU pool: one part of the members, as a deployment of its own."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows import tasks
from flows.reference import run_name


@flow(name="forecast", flow_run_name=run_name, persist_result=False)
def forecast(
    cycle: str, revision: int, part: int, profile: str, overrides: list[str] | None = None
) -> dict[str, Any]:
    """Compute what a part of the members of a begun cycle lacks; go on at the first missing window.

    Args:
        cycle: initial time, ISO: `2026-11-20T00Z`.
        revision: of the forecast, as `run-cycle` has begun it.
        part: of the members, from 1.
        profile: name in config/profiles, or a YAML file.
        overrides: `key=value` settings, as `mosaic run --set` takes them.
    """
    return tasks.forecast(profile, overrides or [], cycle, revision, part)
