"""`probabilities.zarr`: the share of members in which something happens.

Events are written in the configuration: a field, a threshold, above or below it, as the value or
as its departure from the climate, at the lead time or at any time within the hours before it.
Streams over windows of lead times, one field at a time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.dims import LATITUDE, LEAD_TIME, LONGITUDE, NUMBER
from mosaic_core.errors import ConfigurationError, MosaicError
from mosaic_core.products import climatology, fields
from mosaic_core.products.climatology import Climate
from mosaic_core.products.output import Array, Block, Cube, ProductError, split
from mosaic_core.products.product import (
    Product,
    ProductContext,
    describe,
    lead_hours,
    missing_channels,
    register,
)

Float = NDArray[np.float32]

_UNITS: Final = {"degC": (273.15, 1.0, "K"), "hPa": (0.0, 100.0, "Pa")}
"""Units that thresholds can have besides the field's own: (offset, factor, units of the field)."""

_WRITTEN: Final = {"degC": "°C", "m s-1": "m/s"}
"""Units as pictures have them."""


@dataclass(frozen=True)
class EventSettings:
    """One line of the configuration; each threshold makes one array.

    Attributes:
        field: a channel, `10m_wind` or `wind_<hPa>`.
        above, below: thresholds; the event is > above, or < below.
        units: of the thresholds: `degC`, `hPa`; None for the field's own.
        anomaly: the departure from the climatological mean, not the value.
        within_hours: whether it happens at any lead time of the period of this length that ends at
            the lead time, (lead - within, lead]; None is at the lead time itself.
    """

    field: str
    above: tuple[float, ...] = ()
    below: tuple[float, ...] = ()
    units: str | None = None
    anomaly: bool = False
    within_hours: float | None = None

    def __post_init__(self) -> None:
        own = fields.units_of(self.field)
        if not self.above and not self.below:
            raise ConfigurationError(f"event of {self.field}", "thresholds `above` or `below`")
        if not all(math.isfinite(value) for value in (*self.above, *self.below)):
            raise ConfigurationError(f"event of {self.field}", "finite thresholds")
        allowed = [name for name, (_, _, base) in _UNITS.items() if base == own]
        if self.units not in (None, own, *allowed):
            raise ConfigurationError(
                f"event of {self.field} in {self.units}", f"one of {', '.join([own, *allowed])}"
            )
        if self.within_hours is not None and self.within_hours <= 0:
            raise ConfigurationError(f"within_hours {self.within_hours:g}", "more than 0")


