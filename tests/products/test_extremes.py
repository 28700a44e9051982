import numpy as np
import pytest
import xarray as xr

from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.products import climatology
from mosaic_core.products.extremes import forecast_index, shift_of_tail, weights
from mosaic_core.products.product import ProductFailure, build_products, load_products
from mosaic_core.storage import open_store
from tests.products.ensembles import context_of, ensemble

WIND = ["10m_u_component_of_wind", "10m_v_component_of_wind"]
NAMES = ["2m_temperature", *WIND]
PERCENTILES = np.linspace(0, 1, 101)


def by_midpoints(members, climate, p):
    """The integral at a million midpoints of asin(sqrt p), where its weight is even."""
    angle = (np.arange(1_000_000) + 0.5) * (np.pi / 2) / 1_000_000
    at = np.sin(angle) ** 2
    below = np.array([(members <= q).mean() for q in climate])
    return float(4 / np.pi * (at - np.interp(at, p, below)).mean() * np.pi / 2)


def test_index_is_its_integral():
    rng = np.random.default_rng(1)
    p = np.array(climatology.PROBABILITIES)
    for shift in (-3.0, 0.0, 0.7, 5.0):
        climate = np.sort(rng.normal(size=p.size)).astype(np.float32)
        members = (rng.normal(size=24) + shift).astype(np.float32)
        found = forecast_index(members[:, None], climate[:, None], p)[0]
        assert found == pytest.approx(by_midpoints(members, climate, p), abs=1e-5)


def test_index_and_shift_are_those_of_earthkit():
    extreme = pytest.importorskip("earthkit.meteo.extreme.array", reason="needs earthkit-meteo")
    rng = np.random.default_rng(2)
    climate = np.sort(rng.normal(280, 4, (101, 60)), axis=0).astype(np.float32)
    members = rng.normal(282, 3, (25, 60)).astype(np.float32)
    found = forecast_index(members, climate, PERCENTILES)
    expected = extreme.efi(climate.astype(float), members.astype(float))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    for perc, rare in ((90, 0.99), (10, 0.01)):
        shift = shift_of_tail(members, climate, PERCENTILES, perc / 100, rare)
        theirs = extreme.sot(climate.astype(float), members.astype(float), perc)
        np.testing.assert_allclose(shift, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "p", [PERCENTILES, np.array(climatology.PROBABILITIES), np.array([0.2, 0.7])]
)
def test_members_beyond_the_climate_have_the_index_one(p):
    assert weights(p).sum() == pytest.approx(2)
    climate = np.linspace(0, 1, p.size, dtype=np.float32)[:, None]
    assert forecast_index(np.full((5, 1), 9.0), climate, p)[0] == pytest.approx(1)
    assert forecast_index(np.full((5, 1), -9.0), climate, p)[0] == pytest.approx(-1)


def test_a_forecast_like_the_climate_has_no_index():
    p = np.array(climatology.PROBABILITIES)
    members = ((np.arange(2000) + 0.5) / 2000).astype(np.float32)[:, None]
    assert abs(forecast_index(members, p.astype(np.float32)[:, None], p)[0]) < 1e-3
    same = np.ones((9, 1), np.float32)  # all values alike, as a calm sea
    assert abs(forecast_index(same, np.ones((p.size, 1), np.float32), p)[0]) < 1e-6
    assert np.isnan(shift_of_tail(same, np.ones((p.size, 1), np.float32), p, 0.9, 0.99))[0]


def climate_of(forecast, folder, step_hours):
    times = np.arange("2019-01-01T12", "2019-07-01", 12, dtype="datetime64[h]")
    rng = np.random.default_rng(5)
    lat, lon = forecast["latitude"].values, forecast["longitude"].values
    shape = (times.size, lat.size, lon.size)
    fields = {name: rng.normal(0, 6, shape) for name in WIND}
    fields["2m_temperature"] = 285 + rng.normal(0, 12, shape)
    dims = ("time", "latitude", "longitude")
    archive = xr.Dataset(
        {name: (dims, values.astype(np.float32)) for name, values in fields.items()},
        {"time": times.astype("datetime64[ns]"), "latitude": lat, "longitude": lon},
    )
    recipe = climatology.Recipe({"2m_temperature": "mean", "10m_wind": "maximum"}, step_hours)
    climatology.write(climatology.make(archive, recipe), folder / "climate.nc")
    return str(folder / "climate.nc")


