"""Spectra of members, of their mean and of the analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from mosaic_core.errors import ConfigurationError, ForecastError
from mosaic_core.grid import LatLonGrid
from mosaic_core.products import spectra as module
from mosaic_core.products.product import BuiltProduct, build_products, load_products
from mosaic_core.products.spectra import spectra
from mosaic_core.products.spectra_maps import panels
from mosaic_core.storage import open_store
from tests.products.ensembles import WIND, context_of, ensemble

INIT = np.datetime64("2026-01-01T00", "ns")


def dataset(grid: LatLonGrid, members: int = 3, leads: int = 4, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    upper = ("number", "lead_time", "level", "latitude", "longitude")
    shape = (members, leads, 2, grid.nlat, grid.nlon)

    def field(*dims: str) -> tuple[tuple[str, ...], np.ndarray]:
        sizes = [n for dim, n in zip(upper, shape, strict=True) if dim in dims]
        return dims, rng.normal(size=sizes).astype(np.float32)

    surface = ("number", "lead_time", "latitude", "longitude")
    lead = np.arange(1, leads + 1).astype("timedelta64[h]").astype("timedelta64[ns]") * 6
    return xr.Dataset(
        {
            "geopotential": field(*upper),
            "u_component_of_wind": field(*upper),
            "v_component_of_wind": field(*upper),
            "10m_u_component_of_wind": field(*surface),
            "10m_v_component_of_wind": field(*surface),
        },
        coords={
            "number": np.arange(1, members + 1),
            "lead_time": lead,
            "level": [500, 700],
            "latitude": list(grid.latitudes),
            "longitude": list(grid.longitudes),
            "init_time": INIT,
        },
    )


GRID = LatLonGrid.with_poles(36, 19)


@pytest.fixture
def forecast() -> xr.Dataset:
    return dataset(GRID)


@pytest.fixture
def analysis(forecast: xr.Dataset) -> xr.Dataset:
    return forecast.isel(number=0, lead_time=0, drop=True) * 2


def test_a_single_harmonic_has_all_its_variance_at_its_wavenumber(
    forecast: xr.Dataset, analysis: xr.Dataset
) -> None:
    latitude = np.deg2rad(forecast["latitude"])
    wave = np.cos(latitude) ** 3 * np.cos(np.deg2rad(3 * forecast["longitude"]))
    forecast["geopotential"] = xr.zeros_like(forecast["geopotential"]) + wave * forecast["number"]
    result = spectra(forecast, analysis)["geopotential_variance"]
    mean_square = 16 / 35 / 2
    np.testing.assert_allclose(
        result.isel(total_wavenumber=3),
        np.broadcast_to(mean_square * (np.arange(1, 4) ** 2)[:, None, None], (3, 4, 2)),
        rtol=1e-5,
    )
    np.testing.assert_allclose(result.drop_isel(total_wavenumber=3), 0, atol=1e-6)


def test_spectrum_of_the_mean_is_that_of_the_mean_field(
    forecast: xr.Dataset, analysis: xr.Dataset
) -> None:
    mean = forecast.mean("number").expand_dims(number=[1])
    direct = spectra(mean, analysis)
    result = spectra(forecast, analysis)
    for name in ("kinetic_energy", "10m_kinetic_energy", "geopotential_variance"):
        np.testing.assert_allclose(
            result[f"{name}_of_ensemble_mean"], direct[name].squeeze("number"), rtol=1e-4, atol=1e-9
        )


def test_analysis_has_its_own_spectrum(forecast: xr.Dataset, analysis: xr.Dataset) -> None:
    result = spectra(forecast, analysis)
    for name in ("kinetic_energy", "geopotential_variance"):
        np.testing.assert_allclose(
            result[f"{name}_of_analysis"], 4 * result[name].isel(number=0, lead_time=0), rtol=1e-5
        )


def test_layout_and_units(forecast: xr.Dataset, analysis: xr.Dataset) -> None:
    result = spectra(forecast, analysis)
    assert result["kinetic_energy"].dims == (
        "number",
        "lead_time",
        "wind_level",
        "total_wavenumber",
    )
    assert result["wind_level"].values.tolist() == [500]
    assert result["level"].values.tolist() == [500, 700]
    assert result["geopotential_variance"].attrs["units"] == "(m2 s-2)2"
    assert result["total_wavenumber"].values.tolist() == list(range(18))
    assert "temperature_variance" not in result
    assert {v.dtype for v in result.data_vars.values()} == {np.dtype(np.float32)}


def test_orientation_of_the_store_does_not_matter(
    forecast: xr.Dataset, analysis: xr.Dataset
) -> None:
    turned = forecast.isel(latitude=slice(None, None, -1)).transpose(..., "longitude", "latitude")
    xr.testing.assert_allclose(spectra(turned, analysis), spectra(forecast, analysis))


def test_lead_times_are_taken_in_blocks(
    forecast: xr.Dataset, analysis: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = spectra(forecast, analysis)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1)
    xr.testing.assert_identical(spectra(forecast, analysis), whole)


def test_initial_time_is_found_among_the_valid_times(
    forecast: xr.Dataset, analysis: xr.Dataset
) -> None:
    times = INIT - np.arange(2)[::-1] * np.timedelta64(6, "h")
    history = xr.concat([analysis * 5, analysis], dim="valid_time").assign_coords(valid_time=times)
    xr.testing.assert_allclose(spectra(forecast, history), spectra(forecast, analysis))
    with pytest.raises(ForecastError, match="not valid at"):
        spectra(forecast, history.isel(valid_time=[0]))


def test_missing_values_give_a_missing_spectrum(forecast: xr.Dataset, analysis: xr.Dataset) -> None:
    forecast["geopotential"][1, 2, 0, 3, 3] = np.nan
    missing = spectra(forecast, analysis)["geopotential_variance"].isnull()
    assert missing.any("total_wavenumber").sum() == 1
    assert missing[1, 2, 0].all()


def test_regional_grid_is_refused(forecast: xr.Dataset, analysis: xr.Dataset) -> None:
    with pytest.raises(ConfigurationError, match="no exact spherical-harmonic analysis"):
        spectra(forecast.isel(latitude=slice(4, 12)), analysis)


def test_analysis_without_a_variable_a_level_or_on_another_grid_is_refused(
    forecast: xr.Dataset, analysis: xr.Dataset
) -> None:
    with pytest.raises(ForecastError, match="no geopotential"):
        spectra(forecast, analysis.drop_vars("geopotential"))
    with pytest.raises(ForecastError, match="lacks 700 hPa"):
        spectra(forecast, analysis.isel(level=[0]))
    other = dataset(LatLonGrid.with_poles(20, 11)).isel(number=0, lead_time=0, drop=True)
    with pytest.raises(ForecastError, match="20 x 11"):
        spectra(forecast, other)


def test_forecast_without_such_variables_is_refused(
    forecast: xr.Dataset, analysis: xr.Dataset
) -> None:
    with pytest.raises(ForecastError, match="leave the spectra out"):
        spectra(forecast[["10m_u_component_of_wind"]], analysis)


def test_pictures_show_the_energy_of_the_forecast(tmp_path: Path) -> None:
    names = [*WIND, *(f"{axis}_component_of_wind_{level}" for axis in "uv" for level in (500, 700))]
    forecast = ensemble(names, members=3, steps=2)
    analysis = forecast.isel(number=0, lead_time=0, drop=True)
    products = load_products({"spectra_maps": {"lead_hours": [24, 120]}})
    context = context_of(forecast, analysis=analysis)
    (result,) = build_products(products, forecast, context, open_store(tmp_path), "run")
    assert isinstance(result, BuiltProduct), result
    keys = [asset.key.removeprefix("run/") for asset in result.assets]
    assert keys == ["maps/spectra_024h.png", "maps/spectra_048h.png"]
    assert result.notes == ("120 h is beyond the forecast; drawn instead: 48 h",)
    for key in keys:
        with Image.open(tmp_path / "run" / key) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 20
    made = spectra(forecast, analysis)
    aloft, surface = panels(made, 1)
    assert (aloft.title, surface.title) == ("500 hPa wind", "10 m wind")
    found = made["10m_kinetic_energy"].isel(lead_time=1)
    np.testing.assert_allclose(surface.members, found.values[:, 1:])
    of_analysis = made["kinetic_energy_of_analysis"].sel(wind_level=500)
    np.testing.assert_allclose(aloft.analysis, of_analysis.values[1:])
