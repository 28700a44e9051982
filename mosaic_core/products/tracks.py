"""`tracks.geojson`, `tracks.csv`, `strike_probability.zarr`, `maps/tracks.png`: tropical cyclones.

Cyclones of every member and lead time (`cyclones`), linked in time (`linking`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import Any, Final

import numpy as np
import xarray as xr

from mosaic_core.dims import COORDINATE_ATTRIBUTES, LATITUDE, LEAD_TIME, LONGITUDE, NUMBER
from mosaic_core.errors import ConfigurationError
from mosaic_core.products import fields
from mosaic_core.products.cyclones import NEEDS, Candidate, Criteria, Sphere, State, candidates
from mosaic_core.products.linking import Linking, Track, link
from mosaic_core.products.maps import refuse_view
from mosaic_core.products.output import Cube, File, Output, ProductError
from mosaic_core.products.product import Product, ProductContext, lead_hours, register
from mosaic_core.products.strikes import Places, strike_probability
from mosaic_core.products.tracks_map import draw

COARSEST: Final = 3.0
_DAY: Final = 24.0


@dataclass(frozen=True)
class TrackSettings:
    """Settings of the kind `tracks`.

    Attributes:
        criteria: what a tropical cyclone is (`mosaic_core.products.cyclones`).
        linking: how they become tracks (`mosaic_core.products.linking`).
        strike_spacing: degrees between the places of the strike probability.
        view: of the picture, a name in `projections.VIEWS`.
        window: lead times read at a time; that of the forecast store's shards is best.
    """

    criteria: Criteria = field(default_factory=Criteria)
    linking: Linking = field(default_factory=Linking)
    strike_spacing: float = 0.5
    view: str = "pacific"
    window: int = 8

    def __post_init__(self) -> None:
        refuse_view(self.view)
        if not 0.1 <= self.strike_spacing <= 5 or (180 / self.strike_spacing) % 1:
            raise ConfigurationError(
                f"strike_spacing {self.strike_spacing:g}", "0.1 to 5 degrees, a part of 180"
            )
        if self.window < 1:
            raise ConfigurationError(f"window {self.window}", "1 or more")


def make(product_id: str, settings: TrackSettings) -> Product:
    """The product; it refuses a grid too coarse to hold a tropical cyclone."""

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[Output]:
        tracks = find(forecast, settings)
        numbers = [int(number) for number in forecast[NUMBER].values]
        hours = lead_hours(forecast)
        rows = list(_rows(tracks, numbers, context))
        title = "Tropical-cyclone tracks of every member"
        yield File(
            f"{product_id}.geojson",
            "application/geo+json",
            _geojson(tracks, numbers, context),
            lead_hours=hours,
            title=title,
        )
        yield File(f"{product_id}.csv", "text/csv", _csv(rows), lead_hours=hours, title=title)
        strikes = _strikes(tracks, settings, hours, forecast)
        yield Cube.of(
            "strike_probability.zarr",
            strikes,
            lead_hours=hours,
            title="Probability of a tropical cyclone within 120 km",
        )
        whole = strikes["strike_probability"]
        picture = draw(tracks, whole, settings.view, context, hours)
        yield File("maps/tracks.png", "image/png", picture, whole.to_dataset(), hours, title)

    return Product(product_id, NEEDS, build, {"title": "Tropical cyclones"}, (_shares,))


register("tracks", TrackSettings, make)


def _shares(values: xr.Dataset) -> list[str]:
    low, high = ({k: float(v) for k, v in f().items()} for f in (values.min, values.max))
    return [f"{k} {low[k]:g}..{high[k]:g} is outside 0..1" for k in low
            if not (low[k] >= 0 and high[k] <= 1)]  # fmt: skip


def find(forecast: xr.Dataset, settings: TrackSettings) -> list[list[Track]]:
    """Tracks of each member, in the order of the members.

    Raises:
        ProductError: the grid is too coarse, not regular or not global.
    """
    forecast = fields.ascending(forecast)
    sphere = sphere_of(forecast)
    hours = lead_hours(forecast)
    found: list[list[tuple[float, list[Candidate]]]] = [[] for _ in range(forecast.sizes[NUMBER])]
    for steps in fields.windows(len(hours), settings.window):
        parts = [fields.members(forecast, name, steps) for name in NEEDS]
        for step in range(steps.start, steps.stop):
            for member, own in enumerate(found):
                planes = [p[member, step - steps.start].astype(np.float64) for p in parts]
                own.append((hours[step], candidates(State(*planes), sphere, settings.criteria)))
    return [link(times, settings.linking) for times in found]


def sphere_of(forecast: xr.Dataset) -> Sphere:
    """The forecast's grid; latitudes and longitudes ascend.

    Raises:
        ProductError: too coarse, not regular or not global.
    """
    lat, lon = (forecast[dim].values.astype(float) for dim in (LATITUDE, LONGITUDE))
    widest = max(float(np.diff(lat).max()), float(np.diff(lon).max()))
    if widest > COARSEST:
        raise ProductError(
            f"a grid of {widest:g} degrees",
            f"one of {COARSEST:g} or less: a coarser one cannot hold a tropical cyclone",
            "leave `tracks` out of the products of this variant",
        )
    regular = np.ptp(np.diff(lat)) < 1e-3 and np.ptp(np.diff(lon)) < 1e-3
    if not regular or abs(lon.size * (lon[1] - lon[0]) - 360) > 1e-3:
        raise ProductError("a grid of unequal steps, or not around the globe", "equal steps")
    return Sphere(tuple(lat.tolist()), tuple(lon.tolist()))


def _rows(
    tracks: Sequence[Sequence[Track]], numbers: Sequence[int], context: ProductContext
) -> Iterator[dict[str, Any]]:
    for number, own in zip(numbers, tracks, strict=True):
        for index, track in enumerate(own, start=1):
            for point in track:
                cyclone = point.cyclone
                yield {
                    "member": number,
                    "track": index,
                    "lead_hours": f"{point.hours:g}",
                    "valid_time": _time(context, point.hours),
                    "latitude": f"{cyclone.latitude:.2f}",
                    "longitude": f"{_east(cyclone.longitude):.2f}",
                    "pressure_hpa": f"{cyclone.pressure / 100:.1f}",
                    "wind_10m_ms": f"{cyclone.wind:.1f}",
                    "vorticity_850_s-1": f"{cyclone.vorticity:.2e}",
                    "warm_core_m2s-2": f"{cyclone.warm_core:.0f}",
                }


_COLUMNS: Final = (
    *("member", "track", "lead_hours", "valid_time", "latitude", "longitude", "pressure_hpa"),
    *("wind_10m_ms", "vorticity_850_s-1", "warm_core_m2s-2"),
)


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _geojson(
    tracks: Sequence[Sequence[Track]], numbers: Sequence[int], context: ProductContext
) -> bytes:
    """A feature a track (RFC 7946: west and east of the antimeridian are separate lines)."""
    features = []
    for number, own in zip(numbers, tracks, strict=True):
        for index, track in enumerate(own, start=1):
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "MultiLineString", "coordinates": _lines(track)},
                    "properties": {
                        "member": number,
                        "track": index,
                        "lead_hours": [point.hours for point in track],
                        "valid_time": [_time(context, point.hours) for point in track],
                        "position": [_position(point.cyclone) for point in track],
                        "pressure_hpa": [round(p.cyclone.pressure / 100, 1) for p in track],
                        "wind_10m_ms": [round(p.cyclone.wind, 1) for p in track],
                    },
                }
            )
    document = {"type": "FeatureCollection", **context.attributes, "features": features}
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _lines(track: Track) -> list[list[list[float]]]:
    """Positions, cut where the track crosses 180 degrees, with the point of crossing in both."""
    lines = [[_position(track[0].cyclone)]]
    for point in track[1:]:
        here = _position(point.cyclone)
        last = lines[-1][-1]
        if abs(here[0] - last[0]) > 180:
            edge = 180.0 if last[0] > 0 else -180.0
            travel = (here[0] - last[0] + 180) % 360 - 180
            share = (edge - last[0]) / travel if travel else 0.0
            lat = round(last[1] + share * (here[1] - last[1]), 3)
            lines[-1].append([edge, lat])
            lines.append([[-edge, lat]])
        lines[-1].append(here)
    return lines


def _position(cyclone: Candidate) -> list[float]:
    return [round(_east(cyclone.longitude), 3), round(cyclone.latitude, 3)]


def _east(longitude: float) -> float:
    """Degrees in [-180, 180)."""
    return (longitude + 180.0) % 360.0 - 180.0


def _time(context: ProductContext, hours: float) -> str:
    time = context.cycle.init_time.astimezone(UTC) + timedelta(hours=hours)
    return time.strftime("%Y-%m-%dT%H:%MZ")


def _strikes(
    tracks: Sequence[Sequence[Track]],
    settings: TrackSettings,
    hours: Sequence[float],
    forecast: xr.Dataset,
) -> xr.Dataset:
    """`strike_probability` of the whole forecast, and of every day of it, on its own grid."""
    places = Places(settings.strike_spacing)
    ends = np.arange(_DAY, hours[-1] + 1e-6, _DAY)
    space = (LATITUDE, LONGITUDE)
    text = "probability of a tropical cyclone within 120 km"
    variables: dict[str, Any] = {
        "strike_probability": (
            space,
            strike_probability(tracks, places, hours[0], hours[-1]),
            {"long_name": f"{text} during the forecast", "units": "1"},
        )
    }
    coordinates: dict[str, Any] = {
        "init_time": forecast["init_time"].variable if "init_time" in forecast else None,
        LATITUDE: (LATITUDE, places.latitudes, COORDINATE_ATTRIBUTES[LATITUDE]),
        LONGITUDE: (LONGITUDE, places.longitudes, COORDINATE_ATTRIBUTES[LONGITUDE]),
    }
    if ends.size:
        days = [strike_probability(tracks, places, end - _DAY, end) for end in ends]
        attributes = {"long_name": f"{text} in the 24 h before", "units": "1"}
        variables["strike_probability_24h"] = ((LEAD_TIME, *space), np.stack(days), attributes)
        lead = (ends * 3600).astype("timedelta64[s]").astype("timedelta64[ns]")
        coordinates[LEAD_TIME] = (LEAD_TIME, lead, COORDINATE_ATTRIBUTES[LEAD_TIME])
    made = xr.Dataset(variables, {k: v for k, v in coordinates.items() if v is not None})
    if LEAD_TIME in made.coords:
        made[LEAD_TIME].encoding = {"units": "hours", "dtype": "int32"}
    return made
