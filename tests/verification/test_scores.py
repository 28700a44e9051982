from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_core.channels import Channels
from mosaic_core.errors import AnalysisRejected, ConfigurationError, ForecastError
from mosaic_core.grid import LatLonGrid
from mosaic_core.verification.climatology import Climatology
from mosaic_core.verification.crps import normal_crps
from mosaic_core.verification.members import Members
from mosaic_core.verification.ranks import rank_histogram
from mosaic_core.verification.regions import REGIONS, Region, Weights
from mosaic_core.verification.scores import score
from mosaic_core.verification.statistics import Average, scores, statistics

GRID = LatLonGrid.with_poles(72, 37)
GLOBE = Weights.of(GRID, {"global": Region()})
SHAPE = (GRID.nlat, GRID.nlon)


def drawn(seed: int, count: int, channels: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Members and truth of one distribution, (number, channel, latitude, longitude)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, channels, *SHAPE)), rng.normal(size=(channels, *SHAPE))


def over_channels(made: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value.mean()) for name, value in made.items()}


UNEVEN = LatLonGrid((0.0, 90.0, 200.0), (-60.0, 10.0, 50.0))


@pytest.mark.parametrize("grid", [GRID, LatLonGrid.with_poles(240, 121), UNEVEN])
def test_weights_of_the_globe_add_up_to_the_area(grid: LatLonGrid) -> None:
    weights = Weights.of(grid)
    areas = dict(zip(weights.names, weights.areas, strict=True))
    assert areas["global"] == pytest.approx(1.0, abs=1e-12)
    cap = (1 - np.sin(np.deg2rad(20))) / 2
    assert areas["northern-extratropics"] == pytest.approx(cap, abs=1e-12)
    assert areas["southern-extratropics"] == pytest.approx(cap, abs=1e-12)
    assert areas["tropics"] == pytest.approx(1 - 2 * cap, abs=1e-12)
    np.testing.assert_allclose(weights.cells.sum((1, 2)), weights.areas, rtol=1e-12)


def test_weights_of_rows_are_those_of_the_grid() -> None:
    rows = GLOBE.cells[0].sum(1)
    np.testing.assert_allclose(rows / rows.mean(), GRID.latitude_weights, rtol=1e-12)


@pytest.mark.parametrize("grid", [GRID, LatLonGrid.with_poles(240, 121), UNEVEN])
def test_weights_are_those_of_weatherbench(grid: LatLonGrid) -> None:
    """Difference of the sine between midpoints of latitudes, the poles at the ends, over the mean
    (Rasp et al. 2024)."""
    latitude = np.deg2rad(grid.latitudes)
    middle = (latitude[:-1] + latitude[1:]) / 2
    bounds = np.concatenate([[-np.pi / 2], middle, [np.pi / 2]])
    expected = np.diff(np.sin(bounds))
    rows = Weights.of(grid, {"global": Region()}).rows[0]
    np.testing.assert_allclose(rows / rows.mean(), expected / expected.mean(), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    south=st.floats(-90, 80), height=st.floats(1, 170), west=st.floats(-360, 360),
    width=st.floats(1, 360),
)  # fmt: skip
def test_a_box_has_its_area_wherever_it_lies(
    south: float, height: float, west: float, width: float
) -> None:
    north = min(90.0, south + height)
    weights = Weights.of(GRID, {"box": Region(south, north, west, west + width)})
    share = (np.sin(np.deg2rad(north)) - np.sin(np.deg2rad(south))) / 2 * width / 360
    assert weights.areas[0] == pytest.approx(share, abs=1e-9)


def test_means_take_only_the_region() -> None:
    field = np.zeros(SHAPE)
    field[np.array(GRID.latitudes) > 25] = 2.0
    means = dict(zip(REGIONS, Weights.of(GRID).mean(field), strict=True))
    assert means["southern-extratropics"] == means["tropics"] == 0
    assert 1.5 < means["northern-extratropics"] < 2


@pytest.mark.parametrize(
    "bad", [(10, 10, 0, 360), (20, -20, 0, 360), (-95, 0, 0, 360), (0, 10, 5, 5)]
)
def test_a_region_that_is_none_is_refused(bad: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match="region"):
        Region(*bad)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 9), seed=st.integers(0, 1000), ties=st.booleans())
