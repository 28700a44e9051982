"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ProfileName = Annotated[
    str,
    typer.Option(
        "--profile", "-p", envvar="MOSAIC_PROFILE", help="Name in config/profiles, or a YAML file."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a setting of the profile."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StoreUrl = Annotated[
    str | None, typer.Option("--store", help="Folder or URL; that of the profile by default.")
]
Variant = Annotated[
    str | None, typer.Option("--variant", help="Model variant, where the store holds several.")
]


class Told(SystemExit):
    """An exit whose reason, and how to go on, has been told."""
