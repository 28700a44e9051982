"""Look for what is wrong, and see to it that alerts are told, repeated and closed."""

from __future__ import annotations

from typing import Any

from prefect import flow, task

from flows import artifacts, notifications
from flows.reference import plain_name
from mosaic_core.monitoring import watch as monitoring
from mosaic_core.monitoring.facts import Watched
from mosaic_core.profile import Profile


@flow(name="watch", flow_run_name=plain_name, persist_result=False)
def watch(profile: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Evaluate the conditions of config/alerts.yaml for a site.

    Args:
        profile: name in config/profiles, or a YAML file.
        overrides: `key=value` settings, as `mosaic run --set` takes them.
    """
    found = look(profile, overrides or [])
    artifacts.show_table(profile, "alerts", found["open"], "Open alerts")
    return found


@task(persist_result=False, retries=1, retry_delay_seconds=20, timeout_seconds=240)
def look(profile: str, overrides: list[str]) -> dict[str, Any]:
    """Look once; a catalog that is away is an alert, not a failure."""
    site = Watched.of(Profile.load(profile, overrides))
    report = monitoring.watch(site, deliver=notifications.deliver)
    return {
        "open": [{"alert": alert} for alert in report.open],
        "opened": report.opened,
        "closed": report.closed,
        "undelivered": [f"{o.channel}: {o.problem}" for o in report.undelivered],
    }
