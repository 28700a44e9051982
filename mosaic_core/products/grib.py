"""`grib/*.grib2`: members and ensemble statistics in GRIB edition 2, one file a lead time.

Product definition templates of WMO No. 306, Manual on Codes I.2: 4.1 for a member, 4.2 for what is
derived of all members (code table 4.7). All fields are of an instant. Beside each file stands its
index, a JSON object a message with `_offset` and `_length`, as ECMWF's open data has it, so that
one message can be fetched by a range request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import eccodes
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.channels import VARIABLES, Channel
from mosaic_core.dims import LATITUDE, LEVEL, LONGITUDE, NUMBER
from mosaic_core.errors import ConfigurationError
from mosaic_core.products import fields
from mosaic_core.products.output import File, ProductError
from mosaic_core.products.product import (
    Product,
    ProductContext,
    lead_hours,
    missing_channels,
    register,
)

Float = NDArray[np.float32]
Index = slice | NDArray[np.intp]
Statistic = Literal["mean", "standard_deviation", "minimum", "maximum"]

MEDIA_TYPE: Final = "application/wmo-GRIB2"
ALL: Final = "all"
_TABLES: Final = 28
_MISSING: Final = 255
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
        lead_hours: lead times (h) to write; empty for every one.
        packing: `ccsds` (lossless compression of the packed values) or `simple`.
        bits: per value; the rounding is at most the range of a field / 2^(bits + 1).
        window: lead times read at a time; that of the forecast store's shards is best.
    """

    members: tuple[str, ...] | Literal["all"] = ()
    statistics: tuple[str, ...] | Literal["all"] = "all"
    derived: tuple[Statistic, ...] = ("mean", "standard_deviation")
    lead_hours: tuple[float, ...] = ()
    packing: Literal["ccsds", "simple"] = "ccsds"
    bits: int = 16
    window: int = 8

    def __post_init__(self) -> None:
        for name in (*_named(self.members), *_named(self.statistics)):
            Channel.parse(name)
        if not self.members and not (self.statistics and self.derived):
            raise ConfigurationError("no members and no statistics", "one of them")
        if not 8 <= self.bits <= 24:
            raise ConfigurationError(f"bits {self.bits}", "8 to 24")
        if self.window < 1:
            raise ConfigurationError(f"window {self.window}", "1 or more")


def _named(channels: tuple[str, ...] | str) -> tuple[str, ...]:
    return () if isinstance(channels, str) else channels


def make(product_id: str, settings: GribSettings) -> Product:
    """The product; channels that the forecast lacks are named in the notes."""

    def notes(forecast: xr.Dataset, context: ProductContext) -> list[str]:
        wanted = dict.fromkeys((*_named(settings.members), *_named(settings.statistics)))
        lacking = missing_channels(forecast, wanted)
        left = [f"the forecast lacks {', '.join(lacking)}: not written"] if lacking else []
        absent = sorted(set(settings.lead_hours) - set(lead_hours(forecast)))
        return left + [f"{h:g} h is no lead time of the forecast: not written" for h in absent]

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[File]:
        if forecast.sizes[NUMBER] < 2 and settings.statistics:
            raise ProductError("statistics of 1 member", "2 or more", "leave `statistics: []`")
        hours = lead_hours(forecast)
        if any(hour % 1 for hour in hours):
            raise ProductError(f"lead times {hours[:3]} h", "whole hours")
        for steps in fields.windows(len(hours), settings.window):
            wanted = [
                h for h in hours[steps] if not settings.lead_hours or h in settings.lead_hours
            ]
            if wanted:
                yield from _window(product_id, forecast, context, settings, steps, wanted)

    return Product(product_id, (), build, {"title": "GRIB2"}, notes=notes)


register("grib", GribSettings, make)


@dataclass
class _Writing:
    """A file that grows, and the lines of its index."""

    content: bytearray
    index: list[str]

    def add(self, message: bytes, keys: Mapping[str, str]) -> None:
        place = {"_offset": len(self.content), "_length": len(message)}
        self.index.append(json.dumps({**keys, **place}))
        self.content += message


def _window(
    folder: str,
    forecast: xr.Dataset,
    context: ProductContext,
    settings: GribSettings,
    steps: slice,
    wanted: Sequence[float],
) -> Iterator[File]:
    """Both files of every wanted lead time of a window, with their indices."""
    hours = lead_hours(forecast)[steps]
    files = {(kind, h): _Writing(bytearray(), []) for h in wanted for kind in KINDS}
    own, of = (_channels(forecast, names) for names in (settings.members, settings.statistics))
    numbers = [int(number) for number in forecast[NUMBER].values]
    rows, columns = _order(forecast)
    channels = list(dict.fromkeys((*own, *of)))
    read = fields.ahead(lambda c: fields.members(forecast, c.name, steps), channels)
    for channel, members in zip(channels, read, strict=True):
        values = members[..., rows, :][..., columns]
        with _templates(forecast, context, channel, settings) as (one, all_of_them):
            for hour in wanted:
                at = values[:, hours.index(hour)]
                if channel in own:
                    for number, field in zip(numbers, at, strict=True):
                        message = _message(one, hour, {"perturbationNumber": number}, field)
                        files["members", hour].add(
                            message, _keys(context, channel, hour, "pf", number)
                        )
                if channel in of:
                    for kind in settings.derived:
                        key = {"derivedForecast": _DERIVED[kind][0]}
                        message = _message(all_of_them, hour, key, _reduce(kind, at))
                        files["statistics", hour].add(
                            message, _keys(context, channel, hour, _DERIVED[kind][1])
                        )
    for (part, hour), written in files.items():
        if written.content:
            name, title = f"{folder}/{part}_{hour:03.0f}h", f"GRIB2, {part}, +{hour:g} h"
            index = "".join(f"{line}\n" for line in written.index).encode()
            yield File(f"{name}.grib2", MEDIA_TYPE, bytes(written.content), None, (hour,), title)
            yield File(f"{name}.index", "application/x-ndjson", index, None, (hour,), title)


