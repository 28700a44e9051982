"""A differentiable rollout and its loss, as one module (so that DDP wraps one forward call)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mosaic_core.kernels import dispatch
from mosaic_core.model.network import Block, Mosaic
from mosaic_core.model.rollout import next_state, normalise, phase_advance, phases
from mosaic_core.training.loss import area_weights, channel_weights, fair_crps
from mosaic_core.training.recipe import Recipe
from mosaic_core.training.spectrum import SpectralLoss


@dataclass(frozen=True)
class Statistics:
    """Area-weighted statistics of each channel, float32, (channel,), physical units.

    `change` is the standard deviation of the change over one model step.
    """

    mean: Tensor
    std: Tensor
    change: Tensor


class Objective(nn.Module):
    """Mean over steps of the weighted fair CRPS, in units of the standard deviation of a change."""

    mean: Tensor
    std: Tensor
    change: Tensor
    area: Tensor
    weight: Tensor

    def __init__(
        self,
        network: Mosaic,
        statistics: Statistics,
        recipe: Recipe,
        scale: Tensor | None = None,
    ) -> None:
        """`scale` of `mosaic_core.training.spectrum` is needed where a phase has `spectral`."""
        super().__init__()
        self.network, self.recipe = network, recipe
        config = network.config
        tables = {
            "mean": statistics.mean,
            "std": statistics.std,
            "change": statistics.change,
            "area": area_weights(config.lat_lon)[:, None],
            "weight": channel_weights(
                config.channel_set, recipe.channel_weights, recipe.variable_weights
            ),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        self.spectral = None
        if scale is not None:
            self.spectral = SpectralLoss(
                config.lat_lon, config.channel_set, scale, tables["weight"]
            )
        if recipe.recompute:
            for module in network.modules():
                if isinstance(module, Block):
                    module.forward = partial(  # type: ignore[method-assign]
                        checkpoint,
                        module.forward,
                        use_reentrant=False,
                        context_fn=dispatch.kept_in_recomputation,
                    )

    def forward(
        self, history: Tensor, targets: Tensor, time: Tensor, noise: Tensor, spectral: float = 0.0
    ) -> Tensor:
        """The loss of a batch of windows.

        Args:
            history: (window, state, longitude, latitude, channel), physical units, oldest first.
            targets: (window, step, longitude, latitude, channel).
            time: phases of day and year at the start of each step, (window, step, 2).
            noise: raw noise, (window, member, step, noise_dim).
            spectral: weight of the spectral loss beside that at points.

        Returns:
            A scalar, float32.
        """
        windows, members = noise.shape[:2]
        states = history.repeat_interleave(members, dim=0)
        losses = []
        for step in range(targets.shape[1]):
            now = time[:, step].repeat_interleave(members, dim=0)
            z = noise[:, :, step].flatten(0, 1)
            following = self.step(states, now, z, recompute=targets.shape[1] > 1)
            ensemble = following.view(windows, members, *following.shape[1:]).transpose(0, 1)
            error = fair_crps(ensemble / self.change, targets[:, step] / self.change)
            loss = (error * self.area * self.weight).mean()
            if spectral:
                assert self.spectral is not None
                loss = loss + spectral * self.spectral(ensemble, targets[:, step])
            losses.append(loss)
            states = torch.cat((states[:, 1:], following[:, None]), dim=1)
        return torch.stack(losses).mean()

    def step(self, states: Tensor, time: Tensor, z: Tensor, recompute: bool = False) -> Tensor:
        """The next physical state of (batch, state, longitude, latitude, channel).

        With `recompute` of the recipe, blocks keep only their input for the backward pass; with
        that of the call (a rollout), the step as a whole keeps only its states.
        """
        config = self.network.config
        normalised = normalise(config, states, self.mean, self.std, self.change)
        noise = z if config.perturbed else None
        cast: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if self.recipe.precision != "float32":
            cast = torch.autocast(states.device.type, getattr(torch, self.recipe.precision))
        with cast:
            if recompute and self.recipe.recompute and torch.is_grad_enabled():
                out = checkpoint(
                    self.network,
                    normalised,
                    time,
                    noise,
                    use_reentrant=False,
                    context_fn=dispatch.kept_in_recomputation,
                )
            else:
                out = self.network(normalised, time, noise)
        out = out.to(states.dtype)
        return next_state(config, out, states[:, -1], self.mean, self.std, self.change)


def step_phases(network: Mosaic, times: list[datetime], steps: int) -> Tensor:
    """Phases of day and year at the start of each step, in cycles, (window, step, 2)."""
    start = torch.tensor([phases(time) for time in times], dtype=torch.float64)
    advance = torch.tensor(phase_advance(network.config), dtype=torch.float64)
    count = torch.arange(steps, dtype=torch.float64)[:, None]
    return (start[:, None] + count * advance).float()


def window_noise(seed: int, n: int, members: int, steps: int, size: int) -> Tensor:
    """Raw noise of window n of the stream, (member, step, noise_dim); of nothing else."""
    random = np.random.Generator(np.random.Philox(key=[seed, (1 << 40) + n]))
    values = random.standard_normal((members, steps, size), np.float32)
    return torch.from_numpy(values)
