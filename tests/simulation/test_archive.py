"""The archive of `mosaic simulate`: its layout, its readers, and every way it can be cut short."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from mosaic_core.analysis.checks import CheckSettings, Subject, default_checks, run_checks
from mosaic_core.analysis.sources import fetch_analysis, make_source
from mosaic_core.channels import ERA5_82, Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisMissing, ConfigurationError
from mosaic_core.simulation import restart
from mosaic_core.simulation.archive import BLOCK, CONTENTS, Period, write_archive
from mosaic_core.simulation.model import Model, State, cold_start
from mosaic_core.simulation.planet import find_planet
from mosaic_core.simulation.source import SimulatedSource
from tests.pipeline.command import KILLED, Fault, Outcome, Running

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("mean_sea_level_pressure", "temperature_500", "temperature_850")
FEW = Channels.parse(NAMES)
DAYS = 11
PERIOD = Period(START, 4 * DAYS)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T21 restart."""
    path = tmp_path_factory.mktemp("restart") / "small.npz"
    current = cold_start(Model(find_planet("terra"), 21), 0).current
    restart.write(path, restart.Restart("terra", 21, START, State(0, current), ""))
    return path


def source_of(small: Path, **changes: object) -> SimulatedSource:
    settings = {"truncation": 21, "grid": [16, 9], "restart": str(small), "checkpoints": ""}
    return SimulatedSource({"kind": "simulated", **settings, **changes})


@pytest.fixture(scope="module")
def unbroken(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    write_archive(source_of(small), folder, FEW, PERIOD)
    return folder


def command(small: Path, folder: Path, *faults: Fault, words: tuple[str, ...] = ()) -> Outcome:
    """`mosaic simulate` of the unbroken archive into another folder."""
    common = ("--days", str(DAYS), "--grid", "16x9", "--truncation", "21")
    channels = [word for name in NAMES for word in ("--channel", name)]
    running = Running(
        ["simulate", *common, *channels, "--restart", str(small), "--output", str(folder), *words],
        faults,
        {"XDG_CACHE_HOME": str(folder.parent / "cache")},
    )
    return running.end(seconds=300)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of an archive but its checkpoints."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_layout_is_that_of_weatherbench(small: Path, unbroken: Path) -> None:
    expected = source_of(small)
    times = [START, START + timedelta(days=10)]
    for name, one in zip(CONTENTS, (expected.fetch, expected.truth), strict=True):
        with xr.open_zarr(unbroken / f"{name}.zarr", chunks=None) as ds:
            assert ds.sizes == {"time": 44, "level": 2, "latitude": 9, "longitude": 16}
            assert ds["temperature"].dims == ("time", "level", "latitude", "longitude")
            assert ds["temperature"].attrs["units"] == "K"
            assert ds.attrs["complete_times"] == 44
            assert ds.attrs["planet"] == "terra"
            found = ds.isel(time=[0, 40])
            assert found["time"].values.tolist() == [int(t.timestamp()) * 10**9 for t in times]
            for variable in FEW.variables:
                np.testing.assert_array_equal(found[variable], one(FEW, times)[variable])


def test_a_chunk_is_one_time(unbroken: Path) -> None:
    array = zarr.open_group(unbroken / "truth.zarr", mode="r")["temperature"]
    assert array.chunks == (1, 2, 9, 16)
    assert array.shards == (BLOCK, 2, 9, 16)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("zarr:create_group", "kill-after"),
        Fault("zarr:consolidate_metadata"),
        Fault("pathlib:Path.rename", "kill-after"),
        Fault("zarr:Array.__setitem__", call=2),
        Fault("zarr:Array.__setitem__", "kill-after", call=2),
        Fault("mosaic_core.simulation.source:SimulatedSource.truth", call=BLOCK + 3),
        Fault("zarr:Array.__setitem__", "kill-after", call=6),
        Fault("zarr:Array.__setitem__", "kill-after", call=8),
    ],
    ids=str,
)
@pytest.mark.slow
def test_after_kill_nine_the_archive_is_the_unbroken_one(
    small: Path, unbroken: Path, tmp_path: Path, fault: Fault
) -> None:
    assert command(small, tmp_path / "a", fault).code == KILLED
    assert content(tmp_path / "a") != content(unbroken)
    again = command(small, tmp_path / "a")
    assert again.code == 0, again.err
    assert content(tmp_path / "a") == content(unbroken)


def test_full_disk_is_named_and_the_archive_goes_on(
    small: Path, unbroken: Path, tmp_path: Path
) -> None:
    fault = Fault("zarr.storage._local:_put", "no-space", call=30, ever_after=True)
    full = command(small, tmp_path / "a", fault)
    assert full.code == 6
    assert "No space left on device" in full.err
    assert "goes on where it stopped" in full.err
    assert "Traceback" not in full.err
    again = command(small, tmp_path / "a")
    assert (again.code, "44 times of 3 channels" in again.out) == (0, True)
    assert content(tmp_path / "a") == content(unbroken)


