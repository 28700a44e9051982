"""`mosaic reconcile` and `mosaic retention`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName

if TYPE_CHECKING:
    from mosaic_core.pipeline.site import Site

NOT_GOOD = 10


def add_to(app: typer.Typer) -> None:
    app.command()(reconcile)
    app.command()(retention)


def reconcile(
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is due.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the cycles that should be published and are not, newest first; mend the catalog.

    Exit code 10: a cycle failed, or has failed too often, or store and catalog differ in a way
    that cannot be mended.
    """
    from mosaic_core.pipeline.agreement import differences
    from mosaic_core.pipeline.recovery import backlog
    from mosaic_core.pipeline.recovery import reconcile as run_due

    site = _open(profile, overrides)
    found = differences(site, mend=not dry_run)
    before = backlog(site)
    done = [] if dry_run else list(run_due(site))
    if as_json:
        document = {
            **before.as_dict(),
            "differences": [difference.as_dict() for difference in found],
            "done": [{**one.due.as_dict(), "outcome": one.outcome} for one in done],
        }
        typer.echo(json.dumps(document))
    else:
        for difference in found:
            end = "mended" if difference.mended else difference.action
            typer.echo(f"{difference.subject}: {difference.text}" + (f"; {end}" if end else ""))
        for cycle, reason in before.superseded:
            typer.echo(f"{cycle} skipped: {reason}")
        for cycle in before.running:
            typer.echo(f"{cycle} is under way")
        for one in before.exhausted:
            typer.echo(f"{one.cycle} is left to you: {one.reason}, no attempt is left")
        outcomes = {one.due.cycle: one for one in done}
        for one in before.due:
            result = outcomes.get(one.cycle)
            text = f"{one.cycle} due, attempt {one.attempt}: {one.reason}"
            typer.echo(text if result is None else f"{text}; {result.error or result.outcome}")
        if not (found or before.due or before.superseded or before.running or before.exhausted):
            typer.echo("nothing is due")
    open_ends = [d for d in found if not d.mended and not dry_run]
    if open_ends or before.exhausted or any(one.error for one in done):
        raise typer.Exit(NOT_GOOD)


def retention(
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove it, and tidy the catalog up.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is older than the profile's `retention` keeps it; with --apply, remove it."""
    from mosaic_core.pipeline.retention import Retention, keep_up

    site = _open(profile, overrides)
    rules = Retention(site)
    removals = list(rules.apply() if apply else rules.plan())
    events = keep_up(site) if apply else 0
    if as_json:
        document = {
            "applied": apply,
            "removals": [removal.as_dict() for removal in removals],
            "audit_entries": events,
        }
        typer.echo(json.dumps(document))
        return
    verb = "removed" if apply else "would be removed"
    for removal in removals:
        what = ", ".join(removal.assets[:3]) + (", ..." if len(removal.assets) > 3 else "")
        typer.echo(f"{removal.key} {what}: {removal.reason} ({removal.bytes / 1e6:.1f} MB)")
    total = sum(removal.bytes for removal in removals)
    typer.echo(f"{len(removals)} {verb}, {total / 1e6:.1f} MB")
    if not apply and removals:
        typer.echo("nothing was changed; --apply removes it")


def _open(profile: str, overrides: list[str] | None) -> Site:
    from mosaic_core.pipeline.site import open_site
    from mosaic_core.profile import Profile

    return open_site(Profile.load(profile, overrides or ()))
