"""Forecasts to be verified: those that a site has published, or an archive of another model's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import xarray as xr

from mosaic_core import dims
from mosaic_core.analysis.fields import RAW_UNITS, same_units
from mosaic_core.analysis.regrid import regrid_dataset
from mosaic_core.channels import VARIABLES, Channel, Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import (
    AnalysisUnreadable,
    ConfigurationError,
    ForecastError,
    IntegrityError,
    MosaicError,
    StoreUnreachable,
)
from mosaic_core.publication import layout
from mosaic_core.storage import open_archive

if TYPE_CHECKING:
    from mosaic_core.pipeline.site import Site
    from mosaic_core.pipeline.verifier import Due

_NAMES: Final = {
    dims.INIT_TIME: ("time", "init_time"),
    dims.LEAD_TIME: ("prediction_timedelta", "lead_time", "step"),
    dims.NUMBER: ("number", "realization", "ensemble_member"),
    dims.LEVEL: ("level", "isobaricInhPa", "pressure_level"),
    dims.LATITUDE: ("latitude", "lat"),
    dims.LONGITUDE: ("longitude", "lon"),
}
_OPTIONAL: Final = (dims.NUMBER, dims.LEVEL)


class Forecasts(Protocol):
    """Forecasts of one model."""

    @property
    def name(self) -> str:
        """Of the model, as it stands in the catalog and in keys."""

    @property
    def channels(self) -> Channels:
        """What they hold."""

    def identity(self, due: Due) -> str:
        """Which forecast it is of all that there ever were of its cycle."""

    def open(self, due: Due) -> tuple[xr.Dataset, str, list[int]]:
        """One lead time, not read yet; where it lies; every lead time of the forecast (h)."""

    def fields(self, step: xr.Dataset, channels: Channels) -> xr.Dataset:
        """Channels of a lead time: number, [level,] latitude, longitude of the site's grid."""


class Published:
    """The ensembles that a site has published."""

    def __init__(self, site: Site) -> None:
        self._site, self.name = site, site.config.name
        self.channels = site.config.channel_set

    def identity(self, due: Due) -> str:
        return layout.forecast_prefix(self.name, due.cycle, due.revision)

    def open(self, due: Due) -> tuple[xr.Dataset, str, list[int]]:
        """Raises ForecastError for a lead time that is not there, IntegrityError for damage."""
        from mosaic_core.ensemble.store import open_ensemble

        prefix = self.identity(due)
        where = self._site.store.url(prefix)
        with readable(where):
            ensemble = open_ensemble(self._site.store, prefix)
            hours = _hours(ensemble[dims.LEAD_TIME].values)
        return ensemble.isel({dims.LEAD_TIME: _place(hours, due, where)}), where, hours

    def fields(self, step: xr.Dataset, channels: Channels) -> xr.Dataset:
        return step


