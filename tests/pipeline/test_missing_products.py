"""A product that cannot be made is missing everywhere it is looked for, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.ensemble import store as ensemble_store
from mosaic_core.pipeline.run import run_cycle
from mosaic_core.products import climatology
from mosaic_core.publication import client, stac
from mosaic_core.storage import open_store
from tests.monitoring.receivers import receiver
from tests.monitoring.world import settings as alert_settings
from tests.pipeline.command import Fault, mosaic
from tests.pipeline.world import FIRST, GRID, SECOND, VARIANT, World, plain
from tests.recovery.sites import site_of

WIND = ("10m_u_component_of_wind", "10m_v_component_of_wind")
EVENTS = [{"field": "2m_temperature", "above": [300]}, {"field": "10m_wind", "above": [10]}]
REFUSED = "PermissionError: [Errno 13] Permission denied"
# Product -> what its reason says when it fails.
FAILING = {
    "probabilities": REFUSED,
    "probability_maps": REFUSED,
    "grib": REFUSED,
    "extremes": "climate.nc",
    "tracks": "the forecast does not hold mean_sea_level_pressure",
}
FAULTS = [
    Fault("mosaic_core.products.probabilities:of_field", "refuse", ever_after=True),
    Fault("mosaic_core.products.grib:message", "refuse", call=9),
]


def write_products(world: World) -> dict[str, str]:
    """A `config/products.yaml` for the small world; returns the environment that names it."""
    folder = world.folder / "config"
    folder.mkdir()
    products = {
        "statistics": {},
        "spectra": {},
        "probabilities": {"events": EVENTS},
        "probability_maps": {"events": EVENTS[:1], "lead_hours": [24]},
        "extremes": {"climatology": str(folder / "climate.nc")},
        "tracks": {},
        "grib": {"members": ["2m_temperature"]},
        "maps": {"quantities": [["2m_temperature"]], "lead_hours": [24]},
    }
    (folder / "products.yaml").write_text(yaml.safe_dump(products))
    return {"MOSAIC_CONFIG": str(folder)}


def write_climate(path: Path) -> None:
    """Quantiles of 50 days of made-up weather."""
    times = np.arange("2019-01-01T06", "2019-02-20", 6, dtype="datetime64[h]")
    rng = np.random.default_rng(5)
    fields = {name: rng.normal(0, 6, (times.size, *GRID.shape[::-1])) for name in WIND}
    fields["2m_temperature"] = 285 + rng.normal(0, 12, (times.size, *GRID.shape[::-1]))
    dims = ("time", "latitude", "longitude")
    archive = xr.Dataset(
        {name: (dims, values.astype(np.float32)) for name, values in fields.items()},
        {
            "time": times.astype("datetime64[ns]"),
            "latitude": list(GRID.latitudes),
            "longitude": list(GRID.longitudes),
        },
    )
    recipe = climatology.Recipe({"2m_temperature": "mean", "10m_wind": "maximum"}, 6)
    climatology.write(climatology.make(archive, recipe), path)


def item_of(world: World, cycle: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(open_store(world.store).get(stac.item_key(VARIANT, cycle)))
    return found


@pytest.mark.slow
def test_products_that_fail_are_missing_by_name_until_a_run_is_whole(world: World) -> None:
    environment = write_products(world)
    world.write(products=["statistics", *FAILING], cycle=str(FIRST))
    with receiver() as pager:
        alerts = alert_settings(world.folder, {"pager": {"kind": "webhook", "url": pager.url}})

        def watch() -> dict[str, Any]:
            words = ("watch", "-p", world.profile, "--alerts", str(alerts), "--json")
            outcome = mosaic(*words, environment=environment)
            assert outcome.code == 0, outcome.err
            found: dict[str, Any] = plain(outcome.out)
            return found

        words = ("run", str(FIRST), "-p", world.profile, "--json")
        outcome = mosaic(*words, faults=FAULTS, environment=environment)
        assert outcome.code == 0, outcome.err
        report = plain(outcome.out)
        assert report["outcome"] == "published"
        assert report["degraded"]
        assert report["products"] == ["ensemble", "statistics"]
        require_missing_everywhere(world, report)
        alert = f"degraded {VARIANT} {FIRST}"
        assert watch()["opened"] == [alert]
        assert watch()["opened"] == []

        write_climate(world.folder / "config" / "climate.nc")
        whole = ["statistics", *FAILING]
        whole.remove("tracks")  # which this model cannot make
        world.write(products=whole, cycle=str(SECOND))
        again = mosaic("run", str(SECOND), *words[2:], environment=environment)
        assert again.code == 0, again.err
        report = plain(again.out)
        assert (report["missing"], report["degraded"]) == ({}, False)
        assert report["products"] == sorted(["ensemble", *whole])
        assert item_of(world, SECOND)["properties"]["mosaic:missing"] == []
        assert watch()["closed"] == [alert]
    told = [e["data"] for e in pager.got if e["data"]["kind"] == "degraded"]
    assert [data["event"] for data in told] == ["opened", "closed"]
    for product, reason in FAILING.items():
        assert f"no {product} (" in told[0]["text"]
        assert reason in told[0]["text"]


def require_missing_everywhere(world: World, report: dict[str, Any]) -> None:
    """In what the run says, the manifest, the store, STAC and the catalog."""
    assert client.verify(world.store).ok
    manifest = client.manifest(world.store)
    assert manifest.quality.degraded
    reasons = {missing.product: missing.reason for missing in manifest.missing}
    assert reasons == report["missing"]
    assert list(reasons) == list(FAILING)
    for product, reason in FAILING.items():
        assert reason in reasons[product]
    item = item_of(world, FIRST)
    assert item["properties"]["mosaic:missing"] == list(FAILING)
    assert set(item["assets"]) == {
        "manifest",
        *(name for zarr in ("ensemble", "statistics")
          for name in (f"{zarr}.zarr", f"{zarr}.zarr.sha256")),
    }  # fmt: skip
    found = [info.key for info in open_store(world.store).list(manifest.prefix)]
    names = {key.removeprefix(f"{manifest.prefix}/").partition("/")[0] for key in found}
    assert names == {"manifest.json", *(set(item["assets"]) - {"manifest"})}
    with Catalog(world.catalog) as catalog:
        (run,) = catalog.runs()
        rows = {row.name: row for row in catalog.products(run) if row.state == "failed"}
        assert {name: row.error for name, row in rows.items()} == reasons
        failed = {e.subject: e.detail for e in catalog.events(kind="product") if e.new == "failed"}
        assert {name: detail["error"] for name, detail in failed.items()} == reasons


def test_no_product_is_made_of_channels_that_hold_nan_in_one_member(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = write_products(world).values()
    monkeypatch.setenv("MOSAIC_CONFIG", config)
    write_climate(Path(config) / "climate.nc")
    original = ensemble_store.open_ensemble

    def damaged(*words: Any) -> xr.Dataset:
        ensemble = original(*words).load()
        ensemble["2m_temperature"][1, -1, 3, 4] = np.nan
        ensemble["temperature"][0, 0, 0, 5, 6] = np.nan
        return ensemble

    monkeypatch.setattr(ensemble_store, "open_ensemble", damaged)
    of_it = ["statistics", "spectra", "probabilities", "probability_maps", "extremes", "grib"]
    world.write(products=[*of_it, "maps"])
    manifest = run_cycle(site_of(world), FIRST).manifest
    assert {asset.product for asset in manifest.assets} == {"ensemble"}
    reasons = {missing.product: missing.reason for missing in manifest.missing}
    assert list(reasons) == [*of_it, "maps"]
    for reason in reasons.values():
        assert "temperature" in reason
        assert "NaN" in reason
