"""Every score is that of `scores` or `xskillscore`, or a closed form, within 1e-6."""

from __future__ import annotations

import operator
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mosaic_core.grid import LatLonGrid
from mosaic_core.verification.events import Counts, brier, roc
from mosaic_core.verification.ranks import delta, outliers, rank_histogram, unevenness
from mosaic_core.verification.regions import Region, Weights
from mosaic_core.verification.statistics import scores, statistics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import xskillscore
    from scores import continuous, probability

GRID = LatLonGrid.with_poles(20, 11)
REGIONS = {"global": Region(), "box": Region(-33, 47, 350, 75)}
WEIGHTS = Weights.of(GRID, REGIONS)
PLANE = ("latitude", "longitude")
SHAPE = (GRID.nlat, GRID.nlon)
THRESHOLD = 0.4


@dataclass(frozen=True)
class Case:
    members: np.ndarray
    truth: np.ndarray
    climate: np.ndarray
    deviation: np.ndarray

    def array(self, name: str) -> xr.DataArray:
        values = getattr(self, name)
        return xr.DataArray(values, dims=(("number",) if name == "members" else ()) + PLANE)

    @property
    def mean(self) -> xr.DataArray:
        return self.array("members").mean("number")


def case(kind: str) -> Case:
    rng = np.random.default_rng(sum(map(ord, kind)))
    count = 1 if kind == "one member" else 7
    members, truth = rng.normal(size=(count, *SHAPE)), rng.normal(0.2, 1.3, size=SHAPE)
    climate, deviation = rng.normal(size=SHAPE), rng.uniform(0.5, 2, size=SHAPE)
    if kind == "ties":
        members, truth = members.round(), truth.round()
    if kind == "missing truth":
        truth[rng.random(SHAPE) < 0.3] = np.nan
    if kind == "constant fields":
        members[:], truth[:] = 2.0, 1.5
    if kind == "large numbers":
        members, truth, climate = (5.5e4 + 300 * field for field in (members, truth, climate))
        deviation = 300 * deviation
    return Case(members, truth, climate, deviation)


KINDS = (
    "random", "missing truth", "ties", "one member", "constant fields", "large numbers",
)  # fmt: skip


@pytest.fixture(params=KINDS)
def given(request: pytest.FixtureRequest) -> Case:
    return case(request.param)


def area(region: int, truth: np.ndarray) -> xr.DataArray:
    """Weights as the public packages take them; they leave points out that are NaN."""
    return xr.DataArray(np.where(np.isnan(truth), 0.0, WEIGHTS.cells[region]), dims=PLANE)


def found(given: Case) -> dict[str, np.ndarray]:
    return statistics(
        given.members, given.truth, WEIGHTS,
        persistence=given.climate, climatology=given.climate, deviation=given.deviation,
    )  # fmt: skip


