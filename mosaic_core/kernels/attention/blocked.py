"""The same attention in pieces that fit the cache, for any device, by torch's own kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mosaic_core.kernels.attention.dense import grouped_attention

_GATHERED_BYTES = {"cpu": 16 << 20, "cuda": 1 << 30}


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
    """The gated sum of branches that torch's kernels compute one by one."""
    exact = torch.promote_types(logits.dtype, torch.float32)
    gates = torch.softmax(logits, dim=-1, dtype=exact).to(q.dtype)
    runs = [x.reshape(-1, local, *x.shape[2:]) for x in (q, k, v)]
    mixed = gates[..., :1] * grouped_attention(*runs).reshape(q.shape)
    blocks = gates[..., 1:2].unflatten(1, (-1, block_size)) * compressed[:, :, None]
    mixed = mixed + blocks.flatten(1, 2)
    return torch.addcmul(
        mixed, gates[..., 2:], block_sparse_attention(q, k, v, selected, block_size)
    )


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, block_indices: Tensor, block_size: int
) -> Tensor:
    """Gathers the key blocks of a few query blocks at a time; scores are never stored.

    The queries of all heads of a group attend to the same keys, so they are one long query.
    """
    batch, tokens, heads, width = q.shape
    kv_heads, listed = k.shape[2], block_indices.shape[3]
    if not listed:
        return torch.zeros_like(q)
    group, blocks = heads // kv_heads, tokens // block_size
    keys, values = (
        x.reshape(batch, blocks, block_size, kv_heads, width)
        .permute(0, 3, 1, 2, 4)
        .reshape(batch * kv_heads * blocks, block_size * width)
        for x in (k, v)
    )
    first = torch.arange(batch * kv_heads, device=q.device).view(batch, 1, kv_heads, 1) * blocks
    rows = block_indices.long() + first
    queries = q.reshape(batch, blocks, block_size, kv_heads, group, width)
    row_bytes = 2 * batch * kv_heads * listed * block_size * width * q.element_size()
    step = max(1, _GATHERED_BYTES.get(q.device.type, 1 << 28) // row_bytes)
    pieces = []
    for start in range(0, blocks, step):
        piece = queries[:, start : start + step].permute(0, 1, 3, 4, 2, 5)
        count = piece.shape[1]
        index = rows[:, start : start + step].reshape(-1)
        shape = (1, batch * count * kv_heads, listed * block_size, width)
        out = F.scaled_dot_product_attention(
            piece.reshape(1, shape[1], group * block_size, width),
            keys.index_select(0, index).view(shape),
            values.index_select(0, index).view(shape),
        )
        out = out.view(batch, count, kv_heads, group, block_size, width)
        pieces.append(out.permute(0, 1, 4, 2, 3, 5).reshape(batch, -1, heads, width))
    return torch.cat(pieces, dim=1)
