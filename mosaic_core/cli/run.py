"""`mosaic run` and `mosaic ingest`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName

if TYPE_CHECKING:
    from mosaic_core.cycle import Cycle
    from mosaic_core.pipeline.run import CycleReport, Reporter
    from mosaic_core.pipeline.site import Site

CycleArgument = Annotated[
    str | None,
    typer.Argument(
        help="Initial time, such as 2026-11-20T00Z; the newest there can be by default."
    ),
]


def add_to(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(ingest)


def run(
    cycle: CycleArgument = None,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole cycle: analysis, ensemble, products, publication."""
    site = open_profile(profile, overrides)
    report = run_shown(site, cycle_of(site, cycle), quiet=as_json)
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        show_report(report)


def ingest(
    cycle: CycleArgument = None,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Fetch, check and store the analyses of a cycle; run nothing."""
    from mosaic_core.pipeline import describing, stages

    site = open_profile(profile, overrides)
    state = stages.ingest(site, cycle_of(site, cycle))
    if as_json:
        document = {
            "cycle": state.cycle.id,
            "digest": state.digest,
            "degraded": list(state.degraded),
            "valid_times": [t.isoformat() for t in state.valid_times],
            "checks": list(state.provenance.get("checks", [])),
        }
        typer.echo(json.dumps(document))
        return
    for entry in describing.inputs_of(site, state):
        passed = sum(status == "passed" for status in entry.checks.values())
        typer.echo(f"{entry.valid_time:%Y-%m-%dT%HZ}  {passed} checks passed  {entry.url}")
    for reason in state.degraded:
        typer.echo(f"degraded: {reason}")


def open_profile(profile: str, overrides: list[str] | None) -> Site:
    """The site of a profile and the settings given on the command line."""
    from mosaic_core.pipeline.site import open_site
    from mosaic_core.profile import Profile

    return open_site(Profile.load(profile, overrides or ()))


def cycle_of(site: Site, text: str | None) -> Cycle:
    """The cycle asked for, else that of the profile, else the newest there can be."""
    from datetime import UTC, datetime, timedelta

    from mosaic_core.cycle import Cycle

    text = text or site.profile.cycle
    if text is not None:
        return Cycle.parse(text)
    delay = timedelta(hours=site.profile.available_after_hours)
    return Cycle.latest_before(datetime.now(UTC) - delay)


def run_shown(site: Site, cycle: Cycle, quiet: bool = False) -> CycleReport:
    """Run a cycle, its stages and the rollout shown as bars."""
    from mosaic_core.pipeline.run import run_cycle

    with ExitStack() as stack:
        return run_cycle(site, cycle, None if quiet else _reporter(stack, site))


def _reporter(stack: ExitStack, site: Site) -> Reporter:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from mosaic_core.pipeline.run import Reporter

    bar = stack.enter_context(
        Progress(
            TextColumn("{task.description:10}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
    )
    tasks: dict[str, Any] = {}

    def stage(name: str, text: str) -> None:
        for task in tasks.values():
            bar.update(task, total=1 if bar.tasks[task].total is None else bar.tasks[task].total)
            bar.update(task, completed=bar.tasks[task].total or 1)
        total = site.profile.members * site.profile.steps if name == "forecast" else None
        tasks[name] = bar.add_task(name, total=total, note=text)

    def progress(state: Any) -> None:
        note = f"{state.rate:.1f} member-steps/s, ends {state.end:%H:%M:%S} UTC"
        bar.update(tasks["forecast"], completed=state.done, note=note)

    def finish() -> None:
        for task in tasks.values():
            bar.update(task, total=bar.tasks[task].total or 1)
            bar.update(task, completed=bar.tasks[task].total)

    stack.callback(finish)
    return Reporter(stage, progress)


def show_report(report: CycleReport) -> None:
    """A table of what was published."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    manifest = report.manifest
    for flag in manifest.quality.flags:
        console.print(f"[bold yellow]{flag}[/]")
    table = Table("product", "files", "objects", "MB", "covers", title=None)
    for product in dict.fromkeys(asset.product for asset in manifest.assets):
        assets = [a for a in manifest.assets if a.product == product]
        hours = sorted({h for a in assets for h in a.lead_hours})
        table.add_row(
            product, str(len(assets)), str(sum(a.objects for a in assets)),
            f"{sum(a.bytes for a in assets) / 1e6:.1f}",
            f"{hours[0]}..{hours[-1]} h" if hours else "",
        )  # fmt: skip
    for missing in manifest.missing:
        table.add_row(missing.product, "[red]missing[/]", "", "", missing.reason)
    console.print(table)
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.timings.items())
    verb = "published" if report.outcome == "published" else "was published before, unchanged"
    console.print(f"{manifest.variant} {manifest.cycle} r{manifest.revision} {verb} ({times})")
    console.print(report.url, soft_wrap=True)
    for problem in report.undelivered:
        console.print(f"[yellow]a notice was not delivered: {problem}[/]")
