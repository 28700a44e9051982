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
from mosaic_core.errors import ConfigurationError, ForecastError, IntegrityError, MosaicError
from mosaic_core.publication import layout
from mosaic_core.storage import archive

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
        """One lead time (number, [level,] latitude, longitude) on the site's grid, not read yet;
        where it lies; every lead time of the forecast (h)."""


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


class Archive:
    """Forecasts of another model in a Zarr store with the layout of WeatherBench 2.

    Dimensions `time` (initial times), `prediction_timedelta`, [`number`,] [`level`,] `latitude`,
    `longitude`, in any order, with the names and units of WeatherBench variables; without `number`
    it is one forecast. Another grid is brought to the site's as analyses are.

    Args:
        url: a folder, `s3://`, `https://` or `gs://` (anonymous).
        name: of the model, such as `ifs-hres`.

    Raises:
        ConfigurationError: the name is that of the site's model, or cannot stand in a key.
        ForecastError: no store of forecasts.
    """

    def __init__(self, site: Site, url: str, name: str) -> None:
        if name == site.config.name:
            raise ConfigurationError(f"forecasts named {name}, as the site's own", "another name")
        layout.variant_prefix(name)
        self._site, self._url, self.name = site, url, name
        self.times = self._initial_times()
        leads = self._ds[dims.LEAD_TIME].values
        if leads.dtype.kind != "m":
            raise ForecastError(f"lead times of {url} are {leads.dtype}", "hours, by CF units")
        self.hours = _hours(leads)

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
            levels = self._ds[dims.LEVEL].values.tolist() if known.on_levels else [None]
            found += [Channel(name, level) for level in levels]
        if not found:
            raise ForecastError(
                f"{self._url} holds {', '.join(map(str, self._ds.data_vars)) or 'nothing'}",
                f"some of {', '.join(VARIABLES)}",
            )
        return Channels(tuple(found))

    def identity(self, due: Due) -> str:
        return f"{self._url} {due.cycle}"

    def open(self, due: Due) -> tuple[xr.Dataset, str, list[int]]:
        """Raises ForecastError where the archive cannot be read."""
        step = self._ds.isel(
            {dims.INIT_TIME: self.times.index(due.cycle.init_time),
             dims.LEAD_TIME: _place(self.hours, due, self._url)}
        )  # fmt: skip
        config = self._site.config
        wanted = {c.variable for c in self.channels if c in config.channel_set}
        levels = {c.level for c in config.channel_set}
        step = step[sorted(wanted)].drop_vars([dims.INIT_TIME, dims.LEAD_TIME])
        if dims.LEVEL in step.dims:
            there = [level for level in step[dims.LEVEL].values.tolist() if level in levels]
            step = step.sel({dims.LEVEL: there})
        with readable(self._url):
            if dims.NUMBER not in step.dims:
                step = step.expand_dims({dims.NUMBER: [0]})
            step = regrid_dataset(step, config.lat_lon, finer=self._site.profile.finer_grid)
        return step, self._url, self.hours

    @cached_property
    def _ds(self) -> xr.Dataset:
        try:
            ds = xr.open_zarr(archive(self._url), chunks=None, decode_timedelta=True)
        except MosaicError:
            raise
        except Exception as error:  # zarr, xarray and the file systems raise what they like
            raise ForecastError(
                f"{self._url} cannot be opened ({type(error).__name__}: {error})",
                "a Zarr store of forecasts in WeatherBench layout",
                "check the URL and the network",
            ) from error
        names = {found: name for name in _NAMES if (found := self._dimension(ds, name))}
        ds = ds.rename({found: name for found, name in names.items() if found != name})
        order = [d for d in _NAMES if d in ds.dims]
        east = ds[dims.LONGITUDE].values.astype(float) % 360.0
        north = ds[dims.LATITUDE].values.astype(float)
        ds = ds.assign_coords({dims.LONGITUDE: east, dims.LATITUDE: north})
        oriented: xr.Dataset = ds.sortby([dims.LATITUDE, dims.LONGITUDE]).transpose(*order, ...)
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
    return [int(hours) for hours in (values / np.timedelta64(1, "h")).astype(int).tolist()]


def _place(hours: list[int], due: Due, where: str) -> int:
    if due.lead_hours not in hours:
        raise ForecastError(
            f"{where} has no step at {due.lead_hours} h", "every step of its manifest"
        )
    return hours.index(due.lead_hours)
