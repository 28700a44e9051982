"""The picture of the tracks: strike probability in colours, every member's tracks as lines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mosaic_core.dims import LATITUDE, LONGITUDE
from mosaic_core.products import canvas, colours, page
from mosaic_core.products.linking import Track
from mosaic_core.products.product import ProductContext
from mosaic_core.products.projections import VIEWS, Projection

# Bounds of tropical storm and hurricane: 34 and 64 kt.
_WINDS: Final = ((0.0, "#7a8188", "below 17 m/s"), (17.2, "#0b6e8a", "17 to 33 m/s"),
                 (32.7, "#8c1d40", "over 33 m/s"))  # fmt: skip


def draw(
    tracks: Sequence[Sequence[Track]],
    strikes: xr.DataArray,
    view: str,
    context: ProductContext,
    hours: Sequence[float],
) -> bytes:
    """The picture as PNG.

    Args:
        hours: lead times of the forecast.
        strikes: probability (latitude, longitude) of the whole forecast.
        view: a name in `projections.VIEWS`.
    """
    lon, lat = (strikes[dim].values.astype(float) for dim in (LONGITUDE, LATITUDE))
    plane = canvas.Plane(VIEWS[view], lon, lat)
    count = sum(len(own) for own in tracks)
    having = sum(bool(own) for own in tracks)

    def paint(axes: Axes) -> object:
        norm = colours.banded(colours.PERCENT, "neither")
        share = 100.0 * strikes.values.astype(float)
        field = np.ma.masked_less_equal(share, 0.0)
        shading = plane.shade(axes, field, norm=norm, cmap=colours.palette("spread"))
        lines, shades = _lines(tracks, plane.projection)
        axes.add_collection(LineCollection(lines, colors=shades, linewidths=0.8, zorder=6))
        handles = [Line2D([], [], color=colour, label=text) for _, colour, text in _WINDS]
        axes.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(-0.04, -0.01), fontsize=7.5,
            frameon=False, title="10 m wind", title_fontsize=7.5,
        )  # fmt: skip
        return shading

    found = f"{count} tracks in {having} of {len(tracks)} members" if count else "No tracks"
    words = page.Words(
        "Tropical cyclones: tracks and strike probability",
        hours[-1],
        "%",
        f"{found}. Colours: probability of a cyclone within 120 km",
        hours[0],
    )
    return page.one_map(plane, context, words, colours.PERCENT[1:], paint)


def _lines(
    tracks: Sequence[Sequence[Track]], projection: Projection
) -> tuple[list[NDArray[np.float64]], list[str]]:
    """A short line in the plane for every step of every track, and its colour by the wind."""
    lines, shades = [], []
    for track in (track for own in tracks for track in own):
        for start, end in pairwise(track):
            lon = _along(start.cyclone.longitude, end.cyclone.longitude, projection)
            lat = np.array([start.cyclone.latitude, end.cyclone.latitude])
            if lon is None or lat.min() < projection.south or lat.max() > projection.north:
                continue
            lines.append(np.column_stack(projection.project(lon, lat)))
            colour = [shade for least, shade, _ in _WINDS if end.cyclone.wind >= least][-1]
            shades.append(colour)
    return lines, shades


def _along(start: float, end: float, projection: Projection) -> NDArray[np.float64] | None:
    """Longitudes on the map; None for the one step that the edge of the map cuts."""
    if projection.west is None:
        return np.array([start, start + (end - start + 180) % 360 - 180])
    lon = (np.array([start, end]) - projection.west) % 360 + projection.west
    return None if abs(lon[1] - lon[0]) > 180 else lon
