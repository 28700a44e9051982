"""`mosaic track-errors`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName
from mosaic_core.cli.run import open_profile
from mosaic_core.errors import ConfigurationError


def track_errors(
    best: Annotated[Path, typer.Argument(help="Best tracks: a CSV of IBTrACS.")],
    since: Annotated[
        str | None, typer.Option(metavar="CYCLE", help="No initial time before counts.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="CYCLE", help="No initial time after counts.")
    ] = None,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show position errors of the published cyclone tracks by lead time."""
    from mosaic_core.cycle import Cycle
    from mosaic_core.pipeline import track_errors as errors
    from mosaic_core.pipeline.accumulated import Period

    first, last = (None if text is None else Cycle.parse(text) for text in (since, until))
    truth = errors.read_best_tracks(best)
    site = open_profile(profile, overrides)
    cases = list(errors.cases_in_store(site, truth, Period(first, last)))
    if not cases:
        raise ConfigurationError(
            f"no track of {site.config.name} belongs to a storm of {best}",
            "published forecasts with the product `tracks` at the times of the file",
        )
    records = errors.by_lead_time(cases)
    if as_json:
        about = {"model": site.config.name, "best_tracks": str(best)}
        typer.echo(json.dumps({**about, "lead_times": records}))
    else:
        _print(records)


def _print(records: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("lead", "cases", "storms", "mean position (km)", "members (km)", "spread (km)")
    for column in table.columns[1:]:
        column.justify = "right"
    for each in records:
        distances = (each[name] for name in ("error_km", "member_error_km", "spread_km"))
        table.add_row(
            f"{each['lead_hours']:g} h", str(each["cases"]), str(each["storms"]),
            *(f"{value:.0f}" for value in distances),
        )  # fmt: skip
    Console().print(table)
