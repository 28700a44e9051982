"""Gradients of the attention to neighbours, each summed by one program in a fixed order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.kernels.interpolation.tiles import CHUNK, NOT_ONE, TILE, Tiles
from mosaic_core.kernels.launch import on_device

WARPS = 8
"""Of a program; with 4 some of the chips spill."""


@triton.jit
def score_slopes_kernel(
    weights_ptr, values_ptr, out_ptr, slope_ptr, scores_ptr,
    rows_ptr, first_ptr, union_ptr, slots_ptr,
    targets, values_b, values_s, values_h, out_b, out_s, out_h,
    K: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
    NOT_ONE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    head, tile, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    point, member = tl.arange(0, TILE), tl.arange(0, CHUNK)
    column = tl.arange(0, WIDTH)[None, :]
    row = tl.load(rows_ptr + tile * TILE + point)[:, None]
    out_at = batch * out_b + row.to(tl.int64) * out_s + head * out_h + column
    slope = tl.load(slope_ptr + out_at, mask=row >= 0, other=0.0)
    out = tl.load(out_ptr + out_at, mask=row >= 0, other=0.0)
    # Over the neighbours, weights times the slopes of the weights add up to this.
    mean = tl.sum(slope.to(tl.float32) * out.to(tl.float32), 1)[:, None]
    entries = (batch * tl.num_programs(0) + head) * targets * K
    values_at = values_ptr + batch * values_b + head * values_h + column
    for chunk in range(tl.load(first_ptr + tile), tl.load(first_ptr + tile + 1)):
        source = tl.load(union_ptr + chunk * CHUNK + member)[:, None]
        values = tl.load(values_at + source.to(tl.int64) * values_s, mask=source >= 0, other=0.0)
        table = chunk * (TILE * CHUNK) + point[:, None] * CHUNK + member[None, :]
        slot = tl.load(slots_ptr + table).to(tl.int32)
        met = slot != NOT_ONE
        entry = entries + row * K + slot
        weights = tl.load(weights_ptr + entry, mask=met, other=0.0).to(tl.float32)
        if EXACT:
            dots = tl.dot(slope, tl.trans(values), input_precision="ieee")
        else:
            dots = tl.dot(slope, tl.trans(values))
        tl.store(scores_ptr + entry, weights * (dots - mean), mask=met)


@triton.jit
def source_slopes_kernel(
    weights_ptr, scores_ptr, directions_ptr, slope_ptr, values_ptr, kappa_ptr,
    rows_ptr, first_ptr, union_ptr, slots_ptr,
    targets, slope_b, slope_s, slope_h, values_b, values_s, values_h, kappa_b, kappa_s, kappa_h,
    K: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
    NOT_ONE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    head, tile, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    point, member = tl.arange(0, TILE), tl.arange(0, CHUNK)
    column = tl.arange(0, WIDTH)[None, :]
    entries = (batch * tl.num_programs(0) + head) * targets * K
    slope_at = slope_ptr + batch * slope_b + head * slope_h + column
    values = tl.zeros((TILE, WIDTH), tl.float32)
    x = tl.zeros((TILE,), tl.float32)
    y, z = x, x
    for chunk in range(tl.load(first_ptr + tile), tl.load(first_ptr + tile + 1)):
        target = tl.load(union_ptr + chunk * CHUNK + member)
        live = (target >= 0)[:, None]
        slope = tl.load(slope_at + target[:, None].to(tl.int64) * slope_s, mask=live, other=0.0)
        table = chunk * (TILE * CHUNK) + point[:, None] * CHUNK + member[None, :]
        slot = tl.load(slots_ptr + table).to(tl.int32)
        met = slot != NOT_ONE
        entry = target[None, :] * K + slot
        weights = tl.load(weights_ptr + entries + entry, mask=met, other=0.0)
        if EXACT:
            values += tl.dot(weights, slope, input_precision="ieee")
        else:
            values += tl.dot(weights.to(slope.dtype), slope)
        scores = tl.load(scores_ptr + entries + entry, mask=met, other=0.0)
        chord = directions_ptr + entry * 3
        x += tl.sum(scores * tl.load(chord, mask=met, other=0.0).to(tl.float32), 1)
        y += tl.sum(scores * tl.load(chord + 1, mask=met, other=0.0).to(tl.float32), 1)
        z += tl.sum(scores * tl.load(chord + 2, mask=met, other=0.0).to(tl.float32), 1)
    row = tl.load(rows_ptr + tile * TILE + point)
    source = row.to(tl.int64)
    values_at = values_ptr + batch * values_b + source[:, None] * values_s + head * values_h
    tl.store(values_at + column, values.to(values_ptr.dtype.element_ty), mask=row[:, None] >= 0)
    kappa_at = kappa_ptr + batch * kappa_b + source * kappa_s + head * kappa_h
    kappa_type = kappa_ptr.dtype.element_ty
    tl.store(kappa_at, x.to(kappa_type), mask=row >= 0)
    tl.store(kappa_at + 1, y.to(kappa_type), mask=row >= 0)
    tl.store(kappa_at + 2, z.to(kappa_type), mask=row >= 0)


def score_slopes(
    weights: Tensor, values: Tensor, out: Tensor, slope: Tensor, tiles: Tiles
) -> Tensor:
    """Gradient by the scores, (batch, head, target, k) float32, from that by `out`, `slope`.

    Both (batch, target, head, width), contiguous; `tiles` of targets.
    """
    batch, heads, targets, k = weights.shape
    scores = torch.empty(weights.shape, dtype=torch.float32, device=weights.device)
    with on_device(values):
        score_slopes_kernel[heads, len(tiles.rows), batch](
            weights, values, out, slope, scores, *tiles,
            targets, *values.stride()[:3], *out.stride()[:3],
            K=k, WIDTH=values.shape[3], TILE=TILE, CHUNK=CHUNK, NOT_ONE=NOT_ONE,
            EXACT=values.dtype == torch.float32, num_warps=WARPS, num_stages=1,
        )  # fmt: skip
    return scores


def source_slopes(
    weights: Tensor,
    scores: Tensor,
    directions: Tensor,
    slope: Tensor,
    tiles: Tiles,
    kappa: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients by kappa and by the values, from those by the scores and by the output.

    Every source takes what it needs from the targets that use it, in the order of its union:
    `tiles` of sources. Partial sums of the tiles of targets would take more memory.
    """
    batch, heads, targets, k = weights.shape
    width, sources = slope.shape[3], kappa.shape[1]
    values = torch.empty(batch, sources, heads, width, dtype=slope.dtype, device=slope.device)
    kappa = torch.empty(batch, sources, heads, 3, dtype=kappa.dtype, device=kappa.device)
    with on_device(slope):
        source_slopes_kernel[heads, len(tiles.rows), batch](
            weights, scores, directions, slope, values, kappa, *tiles,
            targets, *slope.stride()[:3], *values.stride()[:3], *kappa.stride()[:3],
            K=k, WIDTH=width, TILE=TILE, CHUNK=CHUNK, NOT_ONE=NOT_ONE,
            EXACT=slope.dtype == torch.float32, num_warps=WARPS, num_stages=1,
        )  # fmt: skip
    return kappa, values
