"""The run of one cycle, as Prefect sees it."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows import tasks


@flow(name="run-cycle", flow_run_name="{cycle} {profile}", persist_result=False)
def run_cycle(
    cycle: str, profile: str = "production", overrides: list[str] | None = None
) -> dict[str, Any]:
    """Analyses in, published forecast out.

    Args:
        cycle: initial time, ISO: `2026-11-20T00Z`.
        profile: name in config/profiles, or a YAML file.
        overrides: `key=value` settings, as `mosaic run --set` takes them.
    """
    tasks.ingest(profile, cycle, overrides or [])
    return tasks.complete(profile, cycle, overrides or [])
