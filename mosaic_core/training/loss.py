"""The loss: fair CRPS of a small ensemble, weighted by area and channel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mosaic_core.channels import VARIABLES, Channels
from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.training.recipe import ChannelWeights

_SURFACE = 0.1
"""Weight of surface variables other than 2 m temperature (Lam et al. 2023)."""


def fair_crps(members: Tensor, target: Tensor) -> Tensor:
    """Continuous ranked probability score, unbiased in ensemble size (Ferro 2014).

    mean |x_i - y| - sum_{i<j} |x_i - x_j| / (M (M - 1)), at each point; the absolute error for one
    member.

    Args:
        members: (member, ...).
        target: (...).
    """
    count = len(members)
    error = (members - target).abs().mean(0)
    if count == 1:
        return error
    if count == 2:
        return error - 0.5 * (members[0] - members[1]).abs()
    ordered = members.sort(0).values
    rank = torch.arange(1, count + 1, device=members.device, dtype=members.dtype)
    factor = (2 * rank - count - 1) / (count * (count - 1))
    distance: Tensor = torch.tensordot(factor, ordered, dims=1)
    return error - distance


def area_weights(grid: LatLonGrid) -> Tensor:
    """Weight of each latitude, mean one: the area of its cells."""
    weights = torch.from_numpy(np.asarray(grid.latitude_weights, np.float32).copy())
    return weights / weights.mean()


def channel_weights(
    channels: Channels, scheme: ChannelWeights, factors: Mapping[str, float]
) -> Tensor:
    """Weight of each channel, mean one, for errors in units of the step's change.

    Raises:
        ConfigurationError: a factor for a variable that the model does not have.
    """
    unknown = sorted(set(factors) - set(channels.variables))
    if unknown:
        raise ConfigurationError(
            f"variable_weights for {', '.join(unknown)}", f"some of {', '.join(channels.variables)}"
        )
    weights = []
    for channel in channels:
        weight = 1.0
        if scheme == "pressure" and VARIABLES[channel.variable].on_levels:
            same = [level for level in channels.variables[channel.variable] if level is not None]
            weight = (channel.level or 0) / float(np.mean(same))
        elif scheme == "pressure" and channel.variable != "2m_temperature":
            weight = _SURFACE
        weights.append(weight * factors.get(channel.variable, 1.0))
    tensor = torch.tensor(weights, dtype=torch.float32)
    return tensor / tensor.mean()
