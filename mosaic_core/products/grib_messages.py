"""Messages of GRIB edition 2: what those of one forecast have in common, and files with an index.

Templates and code tables are those of WMO No. 306, Manual on Codes I.2. Beside each file stands its
index, a JSON object a message with `_offset` and `_length`, as ECMWF's open data has it, so that
one message can be fetched by a range request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import eccodes
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.dims import LATITUDE, LONGITUDE
from mosaic_core.errors import ConfigurationError
from mosaic_core.products.output import File, ProductError
from mosaic_core.products.product import ProductContext, lead_hours

Index = slice | NDArray[np.intp]
Keys = Mapping[str, Any]

MISSING: Final = 255
_TABLES: Final = 28


@dataclass(frozen=True)
class Packing:
    """`ccsds` (lossless compression of the packed values) or `simple`, and bits a value.

    The rounding is at most the range of a field / 2^(bits + 1).
    """

    packing: Literal["ccsds", "simple"] = "ccsds"
    bits: int = 16

    def __post_init__(self) -> None:
        if not 8 <= self.bits <= 24:
            raise ConfigurationError(f"bits {self.bits}", "8 to 24")


class Encoder:
    """Makes messages of the fields of one forecast.

    Raises:
        ProductError: a grid of unequal steps, or lead times that are not whole hours.
    """

    def __init__(self, forecast: xr.Dataset, context: ProductContext, packing: Packing) -> None:
        hours = lead_hours(forecast)
        if any(hour % 1 for hour in hours):
            raise ProductError(f"lead times {hours[:3]} h", "whole hours")
        lat, lon = (forecast[dim].values.astype(float) for dim in (LATITUDE, LONGITUDE))
        self._rows, self._columns = _order(lat, lon)
        self._keys = _keys_of_all(np.sort(lat), np.sort(lon % 360.0), context, packing)
        self._start = context.cycle.init_time

    def turned(self, values: NDArray[Any]) -> NDArray[Any]:
        """From north to south and from the prime meridian eastward: (..., latitude, longitude)."""
        return np.asarray(values[..., self._rows, :][..., self._columns])

    @contextmanager
    def template(self, number: int, level: int | None, keys: Keys) -> Iterator[int]:
        """A message without values, that those of a product definition template are cloned from.

        Args:
            level: in hPa; None for a field of the surface.
            keys: among them one that names the parameter; they are set in their order.
        """
        sample = "regular_ll_sfc_grib2" if level is None else "regular_ll_pl_grib2"
        handle = eccodes.codes_grib_new_from_samples(sample)
        placed = {} if level is None else {"typeOfLevel": "isobaricInhPa", "level": level}
        given = {"productDefinitionTemplateNumber": number, **self._keys, **keys, **placed}
        try:
            for key, value in given.items():
                eccodes.codes_set(handle, key, value)
            yield handle
        finally:
            eccodes.codes_release(handle)

    def said(self, param: str, level: int | None, step: str, kind: str) -> dict[str, str]:
        """What the index says of a message, in the words of ECMWF's."""
        keys = {
            "date": self._start.strftime("%Y%m%d"),
            "time": self._start.strftime("%H%M"),
            "step": step,
            "type": kind,
            "param": param,
            "levtype": "sfc" if level is None else "pl",
        }
        return keys if level is None else {**keys, "levelist": str(level)}


def message(template: int, keys: Keys, values: NDArray[Any]) -> bytes:
    """One message: a copy of a template with more keys, and values that `Encoder.turned` gave."""
    handle = eccodes.codes_clone(template)
    try:
        for key, value in keys.items():
            eccodes.codes_set(handle, key, value)
        eccodes.codes_set_values(handle, values.astype(np.float64).ravel())
        return bytes(eccodes.codes_get_message(handle))
    finally:
        eccodes.codes_release(handle)


@dataclass
class GribFile:
    """A file that grows, and the lines of its index."""

    content: bytearray = field(default_factory=bytearray)
    index: list[str] = field(default_factory=list)

    def add(self, message: bytes, said: Mapping[str, str]) -> None:
        place = {"_offset": len(self.content), "_length": len(message)}
        self.index.append(json.dumps({**said, **place}))
        self.content += message

    def files(self, folder: str, part: str, hour: float) -> Iterator[File]:
        """The file and its index; none where there is no message."""
        if self.content:
            name, title = f"{folder}/{part}_{hour:03.0f}h", f"GRIB2, {part}, +{hour:g} h"
            content, index = bytes(self.content), "".join(f"{line}\n" for line in self.index)
            grib, lines = "application/wmo-GRIB2", "application/x-ndjson"
            yield File(f"{name}.grib2", grib, content, None, (hour,), title)
            yield File(f"{name}.index", lines, index.encode(), None, (hour,), title)


def _order(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> tuple[Index, Index]:
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


def _keys_of_all(
    lat: NDArray[np.float64], lon: NDArray[np.float64], context: ProductContext, packing: Packing
) -> dict[str, Any]:
    start = context.cycle.init_time
    return {
        "tablesVersion": _TABLES,
        "centre": MISSING,
        "subCentre": MISSING,
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
        "backgroundProcess": MISSING,
        "generatingProcessIdentifier": MISSING,
        "packingType": f"grid_{packing.packing}",
        "bitsPerValue": packing.bits,
    }
