"""The ensemble at a place: every member and lead time of some channels at the nearest grid point.

    series("s3://bucket/prefix", 48.1, 11.6, ["2m_temperature", "geopotential_500"])

reads four chunks a channel and shard of the store, not whole fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaic_core.channels import Channel
from mosaic_core.cycle import Cycle
from mosaic_core.dims import LATITUDE, LEVEL, LONGITUDE
from mosaic_core.errors import ConfigurationError, PublicationError
from mosaic_core.publication import client

if TYPE_CHECKING:
    import xarray as xr


def series(
    url: str | Path,
    latitude: float,
    longitude: float,
    channels: Sequence[str],
    cycle: Cycle | str | None = None,
    variant: str | None = None,
) -> xr.Dataset:
    """A variable for each channel, dimensions `number, lead_time`, in the channel's units.

    Args:
        latitude, longitude: degrees; longitudes from -180 or from 0.
        channels: such as `2m_temperature`, `geopotential_500`.
        cycle: such as `2026-11-20T00Z`; None for the newest.

    Raises:
        ConfigurationError: no such place or channel.
        PublicationError: the cycle is not published, or does not hold a channel.
    """
    ensemble = client.open_forecast(url, cycle, "ensemble", variant)
    return at_place(ensemble, latitude, longitude, channels)


def at_place(
    ensemble: xr.Dataset, latitude: float, longitude: float, channels: Sequence[str]
) -> xr.Dataset:
    """The same of an ensemble that is open already: all places after the first are fast."""
    import xarray as xr

    if not (-90 <= latitude <= 90 and -180 <= longitude <= 360) or not channels:
        raise ConfigurationError(
            f"latitude {latitude:g}, longitude {longitude:g}, channels {list(channels)}",
            "-90..90, -180..360, one channel or more",
        )
    where = _nearest(ensemble, latitude, longitude)
    found = {name: _one(ensemble, name, where) for name in channels}
    made = xr.Dataset(found)
    return made.assign_attrs(forecast=str(ensemble.attrs.get("title", "")))


def _nearest(ensemble: xr.Dataset, latitude: float, longitude: float) -> dict[str, int]:
    north = np.abs(ensemble[LATITUDE].values - latitude)
    east = np.abs((ensemble[LONGITUDE].values - longitude + 180.0) % 360.0 - 180.0)
    return {LATITUDE: int(north.argmin()), LONGITUDE: int(east.argmin())}


def _one(ensemble: xr.Dataset, name: str, where: dict[str, int]) -> Any:
    channel = Channel.parse(name)
    array = ensemble.get(channel.variable)
    levels = [] if array is None or LEVEL not in array.dims else array[LEVEL].values.tolist()
    if array is None or (channel.level is not None and channel.level not in levels):
        held = ", ".join(str(key) for key in ensemble.data_vars)
        raise PublicationError(
            f"the forecast does not hold {channel}", f"a channel of {held}", "name another"
        )
    index: dict[str, int] = dict(where)
    if channel.level is not None:
        index[LEVEL] = levels.index(channel.level)
    picked = array.isel(index)
    return picked.drop_vars(LEVEL, errors="ignore").load()
