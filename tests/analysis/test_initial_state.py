from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mosaic_core.analysis.fields import time_values
from mosaic_core.analysis.initial_state import (
    HistoryPolicy,
    build_initial_state,
    checked_analysis,
    prepare_initial_state,
)
from mosaic_core.analysis.regrid import dataset_grid
from mosaic_core.analysis.sources import make_source
from mosaic_core.analysis.sources.base import Source
from mosaic_core.analysis.store import COMMIT, analysis_key, read_analysis
from mosaic_core.channels import ERA5_82, Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import (
    AnalysisMissing,
    AnalysisRejected,
    ConfigurationError,
    IntegrityError,
)
from mosaic_core.grid import LatLonGrid
from mosaic_core.storage import ObjectStore, open_store
from tests.analysis.conftest import GFS_TIME, IFS_CHANNELS, IFS_TIMES, ifs_settings

GRID = LatLonGrid.with_poles(36, 19)
CYCLE = Cycle(IFS_TIMES[3])


class Counting:
    """A source that counts what is fetched, and may lack times."""

    def __init__(self, inner: Source, lacking: Sequence[datetime] = ()) -> None:
        self.inner, self.lacking = inner, lacking
        self.fetched: list[datetime] = []

    @property
    def name(self) -> str:
        return self.inner.name

    def fetch(self, channels: Channels, valid_times: Sequence[datetime]) -> xr.Dataset:
        if set(valid_times) & set(self.lacking):
            raise AnalysisMissing("not there", "there", "wait")
        self.fetched += valid_times
        return self.inner.fetch(channels, valid_times)


@pytest.fixture
def source(shared_data: Path) -> Counting:
    return Counting(make_source(ifs_settings(shared_data)))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "store")


def test_history_stands_oldest_first_as_longitude_latitude_channel(ifs: xr.Dataset) -> None:
    state = build_initial_state(ifs, CYCLE, GRID, IFS_CHANNELS, 6, 4)
    assert state.values.shape == (4, 36, 19, 30)
    assert state.valid_times == IFS_TIMES[:4]
    at = IFS_CHANNELS.index("temperature_850")
    expected = ifs.temperature.sel(level=850).values[3].T
    assert np.array_equal(state.values[3, :, :, at], expected)
    assert [entry["valid_time"][:13] for entry in state.provenance["inputs"]] == [
        f"{time:%Y-%m-%dT%H}" for time in IFS_TIMES[:4]
    ]
    assert {check["status"] for check in state.provenance["checks"]} <= {"passed", "skipped"}
    shuffled = ifs.isel(valid_time=[2, 0, 3, 1])
    again = build_initial_state(shuffled, CYCLE, GRID, IFS_CHANNELS, 6, 4)
    assert again.digest == state.digest
    with pytest.raises(ValueError, match="read-only"):
        state.values[0, 0, 0, 0] = 0


def test_the_digest_moves_with_one_value(ifs: xr.Dataset) -> None:
    state = build_initial_state(ifs, CYCLE, GRID, IFS_CHANNELS, 6, 2)
    other = ifs.copy(deep=True)
    other["temperature"].values[3, 2, 9, 9] += 0.01
    assert build_initial_state(other, CYCLE, GRID, IFS_CHANNELS, 6, 2).digest != state.digest


def test_a_finer_analysis_is_regridded(gfs: xr.Dataset) -> None:
    state = build_initial_state(gfs, Cycle(GFS_TIME), GRID, ERA5_82, 6, 1)
    assert state.values.shape == (1, 36, 19, 82)
    assert state.provenance["regridding"] == "conservative from 144 x 73"
    assert "vertical_velocity at 50 hPa" in state.degraded[0]


def test_nan_at_the_source_is_refused_though_regridding_would_skip_it(gfs: xr.Dataset) -> None:
    wrong = gfs.copy(deep=True)
    wrong["temperature"].values[0, 3, 10, 10] = np.nan
    with pytest.raises(AnalysisRejected, match="temperature at 200 hPa is NaN or infinite at 1"):
        build_initial_state(wrong, Cycle(GFS_TIME), GRID, ERA5_82, 6, 1)


