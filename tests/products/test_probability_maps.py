import numpy as np
import pytest

from mosaic_core.errors import ConfigurationError
from mosaic_core.products.probability_maps import share_of
from mosaic_core.products.product import ProductFailure, build_products, load_products
from mosaic_core.storage import open_store
from tests.products.ensembles import context_of, ensemble

WIND = ["10m_u_component_of_wind", "10m_v_component_of_wind"]
EVENTS = [
    {"field": "10m_wind", "above": [8], "within_hours": 48},
    {"field": "2m_temperature", "units": "degC", "below": [0]},
]


def test_maps_show_the_share_of_members(tmp_path, monkeypatch):
    from mosaic_core.products import probability_maps

    shown = {}

    def spy(*arguments):
        share = share_of(*arguments)
        shown[arguments[0].name] = share
        return share

    monkeypatch.setattr(probability_maps, "share_of", spy)
    forecast = ensemble(["2m_temperature", *WIND], members=5, steps=3)
    settings = {"events": EVENTS, "lead_hours": [24, 72], "views": ["north"]}
    products = load_products({"probability_maps": settings})
    (result,) = build_products(products, forecast, context_of(forecast), open_store(tmp_path), "r")
    assert not isinstance(result, ProductFailure), result
    assert [asset.key.removeprefix("r/maps/probability_") for asset in result.assets] == [
        "2m_temperature_below_0_degC_024h_north.png",  # no whole period of 48 h ends here
        "10m_wind_above_8_within_48_h_072h_north.png",
        "2m_temperature_below_0_degC_072h_north.png",
    ]
    assert result.notes == (
        "10m_wind_above_8_within_48_h: no whole period ends at 24 h: not drawn",
    )
    png = (tmp_path / result.assets[0].key).read_bytes()
    assert png.startswith(b"\x89PNG")
    windy = np.hypot(forecast[WIND[0]], forecast[WIND[1]]).isel(lead_time=[1, 2]) > 8
    expected = windy.any("lead_time").mean("number")
    np.testing.assert_allclose(shown["10m_wind_above_8_within_48_h"], expected, rtol=1e-6)
    cold = (forecast["2m_temperature"].isel(lead_time=2) < 273.15).mean("number")
    np.testing.assert_allclose(shown["2m_temperature_below_0_degC"], cold, rtol=1e-6)


def test_views_and_events_are_checked():
    with pytest.raises(ConfigurationError, match="no view 'moon'"):
        load_products({"probability_maps": {"events": EVENTS, "views": ["moon"]}})
    with pytest.raises(ConfigurationError, match="one or more"):
        load_products({"probability_maps": {"events": []}})
