"""The main path on real analyses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from mosaic_core.analysis.regrid import regrid_dataset
from mosaic_core.analysis.sources.base import fetch_analysis
from mosaic_core.channels import Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisMissing, IntegrityError
from mosaic_core.pipeline.run import run_cycle
from mosaic_core.pipeline.site import Site, open_site
from mosaic_core.profile import Profile
from mosaic_core.publication import client
from mosaic_core.verification.scores import score

IFS_LEVELS = (300, 400, 500, 700, 850, 1000)
IFS_CHANNELS = [
    f"{variable}_{level}"
    for variable in (
        "geopotential",
        "specific_humidity",
        "temperature",
        "u_component_of_wind",
        "v_component_of_wind",
    )
    for level in IFS_LEVELS
]
IFS_CYCLE = Cycle.parse("2024-06-03T18Z")
HUMIDITY = "specific_humidity_from_relative_humidity"


def small_model(folder: Path, name: str, **settings: object) -> Path:
    stage = {"dim": 32, "heads": 2, "kv_heads": 1, "local": 48, "block": 16, "encoder_depth": 1}
    content = {
        "name": name,
        "step_hours": 6,
        "history": 4,
        "neighbours": 6,
        "noise_dim": 8,
        "static": ["geopotential_at_surface", "land_sea_mask"],
        "stages": [
            {**stage, "nside": 8, "selected": 4, "decoder_depth": 1},
            {**stage, "nside": 4, "selected": 2},
        ],
        **settings,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def site_for(folder: Path, model: Path, source: dict[str, object], **settings: object) -> Site:
    content = {
        "name": "test",
        "model": str(model),
        "source": source,
        "store": str(folder / "store"),
        "catalog": f"sqlite:///{folder}/catalog.sqlite",
        "members": 3,
        "steps": 4,
        "threads": 1,
        **settings,
    }
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(content))
    return open_site(Profile.load(str(path)))


def ifs_source(shared_data: Path) -> dict[str, object]:
    path = shared_data / "states/ifs_pl_10deg_2024060300-0412.grib"
    return {"kind": "grib", "name": "ifs", "path": str(path), "derive": [HUMIDITY]}


@pytest.fixture(scope="module")
def published(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path
) -> tuple[Site, Path, xr.Dataset]:
    """A 24 h forecast from four real IFS analyses, and the four that came after."""
    folder = tmp_path_factory.mktemp("ifs")
    model = small_model(folder, "ifs10", channels=IFS_CHANNELS, grid={"nlon": 36, "nlat": 19})
    site = site_for(folder, model, ifs_source(shared_data))
    run_cycle(site, IFS_CYCLE)
    later = IFS_CYCLE.valid_times(4, 6)
    truth = fetch_analysis(site.source, IFS_CYCLE, Channels.parse(IFS_CHANNELS), later)
    return site, folder / "store", regrid_dataset(truth, site.config.lat_lon)


def test_the_published_store_opens_with_xarray_and_with_the_client(
    published: tuple[Site, Path, xr.Dataset],
) -> None:
    _, store, _ = published
    found = client.latest(store)
    assert found.cycle == IFS_CYCLE
    direct = xr.open_zarr(store / "forecasts/v1/ifs10/2024/06/03/18Z/ensemble.zarr", chunks=None)
    assert dict(direct.sizes) == {
        "number": 3, "lead_time": 4, "level": 6, "latitude": 19, "longitude": 36,
    }  # fmt: skip
    assert direct.valid_time.values[-1] == np.datetime64("2024-06-04T18")
    mean = client.open_forecast(store)
    np.testing.assert_allclose(
        mean["temperature"],
        direct["temperature"].mean("number"),
        rtol=1e-6,
    )  # fmt: skip


def test_the_forecast_is_compared_with_the_times_that_came_true(
    published: tuple[Site, Path, xr.Dataset],
) -> None:
    _, store, truth = published
    forecast = client.open_forecast(store, product="ensemble")
    scores = score(forecast, truth)
    assert list(scores.lead_time.values / np.timedelta64(1, "h")) == [6, 12, 18, 24]
    persistence = score(
        truth.isel(valid_time=[0]).rename(valid_time="number").expand_dims(
            lead_time=forecast.lead_time.values[:1], axis=1
        ).assign_coords(init_time=forecast.init_time, number=[1]),
        truth,
    )  # fmt: skip
    # The truth against itself scores nothing; an untrained forecast is near climatology.
    assert float(np.abs(persistence["rmse"].sel(variable="geopotential_500")).max()) == 0
    error = scores["rmse"].sel(variable="geopotential_500").values
    assert np.all((error > 500) & (error < 8000))
    spread = scores["spread"].sel(variable="temperature_850").values
    assert np.all(spread > 0)
    assert np.all(scores["fair_crps"].values <= scores["mae"].values + 1e-9)


def test_humidity_is_derived_by_the_written_rule_and_the_manifest_knows_its_inputs(
    published: tuple[Site, Path, xr.Dataset],
) -> None:
    site, store, _ = published
    manifest = client.manifest(store)
    assert [f"{i.valid_time:%m-%dT%H}" for i in manifest.inputs] == [
        "06-03T00", "06-03T06", "06-03T12", "06-03T18",
    ]  # fmt: skip
    assert all(set(i.checks.values()) <= {"passed", "skipped"} for i in manifest.inputs)
    assert not manifest.quality.degraded
    assert "Untrained weights: not a forecast" in manifest.quality.flags
    state = site.catalog.runs()[0]
    assert state.state == "published"
    assert state.digest == manifest.digest
    assert len(site.catalog.analyses()) == 4


def test_verification_of_the_bytes_passes_and_fails_when_one_is_changed(
    published: tuple[Site, Path, xr.Dataset], tmp_path: Path
) -> None:
    _, store, _ = published
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    assert client.verify(copy).ok
    victim = sorted(copy.rglob("ensemble.zarr/temperature/c/**/*"))[-1]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match="temperature"):
        client.verify(copy)


def test_maps_say_in_plain_words_that_the_weights_are_untrained(
    published: tuple[Site, Path, xr.Dataset],
) -> None:
    _, store, _ = published
    statistics = client.open_forecast(store)
    assert "Untrained weights: not a forecast" in statistics.attrs["quality"]
    maps = [a for a in client.manifest(store).assets if a.product == "maps"]
    assert len(maps) >= 8


def gfs_source(shared_data: Path, **more: object) -> dict[str, object]:
    path = shared_data / "states/gfs.t12z.pgrbf120.2p5deg.grib2"
    return {
        "kind": "grib", "name": "gfs", "path": str(path), "max_step_hours": 120,
        "derive": ["geopotential_from_height", HUMIDITY], **more,
    }  # fmt: skip


GFS_CYCLE = Cycle.parse("2011-01-15T12Z")


def gfs_model(folder: Path) -> Path:
    return small_model(folder, "gfs25", history=1, grid={"nlon": 72, "nlat": 37})


def test_a_state_of_81_channels_is_refused_by_the_name_of_the_missing_one(
    tmp_path: Path, shared_data: Path
) -> None:
    site = site_for(tmp_path, gfs_model(tmp_path), gfs_source(shared_data))
    with pytest.raises(AnalysisMissing) as caught:
        run_cycle(site, GFS_CYCLE)
    text = str(caught.value)
    assert "vertical_velocity at 50 hPa" in text
    assert "gfs.t12z.pgrbf120.2p5deg.grib2" in text
    assert text.count("hPa") == 1
    assert not (tmp_path / "store/forecasts").exists()


def test_a_written_override_runs_and_the_manifest_says_degraded(
    tmp_path: Path, shared_data: Path
) -> None:
    override = {"allow_missing": {"vertical_velocity_50": {"rule": "taper_to_top"}}}
    site = site_for(
        tmp_path, gfs_model(tmp_path), gfs_source(shared_data, **override),
        steps=2, products=["statistics"],
    )  # fmt: skip
    run_cycle(site, GFS_CYCLE)
    manifest = client.manifest(tmp_path / "store")
    assert manifest.quality.degraded
    assert any("vertical_velocity at 50 hPa" in flag for flag in manifest.quality.flags)
    assert len(manifest.asset("ensemble").variables) == 10
    rows = site.catalog.analyses()
    assert [row.state for row in rows] == ["degraded"]
    document = json.loads((tmp_path / "store" / manifest.prefix / "manifest.json").read_text())
    assert document["quality"]["degraded"] is True
