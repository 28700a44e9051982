"""`maps/stamps_*.png`: every member of the ensemble, small, in one picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mosaic_core.dims import LATITUDE, LONGITUDE, NUMBER
from mosaic_core.products import canvas, colours, page
from mosaic_core.products.checks import finite
from mosaic_core.products.maps import refuse_view
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
class StampSettings:
    """Settings of the kind `stamps`: as those of `maps`, with one view."""

    quantities: tuple[tuple[str, ...], ...]
    lead_hours: tuple[float, ...] = (120.0,)
    view: str = "north"

    def __post_init__(self) -> None:
        refuse_unknown(name for names in self.quantities for name in names)
        refuse_view(self.view)


def make(product_id: str, settings: StampSettings) -> Product:
    """The product: one PNG a quantity and lead time."""

    def notes(forecast: xr.Dataset, context: ProductContext) -> list[str]:
        replaced = choose(forecast, settings.quantities)[1]
        return [*replaced, *choose_steps(lead_hours(forecast), settings.lead_hours)[1]]

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[File]:
        chosen, lacking = choose(forecast, settings.quantities)
        if not chosen:
            raise ProductError("; ".join(lacking), "a quantity to draw", "see `quantities`")
        hours = lead_hours(forecast)
        lat, lon = (forecast[dim].values.astype(float) for dim in (LATITUDE, LONGITUDE))
        plane = canvas.Plane(VIEWS[settings.view], lon, lat)
        for step in choose_steps(hours, settings.lead_hours)[0]:
            for quantity in chosen:
                parts = members_of(quantity, forecast, step)
                members = parts[0] if len(parts) == 1 else np.hypot(*parts)
                numbers = [int(number) for number in forecast[NUMBER].values]
                yield File(
                    f"maps/stamps_{quantity.name}_{hours[step]:03.0f}h.png",
                    "image/png",
                    draw(quantity, members, numbers, plane, context, hours[step]),
                    xr.Dataset({quantity.name: ((NUMBER, LATITUDE, LONGITUDE), members)}),
                    (hours[step],),
                    f"{quantity.title}, every member, +{hours[step]:g} h",
                )

    return Product(product_id, (), build, {"title": "Stamps"}, (finite,), notes)


register("stamps", StampSettings, make)


def draw(
    quantity: Quantity,
    members: Field,
    numbers: list[int],
    plane: canvas.Plane,
    context: ProductContext,
    hours: float,
) -> bytes:
    """Members (number, latitude, longitude) side by side, numbered, as PNG."""
    x, y = plane.projection.outline()
    shape = float(np.ptp(y) / np.ptp(x))
    columns = math.ceil(math.sqrt(len(members) * 1.4 * shape))
    rows = math.ceil(len(members) / columns)
    extra, width = (0.28 if context.flags else 0.0), 10.0
    cell = (width - 0.3) / columns
    tall = cell * shape + 0.2
    height = 0.8 + extra + rows * tall + 0.71
    norm = colours.banded(quantity.levels, "max" if quantity.levels[0] == 0 else "both")
    with canvas.style():
        figure = canvas.new_figure(width, height)
        shading: Any = None
        for index, (number, field) in enumerate(zip(numbers, members, strict=True)):
            row, column = divmod(index, columns)
            bottom = height - 0.8 - extra - (row + 1) * tall
            box = ((0.15 + column * cell) / width, bottom / height)
            axes = figure.add_axes((*box, cell * 0.96 / width, (tall - 0.2) / height))
            cmap = colours.palette(quantity.colours)
            shading = plane.shade(axes, field, norm=norm, cmap=cmap)
            canvas.frame(axes, plane, context.land, coast=0.3, grid=False)
            middle = (0.15 + (column + 0.48) * cell) / width
            figure.text(middle, (bottom + tall - 0.1) / height, f"{number}", size=8, ha="center",
                        va="center")  # fmt: skip
        start = context.cycle.init_time
        top = height - extra
        figure.text(0.02, (top - 0.27) / height, f"{quantity.title}, every member", size=13.5,
                    weight="bold", va="center")  # fmt: skip
        figure.text(0.98, (top - 0.27) / height, f"+{hours:g} h", size=13.5, weight="bold",
                    va="center", ha="right")  # fmt: skip
        times = f"valid {canvas.valid_time(start, hours)}   from {canvas.timestamp(start)}"
        figure.text(0.02, (top - 0.52) / height, times, size=9.5, va="center")
        figure.text(0.98, (top - 0.52) / height, context.model, size=9.5, va="center", ha="right")
        ticks = quantity.levels[:: max(1, round(len(quantity.levels) / 11))]
        page.colour_bar(figure, shading, ticks, quantity.units, height)
        canvas.banner(figure, context.flags)
        return canvas.png(figure)
