"""States of a Zarr archive in WeatherBench layout."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from mosaic_core import dims
from mosaic_core.channels import Channels
from mosaic_core.errors import (
    AnalysisMissing,
    AnalysisUnreadable,
    ConfigurationError,
    StoreUnreachable,
)
from mosaic_core.grid import LatLonGrid
from mosaic_core.storage import archive

_DIMENSIONS: Final = {
    "time": ("time", "valid_time"),
    dims.LEVEL: ("level", "pressure_level", "plev"),
    dims.LATITUDE: ("latitude", "lat"),
    dims.LONGITUDE: ("longitude", "lon"),
}


class Archive:
    """States of a Zarr archive on the model's grid; only the times asked for are read.

    Raises:
        ConfigurationError: another grid, or a channel that the archive does not hold.
        AnalysisUnreadable: not a Zarr archive with CF times.
    """

    def __init__(self, url: str, channels: Channels, grid: LatLonGrid) -> None:
        self.url, self.channels, self.grid = url, channels, grid
        self._group = self._open()
        self._axes = {name: self._axis(name) for name in (dims.LATITUDE, dims.LONGITUDE)}
        self.times = self._times()
        self._position = {int(t): i for i, t in enumerate(self.times.astype("int64"))}
        if len(self._position) != len(self.times):
            raise AnalysisUnreadable(f"{url} has a time twice", "each time once")
        self._require_grid()
        self._require_variables()
        self._levels = self._level_index()

    def has(self, time: datetime) -> bool:
        """Whether the time is on the axis; its fields may still be missing."""
        return _key(time) in self._position

    def state(self, time: datetime) -> NDArray[np.float32]:
        """(longitude, latitude, channel), float32, longitude and latitude ascending.

        Raises:
            AnalysisMissing: no such time, or one that was never written.
            AnalysisUnreadable: a chunk is damaged, or a value is not finite; it is named.
        """
        position = self._position.get(_key(time))
        if position is None:
            raise self._missing(time, "it is not on the axis")
        out = np.empty((self.grid.nlon, self.grid.nlat, len(self.channels)), np.float32)
        index = {channel: i for i, channel in enumerate(self.channels)}
        for name, levels in self.channels.variables.items():
            values = self._read(name, position, time)
            for channel, i in index.items():
                if channel.variable == name:
                    plane = values if not levels else values[self._levels[channel.level]]
                    out[..., i] = plane
        self._require_finite(out, time)
        return out

    def _read(self, name: str, position: int, time: datetime) -> NDArray[np.float32]:
        """([level,] longitude, latitude) in ascending order."""
        array: Any = self._group[name]
        names = _names(array)
        try:
            values = np.asarray(array[position], np.float32)
        except Exception as error:  # codecs and stores raise what they like
            raise AnalysisUnreadable(
                f"{name} at {time:%Y-%m-%dT%HZ} in {self.url}: {type(error).__name__}: {error}",
                "chunks that can be read",
                "write or copy this time again",
            ) from error
        if names[-2] in _DIMENSIONS[dims.LATITUDE]:
            values = np.swapaxes(values, -1, -2)
        if self._axes[dims.LATITUDE][0] > self._axes[dims.LATITUDE][-1]:
            values = values[..., ::-1]
        return values

    def _require_finite(self, state: NDArray[np.float32], time: datetime) -> None:
        broken = np.asarray(~np.isfinite(state)).any(axis=(0, 1), keepdims=True).ravel()
        if not broken.any():
            return
        if np.isnan(state).all():
            raise self._missing(time, "its fields were never written")
        bad = [str(c) for c, yes in zip(self.channels, broken.tolist(), strict=True) if yes]
        count = int(np.count_nonzero(~np.isfinite(state)))
        raise AnalysisUnreadable(
            f"{', '.join(bad[:4])} of {time:%Y-%m-%dT%HZ} in {self.url} not finite "
            f"({count} values of {len(bad)} channels)",
            "finite values",
            "mend the archive, or set `missing: skip` in the recipe",
        )

    def _missing(self, time: datetime, why: str) -> AnalysisMissing:
        return AnalysisMissing(
            f"{self.url} has no {time:%Y-%m-%dT%HZ}: {why}",
            "every time of a window",
            "complete the archive, or set `missing: skip` in the recipe",
        )

    def _open(self) -> zarr.Group:
        try:
            return zarr.open_group(archive(self.url), mode="r")
        except StoreUnreachable:
            raise
        except Exception as error:
            raise AnalysisUnreadable(
                f"{self.url} cannot be opened ({type(error).__name__}: {error})",
                "a Zarr archive in WeatherBench layout",
                "check the URL; `mosaic simulate` makes one",
            ) from error

    def _require_variables(self) -> None:
        absent = [name for name in self.channels.variables if name not in self._group]
        if absent:
            raise ConfigurationError(
                f"{self.url} has no {', '.join(absent)}",
                f"the variables {', '.join(self.channels.variables)}",
                "choose another archive or other channels",
            )
        for name, levels in self.channels.variables.items():
            names = _names(self._group[name])
            expected = 4 if levels else 3
            if len(names) != expected or names[0] not in _DIMENSIONS["time"]:
                raise AnalysisUnreadable(
                    f"{name} of {self.url} has the dimensions {', '.join(names)}",
                    "time, level (where there are levels), and latitude and longitude",
                )

    def _axis(self, dimension: str) -> NDArray[np.float64]:
        for name in _DIMENSIONS[dimension]:
            if name in self._group:
                return np.asarray(self._group[name][:], np.float64)
        raise AnalysisUnreadable(
            f"{self.url} has no {dimension}", f"one of {', '.join(_DIMENSIONS[dimension])}"
        )

    def _times(self) -> NDArray[np.datetime64]:
        from xarray.coding.times import decode_cf_datetime

        for name in _DIMENSIONS["time"]:
            if name in self._group:
                array = self._group[name]
                units = str(array.attrs.get("units", ""))
                try:
                    decoded = decode_cf_datetime(array[:], units, array.attrs.get("calendar"))
                    return np.asarray(decoded).astype("datetime64[h]")
                except (ValueError, TypeError) as error:
                    raise AnalysisUnreadable(
                        f"the times of {self.url}: {error}",
                        "CF units, as in hours since 1900-01-01",
                    ) from error
        raise AnalysisUnreadable(f"{self.url} has no time axis", "an array `time`")

    def _require_grid(self) -> None:
        latitude = np.sort(self._axes[dims.LATITUDE])
        fits = np.array_equal(latitude.shape, (self.grid.nlat,)) and np.allclose(
            latitude, self.grid.latitudes, atol=1e-3
        )
        longitude = self._axes[dims.LONGITUDE]
        fits = fits and longitude.shape == (self.grid.nlon,)
        if not fits or not np.allclose(longitude, self.grid.longitudes, atol=1e-3):
            raise ConfigurationError(
                f"{self.url} is on a grid of {longitude.size} x {latitude.size} points",
                f"the model's {self.grid}",
                "regrid the archive once; training reads it as it is",
            )

    def _level_index(self) -> dict[int | None, int]:
        wanted = {c.level for c in self.channels if c.level is not None}
        if not wanted:
            return {}
        stored = np.round(self._axis(dims.LEVEL)).astype(int).tolist()
        absent = sorted(wanted - set(stored))
        if absent:
            raise ConfigurationError(
                f"{self.url} has no levels {', '.join(map(str, absent))} hPa",
                f"those of the model among {', '.join(map(str, stored))}",
            )
        return {level: stored.index(level) for level in wanted}


def _names(array: Any) -> tuple[str, ...]:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not names:
        raise AnalysisUnreadable(f"{array.path} has no dimension names", "time, level, ...")
    return tuple(names)


def _key(time: datetime) -> int:
    return int(np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "h").astype("int64"))
