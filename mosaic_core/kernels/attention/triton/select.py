"""Selection of key blocks in Triton: from a row of scores to its joint list, in one launch.

The score of rank `count` is found bit by bit from the top, each bit by one count over the row: 32
counts, where ranking every score against every other would take as many as there are key blocks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.kernels.attention.lists import JointLists
from mosaic_core.kernels.launch import on_device


@triton.jit
def _ordered(score):
    """Unsigned integers in the order of the scores; NaN as minus infinity, -0 as 0."""
    score = score.to(tl.float32)
    score = tl.where(score == score, score, float("-inf"))
    score = tl.where(score == 0.0, 0.0, score)
    bits = score.to(tl.int32, bitcast=True)
    flip = (bits >> 31) | -2147483648
    return (bits ^ flip).to(tl.uint32, bitcast=True)


@triton.jit
def _select(
    scores_ptr, blocks_ptr, ends_ptr,
    blocks, kv_heads, count,
    s_b, s_t, s_h,
    LOCAL: tl.constexpr, WIDTH: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = row % kv_heads
    block = row // kv_heads % blocks
    batch = row // kv_heads // blocks
    u = tl.arange(0, WIDTH)
    there = u < blocks
    score = tl.load(scores_ptr + batch * s_b + block * s_t + head * s_h + u, mask=there, other=0.0)
    # Below every score, minus infinity too.
    key = tl.where(there, _ordered(score), 0)
    threshold = tl.full((), 0, tl.uint32)
    bit = tl.full((), 0x80000000, tl.uint32)
    for _ in range(32):
        raised = threshold | bit
        threshold = tl.where(tl.sum((key >= raised).to(tl.int32), 0) >= count, raised, threshold)
        bit = bit >> 1
    above = key > threshold
    level = (key == threshold).to(tl.int32)
    room = count - tl.sum(above.to(tl.int32), 0)
    chosen = above | ((level > 0) & (tl.cumsum(level, 0) <= room))
    taken = chosen.to(tl.int32)
    before = tl.cumsum(taken, 0) - taken

    first = (block // LOCAL * LOCAL).to(tl.int32)
    local = (u >= first) & (u < first + LOCAL)
    both = tl.sum(tl.where(local, taken, 0), 0)
    inside = before - tl.sum(tl.where(u < first, taken, 0), 0)
    of_local = tl.where(chosen, LOCAL - both + inside, u - first - inside)
    of_others = LOCAL + before - tl.where(u < first, 0, both)
    place = tl.where(local, of_local, of_others)
    listed = LOCAL + count
    list_at = blocks_ptr + row * listed
    tl.store(list_at + place, u, mask=there & (local | chosen))
    end = listed - both
    rest = tl.arange(0, TAIL)
    tl.store(list_at + end + rest, tl.full((TAIL,), -1, tl.int32), mask=rest < both)
    kind = tl.arange(0, 4)
    ends = tl.where(kind == 0, LOCAL - both, tl.where(kind == 1, LOCAL, end))
    tl.store(ends_ptr + row * 3 + kind, ends, mask=kind < 3)


def select(scores: Tensor, count: int, local_blocks: int) -> JointLists:
    """See `mosaic_core.kernels.attention.lists.select`."""
    scores = scores if scores.stride(-1) == 1 else scores.contiguous()
    batch, blocks, kv_heads, _ = scores.shape
    shape = (batch, blocks, kv_heads)
    new = {"dtype": torch.int32, "device": scores.device}
    lists = JointLists(
        torch.empty(*shape, local_blocks + count, **new), torch.empty(*shape, 3, **new)
    )
    width = max(16, triton.next_power_of_2(blocks))
    with on_device(scores):
        _select[(batch * blocks * kv_heads,)](
            scores, lists.blocks, lists.ends,
            blocks, kv_heads, count,
            *scores.stride()[:3],
            LOCAL=local_blocks, WIDTH=width, TAIL=triton.next_power_of_2(local_blocks),
            num_warps=warps(width),
        )  # fmt: skip
    return lists


def warps(width: int) -> int:
    """Of a program that holds `width` scores: one up to 1024, so that counts stay in the warp."""
    return max(1, min(8, width // 1024))
