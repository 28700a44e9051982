"""Layers of a block. Linear maps have no bias, norms have no scale."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mosaic_core.kernels.feed_forward.swiglu import feed_forward
from mosaic_core.kernels.projections.rms import NORM_EPS


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a linear map that torch's containers know as a module only."""
    assert isinstance(module, nn.Linear)
    return module.weight


def rms_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2 over features) + eps) (Zhang and Sennrich 2019), without a scale."""
    return F.rms_norm(x, (x.shape[-1],), eps=NORM_EPS)


class RMSNorm(nn.Module):
    """`rms_norm` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020) whose gate is shifted by noise: W2 (silu(u1 + Wn z) * u3).

    The noise vector is one per batch element, so a member follows one perturbed function
    (functional perturbation).
    """

    def __init__(self, dim: int, hidden: int, noise_dim: int | None) -> None:
        super().__init__()
        self.w13 = linear(dim, 2 * hidden)
        self.w2 = linear(hidden, dim)
        self.noise_bias = linear(noise_dim, hidden) if noise_dim else None

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        """x (batch, token, dim), z (batch, noise_dim) -> (batch, token, dim)."""
        shift = None
        if self.noise_bias is not None:
            assert z is not None
            shift = self.noise_bias(z)
        return feed_forward(x, None, self.w13.weight, shift, self.w2.weight)


def rotary_table(radians: NDArray[np.float32], width: int, theta: float) -> Tensor:
    """Rotary code of positions on the sphere (after Su et al. 2021), (token, width / 2, 2).

    Frequencies theta^(-2j / (width / 2)); the first half of the angles turns with longitude, the
    second with latitude. Only the first is periodic in longitude: the trained weights saw it so.

    Args:
        radians: longitude and latitude, (token, 2), float32.
        width: features of a head.

    Returns:
        cosine and sine, float32, made in float64.
    """
    j = np.arange(width // 4)
    frequency = (theta ** (-2.0 * j / (width // 2))).astype(np.float32)
    angle = np.concatenate([radians[:, i : i + 1] * frequency for i in (0, 1)], axis=1)
    exact = angle.astype(np.float64)
    return torch.from_numpy(np.stack((np.cos(exact), np.sin(exact)), -1).astype(np.float32))


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn adjacent feature pairs of x (batch, token, head, width) by the angles of `table`."""
    exact = torch.promote_types(x.dtype, torch.float32)
    pairs = torch.view_as_complex(x.to(exact).unflatten(-1, (-1, 2)))
    turned = pairs * torch.view_as_complex(table.to(exact))[:, None]
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)
