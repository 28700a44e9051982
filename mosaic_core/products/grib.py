"""`grib/*.grib2`: members and ensemble statistics in GRIB edition 2, one file a lead time.

Product definition templates 4.1 for a member, 4.2 for what is derived of all members (code table
4.7) and 4.6 for a percentile. All fields are of an instant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.channels import VARIABLES, Channel
from mosaic_core.dims import LEVEL, NUMBER
from mosaic_core.errors import ConfigurationError
from mosaic_core.products import fields
from mosaic_core.products.grib_messages import MISSING, Encoder, GribFile, Packing, message
from mosaic_core.products.output import File, ProductError
from mosaic_core.products.product import (
    Product,
    ProductContext,
    lead_hours,
    missing_channels,
    register,
)
from mosaic_core.products.statistics import statistics

Float = NDArray[np.float32]
Statistic = Literal["mean", "standard_deviation", "minimum", "maximum"]
Named = tuple[str, ...] | Literal["all"]

_TEMPLATES: Final[dict[str, tuple[int, dict[str, int]]]] = {
    "members": (1, {"typeOfEnsembleForecast": MISSING}),
    "statistics": (2, {}),
    "percentiles": (6, {}),
}
"""Parts: the number of the product definition template, and keys of it."""
_DERIVED: Final[dict[str, tuple[int, str]]] = {
    "mean": (0, "em"),
    "standard_deviation": (4, "es"),
    "minimum": (8, "emin"),
    "maximum": (9, "emax"),
}
"""Number in code table 4.7, and `type` in the index."""


@dataclass(frozen=True)
class GribSettings:
    """Settings of the kind `grib`.

    Attributes:
        members: channels of which every member is written; `all` is every channel.
        statistics: channels of which statistics are written; `all` is every channel.
        derived: the statistics.
        percentiles: channels of which percentiles are written; `all` is every channel.
        percents: the percentiles, whole numbers of percent.
        lead_hours: lead times (h) to write; empty for every one.
        packing, bits: see `Packing`.
        window: lead times read at a time; that of the forecast store's shards is best.
    """

    members: Named = ()
    statistics: Named = "all"
    derived: tuple[Statistic, ...] = ("mean", "standard_deviation")
    percentiles: Named = ()
    percents: tuple[int, ...] = (10, 25, 50, 75, 90)
    lead_hours: tuple[float, ...] = ()
    packing: Literal["ccsds", "simple"] = "ccsds"
    bits: int = 16
    window: int = 8

    def __post_init__(self) -> None:
        for name in self.named:
            Channel.parse(name)
        made = (self.members, self.statistics and self.derived, self.percentiles and self.percents)
        if not any(made):
            raise ConfigurationError("no members, statistics or percentiles", "one of them")
        if not all(0 <= percent <= 100 for percent in self.percents):
            raise ConfigurationError(f"percents {self.percents}", "0 to 100")
        if self.window < 1:
            raise ConfigurationError(f"window {self.window}", "1 or more")
        Packing(self.packing, self.bits)

    @property
    def named(self) -> list[str]:
        """Channels that are named, each once."""
        parts = (self.members, self.statistics, self.percentiles)
        return list(dict.fromkeys(c for part in parts if not isinstance(part, str) for c in part))


def make(product_id: str, settings: GribSettings) -> Product:
    """The product; channels that the forecast lacks are named in the notes."""

    def notes(forecast: xr.Dataset, context: ProductContext) -> list[str]:
        lacking = missing_channels(forecast, settings.named)
        left = [f"the forecast lacks {', '.join(lacking)}: not written"] if lacking else []
        absent = sorted(set(settings.lead_hours) - set(lead_hours(forecast)))
        return left + [f"{h:g} h is no lead time of the forecast: not written" for h in absent]

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[File]:
        if forecast.sizes[NUMBER] < 2 and (settings.statistics or settings.percentiles):
            raise ProductError(
                "statistics of 1 member", "2 or more",
                "leave `statistics: []` and no percentiles",
            )  # fmt: skip
        encoder = Encoder(forecast, context, Packing(settings.packing, settings.bits))
        hours = lead_hours(forecast)
        for steps in fields.windows(len(hours), settings.window):
            wanted = [
                h for h in hours[steps] if not settings.lead_hours or h in settings.lead_hours
            ]
            if wanted:
                yield from _window(product_id, forecast, encoder, settings, steps, wanted)

    return Product(product_id, (), build, {"title": "GRIB2"}, notes=notes)


register("grib", GribSettings, make)


def _window(
    folder: str,
    forecast: xr.Dataset,
    encoder: Encoder,
    settings: GribSettings,
    steps: slice,
    wanted: Sequence[float],
) -> Iterator[File]:
    """All files of every wanted lead time of a window, with their indices."""
    hours = lead_hours(forecast)[steps]
    files = {(part, hour): GribFile() for hour in wanted for part in _TEMPLATES}
    named = (settings.members, settings.statistics, settings.percentiles)
    chosen = {p: _channels(forecast, names) for p, names in zip(_TEMPLATES, named, strict=True)}
    channels = list(dict.fromkeys(channel for part in chosen.values() for channel in part))
    read = fields.ahead(lambda c: fields.members(forecast, c.name, steps), channels)
    for channel, members in zip(channels, read, strict=True):
        values = encoder.turned(members)
        known, level = VARIABLES[channel.variable].short_name, channel.level
        for part in (part for part in chosen if channel in chosen[part]):
            number, keys = _TEMPLATES[part]
            if part != "percentiles":
                keys = {**keys, "numberOfForecastsInEnsemble": forecast.sizes[NUMBER]}
            with encoder.template(number, level, {"shortName": known, **keys}) as template:
                for hour in wanted:
                    at = values[:, hours.index(hour)]
                    for own, said, field in _FIELDS[part](settings, forecast, at):
                        made = message(template, {**own, "step": int(hour)}, field)
                        kind = encoder.said(known, level, f"{hour:g}", said["type"])
                        files[part, hour].add(made, {**kind, **said})
    for (part, hour), file in files.items():
        yield from file.files(folder, part, hour)


def _channels(forecast: xr.Dataset, names: Named) -> list[Channel]:
    """The channels named, but those that the forecast lacks; or all that it has."""
    if not isinstance(names, str):
        lacking = missing_channels(forecast, names)
        return [Channel.parse(name) for name in names if name not in lacking]
    found = []
    for key, array in forecast.data_vars.items():
        levels = array[LEVEL].values if LEVEL in array.dims else [None]
        found += [Channel(str(key), None if v is None else int(v)) for v in levels]
    return found


Message = tuple[dict[str, int], dict[str, str], NDArray[Any]]
"""Keys of the template, keys of the index, and the field."""


def _members(settings: GribSettings, forecast: xr.Dataset, at: Float) -> Iterator[Message]:
    for number, field in zip(forecast[NUMBER].values.tolist(), at, strict=True):
        yield {"perturbationNumber": number}, {"type": "pf", "number": str(number)}, field


def _statistics(settings: GribSettings, forecast: xr.Dataset, at: Float) -> Iterator[Message]:
    for name in settings.derived:
        number, kind = _DERIVED[name]
        yield {"derivedForecast": number}, {"type": kind}, _reduce(name, at)


def _percentiles(settings: GribSettings, forecast: xr.Dataset, at: Float) -> Iterator[Message]:
    made = statistics(at, tuple(percent / 100 for percent in settings.percents))
    for percent, field in zip(settings.percents, made["quantile"], strict=True):
        yield {"percentileValue": percent}, {"type": "pb", "quantile": f"{percent}:100"}, field


_FIELDS: Final = {"members": _members, "statistics": _statistics, "percentiles": _percentiles}


def _reduce(name: str, members: Float) -> NDArray[np.float64]:
    """One field of (number, latitude, longitude); sums run in float64."""
    if name in ("minimum", "maximum"):
        return np.asarray((members.min if name == "minimum" else members.max)(axis=0), np.float64)
    mean = members.mean(axis=0, dtype=np.float64)
    if name == "mean":
        return np.asarray(mean)
    squares = np.zeros_like(mean)
    for member in members:
        squares += (member - mean) ** 2
    return np.asarray(np.sqrt(squares / (len(members) - 1)))
