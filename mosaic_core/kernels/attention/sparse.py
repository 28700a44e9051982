"""Attention of query blocks to a list of key blocks each."""

from __future__ import annotations

import torch
from torch import Tensor

from mosaic_core.kernels import dispatch
from mosaic_core.kernels.attention import blocked, reference
from mosaic_core.kernels.dispatch import Backend


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    block_indices: Tensor,
    *,
    block_size: int,
    backend: Backend | None = None,
) -> Tensor:
    """One softmax per query over all tokens of the listed key blocks, scale width^-1/2.

    Args:
        q: (batch, token, head, width).
        k, v: (batch, token, kv head, width); query head i uses kv head i // (heads / kv heads).
        block_indices: (batch, query block, kv head, n) key blocks, in any order, each once.
        block_size: tokens in a block; blocks are consecutive runs.
        backend: `triton`, `blocked` or `reference`; None takes the best that supports the tensors.

    Returns:
        (batch, token, head, width), dtype of `q`.

    Raises:
        DeviceError: the backend asked for does not support these tensors.
        ValueError: shapes that do not fit together.
    """
    batch, tokens, heads, width = q.shape
    kv_heads = k.shape[2]
    if k.shape != v.shape or k.shape != (batch, tokens, kv_heads, width) or heads % kv_heads:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}")
    if tokens % block_size or block_indices.shape[:3] != (batch, tokens // block_size, kv_heads):
        raise ValueError(f"block list {tuple(block_indices.shape)} for {tokens} tokens")
    limits = dispatch.head_width(width)
    if block_size < 16:
        limits = limits or f"blocks of {block_size} tokens are under 16"
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        limits = limits or "this triton kernel has no backward"
    slow = dispatch.slow_in_float32(q)
    chosen = dispatch.choose("sparse attention", q, backend, limits, slow)
    if chosen == "triton":
        from mosaic_core.kernels.attention.triton import forward

        return forward.block_sparse_attention(q, k, v, block_indices, block_size)
    twin = blocked if chosen == "blocked" else reference
    return twin.block_sparse_attention(q, k, v, block_indices, block_size)
