"""Checks on what a product made. A check takes a dataset and returns what is wrong, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import xarray as xr

Check = Callable[[xr.Dataset], Iterable[str]]

PLAUSIBLE: Final[dict[str, tuple[float, float]]] = {
    "2m_temperature": (150.0, 350.0),
    "10m_u_component_of_wind": (-120.0, 120.0),
    "10m_v_component_of_wind": (-120.0, 120.0),
    "mean_sea_level_pressure": (8.0e4, 1.15e5),
    "geopotential": (-1.0e4, 2.6e5),
    "specific_humidity": (-1.0e-2, 0.1),
    "temperature": (120.0, 350.0),
    "u_component_of_wind": (-200.0, 200.0),
    "v_component_of_wind": (-200.0, 200.0),
    "vertical_velocity": (-40.0, 40.0),
}
"""Bounds of each variable in its units. Wide: outside lies a broken forecast, no weather."""


def finite(values: xr.Dataset) -> list[str]:
    """No NaN, no infinity."""
    wrong = []
    for name, array in values.data_vars.items():
        if array.dtype.kind == "f" and (bad := int((~np.isfinite(array.values)).sum())):
            wrong.append(f"{name} holds {bad} values that are NaN or infinite")
    return wrong


def plausible(values: xr.Dataset) -> list[str]:
    """Values of variables in `PLAUSIBLE` lie within its bounds, standard deviations below them."""
    wrong = []
    for key, array in values.data_vars.items():
        name = str(key)
        variable, spread = name, name.endswith("_standard_deviation")
        for suffix in ("_standard_deviation", "_minimum", "_maximum", "_quantile"):
            variable = variable.removesuffix(suffix)
        if variable not in PLAUSIBLE:
            continue
        low, high = PLAUSIBLE[variable]
        low, high = (0.0, high - low) if spread else (low, high)
        least, most = float(array.min()), float(array.max())
        if least < low or most > high:
            wrong.append(f"{name} {least:g}..{most:g} is outside {low:g}..{high:g}")
    return wrong


def ordered(values: xr.Dataset) -> list[str]:
    """minimum <= mean <= maximum, and minimum <= quantiles in order <= maximum."""
    wrong = []
    for key in values.data_vars:
        name = str(key)
        if f"{name}_minimum" not in values:
            continue
        low, high = values[f"{name}_minimum"].values, values[f"{name}_maximum"].values
        mean, quantiles = values[name].values, values[f"{name}_quantile"].values
        if np.any(mean < low) or np.any(mean > high):
            wrong.append(f"the mean of {name} lies outside its minimum and maximum")
        if np.any(np.diff(np.stack([low, *quantiles, high]), axis=0) < 0):
            wrong.append(f"the quantiles of {name} are out of order")
    return wrong
