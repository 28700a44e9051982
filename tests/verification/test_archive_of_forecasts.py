"""Forecasts of another model are scored as the site's own, and compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mosaic_core import dims
from mosaic_core.catalog.models import VerificationScore as V
from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError, ForecastError
from mosaic_core.pipeline.forecasts import Archive
from mosaic_core.pipeline.site import Site
from mosaic_core.pipeline.truth import StoredAnalyses
from mosaic_core.pipeline.verification import verify_archive, verify_due
from mosaic_core.publication import client
from tests.pipeline.world import VARIANT, World, plain
from tests.verification.conftest import CYCLES
from tests.verification.test_due import DUE, told

NAMES = {dims.LEAD_TIME: "prediction_timedelta", dims.INIT_TIME: "time"}


def twins(world: World, folder: Path, change: Callable[[xr.Dataset], Any] = lambda ds: ds) -> str:
    """The site's own forecasts as WeatherBench keeps them: south last, longitudes from -180."""
    opened = [client.open_forecast(world.store, cycle, "ensemble") for cycle in CYCLES]
    found = xr.concat([ds.drop_vars(dims.INIT_TIME, errors="ignore").load() for ds in opened],
                      dims.INIT_TIME)  # fmt: skip
    times = [np.datetime64(cycle.init_time.replace(tzinfo=None), "ns") for cycle in CYCLES]
    leads = found[dims.LEAD_TIME].values
    found = found.drop_vars([n for n in found.coords if n not in found.dims])
    found = found.assign_coords({dims.INIT_TIME: times, dims.LEAD_TIME: leads}).rename(NAMES)
    west = (found["longitude"] + 180) % 360 - 180
    found = found.assign_coords(longitude=west).sortby("longitude").sortby("latitude")
    found = found.isel(latitude=slice(None, None, -1)).transpose("number", "time", ...)
    for array in (*found.variables.values(),):
        array.encoding = {}
    change(found).to_zarr(folder / "twins.zarr", zarr_format=2, consolidated=True)
    return str(folder / "twins.zarr")


def scores(site: Site, model: str) -> dict[tuple[object, ...], float]:
    keys = (V.cycle, V.lead_hours, V.variable, V.level, V.region, V.metric)
    with site.catalog._reading() as session:
        rows = session.query(*keys, V.value).filter(V.model == model).all()
    return {tuple(row[:-1]): row[-1] for row in rows}


def test_a_twin_of_the_site_has_its_scores(
    world: World, site: Site, newest: Cycle, tmp_path: Path
) -> None:
    twin = Archive(site, twins(world, tmp_path), "twin")
    truth = StoredAnalyses(site)
    report = verify_archive(site, truth, twin, newest.init_time)
    assert not report.failed
    assert {str(due) for due in report.verified} == DUE
    assert not verify_archive(site, truth, twin, newest.init_time).verified
    verify_due(site, newest)
    own = scores(site, VARIANT)
    assert own
    assert scores(site, "twin") == own


def test_one_forecast_without_members_has_no_spread(
    world: World, site: Site, newest: Cycle, tmp_path: Path
) -> None:
    url = twins(world, tmp_path, lambda ds: ds.mean("number")[["2m_temperature"]])
    single = Archive(site, url, "single")
    assert verify_archive(site, StoredAnalyses(site), single, newest.init_time).verified
    found = scores(site, "single")
    assert {variable for _, _, variable, *_ in found} == {"2m_temperature"}
    metrics = {metric for *_, metric in found}
    assert "rmse" in metrics
    assert "spread" not in metrics
    verify_due(site, newest)
    own = scores(site, VARIANT)
    mean = {key: value for key, value in found.items() if key[-1] in ("rmse", "bias")}
    assert mean == pytest.approx({key: own[key] for key in mean}, rel=1e-5)


def test_a_finer_grid_is_brought_to_that_of_the_site(
    world: World, site: Site, newest: Cycle, tmp_path: Path
) -> None:
    def finer(ds: xr.Dataset) -> xr.Dataset:
        east = ds.isel(longitude=[0]).assign_coords(longitude=ds["longitude"][:1] + 360)
        lat, lon = np.linspace(90, -90, 2 * ds.sizes["latitude"] - 1), ds["longitude"].values
        between = np.concatenate([lon, lon + np.diff(lon)[0] / 2])
        whole = xr.concat([ds, east], "longitude")
        return whole.interp(latitude=lat, longitude=np.sort(between)).astype("float32")

    archive = Archive(site, twins(world, tmp_path, finer), "finer")
    report = verify_archive(site, StoredAnalyses(site), archive, newest.init_time)
    assert {str(due) for due in report.verified} == DUE
    verify_due(site, newest)
    key = (CYCLES[0], 6, "2m_temperature", 0, "global", "rmse")
    assert scores(site, "finer")[key] == pytest.approx(scores(site, VARIANT)[key], rel=0.2)


def test_the_command_scores_them_and_pages_compare(
    world: World, newest: Cycle, tmp_path: Path
) -> None:
    where = ("-p", world.profile)
    given = ("--forecasts", twins(world, tmp_path), "--name", "twin")
    assert set(plain(told("verify", str(newest), *where, *given, "--json"))["verified"]) == DUE
    told("verify", str(newest), *where)
    page = tmp_path / "page.html"
    day = f"{newest.init_time:%Y-%m-%d}"
    told("scorecard", day, *where, "--reference", "twin", "--output", str(page))
    assert "twin" in page.read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ds: ds.rename({"prediction_timedelta": "later"}), "dimensions .*later"),
        (lambda ds: ds.assign_coords(time=ds["time"] + np.timedelta64(1, "h")), "00, 06, 12 and"),
        (lambda ds: ds.drop_vars("prediction_timedelta"), "lead times of .* are int64"),
        (lambda ds: ds.rename({name: f"my_{name}" for name in ds}), "holds my_"),
        (lambda ds: ds.sel(level=500), "of .* has no levels"),
        (lambda ds: ds.isel(longitude=slice(None, None, 2)), "twins.zarr"),
        (lambda ds: ds.assign({n: ds[n].assign_attrs(units="furlong") for n in ds}), "in furlong"),
    ],
)
def test_an_archive_of_another_kind_is_refused(
    change: Any, said: str, world: World, site: Site, newest: Cycle, tmp_path: Path
) -> None:
    url = twins(world, tmp_path, change)
    with pytest.raises(ForecastError, match=said):
        verify_archive(site, StoredAnalyses(site), Archive(site, url, "other"), newest.init_time)


def test_names_and_places_are_checked(world: World, site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="another name"):
        Archive(site, str(tmp_path), VARIANT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ForecastError, match="cannot be opened"):
        Archive(site, str(tmp_path / "empty"), "other")
    with pytest.raises(ConfigurationError, match="--name NAME"):
        told("verify", "-p", world.profile, "--name", "twin")


def test_a_value_that_is_not_finite_is_named(
    world: World, site: Site, newest: Cycle, tmp_path: Path
) -> None:
    def broken(ds: xr.Dataset) -> xr.Dataset:
        ds["2m_temperature"][{"number": 0, "time": 0, "prediction_timedelta": 0}] = np.nan
        return ds

    archive = Archive(site, twins(world, tmp_path, broken), "broken")
    report = verify_archive(site, StoredAnalyses(site), archive, newest.init_time)
    ((due, reason),) = report.failed
    assert str(due) == f"{CYCLES[0]} +6 h"
    assert "2m_temperature" in reason