def test_fair_crps_is_the_mean_over_pairs(count: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    members, truth = rng.normal(size=(count, 3, 4)), rng.normal(size=(3, 4))
    if ties:
        members, truth = members.round(), truth.round()
    pairs = np.abs(members[:, None] - members[None]).sum((0, 1)) / (2 * count * (count - 1))
    expected = np.abs(members - truth).mean(0) - pairs
    np.testing.assert_allclose(Members.of(members, truth).crps, expected, atol=1e-12)


@pytest.mark.parametrize("count", [2, 5, 16])
def test_a_calibrated_normal_ensemble_has_the_scores_of_theory(count: int) -> None:
    made = over_channels(statistics(*drawn(count, count), GLOBE))
    assert made["fair_crps"] == pytest.approx(1 / np.sqrt(np.pi), rel=0.01)
    assert made["spread_variance"] == pytest.approx((count + 1) / count, rel=0.02)
    assert made["mse"] == pytest.approx((count + 1) / count, rel=0.02)
    assert made["mae"] == pytest.approx(np.sqrt(2 / np.pi * (count + 1) / count), rel=0.02)
    assert abs(made["bias"]) < 0.01
    assert scores(statistics(*drawn(count, count), GLOBE))["spread_skill"].mean() == pytest.approx(
        1, rel=0.02
    )


def test_an_ensemble_too_narrow_is_seen_as_such() -> None:
    members, truth = drawn(1, 8)
    found = scores(over_channels_kept(statistics(0.5 * members, truth, GLOBE)))
    assert found["spread_skill"] == pytest.approx(np.sqrt(0.25 * 9 / 8 / (1 + 0.25 / 8)), rel=0.02)


def over_channels_kept(made: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.mean() for name, value in made.items()}


def test_one_member_has_no_spread_and_its_crps_is_its_error() -> None:
    members, truth = drawn(0, 1, 2)
    made = statistics(members, truth, GLOBE)
    assert "spread_variance" not in made
    np.testing.assert_allclose(made["fair_crps"], made["mae"])
    assert "spread" not in scores(made)


@pytest.mark.parametrize("z", [-2.0, 0.0, 0.7])
def test_normal_crps_is_the_limit_of_many_members(z: float) -> None:
    members = 3.0 + 2.0 * np.random.default_rng(0).normal(size=(4000, 50))
    truth = np.full(50, 3.0 + 2.0 * z)
    found = normal_crps(np.full(50, 3.0), np.full(50, 2.0), truth)
    assert Members.of(members, truth).crps.mean() == pytest.approx(found[0], rel=0.02)


def test_normal_crps_without_deviation_is_the_error() -> None:
    assert normal_crps(np.array([1.0]), np.array([0.0]), np.array([4.0]))[0] == 3.0


def test_climatology_as_forecast_has_no_skill_and_truth_has_all() -> None:
    rng = np.random.default_rng(3)
    mean, deviation = np.zeros((30, *SHAPE)), np.full((30, *SHAPE), 2.0)
    members, truth = 2.0 * rng.normal(size=(10, 30, *SHAPE)), 2.0 * rng.normal(size=(30, *SHAPE))
    made = statistics(members, truth, GLOBE, climatology=mean, deviation=deviation)
    random = scores(over_channels_kept(made))
    assert random["crpss"] == pytest.approx(0, abs=0.02)
    assert random["acc"] == pytest.approx(0, abs=0.02)
    assert random["to_climatology"] == pytest.approx(np.sqrt(1.1), rel=0.01)
    exact = np.repeat(truth[None], 3, axis=0)
    perfect = scores(statistics(exact, truth, GLOBE, climatology=mean, deviation=deviation))
    np.testing.assert_allclose(perfect["crpss"], 1.0)
    np.testing.assert_allclose(perfect["acc"], 1.0)


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.8])
def test_anomaly_correlation_is_that_of_the_fields(correlation: float) -> None:
    rng = np.random.default_rng(4)
    mean = 100 * rng.normal(size=(40, *SHAPE))
    truth = rng.normal(size=(40, *SHAPE))
    other = rng.normal(size=(40, *SHAPE))
    forecast = correlation * truth + np.sqrt(1 - correlation**2) * other
    made = statistics((mean + 3 * forecast)[None], mean + truth, GLOBE, climatology=mean)
    assert scores(over_channels_kept(made))["acc"] == pytest.approx(correlation, abs=0.02)


