from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mosaic_core.analysis.fields import FieldKey
from mosaic_core.analysis.initial_state import prepare_initial_state
from mosaic_core.analysis.sources import fetch_analysis, make_source
from mosaic_core.analysis.sources.open_data import Span, coalesce, parse_index, run_path
from mosaic_core.channels import ERA5_82, Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable, ConfigurationError
from tests.analysis.conftest import (
    GFS_TIME,
    Mirror,
    cut_off,
    encode,
    garbled,
    run_file,
    short_body,
    status,
    trickle,
    waves,
)

TIME = datetime(2026, 11, 20, 0, tzinfo=UTC)
CHANNELS = Channels.parse(
    ["2m_temperature", "geopotential_500", "temperature_500", "temperature_850"]
)
PATH = run_path(Cycle(TIME))
Start = Callable[[], Mirror]


def publish(mirror: Mirror, data: bytes, index: str, path: str = PATH) -> None:
    mirror.files |= {f"{path}.grib2": data, f"{path}.index": index.encode()}


def settings(*mirrors: Mirror, **more: object) -> dict[str, object]:
    quick = {"first_backoff_s": 0.01, "longest_backoff_s": 0.05, "deadline_s": 5.0}
    roots = [mirror.url for mirror in mirrors]
    return {"kind": "ecmwf-open-data", "mirrors": roots, **quick, **more}


def fetch(config: dict[str, object], channels: Channels = CHANNELS) -> xr.Dataset:
    return fetch_analysis(make_source(config), Cycle(TIME), channels, [TIME])


@pytest.fixture
def run() -> tuple[bytes, str]:
    return run_file(CHANNELS, waves(CHANNELS), TIME)


@pytest.fixture
def mirror(mirrors: Start, run: tuple[bytes, str]) -> Mirror:
    served = mirrors()
    publish(served, *run)
    return served


def require_right(ds: xr.Dataset) -> None:
    planes = waves(CHANNELS)
    for name, found in (
        ("2m_temperature", ds["2m_temperature"].values[0]),
        ("geopotential_500", ds["geopotential"].sel(level=500).values[0]),
        ("temperature_850", ds["temperature"].sel(level=850).values[0]),
    ):
        np.testing.assert_allclose(found, planes[name], atol=2e-4)


def test_height_becomes_geopotential_and_every_range_is_recorded(mirror: Mirror) -> None:
    ds = fetch(settings(mirror))
    require_right(ds)
    (entry,) = json.loads(ds.attrs["provenance"])
    assert list(entry["derived"]) == ["geopotential at 500 hPa"]
    assert entry["orientation"]["first_longitude"] == 180.0
    assert entry["orientation"]["rolled"] == 18
    assert all(piece["where"].startswith(mirror.url) for piece in entry["pieces"])
    assert sum(piece["length"] for piece in entry["pieces"]) == len(mirror.files[f"{PATH}.grib2"])


def test_adjacent_messages_are_one_request(mirror: Mirror) -> None:
    fetch(settings(mirror))
    ranges = [asked for path, asked in mirror.requests if path.endswith(".grib2")]
    assert ranges == [f"bytes=0-{len(mirror.files[f'{PATH}.grib2']) - 1}"]


@pytest.mark.parametrize("first", [0.0, 90.0, 180.0, 270.0])
def test_each_message_is_rolled_by_its_own_first_longitude(mirrors: Start, first: float) -> None:
    served = mirrors()
    publish(served, *run_file(CHANNELS, waves(CHANNELS), TIME, first_longitude=first))
    require_right(fetch(settings(served)))


@pytest.mark.parametrize(
    "fault", [status(503), status(429), status(500), cut_off, short_body, garbled]
)
def test_a_passing_fault_is_survived(mirror: Mirror, fault: object) -> None:
    mirror.fail(".grib2", fault)  # type: ignore[arg-type]
    require_right(fetch(settings(mirror)))


def test_after_two_failures_the_next_mirror_is_tried(
    mirror: Mirror, mirrors: Start, run: tuple[bytes, str]
) -> None:
    second = mirrors()
    publish(second, *run)
    mirror.fail(".grib2", *[status(503)] * 50)
    ds = fetch(settings(mirror, second))
    require_right(ds)
    assert len([p for p, _ in mirror.requests if p.endswith(".grib2")]) == 2
    pieces = json.loads(ds.attrs["provenance"])[0]["pieces"]
    assert {piece["where"] for piece in pieces} == {f"{second.url}/{PATH}.grib2"}


def test_a_dead_mirror_is_passed_over(mirror: Mirror) -> None:
    dead = Mirror("http://127.0.0.1:9")
    require_right(fetch(settings(dead, mirror)))


def test_without_an_index_there_is_no_run(mirrors: Start, run: tuple[bytes, str]) -> None:
    one, two = mirrors(), mirrors()
    one.files[f"{PATH}.grib2"] = run[0]
    with pytest.raises(AnalysisMissing) as error:
        fetch(settings(one, two))
    assert "no mirror has published it" in error.value.found
    assert one.url in error.value.found
    assert two.url in error.value.found
    assert not [p for p, _ in one.requests if p.endswith(".grib2")]


def test_a_late_index_is_waited_for_when_asked_to(mirror: Mirror) -> None:
    mirror.fail(".index", *[status(404)] * 4)
    with pytest.raises(AnalysisMissing):
        fetch(settings(mirror))
    mirror.fail(".index", *[status(404)] * 3)
    require_right(fetch(settings(mirror, wait_for_index=True)))


