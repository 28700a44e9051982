"""Readable twin: every gathered key, value and score is materialised."""

from __future__ import annotations

import torch
from torch import Tensor


def neighbour_attention(
    kappa: Tensor, values: Tensor, neighbours: Tensor, directions: Tensor
) -> Tensor:
    """See `mosaic_core.kernels.interpolation.neighbours.neighbour_attention`."""
    scores = torch.einsum("tkc,btkhc->bthk", directions.to(kappa.dtype), kappa[:, neighbours])
    weights = torch.softmax(scores.float() if scores.dtype != torch.float64 else scores, dim=-1)
    return torch.einsum("bthk,btkhd->bthd", weights.to(values.dtype), values[:, neighbours])
