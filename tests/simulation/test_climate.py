"""The shipped normalisation, and how near the simulated climate is to the Earth's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.record import RESULTS
from benchmarks.simulated_climate import TOLERANCES, drift
from mosaic_core.channels import ERA5_82
from mosaic_core.grid import LatLonGrid
from mosaic_core.simulation.climate import NORMALISATION, Moments, kinetic_energy, slope
from mosaic_core.simulation.model import FIELDS, Model, perturb
from mosaic_core.simulation.planet import find_planet


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
    # the tropopause is colder than the Earth's and now and then moist: docs/simulation.md
    high = {("specific_humidity", p) for p in (100, 150, 200)}
    high |= {("temperature", p) for p in (150, 200, 250)}
    plain = np.array([(c.variable, c.level) not in high for c in ERA5_82])
    assert shift[plain].max() < 0.75
    assert shift[~plain].max() < 1.5
    assert ratio[plain].min() > 0.2
    assert ratio[plain].max() < 1.5
    assert ratio[~plain].max() < 10


@pytest.mark.parametrize("truncation", [31, 42])
def test_the_recorded_year_does_not_drift(truncation: int) -> None:
    year = recorded(f"simulated_climate_T{truncation}")
    assert year["days"] == 365
    for name, (tolerance, _) in TOLERANCES.items():
        found = year["drift"][name]
        assert abs(found["apart"]) <= tolerance == found["tolerance"], name


def test_recorded_spectra_and_jets_are_those_of_an_atmosphere() -> None:
    """At T31 wavenumber 30 is the damped edge of the model, so only T42 can be judged there."""
    year = recorded("simulated_climate_T42")
    for slope_of_level in year["slopes"]["10-30"].values():
        assert -4 < slope_of_level < -2.5
    for jet in year["jets_250"].values():
        assert 25 < jet["wind"] < 45
        assert 30 < abs(jet["latitude"]) < 55


def test_drift_is_found_where_there_is_one() -> None:
    steady = dict.fromkeys(TOLERANCES, [100.0] * 40)
    assert all(found["within"] for found in drift(steady).values())
    rising = list(np.linspace(100, 112, 40))
    found = drift(steady | {"t850": rising, "kinetic_energy": rising})
    assert not found["t850"]["within"]
    assert not found["kinetic_energy"]["within"]


def test_kinetic_energy_is_half_the_mean_square_of_the_wind() -> None:
    model = Model(find_planet("held-suarez"), 21)
    current = np.zeros((22, 2, FIELDS, 23), np.float32)
    perturb(model, current, 5, amplitude=3.0, largest=10)
    assert kinetic_energy(current) == pytest.approx(4.5, rel=1e-5)


def recorded(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text())["result"])


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
