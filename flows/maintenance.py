"""Retention, agreement of store and catalog, upkeep of the database."""

from __future__ import annotations

from typing import Any

from prefect import flow, task

from flows import artifacts
from flows.reconcile import mend
from flows.reference import plain_name, site_of
from flows.tasks import HOUR, PATIENT
from mosaic_core.pipeline.retention import Retention, keep_up


@flow(name="maintenance", flow_run_name=plain_name, persist_result=False)
def maintenance(
    profile: str, overrides: list[str] | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Remove what is older than the profile's `retention` keeps it, and look after the catalog.

    Args:
        profile: name in config/profiles, or a YAML file.
        overrides: `key=value` settings, as `mosaic run --set` takes them.
        dry_run: only say what would be removed.
    """
    settings = overrides or []
    removals = retain(profile, settings, dry_run)
    verb = "would be removed" if dry_run else "removed"
    total = sum(removal["bytes"] for removal in removals) / 1e6
    text = f"{len(removals)} {verb}, {total:.1f} MB"
    artifacts.show_table(profile, "retention", removals, text)
    if dry_run:
        return {"removals": len(removals), "differences": 0, "audit_entries": 0}
    mended = mend(profile, settings)
    artifacts.show_table(profile, "differences", mended, "Store and catalog differed")
    entries = look_after_catalog(profile, settings)
    return {"removals": len(removals), "differences": len(mended), "audit_entries": entries}


@task(**PATIENT, timeout_seconds=4 * HOUR)
def retain(profile: str, overrides: list[str], dry_run: bool) -> list[dict[str, Any]]:
    """Plan or apply the retention."""
    rules = Retention(site_of(profile, overrides))
    return [removal.as_dict() for removal in (rules.plan() if dry_run else rules.apply())]


@task(**PATIENT, timeout_seconds=HOUR)
def look_after_catalog(profile: str, overrides: list[str]) -> int:
    """Drop old entries of the audit and give space back; how many entries went."""
    return keep_up(site_of(profile, overrides))
