"""Between two HEALPix resolutions: the children of a pixel are consecutive tokens."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mosaic_core.mesh.healpix import HealpixMesh
from mosaic_core.model.layers import RMSNorm, linear


def standardised(x: NDArray[np.float32]) -> Tensor:
    """Columns of x minus their mean, over their unbiased standard deviation + 1e-6."""
    exact = x.astype(np.float64)
    scaled = (exact - exact.mean(0)) / (exact.std(0, ddof=1) + 1e-6)
    return torch.from_numpy(scaled.astype(np.float32))


class Downsample(nn.Module):
    """rms(Wx [children] + Wp p), p the standardised offsets of the children."""

    rel_pos: Tensor

    def __init__(self, fine: HealpixMesh, coarse: HealpixMesh, dim: int, dim_out: int) -> None:
        super().__init__()
        children = fine.size // coarse.size
        self.ratio = children
        self.proj_x = linear(children * dim, dim_out)
        self.proj_pos = linear(3 * children, dim_out)
        self.norm = RMSNorm()
        self.register_buffer("rel_pos", standardised(coarse.child_offsets(fine)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, fine token, dim) -> (batch, coarse token, dim_out)."""
        joined = x.unflatten(1, (-1, self.ratio)).flatten(2)
        out: Tensor = self.norm(self.proj_x(joined) + self.proj_pos(self.rel_pos.to(x.dtype)))
        return out


class Upsample(nn.Module):
    """rms(children of (Wx x + Wp p) + skip)."""

    rel_pos: Tensor

    def __init__(self, coarse: HealpixMesh, fine: HealpixMesh, dim: int, dim_out: int) -> None:
        super().__init__()
        children = fine.size // coarse.size
        self.ratio = children
        self.proj_x = linear(dim, children * dim_out)
        self.proj_pos = linear(3 * children, children * dim_out)
        self.norm = RMSNorm()
        self.register_buffer("rel_pos", standardised(coarse.child_offsets(fine)), persistent=False)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x (batch, coarse token, dim), skip and result (batch, fine token, dim_out)."""
        out = self.proj_x(x) + self.proj_pos(self.rel_pos.to(x.dtype))
        fine: Tensor = self.norm(out.unflatten(-1, (self.ratio, -1)).flatten(1, 2) + skip)
        return fine
