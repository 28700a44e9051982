import json
import warnings

import eccodes
import numpy as np
import pytest
import xarray as xr

from mosaic_core.errors import ConfigurationError
from mosaic_core.products.product import ProductFailure, build_products, load_products
from mosaic_core.storage import open_store
from tests.products.ensembles import WIND, climate_of, context_of, ensemble

NAMES = [
    "2m_temperature", *WIND, "temperature_850", "mean_sea_level_pressure",
    "u_component_of_wind_850", "v_component_of_wind_850",
]  # fmt: skip
EVENTS = [
    {"field": "10m_wind", "above": [5, 10.5]},
    {"field": "10m_wind", "above": [8], "within_hours": 48},
    {"field": "2m_temperature", "units": "degC", "below": [0], "above": [20]},
    {"field": "wind_850", "above": [5]},
    {"field": "mean_sea_level_pressure", "units": "hPa", "below": [1000], "within_hours": 24},
]


def build(forecast, folder, events, **settings):
    config = {"grib_probabilities": {"events": events, **settings}}
    store = open_store(folder)
    (result,) = build_products(load_products(config), forecast, context_of(forecast), store, "run")
    return result


def messages(path):
    """Keys and values of every message, by ecCodes; keys that a template lacks are left out."""
    wanted = (
        *("shortName", "units", "typeOfLevel", "level", "productDefinitionTemplateNumber"),
        *("probabilityType", "lowerLimit", "scaleFactorOfLowerLimit", "scaledValueOfLowerLimit"),
        *("typeOfStatisticalProcessing", "lengthOfTimeRange", "timeIncrement", "stepRange"),
        *(
            "typeOfGeneratingProcess",
            "validityDate",
            "validityTime",
            "dayOfEndOfOverallTimeInterval",
        ),
    )
    found = []
    with path.open("rb") as stream:
        while (handle := eccodes.codes_grib_new_from_file(stream)) is not None:
            keys = {k: eccodes.codes_get(handle, k) for k in wanted if defined(handle, k)}
            keys["no upper limit"] = eccodes.codes_is_missing(handle, "scaledValueOfUpperLimit")
            found.append((keys, eccodes.codes_get_values(handle)))
            eccodes.codes_release(handle)
    return found


def defined(handle, key):
    return eccodes.codes_is_defined(handle, key)


def expected_of(forecast):
    """Percent at 48 h from north to south, by the names of the events."""
    wind = np.hypot(forecast[WIND[0]], forecast[WIND[1]])
    aloft = np.hypot(forecast["u_component_of_wind"], forecast["v_component_of_wind"])
    warm, at = forecast["2m_temperature"], {"lead_time": 1}
    shares = {
        "10m_wind_above_5": (wind > 5).isel(at),
        "10m_wind_above_10.5": (wind > 10.5).isel(at),
        "10m_wind_above_8_within_48_h": (wind.isel(lead_time=slice(0, 2)) > 8).any("lead_time"),
        "2m_temperature_above_20_degC": (warm > 293.15).isel(at),
        "2m_temperature_below_0_degC": (warm < 273.15).isel(at),
        "wind_850_above_5": (aloft > 5).isel({**at, "level": 0}),
        "mean_sea_level_pressure_below_1000_hPa_within_24_h": (
            forecast["mean_sea_level_pressure"] < 100000
        ).isel(at),
    }
    return {
        name: 100 * share.mean("number").transpose("latitude", "longitude").values[::-1]
        for name, share in shares.items()
    }


@pytest.mark.parametrize("packing", ["ccsds", "simple"])
def test_probabilities_carry_their_templates_limits_and_periods(tmp_path, packing):
    forecast = ensemble(NAMES, members=5, steps=3)
    result = build(forecast, tmp_path, EVENTS, packing=packing)
    assert not isinstance(result, ProductFailure), result
    folder = tmp_path / "run" / "grib_probabilities"
    content = (folder / "probabilities_048h.grib2").read_bytes()
    lines = map(json.loads, (folder / "probabilities_048h.index").read_text().splitlines())
    wanted, found, end = expected_of(forecast), {}, 0
    for line, (keys, values) in zip(
        lines, messages(folder / "probabilities_048h.grib2"), strict=True
    ):
        assert (line["_offset"], line["type"], line["units"]) == (end, "ep", "%")
        assert (line["param"], line["step"]) == (keys["shortName"], keys["stepRange"])
        end += line["_length"]
        assert content[line["_offset"] : end][:4] == b"GRIB"
        assert (keys["typeOfGeneratingProcess"], keys["no upper limit"]) == (5, 1)
        assert (keys["validityDate"], keys["validityTime"]) == (20261122, 0)
        assert keys["lowerLimit"] == pytest.approx(float(line["threshold"]), rel=1e-12)
        assert (line["comparison"], keys["probabilityType"]) in ((">", 3), ("<", 0))
        field = wanted[line["event"]]
        assert np.abs(values.reshape(field.shape) - field).max() <= 100 / 2**16
        assert 0 < field.mean() < 100, line["event"]
        found[line["event"]] = keys
    assert (end, set(found)) == (len(content), set(wanted))
    wind, period = found["10m_wind_above_10.5"], found["10m_wind_above_8_within_48_h"]
    assert (wind["shortName"], wind["typeOfLevel"], wind["level"]) == (
        "10si", "heightAboveGround", 10,
    )  # fmt: skip
    assert (wind["scaleFactorOfLowerLimit"], wind["scaledValueOfLowerLimit"]) == (1, 105)
    assert wind["productDefinitionTemplateNumber"] == 5
    assert period["productDefinitionTemplateNumber"] == 9
    assert (period["shortName"], period["stepRange"]) == ("max_10si", "0-48")
    assert (period["typeOfStatisticalProcessing"], period["timeIncrement"]) == (2, 24)
    assert (period["lengthOfTimeRange"], period["dayOfEndOfOverallTimeInterval"]) == (48, 22)
    cold = found["2m_temperature_below_0_degC"]  # one that ecCodes knows by name
    assert (cold["shortName"], cold["units"]) == ("2tl273", "%")
    low = found["mean_sea_level_pressure_below_1000_hPa_within_24_h"]
    assert (low["shortName"], low["typeOfStatisticalProcessing"]) == ("min_msl", 3)
    assert (low["typeOfLevel"], low["level"], low["stepRange"]) == ("meanSea", 0, "24-48")
    assert (found["wind_850_above_5"]["shortName"], found["wind_850_above_5"]["level"]) == (
        "ws", 850,
    )  # fmt: skip


