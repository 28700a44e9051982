"""The shipped normalisation, and how near the simulated climate is to the Earth's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mosaic_core.channels import ERA5_82
from mosaic_core.grid import LatLonGrid
from mosaic_core.simulation.climate import NORMALISATION, Moments, slope


def test_normalisation_has_every_channel() -> None:
    with np.load(NORMALISATION) as stored:
        assert tuple(stored["channels"]) == ERA5_82.names
        for name in ("state_mean", "state_std", "residual_mean", "residual_std"):
            assert stored[name].shape == (82,)
            assert np.isfinite(stored[name]).all()
        assert (stored["state_std"] > 0).all()
        assert (stored["residual_std"] > 0).all()
        assert (stored["residual_std"] < stored["state_std"]).all()


def test_climate_is_near_the_earths(shared_data: Path) -> None:
    folder = shared_data / "states" / "era5_channel_stats"
    with (
        np.load(NORMALISATION) as ours,
        np.load(folder / "normalize_mean.npz") as mean,
        np.load(folder / "normalize_std.npz") as std,
    ):
        theirs = np.array([std[n].item() for n in ERA5_82.names])
        shift = ours["state_mean"] - np.array([mean[n].item() for n in ERA5_82.names])
        shift, ratio = np.abs(shift) / theirs, ours["state_std"] / theirs
    # humidity about the tropopause follows the simulated temperature there: docs/simulation.md
    tropopause = {"specific_humidity_100", "specific_humidity_150", "specific_humidity_200"}
    plain = np.array([name not in tropopause for name in ERA5_82.names])
    assert shift[plain].max() < 0.75
    assert shift[~plain].max() < 3
    assert ratio[plain].min() > 0.2
    assert ratio[plain].max() < 1.5


def test_moments_are_area_weighted() -> None:
    grid = LatLonGrid.with_poles(8, 5)
    moments = Moments(grid)
    values = np.random.default_rng(0).normal(3, 2, (4, 1, 5, 8)).astype(np.float32)
    for state in values:
        moments.add(state)
    weights = np.broadcast_to(grid.latitude_weights[:, None], (4, 1, 5, 8))
    mean = np.average(values, weights=weights)
    assert moments.mean[0] == pytest.approx(mean, rel=1e-6)
    spread = np.sqrt(np.average((values - mean) ** 2, weights=weights))
    assert moments.std[0] == pytest.approx(spread, rel=1e-6)


def test_slope_of_a_power_law_is_its_exponent() -> None:
    energy = np.arange(0, 50, dtype=float)
    energy[1:] **= -3.0
    assert slope(energy, 10, 30) == pytest.approx(-3)
