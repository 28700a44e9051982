"""Cyclones of consecutive times, linked into tracks.

Each open track looks where its motion would have brought it; the nearest candidate there goes on
with it, nearest pairs first. As in TempestExtremes (Ullrich et al. 2021, StitchNodes: 8 degrees
in 6 hours, gaps of up to 24 hours) a track may miss some times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mosaic_core.errors import ConfigurationError
from mosaic_core.products.cyclones import Candidate, distance


@dataclass(frozen=True)
class Linking:
    """How candidates become tracks.

    Attributes:
        reach: how far (degrees of arc in 6 h) a cyclone may be from where its motion leads; of a
            track of one point, from that point.
        gap_hours: longest time without a candidate inside a track.
        least_hours: shortest time from the first to the last point of a track.
        genesis_latitude: greatest distance from the equator (degrees) of the first point.
    """

    reach: float = 6.0
    gap_hours: float = 24.0
    least_hours: float = 24.0
    genesis_latitude: float = 40.0

    def __post_init__(self) -> None:
        if self.reach <= 0 or self.gap_hours <= 0 or self.least_hours < 0:
            raise ConfigurationError(
                f"reach {self.reach:g}, gap_hours {self.gap_hours:g}, least_hours "
                f"{self.least_hours:g}",
                "above 0, above 0, 0 or more",
            )


@dataclass(frozen=True)
class Point:
    """A cyclone at a lead time (h)."""

    hours: float
    cyclone: Candidate


Track = tuple[Point, ...]


def link(times: Sequence[tuple[float, Sequence[Candidate]]], settings: Linking) -> list[Track]:
    """Tracks of one member, in the order in which they begin.

    Args:
        times: lead time (h) and candidates there, in order.
    """
    tracks: list[list[Point]] = []
    for hours, candidates in times:
        free = set(range(len(candidates)))
        taken: set[int] = set()
        for _, track, index in _pairs(tracks, hours, candidates, settings):
            if track in taken or index not in free:
                continue
            tracks[track].append(Point(hours, candidates[index]))
            taken.add(track)
            free.remove(index)
        tracks += [[Point(hours, candidates[index])] for index in sorted(free)]
    return [tuple(track) for track in tracks if _lasts(track, settings)]


def _pairs(
    tracks: Sequence[Sequence[Point]],
    hours: float,
    candidates: Sequence[Candidate],
    settings: Linking,
) -> list[tuple[float, int, int]]:
    """(distance, track, candidate) of all that may belong together, nearest first."""
    pairs = []
    for number, track in enumerate(tracks):
        passed = hours - track[-1].hours
        if passed > settings.gap_hours:
            continue
        lat, lon = _expected(track, hours)
        limit = settings.reach * passed / 6.0
        for index, candidate in enumerate(candidates):
            apart = float(distance(lat, lon, candidate.latitude, candidate.longitude))
            if apart <= limit:
                pairs.append((apart, number, index))
    return sorted(pairs)


def _expected(track: Sequence[Point], hours: float) -> tuple[float, float]:
    """Where the motion between the last two points leads; the last point if there is but one."""
    last = track[-1]
    if len(track) == 1:
        return last.cyclone.latitude, last.cyclone.longitude
    before = track[-2]
    share = (hours - last.hours) / (last.hours - before.hours)
    east = (last.cyclone.longitude - before.cyclone.longitude + 180.0) % 360.0 - 180.0
    north = last.cyclone.latitude - before.cyclone.latitude
    lat = max(-89.0, min(89.0, last.cyclone.latitude + share * north))
    return lat, (last.cyclone.longitude + share * east) % 360.0


def _lasts(track: Sequence[Point], settings: Linking) -> bool:
    long = track[-1].hours - track[0].hours >= settings.least_hours
    return long and abs(track[0].cyclone.latitude) <= settings.genesis_latitude
