"""Every published forecast is verified once with each analysis that it comes true with."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from mosaic_core.analysis.store import analysis_key
from mosaic_core.catalog.models import VerificationScore as V
from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError, StoreError
from mosaic_core.pipeline.accumulated import Period, accumulate
from mosaic_core.pipeline.run import run_cycle
from mosaic_core.pipeline.scoreboard import (
    mean_energies,
    quality_flags,
    scored_lines,
    truth_of,
    write_pictures,
)
from mosaic_core.pipeline.scorecard import Valid, make_page
from mosaic_core.pipeline.site import Site
from mosaic_core.pipeline.truth import SimulatedTruth, StoredAnalyses
from mosaic_core.pipeline.verification import verify_due
from mosaic_core.products.product import UNTRAINED
from mosaic_core.publication import client
from mosaic_core.verification import arrays
from mosaic_core.verification.events import brier
from mosaic_core.verification.scores import score
from mosaic_core.verification.settings import VerificationSettings
from tests.pipeline.world import World, plain
from tests.verification.conftest import CYCLES, site_of

SETTINGS = VerificationSettings.load()
DUE = {f"{CYCLES[0]} +6 h", f"{CYCLES[0]} +12 h", f"{CYCLES[1]} +6 h"}


def verified(site: Site, cycle: Cycle, **changes: int) -> set[str]:
    report = verify_due(site, cycle, replace(SETTINGS, **changes))
    assert not report.failed
    return {str(due) for due in report.verified}


def all_scores(site: Site) -> list[tuple[object, ...]]:
    wanted = (V.cycle, V.lead_hours, V.variable, V.region, V.metric, V.value)
    with site.catalog._reading() as session:
        rows = session.query(*wanted).all()
    return sorted(tuple(row) for row in rows)


def test_what_has_come_true_is_verified_once(site: Site, newest: Cycle) -> None:
    assert verified(site, newest) == DUE
    before = all_scores(site)
    assert before
    assert verified(site, newest) == set()
    assert all_scores(site) == before


def test_each_cycle_verifies_what_comes_true_with_it(site: Site) -> None:
    assert verified(site, CYCLES[0]) == set()
    assert verified(site, CYCLES[1]) == {f"{CYCLES[0]} +6 h"}
    assert verified(site, CYCLES[2]) == DUE - {f"{CYCLES[0]} +6 h"}


def test_what_is_outstanding_is_made_up_newest_first(site: Site, newest: Cycle) -> None:
    first = verify_due(site, newest, replace(SETTINGS, at_most=1))
    assert first.left == 2
    assert first.verified[0].valid_time == newest.init_time
    second = verified(site, newest, at_most=1)
    third = verified(site, newest, at_most=1)
    assert {str(first.verified[0])} | second | third == DUE
    assert third == {f"{CYCLES[0]} +6 h"}


def test_a_late_analysis_holds_back_only_its_own(site: Site, world: World, newest: Cycle) -> None:
    key = analysis_key(site.source.name, newest.init_time)
    here, away = Path(world.store, key), Path(world.folder, "away.zarr")
    shutil.move(here, away)
    report = verify_due(site, newest)
    assert report.waiting
    assert {str(due) for due in report.verified} == {f"{CYCLES[0]} +6 h"}
    shutil.move(away, here)
    report = verify_due(site, newest)
    assert not report.waiting
    assert {str(due) for due in report.verified} == DUE - {f"{CYCLES[0]} +6 h"}


def test_what_is_too_old_is_left(site: Site, newest: Cycle) -> None:
    old = newest.shift(24 * 30)
    assert verified(site, old, max_age_days=5) == set()
    assert verified(site, old, max_age_days=40) == DUE


def test_a_new_revision_is_verified_anew(site: Site, world: World, newest: Cycle) -> None:
    assert verified(site, newest) == DUE
    before = all_scores(site)
    site.catalog.close()
    world.write(seed=1)
    again = site_of(world)
    assert run_cycle(again, CYCLES[0]).manifest.revision == 2
    report = verify_due(again, newest)
    assert {str(due) for due in report.verified} == {f"{CYCLES[0]} +6 h", f"{CYCLES[0]} +12 h"}
    assert {due.revision for due in report.verified} == {2}
    after = all_scores(again)
    assert [row[:-1] for row in after] == [row[:-1] for row in before]
    assert after != before


def test_recorded_scores_are_those_of_the_fields(site: Site, newest: Cycle, world: World) -> None:
    verified(site, newest)
    forecast = client.open_forecast(world.store, CYCLES[0], "ensemble")
    truth = StoredAnalyses(site)
    start = truth.at(CYCLES[0].init_time)
    fields = truth.at(newest.init_time).expand_dims("valid_time")
    found = score(forecast, fields, persistence=start, regions=SETTINGS.regions)
    lines = scored_lines(site.catalog, "tiny", truth.name, Period(CYCLES[0], CYCLES[0]))
    checked = 0
    for line in lines:
        name = f"{line.line.variable}_{line.line.level}".removesuffix("_0")
        if line.line.lead_hours != 12 or line.line.variable == "10m_wind":
            continue
        here = found.sel(variable=name, region=line.line.region).isel(lead_time=0)
        for score_name in ("rmse", "bias", "fair_crps", "spread_skill", "to_persistence"):
            assert line.scores[score_name] == pytest.approx(float(here[score_name]), rel=1e-9)
            checked += 1
        assert "to_climatology" not in line.scores
    assert checked == 4 * 4 * 5


def test_rank_histograms_are_kept_by_lead_time(site: Site, newest: Cycle) -> None:
    verified(site, newest)
    kept = arrays.read(site.store, arrays.key_of("tiny", site.source.name, CYCLES[0]))
    assert kept is not None
    assert kept["lead_time"].values.tolist() == [6, 12, 18, 24]
    known = np.isfinite(kept["rank_histogram"]).all(("variable", "region", "rank"))
    assert known.values.tolist() == [True, True, False, False]
    sums = kept["rank_histogram"].sel(lead_time=12).sum("rank")
    np.testing.assert_allclose(sums, 1.0)
    assert kept["rank_histogram"].sizes["rank"] == 3


def ensemble_of(world: World, cycle: Cycle) -> Path:
    time = cycle.init_time
    return Path(world.store, f"forecasts/v1/tiny/{time:%Y/%m/%d/%H}Z/ensemble.zarr")


def test_a_value_that_is_not_finite_is_named_and_leaves_the_others(
    site: Site, world: World, newest: Cycle
) -> None:
    group = zarr.open_group(ensemble_of(world, CYCLES[0]))
    group["2m_temperature"][1, 0, 3, 4] = np.nan
    report = verify_due(site, newest)
    assert {str(due) for due in report.verified} == DUE - {f"{CYCLES[0]} +6 h"}
    ((due, reason),) = report.failed
    assert str(due) == f"{CYCLES[0]} +6 h"
    assert "2m_temperature of the forecast not finite" in reason
    (event,) = site.catalog.events(kind="verification-failed")
    assert event.cycle == CYCLES[0]
    assert (CYCLES[0], 6) not in {row[:2] for row in all_scores(site)}


@pytest.mark.parametrize("damage", ["removed", "cut short"])
def test_a_damaged_forecast_is_named_and_leaves_the_others(
    site: Site, world: World, newest: Cycle, damage: str
) -> None:
    for chunk in (ensemble_of(world, CYCLES[1]) / "2m_temperature" / "c").rglob("*"):
        if chunk.is_file() and damage == "removed":
            chunk.unlink()
        elif chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:40])
    report = verify_due(site, newest)
    assert {str(due) for due in report.verified} == DUE - {f"{CYCLES[1]} +6 h"}
    assert [str(due) for due, _ in report.failed] == [f"{CYCLES[1]} +6 h"]


def test_a_damaged_analysis_is_named(site: Site, world: World, newest: Cycle) -> None:
    key = analysis_key(site.source.name, newest.init_time)
    for chunk in (Path(world.store, key) / "temperature" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:-30])
    report = verify_due(site, newest)
    assert {str(due) for due in report.verified} == {f"{CYCLES[0]} +6 h"}
    assert len(report.failed) == 2
    assert all("damaged" in reason for _, reason in report.failed)


def test_a_forecast_that_was_removed_is_no_failure(site: Site, world: World, newest: Cycle) -> None:
    shutil.rmtree(ensemble_of(world, CYCLES[0]).parent)
    assert verified(site, newest) == {f"{CYCLES[1]} +6 h"}


def test_a_store_that_is_away_ends_it(
    site: Site, newest: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreError("the store does not answer")

    monkeypatch.setattr(arrays, "write_lead", away)
    with pytest.raises(StoreError, match="does not answer"):
        verify_due(site, newest)
    assert all_scores(site) == []


def test_a_model_without_any_of_the_channels_is_refused(site: Site, newest: Cycle) -> None:
    with pytest.raises(ConfigurationError, match="name channels of this model"):
        verify_due(site, newest, replace(SETTINGS, channels=("geopotential_500",)))


def test_an_archive_has_no_truth_beside_its_analyses(site: Site) -> None:
    with pytest.raises(ConfigurationError, match="a simulated source"):
        SimulatedTruth(site)


def test_the_truth_to_show_is_found_or_named(site: Site, newest: Cycle) -> None:
    with pytest.raises(ConfigurationError, match="run `mosaic verify`"):
        truth_of(site.catalog, "tiny", None, site.source.name)
    verified(site, newest)
    assert truth_of(site.catalog, "tiny", None, "another") == site.source.name
    with pytest.raises(ConfigurationError, match="one of made-up"):
        truth_of(site.catalog, "tiny", "satellites", site.source.name)


def test_a_scorecard_is_drawn_from_the_catalog(site: Site, newest: Cycle) -> None:
    assert write_pictures(site, site.source.name, Period()) == {}
    verified(site, newest)
    found = write_pictures(site, site.source.name, Period())
    assert set(found) == {"scorecard.png"}
    assert mean_energies(site, site.source.name, Period())[0] == {}
    picture = site.store.get(f"verification/v1/tiny/{site.source.name}/scorecard.png")
    assert picture.startswith(b"\x89PNG")


def test_quality_flags_of_the_forecasts_stand_on_their_page(site: Site, newest: Cycle) -> None:
    verified(site, newest)
    day = Valid.parse(f"{newest.init_time:%Y-%m-%d}")
    page = make_page(site, site.source.name, day, flags=["looked at by nobody", UNTRAINED])
    assert page.flags == ("looked at by nobody", UNTRAINED)
    assert make_page(site, site.source.name, day).flags == (UNTRAINED,)
    assert f'<p class="flag">{UNTRAINED}' in page.html()
    assert quality_flags(site, [newest.shift(6)]) == ()


def told(*words: str) -> str:
    """What `mosaic WORDS` prints; its errors are raised."""
    from mosaic_core.cli import app

    outcome = CliRunner().invoke(app, words, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def test_the_commands_verify_and_show(world: World, newest: Cycle) -> None:
    where = ("-p", world.profile)
    assert set(plain(told("verify", str(newest), *where, "--json"))["verified"]) == DUE
    assert "verified 0 lead times" in told("verify", str(newest), *where)
    shown = plain(told("scores", *where, "--variable", "2t", "--json"))
    assert shown["truth"] == "made-up"
    assert [(s["lead_hours"], s["cycles"]) for s in shown["scores"]] == [(6, 2), (12, 1)]
    assert all(s["rmse"] > 0 and s["variable"] == "2m_temperature" for s in shown["scores"])
    table = told("scores", *where, "--region", "all", "--lead", "12", "--last", "all")
    assert "t850" in table
    assert "tropics" in table
    assert " 6 h" not in table


def test_scores_are_shown_as_csv_and_drawn(world: World, newest: Cycle, tmp_path: Path) -> None:
    where = ("-p", world.profile, "--last", "all")
    told("verify", str(newest), *where[:2])
    shown = {(s["variable"], s["level"], s["lead_hours"]): s["rmse"]
             for s in plain(told("scores", *where, "--json"))["scores"] if "rmse" in s}  # fmt: skip
    lines = list(csv.DictReader(io.StringIO(told("scores", *where, "--csv"))))
    found = {(r["variable"], int(r["level"]), int(r["lead_hours"])): float(r["value"])
             for r in lines if r["score"] == "rmse"}  # fmt: skip
    assert found == shown
    assert ("10m_wind", "brier_above_10") in {(r["variable"], r["score"]) for r in lines}
    picture = tmp_path / "scores.png"
    told("scores", *where, "--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_probabilities_and_ranks_are_shown_with_their_reliability(
    world: World, newest: Cycle
) -> None:
    where = ("-p", world.profile, "--last", "all")
    told("verify", str(newest), *where[:2])
    events = plain(told("scores", *where, "--show", "events", "--json"))["events"]
    assert {e["event"] for e in events} == {
        "10m_wind_above_10", "10m_wind_above_15", "2m_temperature_above_30_degC",
        "2m_temperature_below_0_degC",
    }  # fmt: skip
    for event in events:
        parts = event["reliability"] - event["resolution"] + event["uncertainty"]
        assert event["brier"] == pytest.approx(parts, abs=1e-12)
        assert event["uncertainty"] == pytest.approx(event["base_rate"] * (1 - event["base_rate"]))
    assert "2m_temperature_below_0_degC" in told(
        "scores", *where, "--show", "events", "--csv", "--lead", "6", "--variable", "2t"
    )
    ranks = plain(told("scores", *where, "--show", "ranks", "--region", "all", "--json"))["ranks"]
    assert {(r["variable"], r["lead_hours"]) for r in ranks} == {
        (name, hours) for hours in (6, 12) for name in
        ("2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind", "temperature_850")
    }  # fmt: skip
    assert all(r["unevenness"] >= 0 and r["delta"] > 0 for r in ranks)


def test_brier_scores_of_the_catalog_are_those_of_the_kept_sums(site: Site, newest: Cycle) -> None:
    verified(site, newest)
    kept = accumulate(site.store, site.catalog, "tiny", site.source.name, Period())
    lines = {
        (s.line.variable, s.line.region, s.line.lead_hours): s.scores
        for s in scored_lines(site.catalog, "tiny", site.source.name)
    }
    for (hours, event, region), counts in kept.counts.items():
        field, _, name = event.partition("_above_")
        if name:
            scores = lines[field, region, hours]
            made = brier(counts)
            assert scores[f"brier_above_{name}"] == pytest.approx(float(made["brier"]), abs=1e-12)
            expected = pytest.approx(float(made["brier_skill"]), nan_ok=True)
            assert scores[f"brier_skill_above_{name}"] == expected


@pytest.mark.parametrize(
    "wrong",
    [
        ("--variable", "x1"),
        ("--last", "soon"),
        ("--lead", "x"),
        ("--region", "Mars"),
        ("--json", "--csv"),
        ("--show", "ranks", "--plot", "x.png"),
    ],
)
def test_a_question_that_has_no_answer_is_refused(
    site: Site, world: World, newest: Cycle, wrong: tuple[str, str]
) -> None:
    verified(site, newest)
    with pytest.raises(ConfigurationError, match=wrong[1]):
        told("scores", "-p", world.profile, *wrong)


def test_a_forecast_that_cannot_be_verified_is_an_exit_code(world: World, newest: Cycle) -> None:
    zarr.open_group(ensemble_of(world, CYCLES[0]))["2m_temperature"][0, 0, 3, 4] = np.inf
    from mosaic_core.cli import app

    outcome = CliRunner().invoke(app, ["verify", str(newest), "-p", world.profile, "--json"])
    assert outcome.exit_code == 10
    assert list(plain(outcome.stdout)["failed"]) == [f"{CYCLES[0]} +6 h"]
