"""Scores of an ensemble forecast against analyses, as datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core import dims
from mosaic_core.channels import VARIABLES, Channel, Channels
from mosaic_core.errors import AnalysisRejected, ConfigurationError, ForecastError
from mosaic_core.grid import LatLonGrid
from mosaic_core.verification.climatology import Climatology
from mosaic_core.verification.regions import REGIONS, Region, Weights
from mosaic_core.verification.statistics import scores, statistics

Array = NDArray[np.float64]
SCORES: Final = (
    "rmse", "nrmse", "bias", "mae", "fair_crps", "spread", "spread_skill", "to_persistence",
    "to_climatology", "acc", "crpss",
)  # fmt: skip


def score(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    persistence: xr.Dataset | None = None,
    climatology: Climatology | None = None,
    regions: Mapping[str, Region] = REGIONS,
    gaps: bool = False,
) -> xr.Dataset:
    """Scores by variable (and level), lead time and region, of the lead times that came true.

    Args:
        forecast: number, lead_time, [level,] latitude, longitude; with `init_time`.
        truth: valid_time, [level,] latitude, longitude, on the same grid.
        persistence: the analysis at the initial time, [level,] latitude, longitude.
        climatology: on the same grid.
        gaps: whether truth may have missing points (NaN); they count nowhere. An analysis has none.

    Returns:
        `SCORES`, each (variable, lead_time, region), float64, as `statistics.scores` defines them;
        NaN where there is no reference, one member and so no spread, or no observed point.

    Raises:
        ConfigurationError: the grids differ, nothing in common, or no lead time has come true.
        ForecastError, AnalysisRejected: a value of the forecast or of truth is not finite.
    """
    grid = same_grid(forecast, truth)
    channels = common_channels(forecast, truth)
    valid = forecast[dims.INIT_TIME].values + forecast[dims.LEAD_TIME].values
    due = [i for i, time in enumerate(valid) if time in truth[dims.VALID_TIME].values]
    if not due:
        raise ConfigurationError(
            f"no analysis for the valid times {valid[0]} to {valid[-1]}", "at least one"
        )
    known = climatology.of(channels, grid) if climatology else None
    mean, deviation = known or (None, None)
    start = None if persistence is None else truth_fields(persistence, channels, gaps)
    weights = Weights.of(grid, regions)
    rows: dict[str, list[Array]] = {name: [] for name in SCORES}
    for i in due:
        made = scores(
            statistics(
                member_fields(forecast.isel({dims.LEAD_TIME: i}), channels),
                truth_fields(truth.sel({dims.VALID_TIME: valid[i]}), channels, gaps),
                weights,
                persistence=start,
                climatology=mean,
                deviation=deviation,
            )
        )
        absent = np.full((len(channels), len(weights.names)), np.nan)
        for name, row in rows.items():
            row.append(made.get(name, absent))
    axes = ("variable", dims.LEAD_TIME, "region")
    return xr.Dataset(
        {name: (axes, np.stack(row, axis=1)) for name, row in rows.items()},
        {
            "variable": list(channels.names),
            dims.LEAD_TIME: forecast[dims.LEAD_TIME].values[due],
            "region": list(weights.names),
        },
    )


def same_grid(forecast: xr.Dataset, truth: xr.Dataset) -> LatLonGrid:
    """The grid of both.

    Raises:
        ConfigurationError: they differ.
    """
    grids = [
        LatLonGrid(
            tuple(ds[dims.LONGITUDE].values.tolist()), tuple(ds[dims.LATITUDE].values.tolist())
        )
        for ds in (forecast, truth)
    ]
    if not grids[0].is_close(grids[1]):
        raise ConfigurationError(
            f"a forecast on {grids[0]} from {grids[0].longitudes[0]:g} E and truth on {grids[1]} "
            f"from {grids[1].longitudes[0]:g} E",
            "one grid for both",
            "regrid the truth to the forecast's grid first",
        )
    return grids[0]


def common_channels(forecast: xr.Dataset, truth: xr.Dataset) -> Channels:
    """Channels that both hold, in the forecast's order.

    Raises:
        ConfigurationError: none.
    """
    found = []
    for name in (n for n in map(str, forecast.data_vars) if n in VARIABLES and n in truth):
        if not VARIABLES[name].on_levels:
            found.append(Channel(name))
            continue
        own, others = (set(ds[dims.LEVEL].values.tolist()) for ds in (forecast, truth))
        found += [Channel(name, int(level)) for level in sorted(own & others)]
    if not found:
        raise ConfigurationError("forecast and truth have no variable in common", "one or more")
    return Channels(tuple(found))


def member_fields(step: xr.Dataset, channels: Channels) -> NDArray[Any]:
    """Members of one lead time, (number, channel, latitude, longitude), of the type stored.

    Raises:
        ForecastError: a channel is not there, or a value is not finite; it is named.
    """
    fields = _stack(step, channels, dims.NUMBER)
    bad = _not_finite(fields, channels)
    if bad:
        raise ForecastError(
            f"{', '.join(bad)} of the forecast not finite", "finite fields in every member"
        )
    return fields


def truth_fields(analysis: xr.Dataset, channels: Channels, gaps: bool = False) -> Array:
    """One analysis, (channel, latitude, longitude), float64.

    Args:
        gaps: whether points may be missing (NaN).

    Raises:
        ForecastError: a channel is not there.
        AnalysisRejected: a value is not finite; the channel is named.
    """
    fields = _stack(analysis, channels).astype(np.float64)
    known = np.where(np.isnan(fields), 0.0, fields) if gaps else fields
    bad = _not_finite(known[None], channels)
    if bad:
        raise AnalysisRejected(f"{', '.join(bad)} of the truth not finite", "finite fields")
    return fields


def _stack(ds: xr.Dataset, channels: Channels, *leading: str) -> NDArray[Any]:
    """([leading,] channel, latitude, longitude)"""
    absent = [c.name for c in channels if not _has(ds, c)]
    if absent:
        raise ForecastError(f"no {', '.join(absent)} to verify", "every channel asked for")
    variables = channels.variables
    planes: dict[Channel, NDArray[Any]] = {}
    for name, levels in variables.items():
        array = ds[name].isel({dims.LEVEL: _places(ds, levels)}) if levels else ds[name]
        axes = (*leading, *((dims.LEVEL,) if levels else ()), dims.LATITUDE, dims.LONGITUDE)
        values: NDArray[Any] = array.load().transpose(*axes).values
        if levels and len(variables) == 1:
            return values
        for i, level in enumerate(levels):
            planes[Channel(name, level)] = values[..., i, :, :]
        if not levels:
            planes[Channel(name)] = values
    return np.stack([planes[channel] for channel in channels], axis=len(leading))


def _places(ds: xr.Dataset, levels: tuple[int, ...]) -> slice | list[int]:
    """Where levels are; a slice where they follow each other, which is read with fewer copies."""
    known = ds[dims.LEVEL].values.tolist()
    places = [known.index(level) for level in levels]
    whole = slice(places[0], places[0] + len(places))
    return whole if places == list(range(whole.start, whole.stop)) else places


def _has(ds: xr.Dataset, channel: Channel) -> bool:
    if channel.variable not in ds:
        return False
    return channel.level is None or channel.level in ds[dims.LEVEL].values


def _not_finite(fields: NDArray[Any], channels: Channels) -> list[str]:
    finite = np.atleast_1d(np.isfinite(fields).all(axis=(0, 2, 3))).tolist()
    return [c.name for c, ok in zip(channels, finite, strict=True) if not ok]
