import numpy as np
import pytest
import xarray as xr

from mosaic_core.errors import ConfigurationError
from mosaic_core.products.product import ProductFailure, build_products, load_products
from mosaic_core.storage import open_store
from tests.products.ensembles import WIND, climate_of, context_of, ensemble

NAMES = ["2m_temperature", *WIND, "temperature_850", "temperature_500"]


def build(forecast, folder, events, window=3, climate=None, **context):
    config = {"probabilities": {"events": events, "window": window, "climatology": climate}}
    products = load_products(config)
    given = context_of(forecast, **context)
    (result,) = build_products(products, forecast, given, open_store(folder), "run")
    return result


def read(folder):
    return xr.open_zarr(folder / "run" / "probabilities.zarr", chunks=None)


def speed(forecast):
    return np.hypot(forecast[WIND[0]], forecast[WIND[1]])


def test_probabilities_are_shares_of_members(tmp_path):
    forecast = ensemble(NAMES, members=7, steps=5)
    events = [
        {"field": "10m_wind", "above": [5, 10]},
        {"field": "2m_temperature", "units": "degC", "below": [0], "above": [20]},
        {"field": "temperature_850", "above": [280]},
    ]
    result = build(forecast, tmp_path, events)
    assert not isinstance(result, ProductFailure), result
    got, warm = read(tmp_path), forecast["2m_temperature"]
    expected = {
        "10m_wind_above_5": (speed(forecast) > 5).mean("number"),
        "10m_wind_above_10": (speed(forecast) > 10).mean("number"),
        "2m_temperature_below_0_degC": (warm < 273.15).mean("number"),
        "2m_temperature_above_20_degC": (warm > 293.15).mean("number"),
        "temperature_850_above_280": (forecast["temperature"].sel(level=850, drop=True) > 280).mean(
            "number"
        ),
    }
    assert set(got.data_vars) == set(expected)
    for name, share in expected.items():
        np.testing.assert_allclose(got[name], share, rtol=1e-6)
        assert 0 < float(share.mean()) < 1, name
    assert got["2m_temperature_below_0_degC"].attrs["threshold"] == pytest.approx(273.15)
    assert got["10m_wind_above_5"].attrs["units"] == "1"
    assert [got[name].attrs["long_name"] for name in expected] == [
        "probability of 10 m wind above 5 m/s",
        "probability of 10 m wind above 10 m/s",
        "probability of 2 m temperature below 0 °C",
        "probability of 2 m temperature above 20 °C",
        "probability of 850 hPa temperature above 280 K",
    ]
    assert got["valid_time"].equals(forecast["valid_time"])


@pytest.mark.parametrize("window", [1, 2, 8])
def test_a_period_is_any_lead_time_of_the_hours_before(tmp_path, window):
    forecast = ensemble(NAMES, members=5, steps=7, step_hours=12)
    events = [
        {"field": "10m_wind", "above": [8], "within_hours": 36},
        {"field": "10m_wind", "above": [8]},
    ]
    build(forecast, tmp_path, events, window, step_hours=12)
    got = read(tmp_path)["10m_wind_above_8_within_36_h"].values
    happens = (speed(forecast) > 8).values
    assert np.isnan(got[:2]).all()
    for step in range(2, 7):
        share = happens[:, step - 2 : step + 1].any(axis=1).mean(axis=0)
        np.testing.assert_allclose(got[step], share, rtol=1e-6)
    plain = read(tmp_path)["10m_wind_above_8"]
    np.testing.assert_allclose(plain, happens.mean(axis=0), rtol=1e-6)


def test_a_value_on_the_threshold_is_neither_above_nor_below(tmp_path):
    forecast = ensemble(NAMES, members=3)
    forecast["2m_temperature"].values[:] = 280.0
    build(forecast, tmp_path, [{"field": "2m_temperature", "above": [280], "below": [280]}])
    got = read(tmp_path)
    assert float(got["2m_temperature_above_280"].max()) == 0
    assert float(got["2m_temperature_below_280"].max()) == 0