def test_a_missing_time_stops_or_starts_from_the_last_whole_history(ifs: xr.Dataset) -> None:
    late = Cycle(IFS_TIMES[7])
    without = ifs.isel(valid_time=[0, 1, 2, 3, 4, 5, 6])
    with pytest.raises(AnalysisMissing, match="2024-06-04T18Z"):
        build_initial_state(without, late, GRID, IFS_CHANNELS, 6, 4)
    policy = HistoryPolicy("last_whole_history", max_age_hours=12)
    state = build_initial_state(without, late, GRID, IFS_CHANNELS, 6, 4, policy)
    assert state.valid_times == IFS_TIMES[3:7]
    assert state.cycle == late
    assert "no analysis for 2024-06-04T18Z" in state.degraded[0]
    gap = ifs.isel(valid_time=[0, 1, 2, 4, 5, 6, 7])
    with pytest.raises(AnalysisMissing, match="at most 12 h older"):
        build_initial_state(gap, Cycle(IFS_TIMES[6]), GRID, IFS_CHANNELS, 6, 4, policy)


def test_a_later_cycle_fetches_only_what_is_new(source: Counting, store: ObjectStore) -> None:
    first = prepare_initial_state(source, CYCLE, GRID, IFS_CHANNELS, 6, 4, store=store)
    assert source.fetched == list(IFS_TIMES[:4])
    source.fetched.clear()
    prepare_initial_state(source, CYCLE.shift(6), GRID, IFS_CHANNELS, 6, 4, store=store)
    assert source.fetched == [IFS_TIMES[4]]
    source.fetched.clear()
    again = prepare_initial_state(source, CYCLE, GRID, IFS_CHANNELS, 6, 4, store=store)
    assert source.fetched == []
    assert again.digest == first.digest
    assert again.provenance["inputs"] == first.provenance["inputs"]
    direct = prepare_initial_state(source, CYCLE, GRID, IFS_CHANNELS, 6, 4)
    assert direct.digest == first.digest


def test_what_was_fetched_is_kept_when_another_time_is_missing(
    source: Counting, store: ObjectStore
) -> None:
    source.lacking = [IFS_TIMES[3]]
    with pytest.raises(AnalysisMissing):
        prepare_initial_state(source, CYCLE, GRID, IFS_CHANNELS, 6, 4, store=store)
    source.lacking, source.fetched = [], []
    prepare_initial_state(source, CYCLE, GRID, IFS_CHANNELS, 6, 4, store=store)
    assert source.fetched == [IFS_TIMES[3]]


def test_the_policy_holds_while_fetching(source: Counting) -> None:
    late = Cycle(IFS_TIMES[7])
    source.lacking = [IFS_TIMES[7]]
    policy = HistoryPolicy("last_whole_history")
    state = prepare_initial_state(source, late, GRID, IFS_CHANNELS, 6, 4, policy)
    assert state.valid_times == IFS_TIMES[3:7]
    assert state.degraded


def test_stored_analyses_open_with_xarray(source: Counting, store: ObjectStore) -> None:
    ds = checked_analysis(source, IFS_TIMES[0], GRID, IFS_CHANNELS, store=store)
    key = analysis_key("ifs", IFS_TIMES[0])
    assert key == "analyses/v1/ifs/2024/06/03/20240603T00Z.zarr"
    with xr.open_zarr(store.url(key)) as stored:
        xr.testing.assert_equal(stored.load(), ds)
        assert stored.valid_time.values[0] == time_values(IFS_TIMES[:1])[0]
        assert stored.temperature.attrs["units"] == "K"
    commit = json.loads(store.get(f"{key}/{COMMIT}"))
    assert {check["status"] for check in commit["checks"]} <= {"passed", "skipped"}


def test_an_analysis_without_its_commit_is_not_there(source: Counting, store: ObjectStore) -> None:
    checked_analysis(source, IFS_TIMES[0], GRID, IFS_CHANNELS, store=store)
    key = analysis_key("ifs", IFS_TIMES[0])
    store.delete(f"{key}/{COMMIT}")
    assert read_analysis(store, "ifs", IFS_TIMES[0], IFS_CHANNELS, GRID) is None
    checked_analysis(source, IFS_TIMES[0], GRID, IFS_CHANNELS, store=store)
    assert len(source.fetched) == 2
    assert read_analysis(store, "ifs", IFS_TIMES[0], IFS_CHANNELS, GRID) is not None


