"""Area-weighted scores of an ensemble against analyses."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core import dims
from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid

Array = NDArray[np.float64]
SCORES = ("rmse", "bias", "mae", "spread", "fair_crps")


def score(forecast: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """Scores by variable (and level) and lead time, over the globe, in the variable's units.

    Args:
        forecast: number, lead_time, [level,] latitude, longitude; with `init_time`.
        truth: valid_time, [level,] latitude, longitude, on the same grid.

    Returns:
        `rmse`, `bias` and `mae` of the ensemble mean; `spread`, the root of the mean unbiased
        variance, with the factor sqrt((M + 1) / M) that makes it comparable with the error of
        the mean (Fortin et al. 2014); `fair_crps`, unbiased in ensemble size (Ferro 2014); each
        (variable, lead_time), for lead times whose truth is there. With one member the spread is
        NaN and the fair CRPS is the absolute error.

    Raises:
        ConfigurationError: the grids differ, or no lead time has come true.
    """
    for name in (dims.LATITUDE, dims.LONGITUDE):
        if not np.array_equal(forecast[name].values, truth[name].values):
            raise ConfigurationError(f"forecast and truth differ in {name}", "one grid for both")
    valid = forecast[dims.INIT_TIME].values + forecast[dims.LEAD_TIME].values
    due = [i for i, time in enumerate(valid) if time in truth[dims.VALID_TIME].values]
    if not due:
        raise ConfigurationError(
            f"no analysis for the valid times {valid[0]} to {valid[-1]}", "at least one"
        )
    grid = LatLonGrid(
        tuple(forecast[dims.LONGITUDE].values.tolist()),
        tuple(forecast[dims.LATITUDE].values.tolist()),
    )
    weights = np.broadcast_to(grid.latitude_weights[:, None], (grid.nlat, grid.nlon))
    rows, names = [], []
    for name, level in _channels(forecast, truth):
        field = forecast[name] if level is None else forecast[name].sel({dims.LEVEL: level})
        actual = truth[name] if level is None else truth[name].sel({dims.LEVEL: level})
        order = (dims.NUMBER, dims.LATITUDE, dims.LONGITUDE)
        rows.append(
            [
                score_field(
                    field.isel({dims.LEAD_TIME: i}).transpose(*order).values.astype(np.float64),
                    actual.sel({dims.VALID_TIME: valid[i]}).transpose(*order[1:]).values,
                    weights,
                )
                for i in due
            ]
        )
        names.append(name if level is None else f"{name}_{level}")
    values = np.array(rows)
    return xr.Dataset(
        {s: (("variable", dims.LEAD_TIME), values[..., k]) for k, s in enumerate(SCORES)},
        {"variable": names, dims.LEAD_TIME: forecast[dims.LEAD_TIME].values[due]},
    )


def _channels(forecast: xr.Dataset, truth: xr.Dataset) -> list[tuple[str, int | None]]:
    found: list[tuple[str, int | None]] = []
    for name, array in forecast.data_vars.items():
        if name not in truth:
            continue
        if dims.LEVEL not in array.dims:
            found.append((str(name), None))
            continue
        common = set(array[dims.LEVEL].values.tolist()) & set(truth[dims.LEVEL].values.tolist())
        found += [(str(name), int(level)) for level in sorted(common)]
    return found


def score_field(members: Array, truth: Array, weights: Array) -> tuple[float, ...]:
    """The scores of one field: members (number, point...), truth and weights (point...)."""
    count = len(members)
    mean = members.mean(0)
    error = mean - truth
    spread = np.nan
    pairs = np.zeros_like(truth)
    if count > 1:
        variance = members.var(axis=0, ddof=1)
        spread = float(np.sqrt(np.average(variance, weights=weights) * (count + 1) / count))
        ranks = 2.0 * np.arange(1, count + 1) - count - 1
        ordered = np.sort(members, axis=0)
        pairs = np.tensordot(ranks, ordered, axes=1) / (count * (count - 1))
    crps = np.abs(members - truth).mean(0) - pairs
    return (
        float(np.sqrt(np.average(error**2, weights=weights))),
        float(np.average(error, weights=weights)),
        float(np.average(np.abs(error), weights=weights)),
        spread,
        float(np.average(crps, weights=weights)),
    )
