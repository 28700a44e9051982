"""The loss: its formula, its weights, its gradient."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from mosaic_core.channels import Channels
from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.model import checkpoint as model_files
from mosaic_core.model.config import ModelConfig
from mosaic_core.training.loss import area_weights, channel_weights, fair_crps
from mosaic_core.training.objective import Objective, Statistics, window_noise
from mosaic_core.training.recipe import Phase, Recipe
from mosaic_core.training.schedule import learning_rate
from tests.training import world

SAMPLES = 60_000


def expected_crps(mean: float, deviation: float) -> float:
    """E|X - Y| - E|X - X'| / 2 for X ~ N(mean, deviation), Y ~ N(0, 1)."""
    width = math.hypot(1.0, deviation)
    folded = width * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * width**2))
    folded += mean * math.erf(mean / (width * math.sqrt(2)))
    return folded - deviation / math.sqrt(math.pi)


@pytest.mark.parametrize("members", [2, 5, 20])
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.7, 0.4)])
def test_fair_crps_has_the_expectation_of_the_distribution_for_any_ensemble_size(
    members: int, mean: float, deviation: float
) -> None:
    generator = torch.Generator().manual_seed(members)
    shape = (members, SAMPLES)
    x = mean + deviation * torch.randn(shape, generator=generator, dtype=torch.float64)
    y = torch.randn(shape[1], generator=generator, dtype=torch.float64)
    found = fair_crps(x, y)
    error = float(found.std()) / math.sqrt(len(found))
    assert float(found.mean()) == pytest.approx(expected_crps(mean, deviation), abs=4 * error)
    assert 4 * error < 0.03


@pytest.mark.parametrize("members", [1, 2, 3, 7])
def test_fair_crps_is_its_definition(members: int) -> None:
    x, y = torch.randn(members, 3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    expected = (x - y).abs().mean(0)
    if members > 1:
        between = sum((a - b).abs() for a in x for b in x)
        expected = expected - between / (2 * members * (members - 1))
    torch.testing.assert_close(fair_crps(x, y), expected, rtol=1e-12, atol=1e-12)


def test_area_weights_are_the_areas_between_rows() -> None:
    # Rows at -90, -45, 0, 45, 90: bounds at -67.5, -22.5, 22.5, 67.5.
    edges = np.sin(np.deg2rad([-90, -67.5, -22.5, 22.5, 67.5, 90]))
    area = np.array([b - a for a, b in pairwise(edges)])
    expected = torch.from_numpy(area / area.mean()).float()
    torch.testing.assert_close(area_weights(LatLonGrid.with_poles(4, 5)), expected)


def test_channel_weights_follow_pressure_and_the_factors() -> None:
    channels = Channels.parse(
        ["2m_temperature", "mean_sea_level_pressure", "temperature_500", "temperature_1000"]
    )
    raw = torch.tensor([1.0, 0.1, 500 / 750, 1000 / 750])
    found = channel_weights(channels, "pressure", {})
    torch.testing.assert_close(found, raw / raw.mean())
    doubled = torch.tensor([1.0, 1.0, 2.0, 2.0])
    found = channel_weights(channels, "uniform", {"temperature": 2.0})
    torch.testing.assert_close(found, doubled / doubled.mean())
    with pytest.raises(ConfigurationError, match="geopotential"):
        channel_weights(channels, "uniform", {"geopotential": 2.0})


def test_learning_rate_warms_up_then_falls_to_its_share() -> None:
    phase = Phase(updates=12, learning_rate=2.0, warm_up=2, final=0.1)
    rates = [learning_rate(phase, update) for update in range(12)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[7] == pytest.approx(2.0 * 0.55)  # half way down the cosine
    assert all(later < earlier for earlier, later in pairwise(rates[2:]))
    assert learning_rate(phase, 12) == pytest.approx(0.2)


def objective(folder: Path, recipe: Recipe, **changes: object) -> Objective:
    config = ModelConfig.load(str(world.model_file(folder, **changes)))
    count = len(config.channel_set)
    generator = torch.Generator().manual_seed(1)
    mean, std = torch.arange(count) + 1.0, torch.rand(count, generator=generator) + 1.0
    change = 0.5 * torch.rand(count, generator=generator) + 0.2
    static = torch.randn(*config.lat_lon.shape, 1, generator=generator)
    file = model_files.untrained(config, mean, std, static)
    model = model_files.load_model(
        config, file, model_files.version_of(config, file), torch.device("cpu")
    )
    network = model.network.train().requires_grad_(True)
    return Objective(network, Statistics(mean, std, change), recipe)


@pytest.mark.parametrize(
    ("predicts", "recompute"), [("change", False), ("change", True), ("state", False)]
)
def test_gradients_of_the_loss_are_those_of_finite_differences(
    site: Path, predicts: str, recompute: bool
) -> None:
    recipe = world.recipe(site, recompute=recompute, channel_weights="pressure")
    module = objective(site, recipe, predicts=predicts).double()
    windows, members, steps = 1, 2, 2
    config = module.network.config
    shape = (*config.lat_lon.shape, len(config.channel_set))
    generator = torch.Generator().manual_seed(2)
    history = torch.randn(windows, 2, *shape, generator=generator).double() + module.mean
    targets = torch.randn(windows, steps, *shape, generator=generator).double() + module.mean
    phases = torch.tensor([[[0.25, 0.1], [0.5, 0.1]]], dtype=torch.float64)
    noise = window_noise(3, 0, members, steps, config.noise_dim).double()[None]

    def loss() -> torch.Tensor:
        found: torch.Tensor = module(history, targets, phases, noise)
        return found

    loss().backward()
    parameters = dict(module.network.named_parameters())
    step = 1e-6
    for name, value in parameters.items():
        assert value.grad is not None, name
        direction = torch.randn(value.shape, generator=generator).double()
        slope = float((value.grad * direction).sum())
        with torch.no_grad():
            value.add_(direction, alpha=step)
            above = float(loss())
            value.add_(direction, alpha=-2 * step)
            below = float(loss())
            value.add_(direction, alpha=step)
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-8), name


def test_recomputation_changes_no_gradient(site: Path) -> None:
    found = []
    for recompute in (False, True):
        module = objective(site, world.recipe(site, recompute=recompute))
        shape = (*world.GRID.shape, len(world.CHANNELS))
        generator = torch.Generator().manual_seed(4)
        history = torch.randn(1, 2, *shape, generator=generator)
        targets = torch.randn(1, 2, *shape, generator=generator)
        noise = window_noise(3, 0, 2, 2, 4)[None]
        module(history, targets, torch.zeros(1, 2, 2), noise).backward()
        found.append([p.grad for p in module.network.parameters()])
    for plain, again in zip(*found, strict=True):
        assert plain is not None
        torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-6)
