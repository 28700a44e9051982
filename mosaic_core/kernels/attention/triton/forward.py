"""Forward attention of query blocks to listed key blocks: two branches and their gates at once.

One program holds a tile of the query rows of one query block and one key-value head. The rows
are the block's tokens times the heads of the group, since all of them attend to the same keys.

The list of a query block names key blocks that are local only, both local and selected, and
selected only. Partial sums of an online softmax (Milakov and Gimelshein 2018) over the first are
A, over the second B: A and B together are the local branch, and B goes on over the third to
become the selected branch, so that no block is met twice. What is finished waits in `out`,
which frees its registers.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from mosaic_core.kernels.attention.lists import JointLists

_LOG2_E = 1.4426950408889634


class Saved(NamedTuple):
    """What the backward pass needs of the forward one.

    Attributes:
        o_local, o_selected: outputs of the branches without gates, (batch, token, head, width).
        lse_local, lse_selected: log2 of the sum of exp2(scaled scores), (batch, token, head),
            float32.
    """

    o_local: Tensor
    o_selected: Tensor
    lse_local: Tensor
    lse_selected: Tensor


class Launch(NamedTuple):
    """Shape of a program.

    Attributes:
        tile_m, tile_n: query rows and keys of a tile.
        warps, stages: of the program and of its pipeline of loads.
        descriptors: keys and values come by tensor descriptors (TMA), not by pointers.
    """

    tile_m: int
    tile_n: int
    warps: int
    stages: int
    descriptors: bool


@triton.jit
def _attend(
    acc, top, total, q, k_src, v_src, k_s, v_s, batch, head, list_at, begin, end, scale_log2,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr, TILE_N: tl.constexpr,
    EXACT: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Go on with the sums of an online softmax over the listed blocks from `begin` to `end`."""
    PARTS: tl.constexpr = (BLOCK + TILE_N - 1) // TILE_N
    PRECISION: tl.constexpr = "ieee" if EXACT else "tf32"
    row = tl.arange(0, TILE_N)
    if not DESCRIPTORS:
        column = tl.arange(0, WIDTH)[None, :]
        k_at = k_src + row[:, None] * k_s + column
        v_at = v_src + row[:, None] * v_s + column
    following = tl.load(list_at + begin, mask=begin < end, other=0)
    for i in range(begin * PARTS, end * PARTS):
        part = i % PARTS * TILE_N
        key = following * BLOCK + part
        following = tl.load(list_at + (i + 1) // PARTS, mask=i + 1 < end * PARTS, other=0)
        if DESCRIPTORS:
            k = k_src.load([batch, key, head, 0]).reshape(TILE_N, WIDTH)
        elif BLOCK % TILE_N == 0:
            k = tl.load(k_at + key.to(tl.int64) * k_s)
        else:
            inside = (part + row < BLOCK)[:, None]
            k = tl.load(k_at + key.to(tl.int64) * k_s, mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if BLOCK % TILE_N != 0:
            scores = tl.where((part + row < BLOCK)[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1) * scale_log2)
        weights = tl.exp2(scores * scale_log2 - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        if DESCRIPTORS:
            v = v_src.load([batch, key, head, 0]).reshape(TILE_N, WIDTH)
        elif BLOCK % TILE_N == 0:
            v = tl.load(v_at + key.to(tl.int64) * v_s)
        else:
            inside = (part + row < BLOCK)[:, None]
            v = tl.load(v_at + key.to(tl.int64) * v_s, mask=inside, other=0.0)
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision=PRECISION)
        top = new_top
    return acc, top, total


@triton.jit
def forward_kernel(
    q_ptr, k_src, v_src, list_ptr, ends_ptr, out_ptr, logits_ptr, compressed_ptr,
    o_local_ptr, o_selected_ptr, lse_local_ptr, lse_selected_ptr,
    scale_log2, listed, kv_heads,
    q_b, q_s, q_h, k_b, k_s, k_h, v_b, v_s, v_h, i_b, i_t, i_h, o_b, o_s, o_h,
    g_b, g_s, g_h, c_b, c_t, c_h, s_b, s_s,
    GROUP: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr,
    GATED: tl.constexpr, SAVE: tl.constexpr, EXACT: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Not GATED: the list is one segment of `listed` blocks, and `out` its softmax alone."""
    tile, block, bh = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch, head = bh // kv_heads, bh % kv_heads
    far = batch.to(tl.int64)
    q_s, k_s, v_s = q_s * 8, k_s * 8, v_s * 8

    row = tile * TILE_M + tl.arange(0, TILE_M)
    live = row < GROUP * BLOCK
    token = (block * BLOCK + row % BLOCK).to(tl.int64)
    query_head = head * GROUP + row // BLOCK
    column = tl.arange(0, WIDTH)[None, :]
    q_at = q_ptr + far * q_b + token[:, None] * q_s + query_head[:, None] * q_h + column
    q = tl.load(q_at, mask=live[:, None], other=0.0)
    out_at = out_ptr + far * o_b + token[:, None] * o_s + query_head[:, None] * o_h + column
    list_at = list_ptr + far * i_b + block * i_t + head * i_h
    if not DESCRIPTORS:
        k_src += far * k_b + head * k_h
        v_src += far * v_b + head * v_h

    acc = tl.zeros((TILE_M, WIDTH), tl.float32)
    top = tl.full((TILE_M,), float("-inf"), tl.float32)
    total = tl.zeros((TILE_M,), tl.float32)
    if GATED:
        ends_at = ends_ptr + ((far * tl.num_programs(1) + block) * kv_heads + head) * 3
        local_end = tl.load(ends_at)
        both_end = tl.load(ends_at + 1)
        end = tl.load(ends_at + 2)
        acc, alone_top, alone_total = _attend(
            acc, top, total, q, k_src, v_src, k_s, v_s, batch, head, list_at,
            0, local_end, scale_log2, BLOCK, WIDTH, TILE_N, EXACT, DESCRIPTORS,
        )  # fmt: skip
        alone = acc / tl.where(alone_total > 0, alone_total, 1.0)[:, None]
        tl.store(out_at, alone.to(out_ptr.dtype.element_ty), mask=live[:, None])
        acc = tl.zeros((TILE_M, WIDTH), tl.float32)
        acc, top, total = _attend(
            acc, top, total, q, k_src, v_src, k_s, v_s, batch, head, list_at,
            local_end, both_end, scale_log2, BLOCK, WIDTH, TILE_N, EXACT, DESCRIPTORS,
        )  # fmt: skip

        # The local branch: what only it sees and what both see, on one maximum.
        local_top = tl.maximum(alone_top, top)
        alone_weight = alone_total * tl.exp2(alone_top - local_top)
        both_weight = tl.exp2(top - local_top)
        local_total = alone_weight + total * both_weight
        tl.debug_barrier()
        alone = tl.load(out_at, mask=live[:, None], other=0.0).to(tl.float32)
        local = alone * (alone_weight / local_total)[:, None]
        local += acc * (both_weight / local_total)[:, None]
        near = token * s_s + query_head
        if SAVE:
            o_at = far * o_b + token[:, None] * o_s + query_head[:, None] * o_h + column
            tl.store(o_local_ptr + o_at, local.to(o_local_ptr.dtype.element_ty), mask=live[:, None])
            tl.store(lse_local_ptr + far * s_b + near, local_top + tl.log2(local_total), mask=live)

        gate_at = logits_ptr + far * g_b + token * g_s + query_head * g_h
        gate_local = tl.load(gate_at, mask=live, other=0.0).to(tl.float32)
        gate_compressed = tl.load(gate_at + 1, mask=live, other=0.0).to(tl.float32)
        gate_selected = tl.load(gate_at + 2, mask=live, other=0.0).to(tl.float32)
        highest = tl.maximum(tl.maximum(gate_local, gate_compressed), gate_selected)
        gate_local = tl.exp2((gate_local - highest) * 1.4426950408889634)
        gate_compressed = tl.exp2((gate_compressed - highest) * 1.4426950408889634)
        gate_selected = tl.exp2((gate_selected - highest) * 1.4426950408889634)
        gates = gate_local + gate_compressed + gate_selected
        compressed_at = compressed_ptr + far * c_b + block * c_t + query_head[:, None] * c_h
        compressed = tl.load(compressed_at + column, mask=live[:, None], other=0.0)
        mixed = local * (gate_local / gates)[:, None]
        mixed += compressed.to(tl.float32) * (gate_compressed / gates)[:, None]
        gate_selected /= gates
        tl.debug_barrier()
        tl.store(out_at, mixed.to(out_ptr.dtype.element_ty), mask=live[:, None])
    else:
        both_end = 0
        end = listed

    acc, top, total = _attend(
        acc, top, total, q, k_src, v_src, k_s, v_s, batch, head, list_at,
        both_end, end, scale_log2, BLOCK, WIDTH, TILE_N, EXACT, DESCRIPTORS,
    )  # fmt: skip
    total = tl.where(total > 0, total, 1.0)
    out = acc / total[:, None]
    if SAVE:
        o_at = far * o_b + token[:, None] * o_s + query_head[:, None] * o_h + column
        tl.store(o_selected_ptr + o_at, out.to(o_selected_ptr.dtype.element_ty), mask=live[:, None])
        lse_at = lse_selected_ptr + far * s_b + token * s_s + query_head
        tl.store(lse_at, top + tl.log2(total), mask=live)
    if GATED:
        tl.debug_barrier()
        mixed = tl.load(out_at, mask=live[:, None], other=0.0).to(tl.float32)
        out = mixed + out * gate_selected[:, None]
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=live[:, None])


def gated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    logits: Tensor,
    compressed: Tensor,
    joint: JointLists,
    block_size: int,
    *,
    save: bool,
    out: Tensor | None = None,
) -> tuple[Tensor, Saved | None]:
    """See `mosaic_core.kernels.attention.gated.gated_attention`. Forward only.

    Args:
        save: give what the backward pass needs.
        out: contiguous buffer to write to.
    """
    saved = None
    if save:
        rows = q.new_empty((2, *q.shape[:3]), dtype=torch.float32)
        saved = Saved(*q.new_empty((2, *q.shape)), *rows)
    logits, compressed = (x if x.stride(-1) == 1 else x.contiguous() for x in (logits, compressed))
    joint = JointLists(*(x.contiguous() for x in joint))
    return _launch(q, k, v, joint, logits, compressed, saved, block_size, out), saved


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, lists: Tensor, block_size: int, out: Tensor | None = None
) -> Tensor:
    """See `mosaic_core.kernels.attention.sparse.block_sparse_attention`. Forward only."""
    blocks = lists.to(torch.int32).contiguous()
    return _launch(q, k, v, JointLists(blocks, blocks), None, None, None, block_size, out)


def _launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    joint: JointLists,
    logits: Tensor | None,
    compressed: Tensor | None,
    saved: Saved | None,
    block_size: int,
    out: Tensor | None,
) -> Tensor:
    q, k, v = (_rows(x) for x in (q, k, v))
    out = torch.empty_like(q, memory_format=torch.contiguous_format) if out is None else out
    batch, tokens, heads, width = q.shape
    kv_heads = k.shape[2]
    group, blocks = heads // kv_heads, tokens // block_size
    shape = launch(q, group * block_size, block_size)
    box = [1, shape.tile_n, 1, width]
    keys, values = (
        TensorDescriptor.from_tensor(x, box) if shape.descriptors else x for x in (k, v)
    )
    none = (0, 0, 0)
    grid = (triton.cdiv(group * block_size, shape.tile_m), blocks, batch * kv_heads)
    with torch.cuda.device(q.device) if q.is_cuda else contextlib.nullcontext():
        forward_kernel[grid](
            q, keys, values, joint.blocks, joint.ends, out, logits, compressed,
            *(saved or (None,) * 4),
            width**-0.5 * _LOG2_E, joint.blocks.shape[3], kv_heads,
            *_strides(q), *_strides(k), *_strides(v), *joint.blocks.stride()[:3], *out.stride()[:3],
            *(none if logits is None else logits.stride()[:3]),
            *(none if compressed is None else compressed.stride()[:3]),
            tokens * heads, heads,
            GROUP=group, BLOCK=block_size, WIDTH=width, TILE_M=shape.tile_m, TILE_N=shape.tile_n,
            GATED=logits is not None, SAVE=saved is not None, EXACT=q.dtype == torch.float32,
            DESCRIPTORS=shape.descriptors, num_warps=shape.warps, num_stages=shape.stages,
        )  # fmt: skip
    return out


def launch(q: Tensor, rows: int, block_size: int) -> Launch:
    """The shape of program for the chip of `q`, `rows` queries of a group in a block."""
    tile_m = min(128, max(16, triton.next_power_of_2(rows)))
    tile_n = min(64, max(16, triton.next_power_of_2(block_size)))
    return Launch(tile_m, tile_n, 8, 3, False)


def _strides(x: Tensor) -> tuple[int, int, int]:
    """Of batch, token (in units of 8 elements, as the kernel takes it) and head."""
    return x.stride(0), x.stride(1) // 8, x.stride(2)


def _rows(x: Tensor) -> Tensor:
    """x with rows that 16-byte copies can fetch."""
    aligned = x.data_ptr() % 16 == 0 and not any(n % 8 for n in x.stride()[:3])
    return x if aligned and x.stride(-1) == 1 else x.contiguous()
