"""What sources hand over: one field at a time, in one orientation, with where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core import dims
from mosaic_core.channels import VARIABLES, Channel, Channels
from mosaic_core.errors import AnalysisUnreadable
from mosaic_core.grid import LatLonGrid

Plane = NDArray[np.float32]


@dataclass(frozen=True, order=True)
class FieldKey:
    """A quantity at a level (hPa; 0 for the surface), by WeatherBench name.

    Beyond the names of channels there are `geopotential_height` (gpm) and `relative_humidity` (%),
    which some sources give instead.
    """

    variable: str
    level: int = 0

    @classmethod
    def of(cls, channel: Channel) -> FieldKey:
        return cls(channel.variable, channel.level or 0)

    def __str__(self) -> str:
        return f"{self.variable} at {self.level} hPa" if self.level else self.variable


RAW_UNITS: dict[str, str] = {
    **{name: variable.units for name, variable in VARIABLES.items()},
    "geopotential_height": "gpm",
    "relative_humidity": "%",
}


def same_units(one: str, other: str) -> bool:
    """Whether two spellings mean the same units: `m s**-1`, `m s^-1` and `m/s` do."""

    def plain(units: str) -> str:
        return units.replace("**", "").replace("^", "").replace(" ", "").replace("m/s", "ms-1")

    return plain(one) == plain(other)


@dataclass(frozen=True)
class Piece:
    """Something that was read: where, which bytes of it, and their sha256."""

    where: str
    sha256: str
    offset: int | None = None
    length: int | None = None
    field: str = ""
    step_hours: int | None = None


@dataclass(frozen=True)
class Orientation:
    """What was done to the axes: columns rolled left, rows reversed."""

    rolled: int = 0
    flipped: bool = False
    first_longitude: float = 0.0
    first_latitude: float = 90.0


@dataclass(frozen=True)
class Reading:
    """The fields of one valid time, on one grid, oriented (latitude and longitude ascend)."""

    grid: LatLonGrid
    planes: Mapping[FieldKey, Plane]
    pieces: Sequence[Piece]
    orientation: Orientation
    notes: Sequence[str] = ()


@dataclass
class Provenance:
    """How one valid time came about; kept as JSON in the attributes of the dataset."""

    source: str
    kind: str
    valid_time: str
    pieces: list[Piece]
    messages: int
    orientation: Orientation
    derived: dict[str, str] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def orient(values: NDArray[Any], longitudes: NDArray[Any], latitudes: NDArray[Any]) -> Oriented:
    """Turn planes (..., latitude, longitude) so that both axes ascend, longitude in [0, 360).

    A last column that repeats the first (0 and 360) is refused, not dropped.

    Raises:
        AnalysisUnreadable: the coordinates are not those of a regular grid.
    """
    if not (np.isfinite(longitudes).all() and np.isfinite(latitudes).all()):
        raise AnalysisUnreadable("coordinates that are not finite", "degrees")
    lon = np.round(np.mod(np.asarray(longitudes, float), 360.0), 6) % 360.0
    lat = np.asarray(latitudes, float)
    flipped = bool(lat[0] > lat[-1])
    if flipped:
        lat, values = lat[::-1], values[..., ::-1, :]
    first = int(lon.argmin())
    lon = np.roll(lon, -first)
    if (np.diff(lon) <= 0).any() or (np.diff(lat) <= 0).any():
        raise AnalysisUnreadable(
            f"longitudes {longitudes[0]:g}..{longitudes[-1]:g}, "
            f"latitudes {latitudes[0]:g}..{latitudes[-1]:g} are not in order, or repeat",
            "each point of the circle once, eastward, and rows in order",
        )
    if first:
        values = np.roll(values, -first, axis=-1)
    grid = LatLonGrid(tuple(lon.tolist()), tuple(np.clip(lat, -90, 90).tolist()))
    how = Orientation(first, flipped, float(longitudes[0]), float(latitudes[0]))
    return Oriented(np.ascontiguousarray(values, np.float32), grid, how)


@dataclass(frozen=True)
class Oriented:
    values: Plane
    grid: LatLonGrid
    how: Orientation


def assemble(
    channels: Channels,
    times: Sequence[datetime],
    grid: LatLonGrid,
    planes: Sequence[Mapping[FieldKey, Plane]],
) -> xr.Dataset:
    """The analysis dataset: one variable a quantity, (valid_time, [level,] latitude, longitude)."""
    levels = sorted({c.level for c in channels if c.level is not None})
    variables: dict[str, Any] = {}
    for name, own in channels.variables.items():
        variable = VARIABLES[name]
        attrs = {"units": variable.units, "standard_name": variable.standard_name}
        plane_dims = (dims.LATITUDE, dims.LONGITUDE)
        if not own:
            data = np.stack([state[FieldKey(name)] for state in planes])
            variables[name] = ((dims.VALID_TIME, *plane_dims), data, attrs)
            continue
        if set(own) != set(levels):
            attrs["levels"] = " ".join(map(str, sorted(own)))
        empty = np.full((grid.nlat, grid.nlon), np.nan, np.float32)
        data = np.stack(
            [
                np.stack([state[FieldKey(name, lv)] if lv in own else empty for lv in levels])
                for state in planes
            ]
        )
        variables[name] = ((dims.VALID_TIME, dims.LEVEL, *plane_dims), data, attrs)
    coords: dict[str, Any] = {
        dims.VALID_TIME: time_values(times),
        dims.LATITUDE: np.asarray(grid.latitudes),
        dims.LONGITUDE: np.asarray(grid.longitudes),
    }
    if levels:
        coords[dims.LEVEL] = np.asarray(levels, np.int32)
    ds = xr.Dataset(variables, coords, {"Conventions": "CF-1.11"})
    for name, attrs in dims.COORDINATE_ATTRIBUTES.items():
        if name in ds.coords:
            ds[name].attrs.update(attrs)
    return ds


def plane_of(ds: xr.Dataset, channel: Channel) -> xr.DataArray:
    """One channel of an analysis, (valid_time, latitude, longitude)."""
    array = ds[channel.variable]
    if channel.level is not None:
        array = array.sel({dims.LEVEL: channel.level})
    return array.transpose(dims.VALID_TIME, dims.LATITUDE, dims.LONGITUDE)


def time_values(times: Iterable[datetime]) -> NDArray[np.datetime64]:
    """UTC times as datetime64[ns]."""
    plain = [time.astimezone(UTC).replace(tzinfo=None) for time in times]
    return np.array(plain, dtype="datetime64[ns]")


def to_datetimes(values: NDArray[Any]) -> tuple[datetime, ...]:
    """datetime64 values as UTC times."""
    seconds = values.astype("datetime64[s]").astype(np.int64)
    return tuple(datetime.fromtimestamp(int(s), UTC) for s in seconds)


def sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
