"""`mosaic verify` and `mosaic scores`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName
from mosaic_core.cli.run import CycleArgument, cycle_of, open_profile
from mosaic_core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from mosaic_core.catalog.catalog import Catalog
    from mosaic_core.pipeline.scoreboard import Period

NOT_GOOD = 10


def add_to(app: typer.Typer) -> None:
    app.command()(verify)
    app.command()(scores)


def verify(
    cycle: CycleArgument = None,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Verify every published forecast that has come true by CYCLE and has no scores yet."""
    from contextlib import ExitStack

    from mosaic_core.pipeline.scoreboard import Period, write_pictures
    from mosaic_core.pipeline.verification import verify_due

    site = open_profile(profile, overrides)
    when = cycle_of(site, cycle)
    with ExitStack() as stack:
        report = verify_due(site, when, None, quiet if as_json else progress_bar(stack))
    pictures = {}
    if report.verified:
        pictures = write_pictures(site, report.truth, Period(when.shift(-24 * 30), when))
    if as_json:
        typer.echo(json.dumps({**report.as_dict(), "pictures": pictures}))
    else:
        if report.waiting:
            typer.echo(f"the analysis of {when} has not been ingested yet")
        forecasts = len({due.cycle for due in report.verified})
        typer.echo(
            f"verified {len(report.verified)} lead times of {forecasts} forecasts "
            f"against {report.truth}" + (f"; {report.left} are left" if report.left else "")
        )
        for url in pictures.values():
            typer.echo(f"  {url}")
        for due, reason in report.failed:
            typer.echo(f"not verified: {due}: {reason}", err=True)
    if report.failed:
        raise typer.Exit(NOT_GOOD)


def scores(
    variable: Annotated[
        str | None, typer.Option(help="z500, msl, geopotential_500, ...; all by default.")
    ] = None,
    region: Annotated[str, typer.Option(help="Region, or `all`.")] = "global",
    lead: Annotated[str | None, typer.Option(help="Lead times in hours, as in 24,72.")] = None,
    last: Annotated[
        str,
        typer.Option(
            help="Initial times of the last 30d or 48h up to the newest scored, or `all`."
        ),
    ] = "30d",
    truth: Annotated[str | None, typer.Option(help="What was verified against.")] = None,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show scores of the forecasts that have been verified, averaged over their cycles."""
    from rich.console import Console

    from mosaic_core.cli.scores import energy_table, score_table
    from mosaic_core.pipeline.scoreboard import scored_lines, truth_of
    from mosaic_core.verification.rows import ENERGY, parse_variable

    chosen = parse_variable(variable) if variable else None
    hours = _hours(lead)
    site = open_profile(profile, overrides)
    model = site.config.name
    against = truth_of(site.catalog, model, truth, site.source.name)
    period = _period(site.catalog, model, against, last)
    lines = scored_lines(
        site.catalog, model, against, period,
        variable=chosen, region=None if region == "all" else region,
    )  # fmt: skip
    lines = [line for line in lines if hours is None or line.line.lead_hours in hours]
    if not lines:
        raise ConfigurationError(
            f"no scores of {variable or 'any variable'} in {region}"
            + (f" at {lead} h" if lead else ""),
            "what has been verified",
            "`mosaic scores --region all` shows what there is",
        )
    if as_json:
        document = {
            "model": model,
            "truth": against,
            "since": str(period.since) if period.since else None,
            "until": str(period.until) if period.until else None,
            "scores": [line.as_dict() for line in lines],
        }
        typer.echo(json.dumps(document))
        return
    console = Console()
    count = max(line.cycles for line in lines)
    console.print(
        f"{model} against {against}: {count} cycles, "
        f"{period.since or 'the first'} to {period.until}"
    )
    fields = [line for line in lines if line.line.variable != ENERGY]
    if fields:
        console.print(score_table(fields, region=region == "all"))
    energies = energy_table([line for line in lines if line.line.variable == ENERGY])
    if energies is not None:
        console.print(energies)


def quiet(done: int, total: int) -> None:
    """No progress is shown."""


def progress_bar(stack: ExitStack, name: str = "verify") -> Callable[[int, int], None]:
    """A bar that shows how many lead times are verified."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:10}"), BarColumn(30), MofNCompleteColumn())
    bar = stack.enter_context(
        Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
    )
    tasks: list[Any] = []

    def show(done: int, total: int) -> None:
        if not total:
            return
        if not tasks:
            tasks.append(bar.add_task(name, total=total, note="lead times"))
        bar.update(tasks[0], completed=done)

    return show


def _hours(text: str | None) -> set[int] | None:
    if text is None:
        return None
    try:
        return {int(part) for part in text.split(",")}
    except ValueError as error:
        raise ConfigurationError(f"--lead {text!r}", "hours, as in 24,72,120") from error


def _period(catalog: Catalog, model: str, truth: str, last: str) -> Period:
    """Initial times up to the newest that has scores: a simulation's lie in no present."""
    from datetime import timedelta

    from mosaic_core.cycle import Cycle
    from mosaic_core.pipeline.scoreboard import Period

    newest = max(cycle for cycle, _ in catalog.scored(model, truth))
    if last == "all":
        return Period(None, newest)
    match = re.fullmatch(r"(\d{1,5})([dh])", last)
    if match is None:
        raise ConfigurationError(f"--last {last!r}", "days or hours, as in 30d or 48h, or `all`")
    hours = int(match[1]) * (24 if match[2] == "d" else 1)
    return Period(Cycle.latest_before(newest.init_time - timedelta(hours=hours)), newest)
