"""The loss in spectral space."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mosaic_core.channels import Channels
from mosaic_core.grid import LatLonGrid
from mosaic_core.spectral import SphericalHarmonics
from mosaic_core.training.loss import fair_crps
from mosaic_core.training.spectrum import SpectralLoss, Transform

GRID = LatLonGrid.with_poles(24, 13)


def fields(*shape: int) -> torch.Tensor:
    """Random fields (..., longitude, latitude, channel) within the grid's truncation."""
    harmonics = SphericalHarmonics(GRID)
    rough = np.random.default_rng(3).normal(size=(*shape, GRID.nlat, GRID.nlon))
    smooth = harmonics.synthesis(harmonics.analysis(rough))
    return torch.from_numpy(np.moveaxis(smooth, (-1, -2, -3), (-3, -2, -1)).copy())


def channels(count: int) -> Channels:
    return Channels.parse(("geopotential_500", "temperature_850", "2m_temperature")[:count])


def test_coefficients_are_those_of_the_harmonics() -> None:
    given = fields(2, 3)
    found = Transform(GRID, channels(3)).double()(given)
    harmonics = SphericalHarmonics(GRID)
    wanted = harmonics.analysis(given.numpy().transpose(0, 3, 2, 1))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_winds_become_vorticity_and_divergence_in_their_places() -> None:
    names = (
        "v_component_of_wind_850", "geopotential_500", "10m_u_component_of_wind",
        "u_component_of_wind_850", "10m_v_component_of_wind", "u_component_of_wind_250",
    )  # fmt: skip
    given = fields(2, 6)
    found = Transform(GRID, Channels.parse(names)).double()(given).numpy()
    harmonics, maps = SphericalHarmonics(GRID), given.numpy().transpose(0, 3, 2, 1)
    for u, v in ((3, 0), (2, 4)):
        vorticity, divergence = harmonics.vorticity_divergence(maps[:, u], maps[:, v])
        np.testing.assert_allclose(found[:, u], vorticity, atol=1e-6 * np.abs(vorticity).max())
        np.testing.assert_allclose(found[:, v], divergence, atol=1e-6 * np.abs(divergence).max())
    for alone in (1, 5):
        np.testing.assert_allclose(found[:, alone], harmonics.analysis(maps[:, alone]), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_members_that_are_the_truth_cost_nothing(count: int) -> None:
    truth = fields(2, 3).float()
    loss = SpectralLoss(GRID, channels(3), torch.ones(3, 12), torch.ones(3))
    members = truth.expand(count, *truth.shape)
    assert float(loss(members, truth)) == pytest.approx(0, abs=1e-6)


def test_every_wavenumber_weighs_the_same_in_units_of_its_own_scale() -> None:
    """An error of one scale at l = 2 costs what one of its scale costs at l = 9."""
    harmonics = SphericalHarmonics(GRID)
    size = harmonics.truncation + 1
    scale = torch.ones(1, size)
    scale[0, 9] = 0.1
    loss = SpectralLoss(GRID, channels(1), scale, torch.ones(1))
    truth = torch.zeros(1, GRID.nlon, GRID.nlat, 1)
    costs = []
    for ell in (2, 9):
        wave = np.zeros((size, size), complex)
        wave[1 : ell + 1, ell] = float(scale[0, ell])
        wave[0, ell] = float(scale[0, ell])
        field = torch.from_numpy(harmonics.synthesis(wave).T.copy()).float()
        costs.append(float(loss(field[None, None, :, :, None], truth)))
    # the real part of each order is in error, the imaginary part is not
    assert costs[0] == pytest.approx(costs[1], rel=1e-4)
    assert costs[0] == pytest.approx(1 / size / 2, rel=1e-4)


def test_an_error_alike_everywhere_costs_by_the_scale_of_the_mean() -> None:
    """An error that is the same everywhere belongs to one coefficient, of a small scale."""
    truth = fields(1, 1).float()
    scale = torch.ones(1, 12)
    scale[0, 0] = 0.05
    loss = SpectralLoss(GRID, channels(1), scale, torch.ones(1))
    pair = torch.stack((truth + 1, truth - 1))
    assert float(fair_crps(pair, truth).mean()) == pytest.approx(0, abs=1e-6)
    assert float(loss(pair, truth)) == pytest.approx(0, abs=1e-5)
    same_side = torch.stack((truth + 1, truth + 0.5))
    assert float(fair_crps(same_side, truth).mean()) == pytest.approx(0.5, rel=1e-4)
    assert float(loss(same_side, truth)) == pytest.approx(0.5 / 0.05 / 12 / 2, rel=1e-3)
