"""Strike probability: the share of members with a cyclone track within a distance of a place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mosaic_core.products.cyclones import EARTH_RADIUS
from mosaic_core.products.linking import Track

Float = NDArray[np.float32]
Vector = NDArray[np.float64]

KILOMETRES: Final = 120.0
"""Distance of the strike probabilities of ECMWF (van der Grijn 2002, ECMWF Tech. Memo. 386)."""


@dataclass(frozen=True)
class Places:
    """A grid of places, `spacing` degrees apart, both poles included."""

    spacing: float

    @property
    def latitudes(self) -> Vector:
        return np.asarray(np.linspace(-90.0, 90.0, round(180 / self.spacing) + 1))

    @property
    def longitudes(self) -> Vector:
        return np.asarray(np.arange(round(360 / self.spacing)) * self.spacing)


def strike_probability(
    members: Sequence[Iterable[Track]], places: Places, first: float, last: float
) -> Float:
    """Share of members with a track within 120 km between two lead times: (latitude, longitude).

    Args:
        members: tracks of each member.
        first, last: lead times (h); pieces of a track that lie between them count.
    """
    lat, lon = places.latitudes, places.longitudes
    struck = np.zeros((lat.size, lon.size), np.int32)
    for tracks in members:
        own = np.zeros(struck.shape, bool)
        for track in tracks:
            points = [(p.hours, p.cyclone.latitude, p.cyclone.longitude) for p in track]
            for (h0, *start), (h1, *end) in pairwise(points):
                if h0 >= first and h1 <= last:
                    _mark(own, lat, lon, (start[0], start[1]), (end[0], end[1]))
        struck += own
    return (struck / max(1, len(members))).astype(np.float32)


def _mark(
    own: NDArray[np.bool_],
    lat: Vector,
    lon: Vector,
    start: tuple[float, float],
    end: tuple[float, float],
) -> None:
    """Mark the places within reach of the great circle between two points."""
    reach = np.degrees(KILOMETRES * 1e3 / EARTH_RADIUS)
    # An arc of some degrees leaves the box of its ends by far less than the reach.
    south, north = min(start[0], end[0]) - 2 * reach, max(start[0], end[0]) + 2 * reach
    rows = np.flatnonzero((lat >= south) & (lat <= north))
    wide = 2 * reach / max(0.05, np.cos(np.radians(min(89.0, max(abs(south), abs(north))))))
    east = (end[1] - start[1] + 180.0) % 360.0 - 180.0
    middle = start[1] + east / 2
    off = np.abs((lon - middle + 180.0) % 360.0 - 180.0)
    columns = np.flatnonzero(off <= abs(east) / 2 + wide)
    apart = segment_distance(start, end, lat[rows][:, None], lon[columns][None, :])
    own[np.ix_(rows, columns)] |= apart <= reach


def segment_distance(
    start: tuple[float, float], end: tuple[float, float], lat: Vector, lon: Vector
) -> Vector:
    """Distance (degrees of arc) of places from the great circle between two points."""
    a, b = _unit(*start), _unit(*end)
    p = _unit(lat, lon)
    normal = np.cross(a, b)
    ends = np.minimum(_angle(p, a), _angle(p, b))
    if np.linalg.norm(normal) < 1e-12:
        return ends
    normal /= np.linalg.norm(normal)
    between = (p @ np.cross(normal, a) > 0) & (p @ np.cross(b, normal) > 0)
    across = np.degrees(np.abs(np.arcsin(np.clip(p @ normal, -1, 1))))
    return np.asarray(np.where(between, across, ends))


def _unit(lat: object, lon: object) -> Vector:
    phi, lam = np.broadcast_arrays(np.radians(np.asarray(lat)), np.radians(np.asarray(lon)))
    parts = (np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi))
    return np.stack(parts, axis=-1)


def _angle(p: Vector, q: Vector) -> Vector:
    chord = np.linalg.norm(p - q, axis=-1)
    return np.asarray(np.degrees(2 * np.arcsin(np.minimum(chord / 2, 1.0))))
