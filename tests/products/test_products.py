import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pytest

from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.products import product as seam
from mosaic_core.products.canvas import Plane, refined
from mosaic_core.products.coastlines import projected_coastlines
from mosaic_core.products.output import File
from mosaic_core.products.product import (
    BuiltProduct,
    Product,
    ProductFailure,
    build_products,
    load_products,
)
from mosaic_core.products.projections import VIEWS, Robinson
from mosaic_core.settings import read_config
from mosaic_core.storage import open_store
from tests.products.ensembles import context_of, ensemble

NAMES = ["2m_temperature", "geopotential_500", "temperature_500"]
SMALL_MAPS = {"maps": {"quantities": [["2m_temperature"]], "lead_hours": [24]}}


@dataclass(frozen=True)
class WarmestSettings:
    celsius: bool = False


def make_warmest(product_id, settings):
    def build(forecast, context):
        warmest = float(forecast["2m_temperature"].max()) - 273.15 * settings.celsius
        yield File("warmest.txt", "text/plain", f"{warmest:.1f}\n".encode())

    return Product(product_id, ("2m_temperature",), build)


def build(products, forecast, folder, **context):
    store = open_store(folder)
    return build_products(products, forecast, context_of(forecast, **context), store, "run")


@pytest.fixture
def _kinds(monkeypatch):
    monkeypatch.setattr(seam, "_KINDS", dict(seam._KINDS))


@pytest.mark.usefixtures("_kinds")
def test_a_product_is_one_small_registered_kind(tmp_path):
    seam.register("warmest", WarmestSettings, make_warmest)
    products = load_products({"warm": {"kind": "warmest", "celsius": True}})
    forecast = ensemble(NAMES)
    (result,) = build(products, forecast, tmp_path)
    assert isinstance(result, BuiltProduct)
    content = (tmp_path / "run" / "warmest.txt").read_bytes()
    assert float(content) == round(float(forecast["2m_temperature"].max()) - 273.15, 1)
    assert result.assets[0].sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.usefixtures("_kinds")
def test_missing_input_is_named_and_holds_back_nothing_else(tmp_path):
    seam.register("warmest", WarmestSettings, make_warmest)
    (warm,) = load_products({"warmest": {}})
    broken = Product("broken", (), lambda forecast, context: 1 / 0)
    other = replace(warm, id="other", needs=("geopotential_500", "geopotential_850"))
    forecast = ensemble(NAMES)
    failed, skipped, built = build([broken, other, warm], forecast, tmp_path)
    assert isinstance(failed, ProductFailure)
    assert "ZeroDivisionError" in failed.reason
    assert isinstance(skipped, ProductFailure)
    assert (skipped.kind, skipped.missing) == ("skipped", ("geopotential_850",))
    assert "it holds 2m_temperature, geopotential at 500 hPa" in skipped.reason
    assert isinstance(built, BuiltProduct)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'statistics'"):
        load_products(["statistic"])
    with pytest.raises(ConfigurationError, match="did you mean 'window'"):
        load_products({"statistics": {"windw": 3}})
    with pytest.raises(ConfigurationError, match="did you mean '2m_temperature'"):
        load_products({"maps": {"quantities": [["2m_temprature"]]}})


def test_configured_products_load():
    names = list(read_config("", "products")[0])
    assert {"statistics", "probabilities", "maps", "stamps"} <= set(names)
    assert [product.id for product in load_products(names)] == names


def test_context_of_another_ensemble_is_refused(tmp_path):
    (result,) = build(load_products(SMALL_MAPS), ensemble(NAMES), tmp_path, members=24)
    assert isinstance(result, ProductFailure)
    assert "4 members" in result.reason


def test_maps_and_stamps_are_the_same_bytes_every_time(tmp_path):
    stamps = {"quantities": [["geopotential_500"]], "lead_hours": [72]}
    digests = []
    for name in "ab":
        products = load_products({**SMALL_MAPS, "stamps": stamps})
        results = build(products, ensemble(NAMES), tmp_path / name, trained=False)
        assert all(isinstance(result, BuiltProduct) for result in results), results
        digests.append([(a.key, a.sha256) for result in results for a in result.assets])
    assert digests[0] == digests[1]
    assert [key for key, _ in digests[0]] == [
        "run/maps/2m_temperature_mean_024h.png",
        "run/maps/2m_temperature_spread_024h.png",
        "run/maps/stamps_geopotential_500_072h.png",
    ]


