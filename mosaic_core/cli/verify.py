"""`mosaic verify` and `mosaic scorecard`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName
from mosaic_core.cli.run import CycleArgument, cycle_of, open_profile
from mosaic_core.cli.scores_command import scores
from mosaic_core.cli.track_errors import track_errors
from mosaic_core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack

    from mosaic_core.cycle import Cycle
    from mosaic_core.pipeline.computing import Computing
    from mosaic_core.pipeline.site import Site
    from mosaic_core.pipeline.truth import Truth
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
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Verify against these instead: analyses in a Zarr store in WeatherBench layout.",
        ),
    ] = None,
    truth_name: Annotated[
        str | None, typer.Option(help="What the analyses of --truth are called, as in era5.")
    ] = None,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Verify every published forecast that has come true by CYCLE and has no scores yet.

    With --forecasts those of another model, whose scores `mosaic scorecard --reference NAME`
    compares with. With --truth against other analyses, whose scores stand beside the others:
    `mosaic scores --truth NAME`.
    """
    from contextlib import ExitStack

    from mosaic_core.cycle import Cycle
    from mosaic_core.pipeline.computing import on_dask, one_ahead

    if (forecasts is None) != (name is None) or (forecasts and dask):
        raise ConfigurationError(
            "--forecasts without --name, the reverse, or with --dask", "--forecasts URL --name NAME"
        )
    if (truth is None) != (truth_name is None):
        raise ConfigurationError(
            "--truth without --truth-name, or the reverse", "--truth URL --truth-name NAME"
        )
    site = open_profile(profile, overrides)
    when = cycle_of(site, cycle)
    first = None if since is None else Cycle.parse(since)
    computing = one_ahead if dask is None else on_dask(dask)
    with ExitStack() as stack:
        progress = quiet if as_json else progress_bar(stack)
        against = _against(site, truth, truth_name)
        if forecasts and name:
            report = _verify_archive(site, against, when, forecasts, name, progress, first)
        else:
            report = _verify_published(site, against, when, progress, first, computing)
    pictures = {} if forecasts else _draw(site, when, report)
    if as_json:
        typer.echo(json.dumps({**report.as_dict(), "pictures": pictures}))
    else:
        _tell(report, when, pictures)
    if report.failed:
        raise typer.Exit(NOT_GOOD)


def _against(site: Site, url: str | None, name: str | None) -> Truth | None:
    """Analyses of an archive; None are those that the site has ingested."""
    from mosaic_core.pipeline.truth import ArchivedAnalyses
    from mosaic_core.verification.settings import VerificationSettings

    if url is None or name is None:
        return None
    return ArchivedAnalyses(site, url, name, VerificationSettings.load())


def _verify_published(
    site: Site,
    truth: Truth | None,
    cycle: Cycle,
    progress: Callable[[int, int], None],
    since: Cycle | None,
    computing: Computing,
) -> VerificationReport:
    from mosaic_core.pipeline import verification

    if truth is None:
        return verification.verify_due(
            site, cycle, None, progress, since=since, computing=computing
        )
    until = cycle.init_time
    return verification.verify(site, truth, until, None, progress, since=since, computing=computing)


def _verify_archive(
    site: Site,
    truth: Truth | None,
    cycle: Cycle,
    url: str,
    name: str,
    progress: Callable[[int, int], None],
    since: Cycle | None,
) -> VerificationReport:
    from mosaic_core.pipeline.forecasts import Archive
    from mosaic_core.pipeline.truth import StoredAnalyses
    from mosaic_core.pipeline.verification import verify_archive

    against, archive = truth or StoredAnalyses(site), Archive(site, url, name)
    return verify_archive(site, against, archive, cycle.init_time, None, progress, since=since)


def _draw(site: Site, cycle: Cycle, report: VerificationReport) -> dict[str, str]:
    """Pictures of the last 30 days and pages of the newest day and of the months concerned."""
    from mosaic_core.pipeline.accumulated import Period
    from mosaic_core.pipeline.scoreboard import write_pictures
    from mosaic_core.pipeline.scorecard import Valid, write_page

    if not report.verified:
        return {}
    pictures = write_pictures(site, report.truth, Period(cycle.shift(-24 * 30), cycle))
    day = f"{max(due.valid_time for due in report.verified):%Y-%m-%d}"
    months = {f"{due.valid_time:%Y-%m}" for due in report.verified}
    for period in (day, *sorted(months, reverse=True)):
        pages = write_page(site, report.truth, Valid.parse(period))
        pictures |= {f"{period}.{kind}": url for kind, url in pages.items()}
    return pictures


def _tell(report: VerificationReport, cycle: Cycle, pictures: Mapping[str, str]) -> None:
    if report.waiting:
        typer.echo(f"the analysis of {cycle} has not been ingested yet")
    cycles = len({due.cycle for due in report.verified})
    typer.echo(
        f"verified {len(report.verified)} lead times of {cycles} forecasts "
        f"against {report.truth}" + (f"; {report.left} are left" if report.left else "")
    )
    for url in pictures.values():
        typer.echo(f"  {url}")
    for due, reason in report.failed:
        typer.echo(f"not verified: {due}: {reason}", err=True)


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
