"""Cross-attention between the longitude-latitude grid and the mesh."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mosaic_core.kernels.neighbour_attention import neighbour_attention
from mosaic_core.model.layers import RMSNorm, linear


class Interpolation(nn.Module):
    """Each target attends to its k nearest sources; its query is the direction they lie in.

    q = Wq r has no bias and r has three components, so q . k = r . (Wq^T k): keys are projected
    to three numbers a head at once.
    """

    neighbors: Tensor
    rel_pos: Tensor

    def __init__(self, dim: int, heads: int, neighbours: Tensor, directions: Tensor) -> None:
        """neighbours (target, k) int64, directions (target, k, 3) float32."""
        super().__init__()
        self.heads = heads
        self.norm = RMSNorm()
        self.to_q = linear(3, dim)
        self.to_kv = linear(dim, 2 * dim)
        self.to_o = linear(dim, dim)
        self.register_buffer("neighbors", neighbours, persistent=False)
        self.register_buffer("rel_pos", directions, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, source, dim) -> (batch, target, dim)."""
        x = self.norm(x)
        to_key, to_value = self.to_kv.weight.chunk(2)
        width = to_key.shape[0] // self.heads
        queries = self.to_q.weight.view(self.heads, width, 3)
        keys = to_key.view(self.heads, width, -1)
        to_kappa = torch.einsum("hdc,hdi->hci", queries, keys) * width**-0.5
        kappa = nn.functional.linear(x, to_kappa.flatten(0, 1)).unflatten(-1, (self.heads, 3))
        values = nn.functional.linear(x, to_value).unflatten(-1, (self.heads, width))
        out: Tensor = self.to_o(
            neighbour_attention(kappa, values, self.neighbors, self.rel_pos).flatten(2)
        )
        return out