@dataclass(frozen=True)
class ProbabilitySettings:
    """Settings of the kind `probabilities`.

    Attributes:
        events: what to give the probability of.
        climatology: file of the climate that anomalies depart from; None is the shipped one of the
            simulated planet.
        window: lead times read at a time; that of the forecast store's shards is best.
    """

    events: tuple[EventSettings, ...]
    climatology: str | None = None
    window: int = 8

    def __post_init__(self) -> None:
        names = [event.name for event in expand(self.events)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise ConfigurationError(
                f"events {', '.join(twice) or '(none)'}", "one or more, each once"
            )
        if self.window < 1:
            raise ConfigurationError(f"window {self.window}", "1 or more")


@dataclass(frozen=True)
class Event:
    """One array: `threshold` is in the field's own units; `title` is `words` for a picture."""

    name: str
    field: str
    above: bool
    threshold: float
    anomaly: bool
    within_hours: float | None
    words: str
    title: str

    def happens(self, values: Float) -> NDArray[np.bool_]:
        return values > self.threshold if self.above else values < self.threshold


def expand(settings: Iterable[EventSettings]) -> list[Event]:
    """The events of all lines; the name says the field, the threshold and the period."""
    made = []
    for event in settings:
        given = [(True, value) for value in event.above]
        for above, value in [*given, *((False, value) for value in event.below)]:
            offset, factor, _ = _UNITS.get(event.units or "", (0.0, 1.0, ""))
            offset = 0.0 if event.anomaly else offset
            side = "above" if above else "below"
            units = event.units or fields.units_of(event.field)
            units = _WRITTEN.get(units, units)
            parts = [event.field, "anomaly" if event.anomaly else "", side, f"{value:g}"]
            suffix = event.units if event.units in _UNITS else ""
            period = f"within_{event.within_hours:g}_h" if event.within_hours else ""
            name = "_".join(part for part in (*parts, suffix, period) if part)
            what = f"{in_words(event.field)}{' anomaly' if event.anomaly else ''}"
            text = f"{what} {side} {value:g} {units}"
            title = text
            if event.within_hours:
                text += f" at any lead time of the {event.within_hours:g} h before"
            made.append(
                Event(name, event.field, above, value * factor + offset, event.anomaly,
                      event.within_hours, text, title)
            )  # fmt: skip
    return made


def in_words(field: str) -> str:
    """`850 hPa temperature`, `10 m wind`, `mean sea level pressure`."""
    stem, _, level = field.rpartition("_")
    if level.isdigit():
        return f"{level} hPa {stem.replace('_', ' ')}"
    return re.sub(r"^(\d+)m ", r"\1 m ", field.replace("_", " "))


def make(product_id: str, settings: ProbabilitySettings) -> Product:
    """The product; an event that the forecast cannot have is left out, and named in the notes."""

    def notes(forecast: xr.Dataset, context: ProductContext) -> list[str]:
        return possible(settings, forecast, context)[1]

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[Cube]:
        events, lacking, climate = possible(settings, forecast, context)
        if not events:
            raise ProductError(
                "; ".join(lacking), "an event that the forecast can have", "see `events`"
            )
        yield _cube(f"{product_id}.zarr", events, climate, forecast, context, settings.window)

    return Product(
        product_id,
        (),
        build,
        {"title": "Probabilities of events"},
        (probable,),
        notes,
    )


register("probabilities", ProbabilitySettings, make)


def probable(values: xr.Dataset) -> list[str]:
    """Within 0..1; NaN at whole lead times alone, those before the end of the first period."""
    wrong = []
    for name, array in values.data_vars.items():
        points = array.transpose(LEAD_TIME, LATITUDE, LONGITUDE).values
        absent = np.isnan(points).all(axis=(1, 2))
        rest = points[int(absent.argmin()) if not absent.all() else len(points) :]
        if not rest.size or not ((rest >= 0) & (rest <= 1)).all():
            wrong.append(f"{name} is not within 0..1 everywhere")
    return wrong


def possible(
    settings: ProbabilitySettings, forecast: xr.Dataset, context: ProductContext
) -> tuple[list[Event], list[str], Climate | None]:
    """The events that this forecast can have, why the others cannot be, and the climate."""
    climate, no_climate = _climate(settings, forecast, context)
    able, lacking = [], []
    for event in expand(settings.events):
        missing = missing_channels(forecast, fields.channels_of(event.field))
        if missing:
            held = ", ".join(describe(forecast)) or "no variables"
            reason = f"the forecast lacks {', '.join(missing)}; it holds {held}"
        elif event.within_hours and not steps_of(event, context):
            reason = f"{event.within_hours:g} h are not whole steps of {context.step_hours} h"
        elif steps_of(event, context) > forecast.sizes[LEAD_TIME]:
            reason = f"the forecast is shorter than {event.within_hours:g} h"
        elif event.anomaly and climate is None:
            reason = no_climate
        elif event.anomaly and climate is not None and event.field not in climate.fields:
            reason = f"{climate.path} has no {event.field}"
        else:
            able.append(event)
            continue
        lacking.append(f"{event.name} left out: {reason}")
    return able, lacking, climate


def _climate(
    settings: ProbabilitySettings, forecast: xr.Dataset, context: ProductContext
) -> tuple[Climate | None, str]:
    if not any(event.anomaly for event in settings.events):
        return None, ""
    try:
        return climatology.of(settings.climatology, forecast, context), ""
    except MosaicError as error:
        return None, str(error)


def steps_of(event: Event, context: ProductContext) -> int:
    """Lead times in the event's period; 0 where they do not divide it."""
    if event.within_hours is None:
        return 1
    return fields.steps_within(event.within_hours, context) or 0


def _cube(
    name: str,
    events: list[Event],
    climate: Climate | None,
    forecast: xr.Dataset,
    context: ProductContext,
    window: int,
) -> Cube:
    sizes = tuple(forecast.sizes[dim] for dim in (LEAD_TIME, LATITUDE, LONGITUDE))
    coordinates = forecast.drop_vars(list(forecast.data_vars)).drop_dims(NUMBER)
    coordinates = coordinates[[str(k) for k in coordinates.coords if k != "level"]]
    coordinates.attrs = {}
    arrays = {
        event.name: Array(
            (LEAD_TIME, LATITUDE, LONGITUDE), split(sizes), sizes, _attributes(event, context)
        )
        for event in events
    }

    def blocks() -> Iterator[Block]:
        for field in dict.fromkeys(event.field for event in events):
            mine = [event for event in events if event.field == field]
            for event, values in of_field(mine, climate, forecast, context, window).items():
                array = xr.DataArray(values, dims=(LEAD_TIME, LATITUDE, LONGITUDE))
                yield Block({}, xr.Dataset({event: array}))

    title = "Probabilities of events over the members"
    attributes = {"ensemble_members": forecast.sizes[NUMBER]}
    return Cube(name, coordinates, arrays, blocks, lead_hours(forecast), attributes, title)


def _attributes(event: Event, context: ProductContext) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "long_name": f"probability of {event.words}",
        "units": "1",
        "field": event.field,
        "comparison": "greater" if event.above else "less",
        "threshold": event.threshold,
        "threshold_units": fields.units_of(event.field),
    }
    if event.within_hours:
        attributes["within_hours"] = event.within_hours
        attributes["comment"] = "NaN before the end of the first whole period"
    return attributes