def test_persistence_is_compared_by_its_error() -> None:
    members, truth = drawn(5, 4, 2)
    made = scores(statistics(members, truth, GLOBE, persistence=truth + 2.0))
    expected = made["rmse"] / 2.0
    np.testing.assert_allclose(made["to_persistence"], expected)


def test_rank_histogram_is_flat_for_a_calibrated_ensemble() -> None:
    members, truth = drawn(6, 9)
    found = rank_histogram(members, truth, GLOBE)[:, 0].mean(0)
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, 0.1, atol=0.004)


def test_rank_histogram_sees_a_biased_ensemble_and_shares_ties() -> None:
    members = np.zeros((3, 1, *SHAPE))
    high = rank_histogram(members, np.ones((1, *SHAPE)), GLOBE)[0, 0]
    np.testing.assert_allclose(high, [0, 0, 0, 1])
    np.testing.assert_allclose(rank_histogram(members, np.zeros((1, *SHAPE)), GLOBE)[0, 0], 0.25)


def test_scores_over_cycles_take_the_root_last() -> None:
    average = Average()
    average.add({"mse": np.array([1.0])})
    average.add({"mse": np.array([9.0])}, weight=3.0)
    assert average.means()["mse"][0] == 7.0
    with pytest.raises(ConfigurationError, match="no forecast"):
        Average().means()


def test_fields_of_another_shape_are_refused() -> None:
    members, truth = drawn(0, 2, 1)
    with pytest.raises(ConfigurationError, match="persistence"):
        statistics(members, truth, GLOBE, persistence=truth[:, :-1])


START = np.datetime64("2026-03-01T00", "ns")
LEADS = np.array([12, 24, 36], "timedelta64[h]").astype("timedelta64[ns]")


def forecast_and_truth(seed: int = 0) -> tuple[xr.Dataset, xr.Dataset]:
    rng = np.random.default_rng(seed)
    place = {"latitude": list(GRID.latitudes), "longitude": list(GRID.longitudes)}
    plane = ("latitude", "longitude")
    ensemble = ("number", "lead_time")

    def fields(*sizes: int) -> np.ndarray:
        return rng.normal(size=(*sizes, *SHAPE))

    forecast = xr.Dataset(
        {
            "temperature": ((*ensemble, "level", *plane), fields(4, 3, 2)),
            "2m_temperature": ((*ensemble, *plane), fields(4, 3)),
        },
        {
            **place,
            "level": [500, 850],
            "number": [1, 2, 3, 4],
            "lead_time": LEADS,
            "init_time": START,
        },
    )
    truth = xr.Dataset(
        {
            "2m_temperature": (("valid_time", *plane), fields(2)),
            "temperature": (("valid_time", "level", *plane), fields(2, 3)),
        },
        {**place, "level": [300, 500, 850], "valid_time": START + LEADS[[0, 2]]},
    )
    return forecast, truth


def test_scores_are_by_variable_level_lead_time_and_region() -> None:
    forecast, truth = forecast_and_truth()
    found = score(forecast, truth)
    names = ["temperature_500", "temperature_850", "2m_temperature"]
    assert list(found["variable"].values) == names
    assert list(found["lead_time"].values) == [LEADS[0], LEADS[2]]
    assert list(found["region"].values) == list(REGIONS)
    error = forecast["temperature"].sel(level=850).isel(lead_time=2).mean("number").values
    error = error - truth["temperature"].sel(level=850).isel(valid_time=1).values
    weights = np.broadcast_to(GRID.latitude_weights[:, None], SHAPE)
    expected = np.sqrt(np.average(error**2, weights=weights))
    one = found["rmse"].sel(variable="temperature_850", region="global", lead_time=LEADS[2])
    assert float(one) == pytest.approx(expected, rel=1e-12)
    assert found["acc"].isnull().all()


