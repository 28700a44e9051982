"""Drawing fields on a projected map with matplotlib: no pyplot, no state between pictures."""

from __future__ import annotations

import io
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, cast

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import map_coordinates

from mosaic_core.dims import LATITUDE, LONGITUDE
from mosaic_core.products.coastlines import Lines, projected_coastlines
from mosaic_core.products.projections import Projection

Field = NDArray[np.float64]

INK: Final = "#22262b"
_COAST: Final = "#33383d"
_STYLE: Final[Any] = {"font.family": "DejaVu Sans", "font.size": 10.0, "text.color": INK}
_COMPRESSION: Final = 3
"""Of zlib: half the time of its default, for files 5 % larger."""
_DRAWING: Final = threading.Lock()
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class Plane:
    """The points of a grid on one projection; longitudes ascend in [0, 360), latitudes ascend."""

    projection: Projection
    lon: Field
    lat: Field

    def shade(self, axes: Axes, field: Field, **style: Any) -> Any:
        """Cells of the grid, each in its colour. `field` is (latitude, longitude)."""
        lon, lat = self._edges()
        order = self._order()
        rows = self._rows(lat)
        lat = np.clip(lat, self.projection.south, self.projection.north)
        x, y = self.projection.project(lon[None, :], lat[rows.start : rows.stop + 1, None])
        return axes.pcolormesh(x, y, field[rows][:, order], **style, rasterized=True)

    def contour(self, axes: Axes, field: Field, **style: Any) -> Any:
        """Contour lines, through a cubic spline where the grid is coarse."""
        lon, lat, fine = refined(self.lon, self.lat, field)
        start = self._start()
        order = np.argsort((lon - start) % 360.0, kind="stable")
        east = (lon[order] - start) % 360.0 + start
        keep = (lat >= self.projection.south) & (lat <= self.projection.north)
        values, lines = fine[keep][:, order], lat[keep]
        closed = np.concatenate((values, values[:, :1]), axis=1)
        east = np.concatenate((east, east[:1] + 360.0))
        if self.projection.west is not None and east[0] > start:
            east, closed = _cut(east, closed, start)
        x, y = self.projection.project(east[None, :], lines[:, None])
        return axes.contour(x, y, closed, **style)

    def arrows(self, axes: Axes, u: Field, v: Field, spacing: float, **style: Any) -> Any:
        """Arrows along the wind, about every `spacing` degrees of arc in both directions."""
        every = max(1, round(spacing / float(np.diff(self.lat).mean())))
        points = []
        for row in range(every // 2, self.lat.size, every):
            shrink = np.cos(np.deg2rad(self.lat[row]))
            inside = self.projection.south + 2 < self.lat[row] < self.projection.north - 2
            if inside and shrink > 0.1:
                step = max(1, round(spacing / shrink / (360.0 / self.lon.size)))
                points += [(row, column) for column in range(0, self.lon.size, step)]
        rows, columns = np.array(points).T
        lon, lat = self.lon[columns], self.lat[rows]
        lon = (lon - self._start()) % 360.0 + self._start()
        east, north = u[rows, columns], v[rows, columns]
        x, y = self.projection.project(lon, lat)
        speed = np.maximum(np.hypot(east, north), 1e-9)
        move = 1e-3 / speed
        x1, y1 = self.projection.project(
            lon + east * move / np.cos(np.deg2rad(lat)), lat + north * move
        )
        length = np.maximum(np.hypot(x1 - x, y1 - y), 1e-12)
        return axes.quiver(x, y, (x1 - x) / length * speed, (y1 - y) / length * speed, **style)

    def _start(self) -> float:
        return 0.0 if self.projection.west is None else self.projection.west

    def _order(self) -> NDArray[np.intp]:
        """Columns from west to east; the one that the edge cuts stands at both ends."""
        order = np.argsort((self.lon - self._start()) % 360.0, kind="stable")
        return np.concatenate((order[-1:], order, order[:1]))

    def _edges(self) -> tuple[Field, Field]:
        start = self._start()
        east = np.sort((self.lon - start) % 360.0) + start
        east = np.concatenate((east[-1:] - 360.0, east, east[:1] + 360.0))
        middles = (east[1:] + east[:-1]) / 2
        edges = np.concatenate(([start], middles, [start + 360.0]))
        lat = np.concatenate(([-90.0], (self.lat[1:] + self.lat[:-1]) / 2, [90.0]))
        return np.clip(edges, start, start + 360.0), lat

    def _rows(self, edges: Field) -> slice:
        inside = (edges[1:] > self.projection.south) & (edges[:-1] < self.projection.north)
        found = np.flatnonzero(inside)
        return slice(int(found[0]), int(found[-1]) + 1)


def _cut(lon: Field, field: Field, start: float) -> tuple[Field, Field]:
    """A closed row of columns, cut anew at `start` with the value interpolated there."""
    gap = lon[-1] - lon[-2]
    weight = (lon[-1] - start - 360.0) / gap
    seam = (field[:, -1:] * (1 - weight)) + field[:, -2:-1] * weight
    east = np.concatenate(([start], lon[:-1], [start + 360.0]))
    return east, np.concatenate((seam, field[:, :-1], seam), axis=1)


def refined(
    lon: Field, lat: Field, field: Field, spacing: float = 1.5
) -> tuple[Field, Field, Field]:
    """The field on a grid of about `spacing` degrees, by cubic splines; a finer one unchanged.

    Longitudes wrap, and a meridian goes on beyond the pole on the opposite one.
    """
    factor = round(float(np.diff(lat).mean()) / spacing)
    if factor < 2 or lon.size % 2:
        return lon, lat, field
    pad = 3
    poles = lat[0] <= -90.0 + 1e-6 and lat[-1] >= 90.0 - 1e-6
    across = np.roll(field, lon.size // 2, axis=1)
    low, high = (across[1 : pad + 1][::-1], across[-pad - 1 : -1][::-1])
    if not poles:
        low, high = across[:pad][::-1], across[-pad:][::-1]
    tall = np.concatenate((low, field, high))
    wide = np.concatenate((tall[:, -4:], tall, tall[:, :4]), axis=1)
    rows = np.linspace(0, lat.size - 1, (lat.size - 1) * factor + 1)
    columns = np.arange(lon.size * factor) / factor
    mesh = np.meshgrid(rows + pad, columns + 4, indexing="ij")
    fine = map_coordinates(wide, mesh, order=3, mode="nearest")
    step = 360.0 / lon.size
    return (lon[0] + columns * step) % 360.0, np.interp(rows, np.arange(lat.size), lat), fine


@lru_cache(maxsize=16)
def _coast(projection: Any) -> Lines:
    return projected_coastlines(projection)


def frame(
    axes: Axes,
    plane: Plane,
    land: xr.DataArray | None = None,
    *,
    coast: float = 0.6,
    grid: bool = True,
) -> None:
    """Coastlines, graticule and edge; everything drawn so far is clipped to the edge.

    Args:
        land: land-sea mask (latitude, longitude) of a planet that is not the Earth: its coast is
            drawn where the mask is one half.
    """
    projection = plane.projection
    edge = Path(np.column_stack(projection.outline()), closed=True)
    patch = PathPatch(edge, facecolor="none", edgecolor=INK, linewidth=0.9, zorder=9)
    axes.add_artist(patch)
    if land is None:
        lines = _coast(cast(Hashable, projection))
        axes.add_collection(LineCollection(lines, colors=_COAST, linewidths=coast, zorder=4))
    else:
        mask = land.transpose(LATITUDE, LONGITUDE).values.astype(float)
        plane.contour(axes, mask, levels=[0.5], colors=_COAST, linewidths=2.5 * coast, zorder=4)
    if grid:
        axes.add_collection(
            LineCollection(
                _graticule(projection), colors="#000000", alpha=0.18, linewidths=0.4, zorder=3
            )
        )
    for artist in (*axes.collections, *axes.texts):
        artist.set_clip_path(patch)
        artist.set_clip_on(True)
    x, y = edge.vertices.T  # type: ignore[union-attr]
    margin = 0.004 * (x.max() - x.min())
    axes.set(xlim=(x.min() - margin, x.max() + margin), ylim=(y.min() - margin, y.max() + margin))
    axes.set_aspect("equal")
    axes.axis("off")


def _graticule(projection: Projection) -> Lines:
    south, north = projection.south, projection.north
    start = 0.0 if projection.west is None else projection.west
    lat = np.linspace(max(south, -90), min(north, 90), 91)
    lines = [projection.project(np.full(91, lon), lat) for lon in start + np.arange(0, 360, 30.0)]
    lon = np.linspace(start, start + 360.0, 181)
    parallels = [value for value in range(-60, 61, 30) if south < value < north]
    lines += [projection.project(lon, value) for value in parallels]
    return [np.column_stack(line) for line in lines]


def banner(figure: Figure, flags: Sequence[str]) -> None:
    """The quality flags in plain words, white on red along the upper edge."""
    if not flags:
        return
    inches = 0.28
    height = inches / figure.get_figheight()
    figure.add_artist(Rectangle((0, 1 - height), 1, height, color="#a3142e", linewidth=0))
    text = "   |   ".join(flags)
    size = min(11.0, 115.0 * figure.get_figwidth() / max(len(text), 1))
    middle = 1 - 0.54 * height
    figure.text(0.5, middle, text, color="white", weight="bold", size=size, ha="center",
                va="center")  # fmt: skip


def timestamp(time: datetime) -> str:
    """`Mon 2026-11-23 00 UTC`, in English whatever the locale."""
    return f"{DAYS[time.weekday()]} {time:%Y-%m-%d %H} UTC"


def valid_time(start: datetime, hours: float) -> str:
    return timestamp(start + timedelta(hours=hours))


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches, at 160 points an inch, that belongs to nobody else."""
    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def style() -> Iterator[None]:
    """Context in which a picture is made, in our fonts; one at a time, as rcParams are global."""
    with _DRAWING, mpl.rc_context(_STYLE):
        yield


def png(figure: Figure) -> bytes:
    """The picture's bytes, without time or software: the same figure gives the same bytes."""
    canvas = cast(Any, figure.canvas)
    canvas.draw()
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
    buffer = io.BytesIO()
    dots = (figure.dpi, figure.dpi)
    picture.convert("RGB").save(buffer, "png", dpi=dots, compress_level=_COMPRESSION)
    return buffer.getvalue()
