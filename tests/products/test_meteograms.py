from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_core.errors import ConfigurationError
from mosaic_core.products import meteograms
from mosaic_core.products.meteograms import Place, nearest
from mosaic_core.products.product import BuiltProduct, ProductFailure, build_products, load_products
from mosaic_core.storage import open_store
from tests.products.ensembles import context_of, ensemble

NAMES = ["2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind"]
SETTINGS = {
    "places": [{"name": "Suva, Fiji", "latitude": -18.1, "longitude": 178.4}],
    "quantities": [["2m_temperature"], ["10m_wind"]],
}


def built(tmp_path, forecast, settings):
    products = load_products({"meteograms": settings})
    (result,) = build_products(products, forecast, context_of(forecast), open_store(tmp_path), "r")
    return result


def test_a_picture_shows_the_members_at_the_nearest_grid_point_in_drawn_units(
    tmp_path, monkeypatch
):
    shown = {}
    draw = meteograms.draw

    def spy(name, where, values, *rest):
        shown.update({quantity.name: drawn for quantity, drawn in values.items()}, where=where)
        return draw(name, where, values, *rest)

    monkeypatch.setattr(meteograms, "draw", spy)
    forecast = ensemble(NAMES, members=5, steps=4)
    result = built(tmp_path, forecast, SETTINGS)
    assert isinstance(result, BuiltProduct), result
    (asset,) = result.assets
    assert asset.key == "r/meteograms/suva_fiji.png"
    assert (tmp_path / asset.key).read_bytes().startswith(b"\x89PNG")
    here = forecast.sel(latitude=-15.0, longitude=180.0).transpose("number", "lead_time")
    np.testing.assert_allclose(shown["2m_temperature"], here["2m_temperature"] - 273.15, rtol=1e-5)
    speed = np.hypot(here[NAMES[1]], here[NAMES[2]])
    np.testing.assert_allclose(shown["10m_wind"], speed, rtol=1e-6)
    assert shown["where"] == "18.10°S 178.40°E; grid point 15.00°S 180.00°W, 385 km away"


@given(
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 360),
)
def test_the_nearest_grid_point_is_the_nearest_on_the_sphere(latitude, longitude):
    forecast = ensemble(NAMES[:1], members=1, steps=1)
    at, _ = nearest(forecast, Place("here", latitude, longitude))

    def towards(lat, lon):
        lat, lon = np.deg2rad(lat), np.deg2rad(lon)
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)

    lat, lon = np.meshgrid(forecast["latitude"], forecast["longitude"], indexing="ij")
    along = towards(lat, lon) @ towards(latitude, longitude)
    assert along[at["latitude"], at["longitude"]] >= along.max() - 1e-12


def test_one_member_is_a_line_and_flags_are_drawn(tmp_path):
    forecast = ensemble(NAMES, members=1, steps=2)
    assert isinstance(built(tmp_path, forecast, SETTINGS), BuiltProduct)


def test_a_member_that_is_not_finite_is_no_picture(tmp_path):
    forecast = ensemble(NAMES, members=3, steps=2)
    forecast["2m_temperature"].loc[{"number": 2, "latitude": -15.0, "longitude": 180.0}] = np.nan
    result = built(tmp_path, forecast, SETTINGS)
    assert isinstance(result, ProductFailure)
    assert "2m_temperature" in result.reason
    assert not list(tmp_path.rglob("*.png"))


def test_what_is_not_there_is_left_out_by_name(tmp_path):
    forecast = ensemble(NAMES[:1], members=3, steps=2)
    result = built(tmp_path, forecast, SETTINGS)
    assert isinstance(result, BuiltProduct)
    assert any("10m_wind: the forecast lacks" in note for note in result.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"places": []}, "one or more"),
        ({"places": [*SETTINGS["places"], {"name": "suva fiji", "latitude": 0, "longitude": 0}]},
         "each name once"),
        ({"places": [{"name": "Nowhere", "latitude": 91, "longitude": 0}]}, r"-90\.\.90"),
        ({"places": [{"name": "??", "latitude": 1, "longitude": 0}]}, "letters or digits"),
        ({"quantities": [["2m_temperatur"]]}, "did you mean '2m_temperature'"),
    ],
)  # fmt: skip
def test_settings_are_checked(change, said):
    with pytest.raises(ConfigurationError, match=said):
        load_products({"meteograms": {**SETTINGS, **change}})
