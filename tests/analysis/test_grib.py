from __future__ import annotations

import json
import lzma
from datetime import timedelta
from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray as xr

from mosaic_core.analysis import grib
from mosaic_core.analysis.sources import fetch_analysis, make_source
from mosaic_core.channels import ERA5_82, Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable, ConfigurationError
from mosaic_core.grid import LatLonGrid
from tests.analysis.conftest import (
    GFS_TIME,
    IFS_CHANNELS,
    IFS_TIMES,
    encode,
    gfs_settings,
    ifs_settings,
    waves,
)

T850 = Channels.parse(["temperature_850"])


def folder(path: Path, *messages: bytes) -> dict[str, object]:
    path.mkdir(exist_ok=True)
    for i, message in enumerate(messages):
        (path / f"{i}.grib2").write_bytes(message)
    return {"kind": "grib", "path": str(path)}


def fetch(settings: dict[str, object], channels: Channels = T850) -> xr.Dataset:
    return fetch_analysis(make_source(settings), Cycle(IFS_TIMES[0]), channels, [IFS_TIMES[0]])


def plane(seed: int = 0) -> np.ndarray:
    return waves(T850, seed)["temperature_850"]  # type: ignore[return-value]


def test_eight_ifs_times_come_with_their_steps(ifs: xr.Dataset) -> None:
    assert ifs.sizes == {"valid_time": 8, "level": 6, "latitude": 19, "longitude": 36}
    entries = json.loads(ifs.attrs["provenance"])
    steps = [{piece["step_hours"] for piece in entry["pieces"]} for entry in entries]
    assert steps == [{0}, {6}] * 4
    assert entries[0]["messages"] == 30
    assert "Tetens" in entries[0]["derived"]["specific_humidity at 850 hPa"]
    assert float(ifs.geopotential.sel(level=500).mean()) == pytest.approx(54500, rel=0.03)


def test_values_are_those_of_eccodes_with_rows_turned(ifs: xr.Dataset, shared_data: Path) -> None:
    with (shared_data / "states/ifs_pl_10deg_2024060300-0412.grib").open("rb") as file:
        handle = eccodes.codes_grib_new_from_file(file)
        name, level = eccodes.codes_get(handle, "shortName"), eccodes.codes_get(handle, "level")
        values = eccodes.codes_get_values(handle).reshape(19, 36)[::-1].astype(np.float32)
        eccodes.codes_release(handle)
    assert name == "t"
    assert np.array_equal(ifs.temperature.sel(level=level).values[0], values)


def test_gfs_is_refused_by_the_name_of_what_it_lacks(shared_data: Path) -> None:
    settings = gfs_settings(shared_data)
    with pytest.raises(AnalysisMissing) as error:
        fetch_analysis(make_source(settings), Cycle(GFS_TIME), ERA5_82, [GFS_TIME])
    assert "81 of 82 channels, not vertical_velocity at 50 hPa" in str(error.value)
    assert str(settings["path"]) in str(error.value)
    assert "allow_missing" in error.value.action


def test_a_written_override_runs_and_says_degraded(gfs: xr.Dataset) -> None:
    (degraded,) = json.loads(gfs.attrs["degraded"])
    assert "vertical_velocity at 50 hPa was not in gfs" in degraded
    assert "taper_to_top (vertical_velocity at 100 hPa)" in degraded
    w = gfs.vertical_velocity
    assert np.array_equal(w.sel(level=50).values, w.sel(level=100).values / 2)


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ({"rule": "zero"}, lambda w: 0 * w.sel(level=100)),
        (
            {"rule": "copy_from", "channel": "vertical_velocity_150"},
            lambda w: w.sel(level=150),
        ),
    ],
)
def test_other_fills(shared_data: Path, fill: dict[str, str], expected: object) -> None:
    settings = gfs_settings(shared_data, allow_missing={"vertical_velocity_50": fill})
    channels = Channels.parse([f"vertical_velocity_{lv}" for lv in (50, 100, 150)])
    ds = fetch_analysis(make_source(settings), Cycle(GFS_TIME), channels, [GFS_TIME])
    found = ds.vertical_velocity.sel(level=50).values
    assert np.array_equal(found, expected(ds.vertical_velocity).values)  # type: ignore[operator]


