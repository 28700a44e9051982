"""`mosaic demo`: forecasts of a simulated atmosphere, published, then verified against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_core.cli.options import Overrides, ProfileName
from mosaic_core.errors import ConfigurationError

if TYPE_CHECKING:
    from mosaic_core.cycle import Cycle
    from mosaic_core.pipeline.run import CycleReport
    from mosaic_core.pipeline.site import Site
    from mosaic_core.pipeline.verification import VerificationReport

NOT_GOOD = 10
_SHOWN = (
    ("geopotential", 500),
    ("temperature", 850),
    ("u_component_of_wind", 850),
    ("mean_sea_level_pressure", 0),
)
_EVERY_HOURS = 24


def add_to(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    cycles: Annotated[int, typer.Option(help="How many forecasts.", min=1)] = 4,
    spacing: Annotated[
        int, typer.Option(help="Hours between their initial times, a multiple of 6.", min=6)
    ] = 126,
    first: Annotated[
        str | None, typer.Option(help="First initial time; the profile's by default.")
    ] = None,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
) -> None:
    """Forecast a simulated atmosphere several times, publish, and verify against what it did.

    Offline, with a folder as store, SQLite and the CPU. What is done already is not done again.
    """
    from contextlib import ExitStack

    from rich.console import Console

    from mosaic_core.cli.run import cycle_of, open_profile, run_shown
    from mosaic_core.cli.verify import progress_bar
    from mosaic_core.pipeline.truth import SimulatedTruth
    from mosaic_core.pipeline.verification import verify

    if spacing % 6:
        raise ConfigurationError(f"--spacing {spacing}", "a multiple of 6: cycles are 6-hourly")
    site, console = open_profile(profile, overrides), Console(highlight=False)
    truth = SimulatedTruth(site)
    start = cycle_of(site, first)
    starts = [start.shift(spacing * i) for i in range(cycles)]
    hours = site.profile.steps * site.config.step_hours
    console.print(
        f"[bold]{cycles} forecasts of a simulated atmosphere[/]: {site.profile.members} members, "
        f"{hours} h each; then their verification.\n"
    )
    reports = []
    for i, cycle in enumerate(starts):
        console.print(f"[bold]{i + 1} of {cycles}[/]  forecast from {cycle}")
        reports.append(run_shown(site, cycle))
        _line(console, reports[-1])
    last = reports[-1]
    console.print("\n[bold]Verification[/]  against what the simulated atmosphere did")
    leads = range(_EVERY_HOURS, hours + 1, _EVERY_HOURS)
    until = starts[-1].shift(-(-hours // 6) * 6).init_time
    with ExitStack() as stack:
        done = verify(site, truth, until, None, progress_bar(stack), starts, leads or [hours])
    if not done.verified:
        console.print("  verified before, unchanged")
    _show_scores(console, site, truth.name, starts, last)
    pictures = _pictures(site, done, starts, last)
    _teach(console, last, pictures)
    for due, reason in done.failed:
        console.print(f"[red]not verified: {due}: {reason}[/]", soft_wrap=True)
    if done.failed:
        raise typer.Exit(NOT_GOOD)


def _line(console: Any, report: CycleReport) -> None:
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.timings.items())
    verb = "published" if report.outcome == "published" else "published before, unchanged"
    missing = "".join(f"; [red]without {m.product}: {m.reason}[/]" for m in report.manifest.missing)
    console.print(f"        {verb} ({times}){missing}")


def _show_scores(
    console: Any, site: Site, truth: str, starts: list[Cycle], last: CycleReport
) -> None:
    from mosaic_core.cli.scores import energy_table, score_table
    from mosaic_core.pipeline.accumulated import Period
    from mosaic_core.pipeline.scoreboard import scored_lines
    from mosaic_core.verification.rows import ENERGY

    period = Period(starts[0], starts[-1])
    lines = scored_lines(site.catalog, site.config.name, truth, period, region="global")
    shown = [line for line in lines if (line.line.variable, line.line.level) in _SHOWN]
    shown.sort(key=lambda s: (_SHOWN.index((s.line.variable, s.line.level)), s.line.lead_hours))
    if shown:
        console.print(score_table(shown, every=False))
    energies = energy_table([line for line in lines if line.line.variable == ENERGY])
    if energies is not None:
        console.print(energies)
    if not site.model.version.trained:
        console.print(
            "[bold yellow]These weights are untrained[/]: the numbers show that the machinery "
            "runs, and no skill.",
            soft_wrap=True,
        )
        return
    words = (
        "RMSE is that of the ensemble mean; below 1 it beats the reference. Spread/skill is 1 "
        "where the ensemble knows its own error. Members keep the energy of the small scales (1 is "
        "right); their mean must lose it."
    )
    console.print(words, soft_wrap=True)
    if last.manifest.quality.flags:
        console.print(f"[bold yellow]{'; '.join(last.manifest.quality.flags)}[/]")


def _pictures(
    site: Site, done: VerificationReport, starts: list[Cycle], last: CycleReport
) -> list[str]:
    """URLs of the scorecard and the spectra, drawn again when there is something new."""
    from mosaic_core.pipeline.accumulated import Period
    from mosaic_core.pipeline.scoreboard import SCORECARD, SPECTRA, write_pictures
    from mosaic_core.verification import arrays

    folder = arrays.folder(site.config.name, done.truth)
    keys = [f"{folder}/{name}" for name in (SCORECARD, SPECTRA)]
    there = [key for key in keys if site.store.exists(key)]
    if not done.verified and there:
        return [site.store.url(key) for key in there]
    flags = last.manifest.quality.flags
    made = write_pictures(site, done.truth, Period(starts[0], starts[-1]), flags)
    return list(made.values())


def _teach(console: Any, report: CycleReport, pictures: list[str]) -> None:
    import os
    import sys

    assets = [a.key for a in report.manifest.assets if a.key.endswith(".png")]
    stamps = [key for key in assets if "stamps" in key]
    maps = [key for key in assets if key not in stamps]
    program = os.path.relpath(sys.argv[0]) if os.path.isfile(sys.argv[0]) else "mosaic"
    lines = [
        "",
        "[bold]Look at it[/]",
        *(f"  {url}" for url in pictures),
        *(f"  {report.url}/{key}" for key in (*maps[:2], *stamps[:1])),
        *([f"  {report.url}/maps   {len(assets)} pictures of this forecast"] if assets else []),
        f"  xarray.open_zarr('{report.url}/ensemble.zarr')",
        f"  {program} scores               every score that was recorded",
        f"  {program} products verify      every byte against the manifest",
        f"  {program} status               what ran, when, for how long",
        f"  {program} doctor               what this machine can do",
        "",
        f"[bold]On real analyses[/]: `{program} run -p production`; see docs/running.md.",
    ]
    console.print("\n".join(lines), soft_wrap=True)
