"""`mosaic verify`, `mosaic scores`, `mosaic scorecard` and `mosaic track-errors`."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName
from mosaic_core.cli.run import CycleArgument, cycle_of, open_profile
from mosaic_core.cli.track_errors import track_errors
from mosaic_core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from mosaic_core.catalog.catalog import Catalog
    from mosaic_core.cycle import Cycle
    from mosaic_core.pipeline.accumulated import Period
    from mosaic_core.pipeline.site import Site
    from mosaic_core.pipeline.verification import VerificationReport

NOT_GOOD = 10


def add_to(app: typer.Typer) -> None:
    app.command()(verify)
    app.command()(scores)
    app.command()(scorecard)
    app.command()(track_errors)


def verify(
    cycle: CycleArgument = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="CYCLE",
            help="Take every forecast from this initial time on, however old and many they are.",
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="local|ADDRESS",
            help="Compute on Dask: threads of this process, or a cluster by its address.",
        ),
    ] = None,
    forecasts: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Verify these instead: another model's, a Zarr store in WeatherBench layout.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the model of --forecasts is called, as in ifs-hres.")
    ] = None,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Verify every published forecast that has come true by CYCLE and has no scores yet.

    With --forecasts those of another model, whose scores `mosaic scorecard --reference NAME`
    compares with.
    """
    from contextlib import ExitStack

    from mosaic_core.cycle import Cycle
    from mosaic_core.pipeline.accumulated import Period
    from mosaic_core.pipeline.computing import on_dask, one_ahead
    from mosaic_core.pipeline.scoreboard import write_pictures
    from mosaic_core.pipeline.scorecard import Valid, write_page
    from mosaic_core.pipeline.verification import verify_due

    if (forecasts is None) != (name is None) or (forecasts and dask):
        raise ConfigurationError(
            "--forecasts without --name, the reverse, or with --dask", "--forecasts URL --name NAME"
        )
    site = open_profile(profile, overrides)
    when = cycle_of(site, cycle)
    first = None if since is None else Cycle.parse(since)
    with ExitStack() as stack:
        progress = quiet if as_json else progress_bar(stack)
        if forecasts and name:
            report = _verify_archive(site, when, forecasts, name, progress, first)
        else:
            report = verify_due(
                site, when, None, progress, since=first,
                computing=one_ahead if dask is None else on_dask(dask),
            )  # fmt: skip
    pictures = {}
    if report.verified and not forecasts:
        pictures = write_pictures(site, report.truth, Period(when.shift(-24 * 30), when))
        day = f"{max(due.valid_time for due in report.verified):%Y-%m-%d}"
        months = {f"{due.valid_time:%Y-%m}" for due in report.verified}
        for name in (day, *sorted(months, reverse=True)):
            pages = write_page(site, report.truth, Valid.parse(name))
            pictures |= {f"{name}.{kind}": url for kind, url in pages.items()}
    if as_json:
        typer.echo(json.dumps({**report.as_dict(), "pictures": pictures}))
    else:
        if report.waiting:
            typer.echo(f"the analysis of {when} has not been ingested yet")
        cycles = len({due.cycle for due in report.verified})
        typer.echo(
            f"verified {len(report.verified)} lead times of {cycles} forecasts "
            f"against {report.truth}" + (f"; {report.left} are left" if report.left else "")
        )
        for url in pictures.values():
            typer.echo(f"  {url}")
        for due, reason in report.failed:
            typer.echo(f"not verified: {due}: {reason}", err=True)
    if report.failed:
        raise typer.Exit(NOT_GOOD)


def _verify_archive(
    site: Site,
    cycle: Cycle,
    url: str,
    name: str,
    progress: Callable[[int, int], None],
    since: Cycle | None,
) -> VerificationReport:
    from mosaic_core.pipeline.forecasts import Archive
    from mosaic_core.pipeline.truth import StoredAnalyses
    from mosaic_core.pipeline.verification import verify_archive

    analyses, archive = StoredAnalyses(site), Archive(site, url, name)
    return verify_archive(site, analyses, archive, cycle.init_time, None, progress, since=since)


