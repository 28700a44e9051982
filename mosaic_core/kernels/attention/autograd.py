"""Gated attention that autograd can go back through, by Triton kernels both ways."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaic_core.kernels.attention.lists import JointLists


class _GatedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        logits: Tensor,
        compressed: Tensor,
        blocks: Tensor,
        ends: Tensor,
        block_size: int,
    ) -> Tensor:
        from mosaic_core.kernels.attention.triton import forward

        inputs = (q, k, v, logits, compressed)
        out, saved = forward.gated_attention(
            *inputs, JointLists(blocks, ends), block_size, save=True
        )
        assert saved is not None
        ctx.save_for_backward(*inputs, blocks, ends, *saved)
        ctx.block_size = block_size
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        from mosaic_core.kernels.attention.triton import backward
        from mosaic_core.kernels.attention.triton.forward import Saved

        q, k, v, logits, compressed, blocks, ends, *saved = ctx.saved_tensors
        gradients = backward.gated_attention_gradients(
            dout, q, k, v, logits, compressed,
            JointLists(blocks, ends), Saved(*saved), ctx.block_size,
        )  # fmt: skip
        return (*gradients, None, None, None)


def gated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    logits: Tensor,
    compressed: Tensor,
    joint: JointLists,
    block_size: int,
) -> Tensor:
    """`mosaic_core.kernels.attention.gated.gated_attention` by Triton, with gradients.

    These are of everything but the lists, each in the dtype of its input, the same bits in every
    run; they have none of their own.
    """
    out: Tensor = _GatedAttention.apply(q, k, v, logits, compressed, *joint, block_size)
    return out