def of_field(
    events: list[Event],
    climate: Climate | None,
    forecast: xr.Dataset,
    context: ProductContext,
    window: int,
) -> dict[str, Float]:
    """Probabilities (lead_time, latitude, longitude) of all events of one field, read once."""
    count = forecast.sizes[LEAD_TIME]
    shape = (count, forecast.sizes[LATITUDE], forecast.sizes[LONGITUDE])
    made = {event.name: np.full(shape, np.nan, np.float32) for event in events}
    longest = max(steps_of(event, context) for event in events)
    before: Float | None = None
    windows = fields.windows(count, window)
    read = fields.ahead(lambda steps: fields.members(forecast, events[0].field, steps), windows)
    for steps, now in zip(windows, read, strict=True):
        kept = now if before is None else np.concatenate((before, now), axis=1)
        first = steps.stop - kept.shape[1]
        for event in events:
            values = kept
            if event.anomaly:
                assert climate is not None
                values = kept - _normal(climate, event.field, forecast, slice(first, steps.stop))
            _fill(made[event.name], event.happens(values), steps, steps_of(event, context))
        before = kept[:, max(0, kept.shape[1] - longest + 1) :] if longest > 1 else None
    return made


def _normal(climate: Climate, field: str, forecast: xr.Dataset, steps: slice) -> Float:
    """Climatological means (lead_time, latitude, longitude) in the forecast's order."""
    times = forecast["valid_time"].values[steps]
    return climatology.like(
        np.stack([climate.at(f"{field}_mean", time) for time in times]), forecast
    )


def _fill(out: Float, happens: NDArray[np.bool_], steps: slice, period: int) -> None:
    """Shares of members for the lead times `steps`, whose fields end `happens`."""
    first = steps.stop - happens.shape[1]
    for step in range(max(steps.start, period - 1), steps.stop):
        inside = happens[:, step - period + 1 - first : step + 1 - first]
        out[step] = inside.any(axis=1).mean(axis=0)
