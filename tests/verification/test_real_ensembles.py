"""Scores of real ensembles: those that were published for them, or that public packages give."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray as xr

from mosaic_core.grid import LatLonGrid
from mosaic_core.verification.events import Counts, brier, roc
from mosaic_core.verification.ranks import outliers, unevenness
from mosaic_core.verification.regions import Region, Weights
from mosaic_core.verification.statistics import scores, statistics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import xskillscore
    from scores import probability


@pytest.fixture(scope="session")
def folder(shared_data: Path) -> Path:
    return shared_data / "ensembles"


def alike(count: int) -> Weights:
    """Places that count alike, as a grid of one column."""
    return Weights(("all",), np.full((1, count), 1 / count), np.ones((1, 1)))


MEPS = {  # lead hours: number, bias, RMSE, spread without correction, CRPS, fair CRPS
    0: (780, -0.496, 1.258, 0.483, 0.7878, 0.7621),
    3: (830, -0.469, 1.467, 0.526, 0.9047, 0.8779),
    6: (752, -0.504, 1.321, 0.615, 0.8142, 0.7843),
    9: (824, -0.642, 1.416, 0.564, 0.9220, 0.8947),
    12: (806, -0.604, 1.321, 0.593, 0.8583, 0.8295),
}
"""2 m temperature of MEPS at stations, as the data's README has it."""


@pytest.mark.parametrize("hours", MEPS)
def test_two_metre_temperature_of_meps_at_stations(folder: Path, hours: int) -> None:
    with (folder / "meps_t2m_2019021700_synop.csv").open() as file:
        table = list(csv.DictReader(file))
    lead = next(name for name in table[0] if "lead" in name)
    observed = "obs_t2m_K"
    rows = [row for row in table if float(row[lead]) == hours]
    names = sorted(name for name in rows[0] if name.startswith("mbr"))
    members = np.array([[[float(row[name])] for row in rows] for name in names])
    truth = np.array([[float(row[observed])] for row in rows])
    count, bias, rmse, deviation, crps, fair = MEPS[hours]
    assert members.shape == (10, count, 1)
    made = statistics(members, truth, alike(count))
    found = scores(made)
    assert found["bias"].item() == pytest.approx(bias, abs=6e-4)
    assert found["rmse"].item() == pytest.approx(rmse, abs=6e-4)
    assert found["spread"].item() == pytest.approx(deviation * np.sqrt(11 / 10), abs=6e-4)
    assert found["fair_crps"].item() == pytest.approx(fair, abs=6e-5)
    pairs = np.abs(members[:, None] - members[None]).mean((0, 1)).mean()
    # the form with M squared has a tenth of the members' mean distance more
    assert found["fair_crps"].item() + pairs / 18 == pytest.approx(crps, abs=6e-5)


def test_probability_of_rain_at_niamey(folder: Path) -> None:
    with (folder / "precip_Niamey_2016.csv").open() as file:
        table = list(csv.DictReader(file))
    forecast = np.array([float(row["ENS"]) for row in table])
    happened = np.array([row["obs"] == "1" for row in table])
    votes = np.rint(forecast * 52)
    np.testing.assert_allclose(votes / 52, forecast, atol=1e-6)
    members = (np.arange(52)[:, None] < votes)[..., None]
    counts = Counts.of(members, happened[:, None], alike(len(table)))
    expected = xskillscore.brier_score(
        xr.DataArray(happened.astype(float), dims="day"), xr.DataArray(forecast, dims="day")
    )
    made = brier(counts)
    assert made["brier"].item() == pytest.approx(expected.item(), abs=1e-6)
    assert made["uncertainty"].item() == pytest.approx(happened.var(), abs=1e-9)
    assert made["brier_skill"].item() < 0  # raw rain of an ensemble is overconfident there
    under = probability.roc_curve_data(
        xr.DataArray(votes / 52, dims="day"), xr.DataArray(happened.astype(float), dims="day"),
        [0.0, *((np.arange(52) + 0.5) / 52)],
    )["AUC"]  # fmt: skip
    assert roc(counts)[2].item() == pytest.approx(under.item(), abs=1e-9)


