"""Forward block-sparse attention in Triton: online softmax over the listed key blocks.

One program holds a tile of the query rows of one query block and one key-value head. The rows
are the block's tokens times the heads of the group, since all of them attend to the same keys.
Only plain pointers: block pointers left Triton with 3.9.
"""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _forward(
    q_ptr, k_ptr, v_ptr, index_ptr, out_ptr,
    scale_log2,
    blocks, listed, kv_heads,
    q_b, q_s, q_h, k_b, k_s, k_h, v_b, v_s, v_h, i_b, i_t, i_h, o_b, o_s, o_h,
    GROUP: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    tile, block, bh = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch = (bh // kv_heads).to(tl.int64)
    head = bh % kv_heads
    row = tile * TILE_M + tl.arange(0, TILE_M)
    live = row < GROUP * BLOCK
    token = block * BLOCK + row % BLOCK
    query_head = head * GROUP + row // BLOCK
    column = tl.arange(0, WIDTH)
    q_at = q_ptr + batch * q_b + token[:, None].to(tl.int64) * q_s + query_head[:, None] * q_h
    q = tl.load(q_at + column[None, :], mask=live[:, None], other=0.0)
    top = tl.full((TILE_M,), float("-inf"), tl.float32)
    total = tl.zeros((TILE_M,), tl.float32)
    acc = tl.zeros((TILE_M, WIDTH), tl.float32)
    index_at = index_ptr + batch * i_b + block * i_t + head * i_h
    k_at, v_at = k_ptr + batch * k_b + head * k_h, v_ptr + batch * v_b + head * v_h
    for n in range(listed):
        first = tl.load(index_at + n).to(tl.int64) * BLOCK
        for start in range(0, BLOCK, TILE_N):
            offset = start + tl.arange(0, TILE_N)
            inside = offset < BLOCK
            key = (first + offset)[:, None]
            k = tl.load(k_at + key * k_s + column[None, :], mask=inside[:, None], other=0.0)
            v = tl.load(v_at + key * v_s + column[None, :], mask=inside[:, None], other=0.0)
            if EXACT:
                scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
            else:
                scores = tl.dot(q, tl.trans(k)) * scale_log2
            scores = tl.where(inside[None, :], scores, float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, 1))
            weights = tl.exp2(scores - new_top[:, None])
            shrink = tl.exp2(top - new_top)
            total = total * shrink + tl.sum(weights, 1)
            acc = acc * shrink[:, None]
            if EXACT:
                acc += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
            else:
                acc += tl.dot(weights.to(v.dtype), v)
            top = new_top
    out = acc / total[:, None]
    out_at = out_ptr + batch * o_b + token[:, None].to(tl.int64) * o_s + query_head[:, None] * o_h
    tl.store(out_at + column[None, :], out.to(out_ptr.dtype.element_ty), mask=live[:, None])


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    block_indices: Tensor,
    block_size: int,
    out: Tensor | None = None,
) -> Tensor:
    """See `mosaic_core.kernels.attention.sparse.block_sparse_attention`. Forward only."""
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    block_indices = block_indices.contiguous()
    batch, tokens, heads, width = q.shape
    kv_heads, listed = k.shape[2], block_indices.shape[3]
    out = torch.empty_like(q, memory_format=torch.contiguous_format) if out is None else out
    group, blocks = heads // kv_heads, tokens // block_size
    tile_m = min(128, max(16, triton.next_power_of_2(group * block_size)))
    tile_n = min(64, max(16, triton.next_power_of_2(block_size)))
    exact = q.dtype == torch.float32
    grid = (triton.cdiv(group * block_size, tile_m), blocks, batch * kv_heads)
    with torch.cuda.device(q.device) if q.is_cuda else contextlib.nullcontext():
        _forward[grid](
            q, k, v, block_indices, out,
            width**-0.5 * 1.4426950408889634,
            blocks, listed, kv_heads,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
            *block_indices.stride()[:3], *out.stride()[:3],
            GROUP=group, BLOCK=block_size, WIDTH=width, TILE_M=tile_m, TILE_N=tile_n,
            EXACT=exact, num_warps=4, num_stages=2 if exact else 3,
        )  # fmt: skip
    return out