KINDS: Final = ("members", "statistics")


def _channels(forecast: xr.Dataset, names: tuple[str, ...] | str) -> list[Channel]:
    """The channels named, but those that the forecast lacks; or all that it has."""
    if not isinstance(names, str):
        lacking = missing_channels(forecast, names)
        return [Channel.parse(name) for name in names if name not in lacking]
    found = []
    for key, array in forecast.data_vars.items():
        levels = array[LEVEL].values if LEVEL in array.dims else [None]
        found += [Channel(str(key), None if v is None else int(v)) for v in levels]
    return found


def _order(forecast: xr.Dataset) -> tuple[Index, Index]:
    """Rows from north to south, columns from the prime meridian eastward.

    Raises:
        ProductError: steps that are not equal.
    """
    lat, lon = (forecast[dim].values.astype(float) for dim in (LATITUDE, LONGITUDE))
    rows, columns = np.argsort(-lat), np.argsort(lon % 360.0)
    for axis in (lat[rows], lon[columns] % 360.0):
        if np.ptp(np.diff(axis)) > 1e-4:
            raise ProductError("a grid of unequal steps", "equal steps, for GRIB's regular_ll")
    return _index(rows), _index(columns)


def _index(order: NDArray[np.intp]) -> Index:
    """The same order as a slice where it is one: fields then need no copy."""
    step = -1 if order[0] > order[-1] else 1
    straight = np.array_equal(order, np.arange(order.size)[::step])
    return slice(None, None, step) if straight else order


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


@contextmanager
def _templates(
    forecast: xr.Dataset, context: ProductContext, channel: Channel, settings: GribSettings
) -> Iterator[tuple[int, int]]:
    """Messages of the channel without values, that those of a file are cloned from.

    One is of a member (template 4.1), one is derived of all members (4.2).
    """
    lat = np.sort(forecast[LATITUDE].values.astype(float))
    lon = np.sort(forecast[LONGITUDE].values.astype(float) % 360.0)
    start = context.cycle.init_time
    surface = channel.level is None
    keys: dict[str, Any] = {
        "tablesVersion": _TABLES,
        "centre": _MISSING,
        "subCentre": _MISSING,
        "productionStatusOfProcessedData": 0,
        "typeOfProcessedData": 4,
        "significanceOfReferenceTime": 1,
        "dataDate": int(start.strftime("%Y%m%d")),
        "dataTime": int(start.strftime("%H%M")),
        "Ni": lon.size,
        "Nj": lat.size,
        "latitudeOfFirstGridPointInDegrees": float(lat[-1]),
        "latitudeOfLastGridPointInDegrees": float(lat[0]),
        "longitudeOfFirstGridPointInDegrees": float(lon[0]),
        "longitudeOfLastGridPointInDegrees": float(lon[-1]),
        "iDirectionIncrementInDegrees": float(lon[1] - lon[0]),
        "jDirectionIncrementInDegrees": float(lat[1] - lat[0]),
        "typeOfGeneratingProcess": 4,
        "backgroundProcess": _MISSING,
        "generatingProcessIdentifier": _MISSING,
        "shortName": VARIABLES[channel.variable].short_name,
        "packingType": f"grid_{settings.packing}",
        "bitsPerValue": settings.bits,
    }
    if not surface:
        keys |= {"typeOfLevel": "isobaricInhPa", "level": channel.level}
    members = {"numberOfForecastsInEnsemble": forecast.sizes[NUMBER]}
    one = {"productDefinitionTemplateNumber": 1, **keys, **members}
    one["typeOfEnsembleForecast"] = _MISSING
    all_of_them = {"productDefinitionTemplateNumber": 2, **keys, **members}
    handles = []
    try:
        for given in (one, all_of_them):
            handles.append(eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2"))
            for key, value in given.items():
                eccodes.codes_set(handles[-1], key, value)
        yield handles[0], handles[1]
    finally:
        for handle in handles:
            eccodes.codes_release(handle)


def _message(template: int, hour: float, keys: Mapping[str, int], field: NDArray[Any]) -> bytes:
    handle = eccodes.codes_clone(template)
    try:
        for key, value in keys.items():
            eccodes.codes_set(handle, key, value)
        eccodes.codes_set(handle, "step", int(hour))
        eccodes.codes_set_values(handle, field.astype(np.float64).ravel())
        return bytes(eccodes.codes_get_message(handle))
    finally:
        eccodes.codes_release(handle)


def _keys(
    context: ProductContext, channel: Channel, hour: float, kind: str, number: int | None = None
) -> dict[str, str]:
    """What the index says of a message, in the words of ECMWF's."""
    start = context.cycle.init_time
    keys = {
        "date": start.strftime("%Y%m%d"),
        "time": start.strftime("%H%M"),
        "step": f"{hour:g}",
        "type": kind,
        "param": VARIABLES[channel.variable].short_name,
        "levtype": "sfc" if channel.level is None else "pl",
    }
    if channel.level is not None:
        keys["levelist"] = str(channel.level)
    if number is not None:
        keys["number"] = str(number)
    return keys
