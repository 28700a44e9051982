"""`extremes.zarr`: Extreme Forecast Index and Shift of Tails, against the climate of a day.

    EFI = 2/pi int_0^1 (p - F(p)) / sqrt(p (1 - p)) dp

where F(p) is the share of members below the climate's quantile p (Lalaurette 2003, Q. J. R.
Meteorol. Soc. 129, 3037-3057, with the weight of Zsoter 2006, ECMWF Newsletter 107, 8-17): -1 where
all members lie below the climate, 1 where all lie above it. F is linear between the quantiles of
the climatology, so that the integral is exact.

    SOT(90) = (Q(90) - C(99)) / (C(99) - C(90)),   SOT(10) = (Q(10) - C(1)) / (C(1) - C(10))

with quantiles Q of the members and C of the climate (Zsoter 2006): above 0 where a tenth of the
members is beyond the climate's hundredth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.dims import LATITUDE, LEAD_TIME, LONGITUDE, NUMBER
from mosaic_core.errors import ConfigurationError
from mosaic_core.products import climatology, fields
from mosaic_core.products.climatology import DAY_HOURS, Climate
from mosaic_core.products.output import Cube, ProductError
from mosaic_core.products.product import (
    Product,
    ProductContext,
    lead_hours,
    missing_channels,
    register,
)

Float = NDArray[np.float32]

TAILS: Final = ((90, 0.90, 0.99), (10, 0.10, 0.01))
"""Names of the tails, their quantile, and the climate's that is exceptional."""


@dataclass(frozen=True)
class ExtremeSettings:
    """Settings of the kind `extremes`.

    Attributes:
        fields: fields of the climatology: a channel, `10m_wind`, `wind_<hPa>`.
        climatology: its file; None is the shipped one of the simulated planet.
    """

    fields: tuple[str, ...] = ("2m_temperature", "10m_wind")
    climatology: str | None = None

    def __post_init__(self) -> None:
        for name in self.fields:
            fields.channels_of(name)
        if not self.fields or len(set(self.fields)) != len(self.fields):
            raise ConfigurationError(f"fields {list(self.fields)}", "one or more, each once")


def make(product_id: str, settings: ExtremeSettings) -> Product:
    """The product; a field that the forecast or the climatology lacks is named in the notes."""

    def notes(forecast: xr.Dataset, context: ProductContext) -> list[str]:
        climate = climatology.of(settings.climatology, forecast, context)
        return _possible(settings, forecast, climate)[1]

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[Cube]:
        climate = climatology.of(settings.climatology, forecast, context)
        names, lacking = _possible(settings, forecast, climate)
        if not names:
            raise ProductError("; ".join(lacking), "a field that both have", "see `fields`")
        made = extremes(forecast, names, climate, context)
        title = "Extreme Forecast Index and Shift of Tails of every day"
        hours = tuple(float(h) for h in made[LEAD_TIME].values / np.timedelta64(1, "h"))
        yield Cube.of(f"{product_id}.zarr", made, lead_hours=hours, title=title)

    return Product(product_id, (), build, {"title": "Extremes"}, (bounded,), notes)


register("extremes", ExtremeSettings, make)


def bounded(values: xr.Dataset) -> list[str]:
    """Indices within -1..1; shifts of tails are not infinite."""
    wrong = []
    for name, array in values.data_vars.items():
        if str(name).endswith("_efi") and not bool((np.abs(array) <= 1 + 1e-5).all()):
            wrong.append(f"{name} is not within -1..1 everywhere")
        if np.isinf(array.values).any():
            wrong.append(f"{name} is infinite somewhere")
    return wrong


def _possible(
    settings: ExtremeSettings, forecast: xr.Dataset, climate: Climate
) -> tuple[list[str], list[str]]:
    possible, lacking = [], []
    for name in settings.fields:
        missing = missing_channels(forecast, fields.channels_of(name))
        if missing:
            lacking.append(f"{name} left out: the forecast lacks {', '.join(missing)}")
        elif name not in climate.fields:
            held = ", ".join(climate.fields)
            lacking.append(f"{name} left out: {climate.path} has none, it has {held}")
        else:
            possible.append(name)
    return possible, lacking