def same(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(np.asarray(ours, float), np.asarray(theirs, float), rtol=1e-6,
                               atol=1e-9)  # fmt: skip


@pytest.mark.parametrize("region", [0, 1])
def test_errors_of_the_mean_are_those_of_scores(given: Case, region: int) -> None:
    ours, truth, weights = found(given), given.array("truth"), area(region, given.truth)
    same(ours["mse"][region], continuous.mse(given.mean, truth, weights=weights))
    same(ours["mae"][region], continuous.mae(given.mean, truth, weights=weights))
    same(ours["bias"][region], continuous.additive_bias(given.mean, truth, weights=weights))
    climate = given.array("climate")
    for name in ("mse_climatology", "mse_persistence"):
        same(ours[name][region], continuous.mse(climate, truth, weights=weights))
    same(
        scores(ours)["rmse"][region],
        xskillscore.rmse(given.mean, truth, list(PLANE), weights=weights, skipna=True),
    )


@pytest.mark.parametrize("region", [0, 1])
def test_fair_crps_is_that_of_scores(given: Case, region: int) -> None:
    ours, truth, weights = found(given), given.array("truth"), area(region, given.truth)
    if len(given.members) == 1:  # theirs divides by M - 1
        expected = continuous.mae(given.array("members")[0], truth, weights=weights)
    else:
        expected = probability.crps_for_ensemble(
            given.array("members"), truth, "number", method="fair", weights=weights
        )
    same(ours["fair_crps"][region], expected)


@pytest.mark.parametrize("region", [0, 1])
def test_crps_of_climatology_is_that_of_a_normal_distribution(given: Case, region: int) -> None:
    arrays = (given.array(name) for name in ("truth", "climate", "deviation"))
    theirs = xskillscore.crps_gaussian(*arrays, dim=[])
    weights = area(region, given.truth)
    same(found(given)["crps_climatology"][region], theirs.fillna(0.0).weighted(weights).mean())


@pytest.mark.parametrize("region", [0, 1])
def test_spread_is_the_unbiased_variance_with_the_finite_ensemble_correction(
    given: Case, region: int
) -> None:
    ours = found(given)
    count = len(given.members)
    if count == 1:
        assert "spread_variance" not in ours
        return
    variance = given.array("members").var("number", ddof=1).weighted(area(region, given.truth))
    same(ours["spread_variance"][region], variance.mean() * (count + 1) / count)


@pytest.mark.parametrize("region", [0, 1])
def test_nrmse_is_over_the_weighted_deviation_of_truth(given: Case, region: int) -> None:
    weighted = given.array("truth").weighted(area(region, given.truth))
    ours = found(given)
    np.testing.assert_allclose(ours["truth_variance"][region], weighted.var(), rtol=1e-6, atol=1e-9)
    if weighted.var() > 1e-20:
        same(scores(ours)["nrmse"][region], np.sqrt(ours["mse"][region]) / weighted.std())


@pytest.mark.parametrize("region", [0, 1])
def test_acc_is_the_correlation_of_anomalies_that_are_not_centred(given: Case, region: int) -> None:
    weights = area(region, given.truth).values
    a = given.mean.values - given.climate
    b = np.nan_to_num(given.truth - given.climate)
    expected = (weights * a * b).sum() / np.sqrt((weights * a * a).sum() * (weights * b * b).sum())
    same(scores(found(given))["acc"][region], expected)


def test_acc_of_anomalies_without_mean_is_pearsons() -> None:
    drawn = case("random")
    weights = area(0, drawn.truth)
    climate = xr.zeros_like(weights)
    mean, truth = (f - f.weighted(weights).mean() for f in (drawn.mean, drawn.array("truth")))
    ours = statistics(mean.values[None], truth.values, WEIGHTS, climatology=climate.values)
    same(scores(ours)["acc"][0], xskillscore.pearson_r(mean, truth, list(PLANE), weights=weights))


@pytest.mark.parametrize("region", [0, 1])
def test_rank_histogram_is_that_of_scores(given: Case, region: int) -> None:
    theirs = probability.rank_histogram(
        given.array("members"), given.array("truth"), "number", weights=area(region, given.truth)
    )
    same(rank_histogram(given.members, given.truth, WEIGHTS)[region], theirs)


def counts_of(given: Case) -> Counts:
    observed = ~np.isnan(given.truth)
    return Counts.of(given.members > THRESHOLD, given.truth > THRESHOLD, WEIGHTS, observed)


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("region", [0, 1])
def test_brier_score_is_that_of_scores(given: Case, region: int, fair: bool) -> None:
    corrected = fair and len(given.members) > 1  # theirs divides by M - 1
    theirs = probability.brier_score_for_ensemble(
        given.array("members"), given.array("truth"), "number", THRESHOLD,
        weights=area(region, given.truth), fair_correction=corrected,
        event_threshold_operator=operator.gt,
    )  # fmt: skip
    same(brier(counts_of(given))["fair_brier" if fair else "brier"][region], theirs.item())


def test_the_brier_score_is_reliability_less_resolution_plus_uncertainty(given: Case) -> None:
    made = brier(counts_of(given))
    same(made["brier"], made["reliability"] - made["resolution"] + made["uncertainty"])


@pytest.mark.parametrize("region", [0, 1])
def test_reliability_is_how_often_it_happened_at_each_probability(given: Case, region: int) -> None:
    counts = counts_of(given)
    probability_at = (given.members > THRESHOLD).mean(0)
    weights = area(region, given.truth).values
    for k, p in enumerate(counts.probabilities):
        here = np.isclose(probability_at, p) & (weights > 0)
        if not here.any():
            assert np.isnan(counts.frequencies[region, k])
            continue
        share = np.average(given.truth[here] > THRESHOLD, weights=weights[here])
        same(counts.frequencies[region, k], share)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "constant fields"])
@pytest.mark.parametrize("region", [0, 1])
def test_roc_is_that_of_scores(kind: str, region: int) -> None:
    given = case(kind)
    if kind == "large numbers":
        given = Case(given.members / 5.5e4 - 0.6, given.truth / 5.5e4 - 0.6, *[given.climate] * 2)
    observed = ~np.isnan(given.truth)
    probabilities = xr.DataArray((given.members > THRESHOLD).mean(0), dims=PLANE)
    happened = xr.DataArray(np.where(observed, given.truth > THRESHOLD, np.nan), dims=PLANE)
    count = len(given.members)
    steps = (np.arange(1, count + 1) - 0.5) / count
    theirs = probability.roc_curve_data(
        probabilities, happened, [0.0, *steps], weights=area(region, given.truth)
    )
    false_alarms, hits, under = roc(counts_of(given))
    same(hits[region], theirs["POD"].values[::-1])
    same(false_alarms[region], theirs["POFD"].values[::-1])
    same(under[region], theirs["AUC"])


def test_an_event_that_always_or_never_happens_has_no_skill_and_no_roc() -> None:
    made = case("constant fields")
    assert np.isnan(brier(counts_of(made))["brier_skill"]).all()
    assert np.isnan(roc(counts_of(made))[2]).all()


def test_a_region_without_any_truth_has_no_score() -> None:
    drawn = case("random")
    truth = np.where(WEIGHTS.cells[1] > 0, np.nan, drawn.truth)
    ours = statistics(drawn.members, truth, WEIGHTS)
    assert all(np.isnan(value[1]) and np.isfinite(value[0]) for value in ours.values())
    assert np.isnan(rank_histogram(drawn.members, truth, WEIGHTS)[1]).all()


def test_delta_of_a_reliable_ensemble_of_independent_cases_is_one() -> None:
    rng = np.random.default_rng(0)
    deltas = []
    for _ in range(400):
        members, truth = rng.normal(size=(4, *SHAPE)), rng.normal(size=SHAPE)
        ranks = (members < truth).sum(0)
        shares = np.bincount(ranks.ravel(), minlength=5) / truth.size
        deltas.append(float(delta(shares, truth.size)))
    assert np.mean(deltas) == pytest.approx(1.0, abs=0.12)


def test_a_flat_histogram_is_even_and_a_biased_one_is_not() -> None:
    flat, high = np.full(5, 0.2), np.array([0.0, 0, 0, 0, 1.0])
    assert (unevenness(flat), delta(flat, 100), outliers(flat)) == pytest.approx((0, 0, 1))
    assert unevenness(high) == pytest.approx(2.0)
    assert delta(high, 100) == pytest.approx(100.0)
    assert outliers(high) == pytest.approx(2.5)
