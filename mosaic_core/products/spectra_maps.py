"""`maps/spectra_*.png`: kinetic energy of members, mean and initial analysis by wavenumber."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from mosaic_core.dims import LEAD_TIME, NUMBER
from mosaic_core.products import canvas, page
from mosaic_core.products.checks import finite
from mosaic_core.products.output import File
from mosaic_core.products.product import Product, ProductContext, lead_hours, register
from mosaic_core.products.quantities import choose_steps
from mosaic_core.products.spectra import SURFACE_WINDS, WIND_LEVEL, WINDS, spectra
from mosaic_core.products.spectra_product import initial_analysis

Float = NDArray[np.float64]

_MEMBER: Final = "#c9803c"
_MEAN: Final = "#1f6fb4"
_RATIOS: Final = (0.4, 1.6)
_TICKS: Final = (1, 2, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class SpectraMapSettings:
    """Settings of the kind `spectra_maps`.

    Attributes:
        lead_hours: lead times (h); beyond the end of the forecast, its last one.
    """

    lead_hours: tuple[float, ...] = (24.0, 120.0)


def make(product_id: str, settings: SpectraMapSettings) -> Product:
    """The product: one PNG a lead time; it needs the initial analysis to compare with."""

    def notes(forecast: xr.Dataset, context: ProductContext) -> list[str]:
        return choose_steps(lead_hours(forecast), settings.lead_hours)[1]

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[File]:
        analysis = initial_analysis(context)
        hours = lead_hours(forecast)
        steps = choose_steps(hours, settings.lead_hours)[0]
        winds = [name for name in (*WINDS, *SURFACE_WINDS) if name in forecast]
        made = spectra(forecast[winds].isel({LEAD_TIME: steps}), analysis)
        for place, step in enumerate(steps):
            yield File(
                f"maps/spectra_{hours[step]:03.0f}h.png",
                "image/png",
                draw(list(panels(made, place)), hours[step], context),
                made.isel({LEAD_TIME: [place]}),
                (hours[step],),
                f"Kinetic energy by wavenumber, +{hours[step]:g} h",
            )

    return Product(product_id, (), build, {"title": "Spectra"}, (finite,), notes)


register("spectra_maps", SpectraMapSettings, make)


@dataclass(frozen=True)
class Panel:
    """Energies (m2 s-2) at wavenumbers 1, 2, ... of the winds at one height."""

    title: str
    members: Float
    mean: Float
    analysis: Float


def panels(made: xr.Dataset, step: int) -> Iterator[Panel]:
    """What `spectra` made of one lead time, at each level of the wind and at 10 m."""
    for name in ("kinetic_energy", "10m_kinetic_energy"):
        if name not in made:
            continue
        parts = [
            made[name].isel({LEAD_TIME: step}).transpose(NUMBER, ...),
            made[f"{name}_of_ensemble_mean"].isel({LEAD_TIME: step}),
            made[f"{name}_of_analysis"],
        ]
        for level in made[WIND_LEVEL].values if WIND_LEVEL in parts[0].dims else (None,):
            chosen = [part if level is None else part.sel({WIND_LEVEL: level}) for part in parts]
            values = [np.asarray(part.values[..., 1:], np.float64) for part in chosen]
            yield Panel("10 m wind" if level is None else f"{level} hPa wind", *values)


def draw(shown: list[Panel], hours: float, context: ProductContext) -> bytes:
    """A column a panel: energies above, below them their ratios to those of the analysis."""
    extra = 0.28 if context.flags else 0.0
    width, height = max(8.6, 0.5 + 3.4 * len(shown)), 6.1 + extra
    with canvas.style():
        figure = canvas.new_figure(width, height)
        top = 1 - (1.15 + extra) / height
        grid = figure.add_gridspec(
            2, len(shown), left=0.72 / width, right=1 - 0.2 / width, bottom=0.78 / height, top=top,
            height_ratios=(2, 1), hspace=0.1, wspace=0.24,
        )  # fmt: skip
        for column, panel in enumerate(shown):
            above = figure.add_subplot(grid[0, column])
            below = figure.add_subplot(grid[1, column], sharex=above)
            _energies(above, panel)
            _ratios(below, panel)
            above.set_title(panel.title, loc="left", size=9.5, pad=4)
            if column == 0:
                above.set_ylabel("kinetic energy (m² s⁻²)", size=8.5)
                below.set_ylabel("over analysis", size=8.5)
                above.legend(loc="lower left", frameon=False, fontsize=8)
        legend = "Analysis: of the initial time. Below 1: damped; a rise at the end: aliased"
        words = page.Words("Kinetic energy by total wavenumber", hours, "", legend)
        page.titles(figure, context, words, 1 - extra / height)
        canvas.banner(figure, context.flags)
        return canvas.png(figure)


def _energies(axes: Axes, panel: Panel) -> None:
    wavenumbers = np.arange(1, panel.analysis.size + 1)
    lines = axes.loglog(wavenumbers, panel.members.T, color=_MEMBER, linewidth=0.5)
    lines[0].set_label("members")
    axes.loglog(wavenumbers, panel.mean, color=_MEAN, linewidth=1.4, label="ensemble mean")
    axes.loglog(wavenumbers, panel.analysis, color="black", linewidth=1.4, label="analysis")
    axes.tick_params(labelbottom=False)
    _dress(axes)


def _ratios(axes: Axes, panel: Panel) -> None:
    wavenumbers = np.arange(1, panel.analysis.size + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        members, mean = panel.members / panel.analysis, panel.mean / panel.analysis
    axes.axhspan(0.9, 1.1, color="#e6e8ea", linewidth=0)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.semilogx(wavenumbers, members.T, color=_MEMBER, linewidth=0.5)
    axes.semilogx(wavenumbers, mean, color=_MEAN, linewidth=1.4)
    axes.set_ylim(*_RATIOS)
    axes.set_xlabel("total wavenumber", size=8.5)
    axes.xaxis.set_major_locator(FixedLocator([t for t in _TICKS if t <= wavenumbers[-1]]))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    _dress(axes)


def _dress(axes: Axes) -> None:
    axes.margins(x=0)
    axes.grid(linewidth=0.4, alpha=0.5)
    axes.tick_params(labelsize=8, length=2.5, width=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
