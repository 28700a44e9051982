"""`maps/probability_*.png`: where an event is how likely."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from mosaic_core.dims import LATITUDE, LEAD_TIME, LONGITUDE
from mosaic_core.products import canvas, colours, page
from mosaic_core.products.climatology import Climate
from mosaic_core.products.maps import refuse_view
from mosaic_core.products.output import File, ProductError
from mosaic_core.products.probabilities import (
    Event,
    EventSettings,
    Float,
    ProbabilitySettings,
    of_field,
    possible,
    probable,
    steps_of,
)
from mosaic_core.products.product import Product, ProductContext, lead_hours, register
from mosaic_core.products.projections import VIEWS
from mosaic_core.products.quantities import choose_steps


@dataclass(frozen=True)
class ProbabilityMapSettings:
    """Settings of the kind `probability_maps`.

    Attributes:
        events: as of the kind `probabilities`.
        lead_hours: lead times (h); beyond the end of the forecast, its last one.
        views: names in `projections.VIEWS`.
        climatology: file of the climate that anomalies depart from.
    """

    events: tuple[EventSettings, ...]
    lead_hours: tuple[float, ...] = (72.0, 120.0)
    views: tuple[str, ...] = ("globe",)
    climatology: str | None = None

    def __post_init__(self) -> None:
        refuse_view(*self.views)
        _ = self.probabilities

    @property
    def probabilities(self) -> ProbabilitySettings:
        """The same events as the other kind has them, which checks them."""
        return ProbabilitySettings(self.events, self.climatology)


def make(product_id: str, settings: ProbabilityMapSettings) -> Product:
    """The product: one PNG an event, lead time and view."""

    def notes(forecast: xr.Dataset, context: ProductContext) -> list[str]:
        events, lacking, _ = possible(settings.probabilities, forecast, context)
        steps, moved = choose_steps(lead_hours(forecast), settings.lead_hours)
        early = [
            f"{event.name}: no whole period ends at {lead_hours(forecast)[step]:g} h: not drawn"
            for event in events
            for step in steps
            if step + 1 < steps_of(event, context)
        ]
        return [*lacking, *moved, *early]

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[File]:
        events, lacking, climate = possible(settings.probabilities, forecast, context)
        if not events:
            raise ProductError("; ".join(lacking), "an event to draw", "see `events`")
        hours = lead_hours(forecast)
        lat, lon = (forecast[dim].values.astype(float) for dim in (LATITUDE, LONGITUDE))
        for step in choose_steps(hours, settings.lead_hours)[0]:
            for event in events:
                if step + 1 < steps_of(event, context):
                    continue
                share = share_of(event, climate, forecast, context, step)
                shown = xr.Dataset({event.name: ((LEAD_TIME, LATITUDE, LONGITUDE), share[None])})
                for view in settings.views:
                    suffix = "" if view == "globe" else f"_{view}"
                    plane = canvas.Plane(VIEWS[view], lon, lat)
                    yield File(
                        f"maps/probability_{event.name}_{hours[step]:03.0f}h{suffix}.png",
                        "image/png",
                        draw(event, share, plane, context, hours[step]),
                        shown,
                        (hours[step],),
                        f"Probability of {event.words}, +{hours[step]:g} h",
                    )

    return Product(product_id, (), build, {"title": "Probability maps"}, (probable,), notes)


register("probability_maps", ProbabilityMapSettings, make)


def share_of(
    event: Event,
    climate: Climate | None,
    forecast: xr.Dataset,
    context: ProductContext,
    step: int,
) -> Float:
    """Share of members (latitude, longitude) at one lead time, or in the period that it ends."""
    period = steps_of(event, context)
    part = forecast.isel({LEAD_TIME: slice(step + 1 - period, step + 1)})
    shares = of_field([event], climate, part, context, period)[event.name]
    return np.asarray(shares[-1])


def draw(
    event: Event, share: Float, plane: canvas.Plane, context: ProductContext, hours: float
) -> bytes:
    """The map as PNG; where no member has the event, nothing is coloured."""

    def paint(axes: Axes) -> object:
        field = np.ma.masked_less_equal(100.0 * share.astype(np.float64), 0.0)
        norm = colours.banded(colours.PERCENT, "neither")
        return plane.shade(axes, field, norm=norm, cmap=colours.palette("spread"))

    begins = None if event.within_hours is None else hours - event.within_hours
    legend = "Colours: share of the members; white: none"
    words = page.Words(f"Probability of {event.title}", hours, "%", legend, begins)
    return page.one_map(plane, context, words, colours.PERCENT, paint)