class Archive:
    """Forecasts of another model in a Zarr store with the layout of WeatherBench 2.

    Dimensions `time` (initial times), `prediction_timedelta`, [`number`,] [`level`,] `latitude`,
    `longitude`, in any order, with the names and units of WeatherBench variables; without `number`
    it is one forecast. Another grid is brought to the site's as analyses are.

    Args:
        url: a folder, `s3://`, `https://` or `gs://` (anonymous).
        name: of the model, such as `ifs-hres`.

    Raises:
        ConfigurationError: the name is that of a model with runs here, or cannot stand in a key.
        ForecastError: no store of forecasts, or on a grid that cannot be brought to the site's.
        StoreUnreachable: it cannot be reached.
    """

    def __init__(self, site: Site, url: str, name: str) -> None:
        layout.variant_prefix(name)
        if name == site.config.name or site.catalog.runs(variant=name, limit=1):
            raise ConfigurationError(f"forecasts named {name}, as some made here", "another name")
        self._site, self._url, self.name = site, url, name
        self.times = self._initial_times()
        leads = self._ds[dims.LEAD_TIME].values
        if leads.dtype.kind != "m":
            raise ForecastError(f"lead times of {url} are {leads.dtype}", "hours, by CF units")
        self.hours = _hours(leads)
        self._on_grid(self._ds[[dims.LATITUDE, dims.LONGITUDE]])

    @cached_property
    def channels(self) -> Channels:
        """Channels of the archive that have the units of WeatherBench.

        Raises:
            ForecastError: none, or one in other units.
        """
        found: list[Channel] = []
        for name, known in VARIABLES.items():
            array = self._ds.get(name)
            if array is None:
                continue
            said = array.attrs.get("units")
            if said is not None and not same_units(str(said), RAW_UNITS[name]):
                raise ForecastError(f"{name} of {self._url} is in {said}", RAW_UNITS[name])
            if known.on_levels and dims.LEVEL not in array.dims:
                raise ForecastError(f"{name} of {self._url} has no levels", "a dimension level")
            levels = self._ds[dims.LEVEL].values.tolist() if known.on_levels else [None]
            found += [Channel(name, level) for level in levels]
        if not found:
            raise ForecastError(
                f"{self._url} holds {', '.join(map(str, self._ds.data_vars)) or 'nothing'}",
                f"some of {', '.join(VARIABLES)}",
            )
        return Channels(tuple(found))

    def identity(self, due: Due) -> str:
        return f"{self.name} {due.cycle}"

    def open(self, due: Due) -> tuple[xr.Dataset, str, list[int]]:
        step = self._ds.isel(
            {dims.INIT_TIME: self.times.index(due.cycle.init_time),
             dims.LEAD_TIME: _place(self.hours, due, self._url)}
        )  # fmt: skip
        return step.drop_vars([dims.INIT_TIME, dims.LEAD_TIME]), self._url, self.hours

    def fields(self, step: xr.Dataset, channels: Channels) -> xr.Dataset:
        """Read as they lie, turned in memory.

        Raises:
            ForecastError: what is there cannot be decoded.
            StoreUnreachable: the archive cannot be reached.
        """
        levels = {c.level for c in channels}
        part = step[list(dict.fromkeys(c.variable for c in channels))]
        if dims.LEVEL in part.dims:
            there = [level for level in part[dims.LEVEL].values.tolist() if level in levels]
            part = part.sel({dims.LEVEL: there})
        try:
            part = part.load()
        except MosaicError:
            raise
        except (RuntimeError, ValueError, KeyError) as error:
            raise ForecastError(
                f"{self._url} cannot be read: {error}", "chunks that can be decoded"
            ) from error
        except Exception as error:  # networks raise what they like
            raise StoreUnreachable(
                f"{self._url} cannot be reached ({type(error).__name__}: {error})",
                "an archive that answers",
            ) from error
        if dims.NUMBER not in part.dims:
            part = part.expand_dims({dims.NUMBER: [0]})
        return self._on_grid(part.transpose(*(d for d in _NAMES if d in part.dims)))

    def _on_grid(self, part: xr.Dataset) -> xr.Dataset:
        try:
            return regrid_dataset(
                part, self._site.config.lat_lon, finer=self._site.profile.finer_grid
            )
        except (ConfigurationError, AnalysisUnreadable) as error:
            raise ForecastError(
                f"{self._url}: {error.found}", error.expected, error.action
            ) from error

    @cached_property
    def _ds(self) -> xr.Dataset:
        ds = open_archive(self._url, ForecastError, "forecasts", decode_timedelta=True)
        names = {found: name for name in _NAMES if (found := self._dimension(ds, name))}
        ds = ds.rename({found: name for found, name in names.items() if found != name})
        east = ds[dims.LONGITUDE].values.astype(float) % 360.0
        north = ds[dims.LATITUDE].values.astype(float)
        ds = ds.assign_coords({dims.LONGITUDE: east, dims.LATITUDE: north})
        oriented: xr.Dataset = ds.sortby([dims.LATITUDE, dims.LONGITUDE])
        return oriented

    def _dimension(self, ds: xr.Dataset, name: str) -> str | None:
        found = next((known for known in _NAMES[name] if known in ds.dims), None)
        if found is None and name not in _OPTIONAL:
            raise ForecastError(
                f"{self._url} has dimensions {', '.join(map(str, ds.dims))}",
                f"one of {', '.join(_NAMES[name])}",
            )
        return found

    def _initial_times(self) -> list[datetime]:
        values = self._ds[dims.INIT_TIME].values
        if values.dtype.kind != "M":
            raise ForecastError(
                f"the initial times of {self._url} are {values.dtype} without CF units",
                "units such as `hours since 1900-01-01`",
            )
        seconds = values.astype("datetime64[s]").astype(np.int64).tolist()
        times = [datetime.fromtimestamp(s, UTC) for s in seconds]
        odd = [time for time in times if Cycle.latest_before(time).init_time != time]
        if odd:
            raise ForecastError(
                f"{self._url} has a forecast from {odd[0]:%Y-%m-%dT%H:%MZ}",
                "initial times of 00, 06, 12 and 18 UTC",
            )
        return times


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turns what reading raises into IntegrityError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise IntegrityError(
            f"{where} cannot be read: {error}",
            "the forecast as it was written",
            "`mosaic products verify` says what is damaged of what was published here",
        ) from error


def _hours(values: Any) -> list[int]:
    hours = values / np.timedelta64(1, "h")
    if (hours != np.round(hours)).any():
        raise ForecastError(f"lead times of {', '.join(map(str, hours))} h", "whole hours")
    return [int(each) for each in hours.tolist()]


def _place(hours: list[int], due: Due, where: str) -> int:
    if due.lead_hours not in hours:
        raise ForecastError(
            f"{where} has no step at {due.lead_hours} h", "every step of its manifest"
        )
    return hours.index(due.lead_hours)