def test_flags_change_the_picture(tmp_path):
    products = load_products(SMALL_MAPS)
    (plain,) = build(products, ensemble(NAMES), tmp_path / "a")
    (flagged,) = build(products, ensemble(NAMES), tmp_path / "b", trained=False)
    assert plain.assets[0].sha256 != flagged.assets[0].sha256


def test_fallback_and_shorter_forecast_are_said(tmp_path):
    maps = {"quantities": [["mean_sea_level_pressure", "geopotential_500"]], "lead_hours": [120]}
    (result,) = build(load_products({"maps": maps}), ensemble(NAMES), tmp_path)
    assert isinstance(result, BuiltProduct)
    assert "lacks mean_sea_level_pressure; drawn instead: geopotential_500" in result.notes[0]
    assert "120 h is beyond the forecast; drawn instead: 72 h" in result.notes[1]


def test_robinson_has_its_published_shape():
    x, y = Robinson().project([180.0, 180.0, 0.0], [0.0, 90.0, 90.0])
    assert y[2] / x[0] == pytest.approx(0.5072, abs=1e-4)  # height to width
    assert x[1] / x[0] == pytest.approx(0.5322)  # length of the pole


@pytest.mark.parametrize("view", VIEWS)
def test_coastlines_never_cross_the_map(view):
    lines = projected_coastlines(VIEWS[view])
    longest = max(float(np.hypot(*np.diff(line, axis=0).T).max()) for line in lines)
    assert len(lines) > 20
    assert longest < 0.35


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", [(36, 19), (120, 61), (240, 121)])
def test_cells_cover_the_map_without_a_gap(view, shape):
    grid = LatLonGrid.with_poles(*shape)
    plane = Plane(VIEWS[view], np.array(grid.longitudes), np.array(grid.latitudes))
    lon, _ = plane._edges()
    start = plane._start()
    assert (lon[0], lon[-1]) == (start, start + 360)
    assert np.all(np.diff(lon) >= 0)
    order = plane._order()
    assert set(order) == set(range(shape[0]))
    middles = (lon[1:] + lon[:-1]) / 2
    solid = np.diff(lon) > 0
    apart = (middles - np.array(grid.longitudes)[order] + 180) % 360 - 180
    assert np.all(np.abs(apart[solid]) <= 180 / shape[0] + 1e-9)


def test_refined_field_keeps_its_points():
    field = np.random.default_rng(0).normal(size=(19, 36))
    lon, lat, fine = refined(np.arange(0, 360, 10.0), np.arange(-90, 91, 10.0), field)
    assert np.allclose(fine[::7, ::7], field, atol=2e-2)
    assert (lon[7], lat[7]) == pytest.approx((10.0, -80.0))


def test_products_that_fail_leave_the_others(tmp_path):
    """A grid too coarse for cyclones, no climatology of the Earth, no analysis for the spectra."""
    names = [*NAMES, "10m_u_component_of_wind", "10m_v_component_of_wind"]
    names += ["mean_sea_level_pressure", "geopotential_300"]
    names += [f"{axis}_component_of_wind_{level}" for axis in "uv" for level in (300, 500, 850)]
    names += ["temperature_300", "temperature_850", "geopotential_850"]
    wanted = ["probabilities", "extremes", "tracks", "grib", "spectra", "statistics"]
    products = load_products(wanted)
    results = dict(zip(wanted, build(products, ensemble(names), tmp_path), strict=True))
    failed = {name: r.reason for name, r in results.items() if isinstance(r, ProductFailure)}
    assert set(failed) == {"extremes", "tracks", "spectra"}
    assert "a grid of 15 degrees" in failed["tracks"]
    assert "no climatology is named" in failed["extremes"]
    assert any("no climatology" in note for note in results["probabilities"].notes)
    left = {info.key.split("/")[1] for info in open_store(tmp_path).list("run")}
    assert left == {"probabilities.zarr", "grib", "statistics.zarr"}
