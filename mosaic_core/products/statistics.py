"""`statistics.zarr`: mean, standard deviation, quantiles, minimum and maximum over the members.

Streams over (variable, level, window of lead times), so that one block of members is in memory
at a time. Per variable `geopotential`:

    geopotential                      mean
    geopotential_standard_deviation   square root of sum((x - mean)^2) / (N - 1)
    geopotential_minimum, geopotential_maximum
    geopotential_quantile             along `quantile`, first axis
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.dims import LATITUDE, LEAD_TIME, LEVEL, LONGITUDE, NUMBER
from mosaic_core.errors import ConfigurationError
from mosaic_core.products import fields
from mosaic_core.products.checks import finite, ordered, plausible
from mosaic_core.products.output import Array, Block, Cube, ProductError
from mosaic_core.products.product import Product, ProductContext, lead_hours, register
from mosaic_core.sorting import sort_members

Float = NDArray[np.float32]

QUANTILE: Final = "quantile"
_SHARD_BYTES: Final = 32 << 20
_TILE: Final = 1 << 14


@dataclass(frozen=True)
class StatisticsSettings:
    """Settings of the kind `statistics`.

    Attributes:
        quantiles: probabilities, ascending within (0, 1).
        window: lead times read at a time; that of the forecast store's shards is best.
    """

    quantiles: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
    window: int = 8

    def __post_init__(self) -> None:
        q = self.quantiles
        if not q or any(not 0 < p < 1 for p in q) or list(q) != sorted(set(q)):
            raise ConfigurationError(f"quantiles {list(q)}", "ascending, each within (0, 1)")
        if self.window < 1:
            raise ConfigurationError(f"window {self.window}", "1 or more")


def make(product_id: str, settings: StatisticsSettings) -> Product:
    """The product; it refuses a forecast of one member, whose spread is not defined."""

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[Cube]:
        yield _cube(f"{product_id}.zarr", forecast, settings)

    return Product(
        product_id,
        needs=(),
        build=build,
        attributes={"title": "Ensemble statistics"},
        checks=(finite, plausible, ordered),
    )


register("statistics", StatisticsSettings, make)


def _cube(name: str, forecast: xr.Dataset, settings: StatisticsSettings) -> Cube:
    members = forecast.sizes[NUMBER]
    if members < 2:
        raise ProductError(
            f"statistics of {members} member",
            "2 or more: the standard deviation divides by N - 1",
            "run more members, or leave `statistics` out of the products of this variant",
        )
    variables = [str(key) for key, value in forecast.data_vars.items() if NUMBER in value.dims]
    if not variables:
        raise ProductError("no variable of the forecast has the dimension number", "one or more")
    coordinates = forecast.drop_vars(list(forecast.data_vars)).drop_dims(NUMBER)
    coordinates = coordinates.assign_coords(
        {QUANTILE: (QUANTILE, np.array(settings.quantiles), _QUANTILE_ATTRIBUTES)}
    )
    coordinates.attrs = {}
    steps = _steps_per_shard(forecast, settings)
    arrays = {
        key: array
        for variable in variables
        for key, array in _arrays(forecast[variable], variable, members, steps, settings).items()
    }
    return Cube(
        name,
        coordinates,
        arrays,
        lambda: (
            block
            for variable in variables
            for block in _blocks(forecast[variable], variable, steps, settings)
        ),
        lead_hours(forecast),
        {"ensemble_members": members, "precision": "float32, not rounded"},
        "Ensemble mean, standard deviation, quantiles, minimum and maximum",
    )


_QUANTILE_ATTRIBUTES: Final = {
    "long_name": "probability of the quantile over the members",
    "units": "1",
    "comment": "linear interpolation between order statistics at (N - 1) p (Hyndman-Fan type 7)",
}


def _steps_per_shard(forecast: xr.Dataset, settings: StatisticsSettings) -> int:
    """Lead times in a shard: whole windows, at most the forecast and about 32 MiB of quantiles."""
    points = forecast.sizes[LATITUDE] * forecast.sizes[LONGITUDE]
    window = min(settings.window, forecast.sizes[LEAD_TIME])
    windows = -(-forecast.sizes[LEAD_TIME] // window)
    affordable = _SHARD_BYTES // (4 * points * len(settings.quantiles) * window)
    return window * max(1, min(windows, affordable))


def _arrays(
    source: xr.DataArray, variable: str, members: int, steps: int, settings: StatisticsSettings
) -> dict[str, Array]:
    """The five arrays of one variable, one shard a level and `steps` lead times."""
    leveled = LEVEL in source.dims
    dims = (LEAD_TIME, *((LEVEL,) if leveled else ()), LATITUDE, LONGITUDE)
    tile = tuple(_part(source.sizes[dim]) for dim in (LATITUDE, LONGITUDE))
    window = min(settings.window, source.sizes[LEAD_TIME])
    one = (1,) if leveled else ()
    chunks = (window, *one, *tile)
    sizes = (source.sizes[LATITUDE], source.sizes[LONGITUDE])
    whole = tuple(n * -(-size // n) for size, n in zip(sizes, tile, strict=True))
    shards = (steps, *one, *whole)
    kept = {key: source.attrs[key] for key in ("units", "standard_name") if key in source.attrs}
    long_name = str(source.attrs.get("long_name", variable.replace("_", " ")))

    def array(words: str, method: str | None, **extra: Any) -> Array:
        attributes: dict[str, Any] = {**kept, "long_name": f"{words} of {long_name}", **extra}
        if method:
            attributes["cell_methods"] = f"{NUMBER}: {method}"
        return Array(dims, chunks, shards, attributes)

    plain = {
        variable: array("ensemble mean", "mean"),
        f"{variable}_standard_deviation": array(
            "ensemble standard deviation",
            "standard_deviation",
            comment=f"unbiased: divisor N - 1 = {members - 1}",
        ),
        f"{variable}_minimum": array("ensemble minimum", "minimum"),
        f"{variable}_maximum": array("ensemble maximum", "maximum"),
    }
    count = len(settings.quantiles)
    base = array("ensemble quantile", None)
    quantile = Array(
        (QUANTILE, *dims), (count, *chunks), (count, *shards), {**base.attributes}, base.dtype
    )
    return {**plain, f"{variable}_quantile": quantile}


def _part(size: int, longest: int = 64) -> int:
    """The chunk length that covers `size` in equal parts of at most `longest` points."""
    parts = -(-size // longest)
    return -(-size // parts)


def _blocks(
    source: xr.DataArray, variable: str, steps: int, settings: StatisticsSettings
) -> Iterator[Block]:
    """One shard of every array of a variable after the other, read window by window."""
    levels = range(source.sizes[LEVEL]) if LEVEL in source.dims else (None,)
    windows = fields.windows(source.sizes[LEAD_TIME], settings.window)
    members = fields.ahead(
        lambda place: _read(source, variable, *place),
        [(level, window) for level in levels for window in windows],
    )
    for level in levels:
        for first in range(0, len(windows), steps // settings.window or 1):
            own = windows[first : first + (steps // settings.window or 1)]
            parts = [statistics(next(members), settings.quantiles) for _ in own]
            yield _block(parts, variable, level, own[0].start)


def _block(
    parts: Sequence[Mapping[str, Float]], variable: str, level: int | None, start: int
) -> Block:
    dims: tuple[str, ...] = (LEAD_TIME, LATITUDE, LONGITUDE)
    values = {}
    for key in parts[0]:
        joined = np.concatenate([part[key] for part in parts], axis=-3)
        name = variable if key == "mean" else f"{variable}_{key}"
        array = xr.DataArray(joined, dims=(QUANTILE, *dims) if key == "quantile" else dims)
        values[name] = array if level is None else array.expand_dims({LEVEL: 1}, axis=-3)
    return Block({LEAD_TIME: start, LEVEL: level or 0}, xr.Dataset(values))


def _read(source: xr.DataArray, variable: str, level: int | None, window: slice) -> Float:
    """(number, lead_time, latitude, longitude)."""
    at = source if level is None else source.isel({LEVEL: level})
    members = at.isel({LEAD_TIME: window}).transpose(NUMBER, LEAD_TIME, LATITUDE, LONGITUDE)
    values = np.asarray(members.values, np.float32)
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0]
        raise ProductError(
            f"member {members[NUMBER].values[where[0]]} of {variable} holds NaN or infinity",
            "finite values in every member",
            "look at the rollout of that member",
        )
    return values


def statistics(members: Float, quantiles: tuple[float, ...]) -> Mapping[str, Float]:
    """Statistics over the first axis.

    Args:
        members: (member, ...), finite.
        quantiles: probabilities, ascending.

    Returns:
        `mean`, `standard_deviation` (divisor N - 1), `minimum`, `maximum`, each of the shape of
        one member, and `quantile` with the probabilities first. Sums run in float64, in the
        order of the members, so that the same members always give the same bits.
    """
    count, shape = members.shape[0], members.shape[1:]
    flat = members.reshape(count, -1)
    size = flat.shape[1]
    names = ("mean", "standard_deviation", "minimum", "maximum")
    out: dict[str, Float] = {name: np.empty(size, np.float32) for name in names}
    out["quantile"] = np.empty((len(quantiles), size), np.float32)
    for first in range(0, size, _TILE):  # a tile of all members stays in the cache
        part = slice(first, min(first + _TILE, size))
        tile = flat[:, part]
        mean = tile.sum(axis=0, dtype=np.float64) / count
        variance = np.zeros_like(mean)
        for member in tile:
            variance += (member - mean) ** 2
        rows = sort_members(tile)
        # A sum may round to just outside the members' range, which no mean of theirs is.
        out["mean"][part] = np.clip(mean.astype(np.float32), rows[0], rows[-1])
        out["standard_deviation"][part] = np.sqrt(variance / (count - 1))
        out["minimum"][part], out["maximum"][part] = rows[0], rows[-1]
        for index, p in enumerate(quantiles):
            out["quantile"][index, part] = _interpolate(rows, p)
    return {
        name: values.reshape(-1, *shape) if name == "quantile" else values.reshape(shape)
        for name, values in out.items()
    }


def _interpolate(rows: Float, p: float) -> NDArray[np.float64]:
    """Quantile of sorted rows at position (N - 1) p, linear between neighbours."""
    position = (len(rows) - 1) * p
    below = min(int(position), len(rows) - 2)
    low = rows[below].astype(np.float64)
    return np.asarray(low + (rows[below + 1] - low) * (position - below))
