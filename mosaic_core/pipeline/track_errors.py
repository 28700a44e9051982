"""Position errors of the product `tracks` against best tracks, a file in the form of IBTrACS.

A member's track belongs to a storm when the two are near each other at the first time that they
have in common, within the first day; of several the nearest. So a storm that forms later is not in
the sample. A case, which is a storm at a valid time of a forecast, counts when at least half of the
members have it: the mean of a few that still do would be of another sample at every lead time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from mosaic_core.errors import ConfigurationError
from mosaic_core.pipeline.accumulated import Span
from mosaic_core.pipeline.site import Site
from mosaic_core.products.cyclones import distance
from mosaic_core.publication import layout
from mosaic_core.publication.latest import read_manifest

NEAR: Final = 3.0
"""Degrees of arc between a track and its storm when they are first compared."""

FIRST_HOURS: Final = 24.0
KM_A_DEGREE: Final = 6371.0 * np.pi / 180.0
_TRACKS: Final = "tracks.csv"


class Place(NamedTuple):
    """Degrees north and east."""

    latitude: float
    longitude: float


BestTracks = Mapping[str, Mapping[datetime, Place]]
"""Places by storm (`SID`) and time (UTC)."""


@dataclass(frozen=True)
class ForecastTrack:
    """One track of one member: lead time (h) and place by valid time (UTC)."""

    member: int
    points: Mapping[datetime, tuple[float, Place]]


@dataclass(frozen=True)
class Case:
    """A storm at a valid time of a forecast; distances along the sphere in km.

    Attributes:
        error: of the mean position of the members.
        member_error: mean over the members.
        spread: mean distance of the members from their mean position.
        members: how many have the storm.
    """

    storm: str
    valid_time: datetime
    lead_hours: float
    error: float
    member_error: float
    spread: float
    members: int

    @property
    def key(self) -> tuple[str, datetime, float]:
        return self.storm, self.valid_time, self.lead_hours


def read_best_tracks(path: Path) -> BestTracks:
    """Main tracks of a CSV with the columns of IBTrACS (Knapp et al. 2010, BAMS 91, 363).

    `SID`, `ISO_TIME`, `LAT`, `LON` are needed; `TRACK_TYPE`, where it is there, must be `main`. The
    row of units below the head may be there or not.

    Raises:
        ConfigurationError: no such file, a column that is not there, or a row that is no position;
            its line is named.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"best tracks {path}: {error}", "a CSV of IBTrACS") from error
    absent = {"SID", "ISO_TIME", "LAT", "LON"} - set(rows[0] if rows else ())
    if absent:
        raise ConfigurationError(
            f"{path} has no column {', '.join(sorted(absent))}", "a CSV of IBTrACS"
        )
    found: dict[str, dict[datetime, Place]] = {}
    for line, row in enumerate(rows, start=2):
        if line == 2 and (row["LAT"] or "").strip().startswith("degrees"):
            continue
        try:
            time = datetime.fromisoformat(row["ISO_TIME"])
            time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
            place = Place(float(row["LAT"]), float(row["LON"]))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{path}, line {line}: {error}", "ISO_TIME, LAT and LON"
            ) from error
        if (row.get("TRACK_TYPE") or "main").strip().lower() == "main":
            found.setdefault(row["SID"], {})[time] = place
    return found


def read_tracks(text: str) -> list[ForecastTrack]:
    """The tracks of a `tracks.csv`."""
    found: dict[tuple[int, int], dict[datetime, tuple[float, Place]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        time = datetime.fromisoformat(row["valid_time"])
        place = Place(float(row["latitude"]), float(row["longitude"]))
        own = found.setdefault((int(row["member"]), int(row["track"])), {})
        own[time] = float(row["lead_hours"]), place
    return [ForecastTrack(member, points) for (member, _), points in found.items()]


def cases_of(tracks: Iterable[ForecastTrack], best: BestTracks, members: int) -> list[Case]:
    """Cases of one forecast.

    Args:
        members: of the whole ensemble, with or without a storm.
    """
    known, found = list(tracks), []
    for storm, places in best.items():
        own = _belonging(known, places)
        for time, place in sorted(places.items()):
            here = [track.points[time] for track in own if time in track.points]
            if here and 2 * len(here) >= members:
                found.append(_case(storm, time, place, here))
    return found


def common(*samples: Iterable[Case]) -> list[list[Case]]:
    """What all samples have: the homogeneous sample, in which forecasts may be compared."""
    lists = [list(sample) for sample in samples]
    shared = set.intersection(*({case.key for case in each} for each in lists))
    return [[case for case in each if case.key in shared] for each in lists]


def by_lead_time(cases: Iterable[Case]) -> list[dict[str, Any]]:
    """Means over the cases of each lead time, and how many cases and storms they are."""
    leads: dict[float, list[Case]] = {}
    for case in cases:
        leads.setdefault(case.lead_hours, []).append(case)
    return [
        {
            "lead_hours": hours,
            "cases": len(each),
            "storms": len({case.storm for case in each}),
            **{
                f"{name}_km": float(np.mean([asdict(case)[name] for case in each]))
                for name in ("error", "member_error", "spread")
            },
        }
        for hours, each in sorted(leads.items())
    ]


def cases_in_store(site: Site, best: BestTracks, span: Span) -> Iterator[Case]:
    """Cases of every published forecast of a span that has tracks, the newest revision of each."""
    seen = set()
    runs = site.catalog.runs(variant=site.config.name, states=("published",))
    for run in runs:
        if run.cycle in seen or not span.holds(run.cycle, 0):
            continue
        seen.add(run.cycle)
        manifest = read_manifest(site.store, run.variant, run.cycle, run.revision)
        key = f"{layout.forecast_prefix(run.variant, run.cycle, run.revision)}/{_TRACKS}"
        if manifest is not None and site.store.exists(key):
            tracks = read_tracks(site.store.get(key).decode())
            yield from cases_of(tracks, best, manifest.ensemble.members)


def _belonging(
    tracks: Iterable[ForecastTrack], places: Mapping[datetime, Place]
) -> list[ForecastTrack]:
    """The track of each member that begins nearest to the storm."""
    nearest: dict[int, tuple[float, ForecastTrack]] = {}
    for track in tracks:
        shared = sorted(track.points.keys() & places.keys())
        if not shared:
            continue
        hours, place = track.points[shared[0]]
        apart = float(distance(*place, *places[shared[0]]))
        if hours <= FIRST_HOURS and apart <= NEAR:
            before = nearest.get(track.member)
            if before is None or apart < before[0]:
                nearest[track.member] = apart, track
    return [track for _, track in nearest.values()]


def _case(storm: str, time: datetime, place: Place, here: Sequence[tuple[float, Place]]) -> Case:
    lat, lon = np.array([where for _, where in here]).T
    mean = _mean(lat, lon)
    error = KM_A_DEGREE * float(distance(*mean, *place))
    member_error, spread = (
        KM_A_DEGREE * float(distance(lat, lon, *other).mean()) for other in (place, mean)
    )
    return Case(storm, time, here[0][0], error, member_error, spread, len(here))


def _mean(lat: np.ndarray[Any, Any], lon: np.ndarray[Any, Any]) -> Place:
    """The direction of the mean of unit vectors: no seam at 180 degrees."""
    phi, theta = np.radians(lat), np.radians(lon)
    x, y, z = (
        part.mean()
        for part in (np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi))
    )
    return Place(
        float(np.degrees(np.arctan2(z, np.hypot(x, y)))), float(np.degrees(np.arctan2(y, x)))
    )
