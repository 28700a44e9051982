"""The ensemble at a place, of a published forecast."""

from __future__ import annotations

import csv
import dataclasses
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

from mosaic_core.errors import ConfigurationError, PublicationError
from mosaic_core.publication import layout
from mosaic_core.publication.manifest import ZARR_MEDIA_TYPE, AssetDraft
from mosaic_core.publication.publish import publish
from mosaic_core.publication.series import series
from mosaic_core.storage import open_store
from tests.products.ensembles import ensemble
from tests.publication.helpers import CYCLE, draft

NAMES = ["2m_temperature", "temperature_500", "temperature_850"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    store = open_store(folder)
    forecast = ensemble(NAMES, members=3, steps=4, step_hours=6)
    prefix = layout.forecast_prefix("hres", CYCLE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        forecast.to_zarr(store.zarr(f"{prefix}/ensemble.zarr"), zarr_format=3, consolidated=True)
    asset = AssetDraft("ensemble.zarr", "ensemble", ZARR_MEDIA_TYPE)
    publish(store, dataclasses.replace(draft(), assets=(asset,)))
    return folder, forecast


@pytest.mark.parametrize("longitude", [-8.0, 352.0])
def test_series_are_those_of_the_nearest_point(published, longitude):
    folder, forecast = published
    found = series(folder, 50.0, longitude, ["temperature_850", "2m_temperature"])
    assert (float(found["latitude"]), float(found["longitude"])) == (45.0, 345.0)
    at = forecast.sel(latitude=45.0, longitude=345.0)
    np.testing.assert_array_equal(found["2m_temperature"], at["2m_temperature"])
    np.testing.assert_array_equal(found["temperature_850"], at["temperature"].sel(level=850))
    assert found["temperature_850"].dims == ("number", "lead_time")
    assert found["temperature_850"].attrs["units"] == "K"
    east = series(folder, 50.0, 359.0, ["2m_temperature"])
    assert float(east["longitude"]) == 0.0  # nearer than 345, around Greenwich


def test_no_such_place_channel_or_cycle_is_said(published):
    folder, _ = published
    with pytest.raises(ConfigurationError, match=r"-90\.\.90"):
        series(folder, 95.0, 0.0, ["2m_temperature"])
    with pytest.raises(PublicationError, match="does not hold temperature at 1000 hPa"):
        series(folder, 0.0, 0.0, ["temperature_1000"])
    with pytest.raises(PublicationError, match="does not hold mean_sea_level_pressure"):
        series(folder, 0.0, 0.0, ["mean_sea_level_pressure"])
    with pytest.raises(PublicationError, match="not published"):
        series(folder, 0.0, 0.0, ["2m_temperature"], "2026-11-21T00Z")


def test_command_prints_every_member(published):
    from mosaic_core.cli.products import app

    folder, forecast = published
    words = ["at", "--store", str(folder), "--", "-30", "-15", "2m_temperature"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(done.output.splitlines()))
    assert len(rows) == 3 * 4
    at = forecast["2m_temperature"].sel(latitude=-30.0, longitude=345.0)
    for row in rows:
        member, hour = int(row["member"]), int(row["lead_hours"])
        exact = float(at.sel(number=member, lead_time=np.timedelta64(hour, "h")))
        assert float(row["value"]) == pytest.approx(exact, rel=1e-6)