def test_references_are_taken_where_they_are_given() -> None:
    forecast, truth = forecast_and_truth()
    channels = Channels.parse(["2m_temperature", "temperature_500", "temperature_850"])
    shape = (3, *SHAPE)
    climate = Climatology(GRID, channels, np.zeros(shape), np.ones(shape), {})
    found = score(forecast, truth, persistence=truth.isel(valid_time=0), climatology=climate)
    assert np.isfinite(found["crpss"]).all()
    ratio = found["to_climatology"].sel(region="global").mean()
    assert float(ratio) == pytest.approx(np.sqrt(1.25), abs=0.02)
    assert np.isinf(found["to_persistence"].isel(lead_time=0)).all()


def test_values_that_are_not_finite_are_named() -> None:
    forecast, truth = forecast_and_truth()
    broken = forecast.copy(deep=True)
    broken["temperature"][2, 0, 1, 3, 4] = np.nan
    with pytest.raises(ForecastError, match="temperature_850 of the forecast"):
        score(broken, truth)
    broken = truth.copy(deep=True)
    broken["2m_temperature"][1, 0, 0] = np.inf
    with pytest.raises(AnalysisRejected, match="2m_temperature of the truth"):
        score(forecast, broken)


def test_truth_may_have_gaps_where_it_is_said_so() -> None:
    forecast, truth = forecast_and_truth()
    truth["2m_temperature"][1, :10] = np.nan
    with pytest.raises(AnalysisRejected, match="2m_temperature of the truth"):
        score(forecast, truth)
    found = score(forecast, truth, gaps=True).sel(variable="2m_temperature", lead_time=LEADS[2])
    error = forecast["2m_temperature"].isel(lead_time=2).mean("number").values
    error = (error - truth["2m_temperature"].isel(valid_time=1).values)[10:]
    weights = np.broadcast_to(GRID.latitude_weights[10:, None], error.shape)
    expected = np.sqrt(np.average(error**2, weights=weights))
    assert float(found["rmse"].sel(region="global")) == pytest.approx(expected, rel=1e-12)
    truth["2m_temperature"][1, 0, 0] = np.inf
    with pytest.raises(AnalysisRejected, match="2m_temperature of the truth"):
        score(forecast, truth, gaps=True)


def test_a_reference_that_lacks_points_of_truth_is_refused() -> None:
    members, truth = drawn(0, 2, 1)
    persistence = truth.copy()
    persistence[0, 3, 3] = np.nan
    with pytest.raises(ConfigurationError, match="persistence is missing where truth is there"):
        statistics(members, truth, GLOBE, persistence=persistence)
    truth[0, 3, 3] = np.nan
    statistics(members, truth, GLOBE, persistence=persistence)


def test_forecasts_weigh_in_an_average_as_much_as_was_observed() -> None:
    average = Average()
    average.add({"mse": np.array([1.0, 5.0])}, np.array([0.5, 0.2]))
    average.add({"mse": np.array([3.0, np.nan])}, np.array([0.5, 0.0]))
    np.testing.assert_allclose(average.means()["mse"], [2.0, 5.0])


def test_another_grid_is_refused_not_interpolated() -> None:
    forecast, truth = forecast_and_truth()
    with pytest.raises(ConfigurationError, match=r"72 x 37 .* 36 x 37"):
        score(forecast, truth.isel(longitude=slice(None, None, 2)))
    with pytest.raises(ConfigurationError, match=r"2\.5 E"):
        score(forecast, truth.assign_coords(longitude=truth.longitude + 2.5))


def test_truth_of_other_times_or_variables_is_refused() -> None:
    forecast, truth = forecast_and_truth()
    with pytest.raises(ConfigurationError, match="no analysis for the valid times"):
        score(forecast, truth.assign_coords(valid_time=truth.valid_time + LEADS[2] * 10))
    with pytest.raises(ConfigurationError, match="in common"):
        score(forecast, truth.rename({"temperature": "t", "2m_temperature": "t2m"}))