def test_a_fill_that_cannot_be_followed_is_refused(shared_data: Path) -> None:
    settings = gfs_settings(shared_data, allow_missing={"vertical_velocity_50": {"rule": "linear"}})
    with pytest.raises(ConfigurationError, match="cannot be filled by 'linear'"):
        fetch_analysis(make_source(settings), Cycle(GFS_TIME), ERA5_82, [GFS_TIME])


def test_humidity_is_missing_without_the_written_rule(shared_data: Path) -> None:
    settings = ifs_settings(shared_data) | {"derive": []}
    with pytest.raises(AnalysisMissing, match="24 of 30 channels, not specific_humidity at 300"):
        fetch(settings, IFS_CHANNELS)


def test_derived_humidity_agrees_with_the_analysed_one(shared_data: Path) -> None:
    """GFS gives specific humidity at 2 m beside relative humidity: the formula closes."""
    from mosaic_core.analysis.derive import specific_humidity

    t = np.array([[300.0, 273.16, 240.0]], np.float32)
    q = specific_humidity(np.array([[100.0, 100.0, 100.0]], np.float32), t, 1000, "water")
    # Saturation vapour pressures over water from tables: 35.4, 6.11 and 0.37 hPa.
    np.testing.assert_allclose(q, [[0.0223, 0.00381, 0.000233]], rtol=0.03)
    ice = specific_humidity(np.array([[100.0]], np.float32), t[:, 2:], 1000, "mixed")
    assert float(ice[0, 0]) == pytest.approx(0.622 * 0.272e2 / 1e5, rel=0.02)
    assert specific_humidity(np.array([[-4.0]], np.float32), t[:, :1], 1000, "mixed") == 0


def test_two_fields_in_one_message_are_both_found(shared_data: Path) -> None:
    data = (shared_data / "states/gfs.t12z.pgrbf120.2p5deg.grib2").read_bytes()
    parts = [grib.split(m.data, "gfs") for m in grib.messages(data, "gfs")]
    assert {len(part) for part in parts} == {1, 2}
    assert (len(parts), sum(map(len, parts))) == (307, 343)
    double = next(part for part in parts if len(part) == 2)
    keys = [grib.header(field, "gfs") for field in double]
    assert [key.key.variable for key in keys if key] == [
        "u_component_of_wind",
        "v_component_of_wind",
    ]


def test_ccsds_and_simple_packing_decode_to_the_same_bits(shared_data: Path) -> None:
    ccsds, simple = (
        grib.decode((shared_data / f"ifs_opendata/ifs_0p25_2026040400_{n}.grib2").read_bytes(), n)
        for n in ("2t", "2t_simple")
    )
    assert np.array_equal(ccsds.values, simple.values)
    assert ccsds.grid.is_close(LatLonGrid.with_poles(1440, 721))
    assert (ccsds.how.first_longitude, ccsds.how.rolled, ccsds.how.flipped) == (180.0, 720, True)
    # The Sahara is warmer than Antarctica, and the Greenwich meridian comes first.
    assert ccsds.values[4 * (90 + 20), 4 * 10] > ccsds.values[4 * 10, 4 * 10] + 30
    assert ccsds.values.min() == pytest.approx(212.843, abs=1e-3)


