"""Power spectra of a forecast: do members keep the energy of the atmosphere at every scale?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.channels import VARIABLES
from mosaic_core.dims import (
    COORDINATE_ATTRIBUTES,
    LATITUDE,
    LEAD_TIME,
    LEVEL,
    LONGITUDE,
    NUMBER,
    VALID_TIME,
)
from mosaic_core.errors import ForecastError
from mosaic_core.grid import LatLonGrid
from mosaic_core.products.fields import ahead, ascending, windows
from mosaic_core.spectral import Coefficients, SphericalHarmonics, power

TOTAL_WAVENUMBER: Final = "total_wavenumber"
WIND_LEVEL: Final = "wind_level"
WIND_LEVELS: Final = (500, 850)

_SCALARS: Final = ("geopotential", "temperature", "specific_humidity")
WINDS: Final = ("u_component_of_wind", "v_component_of_wind")
SURFACE_WINDS: Final = ("10m_u_component_of_wind", "10m_v_component_of_wind")
_BLOCK_BYTES: Final = 64 * 2**20
_WINDOW: Final = 8
"""Lead times of a shard of the forecast: more at a time would read some shards twice."""

Powers: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class _Quantity:
    """A spectrum to take: of one variable's variance, or of two wind components' energy."""

    name: str
    variables: tuple[str, ...]
    units: str
    long_name: str
    level_dimension: str | None
    levels: tuple[int, ...] = ()


def spectra(forecast: xr.Dataset, analysis: xr.Dataset) -> xr.Dataset:
    """Spectra by total wavenumber of every member, of the ensemble mean and of the analysis.

    `kinetic_energy` at 500 and 850 hPa, `10m_kinetic_energy`, and the variance of geopotential,
    temperature and specific humidity at every level, each where the forecast has it. For each,
    `<name>` is (number, lead_time, [level,] total_wavenumber), `<name>_of_ensemble_mean` lacks
    `number`, and `<name>_of_analysis` has neither: it is that of the initial state. The sum over
    wavenumbers is the global mean of half the squared wind (m2 s-2), or the mean square.
    One variable at one level is in memory at a time. Missing values give a missing spectrum.

    Args:
        forecast: number, lead_time, [level,] latitude, longitude; may be opened lazily.
        analysis: the same variables at the initial time; with a `valid_time` dimension, the
            forecast's `init_time` is taken from it.

    Raises:
        ConfigurationError: the grid has no exact analysis; the message says which grids have.
        ForecastError: nothing to take a spectrum of, the grids differ, or the analysis lacks a
            variable, a level or the initial time.
    """
    harmonics = SphericalHarmonics(_grid(forecast))
    quantities = tuple(_quantities(forecast))
    if not quantities:
        raise ForecastError(
            f"a forecast of {', '.join(map(str, forecast.data_vars)) or 'nothing'}",
            f"one of {', '.join((*_SCALARS, *WINDS, *SURFACE_WINDS))}",
            "leave the spectra out of this variant's products",
        )
    initial = _initial(forecast, analysis, quantities)
    out: dict[str, xr.DataArray] = {}
    for quantity in quantities:
        out |= _spectra_of(quantity, forecast, initial, harmonics)
    return xr.Dataset(
        out,
        coords=_coordinates(forecast, harmonics.truncation, quantities),
        attrs={"Conventions": "CF-1.11", "title": "Power spectra by total wavenumber"},
    )


def _quantities(forecast: xr.Dataset) -> Iterator[_Quantity]:
    levels = tuple(int(level) for level in forecast[LEVEL].values) if LEVEL in forecast else ()
    wind_levels = tuple(level for level in WIND_LEVELS if level in levels)
    if set(WINDS) <= set(forecast) and wind_levels:
        yield _Quantity(
            "kinetic_energy", WINDS, "m2 s-2", "kinetic energy", WIND_LEVEL, wind_levels
        )
    if set(SURFACE_WINDS) <= set(forecast):
        yield _Quantity(
            "10m_kinetic_energy", SURFACE_WINDS, "m2 s-2", "kinetic energy at 10 m", None
        )
    for name in _SCALARS:
        if name in forecast:
            units = f"({VARIABLES[name].units})2"
            yield _Quantity(
                f"{name}_variance", (name,), units, f"variance of {name}", LEVEL, levels
            )


def _grid(dataset: xr.Dataset) -> LatLonGrid:
    latitudes = np.sort(dataset[LATITUDE].values.astype(float))
    longitudes = np.sort(dataset[LONGITUDE].values.astype(float))
    return LatLonGrid(tuple(longitudes.tolist()), tuple(latitudes.tolist()))


def _initial(
    forecast: xr.Dataset, analysis: xr.Dataset, quantities: tuple[_Quantity, ...]
) -> xr.Dataset:
    """The analysis at the initial time, refused where it is not the forecast's."""
    names = [name for quantity in quantities for name in quantity.variables]
    missing = [name for name in names if name not in analysis]
    if missing:
        raise ForecastError(
            f"the analysis has no {', '.join(missing)}", "every variable of the forecast"
        )
    if not _grid(forecast).is_close(_grid(analysis)):
        raise ForecastError(
            f"the analysis is on {_grid(analysis)}, the forecast on {_grid(forecast)}", "one grid"
        )
    if LEVEL in forecast and any(LEVEL in analysis[name].dims for name in names):
        absent = sorted(set(forecast[LEVEL].values.tolist()) - set(analysis[LEVEL].values.tolist()))
        if absent:
            raise ForecastError(
                f"the analysis lacks {', '.join(map(str, absent))} hPa", "every level"
            )
    if VALID_TIME not in analysis.dims:
        return analysis
    time = forecast["init_time"].values
    if time not in analysis[VALID_TIME].values:
        raise ForecastError(
            f"the analysis is not valid at {time}", "the initial time among its valid times"
        )
    return analysis.sel({VALID_TIME: time})


