"""The loss in spectral space: what a score at points cannot see.

The CRPS at points knows nothing of how points belong together: members that differ by the same
amount everywhere, or from point to point, score alike. Fair CRPS of the spherical-harmonic
coefficients, each total wavenumber weighing the same, holds every scale to its own size (as the
stochastic NeuralGCM has it, Kochkov et al. 2024).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.spectral import SphericalHarmonics
from mosaic_core.training.loss import fair_crps
from mosaic_core.training.windows import Windows

_SAMPLES: Final = 40
_LEAST: Final = 0.02
"""Share of a channel's largest scale: beyond the truth's truncation there is nothing to go by."""


class SpectralLoss(nn.Module):
    """Weighted fair CRPS of coefficients, in units of their change over a step, by wavenumber.

    Args:
        grid: of the fields.
        scale: root mean square of the change of a coefficient over a step, (channel, l).
        weight: of each channel, mean one.
    """

    matrix: Tensor
    scale: Tensor
    weight: Tensor
    share: Tensor

    def __init__(self, grid: LatLonGrid, scale: Tensor, weight: Tensor) -> None:
        super().__init__()
        matrix = analysis_matrix(grid)
        orders, degrees = matrix.shape[:2]
        kept = torch.arange(degrees) >= torch.arange(orders)[:, None]
        share = kept / kept.sum(0) / degrees
        least = _LEAST * scale.amax(1, keepdim=True)
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("scale", scale.maximum(least), persistent=False)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("share", share, persistent=False)

    def forward(self, members: Tensor, target: Tensor) -> Tensor:
        """A scalar: members (member, ..., longitude, latitude, channel), target without member."""
        error = fair_crps(self._parts(members), self._parts(target))
        by_channel = (error * self.share).sum((-1, -2)).flatten(0, -2).mean(0)
        return (by_channel * self.weight).mean()

    def _parts(self, fields: Tensor) -> Tensor:
        """Real and imaginary coefficients over their scale, (..., part, channel, m, l)."""
        found = coefficients(fields, self.matrix)
        return torch.view_as_real(found).movedim(-1, -4) / self.scale[:, None]


def coefficients(fields: Tensor, matrix: Tensor) -> Tensor:
    """Complex coefficients (..., channel, m, l) of (..., longitude, latitude, channel)."""
    waves = torch.fft.rfft(fields, dim=-3, norm="forward")[..., : len(matrix), :, :]
    return torch.einsum("mlj,...mjc->...cml", matrix.to(waves.dtype), waves)


def analysis_matrix(grid: LatLonGrid) -> Tensor:
    """(m, l, latitude): from the Fourier coefficients of each latitude to those of harmonics."""
    harmonics = SphericalHarmonics(grid)
    size = harmonics.truncation + 1
    angle = np.deg2rad(np.asarray(grid.longitudes, np.float64))
    matrix = np.zeros((size, size, grid.nlat))
    for m in range(size):
        rows = np.eye(grid.nlat)[:, :, None] * np.cos(m * angle)
        matrix[m] = harmonics.analysis(rows)[:, m].real.T * (1 if m == 0 else 2)
    return torch.from_numpy(matrix.astype(np.float32))


def measure_scale(windows: Windows, step: timedelta) -> Tensor:
    """Root mean square of the change of a coefficient over a step, (channel, l).

    Raises:
        ConfigurationError: no time can be read.
    """
    archive = windows.targets
    matrix = analysis_matrix(archive.grid).double()
    squares, count = torch.zeros(1, dtype=torch.float64), 0
    for before, after in windows.changes(_SAMPLES, step):
        change = torch.from_numpy(after.astype(np.float64) - before)
        power = coefficients(change, matrix).abs() ** 2 / 2
        squares = squares + power.sum(-2) / torch.arange(1, power.shape[-1] + 1)
        count += 1
    if not count:
        raise ConfigurationError(f"no time of {archive.url} can be read", "at least one")
    return (squares / count).sqrt().float()
