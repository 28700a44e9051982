"""`mosaic catalog`: look after the tables."""

from __future__ import annotations

import typer

from mosaic_core.cli.options import Overrides, ProfileName

app = typer.Typer(help="The SQL catalog.", no_args_is_help=True)


@app.command()
def upgrade(profile: ProfileName = "demo", overrides: Overrides = None) -> None:
    """Make the tables, or bring them up to date; nothing is lost."""
    from mosaic_core.catalog.catalog import Catalog
    from mosaic_core.profile import Profile

    with Catalog(Profile.load(profile, overrides or ()).catalog, check=False) as catalog:
        before = catalog.schema_version()
        catalog.upgrade()
        typer.echo(f"schema {before or 'none'} -> {catalog.schema_version()}")


@app.command()
def events(profile: ProfileName = "demo", overrides: Overrides = None, last: int = 30) -> None:
    """Show the newest entries of the audit."""
    from mosaic_core.catalog.catalog import Catalog
    from mosaic_core.profile import Profile

    with Catalog(Profile.load(profile, overrides or ()).catalog) as catalog:
        for event in catalog.events(limit=last):
            change = f"{event.old or '-'} -> {event.new or '-'}"
            typer.echo(
                f"{event.time:%Y-%m-%d %H:%M:%S}Z {event.kind:18} {event.variant or ''} "
                f"{event.cycle or ''} {event.subject} {change} {event.detail or ''}"
            )
