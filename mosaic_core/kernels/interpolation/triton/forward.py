"""Weights of the neighbours, and the sums that they weigh, tile by tile of targets."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.kernels.interpolation.tiles import CHUNK, NOT_ONE, TILE, Tiles
from mosaic_core.kernels.launch import on_device

_SCORES = 2048
"""Of a program that computes weights: a single warp, for all heads of a few targets."""

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def weights_kernel(
    kappa_ptr, neighbours_ptr, directions_ptr, weights_ptr,
    sources, targets,
    K: tl.constexpr, K_PAD: tl.constexpr, HEADS: tl.constexpr, HEADS_PAD: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    target = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    slot = tl.arange(0, K_PAD)[None, :]
    entry = target * K + slot
    inside = (target < targets) & (slot < K)
    source = tl.load(neighbours_ptr + entry, mask=inside, other=0).to(tl.int64)
    head = tl.arange(0, HEADS_PAD)[None, None, :]
    live = inside[:, :, None] & (head < HEADS)
    kappa_at = kappa_ptr + (batch * sources + source)[:, :, None] * (3 * HEADS) + head
    scores = tl.zeros((ROWS, K_PAD, HEADS_PAD), tl.float32)
    for c in tl.static_range(3):
        chord = tl.load(directions_ptr + entry * 3 + c, mask=inside, other=0.0).to(tl.float32)
        kappa = tl.load(kappa_at + c * HEADS, mask=live, other=0.0).to(tl.float32)
        scores += chord[:, :, None] * kappa
    scores = tl.where(slot[:, :, None] < K, scores, float("-inf"))
    weights = tl.exp2((scores - tl.max(scores, 1)[:, None, :]) * _LOG2_E)
    weights = weights / tl.sum(weights, 1)[:, None, :]
    weights_at = weights_ptr + (batch * HEADS + head) * targets * K + entry[:, :, None]
    tl.store(weights_at, weights.to(weights_ptr.dtype.element_ty), mask=live)


@triton.jit
def sums_kernel(
    weights_ptr, values_ptr, out_ptr, rows_ptr, first_ptr, union_ptr, slots_ptr,
    targets, values_b, values_s, values_h, out_b, out_s, out_h,
    K: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
    NOT_ONE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    head, tile, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    point, member = tl.arange(0, TILE), tl.arange(0, CHUNK)
    column = tl.arange(0, WIDTH)[None, :]
    row = tl.load(rows_ptr + tile * TILE + point)
    weights_at = weights_ptr + (batch * tl.num_programs(0) + head) * targets * K
    values_at = values_ptr + batch * values_b + head * values_h + column
    acc = tl.zeros((TILE, WIDTH), tl.float32)
    for chunk in range(tl.load(first_ptr + tile), tl.load(first_ptr + tile + 1)):
        source = tl.load(union_ptr + chunk * CHUNK + member)[:, None]
        values = tl.load(values_at + source.to(tl.int64) * values_s, mask=source >= 0, other=0.0)
        table = chunk * (TILE * CHUNK) + point[:, None] * CHUNK + member[None, :]
        slot = tl.load(slots_ptr + table).to(tl.int32)
        entry = row[:, None] * K + slot
        weights = tl.load(weights_at + entry, mask=slot != NOT_ONE, other=0.0)
        if EXACT:
            acc += tl.dot(weights, values, input_precision="ieee")
        else:
            acc += tl.dot(weights, values)
    out_at = out_ptr + batch * out_b + row[:, None].to(tl.int64) * out_s + head * out_h + column
    tl.store(out_at, acc.to(out_ptr.dtype.element_ty), mask=row[:, None] >= 0)


def weights_shape(k: int, heads: int) -> dict[str, int]:
    """Sizes of the tensor of scores that a program of `weights_kernel` holds."""
    k_pad, heads_pad = triton.next_power_of_2(k), triton.next_power_of_2(heads)
    rows = min(64, max(1, _SCORES // (k_pad * heads_pad)))
    return {"K": k, "K_PAD": k_pad, "HEADS": heads, "HEADS_PAD": heads_pad, "ROWS": rows}


def neighbour_weights(
    kappa: Tensor, neighbours: Tensor, directions: Tensor, dtype: torch.dtype
) -> Tensor:
    """Softmax over the neighbours of direction . kappa: (batch, head, target, k)."""
    batch, sources, heads, _ = kappa.shape
    targets, k = neighbours.shape
    # The heads of a source lie side by side, so that one load takes several.
    kappa = kappa.transpose(2, 3).contiguous()
    weights = torch.empty(batch, heads, targets, k, dtype=dtype, device=kappa.device)
    shape = weights_shape(k, heads)
    with on_device(kappa):
        weights_kernel[triton.cdiv(targets, shape["ROWS"]), batch](
            kappa, neighbours.contiguous(), directions.contiguous(), weights,
            sources, targets, **shape, num_warps=1,
        )  # fmt: skip
    return weights


def weighted_sums(weights: Tensor, values: Tensor, tiles: Tiles) -> Tensor:
    """Sums of the neighbours' values, (batch, target, head, width).

    A tile's union of value rows is read once and multiplied with a dense matrix of weights, zero
    where two points are no neighbours.
    """
    batch, heads, targets, k = weights.shape
    width = values.shape[3]
    out = torch.empty(batch, targets, heads, width, dtype=values.dtype, device=values.device)
    with on_device(values):
        sums_kernel[heads, len(tiles.rows), batch](
            weights, values, out, *tiles,
            targets, *values.stride()[:3], *out.stride()[:3],
            K=k, WIDTH=width, TILE=TILE, CHUNK=CHUNK, NOT_ONE=NOT_ONE,
            EXACT=values.dtype == torch.float32, num_warps=4, num_stages=1,
        )  # fmt: skip
    return out
