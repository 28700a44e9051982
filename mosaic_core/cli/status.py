"""`mosaic status` and `mosaic metrics`: how the cycles go, for people and for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName
from mosaic_core.errors import ConfigurationError

NOT_GOOD = 10


def add_to(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(metrics)


def status(
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    last: Annotated[int, typer.Option(help="How many runs to show.")] = 10,
    max_age: Annotated[
        float | None,
        typer.Option(
            help="Hours since the newest published initial time; beyond them exit 10. Four cycles "
            "a day that are published at T+7:30 are 13.5 h old before the next one."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the last runs, their stages and ages, what is open, and what is newest.

    Exit 10 when something is not good: too old, a critical alert that nobody has seen, the newest
    run failed.
    """
    from mosaic_core.catalog.catalog import Catalog
    from mosaic_core.catalog.claims import subject
    from mosaic_core.model.config import ModelConfig
    from mosaic_core.profile import Profile

    settings = Profile.load(profile, overrides or ())
    variant = ModelConfig.load(settings.model).name
    with Catalog(settings.catalog) as catalog:
        runs = catalog.runs(limit=last)
        newest = catalog.latest_published(variant)
        claims = [claim for claim in catalog.claims() if claim.part >= 0]
        alerts = catalog.alerts()
    age = _hours_since(newest.cycle.init_time) if newest is not None else None
    stale = max_age is not None and (age is None or age > max_age)
    problems = [f"the newest forecast is older than {max_age:g} h"] if stale else []
    problems += _problems(runs, alerts, variant)
    if as_json:
        document = {
            "good": not problems,
            "problems": problems,
            "runs": [_run(row) for row in runs],
            "running": [f"{subject(claim)} by {claim.owner}" for claim in claims],
            "alerts": [_alert(alert) for alert in alerts],
            "newest_published": newest.cycle.id if newest else None,
            "age_hours": age,
            "stale": stale,
        }
        typer.echo(json.dumps(document))
    else:
        _show(runs, claims, alerts, newest, age)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(NOT_GOOD)


def metrics(
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve them to Prometheus.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="MOSAIC_PUSHGATEWAY", help="Push them once to a Pushgateway."
        ),
    ] = None,
    alerts: Annotated[
        str, typer.Option("--alerts", metavar="FILE", help="Name in config/, or a YAML file.")
    ] = "alerts",
) -> None:
    """Print what is measured, serve it, or push it, in the format of Prometheus."""
    from mosaic_core.monitoring import metrics as exporter
    from mosaic_core.monitoring.facts import Watched
    from mosaic_core.monitoring.kinds import Alerting
    from mosaic_core.profile import Profile

    site = Watched.of(Profile.load(profile, overrides or ()), Alerting.load(alerts))
    if listen is not None:
        host, _, port = listen.rpartition(":")
        if not port.isdigit():
            raise ConfigurationError(f"--listen {listen}", "HOST:PORT, as in 127.0.0.1:9464")
        exporter.serve(site, host.strip("[]") or "127.0.0.1", int(port))
    elif push:
        exporter.push(site, push)
    else:
        typer.echo(exporter.text(site), nl=False)


def _problems(runs: Any, alerts: Any, variant: str) -> list[str]:
    found = []
    mine = [run for run in runs if run.variant == variant]
    if mine and mine[0].state == "failed":
        found.append(f"the newest run, {variant} {mine[0].cycle} r{mine[0].revision}, has failed")
    unseen = [a for a in alerts if a.severity == "critical" and a.acknowledged is None]
    if unseen:
        found.append(f"{len(unseen)} critical alerts that nobody has seen: `mosaic alerts ls`")
    return found


def _hours_since(time: datetime) -> float:
    return (datetime.now(UTC) - time).total_seconds() / 3600


def _run(row: Any) -> dict[str, Any]:
    return {
        "cycle": row.cycle.id,
        "variant": row.variant,
        "revision": row.revision,
        "state": row.state,
        "attempts": row.attempts,
        "timings": row.timings,
        "host": row.host,
        "device": row.device,
        "updated": row.updated.isoformat(),
        "published": row.published.isoformat() if row.published else None,
        "error": row.error,
    }


def _alert(row: Any) -> dict[str, Any]:
    return {
        "number": row.id,
        "kind": row.kind,
        "severity": row.severity,
        "subject": row.subject,
        "text": row.text,
        "opened": row.opened.isoformat(),
        "acknowledged": row.acknowledged.isoformat() if row.acknowledged else None,
    }


def _show(runs: Any, claims: Any, alerts: Any, newest: Any, age: float | None) -> None:
    from rich.console import Console
    from rich.markup import escape

    from mosaic_core.catalog.claims import subject

    console = Console()
    if runs:
        console.print(_table(runs))
    else:
        console.print("nothing has run yet: `mosaic demo` or `mosaic run`")
    for row in runs:
        if row.error:
            console.print(f"[red]{row.variant} {row.cycle} r{row.revision}[/]: {escape(row.error)}")
    for claim in claims:
        console.print(f"running: {subject(claim)} by {claim.owner}")
    for alert in alerts:
        seen = " (seen)" if alert.acknowledged else ""
        text = escape(alert.text)
        console.print(f"[yellow]alert {alert.id} {alert.kind}[/]{seen}: {text}", soft_wrap=True)
    if newest is not None:
        console.print(f"newest published: {newest.variant} {newest.cycle}, {age:.1f} h old")


def _table(runs: Any) -> Any:
    from rich.table import Table

    from mosaic_core.monitoring.message import duration

    table = Table("run", "state", "tries", "stages (s)", "ready", "age")
    for column in (0, 4, 5):
        table.columns[column].no_wrap = True
    colours = {"published": "green", "unchanged": "green", "failed": "red"}
    now = datetime.now(UTC)
    for row in runs:
        stages = " ".join(f"{stage} {seconds:.0f}" for stage, seconds in row.timings.items())
        colour = colours.get(row.state, "yellow")
        ready = ""
        if row.published:
            minutes = int((row.published - row.cycle.init_time).total_seconds() // 60)
            ready = f"T+{minutes // 60}:{minutes % 60:02d}" if minutes < 6000 else ""
        table.add_row(
            f"{row.variant} {row.cycle} r{row.revision}", f"[{colour}]{row.state}[/]",
            str(row.attempts), stages, ready, duration((now - row.updated).total_seconds()),
        )  # fmt: skip
    return table
