"""A training step: CRPS of two members, blocks computed again in the backward pass."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.gpu.measuring import Measures, Result, Scale, peaked, rated, timed
from benchmarks.gpu.networks import inputs, model
from benchmarks.gpu.operations import member_step
from mosaic_core.kernels.dispatch import Backend, forced_backend
from mosaic_core.training.objective import Objective, Statistics
from mosaic_core.training.recipe import Recipe

BASELINE = "blocked"
MEMBERS = 2


def run(scale: Scale) -> Measures:
    """Torch's own attention over gathered blocks, then what dispatch takes."""
    yield BASELINE, partial(_measured, scale, "blocked")
    yield "ours", partial(_measured, scale, None)


def _measured(scale: Scale, backend: Backend | None) -> Result:
    torch.manual_seed(0)
    loaded = model(scale)
    config = loaded.config
    changes = {
        "precision": scale.pick("bfloat16", "float32"),
        "recompute": True,
        "variable_weights": {},
    }
    recipe = Recipe.load("hres", changes)
    network = loaded.network.train().requires_grad_(True)
    channels = len(config.channel_set)
    statistics = Statistics(*(torch.ones(channels) for _ in range(3)))
    objective = Objective(network, statistics, recipe).to(scale.device)
    history, phases, _ = inputs(scale, config, 1)
    target = scale.randn(1, 1, *history.shape[2:], dtype=torch.float32)
    noise = scale.randn(1, MEMBERS, 1, config.noise_dim, dtype=torch.float32)

    def update() -> float:
        network.zero_grad(set_to_none=True)
        loss = objective(history, target, phases[:, None], noise)
        loss.backward()
        return float(loss.detach())

    with forced_backend(backend):
        loss, peak = peaked(update, scale)
        timing = timed(update, scale)
    squares = [p.grad.double().square().sum() for p in network.parameters() if p.grad is not None]
    operations = 3 * MEMBERS * sum(member_step(config).values())
    return {
        **rated(timing, operations, MEMBERS, effective=True),
        "peak_gb": peak, "baseline": BASELINE, "loss": loss,
        "gradient_norm": float(torch.stack(squares).sum().sqrt()),
    }  # fmt: skip
