"""Scores of a published store are those that WeatherBench-X defines.

The files are joined as docs/verification.md tells users of that package, and evaluated by its
definitions, written down here anew: `GridAreaWeighting` (weighting.py), `Error`, `AbsoluteError`,
`RMSE` (metrics/deterministic.py), `CRPSEnsemble`, `EnsembleRootMeanVariance` and
`UnbiasedSpreadSkillRatio` (metrics/probabilistic.py), each a function of weighted means over
initial times, latitudes and longitudes (`Aggregator`, aggregation.py).
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mosaic_core.pipeline.run import run_cycle
from mosaic_core.pipeline.verification import verify_due
from tests.pipeline.world import VARIANT, World, analyses, plain, write_source
from tests.verification.conftest import CYCLES, site_of
from tests.verification.test_due import told

MEMBERS = 5
LEADS = (6, 12)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three cycles of five members, verified as far as they have come true."""
    world = World(tmp_path_factory.mktemp("weatherbench"))
    world.write(members=MEMBERS)
    write_source(world.source, analyses(count=6))
    site = site_of(world)
    for cycle in CYCLES:
        run_cycle(site, cycle)
    assert not verify_due(site, CYCLES[-1]).failed
    site.catalog.close()
    return world


def joined(store: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Members by `init_time` and `lead_time`, truth by `valid_time`, of the files as they lie."""
    cycles = sorted(Path(store, f"forecasts/v1/{VARIANT}").glob("????/??/??/??Z/ensemble.zarr"))
    opened = [xr.open_zarr(path, chunks=None).drop_vars("valid_time") for path in cycles]
    members = xr.concat(opened, "init_time")
    times = sorted(Path(store, "analyses/v1/made-up").glob("????/??/??/*.zarr"))
    truth = xr.concat([xr.open_zarr(path, chunks=None) for path in times], "valid_time")
    return members, truth


def areas(latitudes: np.ndarray) -> np.ndarray:
    """Weights of rows: sine of the upper bound less that of the lower; poles bound the last."""
    middle = np.deg2rad(latitudes)
    between = (middle[1:] + middle[:-1]) / 2
    step = np.diff(middle)
    first = max(middle[0] - step[0] / 2, -np.pi / 2)
    last = min(middle[-1] + step[-1] / 2, np.pi / 2)
    bounds = np.concatenate([[first], between, [last]])
    return np.diff(np.sin(bounds))


def evaluate(members: xr.DataArray, truth: xr.DataArray) -> dict[str, float]:
    """Metrics by WeatherBench-X's names: (init_time, number, ...) and (init_time, ...)."""
    weights = xr.DataArray(areas(members["latitude"].values), dims="latitude")

    def mean(statistic: xr.DataArray) -> float:
        over = ("init_time", "latitude", "longitude")
        return float(
            (statistic * weights).sum(over) / (xr.ones_like(statistic) * weights).sum(over)
        )

    error = members.mean("number") - truth
    variance, squared = mean(members.var("number", ddof=1)), mean(error**2)
    count = members.sizes["number"]
    pairs = itertools.permutations(range(count), 2)
    apart = sum(abs(members.isel(number=i) - members.isel(number=j)) for i, j in pairs)
    skill = mean(abs(members - truth).mean("number"))
    unbiased = mean(error**2 - members.var("number", ddof=1) / count)
    return {
        "Bias": mean(error),
        "MAE": mean(abs(error)),
        "RMSE": squared**0.5,
        "CRPSEnsemble": skill - 0.5 * mean(apart) / (count * (count - 1)),
        "EnsembleRootMeanVariance": variance**0.5,
        "UnbiasedSpreadSkillRatio": (variance / unbiased) ** 0.5,
    }


def by_their_names(ours: dict[str, Any]) -> dict[str, float]:
    """What `mosaic scores` gives, as WeatherBench-X has it: its spread is without (M + 1) / M, and
    its ratio takes the members' share of the error out of the error instead."""
    variance = ours["spread"] ** 2 * MEMBERS / (MEMBERS + 1)
    return {
        "Bias": ours["bias"],
        "MAE": ours["mae"],
        "RMSE": ours["rmse"],
        "CRPSEnsemble": ours["fair_crps"],
        "EnsembleRootMeanVariance": variance**0.5,
        "UnbiasedSpreadSkillRatio": (variance / (ours["rmse"] ** 2 - variance / MEMBERS)) ** 0.5,
    }


def test_scores_are_those_that_weatherbench_x_defines(evaluated: World) -> None:
    members, truth = joined(evaluated.store)
    assert members.sizes["number"] == MEMBERS
    words = ("scores", "-p", evaluated.profile, "--region", "global", "--last", "all", "--json")
    lines = [line for line in plain(told(*words))["scores"] if line["variable"] in members]
    assert {(line["variable"], line["lead_hours"]) for line in lines} == set(
        itertools.product(members.data_vars, LEADS)
    )
    for ours in lines:
        steps = ours["lead_hours"] // 6
        # Initial times whose analysis at this lead time is in the store.
        due, lead = members["init_time"][: len(CYCLES) - steps], members["lead_time"][steps - 1]
        assert ours["cycles"] == due.size
        forecast = members[ours["variable"]].sel(init_time=due, lead_time=lead)
        actual = truth[ours["variable"]].sel(valid_time=due + lead)
        if ours["level"]:
            forecast, actual = (each.sel(level=ours["level"]) for each in (forecast, actual))
        theirs = evaluate(forecast.astype(np.float64).load(), actual.astype(np.float64).load())
        assert theirs["EnsembleRootMeanVariance"] > 0
        assert by_their_names(ours) == pytest.approx(theirs, rel=1e-6), ours
