"""Pictures of scores: a scorecard, curves by lead time, and spectra."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mosaic_core.verification.energy import Energy

Array = NDArray[np.float64]

INK: Final = "#22262b"
MEMBERS, MEAN, TRUTH, REFERENCE = "#d55e00", "#0072b2", "#000000", "#767b80"
"""Of Okabe and Ito (2008), told apart without colour vision too."""

_STYLE: Final[Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True, eq=False)
class Curves:
    """Scores of one channel by lead time; arrays (lead,), one that is None is not drawn."""

    title: str
    units: str
    rmse: Array
    spread: Array | None = None
    persistence: Array | None = None
    climatology: Array | None = None


def scorecard(
    skill: Array,
    rows: Sequence[str],
    lead_hours: Sequence[float],
    title: str,
    subtitle: str = "",
    flags: Sequence[str] = (),
    significant: NDArray[np.bool_] | None = None,
) -> bytes:
    """A PNG of lead time by row: 1 - RMSE over that of the reference, in per cent and in colour.

    Purple is better than the reference, orange worse; what is missing stays white.

    Args:
        skill: (row, lead), 1 is perfect, 0 as good as the reference.
        flags: quality flags, said in red below the title.
        significant: (row, lead), cells that get a dot.
    """
    with styled():
        height = 1.35 + 0.2 * len(flags) + 0.33 * len(rows)
        figure = new_figure(max(5.6, 1.9 + 0.62 * len(lead_hours)), height)
        top = 0.62 + 0.2 * len(flags)
        axes = figure.add_axes((0.19, 0.62 / height, 0.78, (height - top - 0.62 - 0.05) / height))
        shown = axes.pcolormesh(
            np.arange(len(lead_hours) + 1),
            np.arange(len(rows) + 1),
            np.ma.masked_invalid(skill),
            cmap="PuOr",
            norm=TwoSlopeNorm(0.0, -1.0, 1.0),
            edgecolors="white",
            linewidth=1.0,
        )
        assert shown is not None
        for (row, column), value in np.ndenumerate(skill):
            if np.isfinite(value):
                colour = "white" if abs(value) > 0.5 else INK
                dot = " •" if significant is not None and significant[row, column] else ""
                axes.text(
                    column + 0.5, row + 0.5, f"{100 * value:.0f}{dot}", ha="center", va="center",
                    color=colour, size=8.5,
                )  # fmt: skip
        axes.set_xticks(np.arange(len(lead_hours)) + 0.5, [f"{hours:g}" for hours in lead_hours])
        axes.set_yticks(np.arange(len(rows)) + 0.5, list(rows))
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.set_xlabel("lead time (h)")
        for side in axes.spines.values():
            side.set_visible(False)
        figure.text(0.02, 1 - 0.2 / height, title, size=12, weight="bold", va="center")
        figure.text(0.02, 1 - 0.43 / height, subtitle, size=8.5, va="center")
        for i, flag in enumerate(flags):
            where = 1 - (0.62 + 0.2 * i) / height
            figure.text(0.02, where, flag, size=8.5, va="center", color="#a3142e", weight="bold")
        return png_of(figure)


def report(
    panels: Sequence[Curves],
    lead_hours: Sequence[float],
    energies: Mapping[tuple[str, str], Energy],
    last: int,
    title: str,
    flags: Sequence[str] = (),
) -> bytes:
    """A PNG of scores by lead time (above) and of spectra with their ratio to truth (below).

    Args:
        panels: one a channel; none leaves the upper row out.
        energies: by (row of panels, column), as ("24 h", "250 hPa"); spectra (l,). None leaves the
            lower rows out.
        last: the last wavenumber that is resolved.
    """
    lines = list(dict.fromkeys(row for row, _ in energies))
    columns = list(dict.fromkeys(column for _, column in energies))
    upper, each, head = (3.1 if panels else 0.0), 4.2, 0.55
    height = head + upper + each * len(lines)
    with styled():
        figure = new_figure(max(3.0 * len(panels), 3.5 * len(columns)) + 0.5, height)
        figure.text(0.02, 1 - 0.25 / height, title, size=12, weight="bold", va="center")
        figure.text(
            0.985, 1 - 0.25 / height, "  ".join(flags), size=9, va="center", ha="right",
            color="#a3142e", weight="bold",
        )  # fmt: skip
        for i, panel in enumerate(panels):
            top, bottom = 1 - (head + 0.2) / height, 1 - (head + upper - 0.5) / height
            grid = figure.add_gridspec(
                1, len(panels), left=0.06, right=0.985, top=top, bottom=bottom, wspace=0.3
            )
            axes = figure.add_subplot(grid[0, i])
            draw_curves(axes, panel, lead_hours)
            if i == 0:
                axes.legend(fontsize=8)
        for i, row in enumerate(lines):
            start = head + upper + each * i
            grid = figure.add_gridspec(
                2, len(columns), height_ratios=[2.1, 1.0], left=0.075, right=0.985,
                top=1 - (start + 0.3) / height, bottom=1 - (start + each - 0.45) / height,
                hspace=0.08, wspace=0.24,
            )  # fmt: skip
            for j, column in enumerate(columns):
                if (row, column) not in energies:
                    continue
                above = figure.add_subplot(grid[0, j])
                below = figure.add_subplot(grid[1, j], sharex=above)
                draw_spectrum(above, below, energies[row, column], last)
                above.set_title(f"{column}, {row}")
                below.set_xlabel("total wavenumber")
                if j == 0:
                    above.set_ylabel("kinetic energy (m² s⁻²)")
                    below.set_ylabel("over truth")
                if i == j == 0:
                    above.legend(loc="lower left", fontsize=8.5)
        return png_of(figure)


def draw_curves(axes: Axes, panel: Curves, lead_hours: Sequence[float]) -> None:
    """The curves of one channel."""
    hours = np.asarray(lead_hours, float)
    axes.plot(hours, panel.rmse, color=MEAN, marker="o", ms=3.5, label="RMSE of the mean")
    if panel.spread is not None:
        axes.plot(hours, panel.spread, color=MEMBERS, ls="--", marker="s", ms=3, label="spread")
    if panel.persistence is not None:
        axes.plot(hours, panel.persistence, color=REFERENCE, label="persistence")
    if panel.climatology is not None:
        axes.plot(hours, panel.climatology, color=REFERENCE, ls=":", label="climatology")
    axes.set(xlim=(0, hours.max() * 1.03), xlabel="lead time (h)", title=panel.title)
    axes.set_ylim(bottom=0)
    axes.set_xticks(hours[:: max(1, len(hours) // 6)])
    axes.set_ylabel(panel.units)
    axes.grid(alpha=0.25, lw=0.5)


def draw_spectrum(upper: Axes, lower: Axes, energy: Energy, last: int) -> None:
    """Spectra of members, mean and truth, and the ratio of the first two to the third."""
    ell = np.arange(1, energy.truth.shape[-1])
    colours = {"members": MEMBERS, "mean": MEAN, "truth": TRUTH}
    styles = {"members": "-", "mean": "--", "truth": "-"}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, spectrum in energy.parts().items():
            look = {"color": colours[name], "ls": styles[name], "lw": 1.4}
            label = "ensemble mean" if name == "mean" else name
            upper.loglog(ell, spectrum[1:], label=label, **look)
            if name != "truth":
                lower.semilogx(ell, spectrum[1:] / energy.truth[1:], **look)
    lower.axhspan(0.9, 1.1, color=REFERENCE, alpha=0.18, lw=0)
    lower.axhline(1.0, color=TRUTH, lw=0.7)
    lower.set_ylim(0, 1.6)
    resolved = energy.truth[1 : last + 1]
    upper.set_ylim(resolved[resolved > 0].min() / 5, resolved.max() * 3)
    for axes in (upper, lower):
        axes.axvline(last, color=REFERENCE, lw=0.8, ls=":")
        axes.set_xlim(1, last * 1.12)
        axes.grid(alpha=0.25, lw=0.5)
    ticks = [n for n in (1, 2, 5, 10, 20, 50, 100) if n <= last]
    lower.set_xticks(ticks, [str(n) for n in ticks])
    lower.minorticks_off()
    upper.tick_params(labelbottom=False)


@contextmanager
def styled() -> Iterator[None]:
    with mpl.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: Figure) -> bytes:
    """The bytes, without time or software: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
