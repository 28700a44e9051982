"""What maps can show: each quantity's channels, units, fixed scales and contours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.dims import LATITUDE, LEAD_TIME, LONGITUDE, NUMBER
from mosaic_core.errors import ConfigurationError
from mosaic_core.products.product import describe, field_of, missing_channels

STANDARD_GRAVITY: Final = 9.80665

Field = NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """One thing to draw. Scales are fixed, so that maps of all cycles compare.

    Attributes:
        channels: one scalar, or eastward and northward wind.
        units: as drawn: (value in the store's units - offset) * factor.
        levels, spread_levels: bounds of the colours of the value and of the spread.
        contours: interval of the contour lines of the mean, or None.
        colours: palette of the value (`mosaic_core.products.colours`).
    """

    name: str
    title: str
    channels: tuple[str, ...]
    units: str
    levels: tuple[float, ...]
    spread_levels: tuple[float, ...]
    colours: str
    contours: float | None = None
    factor: float = 1.0
    offset: float = 0.0


def _steps(low: float, high: float, step: float) -> tuple[float, ...]:
    return tuple(np.arange(low, high + step / 2, step).tolist())


_KELVIN: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
_METRES: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_DAM: Final = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0)


def _temperature(name: str, title: str, low: float, high: float) -> Quantity:
    return Quantity(
        name, title, (name,), "°C", _steps(low, high, 2), _KELVIN, "warmth", offset=273.15
    )


def _height(level: int, low: float, high: float, step: float, interval: float) -> Quantity:
    name, title = f"geopotential_{level}", f"{level} hPa geopotential height"
    factor = 0.1 / STANDARD_GRAVITY
    levels = _steps(low, high, step)
    return Quantity(name, title, (name,), "dam", levels, _DAM, "height", interval, factor)


def _wind(name: str, title: str, channels: tuple[str, str], high: float) -> Quantity:
    return Quantity(name, title, channels, "m/s", _steps(0, high, high / 20), _METRES, "speed")


def _upper_wind(level: int, high: float) -> Quantity:
    channels = (f"u_component_of_wind_{level}", f"v_component_of_wind_{level}")
    return _wind(f"wind_{level}", f"{level} hPa wind", channels, high)


QUANTITIES: Final[dict[str, Quantity]] = {
    quantity.name: quantity
    for quantity in (
        _temperature("2m_temperature", "2 m temperature", -50, 50),
        _temperature("temperature_850", "850 hPa temperature", -40, 40),
        _temperature("temperature_500", "500 hPa temperature", -60, 20),
        Quantity(
            "mean_sea_level_pressure",
            "Mean sea level pressure",
            ("mean_sea_level_pressure",),
            "hPa",
            _steps(960, 1064, 4),
            (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0),
            "pressure",
            contours=4.0,
            factor=0.01,
        ),
        _height(1000, -36, 36, 2, 4),
        _height(850, 100, 170, 2, 4),
        _height(500, 468, 600, 4, 8),
        _height(300, 800, 980, 6, 12),
        _wind("10m_wind", "10 m wind", ("10m_u_component_of_wind", "10m_v_component_of_wind"), 30),
        _upper_wind(1000, 30),
        _upper_wind(850, 40),
        _upper_wind(500, 60),
        _upper_wind(250, 90),
    )
}


def refuse_unknown(names: Iterable[str]) -> None:
    """Raises ConfigurationError for a name that is in no table, with the nearest known one."""
    for name in names:
        if name not in QUANTITIES:
            near = difflib.get_close_matches(name, QUANTITIES, n=1)
            raise ConfigurationError(
                f"no quantity {name!r} to draw",
                f"one of {', '.join(QUANTITIES)}",
                f"did you mean {near[0]!r}?" if near else "",
            )


def choose(
    forecast: xr.Dataset, lists: Sequence[Sequence[str]]
) -> tuple[list[Quantity], list[str]]:
    """Of each list the first quantity that the forecast holds, once; and what was replaced."""
    chosen: list[Quantity] = []
    notes = []
    for names in lists:
        lacking: list[str] = []
        for name in names:
            missing = missing_channels(forecast, QUANTITIES[name].channels)
            if not missing:
                if QUANTITIES[name] not in chosen:
                    chosen.append(QUANTITIES[name])
                break
            lacking += missing
        else:
            name = ""
        if lacking:
            instead = f"drawn instead: {name}" if name else "no fallback is there: not drawn"
            notes.append(f"{names[0]}: the forecast lacks {', '.join(lacking)}; {instead}")
    if not chosen:
        notes.append(f"the forecast holds {', '.join(describe(forecast))}")
    return chosen, notes


def members_of(quantity: Quantity, forecast: xr.Dataset, step: int) -> tuple[Field, ...]:
    """Every channel of the quantity at one step: (number, latitude, longitude), drawn units."""
    return tuple(
        (
            np.asarray(
                field_of(forecast, channel)
                .isel({LEAD_TIME: step})
                .transpose(NUMBER, LATITUDE, LONGITUDE)
                .values,
                np.float64,
            )
            - quantity.offset
        )
        * quantity.factor
        for channel in quantity.channels
    )


def choose_steps(hours: Sequence[float], wanted: Sequence[float]) -> tuple[list[int], list[str]]:
    """Indices of the wanted lead times; the last one for those beyond the end; and notes."""
    steps, notes = [], []
    for lead in wanted:
        if lead in hours:
            steps.append(hours.index(lead))
        elif lead > hours[-1]:
            steps.append(len(hours) - 1)
            notes.append(f"{lead:g} h is beyond the forecast; drawn instead: {hours[-1]:g} h")
        else:
            notes.append(f"{lead:g} h is no lead time of the forecast: not drawn")
    return list(dict.fromkeys(steps)), notes