def extremes(
    forecast: xr.Dataset, names: Sequence[str], climate: Climate, context: ProductContext
) -> xr.Dataset:
    """Indices (lead_time, latitude, longitude) of every whole day of the forecast.

    A day is (lead - 24 h, lead], of which the mean or the maximum counts as in the climatology.

    Raises:
        ProductError: the forecast is shorter than a day.
    """
    steps = fields.steps_within(DAY_HOURS, context)
    hours = lead_hours(forecast)
    if steps is None or len(hours) < steps:
        raise ProductError(
            f"lead times to {hours[-1]:g} h every {context.step_hours} h",
            "one whole day or more, in steps that divide it",
        )
    days = fields.windows(len(hours) // steps * steps, steps)
    variables: dict[str, Any] = {}
    space = (LEAD_TIME, LATITUDE, LONGITUDE)
    for name in names:
        statistic = climate.statistic(name)
        made: dict[str, list[Float]] = {"efi": [], **{f"sot{tail}": [] for tail, _, _ in TAILS}}
        for day in days:
            values = fields.members(forecast, name, day)
            daily = values.mean(axis=1) if statistic == "mean" else values.max(axis=1)
            middle = forecast["valid_time"].values[day][-1] - np.timedelta64(DAY_HOURS // 2, "h")
            climate_of_day = climatology.like(climate.at(name, middle), forecast)
            made["efi"].append(forecast_index(daily, climate_of_day, climate.probabilities))
            for tail, share, rare in TAILS:
                shifted = shift_of_tail(daily, climate_of_day, climate.probabilities, share, rare)
                made[f"sot{tail}"].append(shifted)
        for key, parts in made.items():
            what = "Extreme Forecast Index" if key == "efi" else f"Shift of Tails ({key[3:]} %)"
            words = f"{what} of the {statistic} of the 24 h before of {name.replace('_', ' ')}"
            attributes = {"long_name": words, "units": "1", "climatology": climate.path.name}
            if key != "efi":
                attributes["comment"] = "NaN where the climate's tail has no width"
            variables[f"{name}_{key}"] = (space, np.stack(parts), attributes)
    coordinates = forecast.isel({LEAD_TIME: [day.stop - 1 for day in days]}).coords
    kept = {k: v for k, v in coordinates.items() if k not in (NUMBER, "level")}
    return xr.Dataset(variables, kept)


def weights(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights w of the quantiles: EFI = 1 - sum(w F); F linear between them.

    With A = 2 asin(sqrt p) and B = asin(sqrt p) - sqrt(p (1 - p)), the integrals of the weight and
    of p times the weight. Below the first quantile F is what it is there, above the last too.
    """
    p = np.asarray(probabilities, np.float64)
    first, second = _integrals(p)
    gaps = np.diff(p)
    mass, moment = np.diff(first), np.diff(second)
    w = np.zeros(p.size)
    w[:-1] += (p[1:] * mass - moment) / gaps
    w[1:] += (moment - p[:-1] * mass) / gaps
    w[0] += first[0]
    w[-1] += np.pi - first[-1]
    return np.asarray(2 / np.pi * w)


def _integrals(p: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    angle = np.arcsin(np.sqrt(p))
    return 2 * angle, angle - np.sqrt(p * (1 - p))


def forecast_index(members: Float, climate: Float, probabilities: NDArray[np.float64]) -> Float:
    """The Extreme Forecast Index.

    Args:
        members: (number, ...).
        climate: quantiles (probability, ...).

    Returns:
        (...). A member on a quantile counts as half below it.
    """
    index = np.ones(members.shape[1:])
    for weight, quantile in zip(weights(probabilities), climate, strict=True):
        below = (members < quantile).mean(axis=0) + (members <= quantile).mean(axis=0)
        index -= weight * below / 2
    return index.astype(np.float32)


def shift_of_tail(
    members: Float,
    climate: Float,
    probabilities: NDArray[np.float64],
    share: float,
    rare: float,
) -> Float:
    """The Shift of Tails; NaN where the climate's tail has no width.

    Raises:
        ProductError: the climatology has not these quantiles.
    """
    common, exceptional = (_quantile(climate, probabilities, p) for p in (share, rare))
    width = (exceptional - common).astype(np.float64)
    beyond = np.quantile(members.astype(np.float64), share, axis=0) - exceptional
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(np.abs(width) > 1e-6, beyond / width, np.nan)
    return np.asarray(shift, np.float32)


def _quantile(climate: Float, probabilities: NDArray[np.float64], p: float) -> Float:
    found = np.flatnonzero(np.abs(probabilities - p) < 1e-9)
    if not found.size:
        raise ProductError(
            f"the climatology has the quantiles {', '.join(f'{q:g}' for q in probabilities)}",
            f"{p:g} among them",
            "make it again",
        )
    return np.asarray(climate[found[0]])
