"""`mosaic up` and `mosaic deploy`: programs of `flows`, which knows Prefect."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from mosaic_core.cli.options import Overrides, ProfileName


def add_to(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(deploy)


def up(
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    port: Annotated[int, typer.Option(help="Port of the server and its UI.")] = 4200,
    home: Annotated[
        Path, typer.Option(envvar="MOSAIC_HOME", help="Folder of the server's database and logs.")
    ] = Path("mosaic-data"),
    schedules: Annotated[
        bool, typer.Option("--schedules", help="Let the schedules run; they sleep otherwise.")
    ] = False,
    run: Annotated[bool, typer.Option("--run", help="Run one cycle at once.")] = False,
) -> None:
    """Start a local Prefect server, workers and the deployments; Ctrl-C stops everything."""
    words = ["--port", str(port), "--home", str(home)]
    words += ["--schedules"] * schedules + ["--run"] * run
    _become("up", profile, overrides, words)


def deploy(
    profile: ProfileName = "production",
    overrides: Overrides = None,
    file: Annotated[
        Path | None, typer.Option(help="Deployments; infra/prefect.yaml by default.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="Ensembles that may run at once.")] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Let the schedules sleep.")] = False,
) -> None:
    """Register the deployments on the server that PREFECT_API_URL names; remove what is gone."""
    words = ["--file", str(file)] if file else []
    words += ["--gpus", str(gpus)] if gpus is not None else []
    _become("deploy", profile, overrides, words + ["--paused"] * paused)


def _become(program: str, profile: str, overrides: list[str] | None, words: list[str]) -> NoReturn:
    """Replace this process, so that signals and the exit code are the program's own."""
    import os

    for override in overrides or ():
        words = ["--set", override, *words]
    sys.stdout.flush()
    command = [sys.executable, "-m", f"flows.{program}", "--profile", profile, *words]
    os.execv(sys.executable, command)
