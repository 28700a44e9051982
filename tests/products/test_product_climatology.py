import numpy as np
import pandas as pd
import pytest
import xarray as xr

from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable, ConfigurationError
from mosaic_core.products import climatology
from mosaic_core.products.climatology import Climate, Recipe

WIND = ["10m_u_component_of_wind", "10m_v_component_of_wind"]


def archive(times):
    rng = np.random.default_rng(3)
    lat, lon = np.linspace(90, -90, 5), np.arange(0, 360, 60.0)
    shape = (len(times), 5, 6)
    dims = ("time", "latitude", "longitude")
    levels = rng.normal(280, 5, (len(times), 2, 5, 6)).astype(np.float32)
    return xr.Dataset(
        {
            "2m_temperature": (dims, rng.normal(280, 5, shape).astype(np.float32)),
            WIND[0]: (dims, rng.normal(0, 5, shape).astype(np.float32)),
            WIND[1]: (dims, rng.normal(0, 5, shape).astype(np.float32)),
            "temperature": (("time", "level", "latitude", "longitude"), levels),
        },
        {"time": times, "latitude": lat, "longitude": lon, "level": [500, 850]},
    )


def daily(array, how):
    """Days (00, 24] by pandas, every 12 h, whole days alone."""
    at = array.where(array["time"].dt.hour % 12 == 0, drop=True)
    groups = at.resample(time="1D", closed="right", label="left")
    whole = groups.count().isel(latitude=0, longitude=0) == 2
    return getattr(groups, how)().sel(time=whole.values).sortby("latitude")


def test_quantiles_and_means_are_those_of_whole_days():
    source = archive(pd.date_range("2020-01-01T06", periods=203, freq="6h"))
    fields = {"2m_temperature": "mean", "10m_wind": "maximum", "temperature_850": "mean"}
    made = climatology.make(source, Recipe(fields, 12, (0.0, 0.1, 0.5, 1.0)))
    warm = daily(source["2m_temperature"], "mean")
    wind = daily(np.hypot(source[WIND[0]], source[WIND[1]]), "max")
    cold = daily(source["temperature"].sel(level=850, drop=True), "mean")
    for name, days in (("2m_temperature", warm), ("10m_wind", wind), ("temperature_850", cold)):
        expected = np.quantile(days.values, (0.0, 0.1, 0.5, 1.0), axis=0)
        np.testing.assert_allclose(made[name], expected, rtol=1e-6)
        np.testing.assert_allclose(made[f"{name}_mean"], days.values.mean(0), rtol=1e-6)
    assert made.attrs["days"] == warm.sizes["time"] == 50
    assert made["2m_temperature"].dims == ("quantile", "latitude", "longitude")


def test_seasons_take_the_days_around_theirs_in_every_year():
    times = pd.date_range("2019-01-01T06", "2021-12-31T18", freq="6h")
    source = archive(times)
    recipe = Recipe({"2m_temperature": "mean"}, 12, (0.5,), every_days=120, around_days=10)
    made = climatology.make(source, recipe)
    days = daily(source["2m_temperature"], "mean")
    assert made["dayofyear"].values.tolist() == [1.0, 121.0, 241.0, 361.0]
    number = days["time"].dt.dayofyear
    near = days.sel(time=np.abs((number + 0.5 - 361 + 182.625) % 365.25 - 182.625) <= 10)
    np.testing.assert_allclose(
        made["2m_temperature"].isel(quantile=0).sel(dayofyear=361.0),
        np.median(near.values, axis=0),
        rtol=1e-6,
    )


def test_a_written_file_holds_the_values_to_a_64th_of_a_deviation(tmp_path):
    source = archive(pd.date_range("2020-01-01T06", periods=200, freq="6h"))
    made = climatology.make(source, Recipe({"2m_temperature": "mean"}, 6))
    climatology.write(made, tmp_path / "climate.nc")
    found = climatology.read(tmp_path / "climate.nc")
    spread = float((made["2m_temperature"].sel(quantile=0.9)
                    - made["2m_temperature"].sel(quantile=0.1)).mean()) / 2.56  # fmt: skip
    apart = np.abs(found.dataset["2m_temperature"].values - made["2m_temperature"].values)
    assert apart.max() <= 0.51 * spread / 64
    assert found.fields == ("2m_temperature",)
    assert found.statistic("2m_temperature") == "mean"


def test_days_of_the_year_are_joined_around_its_end(tmp_path):
    values = np.array([0.0, 10.0], np.float32)[:, None, None] * np.ones((2, 3))
    dataset = xr.Dataset(
        {"2m_temperature_mean": (("dayofyear", "latitude", "longitude"), values)},
        {"dayofyear": [31.0, 335.25]},
    )
    climate = Climate(dataset, tmp_path)

    def at(text):
        return float(climate.at("2m_temperature_mean", np.datetime64(text, "ns"))[0, 0])

    assert at("2021-01-31") == pytest.approx(0.0)
    assert at("2021-01-01T00") == pytest.approx(10 * 30 / 61, abs=1e-4)
    assert at("2021-12-31") == pytest.approx(10 * (31 + 0.25) / 61, abs=1e-4)
    assert at("2021-07-02T03") == pytest.approx(5.0, abs=1e-4)


def test_shipped_climate_is_that_of_the_demo_planet():
    found = climatology.read(climatology.SHIPPED)
    assert climatology.SHIPPED.stat().st_size < 300_000
    assert found.dataset.attrs["planet"] == "terra"
    assert found.dataset.attrs["step_hours"] == 12
    assert set(found.fields) == {"2m_temperature", "10m_wind", "temperature_850"}
    for field in found.fields:
        # Rounding may part neighbours by one step, no more.
        assert float(found.dataset[field].diff("quantile").min()) > -0.2
        middle = found.dataset[field].sel(quantile=0.5)
        assert float(np.abs(middle - found.dataset[f"{field}_mean"]).max()) < 4


def test_no_whole_day_damage_and_absence_are_named(tmp_path):
    source = archive(pd.date_range("2020-01-01T06", periods=3, freq="6h"))
    with pytest.raises(AnalysisMissing, match="none with a value every 6 h"):
        climatology.make(source, Recipe({"2m_temperature": "mean"}, 6))
    with pytest.raises(ConfigurationError, match="divide a day"):
        climatology.make(source, Recipe({"2m_temperature": "mean"}, 7))
    with pytest.raises(AnalysisMissing, match=r"products\.climatology"):
        climatology.read(tmp_path / "none.nc")
    (tmp_path / "bad.nc").write_bytes(b"CDF nonsense")
    with pytest.raises(AnalysisUnreadable):
        climatology.read(tmp_path / "bad.nc")
