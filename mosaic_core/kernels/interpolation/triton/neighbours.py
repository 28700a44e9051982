"""Attention of points to their neighbours by Triton kernels, with its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mosaic_core.kernels.interpolation.tiles import Plan, Tiles
from mosaic_core.kernels.interpolation.triton.backward import score_slopes, source_slopes
from mosaic_core.kernels.interpolation.triton.forward import neighbour_weights, weighted_sums


def neighbour_attention(
    kappa: Tensor, values: Tensor, neighbours: Tensor, directions: Tensor, plan: Plan
) -> Tensor:
    """See `mosaic_core.kernels.interpolation.neighbours.neighbour_attention`.

    The gradient by the directions is not computed: they are geometry.
    """
    values = values if values.stride(-1) == 1 else values.contiguous()
    if torch.is_grad_enabled() and (kappa.requires_grad or values.requires_grad):
        out: Tensor = _Attention.apply(
            kappa, values, neighbours, directions, *plan.targets, *plan.sources
        )
        return out
    weights = neighbour_weights(kappa, neighbours, directions, values.dtype)
    return weighted_sums(weights, values, plan.targets)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kappa: Tensor, values: Tensor, neighbours: Tensor, directions: Tensor,
        *tables: Tensor,
    ) -> Tensor:  # fmt: skip
        weights = neighbour_weights(kappa, neighbours, directions, values.dtype)
        out = weighted_sums(weights, values, Tiles(*tables[:4]))
        ctx.save_for_backward(kappa, values, weights, out, directions, *tables)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        kappa, values, weights, out, directions, *tables = ctx.saved_tensors
        slope = slope.contiguous()
        scores = score_slopes(weights, values, out, slope, Tiles(*tables[:4]))
        slopes = source_slopes(weights, scores, directions, slope, Tiles(*tables[4:]), kappa)
        return *slopes, *(None,) * (2 + len(tables))
