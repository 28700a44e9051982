import csv
import json

import numpy as np
import pytest
import xarray as xr

from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.products.cyclones import Candidate, Criteria, Sphere, distance
from mosaic_core.products.linking import Linking, Point, link
from mosaic_core.products.product import BuiltProduct, ProductFailure, build_products, load_products
from mosaic_core.products.strikes import Places, segment_distance, strike_probability
from mosaic_core.products.tracks import TrackSettings, find
from mosaic_core.storage import open_store
from tests.products.ensembles import context_of, ensemble
from tests.products.vortices import forecast_of, straight

HOURS = list(range(6, 49, 6))
WEST = straight((15.0, 186.0), (0.05, -0.25))  # crosses 180 degrees after 24 h
SOUTH = straight((-14.0, 70.0), (-0.06, -0.15))


def build(forecast, folder, **settings):
    products = load_products({"tracks": {"strike_spacing": 1.0, **settings}})
    context = context_of(forecast, step_hours=6)
    (result,) = build_products(products, forecast, context, open_store(folder), "run")
    return result


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two members with a cyclone in the north, one of them with one in the south too, and one
    without any."""
    folder = tmp_path_factory.mktemp("tracks")
    forecast = forecast_of([[WEST, SOUTH], [WEST], []], HOURS)
    return folder, build(forecast.isel(latitude=slice(None, None, -1)), folder)


def test_every_cyclone_is_found_where_it_is_and_no_other(built):
    folder, result = built
    assert isinstance(result, BuiltProduct), result
    rows = list(csv.DictReader((folder / "run" / "tracks.csv").read_text().splitlines()))
    assert {(row["member"], row["track"]) for row in rows} == {("1", "1"), ("1", "2"), ("2", "1")}
    for row in rows:
        path = SOUTH if float(row["latitude"]) < 0 else WEST
        lat, lon = path(float(row["lead_hours"]))
        assert distance(lat, lon, float(row["latitude"]), float(row["longitude"])) < 0.25
        assert float(row["pressure_hpa"]) == pytest.approx(980, abs=8)
        assert 15 < float(row["wind_10m_ms"]) < 25
        assert -180 <= float(row["longitude"]) < 180
    assert len(rows) == 3 * len(HOURS)
    assert rows[0]["valid_time"] == "2026-11-20T06:00Z"


def test_lines_are_cut_at_180_degrees(built):
    folder, _ = built
    document = json.loads((folder / "run" / "tracks.geojson").read_text())
    assert document["type"] == "FeatureCollection"
    assert len(document["features"]) == 3
    for feature in document["features"]:
        lines = feature["geometry"]["coordinates"]
        crosses = feature["properties"]["position"][0][1] > 0
        assert len(lines) == (2 if crosses else 1)
        if crosses:
            assert (lines[0][-1][0], lines[1][0][0]) == (-180, 180)
            assert lines[0][-1][1] == lines[1][0][1]
            assert 15 < lines[0][-1][1] < 18
        for line in lines:
            assert len(line) >= 2
            assert np.abs(np.diff(np.array(line)[:, 0])).max(initial=0) < 5


def test_strikes_are_shares_of_members(built):
    folder, result = built
    cube = xr.open_zarr(folder / "run" / "strike_probability.zarr", chunks=None)
    whole = cube["strike_probability"]
    lat, lon = WEST(24)
    near = whole.sel(latitude=lat, longitude=lon, method="nearest")
    assert float(near) == pytest.approx(2 / 3)
    lat, lon = SOUTH(30)
    assert float(whole.sel(latitude=round(lat), longitude=round(lon))) == pytest.approx(1 / 3)
    assert float(whole.sel(latitude=40, longitude=40)) == 0
    days = cube["strike_probability_24h"]
    assert days.sizes["lead_time"] == 2
    assert (days <= whole + 1e-6).all()
    np.testing.assert_allclose(days.max("lead_time"), whole, atol=1e-6)
    names = ["tracks.geojson", "tracks.csv", "strike_probability.zarr", "maps/tracks.png"]
    assert [asset.key for asset in result.assets] == [f"run/{name}" for name in names]


def test_a_cold_core_a_shallow_low_and_a_short_life_are_no_cyclones():
    settings = TrackSettings()
    assert find(forecast_of([[WEST]], HOURS, warm=False), settings) == [[]]
    assert find(forecast_of([[WEST]], HOURS, depth=150.0), settings) == [[]]

    def brief(hour):
        return WEST(hour) if hour <= 24 else None

    assert find(forecast_of([[brief]], HOURS), settings) == [[]]
    outside = straight((58.0, 186.0), (0.0, 0.1))
    assert find(forecast_of([[outside]], HOURS), settings) == [[]]


def test_smooth_weather_has_none(tmp_path):
    names = [
        *("mean_sea_level_pressure", "10m_u_component_of_wind", "10m_v_component_of_wind"),
        *("u_component_of_wind_850", "v_component_of_wind_850"),
        *("geopotential_300", "geopotential_500", "geopotential_850"),
        *("u_component_of_wind_300", "v_component_of_wind_300"),
        *("u_component_of_wind_500", "v_component_of_wind_500"),
    ]
    calm = ensemble(names, members=1, steps=3, grid=LatLonGrid.with_poles(120, 61))
    result = build(calm, tmp_path)
    assert isinstance(result, BuiltProduct), result
    assert json.loads((tmp_path / "run" / "tracks.geojson").read_text())["features"] == []
    cube = xr.open_zarr(tmp_path / "run" / "strike_probability.zarr", chunks=None)
    assert float(cube["strike_probability"].max()) == 0


def test_a_coarse_grid_and_missing_channels_are_said(tmp_path):
    coarse = forecast_of([[]], HOURS, LatLonGrid.with_poles(72, 37))
    result = build(coarse, tmp_path)
    assert isinstance(result, ProductFailure)
    assert "a grid of 5 degrees" in result.reason
    skipped = build(coarse.drop_vars("geopotential"), tmp_path)
    assert skipped.missing == ("geopotential_300", "geopotential_500")


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigurationError, match="did you mean 'reach'"):
        load_products({"tracks": {"linking": {"rech": 3}}})
    with pytest.raises(ConfigurationError, match="wind 0"):
        load_products({"tracks": {"criteria": {"wind": 0}}})
    with pytest.raises(ConfigurationError, match="a part of 180"):
        load_products({"tracks": {"strike_spacing": 0.7}})


def cyclone(lat, lon, name=0.0):
    return Candidate(lat, lon % 360, 98000.0, 20.0, name, 500.0)


def test_tracks_that_pass_each_other_are_kept_apart():
    times = []
    for hour in range(0, 61, 6):
        east = cyclone(15.0, 130 + 0.5 * hour, 1.0)
        west = cyclone(17.0, 160 - 0.5 * hour, 2.0)
        times.append((float(hour), [west, east] if hour % 12 else [east, west]))
    tracks = link(times, Linking())
    assert [{p.cyclone.vorticity for p in track} for track in tracks] == [{1.0}, {2.0}]
    assert [len(track) for track in tracks] == [11, 11]


def test_a_track_outlives_a_gap_of_a_day_and_no_longer():
    def at(missing):
        return [(float(h), [] if h in missing else [cyclone(15, 358 + 0.2 * h)])
                for h in range(0, 97, 6)]  # fmt: skip

    (track,) = link(at({30, 36, 42}), Linking())
    assert len(track) == 14
    assert len(link(at({30, 36, 42, 48}), Linking())) == 2


def test_linking_moves_with_the_ensembles_longitude():
    times = [(float(h), [cyclone(-15, 355 + h)]) for h in range(0, 49, 6)]
    (track,) = link(times, Linking())
    assert [p.cyclone.longitude for p in track][:3] == [355, 1, 7]


def test_distance_from_an_arc_is_the_least_over_its_points():
    rng = np.random.default_rng(0)
    for _ in range(20):
        start, end = (tuple(rng.uniform((-60, 0), (60, 360))) for _ in range(2))
        end = (start[0] + rng.uniform(-4, 4), start[1] + rng.uniform(-4, 4))
        lat, lon = start[0] + rng.uniform(-6, 6, 50), start[1] + rng.uniform(-6, 6, 50)
        a, b = (_xyz(*point) for point in (start, end))
        points = a + np.linspace(0, 1, 4001)[:, None] * (b - a)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        dots = np.clip(points @ _xyz(lat, lon).T, -1, 1)
        expected = np.degrees(np.arccos(dots.max(axis=0)))
        np.testing.assert_allclose(segment_distance(start, end, lat, lon), expected, atol=2e-3)


def _xyz(lat, lon):
    lat, lon = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)


def test_a_place_is_struck_within_120_km_across_greenwich():
    track = (Point(0.0, cyclone(10, 358)), Point(6.0, cyclone(10, 2)))
    share = strike_probability([[track], []], Places(0.5), 0, 6)
    lat, lon = Places(0.5).latitudes, Places(0.5).longitudes
    kilometres = 6371 * np.radians(segment_distance((10, -2), (10, 2), lat[:, None], lon[None]))
    np.testing.assert_array_equal(share > 0, kilometres <= 120)
    assert share.max() == 0.5
    assert strike_probability([[track]], Places(0.5), 6, 12).max() == 0


def test_vorticity_of_solid_rotation_is_exact():
    grid = LatLonGrid.with_poles(240, 121)
    sphere = Sphere(grid.latitudes, grid.longitudes)
    lat = np.radians(np.array(grid.latitudes))[:, None] + 0 * np.array(grid.longitudes)
    curl = sphere.vorticity(20 * np.cos(lat), 0 * lat)
    exact = 2 * 20 * np.sin(lat) / 6.371e6
    assert np.abs(curl - exact)[2:-2].max() < 5e-9


def test_criteria_default_to_the_published_ones():
    given = Criteria()
    assert (given.pressure_rise, given.pressure_radius) == (200.0, 5.5)
    assert (given.thickness_fall, given.thickness_radius) == (58.8, 6.5)
    assert given.vorticity == 3.5e-5