def test_progress_is_told_only_of_what_is_there(small: Path, tmp_path: Path) -> None:
    seen = []

    def look(done: int) -> None:
        for name in CONTENTS:
            group = zarr.open_group(tmp_path / f"{name}.zarr", mode="r")
            whole = np.isfinite(group["temperature"][:]).all(axis=(1, 2, 3))
            assert whole.sum() == group.attrs["complete_times"] == done
        seen.append(done)

    write_archive(source_of(small), tmp_path, FEW, PERIOD, look)
    assert seen == [0, BLOCK, BLOCK + 4]


@pytest.mark.parametrize(
    ("changes", "period", "channels", "found"),
    [
        ({"seed": 3}, PERIOD, FEW, "seed '0', not '3'"),
        ({"grid": [12, 7]}, PERIOD, FEW, "grid"),
        ({"analysis_error": 0.2}, PERIOD, FEW, "analysis_error"),
        ({}, Period(START, 40), FEW, "times 44, not 40"),
        ({}, Period(START, 44, 12), FEW, "step_hours 6, not 12"),
        ({}, PERIOD, Channels.parse(NAMES[:2]), "channels"),
    ],
)
def test_an_archive_of_another_run_is_refused_and_left(
    small: Path,
    unbroken: Path,
    changes: dict[str, object],
    period: Period,
    channels: Channels,
    found: str,
) -> None:
    before = content(unbroken)
    with pytest.raises(ConfigurationError, match=f"of another archive.*{found}"):
        write_archive(source_of(small, **changes), unbroken, channels, period)
    assert content(unbroken) == before


def test_what_is_no_archive_is_refused_and_left(small: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "analyses.zarr"
    zarr.create_group(theirs, attributes={"title": "of somebody else"})
    with pytest.raises(ConfigurationError, match="of another archive"):
        write_archive(source_of(small), tmp_path, FEW, PERIOD)
    (theirs / "zarr.json").write_text('{"zarr_form')
    with pytest.raises(ConfigurationError, match="no archive that can be read"):
        write_archive(source_of(small), tmp_path, FEW, PERIOD)
    (theirs / "zarr.json").unlink()
    (theirs / "letter.txt").write_text("keep me")
    with pytest.raises(ConfigurationError, match="no archive that can be read"):
        write_archive(source_of(small), tmp_path, FEW, PERIOD)
    assert (theirs / "letter.txt").exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--planet", "tera"), "did you mean 'terra'?"),
        (("--channel", "temprature_500"), "did you mean 'temperature'?"),
        (("--truncation", "21"), "small.npz is of terra at T31"),
        (("--grid", "72by37"), "as in 240x121"),
        (("--start", "yesterday"), "as in 2026-03-01"),
        (("--start", "2025-12-31"), "where the simulation of terra begins"),
        (("--start", "2026-01-01T00:10"), "a whole number of six hours"),
        (("--channel", "temperature_10"), "levels from 20 hPa down"),
    ],
)
def test_a_command_that_cannot_be_right_writes_nothing(
    small: Path, tmp_path: Path, words: tuple[str, ...], found: str
) -> None:
    if "T31" in found:
        words = ("--truncation", "31")
        found = "small.npz is of terra at T21"
    refused = command(small, tmp_path / "a", words=words)
    assert refused.code == 2, refused.err
    assert found in refused.err
    assert not (tmp_path / "a").exists()


def test_the_zarr_source_reads_it(small: Path, unbroken: Path) -> None:
    time = START + timedelta(days=2)
    archive = make_source({"kind": "zarr", "url": str(unbroken / "analyses.zarr")})
    found = fetch_analysis(archive, Cycle(time), FEW, [time])
    expected = source_of(small).fetch(FEW, [time])
    for variable in FEW.variables:
        np.testing.assert_array_equal(found[variable], expected[variable])
    with pytest.raises(AnalysisMissing, match="which holds 2026-01-01T00Z to 2026-01-11T18Z"):
        fetch_analysis(archive, Cycle(time.replace(year=2027)), FEW, [time.replace(year=2027)])


def test_times_of_a_missing_block_are_nan_and_refused(small: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done:
            raise Stop

    source = source_of(small)
    with pytest.raises(Stop):
        write_archive(source, tmp_path, ERA5_82, PERIOD, stop)
    archive = make_source({"kind": "zarr", "url": str(tmp_path / "analyses.zarr")})
    times = [START + timedelta(hours=6 * i) for i in (BLOCK - 1, BLOCK)]
    found = fetch_analysis(archive, Cycle(times[-1]), ERA5_82, times)
    there = np.isfinite(found["temperature"].values).all(axis=(1, 2, 3))
    assert there.tolist() == [True, False]
    checks = [c for c in default_checks(CheckSettings()) if c.name == "finite values"]
    for time, status in zip(times, ("passed", "failed"), strict=True):
        one = found.sel(valid_time=[np.datetime64(time.replace(tzinfo=None), "ns")])
        (result,) = run_checks(checks, Subject(one, ERA5_82, (time,), source.grid))
        assert result.status == status
