"""Position errors of cyclone tracks against best tracks."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from mosaic_core.errors import ConfigurationError
from mosaic_core.pipeline.track_errors import (
    KM_A_DEGREE,
    ForecastTrack,
    Place,
    by_lead_time,
    cases_of,
    common,
    read_best_tracks,
    read_tracks,
)
from tests.pipeline.world import World
from tests.verification.conftest import CYCLES

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
UNITS = {"SID": " ", "ISO_TIME": " ", "LAT": "degrees_north", "LON": "degrees_east"}
HEAD = "member,track,lead_hours,valid_time,latitude,longitude"


def best_file(path: Path, rows: Sequence[Mapping[str, object]], *, units: bool = True) -> Path:
    """A CSV in the form of IBTrACS."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, restval="")
        writer.writeheader()
        writer.writerows([UNITS, *rows] if units else rows)
    return path


def rows_of(storm: str, places: Mapping[datetime, tuple[float, float]]) -> list[dict[str, object]]:
    return [
        {"SID": storm, "ISO_TIME": f"{time:%Y-%m-%d %H:%M:%S}", "LAT": lat, "LON": lon}
        for time, (lat, lon) in places.items()
    ]


def path_of(lat: float, lon: float, hours: Sequence[int] = range(6, 49, 6)) -> dict[int, Place]:
    return {hour: Place(lat + 0.05 * hour, lon + 0.2 * hour) for hour in hours}


def track(member: int, places: Mapping[int, Place]) -> ForecastTrack:
    return ForecastTrack(
        member, {START + timedelta(hours=h): (float(h), p) for h, p in places.items()}
    )


def best_of(**storms: Mapping[int, Place]) -> dict[str, dict[datetime, Place]]:
    return {
        name: {START + timedelta(hours=h): p for h, p in places.items()}
        for name, places in storms.items()
    }


def moved(places: Mapping[int, Place], north: float = 0.0, east: float = 0.0) -> dict[int, Place]:
    return {h: Place(p.latitude + north, p.longitude + east) for h, p in places.items()}


def test_errors_are_distances_on_the_sphere() -> None:
    true = path_of(10, 175)  # crosses 180 degrees
    tracks = [track(1, moved(true, north=1.0)), track(2, moved(true, north=-1.0, east=-360.0))]
    cases = cases_of(tracks, best_of(a=true), members=2)
    assert [case.lead_hours for case in cases] == list(range(6, 49, 6))
    for case in cases:
        assert case.members == 2
        assert case.error == pytest.approx(0, abs=1e-6)
        assert case.member_error == pytest.approx(KM_A_DEGREE)
        assert case.spread == pytest.approx(KM_A_DEGREE)
    (first, *_) = by_lead_time(cases)
    assert (first["lead_hours"], first["cases"], first["storms"]) == (6, 1, 1)
    assert first["member_error_km"] == pytest.approx(111.19, abs=0.01)


def test_each_storm_has_its_own_tracks_and_a_far_one_none() -> None:
    one, other = path_of(10, 150), path_of(-15, 70)
    tracks = [
        track(1, moved(one, 0.5)), track(1, moved(one, 2.0)), track(1, moved(other, -0.25)),
        track(1, moved(one, 3.5)),
    ]  # fmt: skip
    found = {c.storm: c.error for c in cases_of(tracks, best_of(one=one, other=other), 1)}
    assert found == {
        "one": pytest.approx(0.5 * KM_A_DEGREE), "other": pytest.approx(0.25 * KM_A_DEGREE)
    }  # fmt: skip
    assert cases_of([track(1, moved(one, 3.5))], best_of(one=one), 1) == []


def test_what_forms_after_a_day_is_not_in_the_sample() -> None:
    late = path_of(10, 150, range(30, 61, 6))
    assert cases_of([track(1, late)], best_of(a=late), 1) == []
    assert cases_of([track(1, path_of(10, 150, range(24, 61, 6)))], best_of(a=path_of(10, 150)), 1)


def test_a_case_needs_half_of_the_members() -> None:
    true = path_of(10, 150)
    short = {h: p for h, p in true.items() if h <= 24}
    cases = cases_of([track(1, true), track(2, short)], best_of(a=true), members=4)
    assert {case.lead_hours for case in cases} == {6, 12, 18, 24}
    assert cases_of([track(1, true)], best_of(a=true), members=4) == []


def test_a_homogeneous_sample_has_what_all_have() -> None:
    true = path_of(10, 150)
    whole = cases_of([track(1, moved(true, 1.0))], best_of(a=true), 1)
    part = cases_of([track(1, {h: p for h, p in true.items() if h != 18})], best_of(a=true), 1)
    ours, theirs = common(whole, part)
    assert [case.key for case in ours] == [case.key for case in theirs]
    assert {case.lead_hours for case in ours} == set(range(6, 49, 6)) - {18}
    assert all(case.error > 100 for case in ours)


def test_spurs_and_units_are_left_out(tmp_path: Path) -> None:
    rows = rows_of("2026087N10150", {START: (10.0, 150.0)})
    spur = {**rows_of("2026087N10150", {START: (50.0, 1.0)})[0], "TRACK_TYPE": "spur"}
    expected = {"2026087N10150": {START: Place(10.0, 150.0)}}
    assert read_best_tracks(best_file(tmp_path / "a.csv", [*rows, spur])) == expected
    assert read_best_tracks(best_file(tmp_path / "b.csv", rows, units=False)) == expected


