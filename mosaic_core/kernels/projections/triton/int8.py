"""Rounding of rows to 8 bits and linear maps of them in Triton: sums are exact in 32 bits."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.kernels.feed_forward.triton import forward as feed_forward
from mosaic_core.kernels.feed_forward.triton.tiles import (
    Launch,
    has_room,
    load_tile,
    place,
    programs,
    rows_of,
)
from mosaic_core.kernels.launch import capability, on_device
from mosaic_core.kernels.projections.reference import LEAST_TOP, NORM_EPS


@triton.jit
def _quantise_rows(
    x_ptr, q_ptr, scale_ptr, rows, features, x_row,
    NORM: tl.constexpr, EPS: tl.constexpr, LEAST: tl.constexpr,
    ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, TILE)
    mask = (row < rows)[:, None] & (column < features)[None, :]
    x = tl.load(x_ptr + row[:, None] * x_row + column[None, :], mask=mask, other=0.0)
    x = x.to(tl.float32)
    finite = tl.abs(x) < float("inf")
    lost = tl.sum((~finite).to(tl.int32), 1) > 0
    x = tl.where(finite, x, 0.0)
    top = tl.max(tl.abs(x), 1)
    inverse = tl.where(top > LEAST, tl.div_rn(127.0, tl.maximum(top, LEAST)), 0.0)
    # Added to 1.5 * 2^23 a number of under 2^22 loses its fraction, ties to even.
    rounded = (x * inverse[:, None] + 12582912.0) - 12582912.0
    q_at = q_ptr + row[:, None] * features + column[None, :]
    tl.store(q_at, rounded.to(tl.int8), mask=mask)
    scale = tl.where(lost, float("nan"), tl.div_rn(top, 127.0))
    if NORM:
        scale *= 1.0 / tl.sqrt_rn(tl.sum(x * x, 1) / features + EPS)
    tl.store(scale_ptr + row, scale, mask=row < rows)


def rounding(features: int) -> dict[str, int]:
    """Shape of a program that rounds rows: whole rows, 4096 numbers or one row."""
    tile = triton.next_power_of_2(features)
    return {"ROWS": max(1, 4096 // tile), "TILE": tile}


def quantise_rows(x: Tensor, norm: bool) -> tuple[Tensor, Tensor]:
    """See `mosaic_core.kernels.projections.int8.quantise_rows`."""
    flat = rows_of(x)
    count, features = flat.shape
    q = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    scale = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    shape = rounding(features)
    with on_device(x):
        _quantise_rows[(triton.cdiv(count, shape["ROWS"]),)](
            flat, q, scale, count, features, flat.stride(0),
            NORM=norm, EPS=NORM_EPS, LEAST=LEAST_TOP, **shape, num_warps=4,
        )  # fmt: skip
    return q, scale


@triton.jit
def _linear(
    x, w, out, x_scale_ptr, w_scale_ptr, rows, dim, outputs, x_row, w_row, programs,
    ADD: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
    GROUP: tl.constexpr, DESCRIPTORS: tl.constexpr, EXACT: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    tl.static_assert(INTEGER)
    runs, columns = tl.cdiv(rows, TILE_M), tl.cdiv(outputs, TILE_N)
    for tile in tl.range(
        tl.program_id(0), runs * columns, programs, flatten=DESCRIPTORS and not ADD
    ):
        run, n = place(tile, runs, columns, GROUP)
        total = tl.zeros((TILE_M, TILE_N), tl.int32)
        for k in range(0, dim, TILE_K):
            a = load_tile(x, run * TILE_M, k, rows, dim, x_row, TILE_M, TILE_K, DESCRIPTORS)
            b = load_tile(w, n * TILE_N, k, outputs, dim, w_row, TILE_N, TILE_K, DESCRIPTORS)
            total = tl.dot(a, tl.trans(b), total, out_dtype=tl.int32)
        row = run * TILE_M + tl.arange(0, TILE_M)
        column = n * TILE_N + tl.arange(0, TILE_N)
        live, inside = row < rows, column < outputs
        of_row = tl.load(x_scale_ptr + row, mask=live, other=0.0)
        of_column = tl.load(w_scale_ptr + column, mask=inside, other=0.0)
        value = total.to(tl.float32) * of_row[:, None] * of_column[None, :]
        at = row[:, None].to(tl.int64) * outputs + column[None, :]
        both = live[:, None] & inside[None, :]
        if DESCRIPTORS:
            if ADD:
                value += out.load([run * TILE_M, n * TILE_N]).to(tl.float32)
            out.store([run * TILE_M, n * TILE_N], value)
        else:
            if ADD:
                value += tl.load(out + at, mask=both, other=0.0).to(tl.float32)
            tl.store(out + at, value.to(out.dtype.element_ty), mask=both)


def launch_of(capability: tuple[int, int]) -> Launch:
    """Shape of a program by compute capability."""
    if has_room(capability):
        return Launch(128, 256, 128, 8, 3, True)
    return Launch(128, 128, 64, 8, 3, False)


def int8_linear(
    xq: Tensor,
    xs: Tensor,
    wq: Tensor,
    ws: Tensor,
    out: Tensor,
    *,
    add: bool,
    launch: Launch | None = None,
) -> None:
    """Writes to or adds to `out` (..., outputs), contiguous."""
    launch = launch or launch_of(capability(xq, interpreted=(9, 0)))
    rows, weights = rows_of(xq), rows_of(wq)
    count = programs(xq)
    with on_device(xq):
        _linear[(count,)](
            *launch.described(
                (rows, launch.tile_m, launch.tile_k),
                (weights, launch.tile_n, launch.tile_k),
                (out.view(-1, len(weights)), launch.tile_m, launch.tile_n),
            ),
            xs.contiguous(), ws.contiguous(),
            *rows.shape, weights.shape[0], rows.stride(0), weights.stride(0), count,
            ADD=add, **launch.constants(xq.dtype), num_warps=launch.warps,
            num_stages=launch.stages,
        )  # fmt: skip


def int8_swiglu(
    xq: Tensor, xs: Tensor, w13q: Tensor, w13s: Tensor, shift: Tensor | None, out: Tensor
) -> None:
    """Writes to `out` (batch, token, hidden), contiguous."""
    feed_forward.swiglu(xq, xs, w13q, shift, w_scale=w13s.contiguous(), out=out)
