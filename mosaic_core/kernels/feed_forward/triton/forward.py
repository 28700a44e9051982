"""SwiGLU in Triton: both products of a tile in two accumulators, the gate in the epilogue.

A program takes one tile of the hidden features after the other. None holds tokens of two members,
so that the shift is one vector a tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.kernels.feed_forward.triton.tiles import (
    Launch,
    has_room,
    load_tile,
    place,
    programs,
    rows_of,
)
from mosaic_core.kernels.launch import capability, on_device


@triton.jit
def products(
    x, w13, row, feature, rows, dim, hidden, x_row, w_row,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
    DESCRIPTORS: tl.constexpr, EXACT: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    """Tiles of x W1^T and x W3^T, summed in float32 or int32."""
    PRECISION: tl.constexpr = "ieee" if EXACT else "tf32"
    SUM: tl.constexpr = tl.int32 if INTEGER else tl.float32
    u1 = tl.zeros((TILE_M, TILE_N), SUM)
    u3 = tl.zeros((TILE_M, TILE_N), SUM)
    for k in range(0, dim, TILE_K):
        a = load_tile(x, row, k, rows, dim, x_row, TILE_M, TILE_K, DESCRIPTORS)
        b1 = load_tile(w13, feature, k, 2 * hidden, dim, w_row, TILE_N, TILE_K, DESCRIPTORS)
        b3 = load_tile(
            w13, hidden + feature, k, 2 * hidden, dim, w_row, TILE_N, TILE_K, DESCRIPTORS
        )
        u1 = tl.dot(a, tl.trans(b1), u1, input_precision=PRECISION, out_dtype=SUM)
        u3 = tl.dot(a, tl.trans(b3), u3, input_precision=PRECISION, out_dtype=SUM)
    return u1, u3


@triton.jit
def scaled(
    u1, u3, scale_ptr, w_scale_ptr, shift_ptr, member, at, live, column, inside, hidden,
    SCALED: tl.constexpr, SHIFTED: tl.constexpr, INTEGER: tl.constexpr,
):  # fmt: skip
    """Apply the factors of rows and weights, then the shift of the member to the gate."""
    if INTEGER:
        w1 = tl.load(w_scale_ptr + column, mask=inside, other=0.0)
        w3 = tl.load(w_scale_ptr + hidden + column, mask=inside, other=0.0)
        u1 = u1.to(tl.float32) * w1[None, :]
        u3 = u3.to(tl.float32) * w3[None, :]
    if SCALED:
        scale = tl.load(scale_ptr + at, mask=live, other=0.0)[:, None]
        u1 *= scale
        u3 *= scale
    if SHIFTED:
        shift = tl.load(shift_ptr + member * hidden + column, mask=inside, other=0.0)
        u1 += shift.to(tl.float32)[None, :]
    return u1, u3


@triton.jit
def _swiglu(
    x, w13, h_out, scale_ptr, w_scale_ptr, shift_ptr,
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
            u1, u3, scale_ptr, w_scale_ptr, shift_ptr, member, at, live, column, inside, hidden,
            SCALED, SHIFTED, INTEGER,
        )  # fmt: skip
        h = u1 * tl.sigmoid(u1) * u3
        if DESCRIPTORS:
            h_out.store([member, first, n * TILE_N], tl.reshape(h, (1, TILE_M, TILE_N)))
        else:
            tl.store(
                h_out + at[:, None] * hidden + column[None, :],
                h.to(h_out.dtype.element_ty),
                mask=live[:, None] & inside[None, :],
            )


def launch_of(dtype: torch.dtype, capability: tuple[int, int]) -> Launch:
    """Shape of a program by type of the input and compute capability."""
    descriptors = has_room(capability)
    if dtype == torch.float32:
        return Launch(64, 32, 32, 4, 2, descriptors)
    if dtype == torch.int8:
        tiles = (128, 128, 128, 8, 3) if descriptors else (128, 64, 64, 8, 4)
    else:
        tiles = (128, 128, 64, 8, 3) if descriptors else (128, 64, 32, 4, 4)
    return Launch(*tiles, descriptors)


def swiglu(
    x: Tensor,
    scale: Tensor | None,
    w13: Tensor,
    shift: Tensor | None,
    *,
    w_scale: Tensor | None = None,
    out: Tensor | None = None,
    launch: Launch | None = None,
) -> Tensor:
    """See `mosaic_core.kernels.feed_forward.swiglu.swiglu`.

    Args:
        w_scale: (2 hidden,), factors of the weights where x and w13 are int8; `out` is given then.
        out: (batch, token, hidden), contiguous.
        launch: shape of a program, None for that of the device.
    """
    batch, tokens, dim = x.shape
    hidden = w13.shape[0] // 2
    out = x.new_empty(batch, tokens, hidden) if out is None else out
    launch = launch or launch_of(x.dtype, capability(x, interpreted=(9, 0)))
    rows, weights = rows_of(x), rows_of(w13)
    count = programs(x)
    with on_device(x):
        _swiglu[(count,)](
            *launch.described(
                (rows, launch.tile_m, launch.tile_k),
                (weights, launch.tile_n, launch.tile_k),
                (out, 1, launch.tile_m, launch.tile_n),
            ),
            None if scale is None else scale.float().contiguous(),
            w_scale,
            None if shift is None else shift.contiguous(),
            tokens, dim, hidden, batch * tokens, rows.stride(0), weights.stride(0), count,
            SCALED=scale is not None, SHIFTED=shift is not None,
            **launch.constants(x.dtype), num_warps=launch.warps, num_stages=launch.stages,
        )  # fmt: skip
    return out
