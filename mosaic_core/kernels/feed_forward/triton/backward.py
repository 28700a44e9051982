"""Gradient of SwiGLU in Triton: it makes both products anew, the forward pass keeps none."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.kernels.feed_forward.triton.forward import products, scaled
from mosaic_core.kernels.feed_forward.triton.tiles import (
    Launch,
    has_room,
    place,
    programs,
    rows_of,
)
from mosaic_core.kernels.launch import capability, on_device


@triton.jit
def _gradient(
    x, w13, slope_in, du_out, sum_ptr, scale_ptr, shift_ptr,
    tokens, dim, hidden, rows, x_row, w_row, programs,
    SCALED: tl.constexpr, SHIFTED: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr, GROUP: tl.constexpr,
    DESCRIPTORS: tl.constexpr, EXACT: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    columns = tl.cdiv(hidden, TILE_N)
    of_member = tl.cdiv(tokens, TILE_M)
    runs = rows // tokens * of_member
    for tile in tl.range(tl.program_id(0), runs * columns, programs, flatten=DESCRIPTORS):
        run, n = place(tile, runs, columns, GROUP)
        member, first = run // of_member, run % of_member * TILE_M
        u1, u3 = products(
            x, w13, member * tokens + first, n * TILE_N, rows, dim, hidden, x_row, w_row,
            TILE_M, TILE_N, TILE_K, DESCRIPTORS, EXACT, INTEGER,
        )  # fmt: skip
        token = first + tl.arange(0, TILE_M)
        column = n * TILE_N + tl.arange(0, TILE_N)
        live, inside = token < tokens, column < hidden
        at = (member * tokens + token).to(tl.int64)
        u1, u3 = scaled(
            u1, u3, scale_ptr, scale_ptr, shift_ptr, member, at, live, column, inside, hidden,
            SCALED, SHIFTED, INTEGER,
        )  # fmt: skip
        both = live[:, None] & inside[None, :]
        if DESCRIPTORS:
            slope = slope_in.load([member, first, n * TILE_N]).reshape(TILE_M, TILE_N)
        else:
            slope = tl.load(slope_in + at[:, None] * hidden + column[None, :], mask=both, other=0.0)
        slope = slope.to(tl.float32)
        bend = tl.sigmoid(u1)
        du3 = slope * u1 * bend
        du1 = slope * u3 * bend * (1.0 + u1 * (1.0 - bend))
        if DESCRIPTORS:
            du_out.store([member, first, 0, n * TILE_N], du1.reshape(1, TILE_M, 1, TILE_N))
            du_out.store([member, first, 1, n * TILE_N], du3.reshape(1, TILE_M, 1, TILE_N))
        else:
            du_at = du_out + at[:, None] * (2 * hidden) + column[None, :]
            tl.store(du_at, du1.to(du_out.dtype.element_ty), mask=both)
            tl.store(du_at + hidden, du3.to(du_out.dtype.element_ty), mask=both)
        if SHIFTED:
            # Rows after the last token of the member are of the next one.
            total = tl.sum(tl.where(live[:, None], du1, 0.0), 0)
            tl.store(sum_ptr + run.to(tl.int64) * hidden + column, total, mask=inside)


def launch_of(dtype: torch.dtype, capability: tuple[int, int]) -> Launch:
    """Shape of a program by type of the input and compute capability."""
    descriptors = has_room(capability)
    if dtype == torch.float32:
        return Launch(64, 32, 32, 4, 2, descriptors)
    if descriptors:
        return Launch(128, 64, 64, 8, 4, descriptors)
    return Launch(128, 64, 32, 8, 3, descriptors)


def gradient(
    slope: Tensor,
    x: Tensor,
    scale: Tensor | None,
    w13: Tensor,
    shift: Tensor | None,
    *,
    launch: Launch | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Slopes of u1 = scale (x W1^T) + shift and u3 = scale (x W3^T).

    Args:
        slope: of the result, (batch, token, hidden).
        launch: shape of a program, None for that of the device.

    Returns:
        (batch, token, 2 hidden), dtype of x, that of u1 first; and the sum of that of u1 over
        tokens, (batch, hidden), float32, where there is a shift.
    """
    batch, tokens, dim = x.shape
    hidden = w13.shape[0] // 2
    launch = launch or launch_of(x.dtype, capability(x, interpreted=(9, 0)))
    rows, weights = rows_of(x), rows_of(w13)
    slope = rows_of(slope.contiguous()).view(slope.shape)
    du = x.new_empty(batch, tokens, 2 * hidden)
    sums = None
    if shift is not None:
        parts = triton.cdiv(tokens, launch.tile_m)
        sums = torch.empty(batch, parts, hidden, dtype=torch.float32, device=x.device)
    count = programs(x)
    with on_device(x):
        _gradient[(count,)](
            *launch.described(
                (rows, launch.tile_m, launch.tile_k),
                (weights, launch.tile_n, launch.tile_k),
                (slope, 1, launch.tile_m, launch.tile_n),
                (du.unflatten(-1, (2, -1)), 1, launch.tile_m, 1, launch.tile_n),
            ),
            sums,
            None if scale is None else scale.float().contiguous(),
            None if shift is None else shift.contiguous(),
            tokens, dim, hidden, batch * tokens, rows.stride(0), weights.stride(0), count,
            SCALED=scale is not None, SHIFTED=shift is not None,
            **launch.constants(x.dtype), num_warps=launch.warps, num_stages=launch.stages,
        )  # fmt: skip
    return du, None if sums is None else sums.sum(1)
