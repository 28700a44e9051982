"""`grib_probabilities/*.grib2`: probabilities of events in GRIB edition 2, one file a lead time.

Product definition template 4.5 for an event at the lead time, 4.9 for one at any lead time of a
period: then its maximum (minimum) lies above (below) the limit. Values are percent. Probability
type (code table 4.9) 3 is above, 0 below the lower limit, as ECMWF encodes its probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

import eccodes
import numpy as np
import xarray as xr

from mosaic_core.channels import VARIABLES, Channel
from mosaic_core.products import fields
from mosaic_core.products.climatology import Climate
from mosaic_core.products.grib_messages import Encoder, GribFile, Keys, Packing, message
from mosaic_core.products.output import File, ProductError
from mosaic_core.products.probabilities import (
    Event,
    EventSettings,
    Float,
    ProbabilitySettings,
    of_field,
    possible,
)
from mosaic_core.products.product import Product, ProductContext, lead_hours, register

_ABOVE, _BELOW = 3, 0
_MAXIMUM, _MINIMUM = 2, 3
_ANOMALIES: Final[dict[str, dict[str, Any]]] = {
    "2m_temperature": {"shortName": "ta", "typeOfLevel": "heightAboveGround", "level": 2},
    "mean_sea_level_pressure": {"shortName": "presa", "typeOfLevel": "meanSea"},
    "temperature": {"shortName": "ta"},
}
"""Variables whose departure from the climate is a parameter of code table 4.2."""


@dataclass(frozen=True)
class GribProbabilitySettings:
    """Settings of the kind `grib_probabilities`.

    Attributes:
        events, climatology, window: as of the kind `probabilities`.
        packing, bits: see `Packing`.
    """

    events: tuple[EventSettings, ...]
    climatology: str | None = None
    packing: Literal["ccsds", "simple"] = "ccsds"
    bits: int = 16
    window: int = 8

    def __post_init__(self) -> None:
        Packing(self.packing, self.bits)
        _ = self.probabilities

    @property
    def probabilities(self) -> ProbabilitySettings:
        """The same events as the other kind has them, which checks them."""
        return ProbabilitySettings(self.events, self.climatology, self.window)


def make(product_id: str, settings: GribProbabilitySettings) -> Product:
    """The product; an event that cannot be had or encoded is left out, and named in the notes."""

    def notes(forecast: xr.Dataset, context: ProductContext) -> list[str]:
        return _encodable(settings, forecast, context)[1]

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[File]:
        events, lacking, climate = _encodable(settings, forecast, context)
        if not events:
            raise ProductError("; ".join(lacking), "an event to encode", "see `events`")
        encoder = Encoder(forecast, context, Packing(settings.packing, settings.bits))
        hours = lead_hours(forecast)
        files = [GribFile() for _ in hours]
        for field in dict.fromkeys(event.field for event in events):
            mine = [event for event in events if event.field == field]
            shares = of_field(mine, climate, forecast, context, settings.window)
            for event in mine:
                _add(files, hours, encoder, event, shares[event.name], context)
        for hour, file in zip(hours, files, strict=True):
            yield from file.files(product_id, "probabilities", hour)

    return Product(product_id, (), build, {"title": "GRIB2 of probabilities"}, notes=notes)


register("grib_probabilities", GribProbabilitySettings, make)


def _encodable(
    settings: GribProbabilitySettings, forecast: xr.Dataset, context: ProductContext
) -> tuple[list[Event], list[str], Climate | None]:
    """As `possible`, without the anomalies that are no parameter of GRIB."""
    events, lacking, climate = possible(settings.probabilities, forecast, context)
    able = [event for event in events if _parameter(event)]
    lacking += [
        f"{event.name} left out: GRIB2 has no parameter for the anomaly of {event.field}"
        for event in events
        if event not in able
    ]
    return able, lacking, climate


def _parameter(event: Event) -> dict[str, Any]:
    """Keys of the quantity, `shortName` first; none where GRIB has no parameter for it."""
    if re.fullmatch(r"(10m_)?wind(_\d+)?", event.field):
        name = "10si" if event.field == "10m_wind" else "ws"
        return {} if event.anomaly else {"shortName": name}
    variable = Channel.parse(event.field).variable
    if event.anomaly:
        return _ANOMALIES.get(variable, {})
    return {"shortName": VARIABLES[variable].short_name}


def _add(
    files: list[GribFile],
    hours: tuple[float, ...],
    encoder: Encoder,
    event: Event,
    shares: Float,
    context: ProductContext,
) -> None:
    """One message a lead time, but none before the end of the first whole period."""
    level = Channel.parse(fields.channels_of(event.field)[0]).level
    keys = {**_parameter(event), **_limit(event), **_period(event, context)}
    number = 9 if event.within_hours else 5
    with encoder.template(number, level, keys) as template:
        for missing in ("scaleFactorOfUpperLimit", "scaledValueOfUpperLimit"):
            eccodes.codes_set_missing(template, missing)
        name = str(eccodes.codes_get(template, "shortName"))
        for hour, file, share in zip(hours, files, encoder.turned(shares), strict=True):
            if np.isnan(share).all():
                continue
            first = hour - (event.within_hours or 0)
            step = f"{first:g}-{hour:g}" if event.within_hours else f"{hour:g}"
            said = encoder.said(name, level, step, "ep")
            limit = {"units": "%", "event": event.name, "threshold": f"{event.threshold:g}"}
            steps = {"startStep": int(first), "endStep": int(hour)}
            times = steps if event.within_hours else {"step": int(hour)}
            made = message(template, times, 100.0 * share.astype(np.float64))
            file.add(made, {**said, **limit, "comparison": ">" if event.above else "<"})


def _limit(event: Event) -> Keys:
    """The threshold as an integer of up to nine digits and a power of ten."""
    digits = Decimal(f"{event.threshold:.9g}").normalize()
    factor = max(0, -int(digits.as_tuple().exponent))
    return {
        "typeOfGeneratingProcess": 5,
        "probabilityType": _ABOVE if event.above else _BELOW,
        "forecastProbabilityNumber": 0,
        "totalNumberOfForecastProbabilities": 1,
        "scaleFactorOfLowerLimit": factor,
        "scaledValueOfLowerLimit": int(digits.scaleb(factor)),
    }


def _period(event: Event, context: ProductContext) -> Keys:
    """Of template 4.9: what is processed over the lead times of the period, and their distance."""
    if event.within_hours is None:
        return {}
    return {
        "typeOfStatisticalProcessing": _MAXIMUM if event.above else _MINIMUM,
        "typeOfTimeIncrement": 2,
        "indicatorOfUnitForTimeIncrement": 1,
        "timeIncrement": context.step_hours,
    }
