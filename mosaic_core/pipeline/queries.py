"""Scores of events and of ranks over a period, as plain records."""

from __future__ import annotations

from typing import Any

from mosaic_core.pipeline.accumulated import Accumulated
from mosaic_core.verification.events import brier, field_of, roc
from mosaic_core.verification.ranks import delta, outliers, unevenness
from mosaic_core.verification.regions import Weights


def event_records(found: Accumulated, region: str | None = None) -> list[dict[str, Any]]:
    """The Brier score, what it is made of, and the area under the ROC, by event and lead time."""
    records = []
    for (hours, event, where), counts in found.counts.items():
        if region in (None, where):
            made = {name: float(value) for name, value in brier(counts).items()}
            identity: dict[str, Any] = {"field": field_of(event), "event": event, "region": where}
            size = {"lead_hours": hours, "cycles": found.cycles}
            area = {"roc_area": float(roc(counts)[2])}
            records.append(identity | size | {"base_rate": float(counts.base_rate)} | made | area)
    return sorted(records, key=lambda r: (r["event"], r["region"], r["lead_hours"]))


def rank_records(
    found: Accumulated, weights: Weights, region: str | None = None
) -> list[dict[str, Any]]:
    """How far rank histograms are from flat, by channel and lead time.

    `delta` takes as independent cases the points of the region that weigh alike (Kish 1965) in each
    forecast: 1 / sum of the squares of their shares.
    """
    cells = dict(zip(weights.names, weights.cells, strict=True))
    records = []
    for (hours, channel, where), shares in found.ranks.items():
        if region in (None, where) and where in cells:
            share = cells[where] / cells[where].sum()
            cases = found.cycles / float((share**2).sum())
            records.append(
                {"variable": channel, "region": where, "lead_hours": hours,
                 "cycles": found.cycles, "unevenness": float(unevenness(shares)),
                 "outliers": float(outliers(shares)), "delta": float(delta(shares, cases))}
            )  # fmt: skip
    return sorted(records, key=lambda r: (r["variable"], r["region"], r["lead_hours"]))
