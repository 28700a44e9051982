"""`maps/*.png`: quick looks of the ensemble mean and spread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosaic_core.dims import LATITUDE, LONGITUDE
from mosaic_core.errors import ConfigurationError
from mosaic_core.products import canvas, colours
from mosaic_core.products.checks import finite
from mosaic_core.products.output import File, ProductError
from mosaic_core.products.product import Product, ProductContext, lead_hours, register
from mosaic_core.products.projections import VIEWS
from mosaic_core.products.quantities import (
    Field,
    Quantity,
    choose,
    choose_steps,
    members_of,
    refuse_unknown,
)


@dataclass(frozen=True)
class MapSettings:
    """Settings of the kind `maps`.

    Attributes:
        quantities: of each list, the first quantity that the forecast holds is drawn.
        lead_hours: lead times (h); beyond the end of the forecast, its last one.
        views: names in `projections.VIEWS`.
    """

    quantities: tuple[tuple[str, ...], ...]
    lead_hours: tuple[float, ...] = (24.0, 72.0, 120.0)
    views: tuple[str, ...] = ("globe",)

    def __post_init__(self) -> None:
        refuse_unknown(name for names in self.quantities for name in names)
        refuse_view(*self.views)


def refuse_view(*names: str) -> None:
    """Raises ConfigurationError for a view that does not exist."""
    for name in names:
        if name not in VIEWS:
            raise ConfigurationError(f"no view {name!r}", f"one of {', '.join(VIEWS)}")


def make(product_id: str, settings: MapSettings) -> Product:
    """The product: one PNG a quantity, lead time, view, and mean or spread."""

    def notes(forecast: xr.Dataset, context: ProductContext) -> list[str]:
        replaced = choose(forecast, settings.quantities)[1]
        moved = choose_steps(lead_hours(forecast), settings.lead_hours)[1]
        alone = ["one member: no spread is drawn"] if context.members == 1 else []
        return [*replaced, *moved, *alone]

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[File]:
        chosen, lacking = choose(forecast, settings.quantities)
        if not chosen:
            raise ProductError("; ".join(lacking), "a quantity to draw", "see `quantities`")
        hours = lead_hours(forecast)
        for step in choose_steps(hours, settings.lead_hours)[0]:
            for quantity in chosen:
                summary = summarise(quantity, members_of(quantity, forecast, step))
                for view in settings.views:
                    yield from _files(
                        product_id, quantity, summary, context, hours[step], view, forecast
                    )

    return Product(product_id, (), build, {"title": "Quick looks"}, (finite,), notes)


register("maps", MapSettings, make)


@dataclass(frozen=True)
class Summary:
    """Fields (latitude, longitude) in drawn units; `wind` is the mean vector; spread has N - 1."""

    mean: Field
    spread: Field | None
    wind: tuple[Field, Field] | None


def summarise(quantity: Quantity, members: tuple[Field, ...]) -> Summary:
    """Mean and spread over members; of a wind, those of its speed, beside the mean vector."""
    scalar = members[0] if len(members) == 1 else np.hypot(*members)
    spread = scalar.std(axis=0, ddof=1) if len(scalar) > 1 else None
    wind = (members[0].mean(0), members[1].mean(0)) if len(members) == 2 else None
    return Summary(scalar.mean(axis=0), spread, wind)


def _files(
    folder: str,
    quantity: Quantity,
    summary: Summary,
    context: ProductContext,
    hours: float,
    view: str,
    forecast: xr.Dataset,
) -> Iterator[File]:
    axes = (forecast[LATITUDE].values.astype(float), forecast[LONGITUDE].values.astype(float))
    plane = canvas.Plane(VIEWS[view], axes[1], axes[0])
    for kind, field in (("mean", summary.mean), ("spread", summary.spread)):
        if field is None:
            continue
        suffix = "" if view == "globe" else f"_{view}"
        yield File(
            f"{folder}/{quantity.name}_{kind}_{hours:03.0f}h{suffix}.png",
            "image/png",
            draw(quantity, summary, kind, plane, context, hours),
            xr.Dataset({quantity.name: ((LATITUDE, LONGITUDE), field)}),
            (hours,),
            f"{quantity.title}, ensemble {kind}, +{hours:g} h",
        )


def draw(
    quantity: Quantity,
    summary: Summary,
    kind: str,
    plane: canvas.Plane,
    context: ProductContext,
    hours: float,
) -> bytes:
    """One map as PNG; `kind` is `mean` or `spread`."""
    globe = plane.projection.west is not None
    extra = 0.28 if context.flags else 0.0
    width, height = (10.0, 6.15 + extra) if globe else (7.6, 8.5 + extra)
    with canvas.style():
        figure = canvas.new_figure(width, height)
        top = 0.72 + extra
        axes = figure.add_axes((0.02, 0.82 / height, 0.96, (height - top - 0.82) / height))
        shading = _shade(axes, quantity, summary, kind, plane)
        _lines(axes, quantity, summary, kind, plane)
        canvas.frame(axes, plane, context.land)
        _colour_bar(figure, shading, quantity, kind, height)
        _titles(figure, quantity, kind, context, hours, 1 - extra / height)
        canvas.banner(figure, context.flags)
        return canvas.png(figure)


def _shade(
    axes: Axes, quantity: Quantity, summary: Summary, kind: str, plane: canvas.Plane
) -> object:
    if kind == "spread":
        norm = colours.banded(quantity.spread_levels, "max")
        field, name = summary.spread, "spread"
    else:
        norm = colours.banded(quantity.levels, "max" if quantity.levels[0] == 0 else "both")
        field, name = summary.mean, quantity.colours
    assert field is not None
    return plane.shade(axes, field, norm=norm, cmap=colours.palette(name))


def _lines(
    axes: Axes, quantity: Quantity, summary: Summary, kind: str, plane: canvas.Plane
) -> None:
    """Contours of the mean; arrows of the mean wind."""
    if summary.wind is not None and kind == "mean":
        spacing = 6.0 if plane.projection.west is not None else 5.0
        plane.arrows(
            axes, *summary.wind, spacing, color=canvas.INK, scale=quantity.levels[-1] * 32,
            width=0.0011, headwidth=3.6, headlength=4.2, headaxislength=3.8, pivot="mid", zorder=5,
        )  # fmt: skip
    if quantity.contours is None:
        return
    low, high = np.floor(summary.mean.min()), np.ceil(summary.mean.max())
    first = np.ceil(low / quantity.contours) * quantity.contours
    levels = np.arange(first, high, quantity.contours)
    if levels.size == 0:
        return
    lines = plane.contour(
        axes, summary.mean, levels=levels, colors=canvas.INK, linewidths=0.55, zorder=5,
        negative_linestyles="solid",
    )  # fmt: skip
    axes.clabel(lines, levels[::2], fontsize=6.5, fmt="%g", inline_spacing=2)


def _colour_bar(
    figure: Figure, shading: object, quantity: Quantity, kind: str, height: float
) -> None:
    axes = figure.add_axes((0.17, 0.5 / height, 0.66, 0.15 / height))
    bar = figure.colorbar(shading, cax=axes, orientation="horizontal", spacing="uniform")  # type: ignore[arg-type]
    levels = quantity.spread_levels if kind == "spread" else quantity.levels
    every = 1 if kind == "spread" else max(1, round(len(levels) / 11))
    bar.set_ticks(list(levels[::every]), labels=[f"{level:g}" for level in levels[::every]])
    bar.ax.tick_params(labelsize=8.5, length=2.5, width=0.6, pad=2)
    bar.outline.set_linewidth(0.6)
    units = "K" if kind == "spread" and quantity.units == "°C" else quantity.units
    figure.text(0.845, 0.575 / height, units, size=9.5, va="center", ha="left")


def _titles(
    figure: Figure, quantity: Quantity, kind: str, context: ProductContext, hours: float, top: float
) -> None:
    height = figure.get_figheight()
    words = "ensemble mean" if kind == "mean" else "ensemble spread (standard deviation)"
    start = context.cycle.init_time
    line1, line2 = top - 0.27 / height, top - 0.52 / height
    figure.text(0.02, line1, f"{quantity.title}, {words}", size=13.5, weight="bold", va="center")
    figure.text(0.98, line1, f"+{hours:g} h", size=13.5, weight="bold", va="center", ha="right")
    times = f"valid {canvas.valid_time(start, hours)}   from {canvas.timestamp(start)}"
    members = f"{context.members} member{'s' if context.members > 1 else ''}"
    figure.text(0.02, line2, times, size=9.5, va="center")
    figure.text(0.98, line2, f"{context.model}, {members}", size=9.5, va="center", ha="right")
    foot = "   ".join(text for text in (context.attribution, context.licence) if text)
    drawn = _legend(quantity, kind)
    figure.text(0.02, 0.13 / height, drawn, size=7.5, va="center", color="#555b61")
    figure.text(0.98, 0.13 / height, foot, size=7.5, va="center", ha="right", color="#555b61")


def _legend(quantity: Quantity, kind: str) -> str:
    if len(quantity.channels) == 2:
        arrows = "; arrows: mean vector" if kind == "mean" else ""
        return f"Colours: {'mean' if kind == 'mean' else 'spread'} of the wind speed{arrows}"
    if quantity.contours is None:
        return ""
    what = "Contours" if kind == "mean" else "Contours: ensemble mean,"
    return f"{what} every {quantity.contours:g} {quantity.units}"