def _spectra_of(
    quantity: _Quantity,
    forecast: xr.Dataset,
    analysis: xr.Dataset,
    harmonics: SphericalHarmonics,
) -> dict[str, xr.DataArray]:
    tail = [TOTAL_WAVENUMBER]
    if quantity.level_dimension is not None:
        tail.insert(0, quantity.level_dimension)
    members, mean, initial = [], [], []
    for level in quantity.levels or (None,):
        each = list(_over_lead_times(quantity, level, forecast, harmonics))
        members.append(np.concatenate([powers for powers, _ in each], axis=1))
        mean.append(np.concatenate([powers for _, powers in each], axis=0))
        initial.append(
            _power(
                quantity, _coefficients(_fields(quantity, level, analysis), harmonics), harmonics
            )
        )
    joined = [np.stack(a, axis=-2) if quantity.levels else a[0] for a in (members, mean, initial)]
    attributes = {"units": quantity.units, "long_name": f"{quantity.long_name} by total wavenumber"}
    sizes = {
        quantity.name: ([NUMBER, LEAD_TIME, *tail], ""),
        f"{quantity.name}_of_ensemble_mean": ([LEAD_TIME, *tail], " of the ensemble mean"),
        f"{quantity.name}_of_analysis": (tail, " of the analysis"),
    }
    return {
        name: xr.DataArray(
            values, dims=dims, attrs=attributes | {"long_name": attributes["long_name"] + of}
        )
        for (name, (dims, of)), values in zip(sizes.items(), joined, strict=True)
    }


def _over_lead_times(
    quantity: _Quantity, level: int | None, forecast: xr.Dataset, harmonics: SphericalHarmonics
) -> Iterator[tuple[Powers, Powers]]:
    """Powers of the members (number, lead_time, l) and of their mean, some lead times at a time."""
    sizes = forecast.sizes
    one = sizes[NUMBER] * sizes[LATITUDE] * sizes[LONGITUDE] * 8 * len(quantity.variables)
    steps = windows(sizes[LEAD_TIME], min(_WINDOW, max(1, _BLOCK_BYTES // one)))

    def read(part: slice) -> list[NDArray[np.float32]]:
        return _fields(quantity, level, forecast.isel({LEAD_TIME: part}))

    for fields in ahead(read, steps):
        coefficients = _coefficients(fields, harmonics)
        of_mean = tuple(c.mean(axis=0) for c in coefficients)
        yield _power(quantity, coefficients, harmonics), _power(quantity, of_mean, harmonics)


def _coefficients(
    fields: list[NDArray[np.float32]], harmonics: SphericalHarmonics
) -> tuple[Coefficients, ...]:
    if len(fields) == 2:
        return harmonics.vorticity_divergence(*fields)
    return (harmonics.analysis(fields[0]),)


def _fields(
    quantity: _Quantity, level: int | None, dataset: xr.Dataset
) -> list[NDArray[np.float32]]:
    return [_field(dataset[name], level) for name in quantity.variables]


def _field(array: xr.DataArray, level: int | None) -> NDArray[np.float32]:
    """(number, lead_time, latitude, longitude), or without the first two; both ascending."""
    chosen = array if level is None else array.sel({LEVEL: level})
    leading = [dim for dim in (NUMBER, LEAD_TIME) if dim in chosen.dims]
    loaded = chosen.transpose(*leading, LATITUDE, LONGITUDE).load()
    return np.asarray(ascending(loaded).values)


def _power(
    quantity: _Quantity, coefficients: tuple[Coefficients, ...], harmonics: SphericalHarmonics
) -> Powers:
    if len(quantity.variables) == 2:
        return harmonics.kinetic_energy(*coefficients).astype(np.float32)
    return power(coefficients[0]).astype(np.float32)


def _coordinates(
    forecast: xr.Dataset, truncation: int, quantities: tuple[_Quantity, ...]
) -> dict[str, xr.Variable]:
    coordinates = {
        name: forecast[name].variable
        for name in (NUMBER, LEAD_TIME, "init_time", VALID_TIME)
        if name in forecast.coords
    }
    wavenumber = np.arange(truncation + 1, dtype=np.int32)
    attributes = {"long_name": "total wavenumber of the spherical harmonic", "units": "1"}
    coordinates[TOTAL_WAVENUMBER] = xr.Variable(TOTAL_WAVENUMBER, wavenumber, attributes)
    for quantity in quantities:
        if quantity.level_dimension is not None:
            coordinates[quantity.level_dimension] = xr.Variable(
                quantity.level_dimension,
                np.asarray(quantity.levels, np.int32),
                COORDINATE_ATTRIBUTES[LEVEL],
            )
    return coordinates
