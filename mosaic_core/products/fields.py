"""Fields by name: a channel, or the speed of a wind of two channels; read some steps at a time."""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.channels import VARIABLES, Channel
from mosaic_core.dims import LATITUDE, LEAD_TIME, LONGITUDE, NUMBER
from mosaic_core.errors import ConfigurationError
from mosaic_core.products.output import ProductError
from mosaic_core.products.product import ProductContext, field_of

Float = NDArray[np.float32]
Key = TypeVar("Key")
Value = TypeVar("Value")
Fields = TypeVar("Fields", xr.Dataset, xr.DataArray)

_WIND_10M: Final = "10m_wind"


def channels_of(name: str) -> tuple[str, ...]:
    """Channels behind a field: one, or eastward and northward wind of `10m_wind`, `wind_850`.

    Raises:
        ConfigurationError: no such field; the nearest name is given.
    """
    if name == _WIND_10M:
        return ("10m_u_component_of_wind", "10m_v_component_of_wind")
    if level := re.fullmatch(r"wind_(\d+)", name):
        return tuple(f"{axis}_component_of_wind_{level[1]}" for axis in "uv")
    try:
        return (Channel.parse(name).name,)
    except ConfigurationError:
        near = difflib.get_close_matches(name, [*VARIABLES, _WIND_10M, "wind_850"], n=1)
        raise ConfigurationError(
            f"no field {name!r}",
            f"a channel ({', '.join(VARIABLES)}, with _<hPa> where it is on levels), "
            f"{_WIND_10M} or wind_<hPa>",
            f"did you mean {near[0]!r}?" if near else "",
        ) from None


def units_of(name: str) -> str:
    return Channel.parse(channels_of(name)[0]).units


def members(forecast: xr.Dataset, name: str, steps: slice) -> Float:
    """(number, lead_time, latitude, longitude) of some lead times; of a wind its speed.

    Raises:
        ProductError: a member holds NaN or infinity; it is named.
    """
    parts = [_finite(field_of(forecast, c), c, steps) for c in channels_of(name)]
    return parts[0] if len(parts) == 1 else np.hypot(*parts)


def _finite(field: xr.DataArray, name: str, steps: slice) -> Float:
    part = field.isel({LEAD_TIME: steps}).transpose(NUMBER, LEAD_TIME, LATITUDE, LONGITUDE)
    values = np.asarray(part.values, np.float32)
    if not np.isfinite(values).all():
        member = part[NUMBER].values[np.argwhere(~np.isfinite(values))[0][0]]
        raise ProductError(
            f"member {member} of {name} holds NaN or infinity",
            "finite values in every member",
            "look at the rollout of that member",
        )
    return values


def windows(count: int, length: int) -> list[slice]:
    """Consecutive slices of `length` that cover `count` lead times."""
    return [slice(first, min(first + length, count)) for first in range(0, count, length)]


def steps_within(hours: float, context: ProductContext) -> int | None:
    """Lead times in a period that ends at one; None where they do not divide it."""
    steps = hours / context.step_hours
    return int(steps) if steps >= 1 and steps == int(steps) else None


def ahead(read: Callable[[Key], Value], keys: Iterable[Key]) -> Iterator[Value]:
    """`read(key)` of every key, in order, each while what came before it is worked on.

    Two results are in memory at a time. An error comes up at its own place in the order.
    """
    with ThreadPoolExecutor(1) as reader:
        waiting: deque[Future[Value]] = deque()
        for key in keys:
            waiting.append(reader.submit(read, key))
            if len(waiting) == 2:
                yield waiting.popleft().result()
        for last in waiting:
            yield last.result()


def ascending(given: Fields) -> Fields:
    """With ascending latitudes and longitudes; itself, uncopied, where they are."""
    turned = [dim for dim in (LATITUDE, LONGITUDE) if np.any(np.diff(given[dim].values) < 0)]
    return given.sortby(turned) if turned else given
