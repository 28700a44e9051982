"""Coastlines: Natural Earth 1:110 million, from the TopoJSON kept in `assets`."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from mosaic_core.products.projections import Projection

Lines = list[NDArray[np.float64]]


@cache
def coastlines() -> tuple[NDArray[np.float64], ...]:
    """Lines of (longitude, latitude) in degrees, without what is no coast.

    Land is cut at the date line and Antarctica is closed along the map's lower edge: those
    segments are dropped.
    """
    text = (files("mosaic_core.products") / "assets" / "land-110m.json").read_text("utf-8")
    topology = json.loads(text)
    scale, origin = (np.array(topology["transform"][key]) for key in ("scale", "translate"))
    lines: Lines = []
    for arc in topology["arcs"]:
        points = np.cumsum(np.array(arc), axis=0) * scale + origin
        lon, lat = points.T
        cut = (np.abs(lon[1:]) > 179.9) & (np.abs(lon[:-1]) > 179.9)
        edge = (lat[1:] < -85.5) & (lat[:-1] < -85.5)
        lines += _without(points, cut | edge)
    return tuple(lines)


def projected_coastlines(projection: Projection) -> Lines:
    """Coastlines in the plane, within the latitudes shown, cut where the map is cut open."""
    lines: Lines = []
    for line in coastlines():
        lon, lat = line.T
        outside = (lat < projection.south - 5) | (lat > projection.north + 5)
        drop = outside[1:] | outside[:-1]
        if projection.west is not None:
            lon = (lon - projection.west) % 360.0 + projection.west
            drop |= np.abs(np.diff(lon)) > 180.0
        lines += _without(np.column_stack(projection.project(lon, lat)), drop)
    return lines


def _without(points: NDArray[np.float64], drop: NDArray[np.bool_]) -> Lines:
    """The line in pieces, without the segments marked in `drop`."""
    pieces = np.split(points, np.flatnonzero(drop) + 1)
    return [piece for piece in pieces if len(piece) > 1]