def test_what_is_no_best_track_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="best tracks"):
        read_best_tracks(tmp_path / "none.csv")
    with pytest.raises(ConfigurationError, match="no column LAT, SID"):
        read_best_tracks(best_file(tmp_path / "a.csv", [{"ISO_TIME": 1, "LON": 2}], units=False))
    row = {"SID": "a", "ISO_TIME": "2026-03-28 12:00:00", "LAT": "north", "LON": 3}
    with pytest.raises(ConfigurationError, match=r"line 3: .*north"):
        read_best_tracks(best_file(tmp_path / "b.csv", [row]))


def test_real_best_tracks_are_read_and_a_shifted_forecast_is_as_wrong_as_it_is_shifted(
    shared_data: Path, tmp_path: Path
) -> None:
    """Imogen of 2021 from IBTrACS, written in the form of its CSV."""
    name = "IBTrACS.last3years.v04r00_2_storms.nc"
    with xr.open_dataset(shared_data / "cyclones" / name) as stored:
        count = int(stored["numobs"][0])
        lat, lon = (stored[part].values[0, :count].astype(float) for part in ("lat", "lon"))
        times = [
            datetime.fromisoformat(text.decode()).replace(tzinfo=UTC)
            for text in stored["iso_time"].values[0, :count]
        ]
    places = dict(zip(times, zip(lat.tolist(), lon.tolist(), strict=True), strict=True))
    best = read_best_tracks(best_file(tmp_path / "best.csv", rows_of("imogen", places)))
    assert len(best["imogen"]) == count > 10
    points = {
        time: ((time - times[0]).total_seconds() / 3600, Place(a + 0.5, b))
        for time, (a, b) in places.items()
    }
    cases = cases_of([ForecastTrack(1, points)], best, 1)
    assert len(cases) == count
    np.testing.assert_allclose([c.error for c in cases], 0.5 * KM_A_DEGREE, rtol=1e-9)


def test_dale_is_found_among_all_tracks_of_1996_within_a_grid_length(shared_data: Path) -> None:
    """Tracks of a whole year of ERA5, as one member, against a published track of one typhoon."""
    folder = shared_data / "cyclones"
    with (folder / "Dale.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    best = {"dale": {
        datetime.fromisoformat(row["time"]).replace(tzinfo=UTC):
        Place(float(row["lat"]), float(row["lon"])) for row in rows
    }}  # fmt: skip
    begins = min(best["dale"])
    tracks: dict[str, dict[datetime, tuple[float, Place]]] = {}
    with (folder / "ERA5_1996_UZ.csv").open() as stream:
        for row in csv.DictReader(stream):
            time = datetime.fromisoformat(row["time"]).replace(tzinfo=UTC)
            hours = (time - begins).total_seconds() / 3600
            place = Place(float(row["lat"]), float(row["lon"]))
            tracks.setdefault(row["track_id"], {})[time] = hours, place
    cases = cases_of([ForecastTrack(1, points) for points in tracks.values()], best, 1)
    assert len(tracks) > 50
    assert len(cases) > 20
    assert max(case.error for case in cases) < 1.5 * KM_A_DEGREE


def test_the_command_reads_the_tracks_that_were_published(world: World, tmp_path: Path) -> None:
    from mosaic_core.cli import app

    true = {h: Place(10.0, 150.0 + h / 6) for h in (6, 12, 18, 24)}
    for cycle, north in ((CYCLES[0], 1.0), (CYCLES[1], 0.5)):
        time = cycle.init_time
        lines = [HEAD] + [
            f"{member},1,{h},{time + timedelta(hours=h):%Y-%m-%dT%H:%MZ},{p.latitude + north},"
            f"{p.longitude + (time - START).total_seconds() / 3600 / 6}"
            for member in (1, 2) for h, p in true.items()
        ]  # fmt: skip
        folder = Path(world.store, f"forecasts/v1/tiny/{time:%Y/%m/%d/%H}Z")
        (folder / "tracks.csv").write_text("\n".join(lines) + "\n")
    assert len(read_tracks("\n".join(lines))) == 2
    places = {START + timedelta(hours=h): (10.0, 150.0 + h / 6) for h in range(6, 37, 6)}
    file = best_file(tmp_path / "best.csv", rows_of("a", places))
    words = ["track-errors", str(file), "-p", world.profile]
    outcome = CliRunner().invoke(app, [*words, "--json"])
    assert outcome.exit_code == 0, outcome.output
    leads = json.loads(outcome.stdout)["lead_times"]
    assert [each["lead_hours"] for each in leads] == [6, 12, 18, 24]
    assert [each["cases"] for each in leads] == [2, 2, 2, 2]
    assert leads[0]["error_km"] == pytest.approx(0.75 * KM_A_DEGREE)
    assert leads[0]["spread_km"] == pytest.approx(0, abs=1e-6)
    shown = CliRunner().invoke(app, words)
    assert "6 h" in shown.stdout
    assert "83" in shown.stdout
    nothing = best_file(tmp_path / "far.csv", rows_of("b", {START: (40.0, 0.0)}))
    with pytest.raises(ConfigurationError, match="no track of tiny"):
        CliRunner().invoke(app, ["track-errors", str(nothing), "-p", world.profile],
                           catch_exceptions=False)  # fmt: skip
