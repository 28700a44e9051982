from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mosaic_core.analysis.sources import fetch_analysis, make_source
from mosaic_core.channels import Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import (
    AnalysisMissing,
    AnalysisUnreadable,
    ConfigurationError,
    MosaicError,
)
from tests.analysis.conftest import UVT_CHANNELS

TIME = datetime(2005, 1, 23, tzinfo=UTC)
CHANNELS = Channels.parse(["2m_temperature", "temperature_500", "temperature_850"])


def archive(path: Path, **changes: object) -> Path:
    """Like the WeatherBench archives: (time, level, longitude, latitude), hours since 1900."""
    rng = np.random.default_rng(0)
    coords = {
        "time": np.array(["2005-01-23T00", "2005-01-23T06"], "datetime64[ns]"),
        "level": [500, 850],
        "longitude": np.arange(8) * 45.0,
        "latitude": np.linspace(-90, 90, 5),
    }
    upper = ("time", "level", "longitude", "latitude")
    ds = xr.Dataset(
        {
            "temperature": (upper, rng.random((2, 2, 8, 5), np.float32), {"units": "K"}),
            "2m_temperature": (upper[:1] + upper[2:], rng.random((2, 8, 5), np.float32)),
        },
        coords,
    )
    ds = changes.pop("change", lambda ds: ds)(ds)  # type: ignore[operator]
    ds.to_zarr(
        path, zarr_format=2, encoding={"time": {"units": "hours since 1900-01-01"}}, **changes
    )
    return path


def fetch(path: Path, channels: Channels = CHANNELS, **settings: object) -> xr.Dataset:
    source = make_source({"kind": "zarr", "url": str(path), **settings})
    return fetch_analysis(source, Cycle(TIME), channels, [TIME])


def test_dimension_order_and_time_units_are_read_from_the_store(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zarr")
    with xr.open_zarr(path) as stored:
        expected = (
            stored.temperature.isel(time=0).transpose("level", "latitude", "longitude").values
        )
    ds = fetch(path)
    assert ds.temperature.dims == ("valid_time", "level", "latitude", "longitude")
    assert np.array_equal(ds.temperature.values[0], expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.isel(latitude=slice(None, None, -1)),
        lambda ds: ds.roll(longitude=4, roll_coords=True),
        lambda ds: ds.roll(longitude=4, roll_coords=True).assign_coords(
            longitude=np.arange(8) * 45.0 - 180
        ),
        lambda ds: ds.transpose("latitude", "time", "level", "longitude"),
        lambda ds: ds.rename(latitude="lat", longitude="lon"),
    ],
)
def test_every_layout_gives_the_same_analysis(tmp_path: Path, change: object) -> None:
    plain = fetch(archive(tmp_path / "a.zarr"))
    other = fetch(archive(tmp_path / "b.zarr", change=change))
    xr.testing.assert_equal(plain, other)


def test_era_interim_comes_as_it_is(era_interim: xr.Dataset, tmp_path: Path) -> None:
    era_interim.to_zarr(tmp_path / "era.zarr", zarr_format=2)
    ds = fetch(tmp_path / "era.zarr", UVT_CHANNELS)
    assert ds.sizes == {"valid_time": 1, "level": 13, "latitude": 121, "longitude": 240}
    expected = era_interim.temperature.sel(level=850).values[0, ::-1]
    assert np.array_equal(ds.temperature.sel(level=850).values[0], expected)
    (entry,) = json.loads(ds.attrs["provenance"])
    assert entry["orientation"]["flipped"]
    assert len({piece["sha256"] for piece in entry["pieces"]}) == 39


def test_a_missing_time_and_channel_are_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zarr")
    with pytest.raises(AnalysisMissing, match=r"1 of 2 channels, not geopotential at 500 hPa"):
        fetch(path, Channels.parse(["temperature_500", "geopotential_500"]))
    source = make_source({"kind": "zarr", "url": str(path)})
    later = datetime(2005, 1, 24, tzinfo=UTC)
    with pytest.raises(AnalysisMissing, match=r"2005-01-24T00:00Z.*2005-01-23T00Z to"):
        fetch_analysis(source, Cycle(later), CHANNELS, [later])


def test_other_units_are_refused(tmp_path: Path) -> None:
    def celsius(ds: xr.Dataset) -> xr.Dataset:
        ds.temperature.attrs["units"] = "degC"
        return ds

    with pytest.raises(AnalysisUnreadable, match="is in degC"):
        fetch(archive(tmp_path / "a.zarr", change=celsius))


def test_times_without_units_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zarr")
    for name in (".zattrs", ".zmetadata"):
        file = path / (name if name == ".zmetadata" else f"time/{name}")
        file.write_text(file.read_text().replace("hours since 1900-01-01", "whatever"))
    with pytest.raises(AnalysisUnreadable):
        fetch(path)


def test_a_damaged_chunk_is_refused_by_name(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zarr")
    (path / "temperature/0.0.0.0").write_bytes(b"not a chunk")
    with pytest.raises(AnalysisUnreadable, match="temperature at 500 hPa"):
        fetch(path)


def test_no_store_at_all_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(MosaicError):
        fetch(tmp_path / "nothing.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnalysisUnreadable, match="cannot be opened"):
        fetch(tmp_path / "empty")


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="names for temperatur"):
        make_source({"kind": "zarr", "url": str(tmp_path), "names": {"temperatur": "t"}})
