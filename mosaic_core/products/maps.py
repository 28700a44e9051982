"""`maps/*.png`: quick looks of the ensemble mean and spread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from mosaic_core.dims import LATITUDE, LONGITUDE
from mosaic_core.errors import ConfigurationError
from mosaic_core.products import canvas, colours, page
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
    words = "ensemble mean" if kind == "mean" else "ensemble spread (standard deviation)"
    spread = kind == "spread"
    units = "K" if spread and quantity.units == "°C" else quantity.units
    levels = quantity.spread_levels if spread else quantity.levels
    every = 1 if spread else max(1, round(len(levels) / 11))

    def paint(axes: Axes) -> object:
        shading = _shade(axes, quantity, summary, kind, plane)
        _lines(axes, quantity, summary, kind, plane)
        return shading

    title = f"{quantity.title}, {words}"
    around = page.Words(title, hours, units, _legend(quantity, kind))
    return page.one_map(plane, context, around, levels[::every], paint)


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


def _legend(quantity: Quantity, kind: str) -> str:
    if len(quantity.channels) == 2:
        arrows = "; arrows: mean vector" if kind == "mean" else ""
        return f"Colours: {'mean' if kind == 'mean' else 'spread'} of the wind speed{arrows}"
    if quantity.contours is None:
        return ""
    what = "Contours" if kind == "mean" else "Contours: ensemble mean,"
    return f"{what} every {quantity.contours:g} {quantity.units}"
