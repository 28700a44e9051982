"""Pictures of ranks, of probabilities and of scores in time, for the pages of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mosaic_core.verification.events import Counts, brier, roc
from mosaic_core.verification.figures import (
    MEAN,
    MEMBERS,
    REFERENCE,
    TRUTH,
    new_figure,
    png_of,
    styled,
)

Array = NDArray[np.float64]


def ranks(histograms: Mapping[tuple[str, str], Array]) -> bytes:
    """A PNG of rank histograms by (row, column), as ("24 h", "z500"), over their flat share."""
    rows = list(dict.fromkeys(row for row, _ in histograms))
    columns = list(dict.fromkeys(column for _, column in histograms))
    with styled():
        figure = new_figure(2.6 * len(columns) + 0.5, 1.7 * len(rows) + 0.6)
        panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True)
        for (row, column), shares in histograms.items():
            axes = panels[rows.index(row)][columns.index(column)]
            axes.bar(np.arange(len(shares)), shares * len(shares), width=0.9, color=MEAN)
            axes.axhline(1.0, color=TRUTH, lw=0.8)
            axes.set_title(f"{column}, {row}")
            axes.set_ylim(0, max(2.0, 1.05 * float(shares.max()) * len(shares)))
        for axes in panels[-1]:
            axes.set_xlabel("rank of truth")
        figure.tight_layout()
        return png_of(figure)


def reliability(events: Mapping[str, Counts]) -> bytes:
    """A PNG: above, how often each event happened where each probability was forecast; below,
    its relative operating characteristic."""
    with styled():
        figure = new_figure(2.7 * len(events) + 0.3, 5.6)
        panels = figure.subplots(2, len(events), squeeze=False)
        for (name, counts), (upper, lower) in zip(events.items(), panels.T, strict=True):
            made = brier(counts)
            upper.plot([0, 1], [0, 1], color=REFERENCE, lw=0.8)
            upper.axhline(float(counts.base_rate), color=REFERENCE, lw=0.8, ls=":")
            sizes = 8 + 120 * counts.forecast / counts.forecast.sum()
            upper.plot(counts.probabilities, counts.frequencies, color=MEAN, lw=1)
            upper.scatter(counts.probabilities, counts.frequencies, s=sizes, color=MEAN)
            upper.set_title(f"{name}\nBrier skill {_shown(made['brier_skill'])}", fontsize=9)
            false_alarms, hits, area = roc(counts)
            lower.plot([0, 1], [0, 1], color=REFERENCE, lw=0.8)
            lower.plot(false_alarms, hits, color=MEMBERS, marker="o", ms=2.5)
            lower.set_title(f"ROC area {_shown(area)}", fontsize=9)
            upper.set(xlabel="probability", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            lower.set(xlabel="false alarm rate", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        panels[0][0].set_ylabel("how often it happened")
        panels[1][0].set_ylabel("hit rate")
        figure.tight_layout()
        return png_of(figure)


@dataclass(frozen=True, eq=False)
class Series:
    """A score of every forecast by the day it came true.

    Attributes:
        days: since the first day shown.
        values: of the same length.
        usual: 10th, 50th and 90th percentile of the days before the last week, or None.
    """

    title: str
    units: str
    days: Array
    values: Array
    usual: tuple[float, float, float] | None


def drift(series: Sequence[Series], first_day: str, recent_days: int) -> bytes:
    """A PNG of scores in time; the band is where they usually lie, before the shaded last days."""
    columns = min(3, len(series))
    rows = -(-len(series) // columns)
    with styled():
        figure = new_figure(3.6 * columns + 0.2, 2.3 * rows + 0.3)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, each in zip(panels, series, strict=False):
            axes.plot(each.days, each.values, color=MEAN, lw=1, marker="o", ms=2)
            if each.usual is not None:
                low, middle, high = each.usual
                axes.axhspan(low, high, color=REFERENCE, alpha=0.2, lw=0)
                axes.axhline(middle, color=REFERENCE, lw=0.9)
            axes.axvspan(each.days.max() - recent_days, each.days.max(), color=MEMBERS, alpha=0.08)
            axes.set_title(each.title)
            axes.set_ylabel(each.units)
            axes.set_xlabel(f"days after {first_day}")
            axes.set_ylim(bottom=0)
        for axes in panels[len(series) :]:
            axes.set_visible(False)
        figure.tight_layout()
        return png_of(figure)


def _shown(value: Array) -> str:
    return f"{float(value):.2f}" if np.isfinite(value) else "-"
