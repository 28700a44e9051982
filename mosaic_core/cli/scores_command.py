"""`mosaic scores`."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName
from mosaic_core.cli.run import open_profile
from mosaic_core.errors import ConfigurationError

if TYPE_CHECKING:
    from mosaic_core.catalog.catalog import Catalog
    from mosaic_core.pipeline.accumulated import Period
    from mosaic_core.pipeline.site import Site


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
    about = {"model": model, "truth": against, **_said(period)}
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


def _said(period: Period) -> dict[str, str | None]:
    ends = {"since": period.since, "until": period.until}
    return {name: str(cycle) if cycle else None for name, cycle in ends.items()}


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