def build(forecast, folder, **settings):
    context = context_of(forecast, step_hours=12)
    store = open_store(folder)
    (result,) = build_products(
        load_products({"extremes": settings}), forecast, context, store, "run"
    )
    return result


def test_every_day_of_a_forecast_is_compared_with_its_climate(tmp_path):
    forecast = ensemble(NAMES, members=6, steps=5, step_hours=12)
    path = climate_of(forecast, tmp_path, 12)
    result = build(forecast, tmp_path, climatology=path)
    assert not isinstance(result, ProductFailure), result
    got = xr.open_zarr(tmp_path / "run" / "extremes.zarr", chunks=None)
    climate = climatology.read(tmp_path / "climate.nc")
    quantiles = {name: climate.dataset[name].values for name in climate.fields}
    p = climate.probabilities
    warm = forecast["2m_temperature"].values
    speed = np.hypot(forecast[WIND[0]], forecast[WIND[1]]).values
    assert (got["lead_time"] / np.timedelta64(1, "h")).values.tolist() == [24.0, 48.0]
    for day, steps in enumerate((slice(0, 2), slice(2, 4))):
        mean, highest = warm[:, steps].mean(axis=1), speed[:, steps].max(axis=1)
        for name, daily in (("2m_temperature", mean), ("10m_wind", highest)):
            point = (slice(None), 4, 7)
            index = by_midpoints(daily[point], quantiles[name][point], p)
            assert float(got[f"{name}_efi"][day, 4, 7]) == pytest.approx(index, abs=1e-4)
            low, high = (np.flatnonzero(p == q)[0] for q in (0.9, 0.99))
            edge = quantiles[name][high]
            shift = (np.quantile(daily, 0.9, axis=0) - edge) / (edge - quantiles[name][low])
            np.testing.assert_allclose(got[f"{name}_sot90"][day], shift, rtol=1e-3, atol=1e-3)


def test_what_is_lacking_is_said(tmp_path):
    forecast = ensemble(["2m_temperature"], members=3, steps=2, step_hours=12)
    path = climate_of(forecast, tmp_path, 12)
    some = build(forecast, tmp_path, climatology=path)
    assert "10m_wind left out: the forecast lacks 10m_u_component_of_wind" in some.notes[0]
    none = build(forecast, tmp_path, climatology=path, fields=["temperature_850"])
    assert isinstance(none, ProductFailure)
    earth = build(forecast, tmp_path)
    assert isinstance(earth, ProductFailure)
    assert "no climatology is named" in earth.reason
    short = build(forecast.isel(lead_time=slice(0, 1)), tmp_path, climatology=path)
    assert "one whole day or more" in short.reason
    with pytest.raises(ConfigurationError, match="each once"):
        load_products({"extremes": {"fields": []}})


def test_shipped_climate_serves_the_simulated_planet(tmp_path):
    grid = LatLonGrid.with_poles(72, 37)
    forecast = ensemble(NAMES, members=2, steps=2, step_hours=12, grid=grid)
    context = context_of(forecast, step_hours=12, static=xr.Dataset())
    products = load_products(["extremes"])
    (result,) = build_products(products, forecast, context, open_store(tmp_path), "run")
    assert not isinstance(result, ProductFailure), result
    got = xr.open_zarr(tmp_path / "run" / "extremes.zarr", chunks=None)
    assert set(got.data_vars) == {
        f"{field}_{kind}"
        for field in ("2m_temperature", "10m_wind")
        for kind in ("efi", "sot10", "sot90")
    }