def test_an_anomaly_departs_from_the_climate_of_the_day(tmp_path):
    forecast = ensemble(NAMES, members=6, steps=4)
    forecast = forecast.isel(latitude=slice(None, None, -1))  # north first
    path, normal = climate_of(forecast, tmp_path)
    event = {"field": "temperature_850", "above": [1.5], "anomaly": True}
    result = build(forecast, tmp_path, [event], climate=path)
    assert result.notes == ()
    got = read(tmp_path)["temperature_850_anomaly_above_1.5"]
    field = forecast["temperature"].sel(level=850, drop=True)
    for step, day in enumerate((325, 326, 327, 328)):  # 21 to 24 November
        seasonal = 2.0 * (1 - (day - 183.625) / (366.25 - 183.625))
        shares = (field.isel(lead_time=step) - normal - seasonal > 1.5).mean("number")
        far = np.abs(field.isel(lead_time=step) - normal - seasonal - 1.5).min("number") > 0.1
        np.testing.assert_allclose(got[step].values[far], shares.values[far], rtol=1e-6)
        assert float(far.mean()) > 0.5


def test_what_the_forecast_lacks_is_named(tmp_path):
    events = [
        {"field": "mean_sea_level_pressure", "units": "hPa", "below": [980]},
        {"field": "temperature_850", "above": [4], "anomaly": True},
        {"field": "2m_temperature", "above": [280], "within_hours": 36},
        {"field": "2m_temperature", "above": [280], "within_hours": 240},
        {"field": "2m_temperature", "above": [280]},
    ]
    result = build(ensemble(NAMES), tmp_path, events)
    assert set(read(tmp_path).data_vars) == {"2m_temperature_above_280"}
    pressure, anomaly, period, long = result.notes
    assert "mean_sea_level_pressure_below_980_hPa left out: the forecast lacks" in pressure
    assert "no climatology is named" in anomaly
    assert "36 h are not whole steps of 24 h" in period
    assert "shorter than 240 h" in long
    nothing = build(ensemble(NAMES), tmp_path / "b", events[:2])
    assert isinstance(nothing, ProductFailure)
    assert "mean_sea_level_pressure" in nothing.reason


def test_a_broken_member_fails_the_product_by_name(tmp_path):
    forecast = ensemble(NAMES)
    forecast["2m_temperature"].values[1, 2, 3, 4] = np.nan
    result = build(forecast, tmp_path, [{"field": "2m_temperature", "above": [280]}])
    assert isinstance(result, ProductFailure)
    assert "member 2 of 2m_temperature" in result.reason
    assert not list(open_store(tmp_path).list("run"))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"field": "10m_wnd", "above": [1]}, "did you mean '10m_wind'"),
        ({"field": "10m_wind"}, "thresholds"),
        ({"field": "10m_wind", "above": [1], "units": "degC"}, "one of m s-1"),
        ({"field": "10m_wind", "above": [1], "within_hours": -6}, "more than 0"),
        ({"field": "10m_wind", "above": [1, 1]}, "each once"),
    ],
)
def test_an_event_that_cannot_be_is_refused(event, words):
    with pytest.raises(ConfigurationError, match=words):
        load_products({"probabilities": {"events": [event]}})


def test_another_grid_or_step_than_the_climatology_is_refused(tmp_path):
    forecast = ensemble(NAMES)
    path, _ = climate_of(forecast, tmp_path, step_hours=6)
    event = [{"field": "temperature_850", "above": [4], "anomaly": True}]
    result = build(forecast, tmp_path / "a", event, climate=path)
    assert isinstance(result, ProductFailure)
    assert "of values every 6 h" in result.reason
    other = forecast.isel(longitude=slice(None, None, 2))
    result = build(other, tmp_path / "b", event, climate=path, step_hours=6)
    assert isinstance(result, ProductFailure)
    assert "24 x 13 points, the forecast on 12 x 13" in result.reason