def test_a_period_has_no_message_before_its_first_end(tmp_path):
    build(ensemble(NAMES, members=3, steps=2), tmp_path, EVENTS[:2])
    folder = tmp_path / "run" / "grib_probabilities"
    assert len(messages(folder / "probabilities_024h.grib2")) == 2
    assert len(messages(folder / "probabilities_048h.grib2")) == 3


def test_cfgrib_opens_a_probability_by_its_limit(tmp_path):
    pytest.importorskip("cfgrib", reason="needs cfgrib")
    forecast = ensemble(NAMES, members=5, steps=2)
    build(forecast, tmp_path, EVENTS)
    with warnings.catch_warnings():
        # cfgrib uses a call of xarray that is to go.
        warnings.simplefilter("ignore")
        opened = xr.open_dataset(
            tmp_path / "run" / "grib_probabilities" / "probabilities_048h.grib2",
            engine="cfgrib", indexpath="",
            filter_by_keys={"shortName": "10si", "scaledValueOfLowerLimit": 105},
        ).load()  # fmt: skip
    field = expected_of(forecast)["10m_wind_above_10.5"]
    np.testing.assert_allclose(opened["si10"].values, field, atol=100 / 2**16)
    assert opened["valid_time"].values == np.datetime64("2026-11-22")


def test_anomalies_are_encoded_where_grib_has_them(tmp_path):
    forecast = ensemble(NAMES, members=4, steps=2)
    path, normal = climate_of(forecast, tmp_path)
    events = [
        {"field": "temperature_850", "above": [1.5], "anomaly": True},
        {"field": "temperature_850", "above": [280]},
    ]
    result = build(forecast, tmp_path, events, climatology=path)
    assert result.notes == ()
    (anomaly, values), _ = messages(
        tmp_path / "run" / "grib_probabilities" / "probabilities_024h.grib2"
    )
    assert (anomaly["shortName"], anomaly["level"], anomaly["lowerLimit"]) == ("ta", 850, 1.5)
    seasonal = 2.0 * (1 - (325 - 183.625) / (366.25 - 183.625))
    apart = forecast["temperature"].isel(lead_time=0, level=0) - normal - seasonal - 1.5
    field = 100 * (apart > 0).mean("number").values[::-1]
    far = np.abs(apart).min("number").values[::-1] > 0.1
    assert np.abs(values.reshape(field.shape) - field)[far].max() <= 100 / 2**16
    assert far.mean() > 0.5


def test_what_cannot_be_encoded_is_named(tmp_path):
    forecast = ensemble([name for name in NAMES if name != "mean_sea_level_pressure"])
    result = build(forecast, tmp_path, EVENTS)
    assert "mean_sea_level_pressure_below_1000_hPa_within_24_h left out" in result.notes[0]
    path, _ = climate_of(forecast, tmp_path)
    with xr.open_dataset(path) as climate:
        wind = climate["temperature_850_mean"].rename("10m_wind_mean")
        given = climate.assign({"10m_wind_mean": wind, "10m_wind": climate["temperature_850"]})
        given.load().to_netcdf(tmp_path / "wind.nc")
    events = [{"field": "10m_wind", "above": [3], "anomaly": True}]
    result = build(forecast, tmp_path / "b", events, climatology=str(tmp_path / "wind.nc"))
    assert isinstance(result, ProductFailure)
    assert "no parameter for the anomaly of 10m_wind" in result.reason


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigurationError, match="8 to 24"):
        load_products({"grib_probabilities": {"events": EVENTS, "bits": 4}})
    with pytest.raises(ConfigurationError, match="one or more"):
        load_products({"grib_probabilities": {"events": []}})
