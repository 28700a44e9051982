"""Launching the gradients of gated attention over joint lists."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from mosaic_core.kernels.attention.lists import JointLists, inverted
from mosaic_core.kernels.attention.triton.backward_kernels import (
    LOG2_E,
    key_kernel,
    prepare_kernel,
    query_kernel,
    sum_kernel,
)
from mosaic_core.kernels.attention.triton.forward import Saved
from mosaic_core.kernels.launch import aligned, on_device

STAGES = 2
"""Of the pipelines of loads of the two large kernels."""

SUMMED = 16
"""Keys of a tile of the kernel that sums pieces."""


class Gradients(NamedTuple):
    """Each in the shape and dtype of what it belongs to, contiguous."""

    q: Tensor
    k: Tensor
    v: Tensor
    logits: Tensor
    compressed: Tensor


class Launch(NamedTuple):
    """Shape of a program of the two large kernels.

    Attributes:
        rows: query rows of the kernel that writes the gradients of queries.
        tile: keys of that kernel; query rows and keys of the one for keys and values.
        warps: of either.
    """

    rows: int
    tile: int
    warps: int


def launch(group: int, block_size: int, width: int, exact: bool) -> Launch:
    """What compiles without spills for every chip, if it can with two programs a multiprocessor.

    Args:
        exact: float32, whose products have no tensor cores.
    """
    most = 32 if exact else 64
    rows, tile = (
        min(most, max(16, triton.next_power_of_2(n))) for n in (group * block_size, block_size)
    )
    return Launch(rows, tile, warps=8 if exact or width > 64 else 4)


def gated_attention_gradients(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    logits: Tensor,
    compressed: Tensor,
    joint: JointLists,
    saved: Saved,
    block_size: int,
) -> Gradients:
    """Gradients of everything that `mosaic_core.kernels.attention.gated.gated_attention` takes.

    Args:
        dout: gradient of its result, (batch, token, head, width).
        q: (batch, token, head, width).
        k, v: (batch, token, kv head, width).
        logits: of the gates, (batch, token, head, 3): local, compressed, selected.
        compressed: (batch, query block, head, width).
        joint: lists of the query blocks.
        saved: what the forward pass kept.
        block_size: tokens in a block.
    """
    batch, tokens, heads, width = q.shape
    kv_heads, blocks = k.shape[2], tokens // block_size
    group, exact = heads // kv_heads, q.dtype == torch.float32
    q, k, v = (aligned(x) for x in (q, k, v))
    dout, compressed = dout.contiguous(), compressed.contiguous()
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    saved = Saved(*(x.contiguous() for x in saved))
    blocks_listed, ends = (x.contiguous() for x in joint)
    lists = inverted(joint, blocks)
    shape = launch(group, block_size, width, exact)
    scale = width**-0.5
    stride = batch * heads * tokens
    strides = [s for x in (q, k, v) for s in (x.stride(0), x.stride(1) // 8, x.stride(2))]
    rows = torch.empty(3, stride, device=q.device, dtype=torch.int64)
    partial = torch.empty(
        len(lists.pieces), 2, block_size, width, device=q.device, dtype=torch.float32
    )
    found = Gradients(
        *(
            torch.empty(x.shape, device=x.device, dtype=x.dtype)
            for x in (q, k, v, logits, compressed)
        )
    )
    sizes = {"BLOCK": block_size, "WIDTH": width}
    large = {**sizes, "GROUP": group, "EXACT": exact, "TILE_N": shape.tile}
    warps = {"num_warps": shape.warps, "num_stages": STAGES}
    with on_device(q):
        prepare_kernel[(batch * blocks * heads,)](
            dout, saved.o_local, saved.o_selected, compressed, logits,
            saved.lse_local, saved.lse_selected,
            found.logits, found.compressed, rows,
            tokens, blocks, heads, stride, *logits.stride()[:3],
            ROWS=triton.next_power_of_2(block_size), **sizes,
        )  # fmt: skip
        query_kernel[(triton.cdiv(group * block_size, shape.rows), blocks, batch * kv_heads)](
            q, k, v, dout, rows, blocks_listed, ends, found.q,
            scale, scale * LOG2_E.value,
            tokens, blocks_listed.shape[3], heads, kv_heads, stride, *strides,
            TILE_M=shape.rows, **large, **warps,
        )  # fmt: skip
        key_kernel[(triton.cdiv(block_size, shape.tile) * len(lists.pieces),)](
            q, k, v, dout, rows, lists.queries, lists.kinds, lists.pieces, partial,
            scale * LOG2_E.value,
            tokens, blocks, heads, kv_heads, stride, *strides,
            TILE_M=shape.tile, **large, **warps,
        )  # fmt: skip
        sum_kernel[(triton.cdiv(block_size, SUMMED) * batch * kv_heads * blocks,)](
            partial, lists.piece_offsets, found.k, found.v,
            scale,
            blocks, kv_heads,
            TILE_N=SUMMED, **sizes,
        )  # fmt: skip
    return found
