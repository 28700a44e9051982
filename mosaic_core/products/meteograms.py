"""`meteograms/<place>.png`: the ensemble at a place, lead time by lead time, a panel a quantity."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosaic_core.cycle import Cycle
from mosaic_core.dims import LATITUDE, LEAD_TIME, LONGITUDE, NUMBER
from mosaic_core.errors import ConfigurationError
from mosaic_core.products import canvas
from mosaic_core.products.checks import finite
from mosaic_core.products.output import File, ProductError
from mosaic_core.products.product import (
    Product,
    ProductContext,
    field_of,
    lead_hours,
    register,
)
from mosaic_core.products.quantities import Field, Quantity, choose, refuse_unknown

_EARTH_RADIUS_KM: Final = 6371.0
_BANDS: Final = (
    (0.0, 1.0, "#d5e3ef", "all members"),
    (0.1, 0.9, "#9cc0dd", "10 to 90 %"),
    (0.25, 0.75, "#4f8fc0", "25 to 75 %"),
)
_MEDIAN: Final = "#08306b"
_MEMBER: Final = "#5b6770"


@dataclass(frozen=True)
class Place:
    """A place to draw: degrees north, degrees east (from -180 or from 0)."""

    name: str
    latitude: float
    longitude: float

    def __post_init__(self) -> None:
        if not (-90 <= self.latitude <= 90 and -180 <= self.longitude <= 360):
            raise ConfigurationError(
                f"place {self.name!r} at {self.latitude:g}, {self.longitude:g}",
                "latitude -90..90, longitude -180..360",
            )
        if not self.key:
            raise ConfigurationError(f"place {self.name!r}", "a name with letters or digits")

    @property
    def key(self) -> str:
        return re.sub(r"[\W_]+", "_", self.name.lower()).strip("_")


@dataclass(frozen=True)
class MeteogramSettings:
    """Settings of the kind `meteograms`.

    Attributes:
        places: a picture each.
        quantities: a panel each: of each list, the first quantity that the forecast holds.
    """

    places: tuple[Place, ...]
    quantities: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        refuse_unknown(name for names in self.quantities for name in names)
        keys = [place.key for place in self.places]
        if not keys or len(set(keys)) != len(keys):
            raise ConfigurationError(
                f"places {', '.join(keys) or 'none'}", "one or more, each name once"
            )


def make(product_id: str, settings: MeteogramSettings) -> Product:
    """The product: one PNG a place."""

    def notes(forecast: xr.Dataset, context: ProductContext) -> Sequence[str]:
        return choose(forecast, settings.quantities)[1]

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[File]:
        chosen, lacking = choose(forecast, settings.quantities)
        if not chosen:
            raise ProductError("; ".join(lacking), "a quantity to draw", "see `quantities`")
        hours = lead_hours(forecast)
        for place in settings.places:
            at, words = nearest(forecast, place)
            values = {quantity: members_at(quantity, forecast, at) for quantity in chosen}
            shows = {q.name: ((NUMBER, LEAD_TIME), drawn) for q, drawn in values.items()}
            yield File(
                f"{product_id}/{place.key}.png",
                "image/png",
                draw(place.name, words, values, hours, context),
                xr.Dataset(shows),
                tuple(hours),
                f"Meteogram of {place.name}",
            )

    return Product(product_id, (), build, {"title": "Meteograms"}, (finite,), notes)


register("meteograms", MeteogramSettings, make)


def nearest(forecast: xr.Dataset, place: Place) -> tuple[dict[str, int], str]:
    """Indices of the grid point nearest to a place, and where that is, in words."""
    lat = np.deg2rad(forecast[LATITUDE].values.astype(float))
    lon = np.deg2rad(forecast[LONGITUDE].values.astype(float))
    here, east = np.deg2rad(place.latitude), np.deg2rad(place.longitude) - lon
    # Haversine: exact for small distances (Sinnott 1984).
    half = (
        np.sin((lat - here) / 2)[:, None] ** 2
        + np.cos(here) * np.cos(lat)[:, None] * np.sin(east / 2) ** 2
    )
    row, column = (int(i) for i in np.unravel_index(half.argmin(), half.shape))
    distance = 2 * _EARTH_RADIUS_KM * float(np.arcsin(np.sqrt(half[row, column])))
    found = _coordinates(float(np.rad2deg(lat[row])), float(np.rad2deg(lon[column])))
    given = _coordinates(place.latitude, place.longitude)
    text = f"{given}; grid point {found}, {distance:.0f} km away"
    return {LATITUDE: row, LONGITUDE: column}, text


def _coordinates(latitude: float, longitude: float) -> str:
    east = (longitude + 180.0) % 360.0 - 180.0
    return (
        f"{abs(latitude):.2f}°{'S' if latitude < 0 else 'N'} "
        f"{abs(east):.2f}°{'W' if east < 0 else 'E'}"
    )


def members_at(quantity: Quantity, forecast: xr.Dataset, at: dict[str, int]) -> Field:
    """Values (number, lead_time) at a grid point, in drawn units; of a wind its speed."""
    parts = [
        np.asarray(
            field_of(forecast, channel).isel(at).transpose(NUMBER, LEAD_TIME).values, np.float64
        )
        for channel in quantity.channels
    ]
    value = parts[0] if len(parts) == 1 else np.hypot(*parts)
    return (value - quantity.offset) * quantity.factor


def draw(
    name: str,
    where: str,
    values: dict[Quantity, Field],
    hours: Sequence[float],
    context: ProductContext,
) -> bytes:
    """The picture as PNG.

    Args:
        where: the place in words.
        values: of each panel, from the top: (number, lead_time) in drawn units.
    """
    extra = 0.28 if context.flags else 0.0
    panel, width = 1.75, 10.0
    height = 0.72 + extra + panel * len(values) + 0.62
    with canvas.style():
        figure = canvas.new_figure(width, height)
        for index, (quantity, members) in enumerate(values.items()):
            bottom = height - 0.72 - extra - panel * (index + 1) + 0.12
            box = (0.075, bottom / height, 0.88, (panel - 0.42) / height)
            axes = figure.add_axes(box)
            _plume(axes, np.asarray(hours, float), members)
            axes.set_title(f"{quantity.title} ({quantity.units})", loc="left", size=9.5, pad=4)
            _days(axes, context.cycle, hours, last=index == len(values) - 1)
            if index == 0:
                axes.legend(
                    loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=5, frameon=False,
                    fontsize=7.5, handlelength=1.4, columnspacing=1.2, borderaxespad=0.2,
                )  # fmt: skip
        _words(figure, name, where, context, height - extra)
        canvas.banner(figure, context.flags)
        return canvas.png(figure)


def _plume(axes: Axes, hours: Field, members: Field) -> None:
    if len(members) > 1:
        for low, high, colour, label in _BANDS:
            edges = np.quantile(members, (low, high), axis=0)
            axes.fill_between(hours, *edges, color=colour, linewidth=0, label=label)
        axes.plot(hours, members.T, color=_MEMBER, linewidth=0.25, alpha=0.6)
    label = "median" if len(members) > 1 else "the one member"
    axes.plot(hours, np.median(members, axis=0), color=_MEDIAN, linewidth=1.6, label=label)
    axes.margins(y=0.08)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, length=2.5, width=0.6)


def _days(axes: Axes, cycle: Cycle, hours: Sequence[float], *, last: bool) -> None:
    """Midnights UTC as lines, with their dates under the last panel."""
    first = (-cycle.init_time.hour) % 24
    midnights = [float(h) for h in range(first, int(hours[-1]) + 1, 24) if h >= hours[0]]
    axes.set_xlim(hours[0], max(hours[-1], hours[0] + 1))
    ticks: Any = midnights or [hours[0], hours[-1]]
    axes.set_xticks(ticks)
    for hour in midnights:
        axes.axvline(hour, color="#9aa1a7", linewidth=0.4, zorder=0)
    times = [cycle.init_time + timedelta(hours=hour) for hour in ticks]
    names = [
        f"{canvas.DAYS[time.weekday()]} {time:%m-%d %H}\n+{hour:g} h"
        for time, hour in zip(times, ticks, strict=True)
    ]
    axes.set_xticklabels(names if last else [])


def _words(figure: Figure, name: str, where: str, context: ProductContext, top: float) -> None:
    height = figure.get_figheight()
    members = f"{context.members} member{'s' if context.members > 1 else ''}"
    line1, line2 = (top - 0.24) / height, (top - 0.47) / height
    figure.text(0.02, line1, name, size=13.5, weight="bold", va="center")
    start = f"from {canvas.timestamp(context.cycle.init_time)}"
    figure.text(0.98, line1, start, size=10.5, weight="bold", va="center", ha="right")
    figure.text(0.02, line2, where, size=9.0, va="center")
    figure.text(0.98, line2, f"{context.model}, {members}", size=9.0, va="center", ha="right")
    foot = "   ".join(text for text in (context.attribution, context.licence) if text)
    figure.text(0.02, 0.1 / height, "Times are UTC", size=7.5, color="#555b61",
                va="center")  # fmt: skip
    figure.text(0.98, 0.1 / height, foot, size=7.5, va="center", ha="right", color="#555b61")
