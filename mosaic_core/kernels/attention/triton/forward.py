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

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from mosaic_core.kernels.attention.lists import JointLists
from mosaic_core.kernels.launch import aligned, capability, on_device

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
def _block_rows(
    src, stride, batch, head, key, part,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr, TILE_N: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Keys or values from token `key` on, which is `part` tokens into its block; 0 beyond it."""
    if DESCRIPTORS:
        x = src.load([batch, key, head, 0]).reshape(TILE_N, WIDTH)
    else:
        row = tl.arange(0, TILE_N)[:, None]
        at = src + row * stride + tl.arange(0, WIDTH)[None, :] + key.to(tl.int64) * stride
        x = tl.load(at) if BLOCK % TILE_N == 0 else tl.load(at, mask=part + row < BLOCK, other=0.0)
    return x


@triton.jit
def _attend(
    acc, top, total, q, k_src, v_src, k_s, v_s, batch, head, list_at, begin, end, scale_log2,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr, TILE_N: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Go on with the sums of an online softmax over the listed blocks from `begin` to `end`.

    The next block's number is read one step ahead, so that the loads of keys need not wait.
    """
    PARTS: tl.constexpr = (BLOCK + TILE_N - 1) // TILE_N
    following = tl.load(list_at + begin, mask=begin < end, other=0)
    for i in range(begin * PARTS, end * PARTS):
        part = i % PARTS * TILE_N
        key = following * BLOCK + part
        following = tl.load(list_at + (i + 1) // PARTS, mask=i + 1 < end * PARTS, other=0)
        k = _block_rows(k_src, k_s, batch, head, key, part, BLOCK, WIDTH, TILE_N, DESCRIPTORS)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        if BLOCK % TILE_N != 0:
            inside = part + tl.arange(0, TILE_N) < BLOCK
            scores = tl.where(inside[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1) * scale_log2)
        weights = tl.exp2(scores * scale_log2 - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        v = _block_rows(v_src, v_s, batch, head, key, part, BLOCK, WIDTH, TILE_N, DESCRIPTORS)
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision="ieee")
        top = new_top
    return acc, top, total


@triton.jit
def forward_kernel(
    q_ptr, k_src, v_src, list_ptr, ends_ptr, logits_ptr, compressed_ptr,
    out_ptr, o_local_ptr, o_selected_ptr, lse_local_ptr, lse_selected_ptr,
    scale_log2, listed, heads, kv_heads,
    q_b, q_s, q_h, k_b, k_s, k_h, v_b, v_s, v_h, i_b, i_t, i_h,
    g_b, g_s, g_h, c_b, c_t, c_h, o_b,
    GROUP: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr,
    GATED: tl.constexpr, SAVE: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Outputs lie together; `*_s` of the inputs count 8 elements; `o_local` may be `out` itself.

    Not GATED: the list is one segment of `listed` blocks, and `out` its softmax alone.
    """
    tile, block, bh = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch, head = bh // kv_heads, bh % kv_heads
    far = batch.to(tl.int64)
    row = tile * TILE_M + tl.arange(0, TILE_M)
    live = row < GROUP * BLOCK
    token = block * BLOCK + row % BLOCK
    query_head = head * GROUP + row // BLOCK
    column = tl.arange(0, WIDTH)[None, :]
    q_at = q_ptr + far * q_b + (token.to(tl.int64) * (q_s * 8) + query_head * q_h)[:, None]
    q = tl.load(q_at + column, mask=live[:, None], other=0.0)
    list_at = list_ptr + far * i_b + block * i_t + head * i_h
    if not DESCRIPTORS:
        k_src += far * k_b + head * k_h
        v_src += far * v_b + head * v_h
    place = far * o_b + (token * heads + query_head) * WIDTH
    near = far * (o_b // WIDTH) + token * heads + query_head

    acc = tl.zeros((TILE_M, WIDTH), tl.float32)
    top = tl.full((TILE_M,), float("-inf"), tl.float32)
    total = tl.zeros((TILE_M,), tl.float32)
    if GATED:
        ends_at = ends_ptr + ((far * tl.num_programs(1) + block) * kv_heads + head) * 3
        local_end = tl.load(ends_at)
        begin = tl.load(ends_at + 1)
        end = tl.load(ends_at + 2)
        acc, a_top, a_total = _attend(
            acc, top, total, q, k_src, v_src, k_s * 8, v_s * 8, batch, head, list_at,
            0, local_end, scale_log2, BLOCK, WIDTH, TILE_N, DESCRIPTORS,
        )  # fmt: skip
        stash = o_local_ptr + place[:, None] + column
        alone = acc / tl.where(a_total > 0, a_total, 1.0)[:, None]
        tl.store(stash, alone.to(stash.dtype.element_ty), mask=live[:, None])
        acc, top, total = _attend(
            tl.zeros((TILE_M, WIDTH), tl.float32), top, total,
            q, k_src, v_src, k_s * 8, v_s * 8, batch, head, list_at,
            local_end, begin, scale_log2, BLOCK, WIDTH, TILE_N, DESCRIPTORS,
        )  # fmt: skip
        # The local branch: what only it sees and what both see, on one maximum.
        local_top = tl.maximum(a_top, top)
        a_share = a_total * tl.exp2(a_top - local_top)
        b_share = tl.exp2(top - local_top)
        local_total = a_share + total * b_share
        tl.debug_barrier()
        local = tl.load(stash, mask=live[:, None], other=0.0).to(tl.float32)
        local = local * (a_share / local_total)[:, None] + acc * (b_share / local_total)[:, None]
        tl.debug_barrier()
        tl.store(stash, local.to(stash.dtype.element_ty), mask=live[:, None])
        if SAVE:
            tl.store(lse_local_ptr + near, local_top + tl.log2(local_total), mask=live)
    else:
        begin = 0
        end = listed

    acc, top, total = _attend(
        acc, top, total, q, k_src, v_src, k_s * 8, v_s * 8, batch, head, list_at,
        begin, end, scale_log2, BLOCK, WIDTH, TILE_N, DESCRIPTORS,
    )  # fmt: skip
    total = tl.where(total > 0, total, 1.0)
    out = acc / total[:, None]
    out_at = place[:, None] + column
    if SAVE:
        kept = out.to(o_selected_ptr.dtype.element_ty)
        tl.store(o_selected_ptr + out_at, kept, mask=live[:, None])
        tl.store(lse_selected_ptr + near, top + tl.log2(total), mask=live)
    if GATED:
        gate_at = logits_ptr + far * g_b + token.to(tl.int64) * g_s + query_head * g_h
        g_local, g_compressed, g_selected = _gates(gate_at, live)
        average_at = compressed_ptr + far * c_b + block * c_t + (query_head * c_h)[:, None] + column
        average = tl.load(average_at, mask=live[:, None], other=0.0).to(tl.float32)
        tl.debug_barrier()
        local = tl.load(o_local_ptr + out_at, mask=live[:, None], other=0.0).to(tl.float32)
        out = out * g_selected[:, None] + average * g_compressed[:, None] + local * g_local[:, None]
        tl.debug_barrier()
    tl.store(out_ptr + out_at, out.to(out_ptr.dtype.element_ty), mask=live[:, None])


@triton.jit
def _gates(at, live):
    """Softmax of three logits side by side, by row."""
    local = tl.load(at, mask=live, other=0.0).to(tl.float32)
    compressed = tl.load(at + 1, mask=live, other=0.0).to(tl.float32)
    selected = tl.load(at + 2, mask=live, other=0.0).to(tl.float32)
    top = tl.maximum(tl.maximum(local, compressed), selected)
    local, compressed, selected = (
        tl.exp(local - top),
        tl.exp(compressed - top),
        tl.exp(selected - top),
    )
    total = local + compressed + selected
    return local / total, compressed / total, selected / total


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
    lists, ends = joint.blocks.contiguous(), joint.ends.contiguous()
    return _launch(q, k, v, lists, block_size, out, ends, logits, compressed, saved), saved


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, lists: Tensor, block_size: int, out: Tensor | None = None
) -> Tensor:
    """See `mosaic_core.kernels.attention.sparse.block_sparse_attention`. Forward only."""
    return _launch(q, k, v, lists.to(torch.int32).contiguous(), block_size, out)


def _launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lists: Tensor,
    block_size: int,
    out: Tensor | None,
    ends: Tensor | None = None,
    logits: Tensor | None = None,
    compressed: Tensor | None = None,
    saved: Saved | None = None,
) -> Tensor:
    q, k, v = (aligned(x) for x in (q, k, v))
    out = torch.empty_like(q, memory_format=torch.contiguous_format) if out is None else out
    o_local, *rest = saved or (out, None, None, None)
    batch, tokens, heads, width = q.shape
    kv_heads, exact = k.shape[2], q.dtype == torch.float32
    group, blocks = heads // kv_heads, tokens // block_size
    shape = launch(capability(q, interpreted=(8, 0)), group * block_size, block_size, width, exact)
    box = [1, shape.tile_n, 1, width]
    keys, values = (
        TensorDescriptor.from_tensor(x, box) if shape.descriptors else x for x in (k, v)
    )
    grid = (triton.cdiv(group * block_size, shape.tile_m), blocks, batch * kv_heads)
    with on_device(q):
        forward_kernel[grid](
            q, keys, values, lists, ends, logits, compressed, out, o_local, *rest,
            width**-0.5 * _LOG2_E, lists.shape[3], heads, kv_heads,
            *_row_strides(q), *_row_strides(k), *_row_strides(v), *lists.stride()[:3],
            *_strides(logits), *_strides(compressed), out.stride(0),
            GROUP=group, BLOCK=block_size, WIDTH=width, TILE_M=shape.tile_m, TILE_N=shape.tile_n,
            GATED=logits is not None, SAVE=saved is not None,
            DESCRIPTORS=shape.descriptors, num_warps=shape.warps, num_stages=shape.stages,
        )  # fmt: skip
    return out


def launch(chip: tuple[int, int], rows: int, block_size: int, width: int, exact: bool) -> Launch:
    """The shape of program for a chip: the best on paper that compiles without spills.

    128 query rows fetch half as much from L2 as 64 do. On Hopper (9.0) four warps hold them, and
    two programs fit a multiprocessor: one multiplies while the other exponentiates. Elsewhere,
    and with pointers, four warps spill: eight hold them.

    Args:
        chip: compute capability.
        rows: query rows of a block and key-value head.
        exact: float32, which has no tensor cores.
    """
    most_m, most_n = (64, 32) if exact else (128, 64)
    tile_m = min(most_m, max(16, triton.next_power_of_2(rows)))
    tile_n = min(most_n, max(16, triton.next_power_of_2(block_size)))
    descriptors = chip[0] in (9, 10) and block_size % tile_n == 0
    small = tile_m * width <= (128 * 64 if chip[0] == 9 and descriptors else 64 * 64)
    return Launch(tile_m, tile_n, 4 if small else 8, 3, descriptors)


def _strides(x: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0) if x is None else x.stride()[:3]


def _row_strides(x: Tensor) -> tuple[int, int, int]:
    """Of batch, token (in units of 8 elements) and head.

    Triton itself finds out only which strides are multiples of 16, and a fused projection's rows
    need not be.
    """
    return x.stride(0), x.stride(1) // 8, x.stride(2)
