"""`mosaic watch` and `mosaic alerts`: what is wrong, who is told, who has seen it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName

if TYPE_CHECKING:
    from mosaic_core.monitoring.facts import Watched
    from mosaic_core.monitoring.watch import Outcome, Report

app = typer.Typer(help="Alerts: see, acknowledge, try out.", no_args_is_help=True)
Settings = Annotated[
    str, typer.Option("--alerts", metavar="FILE", help="Name in config/, or a YAML file.")
]
NOT_GOOD = 10


def add_to(top: typer.Typer) -> None:
    top.command()(watch)
    top.add_typer(app, name="alerts")


def watch(
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    once: Annotated[bool, typer.Option("--once", help="Look once: so it is by default.")] = False,
    every: Annotated[float | None, typer.Option(help="Look again after so many seconds.")] = None,
    alerts: Settings = "alerts",
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong; open, tell, repeat and close alerts. Needs no Prefect.

    Once (for cron or a timer; exit 10 when the catalog is away or a message did not arrive), or
    for ever with --every.
    """
    import time

    from mosaic_core.monitoring.watch import watch as look

    if once and every is not None:
        raise typer.BadParameter("--once and --every exclude each other")
    site = _site(profile, overrides, alerts)
    _warn_of_silence(site)
    while True:
        began = time.monotonic()
        report = look(site)
        _show_report(report, as_json)
        if every is None:
            raise typer.Exit(NOT_GOOD if report.catalog_problem or report.undelivered else 0)
        time.sleep(max(0.0, every - (time.monotonic() - began)))


@app.command("ls")
def list_alerts(
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    everything: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the open alerts, newest first, and which messages about them have not arrived."""
    from mosaic_core.catalog.catalog import Catalog
    from mosaic_core.profile import Profile

    with Catalog(Profile.load(profile, overrides or ()).catalog) as catalog:
        rows = catalog.alerts(open_only=not everything)
        pending: dict[int, list[str]] = {}
        for delivery, alert in catalog.pending_deliveries():
            problem = delivery.problem or "not sent yet"
            pending.setdefault(alert.id, []).append(f"{delivery.channel}: {problem}")
    if as_json:
        typer.echo(json.dumps([_plain(row, pending.get(row.id, [])) for row in rows]))
        return
    if not rows:
        typer.echo("no alerts" if everything else "no open alerts")
    for row in rows:
        _show_alert(row, pending.get(row.id, []))


@app.command()
def ack(
    number: Annotated[int, typer.Argument(help="Number of the alert.")],
    profile: ProfileName = "demo",
    overrides: Overrides = None,
) -> None:
    """Say that an alert has been seen: it is not repeated any more, and closes as ever."""
    from mosaic_core.catalog.catalog import Catalog
    from mosaic_core.profile import Profile

    with Catalog(Profile.load(profile, overrides or ()).catalog) as catalog:
        row = catalog.acknowledge_alert(number)
    state = "is closed already" if row.closed else "is acknowledged"
    typer.echo(f"{number} {row.kind} {row.subject} {state}")


@app.command("test")
def try_out(
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    channel: Annotated[list[str] | None, typer.Option(help="This one; all by default.")] = None,
    alerts: Settings = "alerts",
    as_json: AsJson = False,
) -> None:
    """Really send a test message; exit 10 unless every channel that is not off got it."""
    from mosaic_core.monitoring.watch import try_channels

    site = _site(profile, overrides, alerts)
    outcomes = try_channels(site, channel or ())
    off = [o for o in outcomes if site.alerting.channels[o.channel].off]
    sent = [o for o in outcomes if o not in off]
    if as_json:
        typer.echo(json.dumps({o.channel: o.problem or "sent" for o in outcomes}))
    else:
        for outcome in outcomes:
            typer.echo(f"{outcome.channel:12} {outcome.problem or 'sent'}")
    if not sent and not as_json:
        typer.echo("nobody is told of anything: every channel is off", err=True)
    if not sent or any(o.problem for o in sent) or (channel and off):
        raise typer.Exit(NOT_GOOD)


def _site(profile: str, overrides: list[str] | None, alerts: str) -> Watched:
    from mosaic_core.monitoring.facts import Watched
    from mosaic_core.monitoring.kinds import Alerting
    from mosaic_core.profile import Profile

    return Watched.of(Profile.load(profile, overrides or ()), Alerting.load(alerts))


def _warn_of_silence(site: Watched) -> None:
    mute = [kind for kind in site.alerting.kinds if not site.alerting.channels_of(kind)]
    if mute:
        kinds = "any alert" if len(mute) == len(site.alerting.kinds) else ", ".join(mute)
        typer.echo(f"nobody is told of {kinds}: see `mosaic alerts test`", err=True)


def _show_report(report: Report, as_json: bool) -> None:
    if as_json:
        document = {
            "open": report.open,
            "opened": report.opened,
            "closed": report.closed,
            "messages": [_outcome(outcome) for outcome in report.outcomes],
            "catalog_problem": report.catalog_problem,
        }
        typer.echo(json.dumps(document))
        return
    for name in report.opened:
        typer.echo(f"opened: {name}")
    for name in report.closed:
        typer.echo(f"closed: {name}")
    for outcome in report.undelivered:
        title = outcome.message.title
        typer.echo(f"{outcome.channel}: {title} did not arrive: {outcome.problem}", err=True)
    if report.catalog_problem:
        typer.echo(f"without the catalog: {report.catalog_problem}", err=True)
    typer.echo(f"{len(report.open)} open")


def _outcome(outcome: Outcome) -> dict[str, Any]:
    message = outcome.message
    return {
        "channel": outcome.channel,
        "event": message.event,
        "kind": message.kind,
        "subject": message.subject,
        "problem": outcome.problem,
    }


def _plain(row: Any, pending: list[str]) -> dict[str, Any]:
    times = {
        name: value.isoformat() if (value := getattr(row, name)) else None
        for name in ("opened", "acknowledged", "closed", "last_seen")
    }
    return {
        "number": row.id,
        "kind": row.kind,
        "severity": row.severity,
        "subject": row.subject,
        "cycle": row.cycle.id if row.cycle else None,
        "text": row.text,
        **times,
        "undelivered": pending,
    }


def _show_alert(row: Any, pending: list[str]) -> None:
    from datetime import UTC, datetime

    from mosaic_core.monitoring.message import duration

    end = row.closed or datetime.now(UTC)
    age = duration((end - row.opened).total_seconds())
    state = f"closed after {age}" if row.closed else f"open for {age}"
    seen = f", seen {row.acknowledged:%m-%d %H:%M}" if row.acknowledged else ""
    typer.echo(f"{row.id:4} {row.severity:8} {row.kind} ({state}{seen})\n     {row.text}")
    for problem in pending:
        typer.echo(f"     not delivered: {problem}")
