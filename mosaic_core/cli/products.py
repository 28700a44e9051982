"""`mosaic products`: what a consumer does with a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mosaic_core.cli.options import AsJson, Overrides, ProfileName, StoreUrl, Variant

app = typer.Typer(
    help="Published forecasts: list, get, wait, verify, values at a place.", no_args_is_help=True
)
CycleText = Annotated[
    str | None, typer.Argument(help="Such as 2026-11-20T00Z; the newest by default.")
]


def store_url(store: str | None, profile: str, overrides: list[str] | None) -> str:
    """The store that is named, or that of the profile."""
    if store:
        return store
    from mosaic_core.profile import Profile

    return Profile.load(profile, overrides or ()).store


@app.command()
def ls(
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    store: StoreUrl = None,
    variant: Variant = None,
    as_json: AsJson = False,
) -> None:
    """List the published forecasts and their products."""
    from mosaic_core.publication import client

    url = store_url(store, profile, overrides)
    manifests = client.list_forecasts(url, variant)
    if as_json:
        typer.echo(json.dumps([_summary(m) for m in manifests]))
        return
    if not manifests:
        typer.echo(f"nothing is published in {url}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("cycle", "variant", "rev", "members", "to", "products", "MB", "flags")
    for m in manifests:
        table.add_row(
            str(m.cycle), m.variant, str(m.revision), str(m.ensemble.members),
            f"{m.ensemble.steps * m.ensemble.step_hours} h",
            " ".join(sorted({a.product for a in m.assets})),
            f"{sum(a.bytes for a in m.assets) / 1e6:.0f}", "; ".join(m.quality.flags),
        )  # fmt: skip
    Console().print(table)


def _summary(manifest: Any) -> dict[str, Any]:
    return {
        "cycle": manifest.cycle.id,
        "variant": manifest.variant,
        "revision": manifest.revision,
        "prefix": manifest.prefix,
        "members": manifest.ensemble.members,
        "steps": manifest.ensemble.steps,
        "step_hours": manifest.ensemble.step_hours,
        "products": sorted({a.product for a in manifest.assets}),
        "assets": [
            {"key": a.key, "product": a.product, "bytes": a.bytes, "sha256": a.sha256}
            for a in manifest.assets
        ],
        "degraded": manifest.quality.degraded,
        "flags": list(manifest.quality.flags),
    }


@app.command()
def get(
    product: Annotated[
        str, typer.Argument(help="A product such as statistics, or an asset's key.")
    ],
    cycle: CycleText = None,
    into: Annotated[Path, typer.Option(help="Folder to write into.")] = Path(),
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    store: StoreUrl = None,
    variant: Variant = None,
) -> None:
    """Copy a product to a folder; every byte is checked on arrival."""
    from mosaic_core.publication import client

    url = store_url(store, profile, overrides)
    for path in client.get(url, cycle, product, into, variant):
        typer.echo(str(path))


@app.command()
def at(
    latitude: Annotated[float, typer.Argument(help="Degrees north.")],
    longitude: Annotated[float, typer.Argument(help="Degrees east.")],
    channels: Annotated[list[str], typer.Argument(help="Such as 2m_temperature geopotential_500.")],
    cycle: Annotated[str | None, typer.Option(help="Initial time; the newest by default.")] = None,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    store: StoreUrl = None,
    variant: Variant = None,
) -> None:
    """Print every member at the grid point nearest to a place, as CSV.

    South and west are negative: `mosaic products at -- -33.9 -70.7 2m_temperature`.
    """
    from mosaic_core.publication.series import series

    url = store_url(store, profile, overrides)
    found = series(url, latitude, longitude, channels, cycle, variant)
    typer.echo("channel,member,lead_hours,latitude,longitude,value")
    hours = found["lead_time"].values.astype("timedelta64[s]").astype(int) / 3600
    place = f"{float(found['latitude']):g},{float(found['longitude']):g}"
    for name in channels:
        for member, row in zip(found["number"].values, found[name].values, strict=True):
            for lead, value in zip(hours, row, strict=True):
                typer.echo(f"{name},{member},{lead:g},{place},{value:.7g}")


@app.command()
def wait(
    cycle: Annotated[str, typer.Argument(help="Such as 2026-11-20T00Z.")],
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 3600.0,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    store: StoreUrl = None,
    variant: Variant = None,
) -> None:
    """Wait until a cycle is published."""
    from mosaic_core.publication import client

    manifest = client.wait_for(store_url(store, profile, overrides), cycle, timeout, variant)
    typer.echo(manifest.prefix)


@app.command()
def verify(
    cycle: CycleText = None,
    profile: ProfileName = "demo",
    overrides: Overrides = None,
    store: StoreUrl = None,
    variant: Variant = None,
    as_json: AsJson = False,
) -> None:
    """Compare every byte of a forecast with its manifest."""
    from mosaic_core.publication import client

    url = store_url(store, profile, overrides)
    report = client.verify(url, cycle, variant, strict=False)
    if as_json:
        typer.echo(json.dumps({"ok": report.ok, **vars(report)}))
    else:
        for kind in ("missing", "altered", "extra"):
            for key in getattr(report, kind):
                typer.echo(f"{kind}: {key}")
        verdict = "whole" if report.ok else "NOT as published"
        typer.echo(
            f"{report.url}: {report.objects} objects, {report.bytes / 1e6:.1f} MB, {verdict}"
        )
    if not report.ok:
        raise typer.Exit(10)
