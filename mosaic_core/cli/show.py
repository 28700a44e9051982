"""`mosaic config show`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName

config_app = typer.Typer(help="Settings.", no_args_is_help=True)


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
