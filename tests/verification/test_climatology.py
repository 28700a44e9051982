from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from mosaic_core.channels import Channels
from mosaic_core.errors import AnalysisMissing, AnalysisRejected, AnalysisUnreadable
from mosaic_core.grid import LatLonGrid
from mosaic_core.simulation.source import SimulatedSource
from mosaic_core.verification import climatology
from mosaic_core.verification.climatology import Climatology, from_archive, shipped

GRID = LatLonGrid.with_poles(12, 7)
NAMES = ["2m_temperature", "temperature_500", "temperature_850"]
TIMES = 90


def archive(folder: Path, complete: int = TIMES) -> tuple[Path, np.ndarray]:
    """An archive's truth, and its values (time, channel, latitude, longitude)."""
    rng = np.random.default_rng(0)
    values = (280 + 5 * rng.normal(size=(TIMES, 3, GRID.nlat, GRID.nlon))).astype(np.float32)
    group = zarr.create_group(folder / "truth.zarr")
    group.create_array("2m_temperature", data=values[:, 0])
    group.create_array("temperature", data=values[:, [2, 1]])
    group.create_array("latitude", data=np.array(GRID.latitudes))
    group.create_array("longitude", data=np.array(GRID.longitudes))
    group.create_array("level", data=np.array([850, 500]))
    group.attrs.update({"channels": NAMES, "complete_times": complete})
    group.attrs.update({"planet": "terra", "seed": 1})
    return folder, values


def test_mean_and_deviation_are_those_of_all_whole_times(tmp_path: Path) -> None:
    folder, values = archive(tmp_path, complete=77)
    told: list[tuple[int, int]] = []
    found = from_archive(folder, lambda done, total: told.append((done, total)))
    exact = values[:77].astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, exact.std(0, ddof=1), rtol=1e-9)
    assert told[-1] == (77, 77)
    assert found.provenance == {"planet": "terra", "seed": "1", "times": "77"}


def test_a_written_climatology_is_the_same_to_its_rounding(tmp_path: Path) -> None:
    made = from_archive(archive(tmp_path)[0])
    made.write(tmp_path / "climate.npz")
    found = Climatology.read(tmp_path / "climate.npz")
    assert found.channels == made.channels
    assert found.grid == made.grid
    assert found.provenance == made.provenance
    typical = np.sqrt((made.deviation**2).mean(axis=(1, 2)))[:, None, None]
    assert (np.abs(found.mean - made.mean) / typical).max() <= 0.5 / 64 + 1e-9
    assert (np.abs(found.deviation - made.deviation) / typical).max() <= 0.5 / 64 + 1e-9


def test_channels_are_taken_in_the_order_asked_for(tmp_path: Path) -> None:
    made = from_archive(archive(tmp_path)[0])
    found = made.of(Channels.parse(NAMES[::-1]), GRID)
    assert found is not None
    np.testing.assert_array_equal(found[0], made.mean[::-1])
    assert made.of(Channels.parse(["geopotential_500"]), GRID) is None
    assert made.of(made.channels, LatLonGrid.with_poles(24, 13)) is None


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    folder, _ = archive(tmp_path)
    zarr.open_group(folder / "truth.zarr")["temperature"][45, 0, 2, 3] = np.nan
    with pytest.raises(AnalysisRejected, match="temperature at 850 hPa is not finite at time 45"):
        from_archive(folder)


def test_too_little_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnalysisMissing, match="no archive"):
        from_archive(tmp_path)
    folder, _ = archive(tmp_path, complete=1)
    with pytest.raises(AnalysisMissing, match="1 whole times"):
        from_archive(folder)


@pytest.mark.parametrize("keep", [0, 100, 1500])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    from_archive(archive(tmp_path)[0]).write(tmp_path / "climate.npz")
    whole = (tmp_path / "climate.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:keep])
    with pytest.raises(AnalysisUnreadable, match="make it again"):
        Climatology.read(tmp_path / "cut.npz")
    with pytest.raises(AnalysisMissing):
        Climatology.read(tmp_path / "none.npz")


def test_the_shipped_one_is_of_the_demos_planet_and_grid_only() -> None:
    settings = {"truncation": 31, "grid": [72, 37], "checkpoints": ""}
    source = SimulatedSource(settings)
    found = shipped(source.provenance, source.grid)
    assert found is not None
    assert sum(path.stat().st_size for path in climatology.SHIPPED.glob("*.npz")) < 600_000
    mean, deviation = found.of(Channels.parse(["temperature_850"]), source.grid) or ((), ())
    south, equator, north = (float(mean[0, row].mean()) for row in (2, 18, 34))
    assert 225 < south < 275
    assert 280 < equator < 300
    assert 225 < north < 275
    assert 0.2 < float(deviation[0, 18].mean()) < float(deviation[0, 28].mean()) < 10
    assert shipped({**source.provenance, "model": "another"}, source.grid) is None
    assert shipped(source.provenance, LatLonGrid.with_poles(120, 61)) is None


def test_the_simulation_is_scored_near_its_climatology() -> None:
    """A state of a run that the climatology was not made of lies within its deviation."""
    source = SimulatedSource({"truncation": 31, "grid": [72, 37], "checkpoints": ""})
    channels = Channels.parse(["temperature_500", "geopotential_500"])
    climate = shipped(source.provenance, source.grid)
    assert climate is not None
    mean, deviation = climate.of(channels, source.grid) or ((), ())
    truth = source.truth(channels, [source.trajectory.start_time])
    for i, name in enumerate(("temperature", "geopotential")):
        field = truth[name].isel(valid_time=0, level=0).values
        normalised = (field - mean[i]) / deviation[i]
        assert 0.6 < float(np.sqrt((normalised**2).mean())) < 1.5


def test_the_tool_writes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = archive(tmp_path)
    target = tmp_path / "out.npz"
    monkeypatch.setattr("sys.argv", ["climatology", str(folder), "--output", str(target)])
    climatology.main()
    assert Climatology.read(target).provenance["times"] == str(TIMES)
