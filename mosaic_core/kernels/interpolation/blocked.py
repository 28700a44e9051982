"""Weighted sums over neighbours in pieces that fit the cache, by torch's own kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SCORE_BYTES = {"cpu": 32 << 20, "cuda": 1 << 30}


def neighbour_attention(
    kappa: Tensor, values: Tensor, neighbours: Tensor, directions: Tensor
) -> Tensor:
    """Weighted sums of rows without storing the gathered values (`torch.embedding_bag`)."""
    batch, sources, heads, width = values.shape
    targets, k = neighbours.shape
    bytes_each = k * heads * (3 * kappa.element_size() + 3 * 8)
    step = max(1, _SCORE_BYTES.get(values.device.type, 1 << 28) // bytes_each)
    head = torch.arange(heads, device=values.device)[None, :, None]
    states = []
    for b in range(batch):
        table = values[b].reshape(sources * heads, width)
        pieces = []
        for start in range(0, targets, step):
            near = neighbours[start : start + step]
            direction = directions[start : start + step].to(kappa.dtype)
            scores = torch.einsum("tkc,tkhc->thk", direction, kappa[b][near])
            weights = torch.softmax(scores, dim=-1, dtype=_accumulator(scores.dtype))
            pieces.append(
                F.embedding_bag(
                    (near[:, None, :] * heads + head).view(-1, k),
                    table,
                    mode="sum",
                    per_sample_weights=weights.view(-1, k).to(table.dtype),
                ).view(-1, heads, width)
            )
        states.append(torch.cat(pieces))
    return torch.stack(states)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