def scorecard(
    period: Annotated[
        str, typer.Argument(help="A day or a month of valid times: 2026-03-28, 2026-03.")
    ],
    reference: Annotated[
        str | None, typer.Option(help="Another model that has scores; climatology by default.")
    ] = None,
    truth: Annotated[str | None, typer.Option(help="What was verified against.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the HTML here instead of into the store.")
    ] = None,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
) -> None:
    """Make the page of scores of the forecasts that came true in PERIOD, as HTML and Markdown."""
    from mosaic_core.pipeline.scoreboard import truth_of
    from mosaic_core.pipeline.scorecard import Valid, make_page, write_page

    valid = Valid.parse(period)
    site = open_profile(profile, overrides)
    against = truth_of(site.catalog, site.config.name, truth, site.source.name)
    if output is None:
        for url in write_page(site, against, valid, reference).values():
            typer.echo(url)
        return
    text = make_page(site, against, valid, reference).html()
    try:
        output.write_text(text)
    except OSError as error:
        raise ConfigurationError(
            f"--output {output}: {error}", "a file that can be written"
        ) from error
    typer.echo(output)


class Show(StrEnum):
    """What `mosaic scores` shows."""

    scores = "scores"
    events = "events"
    ranks = "ranks"


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
    show: Annotated[
        Show,
        typer.Option(help="Scores, Brier scores and ROC of events, or rank histograms in numbers."),
    ] = Show.scores,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, a line a score.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw RMSE, spread and references by lead time as a PNG.")
    ] = None,
) -> None:
    """Show scores of the forecasts that have been verified, averaged over their cycles."""
    from mosaic_core.cli import scores as output
    from mosaic_core.pipeline.scoreboard import truth_of
    from mosaic_core.verification.rows import parse_variable

    if as_json and as_csv:
        raise ConfigurationError("--json and --csv", "one of them")
    if plot and show is not Show.scores:
        raise ConfigurationError(f"--plot of {show.value}", "--show scores")
    chosen = parse_variable(variable) if variable else None
    hours = _hours(lead)
    site = open_profile(profile, overrides)
    model = site.config.name
    against = truth_of(site.catalog, model, truth, site.source.name)
    period = _period(site.catalog, model, against, last)
    where = None if region == "all" else region
    found = _found(site, against, period, show, chosen, where)
    found = [record for record in found if hours is None or record["lead_hours"] in hours]
    if not found:
        raise ConfigurationError(
            f"no scores of {variable or 'any variable'} in {region}"
            + (f" at {lead} h" if lead else ""),
            "what has been verified",
            "`mosaic scores --region all` shows what there is",
        )
    about = {
        "model": model,
        "truth": against,
        "since": str(period.since) if period.since else None,
        "until": str(period.until) if period.until else None,
    }
    if plot:
        output.draw(found, about, plot)
    if as_json:
        typer.echo(json.dumps({**about, show.value: output.plain(found)}))
    elif as_csv:
        typer.echo(output.csv_text(found), nl=False)
    elif show is Show.scores:
        output.print_scores(found, about, region=where is None)
    else:
        output.print_records(found, about)


def _found(
    site: Site,
    truth: str,
    period: Period,
    show: Show,
    variable: tuple[str, int] | None,
    region: str | None,
) -> list[dict[str, Any]]:
    from mosaic_core.pipeline import queries
    from mosaic_core.pipeline.accumulated import accumulate
    from mosaic_core.pipeline.scoreboard import scored_lines
    from mosaic_core.verification.events import split_field
    from mosaic_core.verification.regions import Weights
    from mosaic_core.verification.settings import VerificationSettings

    model = site.config.name
    if show is Show.scores:
        lines = scored_lines(site.catalog, model, truth, period, variable=variable, region=region)
        return [line.as_record() for line in lines]
    kept = accumulate(site.store, site.catalog, model, truth, period)
    if show is Show.events:
        records = queries.event_records(kept, region)
        field = "field"
    else:
        weights = Weights.of(site.config.lat_lon, VerificationSettings.load().regions)
        records = queries.rank_records(kept, weights, region)
        field = "variable"
    return [r for r in records if variable in (None, split_field(r[field]))]


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
    from mosaic_core.pipeline.accumulated import Period

    newest = max(cycle for cycle, _ in catalog.scored(model, truth))
    if last == "all":
        return Period(None, newest)
    match = re.fullmatch(r"(\d{1,5})([dh])", last)
    if match is None:
        raise ConfigurationError(f"--last {last!r}", "days or hours, as in 30d or 48h, or `all`")
    hours = int(match[1]) * (24 if match[2] == "d" else 1)
    return Period(Cycle.latest_before(newest.init_time - timedelta(hours=hours)), newest)