def test_members_of_era5_against_one_of_them(folder: Path) -> None:
    fields: dict[tuple[str, int], dict[int, np.ndarray]] = {}
    with (folder / "era5-levels-members.grib").open("rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            if eccodes.codes_get(message, "dataDate") == 20170102:
                key = eccodes.codes_get(message, "shortName"), eccodes.codes_get(message, "level")
                shape = (eccodes.codes_get(message, "Nj"), eccodes.codes_get(message, "Ni"))
                values = eccodes.codes_get_values(message).reshape(shape)[::-1]
                fields.setdefault(key, {})[eccodes.codes_get(message, "number")] = values
            eccodes.codes_release(message)
    assert set(fields) == {(name, level) for name in "zt" for level in (500, 850)}
    grid = LatLonGrid.with_poles(120, 61)
    weights = Weights.of(grid, {"global": Region()})
    area = xr.DataArray(weights.cells[0], dims=("latitude", "longitude"))
    for each in fields.values():
        members, truth = np.stack([each[i] for i in range(1, 10)]), each[0]
        found = scores(statistics(members, truth, weights))
        ensemble = xr.DataArray(members, dims=("number", *area.dims))
        actual = xr.DataArray(truth, dims=area.dims)
        crps = probability.crps_for_ensemble(
            ensemble, actual, "number", method="fair", weights=area
        )
        rmse = xskillscore.rmse(ensemble.mean("number"), actual, list(area.dims), weights=area)
        assert found["fair_crps"].item() == pytest.approx(crps.item(), rel=1e-6)
        assert found["rmse"].item() == pytest.approx(rmse.item(), rel=1e-6)
        assert found["spread_skill"].item() > 1.2  # the control lies near the centre of the members


def test_the_published_spread_over_skill_of_gencast_has_the_correction_that_ours_has(
    folder: Path,
) -> None:
    path = folder / "published_gencast_1deg" / "test-multistep=10-era5_ensemble_metrics.nc"
    with xr.open_dataset(path, decode_timedelta=False) as published:
        for name in published:
            kept = {
                str(m): published[name].sel(metric=m).values for m in published["metric"].values
            }
            spread = kept["var"] * 51 / 50
            means = {"mse": kept["mse"], "bias": kept["mse"], "mae": kept["mse"],
                     "fair_crps": kept["fcrps"], "spread_variance": spread}  # fmt: skip
            np.testing.assert_allclose(scores(means)["spread_skill"], kept["spskr"], rtol=1e-6)


def test_rank_histograms_of_gencast_are_flatter_at_day_ten_than_the_worst(folder: Path) -> None:
    path = folder / "published_gencast_1deg" / "test-multistep=10-era5_rank_histogram_50_members.nc"
    with xr.open_dataset(path, decode_timedelta=False) as published:
        shares = published["geopotential"].sel(level=500).isel(metric=0).values.astype(float) / 51
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-6)
    assert (unevenness(shares) < 0.35).all()
    np.testing.assert_allclose(
        outliers(shares), (shares[:, 0] + shares[:, -1]) * 51 / 2, rtol=1e-12
    )


def test_the_mjo_index_of_geos(folder: Path) -> None:
    """RMM1 of 4 members from 510 starts; observed values are missing for none of their days."""
    with (
        xr.open_dataset(folder / "GMAO-GEOS-V2p1.RMM1.nc", decode_times=False) as forecast,
        xr.open_dataset(
            folder / "RMM1.observed.interannual.1974-06.2017-07.nc", decode_times=False
        ) as observed,
    ):
        index = forecast["RMM1"].transpose("M", "S", "L").values.astype(float)
        starts, leads = forecast["S"].values, forecast["L"].values
        days, values = observed["time"].values, observed["rmm1"].values
    epochs = np.datetime64("1974-06-03") - np.datetime64("1960-01-01")
    valid = starts[:, None] + leads - 0.5 - epochs.astype(int)
    truth = values[np.searchsorted(days, valid)]
    assert np.isfinite(truth).all()
    rmse = []
    for lead in (0, 10, 20):
        members, actual = index[:, :, lead, None], truth[:, lead, None]
        kept = np.isfinite(members).all((0, 2))
        members, actual = members[:, kept], actual[kept]
        found = scores(statistics(members, actual, alike(int(kept.sum()))))
        crps = probability.crps_for_ensemble(
            xr.DataArray(members[..., 0], dims=("number", "start")),
            xr.DataArray(actual[..., 0], dims="start"), "number", method="fair",
        )  # fmt: skip
        assert found["fair_crps"].item() == pytest.approx(crps.item(), rel=1e-6)
        rmse.append(found["rmse"].item())
    assert rmse[0] < rmse[1] < rmse[2]