@pytest.mark.parametrize("fault", [status(503), trickle])
def test_the_deadline_is_hard(mirror: Mirror, fault: object) -> None:
    mirror.fail(".grib2", *[fault] * 500)  # type: ignore[list-item]
    start = time.monotonic()
    with pytest.raises(AnalysisMissing, match=r"not fetched within 0.6 s"):
        fetch(settings(mirror, deadline_s=0.6, read_timeout_s=0.3))
    assert time.monotonic() - start < 2.5


def test_a_body_that_stays_damaged_is_unreadable(mirror: Mirror) -> None:
    mirror.fail(".grib2", *[garbled] * 500)
    with pytest.raises(AnalysisUnreadable, match="7777"):
        fetch(settings(mirror))


def test_a_missing_message_is_named(mirrors: Start) -> None:
    served = mirrors()
    fewer = Channels(CHANNELS.items[:-1])
    publish(served, *run_file(fewer, waves(CHANNELS), TIME))
    with pytest.raises(AnalysisMissing) as error:
        fetch(settings(served))
    assert "3 of 4 channels, not temperature at 850 hPa" in str(error.value)
    assert f"{served.url}/{PATH}.index" in str(error.value)


def test_a_message_that_is_not_what_the_index_says_is_refused(mirrors: Start) -> None:
    served = mirrors()
    data, index = run_file(CHANNELS, waves(CHANNELS), TIME)
    swapped = index.replace('"850"', '"X"').replace('"levelist": "500"', '"levelist": "850"', 2)
    swapped = swapped.replace('"X"', '"500"').replace('"levelist": "850"', '"levelist": "500"', 1)
    publish(served, data, swapped)
    with pytest.raises(AnalysisUnreadable, match="as the index says"):
        fetch(settings(served))


def test_a_run_of_another_day_is_refused(mirrors: Start) -> None:
    served = mirrors()
    yesterday = datetime(2026, 11, 19, 0, tzinfo=UTC)
    publish(served, *run_file(CHANNELS, waves(CHANNELS), yesterday))
    with pytest.raises(AnalysisUnreadable, match="step 0 of 2026-11-20T00Z"):
        fetch(settings(served))


def test_streams_change_over_on_the_day_they_did() -> None:
    def of(text: str) -> str:
        return run_path(Cycle.parse(text))

    assert of("2026-05-12T06Z") == "20260512/06z/ifs/0p25/oper/20260512060000-0h-oper-fc"
    assert of("2026-05-11T18Z") == "20260511/18z/ifs/0p25/scda/20260511180000-0h-scda-fc"
    assert of("2026-05-12T00Z").split("/")[4] == "oper"


def test_a_published_index_lists_what_we_need(shared_data: Path) -> None:
    text = (shared_data / "ifs_opendata/aifs_single_20250301_00z_0h.index").read_text()
    found = parse_index(text, "index")
    assert {FieldKey.of(channel) for channel in ERA5_82} <= set(found)


def test_a_half_written_index_is_refused() -> None:
    with pytest.raises(AnalysisUnreadable, match="line 2"):
        parse_index('{"param": "foo", "step": "0", "_offset": 0, "_length": 5}\n{"par', "x")
    one = (
        '{"param": "2t", "levtype": "sfc", "type": "fc", "step": "0", "_offset": %d, "_length": 5}'
    )
    with pytest.raises(AnalysisUnreadable, match="2m_temperature twice"):
        parse_index(f"{one % 0}\n{one % 5}", "x")


@given(st.sets(st.integers(0, 40)), st.integers(1, 60))
def test_requests_cover_every_message_once(starts: set[int], largest: int) -> None:
    spans = {Span(10 * start, 10) for start in starts}
    groups = coalesce(spans, largest)
    assert sorted(span for group in groups for span in group) == sorted(spans)
    for group in groups:
        length = group[-1].offset + 10 - group[0].offset
        assert length == 10 * len(group)
        assert length <= max(largest, 10)


def test_mirrors_must_be_urls() -> None:
    with pytest.raises(ConfigurationError, match="http"):
        make_source({"kind": "ecmwf-open-data", "mirrors": ["ftp://x"]})


def test_a_whole_real_state_goes_from_the_mirror_to_an_initial_state(
    gfs: xr.Dataset, mirrors: Start
) -> None:
    """All 82 channels, CCSDS, north first from 180 W, gh for z: the checks pass."""
    from mosaic_core.analysis.regrid import dataset_grid

    planes: dict[str, object] = {}
    for channel in ERA5_82:
        array = gfs[channel.variable]
        plane = array if channel.level is None else array.sel(level=channel.level)
        planes[channel.name] = plane.values[0]
    served = mirrors()
    cycle = Cycle(GFS_TIME)
    publish(served, *run_file(ERA5_82, planes, GFS_TIME), run_path(cycle))
    source = make_source(settings(served))
    state = prepare_initial_state(source, cycle, dataset_grid(gfs), ERA5_82, 6, 1)
    assert state.values.shape == (1, 144, 73, 82)
    at = ERA5_82.index("geopotential_500")
    np.testing.assert_allclose(state.values[0, :, :, at].T, planes["geopotential_500"], atol=0.1)
    assert len(state.provenance["inputs"][0]["pieces"]) == 82
    assert not state.degraded


def test_encode_is_what_open_data_looks_like() -> None:
    import eccodes

    message = encode(CHANNELS[2], np.full((19, 36), 250.0), TIME)
    handle = eccodes.codes_new_from_message(message)
    try:
        assert eccodes.codes_get(handle, "packingType") == "grid_ccsds"
        assert eccodes.codes_get(handle, "typeOfLevel") == "isobaricInhPa"
    finally:
        eccodes.codes_release(handle)
