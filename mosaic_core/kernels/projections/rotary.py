"""What lies between the matmul of queries, keys, values and gates and the attention."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mosaic_core.kernels import dispatch
from mosaic_core.kernels.dispatch import Backend
from mosaic_core.kernels.projections import reference


class BlockMeans(NamedTuple):
    """Means over the tokens of each block, (batch, block, head or kv head, width)."""

    q: Tensor
    k: Tensor
    v: Tensor


def rotate_and_average(
    p: Tensor,
    scale: Tensor,
    rotary: Tensor,
    *,
    heads: int,
    kv_heads: int,
    block_size: int,
    backend: Backend | None = None,
) -> BlockMeans:
    """Scale the rows of a joint projection, turn its queries and keys, average them by block.

    Args:
        p: (batch, token, P), changed in place: columns are q (head, width), k (kv head, width),
            v (kv head, width), gate logits (head, 3), then padding, which is left as it is. The
            last axis is contiguous.
        scale: (batch, token), factor of each row, as `inverse_rms` gives it.
        rotary: (token, width / 2, 2), cosine and sine by which adjacent pairs of q and k turn.
        block_size: tokens in a block; blocks are consecutive runs.

    Returns:
        Means after scaling and turning, summed in float32, dtype of `p`.

    Raises:
        DeviceError: the backend asked for does not support these tensors.
        ValueError: shapes that do not fit together.
    """
    batch, tokens, columns = p.shape
    width = 2 * rotary.shape[1]
    needed = (heads + 2 * kv_heads) * width + 3 * heads
    if columns < needed or p.stride(2) != 1:
        raise ValueError(f"projection of shape {tuple(p.shape)}, strides {p.stride()}: {needed=}")
    if scale.shape != (batch, tokens) or rotary.shape != (tokens, width // 2, 2):
        raise ValueError(f"scale {tuple(scale.shape)} and rotary code {tuple(rotary.shape)}")
    if tokens % block_size:
        raise ValueError(f"{tokens} tokens in blocks of {block_size}")
    limits = dispatch.head_width(width)
    if not 16 <= block_size <= 128:
        limits = limits or f"blocks of {block_size} tokens are not from 16 to 128"
    if p.requires_grad or scale.requires_grad:
        limits = limits or "the triton kernel has no backward"
    if dispatch.choose("rotary code", p, backend, limits) == "triton":
        from mosaic_core.kernels.projections.triton import rotary as triton_rotary

        means = triton_rotary.rotate_and_average(p, scale, rotary, heads, kv_heads, block_size)
    else:
        means = reference.rotate_and_average(p, scale, rotary, heads, kv_heads, block_size)
    return BlockMeans(*means)
