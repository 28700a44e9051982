"""Readable twins of the fast backends: every gathered key and score is materialised.

Slow and large on purpose; every other backend is compared with these.
"""

from __future__ import annotations

import torch
from torch import Tensor


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, block_indices: Tensor, block_size: int
) -> Tensor:
    """See `mosaic_core.kernels.attention.sparse.block_sparse_attention`."""
    batch, tokens, heads, width = q.shape
    kv_heads = k.shape[2]
    group = heads // kv_heads
    blocks = tokens // block_size
    # (batch, block, kv head, group * token, width)
    queries = q.reshape(batch, blocks, block_size, kv_heads, group, width)
    queries = queries.permute(0, 1, 3, 4, 2, 5).reshape(batch, blocks, kv_heads, -1, width)
    keys, values = (_gather(x, block_indices, block_size) for x in (k, v))
    scores = queries @ keys.transpose(-1, -2) * width**-0.5
    weights = torch.softmax(scores.float() if scores.dtype != torch.float64 else scores, dim=-1)
    out = weights.to(values.dtype) @ values
    out = out.reshape(batch, blocks, kv_heads, group, block_size, width)
    return out.permute(0, 1, 4, 2, 3, 5).reshape(batch, tokens, heads, width)


def gated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    logits: Tensor,
    compressed: Tensor,
    selected: Tensor,
    block_size: int,
    local: int,
) -> Tensor:
    """See `mosaic_core.kernels.attention.gated.gated_attention`."""
    batch, tokens, _, _ = q.shape
    # Every query block selects all blocks of its group: the local branch.
    first = torch.arange(tokens, device=q.device)[::block_size] // local * local // block_size
    group = first[:, None] + torch.arange(local // block_size, device=q.device)
    group = group[None, :, None].expand(batch, -1, k.shape[2], -1)
    branches = (
        block_sparse_attention(q, k, v, group, block_size),
        compressed.repeat_interleave(block_size, dim=1),
        block_sparse_attention(q, k, v, selected, block_size),
    )
    exact = torch.promote_types(logits.dtype, torch.float32)
    gates = torch.softmax(logits, dim=-1, dtype=exact)[..., None]
    mixed = sum(gates[..., i, :] * branch for i, branch in enumerate(branches))
    assert isinstance(mixed, Tensor)
    return mixed.to(q.dtype)


def _gather(x: Tensor, block_indices: Tensor, block_size: int) -> Tensor:
    """(batch, query block, kv head, n * block_size, width) of the listed blocks."""
    batch, tokens, kv_heads, width = x.shape
    blocks = x.reshape(batch, tokens // block_size, block_size, kv_heads, width)
    blocks = blocks.permute(0, 3, 1, 2, 4)
    b = torch.arange(batch, device=x.device)[:, None, None, None]
    h = torch.arange(kv_heads, device=x.device)[None, None, :, None]
    return blocks[b, h, block_indices.long()].flatten(3, 4)
