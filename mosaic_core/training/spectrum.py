"""The loss in spectral space: what a score at points cannot see.

The CRPS at points knows nothing of how points belong together: members that differ by the same
amount everywhere, or from point to point, score alike. Fair CRPS of the spherical-harmonic
coefficients, each total wavenumber weighing the same, holds every scale to its own size (as the
stochastic NeuralGCM has it, Kochkov et al. 2024). Winds enter as vorticity and divergence: the
divergent wind is a few per cent of the whole, and errors of u and v that are small beside the
whole are large beside it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from mosaic_core.channels import Channels
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
        channels: of the fields, in order.
        scale: root mean square of the change of a coefficient over a step, (channel, l).
        weight: of each channel, mean one.
    """

    scale: Tensor
    weight: Tensor
    share: Tensor

    def __init__(self, grid: LatLonGrid, channels: Channels, scale: Tensor, weight: Tensor) -> None:
        super().__init__()
        self.transform = Transform(grid, channels)
        size = scale.shape[1]
        kept = torch.arange(size) >= torch.arange(size)[:, None]
        share = kept / kept.sum(0) / size
        least = _LEAST * scale.amax(1, keepdim=True)
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
        found = self.transform(fields)
        return torch.view_as_real(found).movedim(-1, -4) / self.scale[:, None]


class Transform(nn.Module):
    """Spherical-harmonic coefficients of fields; of winds, those of vorticity and divergence.

    Where the fields hold u and v of one level, the place of u takes vorticity and that of v
    divergence (s-1). With R and G real matrices of each order, and û, v̂ the Fourier coefficients of
    a latitude, ζ = R û + i G v̂ and δ = i G û - R v̂ (`mosaic_core.spectral`).
    """

    scalar: Tensor
    rotation: Tensor
    growth: Tensor

    def __init__(self, grid: LatLonGrid, channels: Channels) -> None:
        super().__init__()
        for name, table in _matrices(grid).items():
            self.register_buffer(name, torch.from_numpy(table).float(), persistent=False)
        names = channels.names
        eastward = [n for n in names if n.replace("u_comp", "v_comp") in {*names} - {n}]
        self.u = [names.index(n) for n in eastward]
        self.v = [names.index(n.replace("u_comp", "v_comp")) for n in eastward]
        self.others = [i for i in range(len(names)) if i not in {*self.u, *self.v}]
        self.order = torch.tensor(self.others + self.u + self.v).argsort()

    def forward(self, fields: Tensor) -> Tensor:
        """Complex (..., channel, m, l) of real (..., longitude, latitude, channel)."""
        waves = torch.fft.rfft(fields, dim=-3, norm="forward")[..., : len(self.scalar), :, :]
        scalar = _product(self.scalar, waves[..., self.others])
        u, v = waves[..., self.u], waves[..., self.v]
        vorticity = _product(self.rotation, u) + 1j * _product(self.growth, v)
        divergence = 1j * _product(self.growth, u) - _product(self.rotation, v)
        return torch.cat((scalar, vorticity, divergence), dim=-3)[..., self.order, :, :]


def _product(matrix: Tensor, waves: Tensor) -> Tensor:
    """matrix (m, l, latitude), waves (..., m, latitude, channel) -> (..., channel, m, l)."""
    parts = torch.view_as_real(waves).to(matrix.dtype)
    return torch.view_as_complex(torch.einsum("mlj,...mjcp->...cmlp", matrix, parts).contiguous())


def _matrices(grid: LatLonGrid) -> dict[str, np.ndarray]:
    """Tables of `Transform`, (m, l, latitude) each: what one latitude contributes to each l."""
    harmonics = SphericalHarmonics(grid)
    size = harmonics.truncation + 1
    angle = np.deg2rad(np.asarray(grid.longitudes, np.float64))
    tables = {k: np.zeros((size, size, grid.nlat)) for k in ("scalar", "rotation", "growth")}
    for m in range(size):
        rows = np.eye(grid.nlat)[:, :, None] * np.cos(m * angle)
        vorticity, divergence = harmonics.vorticity_divergence(rows, np.zeros_like(rows))
        double = 1 if m == 0 else 2
        tables["scalar"][m] = harmonics.analysis(rows)[:, m].real.T * double
        tables["rotation"][m] = vorticity[:, m].real.T * double
        tables["growth"][m] = divergence[:, m].imag.T * double
    return tables


def measure_scale(windows: Windows, step: timedelta) -> Tensor:
    """Root mean square of the change of a coefficient over a step, (channel, l).

    Raises:
        ConfigurationError: no time can be read.
    """
    archive = windows.targets
    transform = Transform(archive.grid, archive.channels).double()
    squares, count = torch.zeros(1, dtype=torch.float64), 0
    for before, after in windows.changes(_SAMPLES, step):
        change = torch.from_numpy(after.astype(np.float64) - before)
        power = transform(change).abs() ** 2 / 2
        squares = squares + power.sum(-2) / torch.arange(1, power.shape[-1] + 1)
        count += 1
    if not count:
        raise ConfigurationError(f"no time of {archive.url} can be read", "at least one")
    return (squares / count).sqrt().float()
