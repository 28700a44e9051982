"""What an operator reads on a run's page: plain text and tables made of what the manifest says."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from mosaic_core.catalog.models import Event
from mosaic_core.catalog.scores import AverageScore
from mosaic_core.pipeline.site import Site
from mosaic_core.publication.manifest import Asset, Manifest

PICTURE_WIDTH: Final = 900


SHOWN: Final = (
    "rmse", "bias", "fair_crps", "spread_skill", "acc", "to_persistence", "to_climatology",
)  # fmt: skip
"""Scores of the table; the scorecard has the rest."""


def title(manifest: Manifest) -> str:
    return f"{manifest.cycle} {manifest.variant} r{manifest.revision}"


def verdict(manifest: Manifest) -> str:
    """One line: whether the cycle is good."""
    if manifest.missing:
        return f"**Published, without {', '.join(m.product for m in manifest.missing)}.**"
    if manifest.quality.degraded:
        return "**Published from degraded input.**"
    return "**Good: published whole.**"


def summary(site: Site, manifest: Manifest, timings: Mapping[str, float], outcome: str) -> str:
    """Inputs, checks, ensemble, timings, links and quality of a published cycle, in Markdown."""
    ensemble, model = manifest.ensemble, manifest.model
    hours = ensemble.steps * ensemble.step_hours
    parts = [
        f"# {title(manifest)}",
        verdict(manifest)
        + ("" if outcome == "published" else f" ({outcome}: it was there before)"),
        *(f"- {flag}" for flag in manifest.quality.flags),
        *(f"- {m.product} is missing: {m.reason}" for m in manifest.missing),
        "",
        "## Inputs",
        _rows(("analysis", "source", "checks", "digest"), _inputs(manifest)),
        "## Ensemble",
        f"{ensemble.members} members, {ensemble.steps} steps to {hours} h, seed {ensemble.seed}; "
        f"{model.name}, weights `{model.checkpoint_sha256[:12]}`, code `{model.code_version}`.",
        "",
        "## Times",
        _rows(("when", "UTC", "after the initial time"), _times(manifest)),
        _rows(("stage", "seconds"), [(name, f"{taken:.1f}") for name, taken in timings.items()]),
        "## Where",
        f"- forecast: `{site.store.url(manifest.prefix)}`",
        f"- manifest: `{site.store.url(manifest.prefix + '/manifest.json')}`",
        f"- digest: `{manifest.digest}`",
    ]
    return "\n".join(parts) + "\n"


def _inputs(manifest: Manifest) -> Iterable[tuple[str, ...]]:
    for entry in manifest.inputs:
        verdicts = list(entry.checks.values())
        passed = sum(status == "passed" for status in verdicts)
        others = [f"{name} {status}" for name, status in entry.checks.items() if status != "passed"]
        text = "; ".join([f"{passed} of {len(verdicts)} passed", *others])
        yield f"{entry.valid_time:%Y-%m-%d %HZ}", entry.source, text, f"`{entry.digest[:12]}`"


def _times(manifest: Manifest) -> Iterable[tuple[str, ...]]:
    nominal = manifest.timeliness.nominal
    moments: tuple[tuple[str, datetime | None], ...] = (
        ("analysis available", manifest.timeliness.analysis_available),
        ("started", manifest.timeliness.started),
        ("first lead times readable", manifest.timeliness.first_step),
        ("published", manifest.timeliness.published),
    )
    for name, moment in moments:
        if moment is not None:
            yield name, f"{moment:%Y-%m-%d %H:%M:%S}", _duration(moment - nominal)


def _duration(span: timedelta) -> str:
    minutes = round(span.total_seconds() / 60)
    days, minutes = divmod(minutes, 24 * 60)
    return (f"{days} d " if days else "") + f"{minutes // 60}:{minutes % 60:02d} h"


def _rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def product_table(manifest: Manifest) -> list[dict[str, Any]]:
    """A row a product: files, size, lead times, digest; those that are missing with the reason."""
    table: list[dict[str, Any]] = []
    for product in dict.fromkeys(asset.product for asset in manifest.assets):
        assets = [asset for asset in manifest.assets if asset.product == product]
        hours = sorted({hour for asset in assets for hour in asset.lead_hours})
        table.append(
            {
                "product": product,
                "state": "published",
                "files": len(assets),
                "objects": sum(asset.objects for asset in assets),
                "MB": round(sum(asset.bytes for asset in assets) / 1e6, 2),
                "lead times": f"{hours[0]}..{hours[-1]} h" if hours else "",
                "sha256": assets[0].sha256[:12] if len(assets) == 1 else "",
            }
        )
    return table + [
        {"product": m.product, "state": f"missing: {m.reason}"} for m in manifest.missing
    ]


def quick_looks(site: Site, manifest: Manifest, count: int = 3) -> list[tuple[Asset, str]]:
    """The first pictures of a forecast as small `data:` URLs, which need no access to the store."""
    pictures = [asset for asset in manifest.assets if asset.media_type == "image/png"][:count]
    return [(asset, _small(site.store.get(f"{manifest.prefix}/{asset.key}"))) for asset in pictures]


def _small(png: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        height = max(1, round(picture.height * PICTURE_WIDTH / picture.width))
        smaller = picture.convert("RGB").resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    smaller.save(out, "WEBP", quality=70)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def score_table(scores: Iterable[AverageScore]) -> list[dict[str, Any]]:
    """A row for each variable, level and lead time, a column for each of `SHOWN`."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for score in (score for score in scores if score.metric in SHOWN):
        name = f"{score.variable} {score.level or ''}".strip()
        key = (name, score.lead_hours)
        row = rows.setdefault(key, {"variable": name, "lead": f"{score.lead_hours} h"})
        row[score.metric] = float(f"{score.value:.4g}")
    return [rows[key] for key in sorted(rows)]


def refusal(cycle: str, variant: str, error: BaseException, events: Iterable[Event] = ()) -> str:
    """Why a cycle could not be published, in Markdown."""
    lines = [f"# {cycle} {variant}", "**Not published.**", "", f"`{type(error).__name__}`: {error}"]
    history = [
        (f"{event.time:%H:%M:%S}", event.kind, f"{event.old or ''} -> {event.new or ''}")
        for event in events
    ]
    if history:
        lines += ["", "## What happened (UTC)", _rows(("time", "what", "change"), history)]
    return "\n".join(lines) + "\n"
