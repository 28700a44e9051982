"""Units that scores are shown in: those of meteorologists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mosaic_core.channels import VARIABLES

_UNITS: Final[Mapping[str, tuple[float, str]]] = {
    "geopotential": (1 / 9.80665, "m"),
    "mean_sea_level_pressure": (0.01, "hPa"),
    "specific_humidity": (1000.0, "g/kg"),
}


def units_of(variable: str) -> tuple[float, str]:
    """(factor, units) that a variable is shown in; of a speed m/s."""
    if variable not in VARIABLES:
        return 1.0, "m/s"
    own = VARIABLES[variable].units.replace("m s-1", "m/s").replace("Pa s-1", "Pa/s")
    return _UNITS.get(variable, (1.0, own))
