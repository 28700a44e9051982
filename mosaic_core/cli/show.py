"""`mosaic status` and `mosaic config show`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName

config_app = typer.Typer(help="Settings.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.command()(status)


def status(
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    last: Annotated[int, typer.Option(help="How many runs to show.")] = 10,
    max_age: Annotated[
        float | None,
        typer.Option(help="Hours since the newest published initial time; beyond them exit 10."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the last runs, their stages and ages."""
    from mosaic_core.catalog.catalog import Catalog
    from mosaic_core.profile import Profile

    settings = Profile.load(profile, overrides or ())
    with Catalog(settings.catalog) as catalog:
        runs = catalog.runs(limit=last)
        newest = catalog.latest_published()
        claims = catalog.claims()
    age = None
    if newest is not None:
        age = (datetime.now(UTC) - newest.cycle.init_time).total_seconds() / 3600
    stale = max_age is not None and (age is None or age > max_age)
    if as_json:
        document = {
            "runs": [_run(row) for row in runs],
            "running": [f"{c.variant} {c.cycle} by {c.owner}" for c in claims],
            "newest_published": newest.cycle.id if newest else None,
            "age_hours": age,
            "stale": stale,
        }
        typer.echo(json.dumps(document))
    else:
        _table(runs, claims, newest, age)
    if stale:
        typer.echo(f"the newest forecast is older than {max_age:g} h", err=True)
        raise typer.Exit(10)


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


def _table(runs: Any, claims: Any, newest: Any, age: float | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not runs:
        console.print("nothing has run yet: `mosaic demo` or `mosaic run`")
        return
    table = Table("run", "state", "tries", "stages (s)", "updated (UTC)")
    table.columns[0].no_wrap = True
    colours = {"published": "green", "unchanged": "green", "failed": "red"}
    for row in runs:
        stages = " ".join(f"{k} {v:.0f}" for k, v in row.timings.items())
        colour = colours.get(row.state, "yellow")
        table.add_row(
            f"{row.variant} {row.cycle} r{row.revision}", f"[{colour}]{row.state}[/]",
            str(row.attempts), stages, f"{row.updated:%m-%d %H:%M:%S}",
        )  # fmt: skip
    console.print(table)
    for row in runs:
        if row.error:
            console.print(f"[red]{row.variant} {row.cycle} r{row.revision}[/]: {escape(row.error)}")
    for claim in claims:
        console.print(f"running: {claim.variant} {claim.cycle} by {claim.owner}")
    if newest is not None:
        console.print(f"newest published: {newest.variant} {newest.cycle}, {age:.1f} h old")


@config_app.command("show")
def config_show(
    profile: ProfileName = "demo", overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Show a profile with everything filled in, and the model it names."""
    from dataclasses import asdict

    import yaml

    from mosaic_core.model.config import ModelConfig
    from mosaic_core.profile import Profile
    from mosaic_core.settings import config_folder

    settings = Profile.load(profile, overrides or ())
    shown = _without_passwords(asdict(settings))
    if settings.events.secret:
        shown["events"]["secret"] = "***"
    document = json.loads(
        json.dumps(
            {
                "folder": str(config_folder()),
                "profile": shown,
                "model": asdict(ModelConfig.load(settings.model)),
            }
        )
    )
    if as_json:
        typer.echo(json.dumps(document))
    else:
        typer.echo(yaml.safe_dump(document, sort_keys=False, width=100), nl=False)


def _without_passwords(value: Any) -> Any:
    """The same settings with `***` for the password of every URL in them."""
    if isinstance(value, Mapping):
        return {key: _without_passwords(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_passwords(item) for item in value]
    # The last @ before the path ends the password, which may hold others.
    return re.sub(r"(://[^/:]*):[^/]*@", r"\1:***@", value) if isinstance(value, str) else value
