"""Attention of all tokens to all, by torch's own kernels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def grouped_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of all tokens to all, with grouped queries (Ainslie et al. 2023).

    The heads of a group share keys, so they are stacked as one longer query.

    Args:
        q: (batch, token, head, width).
        k, v: (batch, token, kv head, width).

    Returns:
        (batch, token, head, width).
    """
    batch, tokens, heads, width = q.shape
    kv_heads = k.shape[2]
    stacked = q.reshape(batch, tokens, kv_heads, heads // kv_heads, width)
    stacked = stacked.permute(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, width)
    out = F.scaled_dot_product_attention(stacked, k.transpose(1, 2), v.transpose(1, 2))
    return out.reshape(batch, heads, tokens, width).transpose(1, 2)
