"""`mosaic simulate`: years of the simulated atmosphere as a Zarr archive."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from mosaic_core.errors import ConfigurationError


def add_to(app: typer.Typer) -> None:
    app.command()(simulate)


def simulate(
    output: Annotated[
        Path, typer.Option(help="Folder of analyses.zarr and truth.zarr; goes on where it stopped.")
    ],
    days: Annotated[int, typer.Option(min=1, help="Length; four times a day.")],
    start: Annotated[
        str, typer.Option(help="First time (UTC), such as 2026-03-01.")
    ] = "2026-01-01",
    planet: Annotated[str, typer.Option(help="The simulated planet.")] = "terra",
    truncation: Annotated[int, typer.Option(help="Of the model: 31 or 42.")] = 42,
    seed: Annotated[int, typer.Option(help="Of the weather; 0 is the shipped one.")] = 0,
    grid: Annotated[str, typer.Option(help="Longitudes x latitudes, both poles.")] = "240x121",
    analysis_error: Annotated[
        float, typer.Option(help="Of the analyses, as a share of a 24 h change.")
    ] = 0.12,
    channels: Annotated[
        list[str] | None, typer.Option("--channel", help="One channel; all 82 by default.")
    ] = None,
    restart: Annotated[
        Path | None, typer.Option(help="Another restart file than the shipped one.")
    ] = None,
) -> None:
    """Write analyses and truth of the simulated atmosphere, to train and verify on."""
    from mosaic_core.channels import ERA5_82, Channels
    from mosaic_core.simulation.archive import Period, write_archive
    from mosaic_core.simulation.source import SimulatedSource

    settings = {
        "kind": "simulated",
        "planet": planet,
        "truncation": truncation,
        "seed": seed,
        "grid": _grid(grid),
        "analysis_error": analysis_error,
        "restart": None if restart is None else str(restart),
    }
    wanted = Channels.parse(channels) if channels else ERA5_82
    period = Period(_time(start), 4 * days)
    with ExitStack() as stack:
        source = SimulatedSource(settings)
        write_archive(source, output, wanted, period, _progress(stack, period.count))
    typer.echo(f"{output}: {period.count} times of {len(wanted)} channels on {source.grid}")


def _grid(text: str) -> list[int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise ConfigurationError(f"grid {text!r}", "longitudes x latitudes, as in 240x121")
    return [int(part) for part in parts]


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"start {text!r}", "a time in UTC, as in 2026-03-01 or 2026-03-01T06"
        ) from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _progress(stack: ExitStack, count: int) -> Callable[[int], None]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    bar = stack.enter_context(
        Progress(
            TextColumn("simulate  "),
            BarColumn(30),
            MofNCompleteColumn(),
            TextColumn("times,"),
            Remaining(),
            TextColumn("left"),
            console=Console(stderr=True),
        )
    )
    task: Any = bar.add_task("simulate", total=count)
    return lambda done: bar.update(task, completed=done)