def test_a_stored_analysis_that_has_changed_is_refused(
    source: Counting, store: ObjectStore
) -> None:
    checked_analysis(source, IFS_TIMES[0], GRID, IFS_CHANNELS, store=store)
    checked_analysis(source, IFS_TIMES[1], GRID, IFS_CHANNELS, store=store)
    one, other = (analysis_key("ifs", time) for time in IFS_TIMES[:2])
    chunk = "temperature/c/0/0/0/0"
    store.put(f"{one}/{chunk}", store.get(f"{other}/{chunk}"))
    with pytest.raises(IntegrityError, match="values that were checked"):
        checked_analysis(source, IFS_TIMES[0], GRID, IFS_CHANNELS, store=store)


def test_another_grid_under_the_same_name_is_refused(source: Counting, store: ObjectStore) -> None:
    checked_analysis(source, IFS_TIMES[0], GRID, IFS_CHANNELS, store=store)
    with pytest.raises(ConfigurationError, match="`name` of its own"):
        checked_analysis(
            source, IFS_TIMES[0], LatLonGrid.with_poles(18, 10), IFS_CHANNELS, store=store
        )


def test_a_rejected_analysis_is_not_stored(
    ifs: xr.Dataset, store: ObjectStore, source: Counting
) -> None:
    class Rotated(Counting):
        def fetch(self, channels: Channels, valid_times: Sequence[datetime]) -> xr.Dataset:
            return super().fetch(channels, valid_times).roll(longitude=18, roll_coords=False)

    with pytest.raises(AnalysisRejected, match="rotated by 180 degrees"):
        checked_analysis(Rotated(source.inner), IFS_TIMES[0], GRID, IFS_CHANNELS, store=store)
    assert not list(store.list("analyses"))


def test_the_clock_of_another_zone_changes_nothing(
    source: Counting, ifs: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        state = prepare_initial_state(source, CYCLE, dataset_grid(ifs), IFS_CHANNELS, 6, 1)
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert state.valid_times == (CYCLE.init_time,)
    assert state.valid_times[0].utcoffset() == timedelta(0)


def test_a_write_that_is_cut_short_leaves_no_analysis(
    source: Counting, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fills up just before the commit; the next attempt goes through."""
    from mosaic_core.errors import StoreError

    def full(self: ObjectStore, key: str, data: bytes) -> None:
        raise StoreError("no space left on device", "room for an analysis")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "put", full)
        with pytest.raises(StoreError, match="no space left"):
            checked_analysis(source, IFS_TIMES[0], GRID, IFS_CHANNELS, store=store)
    assert read_analysis(store, "ifs", IFS_TIMES[0], IFS_CHANNELS, GRID) is None
    checked_analysis(source, IFS_TIMES[0], GRID, IFS_CHANNELS, store=store)
    assert read_analysis(store, "ifs", IFS_TIMES[0], IFS_CHANNELS, GRID) is not None


def test_killed_while_writing_the_analysis_is_fetched_again(
    shared_data: Path, tmp_path: Path, source: Counting
) -> None:
    """kill -9 between the arrays and the commit."""
    import os
    import signal
    import subprocess
    import sys

    code = (
        "import os, sys, signal\n"
        "from datetime import datetime, UTC\n"
        "from mosaic_core.storage import ObjectStore, open_store\n"
        "from mosaic_core.analysis.initial_state import checked_analysis\n"
        "from mosaic_core.analysis.sources import make_source\n"
        "from tests.analysis.conftest import *\n"
        "from mosaic_core.grid import LatLonGrid\n"
        "ObjectStore.put = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "source = make_source(ifs_settings(Path(sys.argv[1])))\n"
        "checked_analysis(source, IFS_TIMES[0], LatLonGrid.with_poles(36, 19), IFS_CHANNELS,\n"
        "                 store=open_store(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, str(shared_data), str(tmp_path / "store")]
    root = str(Path(__file__).parents[2])
    ended = subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": root}, check=False)
    assert ended.returncode == -signal.SIGKILL
    store = open_store(tmp_path / "store")
    assert list(store.list("analyses"))
    assert read_analysis(store, "ifs", IFS_TIMES[0], IFS_CHANNELS, GRID) is None
    checked_analysis(source, IFS_TIMES[0], GRID, IFS_CHANNELS, store=store)
    assert read_analysis(store, "ifs", IFS_TIMES[0], IFS_CHANNELS, GRID) is not None