def test_a_message_decodes_as_wgrib2_decodes_it(shared_data: Path) -> None:
    folder = shared_data / "ifs_opendata"
    data = (folder / "20240101000000-0h-oper-fc.msg0-9.grib2").read_bytes()
    first = next(iter(grib.messages(data, "open data"))).data
    head = grib.header(first, "open data")
    assert head is not None
    assert str(head.key) == "geopotential_height at 250 hPa"
    raw = lzma.decompress((folder / "20240101000000-0h-oper-fc.msg0.wgrib2-le.bin.xz").read_bytes())
    reference = np.frombuffer(raw, "<f4").reshape(451, 900)
    oriented = grib.decode(first, "open data")
    turned = np.roll(reference[::-1], -oriented.how.rolled, axis=1)
    assert oriented.how.rolled == 450
    assert np.array_equal(oriented.values, turned)


def test_grib1_is_read(shared_data: Path) -> None:
    data = (shared_data / "states/era5_tz_1deg_2007010112.grib").read_bytes()
    cut = list(grib.messages(data, "era5"))
    assert {message.data[7] for message in cut} == {1}
    heads = [grib.header(message.data, "era5") for message in cut]
    assert len([h for h in heads if h]) == 4


@pytest.mark.parametrize("keep", [1, 20, 200, -1, -4])
def test_a_truncated_file_is_refused_by_its_byte(tmp_path: Path, keep: int) -> None:
    whole = encode(T850[0], plane(), IFS_TIMES[0])
    settings = folder(tmp_path / "a", whole + whole[:keep])
    with pytest.raises(AnalysisUnreadable, match=f"byte {len(whole)}"):
        fetch(settings)


def test_what_is_not_grib_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnalysisUnreadable, match=r"byte 0 is b'<html>"):
        fetch(folder(tmp_path / "a", b"<html>404</html>"))
    with pytest.raises(AnalysisUnreadable, match="is empty"):
        fetch(folder(tmp_path / "b", b""))


def test_damage_inside_a_message_is_refused(tmp_path: Path) -> None:
    whole = bytearray(encode(T850[0], plane(), IFS_TIMES[0]))
    whole[16:200] = bytes(184)
    with pytest.raises(AnalysisUnreadable):
        fetch(folder(tmp_path / "a", bytes(whole)))


def test_the_shortest_step_wins_and_is_recorded(tmp_path: Path) -> None:
    analysis = encode(T850[0], plane(1), IFS_TIMES[0])
    forecast = encode(T850[0], plane(2), IFS_TIMES[0], step=6)
    ds = fetch(folder(tmp_path / "a", forecast, analysis))
    np.testing.assert_allclose(ds.temperature.values[0, 0], plane(1), atol=1e-4)
    (entry,) = json.loads(ds.attrs["provenance"])
    assert entry["notes"] == ["temperature at 850 hPa: step 0 h taken, not 6 h"]
    with pytest.raises(AnalysisMissing):
        fetch(folder(tmp_path / "b", forecast) | {"max_step_hours": 0})


def test_copies_are_noted_and_contradictions_refused(tmp_path: Path) -> None:
    one, other = (encode(T850[0], plane(seed), IFS_TIMES[0]) for seed in (1, 2))
    ds = fetch(folder(tmp_path / "a", one, one))
    assert "repeats" in json.loads(ds.attrs["provenance"])[0]["notes"][0]
    with pytest.raises(AnalysisUnreadable, match=r"temperature at 850 hPa is there twice"):
        fetch(folder(tmp_path / "b", one, other))


def test_a_missing_time_is_named_with_what_is_there(shared_data: Path) -> None:
    later = IFS_TIMES[-1] + timedelta(hours=6)
    source = make_source(ifs_settings(shared_data))
    with pytest.raises(AnalysisMissing, match=r"2024-06-05T00:00Z.*2024-06-03T00Z to"):
        fetch_analysis(source, Cycle(later), IFS_CHANNELS, [IFS_TIMES[-1], later])


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'path'"):
        make_source({"kind": "grib", "paht": "x"})
    with pytest.raises(ConfigurationError, match="did you mean 'zarr'"):
        make_source({"kind": "zar"})
    with pytest.raises(ConfigurationError, match="`kind:`"):
        make_source({"path": "x"})
