"""Analyses in a Zarr store with the layout of WeatherBench 2: local, S3, HTTP or GCS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import numpy as np
import xarray as xr

from mosaic_core import dims
from mosaic_core.analysis.fields import (
    RAW_UNITS,
    FieldKey,
    Oriented,
    Piece,
    Plane,
    Reading,
    orient,
    same_units,
    sha256,
    time_values,
    to_datetimes,
)
from mosaic_core.analysis.sources.base import ArchiveSource, CommonSettings, Index
from mosaic_core.errors import (
    AnalysisMissing,
    AnalysisUnreadable,
    ConfigurationError,
)
from mosaic_core.settings import build
from mosaic_core.storage import open_archive

_DIMENSIONS: Final = {
    dims.VALID_TIME: ("time", "valid_time"),
    dims.LEVEL: ("level", "isobaricInhPa", "pressure_level", "plev"),
    dims.LATITUDE: ("latitude", "lat"),
    dims.LONGITUDE: ("longitude", "lon"),
}


@dataclass(frozen=True, kw_only=True)
class ZarrSettings(CommonSettings):
    """url: a local path, `s3://`, `http(s)://` or `gs://` (read anonymously).

    names: what a quantity is called in the store, where it is not its WeatherBench name; also for
    `relative_humidity` and `geopotential_height`.
    """

    url: str
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.names) - set(RAW_UNITS))
        if unknown:
            raise ConfigurationError(
                f"names for {', '.join(unknown)}", f"some of {', '.join(RAW_UNITS)}"
            )


class ZarrSource(ArchiveSource):
    """Only the chunks of the fields asked for are read."""

    kind = "zarr"

    def __init__(self, settings: ZarrSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> ZarrSource:
        return cls(build(ZarrSettings, settings, "source zarr"))

    def look(self) -> str:
        """What there is, in words, for `mosaic doctor`; raises what `fetch` would."""
        return f"{self._axis(dims.VALID_TIME).size} times in {self.settings.url}"

    def index(self, valid_time: datetime) -> Index:
        times = self._axis(dims.VALID_TIME)
        (wanted,) = time_values([valid_time])
        found = int((times == wanted).sum())
        if found > 1:
            raise AnalysisUnreadable(
                f"{self.settings.url} has {valid_time:%Y-%m-%dT%H:%MZ} {found} times",
                "each time once",
                "take the superfluous copy out of the store",
            )
        if found == 0:
            ends = to_datetimes(times[[0, -1]]) if times.size else ()
            span = " to ".join(f"{t:%Y-%m-%dT%HZ}" for t in ends) or "nothing"
            raise AnalysisMissing(f"not in {self.settings.url}, which holds {span}")
        return Index(frozenset(self._keys), self.settings.url)

    def read(self, valid_time: datetime, keys: frozenset[FieldKey]) -> Reading:
        (wanted,) = time_values([valid_time])
        at = int(np.flatnonzero(self._axis(dims.VALID_TIME) == wanted)[0])
        planes: dict[FieldKey, Plane] = {}
        pieces = []
        oriented: Oriented | None = None
        for key in sorted(keys):
            oriented = self._plane(key, at)
            planes[key] = oriented.values
            where = f"{self.settings.url}/{self._name(key.variable)}"
            pieces.append(Piece(where, sha256(oriented.values.tobytes()), field=str(key)))
        if oriented is None:
            raise AnalysisMissing(f"no field to read from {self.settings.url}")
        return Reading(oriented.grid, planes, pieces, oriented.how, ())

    @cached_property
    def _ds(self) -> xr.Dataset:
        return open_archive(
            self.settings.url, AnalysisUnreadable, "analyses", decode_timedelta=False
        )

    def _dimension(self, dimension: str) -> str:
        for name in _DIMENSIONS[dimension]:
            if name in self._ds.dims:
                return name
        raise AnalysisUnreadable(
            f"{self.settings.url} has dimensions {', '.join(map(str, self._ds.dims))}",
            f"one of {', '.join(_DIMENSIONS[dimension])}",
        )

    def _axis(self, dimension: str) -> Any:
        coordinate = self._ds[self._dimension(dimension)]
        values = coordinate.values
        if dimension == dims.VALID_TIME:
            if values.dtype.kind != "M":
                raise AnalysisUnreadable(
                    f"the times of {self.settings.url} are {values.dtype} without CF units",
                    "units such as `hours since 1900-01-01`",
                )
            return values.astype("datetime64[ns]")
        if dimension == dims.LEVEL:
            scale = 100.0 if coordinate.attrs.get("units") == "Pa" else 1.0
            return np.round(values / scale).astype(int)
        return values.astype(float)

    @cached_property
    def _keys(self) -> set[FieldKey]:
        keys = set()
        for variable in RAW_UNITS:
            if (array := self._ds.get(self._name(variable))) is None:
                continue
            has_levels = any(name in array.dims for name in _DIMENSIONS[dims.LEVEL])
            levels = self._axis(dims.LEVEL).tolist() if has_levels else [0]
            keys |= {FieldKey(variable, level) for level in levels}
        return keys

    def _plane(self, key: FieldKey, at: int) -> Oriented:
        array = self._ds[self._name(key.variable)]
        self._require_units(key.variable, array)
        chosen = {self._dimension(dims.VALID_TIME): at}
        if key.level:
            chosen[self._dimension(dims.LEVEL)] = self._axis(dims.LEVEL).tolist().index(key.level)
        rows, columns = self._dimension(dims.LATITUDE), self._dimension(dims.LONGITUDE)
        part = array.isel(chosen)
        if set(part.dims) != {rows, columns}:
            raise AnalysisUnreadable(
                f"{array.name} of {self.settings.url} has dimensions {array.dims}",
                "time, level, latitude and longitude, in any order",
            )
        try:
            values = part.transpose(rows, columns).values
        except Exception as error:  # a missing or damaged chunk
            raise AnalysisUnreadable(
                f"{key} in {self.settings.url}: {type(error).__name__}: {error}",
                "chunks that can be read",
                "write or copy this time again",
            ) from error
        return orient(values, self._axis(dims.LONGITUDE), self._axis(dims.LATITUDE))

    def _require_units(self, variable: str, array: xr.DataArray) -> None:
        said, expected = array.attrs.get("units"), RAW_UNITS[variable]
        if said is not None and not same_units(str(said), expected):
            raise AnalysisUnreadable(
                f"{array.name} of {self.settings.url} is in {said}",
                expected,
                "choose another source, or a rule under `derive`",
            )

    def _name(self, variable: str) -> str:
        return self.settings.names.get(variable, variable)
